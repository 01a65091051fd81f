"""A feature map small enough to write every answer down, and float64 for a single test."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array


class SomeFeatures(NamedTuple):
    nngp: Any
    ntk: Any


class SmallMap(eqx.Module):
    """`ntk`: [x, relu(x w)]; `nngp`: relu(x w)."""

    w: Array
    proposed: int = eqx.field(static=True, default=7)

    def __call__(self, x):
        hidden = jax.nn.relu(x @ self.w)
        return SomeFeatures(nngp=hidden, ntk=jnp.concatenate([x, hidden], axis=1))

    def batch_size(self, memory_bytes: int = 1 << 20) -> int:
        return self.proposed


@pytest.fixture
def features_type():
    return SomeFeatures


@pytest.fixture
def make_map():
    """`make_map(d, p)`: d inputs, p `ntk` features."""

    def make(d: int = 6, p: int = 20, dtype=np.float32) -> SmallMap:
        w = np.random.default_rng(3).normal(size=(d, p - d)) / np.sqrt(d)
        return SmallMap(jnp.asarray(w.astype(dtype)))

    return make


@pytest.fixture
def make_data():
    """`make_data(n)`: x (n, 6) and y (n, 3), smooth in x with noise."""

    def make(n: int, dtype=np.float32, seed: int = 0):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(n, 6))
        y = np.tanh(x[:, :3]) + 0.3 * rng.normal(size=(n, 3))
        return x.astype(dtype), y.astype(dtype)

    return make


@pytest.fixture
def x64():
    """64-bit JAX inside one test."""
    enable = getattr(jax, "enable_x64", None)
    if enable is None:
        from jax.experimental import enable_x64 as enable
    with enable(True):
        yield
