"""What every method offers to the rule of a nonlinearity."""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import equinox as eqx

from .._typing import PRNGKey
from ..activations import DualActivation
from ..activations._dual_kernels import DualKernels
from ..features._hidden import HiddenFeatures, is_abstract
from ..features._variances import MAX_POSITIONS_ALL_PAIRS
from ._network import Network
from ._schedule import Schedule

#: Patches of so many numbers are formed where a layer needs them.
_FORMED = 1024


class Method(eqx.Module):
    """How the kernel of one nonlinearity becomes features. Holds settings only; `expand` draws.

    Attributes:
        schedules: the settings that may be tuples, one entry for each nonlinearity.
        everywhere: the method replaces those that layers were given by `stax.with_method`.
        uses_function: whether expansions evaluate the nonlinearity itself: "always", "for a series"
            (kernels alone give one of few degrees), "in residual features" or "never", where its
            kernels are enough.
        max_positions_all_pairs: up to so many positions, covariances of all pairs are carried where
            they are needed; beyond, those of different positions come from the features, which
            adds next to nothing to the error of most maps (measured for `GlobalAvgPool`,
            `Aggregate` and `GlobalSelfAttention` in their rules).

    Example:
        >>> from ntk_sketch.methods import Method
        >>> import ntk_sketch as ns
        >>> isinstance(ns.Nystroem(64), Method)
        True
        >>> [own.width for own in ns.Nystroem((64, 256)).split([1, 1])]
        [64, 256]
    """

    everywhere: ClassVar[bool] = False
    uses_function: ClassVar[Literal["always", "for a series", "in residual features", "never"]] = (
        "always"
    )
    max_positions_all_pairs: ClassVar[float] = MAX_POSITIONS_ALL_PAIRS

    @property
    def looks_at_data(self) -> bool:
        """Whether `expand` is to be given the examples of `feature_map`, not shapes alone.

        A method that takes its sample from them decomposes matrices on the host, in NumPy float64,
        and fitting it cannot be jitted; applying it can.
        """
        return False

    @property
    def uses_variances(self) -> bool:
        """Whether the expansions read the exact variances of their input."""
        return True

    @abc.abstractmethod
    def expand(self, dual: DualActivation, features: HiddenFeatures, *, key: PRNGKey) -> Any:
        """Draws an expansion of `dual`'s kernels for features like these: `expansion(features,
        exact)`, with the exact variances behind the nonlinearity, gives φ' and ψ' (or `None`).

        Args:
            dual: the nonlinearity.
            features: what enters the nonlinearity: of the sample, or shapes alone for a method that
                does not look at data.
            key: of `jax.random`.
        """

    def expand_before_flatten(
        self, dual: DualActivation, features: HiddenFeatures, *, key: PRNGKey
    ) -> Any:
        """`expand` where positions are flattened next: what features miss at a position is then
        missing in the kernel of an example with itself.
        """
        return self.expand(dual, features, key=key)

    @property
    def whole_network(self) -> bool:
        """Whether one expansion stands for the whole model: that of `expand_network`."""
        return False

    def expand_network(self, network: Network, features: HiddenFeatures, *, key: PRNGKey) -> Any:
        """Draws an expansion of the kernels of a whole fully connected net: `expansion(features,
        None)` gives φ' and ψ' (or `None`).

        Args:
            network: what to know of the net.
            features: of the inputs, the sample's or shapes alone, with `Θ = 1`: as they enter a
                nonlinearity, whose kernels the net's are.
            key: of `jax.random`.
        """
        raise NotImplementedError(f"{type(self).__name__} expands nonlinearities one by one.")

    def expand_product(self, name: str, branches: list[HiddenFeatures], *, key: PRNGKey) -> Any:
        """Draws features of the product of independent branches, `K' = Π_i K_i` and `Θ' = Σ_i Θ_i
        Π_{j≠i} K_j`: `expansion(branches, exact)` gives φ' and ψ' (or `None`).

        Args:
            name: how errors call the layer.
            branches: what enters the layer: of the sample, or shapes alone for a method that does
                not look at data.
            key: of `jax.random`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no features of products ({name}).")

    @property
    def compressed_width(self) -> int | None:
        """On how many features patches that are too long to be formed are projected; `None`: they
        are formed, however long.
        """
        return None

    def compresses(self, features: HiddenFeatures) -> tuple[bool, bool]:
        """Whether patches are too long to be handed on, those of φ and those of ψ: longer than
        1,024 numbers and than four times the width.
        """
        width = self.compressed_width
        if width is None or not features.are_patches:
            return False, False
        longest = max(_FORMED, 4 * width)
        ntk = features.ntk is not None and features.ntk_vectors().dimension > longest
        return features.nngp_vectors().dimension > longest, ntk

    def compress(self, name: str, features: HiddenFeatures, *, key: PRNGKey) -> Any:
        """Draws a projection of patches that are too long: `expansion([features], exact)`, as of a
        product of one branch.

        Args:
            name: how errors call the layer that follows.
            features: of the sample, with variances if `uses_variances`; or shapes alone for a
                method that does not look at data.
            key: of `jax.random`.
        """
        return self.expand_product(name, [features], key=key)

    def check_examples(self, name: str, features: Any) -> None:
        """Refuses shapes alone where examples are needed, before the layer of this name."""
        if self.looks_at_data and is_abstract(features):
            raise TypeError(
                f"{type(self).__name__} at {name} takes its sample from the data, but `x` is a"
                " jax.ShapeDtypeStruct. Pass example inputs."
            )

    def check_sample(self, dual: DualKernels, positions: int) -> None:
        """Refuses a sample that cannot do, before anything is computed.

        Args:
            dual: a nonlinearity, or a whole net.
            positions: of the sample there; later, some may turn out to be equal or zero.

        Raises:
            ValueError: the sample is too small.
        """

    def split(self, counts: Sequence[int]) -> "list[Method]":
        """The methods of layers that hold `counts` nonlinearities each: schedules are cut up.

        Raises:
            ValueError: a schedule does not have one entry for each nonlinearity.
        """
        found = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        found = {name: value for name, value in found.items() if isinstance(value, Schedule)}
        for name, schedule in found.items():
            if schedule.each and len(schedule.entries) != sum(counts):
                raise ValueError(
                    f"{name}={schedule} has {len(schedule.entries)} entries for {sum(counts)}"
                    " nonlinearities: give one for each, in the order of the model (those under"
                    " `stax.with_method` do not count), or a single number for all."
                )
        replace: Any = dataclasses.replace  # type checkers miss that equinox makes dataclasses
        parts, stop = [], 0
        for count in counts:
            start, stop = stop, stop + count
            own = {name: schedule.cut(start, stop) for name, schedule in found.items()}
            parts.append(replace(self, **own) if own else self)
        return parts
