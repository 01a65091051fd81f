"""Loads NT's modules from disk unchanged, and answers their imports."""

import builtins
import importlib
import importlib.abc
import importlib.machinery
import sys
import types
from typing import Any

import jax

from ._rewritten import REWRITTEN, by_position
from ._versions import NT
from ._views import VIEWS, import_for_nt


def _repair(module: types.ModuleType) -> None:
    """Gives a loaded module of NT its views and rewritten functions, unless it has them."""
    views = {id(sys.modules[name]): view for name, view in VIEWS.items() if name in sys.modules}
    for name, value in list(vars(module).items()):
        if isinstance(value, types.ModuleType) and id(value) in views:
            setattr(module, name, views[id(value)])
        elif isinstance(value, jax.custom_jvp) and value.nondiff_argnums:
            setattr(module, name, by_position(value))
    vars(module).update(REWRITTEN.get(module.__name__, {}))


class _Loader(importlib.abc.Loader):
    """Python's loader of a module of NT, with views in place of some of the module's imports."""

    def __init__(self, loader):
        self._loader = loader

    def __getattr__(self, name: str) -> Any:  # `get_source`, `get_data`, ...
        return getattr(self._loader, name)

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        # CPython takes `__import__` from the builtins of the importing module.
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": import_for_nt}
        self._loader.exec_module(module)
        _repair(module)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path, target=None):
        if fullname.partition(".")[0] != NT:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


def load() -> types.ModuleType:
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    if NT not in sys.modules:
        # Modules left by a failed import of NT would not be attached to the new package.
        for name in [name for name in sys.modules if name.startswith(NT + ".")]:
            del sys.modules[name]
    package = importlib.import_module(NT)
    for name, module in list(sys.modules.items()):
        if name == NT or name.startswith(NT + "."):
            _repair(module)
    return package
