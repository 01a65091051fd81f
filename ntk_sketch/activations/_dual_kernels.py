"""`DualKernels`: the interface of kernels that landmark methods use."""

import abc
from typing import ClassVar

import equinox as eqx

from .._typing import Array


class DualKernels(eqx.Module):
    """Two kernels as functions of the covariance and the variances of two vectors.

    They are those of a nonlinearity (`DualActivation`), or of a whole fully connected net, whose
    kernels depend on two inputs in the same way.

    Attributes:
        name: of the nonlinearity or net, for errors.
        has_function: whether there is a function σ whose values have the first kernel.
        sees_zero: whether a zero vector may be a landmark if its kernel is not 0.
    """

    sees_zero: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def name(self) -> str: ...

    @property
    def has_function(self) -> bool:
        return False

    @abc.abstractmethod
    def __call__(self, c: Array, q: Array, q_other: Array) -> tuple[Array, Array]:
        """`k(c, q, q')`, and the factor `k'(c, q, q')` that multiplies Θ."""
