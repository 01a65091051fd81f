"""Layers that carry features: `Layer`, the rules, and the registration of both NT's layers and a
user's.
"""

import functools
import math
import sys
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import equinox as eqx
import jax
from jax import numpy as jnp

from .._nt import nt_stax
from .._typing import PRNGKey
from ..features._features import of_examples
from ..identity._specification import Given, Specification, bound, bound_arguments, short
from ..methods import Method
from ..numerics._compiling import fitting_jit
from ..numerics._memory import array_bytes

#: What `Rule.fit` returns: a pytree, called as `transform(features, **kwargs)`, with NT's call-time
#: arguments as `kwargs`.
Transform: TypeAlias = Callable[..., Any]


#: What a layer does with positions.
Positions: TypeAlias = Literal["kept", "pooled", "flattened", "expanded"]

#: Bytes of features that a part of the sample becomes while a map is fitted.
_PART_BYTES = 2**26


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
    """

    nonlinearities: int = 0
    call_arguments: frozenset[str] = frozenset()
    positions: Positions = "kept"

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

    def before_flatten(self) -> "Rule":
        """This rule where the next thing that happens to positions is that they are flattened."""
        return self

    def looks_at_data(self, method: Method) -> bool:
        """Whether `fit` must be given the features of a real sample, not shapes alone."""
        del method
        return False

    def fit(
        self, features: Any, *, method: Method, offsets: Any, key: PRNGKey, **kwargs: Any
    ) -> Transform:
        """The layer's action on features: an `equinox.Module` (or any callable pytree).

        Args:
            features: the `Features` that enter the layer: of the sample, or shapes alone.
                `features.pending` may hold an affine layer that was not carried out;
                `features.concrete()` carries it out.
            method: how nonlinearities are expanded.
            offsets: the offsets at which the transform's output must carry variances; `None`: it
                must carry none.
            key: of `jax.random`, this layer's own.
            **kwargs: call-time arguments, those of the sample.
        """
        raise NotImplementedError

    def series(self, series: Any) -> Any:
        """The kernels after the layer as power series of the cosine of the network's inputs.

        Only methods that expand a whole fully connected net at once need it
        (`PolySketch(scope="network")`).

        Args:
            series: a `KernelSeries`, of the kernels before the layer.
        """
        raise NotImplementedError(
            "This layer has no power series in the cosine of the network's inputs, which"
            ' scope="network" needs. Use scope="layer".'
        )


class Layer(tuple):
    """NT's triple `(init_fn, apply_fn, kernel_fn)` that also knows its features.

    It *is* the 3-tuple: it unpacks, `zip(*layers)` works, and all of NT takes it.

    Two layers are equal if they were made by the same constructor with equal arguments; a layer can
    be pickled and copied if its constructor can.

    Attributes:
        rule: how the layer acts on features.
        name: how errors call the layer.
        specification: the constructor and the arguments that the layer was made from.
    """

    rule: Rule
    name: str
    specification: Specification

    def __new__(
        cls,
        triple,
        rule: Rule | None = None,
        name: str | None = None,
        specification: Specification | None = None,
    ):
        init_fn, apply_fn, kernel_fn = triple
        name = str(name or getattr(kernel_fn, "__name__", "layer"))
        layer = super().__new__(cls, (naming(init_fn, name), apply_fn, naming(kernel_fn, name)))
        layer.name = name
        layer.rule = NoRule(name) if rule is None else rule
        if specification is None:
            specification = Specification.of(Given(Layer, name, tuple(triple), rule, name), {})
        layer.specification = specification
        return layer

    def __repr__(self) -> str:
        return f"<Layer {self.name}>"

    def __eq__(self, other) -> bool:
        if not isinstance(other, Layer):
            return NotImplemented
        return self.specification == other.specification

    def __hash__(self) -> int:
        return hash(self.specification)

    def __reduce__(self):
        return _built, (self.specification,)


def _built(specification: Specification) -> Layer:
    return specification.build()


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


class WithMethod(Rule):
    """A rule under a method of its own, which takes no entry of the model's schedule."""

    def __init__(self, rule: Rule, method: Method):
        self.rule, self.method = rule, method
        self.call_arguments, self.positions = rule.call_arguments, rule.positions

    def before_flatten(self):
        return WithMethod(self.rule.before_flatten(), self.method)

    def needs(self, offsets, shape, *, method, **kwargs):
        return self.rule.needs(offsets, shape, method=self._own(method), **kwargs)

    def looks_at_data(self, method):
        return self.rule.looks_at_data(self._own(method))

    def fit(self, features, *, method, **kwargs):
        return self.rule.fit(features, method=self._own(method), **kwargs)

    def series(self, series):
        raise NotImplementedError(
            f"This layer has a method of its own (stax.with_method, {type(self.method).__name__}),"
            ' but scope="network" expands all layers of a model at once. Give the layer itself, or'
            ' use scope="layer".'
        )

    def _own(self, method: Method) -> Method:
        return method if method.everywhere else self.method


def with_method(layer: Layer, method: Method) -> Layer:
    """The same layer, its nonlinearities expanded by `method` whatever the rest of the model uses.

    Widths matter layer by layer: small early, where there are many positions, large late.
    """
    if not isinstance(method, Method):
        raise TypeError(f"with_method needs a method such as RandomFeatures(256), got {method!r}.")
    if method.whole_network:
        raise ValueError(
            f'{type(method).__name__}(scope="network") expands a whole model at once: give it to'
            ' feature_map. with_method takes scope="layer".'
        )
    layer = as_layer(layer)
    [own] = method.split([layer.rule.nonlinearities])
    specification = Specification.of(with_method, {"layer": layer.specification, "method": method})
    return Layer(layer, WithMethod(layer.rule, own), layer.name, specification)


def as_layer(layer) -> Layer:
    """`layer` itself, or a plain NT triple as a `Layer` without a rule."""
    if isinstance(layer, Layer):
        return layer
    if isinstance(layer, tuple) and len(layer) == 3 and all(map(callable, layer)):
        return Layer(layer)
    raise TypeError(f"expected a layer, a triple (init_fn, apply_fn, kernel_fn), got {layer!r}.")


def register(constructor: Callable[..., Any], rule: Callable[..., Rule]) -> Callable[..., Layer]:
    """`constructor`, an NT layer constructor, with the same name and signature, returning a `Layer`
    with a feature rule.

    Real numbers among the arguments may be of Python, NumPy or JAX, also traced ones. Assign the
    result to the constructor's own name in your module: layers are then pickled and written down by
    that name.

    Args:
        constructor: returns NT's triple, as those of `neural_tangents.stax` or a function decorated
            with `neural_tangents.stax.layer`.
        rule: called as `rule(layer, *args, **kwargs)` with the new layer and the constructor's
            arguments, defaults filled in; returns the layer's `Rule`. All of `ntk_sketch.stax` is
            made by this function.
    """
    return _registered(constructor, rule, sys._getframe(1).f_globals.get("__name__"))


def _registered(constructor, rule, module: str | None) -> Callable[..., Layer]:
    @functools.wraps(constructor)
    def new_constructor(*args, **kwargs):
        arguments = bound_arguments(constructor, args, kwargs)
        call, name = bound(constructor, arguments), _call_name(constructor.__name__, args, kwargs)
        specified = jax.tree.map(
            lambda leaf: leaf.specification if isinstance(leaf, Layer) else leaf, arguments
        )
        specification = Specification.of(new_constructor, specified)
        layer = Layer(constructor(*call.args, **call.kwargs), None, name, specification)
        layer.rule = rule(layer, *call.args, **call.kwargs)
        return layer

    vars(new_constructor)["plain"] = constructor  # without rule and names, see `Specification`
    new_constructor.__module__ = module or new_constructor.__module__
    new_constructor.__qualname__ = constructor.__name__
    return new_constructor


def layer(layer_or_triple, rule: Rule | None = None):
    """A layer of your own, from NT's triple and its feature rule; or NT's decorator of the same
    name.

    `layer(triple, rule)` returns a `Layer`. `layer(constructor)`, or `@layer`, is
    `neural_tangents.stax.layer` for a function that returns a raw triple; its layers have no rule:
    use `register(layer(constructor), rule)` to give them one.
    """
    if isinstance(layer_or_triple, tuple):
        return Layer(layer_or_triple, rule)
    module = sys._getframe(1).f_globals.get("__name__")
    return _registered(
        nt_stax.layer(layer_or_triple), lambda new, *_, **__: NoRule(new.name), module
    )


def _call_name(name: str, args, kwargs) -> str:
    parts = [short(a) for a in args] + [f"{k}={short(v)}" for k, v in kwargs.items()]
    return f"{name}({', '.join(parts)})"


def naming(fn, name: str):
    """`init_fn` or `kernel_fn`, whose errors say in which layer they arose."""

    @functools.wraps(fn)
    def named_fn(*args, **kwargs):
        try:
            return fn(*args, **kwargs)
        except Exception as error:
            if not any(note.startswith("In layer ") for note in getattr(error, "__notes__", ())):
                error.add_note(f"In layer {name}.")
            raise

    return named_fn


def shapes_after(transform: Transform, shapes, **kwargs):
    """Shapes of the features after `transform`, from those of the features before it."""
    return eqx.filter_eval_shape(_call, transform, shapes, kwargs)


def advance(transform: Transform, sample, shapes, **kwargs):
    """A sample's features after `transform`, which have these shapes. Large ones go in parts."""
    examples = jax.tree.leaves(sample)[0].shape[0]
    # Call-time arguments may be of the examples: then all go at once.
    share = (
        1
        if kwargs
        else min(_PART_BYTES / max(sum(map(array_bytes, jax.tree.leaves(shapes))), 1), 1)
    )
    size, parts = math.ceil(examples * share), []
    if size == examples:
        return _call_jitted(transform, sample, kwargs)
    for start in range(0, examples, size):
        # All parts have one shape, for one compilation; the last one overlaps.
        first = min(start, examples - size)
        part = of_examples(lambda leaf, first=first: leaf[first : first + size], sample)
        done = _call_jitted(transform, part, kwargs)
        parts.append(of_examples(lambda leaf, cut=start - first: leaf[cut:], done))
    return of_examples(lambda *leaves: jnp.concatenate(leaves), *parts)


def abstracted(features):
    """Shapes of `features`."""
    return eqx.filter_eval_shape(lambda f: f, features)


def _call(transform, features, kwargs):
    return transform(features, **kwargs)


_call_jitted = fitting_jit(_call)


def check_axes(name: str, shape, batch_axis: int, channel_axis: int) -> None:
    """Features are channels-last with the batch first."""
    ndim = len(shape)
    if batch_axis % ndim != 0 or channel_axis % ndim != ndim - 1:
        raise NotImplementedError(
            f"{name}: features support batch_axis=0 and channel_axis=-1 (shape (n, *space,"
            f" channels)), got batch_axis={batch_axis} and channel_axis={channel_axis} for {ndim}"
            " axes. Move the axes of the inputs and leave these arguments at their defaults."
        )
