"""Specifications: a constructor and its arguments.

Layers are closures, which cannot be compared, hashed, pickled or stored. Their specifications can:
equal specifications make equal layers.
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
    """Marks the place of a number among the static parts of a specification."""

    NUMBER = "number"


_NUMBER = _Placeholder.NUMBER


class Specification(eqx.Module):
    """A call `constructor(**arguments)` that `build` makes.

    It is a pytree whose leaves are the real numbers among the arguments (`W_std`, a slope), in
    float64; everything else is static. Functions of two specifications that differ only in these
    numbers share compiled code, and JAX differentiates with respect to them.

    Attributes:
        constructor: returns a layer (or a triple of Neural Tangents).
        numbers: the real numbers among the arguments, including those of nested specifications.
    """

    constructor: Callable = eqx.field(static=True)
    numbers: tuple
    _others: tuple = eqx.field(static=True)
    _tree: Any = eqx.field(static=True)

    @classmethod
    def of(cls, constructor: Callable, arguments: dict[str, Any]) -> "Specification":
        """The specification of a call with `arguments` by name."""
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
        """The call as code, without arguments at their defaults."""
        return call_name(self.constructor, self.arguments)

    @property
    def is_traced(self) -> bool:
        return any(isinstance(number, Tracer) for number in self.numbers)

    def like(self) -> "Specification":
        """The same structure with every number 1, for questions that depend only on structure."""
        ones = tuple(np.ones(np.shape(number)) for number in self.numbers)
        return Specification(self.constructor, ones, self._others, self._tree)

    def frozen(self) -> "Specification":
        """The same with static numbers, for a constructor that branches on them in Python."""
        if self.is_traced:
            raise TypeError(
                f"{self.name}: its formulas decide in Python by its arguments' values, so that"
                " jax.grad, jit and vmap cannot trace these. Give Python numbers."
            )
        values = iter(tuple(nested_tuple(np.asarray(number).tolist()) for number in self.numbers))
        others = tuple(next(values) if leaf is _NUMBER else leaf for leaf in self._others)
        return Specification(self.constructor, (), others, self._tree)

    def build(self) -> Any:
        """The constructor's result; the same object each time, unless a number is traced."""
        return _call(self.constructor, self) if self.is_traced else _cached_call(self)

    def triple(self) -> tuple[Callable, Callable, Callable]:
        """Neural Tangents' `(init_fn, apply_fn, kernel_fn)` of the layer, as plain functions.

        They are built once for each specification, or every time if a number is traced.
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
        try:
            return hash(self._key())
        except TypeError as error:
            raise TypeError(
                f"{self.name}: an argument has no hash ({error}), and equal layers are found by"
                " their arguments' hashes. Give numbers, strings, tuples, functions or objects of a"
                " frozen dataclass."
            ) from error

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self):
        return _of, (self.constructor, self.arguments)


def _of(constructor: Callable, arguments: dict[str, Any]) -> Specification:
    return Specification.of(constructor, arguments)


class Given:
    """A stand-in for an unknown constructor, which returns the given object."""

    def __init__(self, make: Callable, name: str, *parts: Any):
        self.make, self.parts, self.__name__ = make, parts, name

    def __call__(self):
        return self.make(*self.parts)

    def __eq__(self, other) -> bool:
        return isinstance(other, Given) and self.parts == other.parts

    def __hash__(self) -> int:
        return hash(self.parts[0])


def bound_arguments(constructor: Callable, args, kwargs) -> dict[str, Any]:
    """Arguments of a call by name, defaults included, with numbers in the form of a specification.

    Integers become real numbers if the constructor's signature has a real parameter. Defaults that
    are functions are left out.
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
    """Python numbers of a pytree as arrays of float64, so that they are data to compiled code."""
    return jax.tree.map(
        lambda leaf: np.asarray(leaf, np.float64) if isinstance(leaf, float | int) else leaf, tree
    )


def in_dtype(tree, dtype):
    """The leaves of a pytree as JAX arrays of a dtype."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree)


def _scalar(leaf):
    """A number or slice as constructors expect it: of Python, unless it is traced."""
    if isinstance(leaf, Sliced):
        return leaf.value
    return leaf.item() if isinstance(leaf, np.ndarray) and leaf.ndim == 0 else leaf


def bound(constructor: Callable, arguments: dict[str, Any]) -> inspect.BoundArguments:
    """`arguments` bound for a call, with numbers as Python floats unless they are traced."""
    plain = jax.tree.map(_scalar, arguments)
    found = inspect.BoundArguments(inspect.signature(constructor), dict(plain))  # pyright: ignore[reportArgumentType]
    found.apply_defaults()
    return found


def _call(constructor: Callable, specification: Specification):
    """Calls the constructor, after nested specifications are built."""
    arguments = jax.tree.map(
        lambda leaf: leaf.build() if isinstance(leaf, Specification) else leaf,
        specification.arguments,
        is_leaf=lambda leaf: isinstance(leaf, Specification),
    )
    call = bound(constructor, arguments)
    return constructor(*call.args, **call.kwargs)


@functools.lru_cache(maxsize=4096)
def _cached_call(specification: Specification):
    # A constructor may make arrays, which must not belong to a trace.
    with warnings.catch_warnings(), jax.ensure_compile_time_eval():
        warnings.simplefilter("ignore")  # there was a warning when the layer was made
        return _call(specification.constructor, specification)


def _triple(specification: Specification) -> tuple[Callable, Callable, Callable]:
    constructor = getattr(specification.constructor, "plain", specification.constructor)
    with warnings.catch_warnings():  # there was a warning when the layer was made
        warnings.simplefilter("ignore")
        init_fn, apply_fn, kernel_fn = _call(constructor, specification)[:3]
    return init_fn, apply_fn, kernel_fn


@functools.lru_cache(maxsize=4096)
def _cached_triple(specification: Specification) -> tuple[Callable, Callable, Callable]:
    with jax.ensure_compile_time_eval():
        return _triple(specification)


def call_name(constructor: Callable, arguments: dict[str, Any]) -> str:
    """A call as code without arguments at their defaults: `Conv(8, (3, 3), b_std=0.1)`."""
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
    if isinstance(value, Tracer):  # its value is not known
        return True
    value = _scalar(value)
    return type(value) is not np.ndarray and value == default


def short(value: Any) -> str:
    """An argument as text for a message, or "..." if it is long."""
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
