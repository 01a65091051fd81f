"""Decompositions in float64, by LAPACK on the host or by JAX on a GPU.

Every function takes NumPy matrices, and then calls LAPACK, or JAX matrices, and then runs on their
device. `in_float64` decides which: it leaves arrays on a GPU. The user's x64 setting is neither
needed nor changed. Small results (eigenvalues, columns) are returned on the host.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax import lax
from jaxtyping import Float

from .._typing import Inputs
from ._precision import float64

#: JAX's platforms that decompose matrices in float64. On a CPU LAPACK is faster than XLA for
#: eigenvectors; TPUs emulate float64.
PLATFORMS: tuple[str, ...] = ("gpu",)

#: Rows that are converted to float64 at a time on a device.
_ROWS = 4096


def in_place(array: Inputs) -> Inputs:
    """An array without derivative, on its device if that is one of `PLATFORMS`, else in NumPy."""
    if isinstance(array, np.ndarray):
        return array
    array = lax.stop_gradient(array)
    there = hasattr(array, "devices") and _platform_of(array) in PLATFORMS
    return array if there else np.asarray(array)


def in_float64(array: Inputs) -> Inputs:
    """The result of `in_place`, in float64."""
    array = in_place(array)
    if isinstance(array, np.ndarray):
        return array.astype(np.float64)
    with float64():
        return array.astype(jnp.float64)


def at_home(array: np.ndarray) -> Inputs:
    """A NumPy array in float64, moved to JAX's default device if that is one of `PLATFORMS`."""
    if _platform_of(jax.device_put(np.zeros(()))) not in PLATFORMS:
        return array.astype(np.float64)
    with float64():
        return jax.device_put(array).astype(jnp.float64)


def on_host(array: Inputs) -> np.ndarray:
    """An array without its derivative as float64 in NumPy."""
    if not isinstance(array, np.ndarray):
        array = np.asarray(lax.stop_gradient(array))
    return array.astype(np.float64)


def namespace(array: Inputs) -> ModuleType:
    """The module of functions for an array, NumPy or `jax.numpy`, to use under `float64()`."""
    return np if isinstance(array, np.ndarray) else jnp


def _platform_of(array: jax.Array) -> str:
    return next(iter(array.devices())).platform


def eigh(
    matrix: Float[Inputs, "m m"], *, overwrite: bool = False
) -> tuple[Float[np.ndarray, " m"], Float[Inputs, "m m"]]:
    """Eigenvalues in ascending order on the host, and eigenvectors in columns. About 9 m³ FLOPs.

    Args:
      overwrite: whether the memory of the matrix may be overwritten.

    Raises:
      numpy.linalg.LinAlgError: no convergence, for example if the matrix is not finite.
    """
    if isinstance(matrix, np.ndarray):
        # LAPACK can overwrite Fortran order, which the transpose of an array in C order has
        return scipy.linalg.eigh(matrix.T, driver="evd", overwrite_a=overwrite, check_finite=False)
    with float64():
        values, vectors = _eigh(matrix)
        return _finite(np.asarray(values), "eigenvalues"), vectors


def eigvalsh(matrix: Float[Inputs, "m m"]) -> Float[np.ndarray, " m"]:
    """Eigenvalues in ascending order. About 4 m³ / 3 FLOPs."""
    if isinstance(matrix, np.ndarray):
        return np.linalg.eigvalsh(matrix)
    with float64():
        return _finite(np.asarray(jnp.linalg.eigvalsh(matrix)), "eigenvalues")


def factor(matrix: Float[Inputs, "m m"], shift: float = 0.0) -> Float[Inputs, "m m"]:
    """The lower triangular L of `matrix + shift I = L Lᵀ`. m³ / 3 FLOPs.

    Raises:
      numpy.linalg.LinAlgError: `matrix + shift I` is not positive definite.
    """
    if not isinstance(matrix, np.ndarray):
        with float64():
            lower = _factor(matrix, np.float64(shift))
            _finite(np.asarray(jnp.diagonal(lower)), "factor")
            return lower
    shifted = np.array(matrix, order="F")
    shifted.flat[:: len(matrix) + 1] += shift
    return scipy.linalg.cholesky(shifted, lower=True, overwrite_a=True, check_finite=False)


def lower_solved(
    lower: Float[Inputs, "m m"], columns: Float[np.ndarray, "m k"]
) -> Float[np.ndarray, "m k"]:
    """`L⁻¹ columns` on the host. m² k FLOPs."""
    if isinstance(lower, np.ndarray):
        return scipy.linalg.solve_triangular(lower, columns, lower=True, check_finite=False)
    with float64():
        return np.asarray(_lower_solved(lower, jnp.asarray(columns)))


def factor_solved(
    lower: Float[Inputs, "m m"], columns: Float[np.ndarray, "m ..."]
) -> Float[np.ndarray, "m ..."]:
    """`(L Lᵀ)⁻¹ columns` on the host. 2 m² k FLOPs."""
    if isinstance(lower, np.ndarray):
        return scipy.linalg.cho_solve((lower, True), columns, check_finite=False)
    with float64():
        found = _factor_solved(lower, jnp.asarray(columns).reshape(len(columns), -1))
        return np.asarray(found).reshape(columns.shape)


def inverse_norm(lower: Float[Inputs, "m m"]) -> float:
    """The squared Frobenius norm of L⁻¹, which is the trace of (L Lᵀ)⁻¹.

    It takes m³ / 3 FLOPs with LAPACK and overwrites L; m³ FLOPs on a device.
    """
    if isinstance(lower, np.ndarray):
        (invert,) = scipy.linalg.get_lapack_funcs(("trtri",), (lower,))
        inverse, failed = invert(lower, lower=1, overwrite_c=1)
        if failed:
            raise np.linalg.LinAlgError("a zero on the diagonal of the factor")
        return squared_norm(inverse)
    with float64():
        return squared_norm(_lower_solved(lower, jnp.eye(len(lower), dtype=lower.dtype)))


def product(
    matrix: Float[Inputs, "m r"], columns: Float[Inputs, "r ..."]
) -> Float[np.ndarray, "m ..."]:
    """`matrix @ columns` on the host."""
    with float64():
        return np.asarray(matrix @ columns)


def transposed_product(
    matrix: Float[Inputs, "m r"], columns: Float[Inputs, "m ..."]
) -> Float[np.ndarray, "r ..."]:
    """`matrix.T @ columns` on the host."""
    with float64():
        return np.asarray(matrix.T @ columns)


def squared_norm(matrix: Float[Inputs, "m r"]) -> float:
    """The sum of the squares of all entries."""
    with float64():
        if isinstance(matrix, np.ndarray):
            entries = matrix.reshape(-1, order="A")  # no copy, in Fortran order too
            return float(entries @ entries)
        return float(jnp.vdot(matrix, matrix))


def rows(matrix: Float[Inputs, "m r"], index: np.ndarray) -> Float[np.ndarray, "b r"]:
    """Some rows of a matrix, on the host."""
    with float64():
        return np.asarray(matrix[index])


def diagonal(matrix: Inputs) -> np.ndarray:
    """The diagonal in float64 on the host; a matrix on a GPU is not copied as a whole."""
    matrix = in_place(matrix)
    if isinstance(matrix, np.ndarray):
        return np.diagonal(matrix).astype(np.float64)
    with float64():
        return np.asarray(jnp.diagonal(matrix)).astype(np.float64)


def stacked(strips: Iterable[Float[Inputs, "_ m"]], count: int) -> Float[Inputs, "n m"]:
    """A matrix of `count` rows from consecutive strips of rows.

    On the host it is in float64, and holds one strip at a time besides; on a device it has the
    dtype of the strips.
    """
    values: list[Any] = []
    done = 0
    for strip in strips:
        if not isinstance(strip, np.ndarray):
            values.append(strip)
            continue
        if not values:
            values = [np.empty((count, strip.shape[1]))]
        values[0][done : done + len(strip)] = strip
        done += len(strip)
    with float64():
        return values[0] if len(values) == 1 else jnp.concatenate(values)


def quadratic_forms(
    rows: Float[Inputs, "n m"], matrix: Float[Inputs, "m m"]
) -> Float[np.ndarray, " n"]:
    """`rᵀ M r` of every row r."""
    if isinstance(rows, np.ndarray):
        return np.sum((rows @ matrix) * rows, axis=1)
    with float64():
        parts = (rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS))
        found = (part.astype(jnp.float64) for part in parts)
        return np.concatenate([np.asarray(jnp.sum((r @ matrix) * r, axis=1)) for r in found])


def is_finite(array: Inputs) -> bool:
    """Whether all entries are finite."""
    array = in_place(array)
    if isinstance(array, np.ndarray):
        return bool(np.isfinite(array).all())
    with float64():
        return bool(jnp.isfinite(array).all())


@jax.jit
def _eigh(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.linalg.eigh(matrix, symmetrize_input=False)


@jax.jit
def _factor(matrix: jax.Array, shift: jax.Array) -> jax.Array:
    identity = jnp.eye(len(matrix), dtype=matrix.dtype)
    return lax.linalg.cholesky(matrix + shift * identity, symmetrize_input=False)


@jax.jit
def _lower_solved(lower: jax.Array, columns: jax.Array) -> jax.Array:
    return lax.linalg.triangular_solve(lower, columns, left_side=True, lower=True)


@jax.jit
def _factor_solved(lower: jax.Array, columns: jax.Array) -> jax.Array:
    options = {"left_side": True, "lower": True}
    half = lax.linalg.triangular_solve(lower, columns, **options)
    return lax.linalg.triangular_solve(lower, half, transpose_a=True, **options)


def _finite(array: np.ndarray, what: str) -> np.ndarray:
    """Raises LinAlgError for NaN, which XLA returns in place of errors."""
    if not np.isfinite(array).all():
        raise np.linalg.LinAlgError(f"{what} are not finite")
    return array
