"""The base class of all estimators: parameters of the network, and its feature map."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import jax
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data

from ...maps import FeatureMap, feature_map
from ...methods import Method
from ...numerics._precision import float64
from ...stax import Layer
from ._learning import Rescaled
from ._network import WIDTH, Images, image_shape_of, method_of, network_of
from ._rows import Rows

#: Rows from which landmarks are drawn: enough for the largest widths, few enough to fit in seconds.
_SAMPLE = 20_000


class Plan(NamedTuple):
    """The parts of a feature map that do not depend on data."""

    model: Layer
    method: Method
    preprocess: Images | None


class NetworkEstimator(BaseEstimator):
    """Base class of the estimators; `NTKFeatures` documents its parameters."""

    _in_parts = False  # whether the rows are the first of several parts

    def __init__(
        self,
        n_components: int | None = None,
        *,
        depth: int = 2,
        activation: Any = "relu",
        W_std: float = 2**0.5,
        b_std: float | None = 1.0,
        kernel: str = "ntk",
        method: Any = "nystroem",
        model: Layer | None = None,
        image_shape: tuple[int, int, int] | None = None,
        batch_size: int | None = None,
        random_state: Any = None,
    ):
        self.n_components = n_components
        self.depth = depth
        self.activation = activation
        self.W_std = W_std
        self.b_std = b_std
        self.kernel = kernel
        self.method = method
        self.model = model
        self.image_shape = image_shape
        self.batch_size = batch_size
        self.random_state = random_state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _rows(self, X: Any, y: Any = "no_validation", *, reset: bool, **options: Any) -> Any:
        """X, checked, as `Rows`; and y if it is given."""
        options |= {"accept_sparse": "csr", "dtype": [np.float64, np.float32], "reset": reset}
        found = validate_data(self, X, y, **options)
        return (Rows(found[0]), found[1]) if isinstance(found, tuple) else Rows(found)

    def _plan(self, rows: Rows) -> Plan:
        shape = image_shape_of(self.image_shape, rows.shape[1])
        vectors, model = self.model is None and shape is None, self.model
        if model is None:
            model = network_of(self.depth, self.activation, self.W_std, self.b_std, shape)
        method = method_of(self.method, self.n_components, vectors, self._distinct(rows))
        return Plan(model, method, None if shape is None else Images(shape))

    def _distinct(self, rows: Rows) -> int | None:
        """How many different rows a small table has; None: it is not small, or not whole."""
        if self._in_parts or len(rows) > WIDTH:
            return None
        return len(np.unique(rows[:], axis=0))

    def _map_of(self, rows: Rows, rescaled: Rescaled | None = None) -> FeatureMap:
        """A feature map with landmarks from these rows."""
        plan = self._plan(rows)
        rng = check_random_state(self.random_state)
        key = jax.random.key(int(rng.randint(np.iinfo(np.int32).max)))
        sample = rows.sample(_SAMPLE, rng)
        options = {"key": key, "get": (self.kernel,), "preprocess": rescaled or plan.preprocess}
        with digits(rows.dtype):
            return on_host(feature_map(plan.model, sample, plan.method, **options))


def digits(dtype: np.dtype) -> contextlib.AbstractContextManager:
    """A context in which JAX computes in this dtype, in this thread only."""
    return float64() if dtype == np.float64 else contextlib.nullcontext()


def on_host(tree: Any) -> Any:
    """The tree with NumPy arrays, which keep float64 when pickled even if JAX has 32 bits."""
    return jax.tree.map(lambda a: np.asarray(a) if isinstance(a, jax.Array) else a, tree)
