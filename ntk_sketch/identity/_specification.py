"""What something was made from: a constructor and its arguments.

Layers are closures, which cannot be compared, hashed, pickled or written down. Their specification
can: equal ones make equal layers.
"""

import enum
import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax import numpy as jnp
from jax.core import Tracer

from ._plain import Sliced, nested_tuple, plain


class _Placeholder(enum.Enum):
    """Stands for a number among the static parts of a specification."""

    NUMBER = "number"


_NUMBER = _Placeholder.NUMBER


class Specification(eqx.Module):
    """`constructor(**arguments)`, not yet called.

    A pytree whose leaves are the *real numbers* among the arguments (`W_std`, a slope), in float64;
    everything else is static. Functions of two specifications that differ in numbers alone share
    their compiled code, and a traced number is differentiated like any other leaf.

    Attributes:
        constructor: returns a layer (or a triple of Neural Tangents).
        numbers: the real numbers among the arguments, nested specifications included.
    """

    constructor: Callable = eqx.field(static=True)
    numbers: tuple
    _others: tuple = eqx.field(static=True)
    _tree: Any = eqx.field(static=True)

    @classmethod
    def of(cls, constructor: Callable, arguments: dict[str, Any]) -> "Specification":
        """Of a call whose `arguments` have the names of the constructor's parameters."""
        leaves, tree = jax.tree.flatten(arguments, is_leaf=lambda leaf: leaf is None)
        real = [_is_number(leaf) for leaf in leaves]
        return cls(
            constructor,
            tuple(leaf for leaf, is_real in zip(leaves, real, strict=True) if is_real),
            tuple(_NUMBER if is_real else leaf for leaf, is_real in zip(leaves, real, strict=True)),
            tree,
        )

    @property
    def arguments(self) -> dict[str, Any]:
        """Names and values of the arguments."""
        found = iter(self.numbers)
        leaves = [next(found) if leaf is _NUMBER else leaf for leaf in self._others]
        return jax.tree.unflatten(self._tree, leaves)

    @property
    def name(self) -> str:
        """The call as one would write it, without what is left at its default."""
        return call_name(self.constructor, self.arguments)

    @property
    def is_traced(self) -> bool:
        return any(isinstance(number, Tracer) for number in self.numbers)

    def like(self) -> "Specification":
        """The same structure with every number 1, for questions about structure alone."""
        ones = tuple(np.ones(np.shape(number)) for number in self.numbers)
        return Specification(self.constructor, ones, self._others, self._tree)

    def frozen(self) -> "Specification":
        """The same with its numbers static, for a constructor that decides by them in Python."""
        if self.is_traced:
            raise TypeError(
                f"{self.name}: its formulas decide in Python by its arguments' values, so that"
                " jax.grad, jit and vmap cannot trace these. Give Python numbers."
            )
        values = iter(tuple(nested_tuple(np.asarray(number).tolist()) for number in self.numbers))
        others = tuple(next(values) if leaf is _NUMBER else leaf for leaf in self._others)
        return Specification(self.constructor, (), others, self._tree)

    def build(self) -> Any:
        """What the constructor returns; the same object each time, unless a number is traced."""
        return _call(self.constructor, self) if self.is_traced else _cached_call(self)

    def triple(self) -> tuple[Callable, Callable, Callable]:
        """Neural Tangents' `(init_fn, apply_fn, kernel_fn)` of the layer, as plain functions.

        Built once for each specification; anew where a number is traced.
        """
        return _triple(self) if self.is_traced else _cached_triple(self)

    def _key(self) -> tuple:
        values = tuple((np.shape(x), np.asarray(x).tobytes()) for x in self.numbers)
        return self.constructor, values, self._others, self._tree

    def __eq__(self, other) -> bool:
        if not isinstance(other, Specification):
            return False
        if self.is_traced or other.is_traced:
            return self is other
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self):
        return _of, (self.constructor, self.arguments)


def _of(constructor: Callable, arguments: dict[str, Any]) -> Specification:
    return Specification.of(constructor, arguments)


class Given:
    """The constructor of a layer that nobody knows the constructor of: it returns the layer."""

    def __init__(self, make: Callable, name: str, *parts: Any):
        self.make, self.parts, self.__name__ = make, parts, name

    def __call__(self):
        return self.make(*self.parts)

    def __eq__(self, other) -> bool:
        return isinstance(other, Given) and self.parts == other.parts

    def __hash__(self) -> int:
        return hash(self.parts[0])


def bound_arguments(constructor: Callable, args, kwargs) -> dict[str, Any]:
    """Arguments of a call by name, defaults included, with numbers as a specification holds them.

    Integers become real numbers where the constructor's signature asks for those. A default that is
    a function stays a default.
    """
    signature = inspect.signature(constructor)
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    parameters = signature.parameters
    return {
        name: plain(value, _is_real(parameters[name]))
        for name, value in bound.arguments.items()
        if not (callable(value) and value is parameters[name].default)
    }


def _is_real(parameter: inspect.Parameter) -> bool:
    if "Callable" in str(parameter.annotation):
        return False
    return isinstance(parameter.default, float) or "float" in str(parameter.annotation)


def _is_number(leaf) -> bool:
    return isinstance(leaf, Tracer | jax.Array | np.ndarray)


def as_leaves(tree):
    """Python numbers of a pytree as arrays of float64, so that compiled code takes them as data."""
    return jax.tree.map(
        lambda leaf: np.asarray(leaf, np.float64) if isinstance(leaf, float | int) else leaf, tree
    )


def in_dtype(tree, dtype):
    """The real numbers of a pytree in the dtype of what they will meet."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree)


def _scalar(leaf):
    """A number as constructors expect it: a Python float, unless it is traced; a slice likewise."""
    if isinstance(leaf, Sliced):
        return leaf.value
    return leaf.item() if isinstance(leaf, np.ndarray) and leaf.ndim == 0 else leaf


def bound(constructor: Callable, arguments: dict[str, Any]) -> inspect.BoundArguments:
    """`arguments` as a call takes them, numbers as Python floats unless they are traced."""
    plain = jax.tree.map(_scalar, arguments)
    found = inspect.BoundArguments(inspect.signature(constructor), dict(plain))  # pyright: ignore[reportArgumentType]
    found.apply_defaults()
    return found


def _call(constructor: Callable, specification: Specification):
    """The constructor's result; nested specifications are built first."""
    arguments = jax.tree.map(
        lambda leaf: leaf.build() if isinstance(leaf, Specification) else leaf,
        specification.arguments,
        is_leaf=lambda leaf: isinstance(leaf, Specification),
    )
    call = bound(constructor, arguments)
    return constructor(*call.args, **call.kwargs)


@functools.lru_cache(maxsize=4096)
def _cached_call(specification: Specification):
    # A constructor may make arrays of its arguments, which no trace may own.
    with warnings.catch_warnings(), jax.ensure_compile_time_eval():
        warnings.simplefilter("ignore")  # given when the layer was made
        return _call(specification.constructor, specification)


def _triple(specification: Specification) -> tuple[Callable, Callable, Callable]:
    constructor = getattr(specification.constructor, "plain", specification.constructor)
    with warnings.catch_warnings():  # given when the layer was made
        warnings.simplefilter("ignore")
        init_fn, apply_fn, kernel_fn = _call(constructor, specification)[:3]
    return init_fn, apply_fn, kernel_fn


@functools.lru_cache(maxsize=4096)
def _cached_triple(specification: Specification) -> tuple[Callable, Callable, Callable]:
    with jax.ensure_compile_time_eval():
        return _triple(specification)


def call_name(constructor: Callable, arguments: dict[str, Any]) -> str:
    """`Conv(8, (3, 3), b_std=0.1)`: a call without what is at its default."""
    name = getattr(constructor, "__name__", "layer")
    parameters = inspect.signature(constructor).parameters
    parts, positional = [], True
    for parameter in parameters.values():
        if parameter.name not in arguments:
            positional = False
            continue
        value = arguments[parameter.name]
        if _same(value, parameter.default):
            positional = False
        elif parameter.kind is parameter.VAR_POSITIONAL:
            parts += map(short, value)
        else:
            parts.append(short(value) if positional else f"{parameter.name}={short(value)}")
    return f"{name}({', '.join(parts)})"


def _same(value, default) -> bool:
    if default is inspect.Parameter.empty:
        return False
    if isinstance(value, Tracer):  # nobody knows
        return True
    value = _scalar(value)
    return type(value) is not np.ndarray and value == default


def short(value: Any) -> str:
    """An argument in a message: itself if that is short."""
    value = _scalar(value) if isinstance(value, np.ndarray) else value
    if isinstance(value, slice):
        value = Sliced.of(value)
    if type(value) in (list, tuple):
        inner = ", ".join(map(short, value))
        text = f"[{inner}]" if type(value) is list else f"({inner}{',' * (len(value) == 1)})"
    else:
        known = isinstance(
            value, bool | int | float | str | tuple | Sliced | Specification | type(None)
        )
        text = repr(value) if known else "..."
    return text if len(text) <= 40 else "..."
