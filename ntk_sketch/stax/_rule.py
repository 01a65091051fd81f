"""Rules: how layers act on features."""

import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from .._typing import PRNGKey
from ..methods import Method

#: What `Rule.fit` returns: a pytree, called as `transform(features, **kwargs)`, with NT's call-time
#: arguments as `kwargs`.
Transform: TypeAlias = Callable[..., Any]


#: What a layer does with positions.
Positions: TypeAlias = Literal["kept", "pooled", "flattened", "expanded"]


class Rule:
    """How one layer acts on features. Subclass it for a layer of your own; ours are written the
    same way.

    A rule is used in three steps. `needs`, from the last layer to the first, plans which variances
    are carried. `fit`, from the first layer to the last, draws parameters and returns a transform.
    The transform is what runs on every batch.

    Shapes are those of the finite network, (n, *space, channels), with whatever n. In a layer with
    several inputs or outputs, shapes, offsets and features are lists, one entry per branch.

    Call-time arguments of Neural Tangents (`pattern`, or those of a layer of yours) reach `needs`,
    `fit` and the transform as further keyword arguments. Name those that the layer takes in
    `call_arguments`; what no layer of a model takes is refused.

    Rules are equal if they are of one class and made of equal parts.

    Attributes:
        nonlinearities: how many expansions the layer makes by the method it is given: so many
            entries of a schedule of widths are its own.
        call_arguments: names of the call-time arguments that the layer takes.
        positions: what becomes of the features of positions: "pooled" (summed), "flattened" (they
            stand side by side), "expanded" (new ones, by a nonlinearity) or "kept".
        masks: whether the transform minds `HiddenFeatures.mask`: what it returns is 0 at masked
            positions, and has the mask of its own positions. Other layers are refused with
            `mask_constant`.
        makes_patches: whether the layer leaves patches: vectors with entries of neighbours.
        forms_patches: whether the layer takes vectors for patches or sums of its own, which the
            number of features would multiply by: methods project patches that are too long before,
            on fewer features.
        compares: whether covariances of all pairs of positions of an example are formed at once.

    Example:
        >>> from ntk_sketch.stax import Rule
        >>> from ntk_sketch import stax
        >>> class Passing(Rule):
        ...     def fit(self, features, *, method, offsets, key, **kwargs):
        ...         return lambda features, **kwargs: features
        >>> mine = stax.layer(tuple(stax.Identity()), Passing())
        >>> model = stax.serial(stax.Dense(1), mine, stax.Relu(), stax.Dense(1))
    """

    nonlinearities: int = 0
    call_arguments: frozenset[str] = frozenset()
    positions: Positions = "kept"
    masks: bool = False
    makes_patches: bool = False
    forms_patches: bool = False
    compares: bool = False

    def __eq__(self, other) -> bool:
        return type(self) is type(other) and self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash((type(self), tuple(sorted(self._parts()))))

    def _parts(self) -> dict[str, Any]:
        """What the rule is made of: all but how errors call it."""
        return {name: value for name, value in vars(self).items() if name != "name"}

    def needs(self, offsets: Any, shape: Any, *, method: Method, **kwargs: Any) -> Any:
        """Position offsets at which the layer must be given variances `K(x_s, x_{s+δ})`.

        Args:
            offsets: `Offsets` that later layers need of this layer's output: for each spatial axis
                a tuple of integers, or `None` if they need no variances.
            shape: of the layer's input.
            method: how nonlinearities are expanded.
            **kwargs: call-time arguments.
        """
        del shape, method, kwargs
        return offsets

    def own_method(self, method: Method) -> Method:
        """The method that the layer uses where its model's is this one."""
        return method

    def before_flatten(self) -> "Rule":
        """This rule where the next thing that happens to positions is that they are flattened."""
        return self

    def compared_positions(self, shape: Any) -> int:
        """How many positions of one example the layer compares with each other, at its most."""
        return math.prod(shape[1:-1]) if self.compares else 0

    def looks_at_data(self, method: Method) -> bool:
        """Whether `fit` must be given the features of a real sample, not shapes alone."""
        del method
        return False

    def fit(
        self, features: Any, *, method: Method, offsets: Any, key: PRNGKey, **kwargs: Any
    ) -> Transform:
        """The layer's action on features: an `equinox.Module` (or any callable pytree).

        Args:
            features: the `HiddenFeatures` that enter the layer: of the sample, or shapes alone.
                `features.pending` may hold an affine layer that was not carried out, and blocks
                may wait for a root; `features.concrete()` makes arrays of all. What treats channels
                alike need not apply roots: `features.applied().map(fn)`.
            method: how nonlinearities are expanded.
            offsets: the offsets at which the transform's output must carry variances; `None`: it
                must carry none.
            key: of `jax.random`, this layer's own.
            **kwargs: call-time arguments, those of the sample.
        """
        raise NotImplementedError

    def support(self, method: type[Method]) -> str:
        """Whether features of the layer can be had by `method`: "yes", "no" or under which
        condition, for `stax.supported`.
        """
        del method
        return "yes"

    def series(self, series: Any) -> Any:
        """The kernels after the layer as power series of the cosine of the network's inputs.

        Only methods that expand the kernels of a whole fully connected net
        in series need it (`scope="network"`).

        Args:
            series: a `KernelSeries`, of the kernels before the layer.
        """
        raise NotImplementedError(
            "This layer has no power series in the cosine of the network's inputs, which"
            ' scope="network" needs. Use scope="layer".'
        )


class NoRule(Rule):
    """The rule of a layer that is exact only, or that was made with an option that features do not
    support.
    """

    def __init__(
        self,
        name: str,
        reason: str = "has no feature rule yet",
        call_arguments: frozenset[str] = frozenset(),
    ):
        self.call_arguments = call_arguments
        self.message = (
            f"{name} {reason}. Its finite network and exact kernel (`apply_fn`, `kernel_fn`) work;"
            " for features give it a rule with `stax.layer(triple, rule)` or"
            " `stax.register(constructor, rule)`. A layer of neural_tangents.stax has one under its"
            " name in ntk_sketch.stax: import it from there."
        )

    def needs(self, offsets, shape, *, method, **kwargs):
        raise NotImplementedError(self.message)

    def series(self, series):
        raise NotImplementedError(self.message)

    def support(self, method):
        return "no"


class WithMethod(Rule):
    """A rule under a method of its own, which takes no entry of the model's schedule."""

    def __init__(self, rule: Rule, method: Method):
        self.rule, self.method = rule, method
        self.call_arguments, self.positions = rule.call_arguments, rule.positions
        self.masks, self.compares = rule.masks, rule.compares
        self.makes_patches, self.forms_patches = rule.makes_patches, rule.forms_patches

    def before_flatten(self):
        return WithMethod(self.rule.before_flatten(), self.method)

    def needs(self, offsets, shape, *, method, **kwargs):
        return self.rule.needs(offsets, shape, method=self.own_method(method), **kwargs)

    def compared_positions(self, shape):
        return self.rule.compared_positions(shape)

    def looks_at_data(self, method):
        return self.rule.looks_at_data(self.own_method(method))

    def fit(self, features, *, method, **kwargs):
        return self.rule.fit(features, method=self.own_method(method), **kwargs)

    def own_method(self, method: Method) -> Method:
        if method.whole_network:
            raise NotImplementedError(
                "This layer has a method of its own (stax.with_method,"
                f' {type(self.method).__name__}), but scope="network" expands all layers of a model'
                ' at once. Give the layer itself, or use scope="layer".'
            )
        return method if method.everywhere else self.method


def check_axes(name: str, shape, batch_axis: int, channel_axis: int) -> None:
    """Features are channels-last with the batch first."""
    ndim = len(shape)
    if batch_axis % ndim != 0 or channel_axis % ndim != ndim - 1:
        raise NotImplementedError(
            f"{name}: features support batch_axis=0 and channel_axis=-1 (shape (n, *space,"
            f" channels)), got batch_axis={batch_axis} and channel_axis={channel_axis} for {ndim}"
            " axes. Move the axes of the inputs and leave these arguments at their defaults."
        )


def check_positions(name: str, shape) -> None:
    """Refuses inputs (n, channels), among which there are no positions to mix."""
    if len(shape) < 3:
        raise NotImplementedError(
            f"{name}: inputs of shape (n, {shape[-1]}) have no positions that it could mix; needed:"
            " (n, *space, channels)."
        )
