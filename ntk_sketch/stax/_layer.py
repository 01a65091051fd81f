"""`Layer`, NT's triple with a feature rule, and the registration of layers."""

import functools
import inspect
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import jax

from .._nt import nt_stax
from ..identity._specification import Given, Specification, bound, bound_arguments, short
from ..methods import Method
from ._rule import NoRule, Rule, WithMethod


class Layer(tuple):
    """NT's triple `(init_fn, apply_fn, kernel_fn)` with a feature rule.

    Layers are made by the constructors of `ntk_sketch.stax`, by `register` and by `layer`; use this
    class to recognise them. A layer is a tuple: it unpacks, `zip(*layers)` works, and functions of
    NT accept it. Two layers are equal if they were made by the same constructor with equal
    arguments. A layer can be pickled and copied if its constructor can.

    Attributes:
        rule: how the layer acts on features.
        name: of the layer, for errors.
        specification: the constructor and arguments of the layer.

    Example:
        >>> from ntk_sketch.stax import Layer
        >>> from ntk_sketch import stax
        >>> model = stax.serial(stax.Dense(8), stax.Relu(), stax.Dense(1))
        >>> init_fn, apply_fn, kernel_fn = model
        >>> isinstance(model, Layer)
        True
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


def with_method(layer: Layer, method: Method) -> Layer:
    """A layer whose nonlinearities use `method`, whatever the rest of the model uses.

    Use this to give one layer another width or method, for example a large width at the last
    nonlinearity. For widths alone a schedule, `Nystroem(width=(64, 64, 512))`, is simpler.

    Example:
        >>> from ntk_sketch.stax import with_method
        >>> import ntk_sketch as ns
        >>> from ntk_sketch import stax
        >>> last = with_method(stax.Relu(), ns.Nystroem(512))
        >>> model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1), last, stax.Dense(1))
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
    """`layer` itself, or for a plain NT triple a `Layer` without a rule."""
    if isinstance(layer, Layer):
        return layer
    if isinstance(layer, tuple) and len(layer) == 3 and all(map(callable, layer)):
        return Layer(layer)
    raise TypeError(f"expected a layer, a triple (init_fn, apply_fn, kernel_fn), got {layer!r}.")


def register(
    constructor: Callable[..., Any], rule: Callable[..., Rule], *, note: str = ""
) -> Callable[..., Layer]:
    """Gives the layers of an NT constructor a feature rule.

    Use this for a constructor with arguments; for one triple use `layer`. The result has the name
    and signature of `constructor` and returns a `Layer`. Assign it to the same name in your module,
    so that layers can be pickled and saved by that name. All of `ntk_sketch.stax` is made by this
    function.

    Args:
        constructor: returns NT's triple, like those of `neural_tangents.stax` or a function
            decorated with `neural_tangents.stax.layer`. Its real-valued arguments may be numbers of
            Python, NumPy or JAX, also traced ones.
        rule: called as `rule(layer, *args, **kwargs)` with the new layer and the constructor's
            arguments, defaults filled in; returns the layer's `Rule`.
        note: about the layer's features, to be added to the constructor's own documentation.

    Example:
        >>> from ntk_sketch.stax import register
        >>> import ntk_sketch
        >>> import neural_tangents
        >>> from ntk_sketch import stax
        >>> Relu = register(neural_tangents.stax.Relu, stax.homogeneous(1))
        >>> model = stax.serial(stax.Dense(1), Relu(), stax.Dense(1))
    """
    return _registered(constructor, rule, sys._getframe(1).f_globals.get("__name__"), note)


def _registered(constructor, rule: Any, module: str | None, note: str = "") -> Callable[..., Layer]:
    @functools.wraps(constructor)
    def new_constructor(*args, **kwargs):
        for given in (*args, *kwargs.values()):
            if hasattr(given, "plain"):
                raise TypeError(
                    f"{constructor.__name__} got the function {given.__name__}, which makes layers,"
                    f" in place of a layer: call it, `{given.__name__}(...)`."
                )
        arguments = bound_arguments(constructor, args, kwargs)
        call, name = bound(constructor, arguments), _call_name(constructor.__name__, args, kwargs)
        specified = jax.tree.map(
            lambda leaf: leaf.specification if isinstance(leaf, Layer) else leaf, arguments
        )
        specification = Specification.of(new_constructor, specified)
        layer = Layer(constructor(*call.args, **call.kwargs), None, name, specification)
        layer.rule = rule(layer, *call.args, **call.kwargs)
        return layer

    if hasattr(rule, "unit"):  # see `DualActivation`
        vars(new_constructor)["unit"] = rule.unit
    vars(new_constructor)["plain"] = constructor  # without rule and names, see `Specification`
    new_constructor.__module__ = module or new_constructor.__module__
    new_constructor.__qualname__ = constructor.__name__
    if note:
        own, lines = inspect.getdoc(constructor) or "", textwrap.dedent(note).strip()
        new_constructor.__doc__ = f"{own}\n\nFeatures:\n{textwrap.indent(lines, '  ')}\n"
    return new_constructor


def layer(layer_or_triple, rule: Rule | None = None):
    """Makes a layer from NT's triple and a feature rule.

    Use this for a single layer of your own; for a constructor with arguments use `register`.
    `layer(triple, rule)` returns a `Layer`. `layer(constructor)`, or `@layer`, is NT's decorator of
    the same name, for a function that returns a raw triple. Its layers have no rule; to give them
    one use `register(layer(constructor), rule)`.

    Example:
        >>> from ntk_sketch.stax import layer
        >>> from ntk_sketch import stax
        >>> triple = tuple(stax.Gelu())  # a nonlinearity of your own, as Neural Tangents takes it
        >>> mine = layer(triple, stax.nonlinearity(triple))
        >>> model = stax.serial(stax.Dense(1), mine, stax.Dense(1))
    """
    if isinstance(layer_or_triple, tuple):
        if rule is not None and not isinstance(rule, Rule):
            name = getattr(rule, "__name__", repr(rule))
            raise TypeError(
                f"layer(triple, rule) got {name} for the rule; needed: a Rule. A function that"
                f" makes rules is called with the triple, {name}(triple), or given to"
                f" register(constructor, {name})."
            )
        return Layer(layer_or_triple, rule)
    module = sys._getframe(1).f_globals.get("__name__")
    return _registered(
        nt_stax.layer(layer_or_triple), lambda new, *_, **__: NoRule(new.name), module
    )


def _call_name(name: str, args, kwargs) -> str:
    parts = [short(a) for a in args] + [f"{k}={short(v)}" for k, v in kwargs.items()]
    return f"{name}({', '.join(parts)})"


def naming(fn, name: str):
    """`init_fn` or `kernel_fn`, with a note on errors that names the layer."""

    @functools.wraps(fn)
    def named_fn(*args, **kwargs):
        try:
            return fn(*args, **kwargs)
        except Exception as error:
            if not any(note.startswith("In layer ") for note in getattr(error, "__notes__", ())):
                error.add_note(f"In layer {name}.")
            raise

    return named_fn
