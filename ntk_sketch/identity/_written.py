"""Serialisation of objects as JSON and a list of arrays."""

import dataclasses
import enum
import functools
import importlib
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jax.core import Tracer

from ._function import KNOWN_BY_NAME, digest_of_function
from ._specification import Specification

#: Modules in which functions of JAX are public, whatever module defines them.
_PUBLIC = ("jax", "jax.numpy", "jax.nn", "jax.lax", "jax.scipy.special")


def written(value: Any, arrays: list, strict: bool = True) -> Any:
    """`value` as JSON. Its arrays are appended to `arrays` and referred to by number.

    It supports pytrees of `equinox.Module`s and other dataclasses, specifications of layers,
    functions and classes by import path, keys of `jax.random`, and plain Python values.

    Args:
        strict: refuse values that `read` could not restore. Otherwise write their names.

    Raises:
        TypeError: a function or class cannot be imported; a note names its layer.
    """
    inner = functools.partial(written, arrays=arrays, strict=strict)
    items: Any = value
    path_of = import_path if strict else _any_path
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Specification):
        return _written_layer(value, inner, path_of)
    if isinstance(value, enum.Enum):
        return {"enum": path_of(type(value)), "name": value.name}
    if isinstance(value, Tracer):
        raise TypeError(f"{value!r} has no value yet: save outside of functions under jit or vmap.")
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        key = {"array": _number_of(jax.random.key_data(value), arrays)}
        return key | {"key": _implementation(value)}
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        array = {"array": _number_of(value, arrays)}
        on_host = strict and not isinstance(value, jax.Array)
        return array | ({"numpy": type(value).__name__} if on_host else {})
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: inner(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"class": path_of(type(value)), "fields": fields}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {"named tuple": path_of(type(value)), "items": list(map(inner, items))}
    if type(value) in (tuple, list):
        return {type(value).__name__: list(map(inner, items))}
    if type(value) is frozenset:
        return {"frozenset": list(map(inner, sorted(items)))}
    if type(value) is dict:
        return {"dict": [[inner(key), inner(item)] for key, item in items.items()]}
    if isinstance(value, np.dtype):
        return {"dtype": str(value)}
    if isinstance(value, jax.tree_util.PyTreeDef):
        return {"structure of": inner(jax.tree.unflatten(items, range(items.num_leaves)))}
    if callable(value):
        return {"import": path_of(value)}
    raise TypeError(f"{value!r} of type {type(value).__name__} cannot be written down.")


_PLAIN = (bool, int, float, str, type(None))


def _implementation(key: jax.Array) -> str:
    """The name for `jax.random.key(seed, impl=name)`; in JAX 0.4 `key_impl` is not that name."""
    for name in ("threefry2x32", "rbg", "unsafe_rbg"):
        if jax.eval_shape(lambda name=name: jax.random.key(0, impl=name)).dtype == key.dtype:
            return name
    return str(jax.random.key_impl(key))


def _number_of(array: Any, arrays: list) -> int:
    arrays.append(array)
    return len(arrays) - 1


def _written_layer(specification: Specification, inner, path_of) -> dict:
    """A layer's constructor and arguments, with numbers written out to be readable."""
    arguments = specification.arguments

    def plain(value):
        if isinstance(value, np.ndarray):
            return {"number": value.tolist()}
        if type(value) in (tuple, list):
            return {type(value).__name__: list(map(plain, value))}
        return inner(value)

    try:
        return {
            "layer": path_of(specification.constructor),
            "arguments": {name: plain(value) for name, value in arguments.items()},
        }
    except TypeError as error:
        if not getattr(error, "__notes__", ()):
            error.add_note(f"In layer {specification.name}.")
        raise


def read(data: Any, arrays) -> Any:
    """Restores the object that `written` wrote, with arrays of NumPy or JAX.

    Only imports run code: the fields of classes are set without a call.

    Raises:
        ImportError: a function or class cannot be imported.
        ValueError: a class has other fields, or JAX has no float64.
    """
    inner = functools.partial(read, arrays=arrays)
    if not isinstance(data, dict):
        return data
    if "number" in data:
        return np.asarray(data["number"], np.float64)
    if "layer" in data:
        arguments = {name: inner(value) for name, value in data["arguments"].items()}
        return Specification.of(imported(data["layer"]), arguments)
    if "enum" in data:
        return _class(data["enum"], enum.Enum)[data["name"]]
    if "array" in data:
        return _read_array(data, arrays)
    if "class" in data:
        return _filled(_class(data["class"]), data["class"], data["fields"], inner)
    if "named tuple" in data:
        return _named_tuple(_class(data["named tuple"], tuple), data, inner)
    if "dict" in data:
        return {inner(key): inner(item) for key, item in data["dict"]}
    if "dtype" in data:
        return np.dtype(data["dtype"])
    if "structure of" in data:
        return jax.tree.structure(inner(data["structure of"]))
    if "import" in data:
        return imported(data["import"])
    [(kind, items)] = data.items()
    return {"tuple": tuple, "list": list, "frozenset": frozenset}[kind](map(inner, items))


def _read_array(data: dict, arrays) -> Any:
    array = arrays[data["array"]]
    if "key" in data:
        return jax.random.wrap_key_data(jax.device_put(array), impl=data["key"])
    if "numpy" in data:
        return np.asarray(array) if data["numpy"] == "ndarray" else np.asarray(array)[()]
    if isinstance(array, jax.Array):
        return array
    if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
        raise ValueError(
            f"It holds arrays of {array.dtype}, which JAX has only after"
            " jax.config.update('jax_enable_x64', True)."
        )
    return jax.device_put(array)


def _class(path: str, base: type = object) -> Any:
    kind = imported(path)
    if isinstance(kind, type) and issubclass(kind, base):
        return kind
    raise ImportError(f"{path} is {kind!r} here, and was another kind of class")


def _filled(kind: type, path: str, fields: dict, inner) -> Any:
    """An object with these fields, made without a call of its class. Fields that were added since
    have their defaults.
    """
    known = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    names = {f.name for f in known}
    new = {f.name: f.default for f in known if f.name not in fields}
    if not names >= set(fields) or dataclasses.MISSING in new.values():
        raise ValueError(
            f"{path} had the fields {', '.join(fields)} and has"
            f" {', '.join(f.name for f in known) or 'none'} here: it was written by another version"
            " of it, which is needed to read it."
        )
    value = object.__new__(kind)
    for name, item in fields.items():
        object.__setattr__(value, name, inner(item))
    for name, default in new.items():
        object.__setattr__(value, name, default)
    return value


def _named_tuple(kind: type, data: dict, inner) -> Any:
    items, known = data["items"], getattr(kind, "_fields", ())
    if len(items) != len(known):
        raise ValueError(
            f"{data['named tuple']} had {len(items)} fields and has {len(known)} here: it was"
            " written by another version of it, which is needed to read it."
        )
    return tuple.__new__(kind, map(inner, items))


def import_path(value: Any) -> str:
    """The path `module:name` of a function or class, a public one if there is one.

    Raises:
        TypeError: it cannot be imported.
    """
    name = getattr(value, "__qualname__", getattr(value, "__name__", ""))
    own = (getattr(value, "__module__", None) or "").split(".")
    modules = (*_PUBLIC, *(".".join(own[: i + 1]) for i in range(len(own))))
    for module in modules:
        path = f"{module}:{name}"
        if module and name and _found(path) is value:
            return path
    if not name:
        raise TypeError(
            f"{value!r} of type {type(value).__name__} cannot be written down. Needed: a function"
            " at the top level of a module, or an equinox.Module, whose arrays are written with it;"
            " equinox.Partial(function, ...) in place of functools.partial."
        )
    raise TypeError(
        f"{value!r} cannot be written down, since it cannot be imported as {modules[-1]}.{name}."
        " Define it at the top level of a module, under that name; for a layer of your own give"
        " the constructor its own name: `Scale = stax.register(Scale, rule)`."
    )


def _any_path(value: Any) -> str:
    """A name for any value. That of a user's function has a digest of what it computes."""
    name = getattr(value, "__qualname__", getattr(value, "__name__", type(value).__name__))
    path = f"{getattr(value, '__module__', None)}:{name}"
    return path if path.startswith(KNOWN_BY_NAME) else f"{path}:{digest_of_function(value)}"


def imported(path: str) -> Any:
    """Imports the function or class of an `import_path`.

    Raises:
        ImportError: it cannot be imported.
    """
    try:
        return _import(path)
    except Exception as error:  # modules may raise anything when they are imported
        raise ImportError(
            f"{path} was written down, but cannot be imported here"
            f" ({type(error).__name__}: {error})"
        ) from error


def _found(path: str) -> Any:
    try:
        return _import(path)
    except (ImportError, AttributeError):
        return None


def _import(path: str) -> Any:
    module, name = path.split(":")
    return functools.reduce(getattr, name.split("."), importlib.import_module(module))
