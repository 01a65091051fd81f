"""Rules: how layers act on features."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

from .._typing import PRNGKey
from ..methods import Method

#: The result of `Rule.fit`: a pytree, called as `transform(features, **kwargs)` with NT's call-time
#: arguments.
Transform: TypeAlias = Callable[..., Any]


#: Matrices over pairs of positions held at once where a layer compares positions: attention
#: weights, K, Θ and a product.
MATRICES = 4


class Covariances(NamedTuple):
    """Numbers that exact variances hold at once.

    Attributes:
        bands: of one example, in the largest band that passes between two layers.
        pairs: of one example, in the layer that compares most pairs of positions.
        shared: of all examples together, in all layers.
    """

    bands: int
    pairs: int
    shared: int = 0


#: How a layer acts on positions, see `Rule`.
Positions: TypeAlias = Literal["kept", "pooled", "flattened", "expanded"]


class Rule:
    """How one layer acts on features.

    Use this as the base class of a rule for a layer of your own, if `nonlinearity`, `linear` and
    `Weights` do not fit. The rules of `ntk_sketch.stax` are subclasses too.

    A rule is used in three steps. `needs`, from the last layer to the first, plans which variances
    are computed. `fit`, from the first layer to the last, draws parameters and returns a transform.
    The transform runs on every batch.

    Shapes are those of the finite network, (n, *space, channels), with any n. For a layer with
    several inputs or outputs, shapes, offsets and features are lists with one entry per branch.

    Call-time arguments of Neural Tangents (`pattern`, or those of your own layer) are passed to
    `needs`, `fit` and the transform as keyword arguments. Name those that the layer takes in
    `call_arguments`; arguments that no layer of a model takes are refused.

    Rules are equal if they have the same class and equal attributes.

    Attributes:
        nonlinearities: how many expansions the layer makes, and so how many entries of a schedule
            of widths it takes.
        call_arguments: names of the call-time arguments that the layer takes.
        per_example: those of them that are arrays with one entry for each example, so that a sample
            can be computed in parts.
        positions: what happens to positions: "pooled" (summed), "flattened" (concatenated),
            "expanded" (by a nonlinearity) or "kept".
        masks: whether the transform respects `HiddenFeatures.mask`: its output is 0 at masked
            positions, and has a mask of its own positions. Layers that do not are refused with
            `mask_constant`.
        makes_patches: whether the output consists of patches: vectors with entries of neighbours.
        forms_patches: whether the layer forms patches or concatenates vectors, which multiplies the
            number of features. Methods first project patches that are too long.
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
    per_example: frozenset[str] = frozenset()
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
        """The attributes that decide equality: all but the name for errors."""
        return {name: value for name, value in vars(self).items() if name != "name"}

    def needs(self, offsets: Any, shape: Any, *, method: Method, **kwargs: Any) -> Any:
        """Position offsets δ at which the layer needs variances `K(x_s, x_{s+δ})` of its input.

        Args:
            offsets: `Offsets` that later layers need of this layer's output: a tuple of integers
                for each spatial axis, or `None` if they need no variances.
            shape: of the layer's input.
            method: how nonlinearities become features.
            **kwargs: call-time arguments.
        """
        del shape, method, kwargs
        return offsets

    def own_method(self, method: Method) -> Method:
        """The method that the layer uses if that of its model is `method`."""
        return method

    def before_flatten(self) -> "Rule":
        """The rule to use if positions are flattened next."""
        return self

    def covariances(
        self, offsets: Any, shape: Any, *, method: Method, **kwargs: Any
    ) -> Covariances:
        """About how many numbers exact variances hold at once between the layer's input and output.
        Arguments are those of `needs`.
        """
        del offsets, method, kwargs
        return Covariances(0, MATRICES * math.prod(shape[1:-1]) ** 2 if self.compares else 0)

    def looks_at_data(self, method: Method) -> bool:
        """Whether `fit` needs the features of a sample, not only their shapes."""
        del method
        return False

    def fit(
        self, features: Any, *, method: Method, offsets: Any, key: PRNGKey, **kwargs: Any
    ) -> Transform:
        """The layer's transform of features: an `equinox.Module` or another callable pytree.

        Args:
            features: the input of the layer, `HiddenFeatures` of the sample or their shapes. An
                affine layer may be pending on them, and blocks may wait for a root;
                `features.concrete()` applies both. A layer that treats channels alike may leave
                roots pending: `features.applied().map(fn)`.
            method: how nonlinearities become features.
            offsets: the offsets at which the output must have variances; `None`: it must have none.
            key: of `jax.random`, for this layer only.
            **kwargs: call-time arguments for the sample.
        """
        raise NotImplementedError

    def support(self, method: type[Method]) -> str:
        """Whether the layer has features by `method`: "yes", "no" or a condition. For
        `stax.supported`.
        """
        del method
        return "yes"

    def series(self, series: Any) -> Any:
        """The kernels after the layer as power series of the cosine of the network's inputs.

        Only series methods with `scope="network"` need it.

        Args:
            series: a `KernelSeries` of the kernels before the layer.
        """
        raise NotImplementedError(
            "This layer has no power series in the cosine of the network's inputs, which"
            ' scope="network" needs. Use scope="layer".'
        )


class NoRule(Rule):
    """The rule of a layer without features, or with an option that features do not support."""

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
    """A rule with its own method. It takes no entry of the model's schedule of widths."""

    def __init__(self, rule: Rule, method: Method):
        self.rule, self.method = rule, method
        self.call_arguments, self.per_example = rule.call_arguments, rule.per_example
        self.positions = rule.positions
        self.masks, self.compares = rule.masks, rule.compares
        self.makes_patches, self.forms_patches = rule.makes_patches, rule.forms_patches

    def before_flatten(self):
        return WithMethod(self.rule.before_flatten(), self.method)

    def needs(self, offsets, shape, *, method, **kwargs):
        return self.rule.needs(offsets, shape, method=self.own_method(method), **kwargs)

    def covariances(self, offsets, shape, *, method, **kwargs):
        own = self.own_method(method)
        return self.rule.covariances(offsets, shape, method=own, **kwargs)

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


def check_layer(layer, rule: str) -> None:
    """Refuses what is not a layer, given to a function that makes rules."""
    if not (isinstance(layer, tuple) and len(layer) == 3 and all(map(callable, layer))):
        raise TypeError(
            f"{rule} makes the rule of a layer, a triple (init_fn, apply_fn, kernel_fn), got"
            f" {layer!r}. Use it as layer(triple, {rule}(triple)), or as"
            f" register(constructor, {rule})."
        )


def check_axes(name: str, shape, batch_axis: int, channel_axis: int) -> None:
    """Refuses layouts other than batch first and channels last."""
    ndim = len(shape)
    if batch_axis % ndim != 0 or channel_axis % ndim != ndim - 1:
        raise NotImplementedError(
            f"{name}: features support batch_axis=0 and channel_axis=-1 (shape (n, *space,"
            f" channels)), got batch_axis={batch_axis} and channel_axis={channel_axis} for {ndim}"
            " axes. Move the axes of the inputs and leave these arguments at their defaults."
        )


def check_positions(name: str, shape) -> None:
    """Refuses inputs (n, channels), which have no positions to mix."""
    if len(shape) < 3:
        raise NotImplementedError(
            f"{name}: inputs of shape (n, {shape[-1]}) have no positions that it could mix; needed:"
            " (n, *space, channels)."
        )
