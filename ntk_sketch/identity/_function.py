"""Digests of users' functions."""

import functools
import hashlib
import types
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jax.core import Tracer

_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...))

#: Packages whose functions are identified by their names, whatever the version.
KNOWN_BY_NAME = ("ntk_sketch.", "neural_tangents.", "jax.", "numpy.")


def digest_of_function(function: Any) -> str:
    """Of its code, constants, defaults, and the numbers and functions that it closes over; of an
    object that is called, its class and its attributes.

    Of global names, only numbers and arrays count by their values. The digest differs between
    versions of Python.
    """
    return hashlib.sha256(repr(_described(function, ())).encode()).hexdigest()[:16]


def _described(value: Any, inside: tuple) -> Any:
    """`value` as nested tuples. `inside`: the objects around it, which it may refer to."""
    inner = functools.partial(_described, inside=(*inside, id(value)))
    if id(value) in inside:
        return "itself"
    if isinstance(value, _PLAIN):
        return repr(value)
    if _is_array(value):
        array = np.asarray(_plain_array(value))
        return str(array.dtype), array.shape, hashlib.sha256(array.tobytes()).hexdigest()
    if isinstance(value, tuple | list):
        return tuple(map(inner, value))
    if isinstance(value, set | frozenset):
        return tuple(sorted(map(repr, map(inner, value))))
    if isinstance(value, dict):
        return tuple((inner(key), inner(item)) for key, item in value.items())
    if isinstance(value, functools.partial):
        return inner(value.func), inner(value.args), inner(value.keywords)
    if isinstance(value, types.CodeType):
        return value.co_code, value.co_names, tuple(map(inner, value.co_consts))
    named = value if callable(value) and hasattr(value, "__qualname__") else type(value)
    path = f"{getattr(named, '__module__', None)}.{named.__qualname__}"
    if path.startswith(KNOWN_BY_NAME):
        return path
    if isinstance(value, types.FunctionType):
        return inner(_parts(value))
    if isinstance(value, types.MethodType):
        return inner(value.__func__), inner(value.__self__)
    if hasattr(value, "__wrapped__"):  # jitted
        return inner(value.__wrapped__)
    if named is value or not hasattr(value, "__dict__"):  # a class, a function in C
        return path
    call = type(value).__call__ if callable(value) else None
    return path, inner(call), inner(vars(value))


def _is_array(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray | np.generic) and not isinstance(value, Tracer)


def _plain_array(array):
    keys = isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(array) if keys else array


def _parts(function: types.FunctionType) -> tuple:
    code = function.__code__
    constants = [c for c in code.co_consts if c is None or c != function.__doc__]
    cells = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
    known = {name: function.__globals__.get(name) for name in _names(code)}
    numbers = {n: v for n, v in known.items() if isinstance(v, int | float) or _is_array(v)}
    defaults = function.__defaults__, function.__kwdefaults__
    return code.co_code, code.co_names, constants, defaults, cells, numbers


def _names(code: types.CodeType) -> tuple[str, ...]:
    """Global names and attributes in the code, and in functions and comprehensions inside it."""
    inner = (_names(c) for c in code.co_consts if isinstance(c, types.CodeType))
    return sum(inner, code.co_names)


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:  # it is assigned later
        return False
    return True
