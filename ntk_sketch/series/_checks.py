"""Checks of the arguments of series, made before any long work."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from .._arguments import checked_integer
from .._typing import Inputs

#: Norms `√q` of the inputs of a nonlinearity: a number or an array of any shape.
Norms: TypeAlias = float | int | Inputs | Sequence[float]

#: The largest degree. Above it Hermite polynomials extend beyond the range of the quadrature.
MAX_DEGREE = 200


def checked_degree(degree: int) -> int:
    """Checks the largest degree of a series: an integer from 0 to 200."""
    return checked_integer(degree, "degree", least=0, largest=MAX_DEGREE)


def checked_radius(radius: Norms) -> np.ndarray:
    """Norms in float64, checked to be positive and finite."""
    radius = real(radius, "radius")
    wrong = ~(np.isfinite(radius) & (radius > 0))
    if wrong.any():
        raise ValueError(
            f"radius must be positive and finite, got {radius[wrong].flat[0]}. At a norm of 0, σ is"
            " the constant σ(0): take a tiny radius for the limit."
        )
    return radius


def checked_dimension(dimension: int) -> int:
    """Checks the dimension d of the space of the sphere S^{d-1}: an integer of 2 or more."""
    hint = " The sphere in one dimension is two points, and has no Gegenbauer polynomials."
    return checked_integer(dimension, "dimension", least=2, hint=hint)


def real(values, name: str) -> np.ndarray:
    """`values` as a float64 array; refuses complex numbers."""
    values = np.asarray(values)
    if np.iscomplexobj(values):
        raise TypeError(f"{name} must be real, got {values.dtype}")
    return values.astype(np.float64)


def finite(values: np.ndarray, arguments: np.ndarray, name: str) -> np.ndarray:
    """`values` of `name` at `arguments` (same shape), checked to be finite."""
    wrong = ~np.isfinite(values)
    if wrong.any():
        where, what = arguments[wrong].flat[0], values[wrong].flat[0]
        raise ValueError(f"{name} is {what} at {where:.6g}; it must be finite")
    return values
