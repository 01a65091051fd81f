"""What landmarks need to know of a kernel."""

import abc
from typing import ClassVar

import equinox as eqx

from .._typing import Array


class DualKernels(eqx.Module):
    """Two kernels as functions of the covariance and the variances of two vectors.

    Those of a nonlinearity (`DualActivation`), or of a whole fully connected net, which makes of
    the inner product and the norms of two inputs what a nonlinearity makes of those of two vectors.

    Attributes:
        name: how errors call the nonlinearity or the net.
        has_function: whether there is a function σ whose values have the first kernel.
        sees_zero: whether a vector of 0 may be a landmark, where its kernel is not 0.
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
        """`k(c, q, q')`, and the factor `k'(c, q, q')` by which Θ is multiplied."""
