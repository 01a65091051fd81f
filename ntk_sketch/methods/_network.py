"""The interface of methods with `scope="network"`, which expand a fully connected net at once."""

from typing import Any, Literal, Protocol, TypeAlias, get_args, runtime_checkable

from .._arguments import checked_choice
from ..activations._dual_kernels import DualKernels
from ..features._hidden import HiddenFeatures
from ..series import KernelSeries
from ._schedule import Schedule

Scope: TypeAlias = Literal["layer", "network"]
SCOPES: tuple[str, ...] = get_args(Scope)


@runtime_checkable
class Network(Protocol):
    """A fully connected net: its kernels depend only on the cosine and norms of two inputs."""

    def kernels(self, features: HiddenFeatures) -> DualKernels:
        """Both kernels as functions of the covariance and the variances of inputs like these."""
        ...

    def series(self, series: KernelSeries) -> KernelSeries:
        """Both kernels at the output as power series of the cosine, from those at the input."""
        ...


def checked_scope(scope: Any, width: Schedule) -> Scope:
    """`scope`, checked for a method's constructor."""
    if scope == "network" and width.each:
        raise ValueError(
            f'scope="network" makes one expansion, got width={width!r}: give one integer.'
        )
    return checked_choice(scope, "scope", SCOPES)
