"""Regression with infinitely wide networks, for scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import MultiOutputMixin, RegressorMixin

from ._ridge import RidgeEstimator, weights_of


class NTKRegressor(MultiOutputMixin, RegressorMixin, RidgeEstimator):
    """Regression with the kernel of an infinitely wide network, of any number of rows.

    Use this where `KernelRidge` or `GaussianProcessRegressor` are too slow: rows are read once, at
    a cost linear in their number, and memory does not depend on it. Standardise columns first, and
    clip outliers. Predictions minimise, over linear functions of p features z,

        Σᵢ wᵢ (yᵢ - b - z(xᵢ)·v)² + λ |v|²,     λ = alpha · mean of |z(xᵢ)|².

    They are the mean of a Gaussian process, whose standard deviation is returned by
    `predict(X, return_std=True)`.

    Parameters
    ----------
    n_components, depth, activation, W_std, b_std, kernel, method, model, image_shape, batch_size,
    random_state :
        As for `NTKFeatures`.
    alpha : float, sequence of float, "gcv" or "loo", default="gcv"
        The regulariser, relative to the mean squared norm of the features. "gcv" and "loo" choose
        among 15 values from 1e-7 to 1, and beyond, by generalised cross-validation (from the sums),
        or by the exact leave-one-out error (a second pass). From a sequence the value is chosen by
        "gcv". Scores leave out rows that are landmarks.
    fit_intercept : bool, default=True
        Adds the constant b, which is not regularised.
    feature_learning : int, default=0
        Largest number of rounds of feature learning. Each round rescales the columns by the average
        outer product of the gradients of the predictor, and fits again, as long as the error on a
        held-out fifth of the rows falls. Then all rows are fitted. Set it for tables with
        irrelevant columns.
    relevance : {"diagonal", "full"}, default="diagonal"
        Whether feature learning scales columns, or rotates them too.

    Attributes
    ----------
    alpha_ : float
        The regulariser used.
    feature_map_ : ntk_sketch.FeatureMap
    solution_ : ntk_sketch.RidgeSolution
    statistics_ : ntk_sketch.solvers.GramState
    n_features_in_ : int
    feature_names_in_ : ndarray of str

    Notes
    -----
    Prepare mixed columns, with numbers standardised and clipped and categories one-hot, by

        make_column_transformer(
            (make_pipeline(StandardScaler(), FunctionTransformer(np.clip, kw_args={"a_min": -4,
             "a_max": 4})), numbers),
            (OneHotEncoder(handle_unknown="ignore", min_frequency=20), categories))

    Feature learning is the recursive feature machine of Radhakrishnan et al. (Science 383, 2024).

    With an integer `random_state`, fits on the same data that differ only in `alpha` or
    `fit_intercept`, such as those of `GridSearchCV`, share features and sums. Up to 512 MiB of them
    are kept in the process.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_sketch.interop.sklearn import NTKRegressor
    >>> x = np.random.default_rng(0).normal(size=(200, 3))
    >>> y = np.abs(x).sum(1)
    >>> model = NTKRegressor(50, random_state=0).fit(x[:150], y[:150])
    >>> bool(model.score(x[150:], y[150:]) > 0.9)
    True
    >>> mean, std = model.predict(x[150:], return_std=True)
    >>> std.shape
    (50,)
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> NTKRegressor:
        """
        Parameters
        ----------
        X : (n, d) array, data frame or sparse matrix
        y : (n,) or (n, outputs)
        sample_weight : (n,), default=None
        """
        self._in_parts = False
        return self._fitted(X, y, sample_weight, go_on=False)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> NTKRegressor:
        """Adds rows to those seen. Landmarks are chosen from the first call; with "gcv" the
        regulariser is chosen by all rows so far, landmarks included."""
        self._in_parts = True
        return self._fitted(X, y, sample_weight, go_on=hasattr(self, "statistics_"))

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Means (n,) or (n, outputs). With `return_std` also the standard deviation of an
        observation, of the same shape: that of the posterior and of the noise set by `alpha`."""
        mean = self._means(X)
        if not return_std:
            return mean
        spread = self._spreads(X).astype(mean.dtype, copy=False)
        return mean, spread.reshape(mean.shape)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = False
        return tags

    def _fitted(self, X: Any, y: Any, sample_weight: Any, *, go_on: bool) -> NTKRegressor:
        options = {"multi_output": True, "y_numeric": True, "ensure_min_samples": 1 if go_on else 2}
        rows, y = self._rows(X, y, reset=not go_on, **options)
        weights = weights_of(sample_weight, rows)
        self._fit(rows, np.asarray(y, np.float64), weights, go_on=go_on)
        return self
