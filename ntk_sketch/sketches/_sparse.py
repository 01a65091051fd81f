"""Sparse inputs of sketches: `BCOO` arrays on the device, SciPy matrices on the host."""

import math
from functools import partial
from typing import Any, TypeAlias

import jax
import numpy as np
import scipy.sparse
from jax import numpy as jnp
from jax.core import Tracer
from jax.experimental.sparse import BCOO

from .._typing import Array, Inputs
from ._sketch import checked_vectors

#: A `BCOO` array (..., d) without batch and dense axes, or a SciPy matrix whose rows are examples.
Sparse: TypeAlias = BCOO | scipy.sparse.sparray | scipy.sparse.spmatrix


def checked_inputs(x: Inputs | Sparse, d: int, name: str = "x") -> Any:
    """Vectors (..., d) as a JAX array, as `BCOO`, or as SciPy's CSR whatever the format was."""
    if isinstance(x, Sparse):
        return _checked_sparse(x, d, name)
    return checked_vectors(x, d, name)


def _checked_sparse(x: Any, d: int, name: str) -> Any:
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
    host = isinstance(x.data, np.ndarray) and np.issubdtype(x.dtype, np.floating)
    if not (host and np.isfinite(x.data).all()):  # no trip to the device if all is well
        checked_vectors(x.data, x.data.shape[-1], f"{name}.data")
    return x


def sum_by_bucket(x: Any, buckets: Array, signs: Array, m: int) -> Array:
    """`Σ_i signs_i x_i` over the i in each of m buckets: (..., d) to (..., m).

    Duplicate entries add up, and their order does not matter. The time is that of the non-zeros and
    of the result.
    """
    if isinstance(x, BCOO):
        return _device_sum(x, buckets, signs, m)
    if isinstance(buckets, Tracer):
        raise TypeError(
            "SciPy matrices are sketched on the host, outside of jit and vmap. Convert the matrix"
            " with `jax.experimental.sparse.BCOO.from_scipy_sparse`."
        )
    # A CSR matrix with other column numbers; `toarray` adds those that have become equal.
    dtype = jax.dtypes.canonicalize_dtype(x.dtype)
    data = x.data.astype(dtype, copy=False) * np.asarray(signs, dtype).take(x.indices)
    parts = (data, np.asarray(buckets).take(x.indices), x.indptr)
    result = scipy.sparse.csr_array(parts, shape=(x.shape[0], m))
    return jnp.asarray(result.toarray(out=_aligned((x.shape[0], m), dtype)))


def _aligned(shape: tuple[int, ...], dtype) -> np.ndarray:
    """An empty array that begins at a multiple of 64 bytes: on a CPU, JAX takes it without a
    copy.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


@partial(jax.jit, static_argnums=3)
def _device_sum(x: BCOO, buckets: Array, signs: Array, m: int) -> Array:
    *rows, columns = jnp.moveaxis(x.indices, -1, 0)
    # Padding has indices outside of the array: no bucket, and a row that is dropped.
    values = x.data * signs.astype(x.dtype).at[columns].get(mode="fill", fill_value=0)
    buckets = buckets.at[columns].get(mode="fill", fill_value=m)
    result = jnp.zeros((*x.shape[:-1], m), x.dtype)
    return result.at[(*rows, buckets)].add(values, mode="drop")
