"""Classification with infinitely wide networks, for scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import log_ndtr, ndtr, softmax
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets

from ._ridge import RidgeEstimator, weights_of

_POINTS = 32  # number of points of Gauss-Hermite quadrature


class NTKClassifier(ClassifierMixin, RidgeEstimator):
    """Classification by regression on class indicators, with the kernel of an infinitely wide net.

    Use this like `RidgeClassifier`, if classes are not linear functions of the columns. The target
    is 1 for the class of a row, and for other classes -1 / (classes - 1), which is -1 for two
    classes. The class with the largest prediction is returned.

    Parameters
    ----------
    n_components, depth, activation, W_std, b_std, kernel, method, model, image_shape, batch_size,
    random_state :
        As for `NTKFeatures`.
    alpha, fit_intercept, feature_learning, relevance :
        As for `NTKRegressor`.

    Attributes
    ----------
    classes_ : ndarray of the labels, in sorted order
    alpha_, feature_map_, solution_, statistics_, n_features_in_, feature_names_in_ :
        As for `NTKRegressor`.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_sketch.interop.sklearn import NTKClassifier
    >>> x = np.random.default_rng(0).normal(size=(300, 2))
    >>> y = np.where(x[:, 0] * x[:, 1] > 0, "same sign", "other sign")
    >>> model = NTKClassifier(60, random_state=0).fit(x[:200], y[:200])
    >>> bool(model.score(x[200:], y[200:]) > 0.85)
    True
    >>> model.predict_proba(x[200:]).shape
    (100, 2)
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> NTKClassifier:
        """
        Parameters
        ----------
        X : (n, d) array, data frame or sparse matrix
        y : (n,) labels, strings or integers
        sample_weight : (n,), default=None
        """
        self._in_parts = False
        rows, y = self._checked(X, y, reset=True)
        self.classes_ = np.unique(y)
        return self._fitted(rows, y, sample_weight, go_on=False)

    def partial_fit(
        self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None
    ) -> NTKClassifier:
        """Adds rows to those seen. The first call needs all `classes`, and landmarks are from its
        rows."""
        self._in_parts, go_on = True, hasattr(self, "statistics_")
        rows, y = self._checked(X, y, reset=not go_on)
        if not go_on:
            if classes is None:
                raise ValueError("the first call of partial_fit needs classes=, all that will come")
            self.classes_ = np.unique(classes)
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(f"labels {unknown!r} are not among the classes {self.classes_!r}")
        return self._fitted(rows, y, sample_weight, go_on=go_on)

    def decision_function(self, X: Any) -> Float[np.ndarray, "n ..."]:
        """Predictions of the regression: (n, classes), or (n,) for two classes, positive for the
        second class."""
        return self._means(X)

    def predict(self, X: Any) -> np.ndarray:
        """Labels (n,)."""
        decision = self.decision_function(X)
        index = (decision > 0).astype(int) if decision.ndim == 1 else np.argmax(decision, axis=1)
        return self.classes_[index]

    def predict_proba(self, X: Any) -> Float[np.ndarray, "n classes"]:
        """The probability of each class c under the Gaussian process whose mean is the decision
        function: that its observation is the largest, P(f_c + e_c > f_d + e_d for all d)."""
        mean, spread = np.asarray(self._means(X), np.float64), self._spreads(X)
        if mean.ndim == 1:
            second = ndtr(mean / spread[:, 0])
            return np.stack([1 - second, second], axis=1).astype(self._dtype)
        return _share_of_largest(mean, spread).astype(self._dtype)

    def _checked(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, np.ndarray]:
        rows, y = self._rows(X, y, reset=reset, ensure_min_samples=2 if reset else 1)
        check_classification_targets(y)
        return rows, y

    def _fitted(self, rows: Any, y: np.ndarray, sample_weight: Any, *, go_on: bool):
        if len(self.classes_) < 2:
            raise ValueError(
                f"NTKClassifier needs at least two classes, got one class: {self.classes_[0]!r}"
            )
        weights = weights_of(sample_weight, rows)
        index = np.searchsorted(self.classes_, y)
        if len(self.classes_) == 2:
            targets = 2.0 * index - 1.0
        else:
            k = len(self.classes_)
            targets = np.where(np.arange(k) == index[:, None], 1.0, -1.0 / (k - 1))
        self._fit(rows, targets, weights, go_on=go_on)
        return self


def _share_of_largest(
    mean: Float[np.ndarray, "n k"], spread: Float[np.ndarray, "n k"]
) -> Float[np.ndarray, "n k"]:
    """P(x_c > x_d for all d) for independent normal numbers x.

    It is E Π_d Φ((x_c - mean_d) / spread_d), by Gauss-Hermite quadrature over x_c.
    """
    points, weights = np.polynomial.hermite_e.hermegauss(_POINTS)
    k = mean.shape[1]
    log_share = np.empty_like(mean)
    for c in range(k):
        x = mean[:, c, None] + spread[:, c, None] * points  # (n, points)
        others = [d for d in range(k) if d != c]
        logs = sum(log_ndtr((x - mean[:, d, None]) / spread[:, d, None]) for d in others)
        log_share[:, c] = np.logaddexp.reduce(logs + np.log(weights), axis=1)
    return softmax(log_share, axis=1)
