"""Rows of a table to features of an infinitely wide network."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from ...streaming import stream
from ._estimator import NetworkEstimator, digits


class NTKFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, NetworkEstimator):
    """Features whose inner products approximate the kernel of an infinitely wide network.

    Use this like `sklearn.kernel_approximation.Nystroem`, before any linear estimator. For
    regression and classification use `NTKRegressor` and `NTKClassifier`, which never hold the
    features of all rows. Standardise columns first, by `make_pipeline(StandardScaler(),
    NTKFeatures(), ...)`.

        <transform(X)[i], transform(X)[j]>  ≈  kernel(X[i], X[j])

    Parameters
    ----------
    n_components : int or None, default=None
        Number of features; None: 1,024. For fully connected networks it is the number of landmark
        rows, and of features (fewer, with a warning, if there are fewer rows or if features would
        be rounding). There None means all different rows of a table given to `fit` that has no more
        than 1,024. With other methods and with convolutions it is the number of features of every
        nonlinearity, and `transform(X).shape[1]` depends on the method.
    depth : int, default=2
        Hidden layers.
    activation : str or callable, default="relu"
        "abs", "erf", "gelu", "leaky_relu", "relu", "sigmoid" or "sin"; or a constructor of
        `ntk_sketch.stax`.
    W_std, b_std : float, default=√2 and 1
        Standard deviation of weights (of a weight times √fan-in) and of biases. On standardised
        tables a bias of 1 is the best or nearly so (`experiments/regression`).
    kernel : {"ntk", "nngp"}, default="ntk"
        The kernel of gradient descent on all layers, or of the last layer alone (Bayesian).
    method : str or method of ntk_sketch, default="nystroem"
        "nystroem", "random_features", "leverage_score", "poly_sketch", "gegenbauer", each with
        `n_components`; or an object with its own width, such as `ns.Nystroem((64, 1024))`.
    model : layer of ntk_sketch.stax, default=None
        Any architecture, in place of `depth`, `activation`, `W_std` and `b_std`.
    image_shape : (height, width, channels), default=None
        Rows are images, pixel by pixel and then row by row of the image. Hidden layers are then 3x3
        convolutions, each followed by a mean over 2x2 pixels while the image has them.
    batch_size : int, default=None
        Rows that are computed at a time; None: from a memory budget.
    random_state : int, RandomState or None, default=None
        Seed of landmarks and random features.

    Attributes
    ----------
    feature_map_ : ntk_sketch.FeatureMap
    n_features_in_ : int
    feature_names_in_ : ndarray of str

    Notes
    -----
    Features are computed in the dtype of X: float64 or, twice as fast, float32. Sparse rows are
    made dense a few at a time. Cost: that of `ntk_sketch.Nystroem(n_components, scope="network")`,
    2 n d m + 4 n m² FLOPs for m components.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import RidgeCV
    >>> from sklearn.pipeline import make_pipeline
    >>> from ntk_sketch.interop.sklearn import NTKFeatures
    >>> x = np.random.default_rng(0).normal(size=(200, 3))
    >>> model = make_pipeline(NTKFeatures(50, random_state=0), RidgeCV())
    >>> bool(model.fit(x, np.abs(x).sum(1)).score(x, np.abs(x).sum(1)) > 0.9)
    True
    """

    def fit(self, X: Any, y: Any = None) -> NTKFeatures:
        """Draws landmarks from the rows of X (n, d); y is ignored."""
        rows = self._rows(X, reset=True)
        self.feature_map_ = self._map_of(rows)
        self._n_features_out = self._width(rows.dtype)
        return self

    def transform(self, X: Any) -> Float[np.ndarray, "n p"]:
        """The features of X."""
        check_is_fitted(self)
        rows = self._rows(X, reset=False)
        found = np.empty((len(rows), self._n_features_out), rows.dtype)
        options = {"get": self.kernel, "batch_size": self.batch_size, "progress": False}
        with digits(rows.dtype):
            for start, stop, z in stream(self.feature_map_, rows.inputs(), **options):
                found[start:stop] = z
        return found

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _width(self, dtype: np.dtype) -> int:
        with digits(dtype):
            return self.feature_map_.n_features[self.kernel]
