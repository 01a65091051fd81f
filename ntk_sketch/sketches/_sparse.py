"""Sparse inputs of sketches: `BCOO` arrays and SciPy matrices."""

import math
from functools import partial
from typing import Any, TypeAlias

import equinox as eqx
import jax
import numpy as np
import scipy.sparse
from jax import numpy as jnp
from jax.experimental.sparse import BCOO

from .._typing import Array, Inputs
from ._sketch import check_real, checked_vectors

#: A `BCOO` array (..., d) without batch and dense axes, or a SciPy matrix whose rows are examples.
Sparse: TypeAlias = BCOO | scipy.sparse.sparray | scipy.sparse.spmatrix

_LARGEST_INDEX = np.iinfo(np.int32).max


class Coordinates(eqx.Module):
    """A sparse array (..., d): values of its entries, and an array of indices for each axis."""

    data: Array | np.ndarray
    indices: tuple[Array | np.ndarray, ...]
    shape: tuple[int, ...] = eqx.field(static=True)

    @property
    def dtype(self) -> jnp.dtype:
        """The dtype of the values."""
        return self.data.dtype


def checked_inputs(x: Inputs | Sparse, d: int, name: str = "x") -> Any:
    """Vectors (..., d) as a JAX array, a `BCOO`, or the `Coordinates` of a SciPy matrix."""
    if isinstance(x, Sparse):
        return _checked_sparse(x, d, name)
    return checked_vectors(x, d, name)


def _checked_sparse(x: Any, d: int, name: str) -> BCOO | Coordinates:
    if isinstance(x, BCOO):
        if x.n_batch or x.n_dense:
            raise ValueError(
                f"{name} has {x.n_batch} batch and {x.n_dense} dense axes; all axes must be sparse."
                " Convert it with `x.update_layout(n_batch=0, n_dense=0)`, or use `jax.vmap`."
            )
    elif x.ndim != 2:
        raise ValueError(f"{name} must be a sparse matrix of rows (n, {d}), got shape {x.shape}.")
    if x.ndim == 0 or x.shape[-1] != d:
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}; this sketch was drawn for (..., {d}). Draw one"
            " with the dimension of the last axis."
        )
    x = x if isinstance(x, BCOO) else x.tocsr()
    check_real(x.data, f"{name}.data")
    return x if isinstance(x, BCOO) else _padded(x)


def _padded(x: Any) -> Coordinates:
    """A SciPy CSR matrix, padded by at most an eighth, so that matrices with similar numbers of
    non-zeros share a program.
    """
    n, d = x.shape
    step = 1 << max(x.nnz.bit_length() - 4, 0)
    padding = -x.nnz % step
    # Padding has indices outside of the array, as in `BCOO`.
    of_rows = np.append(np.diff(x.indptr), padding)
    rows = np.repeat(np.arange(n + 1, dtype=np.int32), of_rows)
    columns = np.pad(x.indices, (0, padding), constant_values=d)
    return Coordinates(np.pad(x.data, (0, padding)), (rows, columns), x.shape)


@partial(jax.jit, static_argnums=3)
def sum_by_bucket(x: BCOO | Coordinates, buckets: Array, signs: Array, m: int) -> Array:
    """`Σ_i signs_i x_i` over the i in each of m buckets: (..., d) to (..., m).

    Duplicate entries add up, and their order does not matter. The time is linear in the non-zeros
    and the result.
    """
    if isinstance(x, BCOO):
        x = Coordinates(x.data, tuple(jnp.moveaxis(x.indices, -1, 0)), x.shape)
    *rows, columns = x.indices
    # Padding has indices outside of the array, so that it has no bucket and is dropped.
    values = x.data * signs.astype(x.dtype).at[columns].get(mode="fill", fill_value=0)
    places = (*rows, buckets.at[columns].get(mode="fill", fill_value=m))
    shape = (*x.shape[:-1], m)
    result = jnp.zeros(shape, x.dtype)
    if math.prod(shape) > _LARGEST_INDEX:
        return result.at[places].add(values, mode="drop")
    # One index for all axes is faster than one for each.
    flat, inside = jnp.zeros(columns.shape, jnp.int32), jnp.ones(columns.shape, bool)
    for index, size in zip(places, shape, strict=True):
        flat, inside = flat * size + index.astype(jnp.int32), inside & (index < size)
    flat = jnp.where(inside, flat, result.size)
    return result.ravel().at[flat].add(values, mode="drop").reshape(shape)
