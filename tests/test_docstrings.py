"""Every public function and class has an example, and all examples run as they stand."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import ntk_sketch

MODULES = [ntk_sketch.__name__] + [
    info.name for info in pkgutil.walk_packages(ntk_sketch.__path__, "ntk_sketch.")
]
PACKAGES = [name for name in MODULES if not name.rpartition(".")[2].startswith("_")]


def is_of_neural_tangents(module, name):
    """A registered constructor has the documentation of Neural Tangents, for their readers."""
    return hasattr(getattr(module, name.rpartition(".")[2], None), "plain")


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    """Without the names of their module: as somebody who pastes them."""
    module, runner = importlib.import_module(name), doctest.DocTestRunner()
    for test in doctest.DocTestFinder().find(module, globs={}):
        if not is_of_neural_tangents(module, test.name):
            runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


@pytest.mark.parametrize("package", PACKAGES)
def test_all_that_is_public_has_an_example(package):
    """But for named tuples, which are what a function returns, and errors."""
    module = importlib.import_module(package)
    for name, value in vars(module).items():
        ours = getattr(value, "__module__", "").startswith("ntk_sketch")
        if name.startswith("_") or not ours or not callable(value):
            continue
        error = isinstance(value, type) and issubclass(value, Exception)
        if error or hasattr(value, "_fields") or is_of_neural_tangents(module, name):
            continue
        assert ">>>" in (inspect.getdoc(value) or ""), f"{package}.{name}"
