"""One class for all symmetric operators that multiply vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from jax.core import Tracer
from jaxtyping import Float

from .._arguments import as_array, checked_integer
from ..numerics._linalg import product as float64_product
from ..numerics._precision import canonical
from ..solvers._gram_state import GramState
from ._feature_gram import FeatureGram

_KINDS = (
    "a square array, a SciPy sparse matrix or LinearOperator, a GramState, a FeatureGram, or a"
    " function v -> A v of JAX with its size="
)


class Operator:
    """A + shift I, for a symmetric A of `size` rows.

    Attributes:
      size: n.
      function: v (n,) -> A v (n,) in JAX, for operators that JAX may trace; else None.
      dtype: of the vectors.
      sparse: A if it is a SciPy sparse matrix; else None.
      streamed: whether a product is a pass over examples.
      semidefinite: whether A is known to be positive semidefinite, as ZᵀZ or ZZᵀ.
    """

    function: Callable[[Any], Any] | None = None
    dtype: np.dtype = np.dtype(np.float64)
    sparse: Any = None

    def __init__(self, operator: Any, size: Any, shift: Any):
        self._shift = shift
        self.streamed = isinstance(operator, FeatureGram)
        self.semidefinite = isinstance(operator, GramState | FeatureGram)
        if isinstance(operator, GramState):
            self.size, gram = operator.gram.high.shape[0], operator.gram.in_place()
            self._block: Callable = lambda v: float64_product(gram, v)
        elif scipy.sparse.issparse(operator) or _is_linear_operator(operator):
            self.size = _side(operator.shape)
            _check_real(operator.dtype)
            if scipy.sparse.issparse(operator):
                self.sparse = scipy.sparse.csr_array(operator).astype(np.float64)
                _check_entries(self.sparse.data)
            kept = operator if self.sparse is None else self.sparse
            self._block = lambda v: kept @ v
        elif hasattr(operator, "kernel_fn"):
            raise TypeError(
                "the operator is a feature map; needed: the Gram matrix of its features on"
                " examples, FeatureGram(feature_map, x)"
            )
        elif callable(operator):
            if size is None:
                raise TypeError(
                    "a function v -> A v does not say how long v is: give size=n, its length"
                )
            self.size, function = checked_integer(size, "size"), operator
            self._set_function(function)
        else:
            matrix = as_array(operator, "operator", f"or {_KINDS}")
            self.size = _side(matrix.shape)
            _check_real(matrix.dtype)
            if isinstance(matrix, jax.Array):
                self._set_function(lambda v: jnp.matmul(matrix, v, precision="highest"))
            else:
                _check_entries(matrix)
                self._block = lambda v: matrix @ v
        if size is not None and self.size != size:
            raise ValueError(f"size={size}, but the operator has {self.size} rows: leave size out")

    @property
    def traced(self) -> bool:
        """Whether the entries of A or the shift are traced by `jax.grad` or `jax.jit`."""
        return self._traced

    def block(self, v: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
        """`(A + shift I) v`, a new array in float64."""
        found = np.asarray(self._block(v))
        if found.shape != v.shape:
            raise ValueError(
                f"the operator turned vectors of shape {v.shape} into {found.shape}; needed: the"
                " same shape"
            )
        return found + float(self._shift) * v if self._shift else np.array(found, np.float64)

    def one(self, v: Any) -> Any:
        """`(A + shift I) v` for one vector, in JAX."""
        assert self.function is not None
        return self.function(v) + jnp.asarray(self._shift).astype(v.dtype) * v

    _traced = False

    def _set_function(self, function: Callable[[Any], Any]) -> None:
        self.function = function
        self.dtype = canonical()
        v = jnp.ones(self.size, self.dtype)
        image = function(v)
        if getattr(image, "shape", None) != v.shape:
            raise ValueError(
                f"the operator turned a vector of shape {v.shape} into"
                f" {getattr(image, 'shape', type(image).__name__)}; needed: the same shape"
            )
        if not isinstance(image, jax.Array):
            raise TypeError(
                "a function must return an array of JAX; give one of NumPy as"
                " scipy.sparse.linalg.LinearOperator((n, n), matvec=...)"
            )
        _check_real(image.dtype)
        self._traced = isinstance(image, Tracer) or isinstance(self._shift, Tracer)
        if not self._traced:
            columns = jax.jit(jax.vmap(function, 1, 1))
            self._block = lambda v: columns(jnp.asarray(v.astype(self.dtype)))


def check_symmetric(operator: Operator, v: Float[np.ndarray, "n 2"]) -> None:
    """Raises ValueError unless uᵀ A v = vᵀ A u for two vectors, and products are finite."""
    image = operator.block(v)
    if not np.isfinite(image).all():
        raise ValueError(
            "products with the operator are NaN or infinite: look for such entries in it, or for"
            " overflow"
        )
    one, other = float(v[:, 0] @ image[:, 1]), float(v[:, 1] @ image[:, 0])
    eps = float(np.finfo(operator.dtype).eps)
    scale = float(np.linalg.norm(image[:, 0]) * np.linalg.norm(v[:, 1]))
    if abs(one - other) > 8 * eps**0.5 * scale / len(v) ** 0.5 + 64 * eps * scale:
        raise ValueError(
            f"the operator is not symmetric: uᵀ A v = {one:.6g}, but vᵀ A u = {other:.6g} for two"
            " random vectors; functions of its eigenvalues need a symmetric one, such as (A + A.T)"
            " / 2"
        )


def gershgorin(operator: Operator) -> tuple[float, float] | None:
    """An interval that holds all eigenvalues, for a sparse A; else None.

    Its ends are extremes over rows of the diagonal entry minus, and plus, the sum of the absolute
    values of the others.
    """
    if operator.sparse is None:
        return None
    shift, diagonal = float(operator._shift), operator.sparse.diagonal()
    others = np.asarray(abs(operator.sparse).sum(axis=1)).reshape(-1) - np.abs(diagonal)
    return float((diagonal - others).min()) + shift, float((diagonal + others).max()) + shift


def _is_linear_operator(operator: Any) -> bool:
    return isinstance(operator, scipy.sparse.linalg.LinearOperator)


def _side(shape: tuple[int, ...]) -> int:
    if len(shape) != 2 or shape[0] != shape[1] or not shape[0]:
        raise ValueError(f"the operator has shape {tuple(shape)}; needed: a square one, (n, n)")
    return int(shape[0])


def _check_real(dtype: Any) -> None:
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"the operator has dtype {dtype}; needed: real floating point numbers (A.astype(float))"
        )


def _check_entries(entries: np.ndarray) -> None:
    if not np.isfinite(entries).all():
        bad = int(np.sum(~np.isfinite(entries)))
        raise ValueError(f"the operator has {bad} entries that are NaN or infinite")
