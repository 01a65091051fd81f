"""The rooms of the package: imports point one way, from the last room to the first."""

import ast
import re
from pathlib import Path

import pytest

import ntk_sketch

PACKAGE = Path(ntk_sketch.__file__).parent
ROOMS = [
    "numerics",
    "identity",
    "storage",
    "parallel",
    "sketches",
    "activations",
    "series",
    "features",
    "methods",
    "stax",
    "maps",
    "streaming",
    "solvers",
    "diagnostics",
    "spectral",
    "subset",
    "predict",
    "empirical",
    "interop",
]
#: At the root: what every room may use. None of them uses a room.
ROOT = ["_arguments", "_nt", "_typing", "_version"]
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def imported(module: str) -> set[str]:
    """The rooms and root modules that a module imports, wherever it does."""
    here = module.removesuffix(".py").split("/")
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / module).read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = here[: len(here) - node.level] + (node.module or "").split(".")
            base = [part for part in base if part]
            found |= {base[0]} if base else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names]
            assert not any(name.split(".")[0] == "ntk_sketch" for name in names if name), module
    return found


def test_every_module_has_its_room():
    inside = {name.split("/")[0] for name in MODULES if "/" in name}
    assert inside == {*ROOMS, "_nt"}
    outside = {name.removesuffix(".py") for name in MODULES if "/" not in name}
    assert outside == {"_arguments", "_typing", "_version", "__init__"}


@pytest.mark.parametrize("module", [name for name in MODULES if name != "__init__.py"])
def test_imports_point_one_way(module):
    room = module.split("/")[0]
    allowed = set(ROOMS[: ROOMS.index(room) + 1]) if room in ROOMS else set()
    assert imported(module) <= allowed | set(ROOT)


def test_one_module_imports_neural_tangents():
    statement = re.compile(r"^\s*(import|from) neural_tangents", re.MULTILINE)
    users = [name for name in MODULES if statement.search((PACKAGE / name).read_text())]
    assert users == ["_nt/__init__.py"]


@pytest.mark.parametrize("module", MODULES)
def test_modules_are_short(module):
    """A module that needs a map is two."""
    assert (PACKAGE / module).read_text().count("\n") <= 300
