"""Sparse inputs of sketches: `BCOO` arrays and SciPy matrices."""

from functools import partial
from typing import Any, TypeAlias

import jax
import numpy as np
import scipy.sparse
from jax import numpy as jnp
from jax.experimental.sparse import BCOO

from .._typing import Array, Inputs
from ._sketch import checked_vectors

#: A `BCOO` array (..., d) without batch and dense axes, or a SciPy matrix whose rows are examples.
Sparse: TypeAlias = BCOO | scipy.sparse.sparray | scipy.sparse.spmatrix


def checked_inputs(x: Inputs | Sparse, d: int, name: str = "x") -> Array | BCOO:
    """Vectors (..., d) as a JAX array or as `BCOO`."""
    if isinstance(x, Sparse):
        return _checked_sparse(x, d, name)
    return checked_vectors(x, d, name)


def _checked_sparse(x: Any, d: int, name: str) -> BCOO:
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
    checked_vectors(x.data, x.data.shape[-1], f"{name}.data")
    return x if isinstance(x, BCOO) else _from_scipy(x.tocoo())


def _from_scipy(x: Any) -> BCOO:
    """Padded to one of four sizes an octave: batches that differ a little share one program."""
    step = 2 ** max(x.nnz.bit_length() - 3, 0)
    size = -(-x.nnz // step) * step
    data = np.zeros(size, x.dtype)
    indices = np.full((size, 2), x.shape, np.int32)
    data[: x.nnz], indices[: x.nnz, 0], indices[: x.nnz, 1] = x.data, x.row, x.col
    return BCOO((jnp.asarray(data), jnp.asarray(indices)), shape=x.shape)


@partial(jax.jit, static_argnums=3)
def sum_by_bucket(x: BCOO, buckets: Array, signs: Array, m: int) -> Array:
    """`Σ_i signs_i x_i` over the i in each of m buckets: (..., d) to (..., m).

    Duplicate entries add up, and their order does not matter. The time is that of the non-zeros and
    of the result.
    """
    *rows, columns = jnp.moveaxis(x.indices, -1, 0)
    # Padding has indices outside of the array: no bucket, and a row that is dropped.
    values = x.data * signs.astype(x.dtype).at[columns].get(mode="fill", fill_value=0)
    buckets = buckets.at[columns].get(mode="fill", fill_value=m)
    result = jnp.zeros((*x.shape[:-1], m), x.dtype)
    return result.at[(*rows, buckets)].add(values, mode="drop")
