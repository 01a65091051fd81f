"""What every method offers to the rule of a nonlinearity."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

import equinox as eqx

from .._features import Features
from .._typing import Array, PRNGKey
from ..activations import DualActivation

#: `(φ', ψ')` of the features that enter a nonlinearity; a pytree. `ψ'` is `None` if the NTK was not
#: asked for.
Expansion: TypeAlias = Callable[[Features], tuple[Array, Array | None]]


class Method(eqx.Module):
    """How the kernel of one nonlinearity becomes features. Holds settings only; `expand` draws.

    Attributes:
        looks_at_data: the method takes its sample from the examples given to `feature_map`. It then
            decomposes matrices on the host, in NumPy float64, and fitting it cannot be jitted;
            applying it can.
    """

    looks_at_data: ClassVar[bool] = False

    @property
    def uses_variances(self) -> bool:
        """Whether the expansions read the exact variances of their input."""
        return True

    @abc.abstractmethod
    def expand(self, dual: DualActivation, features: Features, *, key: PRNGKey) -> Any:
        """Draws an `Expansion` of `dual`'s kernels for features like these.

        Args:
            dual: the nonlinearity.
            features: what enters the nonlinearity: of the sample, or shapes alone for a method that
                does not look at data.
            key: of `jax.random`.
        """


def positive_integer(name: str, value) -> int:
    """`value` as an int, or the error that a method's constructor raises."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(
            f"{name} must be a positive integer, got {value!r} of type {type(value).__name__}."
        )
    if value.__index__() <= 0:
        raise ValueError(f"{name} must be a positive integer, got {value!r}.")
    return value.__index__()
