"""Shape letters and types of the whole package.

| letter | meaning |
|---|---|
| `n` | examples of a batch |
| `*space` | spatial positions, e.g. `height width`; absent for vectors |
| `c` | channels of the finite network's input |
| `p` | number of features, the last axis of every feature array |
| `d` | dimension of a nonlinearity's input vectors (patches and bias included) |
| `m` | number of random directions or landmarks, a method's `width` |
| `k` | outputs of a regression |
| `l` | degrees of a series, from 0 on |
| `*r` | norms at which a series is evaluated |
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

Array: TypeAlias = jax.Array
Inputs: TypeAlias = jax.Array | np.ndarray  # what users pass
Scalar: TypeAlias = Any  # one real number: of Python, or an array without axes; or its shape
PRNGKey: TypeAlias = Any  # a typed key of `jax.random.key` or a raw one of `jax.random.PRNGKey`
Shape: TypeAlias = Sequence[int]

#: The names of both kernels, in the order of pairs of them.
KERNELS = ("nngp", "ntk")


class PerKernel(NamedTuple):
    """One value for each kernel, mostly an array, as a pair in the order of `KERNELS`.

    `ntk` is `None` without that kernel.
    """

    nngp: Any
    ntk: Any


#: Position offsets along each spatial axis; the set of offsets is their product. `None`: no
#: variances are needed.
Offsets: TypeAlias = tuple[tuple[int, ...], ...] | None
