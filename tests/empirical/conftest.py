"""A tiny network of Neural Tangents, its kernels and its Jacobian, once for all tests."""

from typing import Any, NamedTuple

import jax
import neural_tangents as nt
import numpy as np
import pytest

from ntk_sketch import stax


class Tiny(NamedTuple):
    """Three inputs, 12 hidden units, two outputs; 60 parameters in two arrays."""

    apply_fn: Any
    params: Any
    x: np.ndarray
    jacobian: np.ndarray  # (n, outputs, parameters), float64
    ntk: np.ndarray  # (n, n), traced over outputs


@pytest.fixture(scope="session")
def tiny():
    init_fn, apply_fn, _ = stax.serial(stax.Dense(12), stax.Erf(), stax.Dense(2))
    x = np.random.default_rng(0).normal(size=(4, 3)).astype("f4")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        _, params = init_fn(jax.random.key(0), x.shape)
        leaves = jax.tree.leaves(jax.jacobian(apply_fn)(params, x))
        ntk = nt.empirical_ntk_fn(apply_fn)(x, None, params)
    jacobian = np.concatenate([np.reshape(j, (4, 2, -1)) for j in leaves], -1)
    return Tiny(apply_fn, params, x, jacobian.astype("f8"), np.asarray(ntk, "f8"))
