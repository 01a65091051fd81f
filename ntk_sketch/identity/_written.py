"""Objects written down as JSON and a list of arrays, and read again."""

import dataclasses
import enum
import functools
import hashlib
import importlib
from typing import Any

import jax
import numpy as np

from ._specification import Specification

#: Where functions of JAX are public, whatever module they are defined in.
_PUBLIC = ("jax", "jax.numpy", "jax.nn", "jax.lax", "jax.scipy.special")


def written(value: Any, arrays: list, strict: bool = True) -> Any:
    """`value` as what JSON knows; its arrays are appended to `arrays` and referred to by number.

    Written down are pytrees of `equinox.Module`s and other dataclasses, specifications of layers,
    functions and classes by their import path, and Python's plain values.

    Args:
        strict: refuse what could not be read again. Otherwise a name stands for it.

    Raises:
        TypeError: something that cannot be imported again, with the name of the layer it belongs
            to.
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
    if isinstance(value, jax.Array | np.ndarray):
        arrays.append(value)
        return {"array": len(arrays) - 1}
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
    if callable(value):
        return {"import": path_of(value)}
    raise TypeError(f"{value!r} of type {type(value).__name__} cannot be written down.")


_PLAIN = (bool, int, float, str, type(None))


def _written_layer(specification: Specification, inner, path_of) -> dict:
    """Numbers are written out: they are what a reader looks for."""
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
    """The object that `written` wrote."""
    inner = functools.partial(read, arrays=arrays)
    if not isinstance(data, dict):
        return data
    if "number" in data:
        return np.asarray(data["number"], np.float64)
    if "layer" in data:
        arguments = {name: inner(value) for name, value in data["arguments"].items()}
        return Specification.of(imported(data["layer"]), arguments)
    if "enum" in data:
        return imported(data["enum"])[data["name"]]
    if "array" in data:
        return arrays[data["array"]]
    if "class" in data:
        kind = imported(data["class"])
        value = object.__new__(kind)
        for name, item in data["fields"].items():
            object.__setattr__(value, name, inner(item))
        return value
    if "named tuple" in data:
        return imported(data["named tuple"])(*map(inner, data["items"]))
    if "dict" in data:
        return {inner(key): inner(item) for key, item in data["dict"]}
    if "dtype" in data:
        return np.dtype(data["dtype"])
    if "import" in data:
        return imported(data["import"])
    [(kind, items)] = data.items()
    return {"tuple": tuple, "list": list, "frozenset": frozenset}[kind](map(inner, items))


def import_path(value: Any) -> str:
    """`module:name` of a function or class that can be imported by it.

    Raises:
        TypeError: it cannot.
    """
    name = getattr(value, "__qualname__", getattr(value, "__name__", ""))
    modules = (*_PUBLIC, getattr(value, "__module__", None))
    for module in modules:
        path = f"{module}:{name}"
        if module and name and _found(path) is value:
            return path
    raise TypeError(
        f"{value!r} cannot be written down, since it cannot be imported as {modules[-1]}.{name}."
        " Define it at the top level of a module, under that name; for a layer of your own give"
        " the constructor its own name: `Scale = stax.register(Scale, rule)`."
    )


def _any_path(value: Any) -> str:
    """A name, also of what cannot be imported; for a function with a digest of its code."""
    name = getattr(value, "__qualname__", getattr(value, "__name__", type(value).__name__))
    code = getattr(getattr(value, "__code__", None), "co_code", b"")
    return f"{getattr(value, '__module__', None)}:{name}:{hashlib.sha256(code).hexdigest()[:16]}"


def imported(path: str) -> Any:
    """What `import_path` names.

    Raises:
        ImportError: there is no such thing here.
    """
    value = _found(path)
    if value is None:
        raise ImportError(f"{path} was written down, but cannot be imported here.")
    return value


def _found(path: str) -> Any:
    module, name = path.split(":")
    try:
        return functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except (ImportError, AttributeError):
        return None
