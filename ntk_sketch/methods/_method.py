"""`Method`: the interface between methods and the rules of layers."""

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

#: Patches of up to this length are always formed if a layer needs them.
_FORMED = 1024


class Method(eqx.Module):
    """How the kernel of one nonlinearity becomes features.

    Use this as the base class of a method of your own. A method holds settings only; `expand` draws
    random numbers or chooses landmarks, and returns an expansion, which computes features. Settings
    that may differ between nonlinearities are `Schedule`s.

    Attributes:
        everywhere: whether the method replaces those given to layers by `stax.with_method`.
        uses_function: whether expansions evaluate the nonlinearity itself: "always", "for a series"
            (from kernels alone only a few degrees are found), "in residual features", or "never"
            (kernels are enough).
        max_positions_all_pairs: up to this number of positions, exact covariances of all pairs are
            propagated if a layer needs them. Beyond it, covariances of different positions are
            estimated from the features, which adds little to the error of most maps (documented
            with `GlobalAvgPool`, `Aggregate` and `GlobalSelfAttention`).

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
        """Whether the method is data-dependent: `expand` needs the sample, not only its shape.

        Fitting such a method decomposes matrices in float64 outside of JAX's tracing and cannot be
        jitted; applying it can.
        """
        return False

    @property
    def uses_variances(self) -> bool:
        """Whether expansions read the exact variances of their input."""
        return True

    @abc.abstractmethod
    def expand(self, dual: DualActivation, features: HiddenFeatures, *, key: PRNGKey) -> Any:
        """Draws an expansion of one nonlinearity.

        `expansion(features, exact)` returns the features φ' and ψ' (or `None`) after the
        nonlinearity, where `exact` are the exact variances there.

        Args:
            dual: the nonlinearity.
            features: the input of the nonlinearity for the sample, or its shapes if the method is
                data-independent.
            key: of `jax.random`.
        """

    def expand_before_flatten(
        self, dual: DualActivation, features: HiddenFeatures, *, key: PRNGKey
    ) -> Any:
        """`expand` for a nonlinearity that is followed by a flattening of positions.

        There the residual at a position is missing in the kernel `k(x, x)` of an example.
        """
        return self.expand(dual, features, key=key)

    @property
    def whole_network(self) -> bool:
        """Whether one expansion, that of `expand_network`, replaces all layers of the model."""
        return False

    def expand_network(self, network: Network, features: HiddenFeatures, *, key: PRNGKey) -> Any:
        """Draws an expansion of the kernels of a whole fully connected net.

        `expansion(features, None)` returns φ' and ψ' (or `None`) at the output.

        Args:
            network: the net's kernels.
            features: those of the inputs (or shapes if the method is data-independent), with
                `Θ = 1`: the net acts on them as one nonlinearity.
            key: of `jax.random`.
        """
        raise NotImplementedError(f"{type(self).__name__} expands nonlinearities one by one.")

    def expand_product(self, name: str, branches: list[HiddenFeatures], *, key: PRNGKey) -> Any:
        """Draws an expansion of the product of independent branches, `K' = Π_i K_i` and `Θ' = Σ_i
        Θ_i Π_{j≠i} K_j`.

        `expansion(branches, exact)` returns φ' and ψ' (or `None`).

        Args:
            name: of the layer, for errors.
            branches: the inputs of the layer for the sample, or shapes if the method is
                data-independent.
            key: of `jax.random`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no features of products ({name}).")

    @property
    def compressed_width(self) -> int | None:
        """The number of features to project patches on that are too long to be formed; `None`: form
        patches of any length.
        """
        return None

    def compresses(self, features: HiddenFeatures) -> tuple[bool, bool]:
        """Whether patches of φ, and of ψ, are too long to be formed: longer than 1,024 numbers and
        than four times the width.
        """
        width = self.compressed_width
        if width is None or not features.are_patches:
            return False, False
        longest = max(_FORMED, 4 * width)
        ntk = features.ntk is not None and features.ntk_vectors().dimension > longest
        return features.nngp_vectors().dimension > longest, ntk

    def compress(self, name: str, features: HiddenFeatures, *, key: PRNGKey) -> Any:
        """Draws a projection of patches that are too long to be formed.

        It is called as `expansion([features], exact)`, like the product of one branch.

        Args:
            name: of the layer that follows, for errors.
            features: those of the sample, with variances if `uses_variances`; or shapes if the
                method is data-independent.
            key: of `jax.random`.
        """
        return self.expand_product(name, [features], key=key)

    def check_examples(self, name: str, features: Any) -> None:
        """Raises TypeError if a data-dependent method was given only shapes."""
        if self.looks_at_data and is_abstract(features):
            raise TypeError(
                f"{type(self).__name__} at {name} takes its sample from the data, but `x` is a"
                " jax.ShapeDtypeStruct. Pass example inputs."
            )

    def check_sample(self, dual: DualKernels, positions: int) -> None:
        """Checks the size of the sample before anything is computed.

        Args:
            dual: a nonlinearity, or a whole net.
            positions: of the sample there. Some may later turn out to be equal or zero.

        Raises:
            ValueError: the sample is too small.
        """

    def split(self, counts: Sequence[int]) -> "list[Method]":
        """One method for each of several layers with `counts` nonlinearities: schedules are cut up.

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
