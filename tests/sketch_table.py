"""The table of sketches, on which the contracts of `tests/sketches` run."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jax import numpy as jnp

from ntk_sketch import sketches as sk


class Pairs(NamedTuple):
    """What variances depend on, for every pair x, x' of the vectors of one argument."""

    inner: np.ndarray  # <x, x'>
    squared_norms: np.ndarray  # ‖x‖² ‖x'‖²
    overlap: np.ndarray  # Σ_i x_i² x'_i²

    @property
    def spread(self):
        """`σ²`: variance of one coordinate of a sketch by random signs, times m²."""
        return self.squared_norms + self.inner**2 - 2 * self.overlap


class Row(NamedTuple):
    """A sketch in contracts.

    Attributes:
        make: draws it, from a key and a dtype.
        dimensions: of its arguments.
        variance: of `<S x, S x'>`, from the `Pairs` of each argument: a published bound or, if
            `exact`, the variance itself.
        exact: see there.
        apply: the sketch at its arguments.
        degree: it is the sketch of this power of its only argument; 1: linear in each argument.
    """

    make: Callable
    dimensions: tuple[int, ...]
    variance: Callable[..., np.ndarray]
    exact: bool = False
    apply: Callable = lambda sketch, *x: sketch(*x)
    degree: int = 1


def gaussian_variance(m):
    return lambda x: (x.squared_norms + x.inner**2) / m


def srht_variance(m, padded):
    return lambda x: x.spread / m * (padded - m) / (padded - 1)


def rademacher_variance(m):
    """Of m independent products of Rademacher projections of every argument: the published bound
    for a TensorSRHT (Wacker, Kanagawa and Filippone 2022, arXiv 2201.08712).
    """

    def variance(*x):
        fourth = math.prod(p.squared_norms + 2 * (p.inner**2 - p.overlap) for p in x)
        return (fourth - math.prod(p.inner for p in x) ** 2) / m

    return variance


def tree_variance(m, degree, equal=True):
    """Linear in the degree over m (Ahle et al. 2020, arXiv 1909.01410), with the constants that the
    docstring of `PowerTree` derives.
    """
    regular = m & (m - 1) == 0 and equal
    g, exponent = (4 / (m - 1), degree - 1) if regular else (8 / (m - 1), degree)

    def variance(*x):
        squares = math.prod(p.squared_norms for p in x)
        return ((1 + g) ** exponent - 1) * (squares**degree if len(x) == 1 else squares)

    return variance


def tensor_sketch_bound(m, degree):
    """Avron, Nguyen and Woodruff 2014, for any vectors of the tensor product."""

    def variance(*x):
        squares = math.prod(p.squared_norms for p in x)
        return (2 + 3**degree) / m * (squares**degree if len(x) == 1 else squares)

    return variance


SKETCHES = {
    "GaussianSketch": Row(
        lambda key, dtype=None: sk.GaussianSketch(5, 8, key=key, dtype=dtype),
        (5,),
        gaussian_variance(8),
        exact=True,
    ),
    "SRHT": Row(
        lambda key, dtype=None: sk.SRHT(6, 5, key=key, dtype=dtype),
        (6,),
        srht_variance(5, 8),
        exact=True,
    ),
    "SRHT, all rows": Row(
        lambda key, dtype=None: sk.SRHT(6, 16, key=key, dtype=dtype),
        (6,),
        lambda x: 0 * x.inner,
        exact=True,
    ),
    "TensorSRHT": Row(
        lambda key, dtype=None: sk.TensorSRHT(5, 7, 8, key=key, dtype=dtype),
        (5, 7),
        lambda x, y: x.spread * y.spread / 7,
        exact=True,
    ),
    "TensorSRHT, few rows": Row(
        lambda key, dtype=None: sk.TensorSRHT(9, 6, 5, key=key, dtype=dtype),
        (9, 6),
        rademacher_variance(5),
    ),
    "TensorSRHT, all pairs": Row(
        lambda key, dtype=None: sk.TensorSRHT(2, 3, 8, key=key, dtype=dtype),
        (2, 3),
        lambda x, y: 0 * x.inner,
        exact=True,
    ),
    "TensorSRHT, more pairs than rows": Row(
        lambda key, dtype=None: sk.TensorSRHT(3, 7, 20, key=key, dtype=dtype),
        (3, 7),
        rademacher_variance(20),
    ),
    "PowerTree": Row(
        lambda key, dtype=None: sk.PowerTree(8, 3, key=key, dtype=dtype),
        (8, 8, 8),
        tree_variance(8, 3),
        apply=lambda tree, *x: tree(jnp.stack(x, axis=-2))[..., -1, :],
    ),
    "PolynomialSketch": Row(
        lambda key, dtype=None: sk.PolynomialSketch(6, 16, 7, key=key, dtype=dtype),
        (6,),
        tree_variance(16, 7),
        degree=7,
    ),
    "PolynomialSketch, long vectors": Row(
        lambda key, dtype=None: sk.PolynomialSketch(20, 12, 4, key=key, dtype=dtype),
        (20,),
        tree_variance(12, 4, equal=False),
        degree=4,
    ),
    "CountSketch": Row(
        lambda key, dtype=None: sk.CountSketch(7, 3, key=key, dtype=dtype),
        (7,),
        lambda x: x.spread * (3 - 1) / (3 * 3 - 1),  # 3 of 9 places to each bucket: below spread/3
        exact=True,
    ),
    "CountSketch, few coordinates": Row(
        lambda key, dtype=None: sk.CountSketch(5, 7, key=key, dtype=dtype),
        (5,),
        lambda x: 0 * x.inner,
        exact=True,
    ),
    "TensorSketch": Row(
        lambda key, dtype=None: sk.TensorSketch(6, 5, 3, key=key, dtype=dtype),
        (6,),
        tensor_sketch_bound(5, 3),
        degree=3,
    ),
    "TensorSketch, degree 1": Row(
        lambda key, dtype=None: sk.TensorSketch(6, 4, 1, key=key, dtype=dtype),
        (6,),
        tensor_sketch_bound(4, 1),
    ),
    "TensorSketch, two inputs": Row(
        lambda key, dtype=None: sk.TensorSketch(5, 8, 2, key=key, dtype=dtype),
        (5, 5),
        tensor_sketch_bound(8, 2),
    ),
}
LINEAR = [name for name, row in SKETCHES.items() if row.degree == 1]
