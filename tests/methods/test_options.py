"""What all methods' constructors have in common."""

import inspect

import pytest

import ntk_sketch as ns
from ntk_sketch import methods
from ntk_sketch.methods import Method

METHODS = [
    kind
    for kind in vars(methods).values()
    if inspect.isclass(kind) and issubclass(kind, Method) and not inspect.isabstract(kind)
]

#: What may be given by position.
POSITIONAL = {"Exact": [], "PolySketch": ["degree", "width"], "Gegenbauer": ["degree", "width"]}


@pytest.mark.parametrize("kind", METHODS, ids=lambda kind: kind.__name__)
def test_options_are_keyword_only(kind):
    """`Nystroem(64, 0.5)` and `RandomFeatures(64, True)` would mean different things."""
    parameters = list(inspect.signature(kind).parameters.values())
    names = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert names == POSITIONAL.get(kind.__name__, ["width"])
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters[len(names) :])


def test_there_are_six():
    assert len(METHODS) == 6
    with pytest.raises(TypeError, match="positional argument"):
        ns.Nystroem(64, 0.5)  # pyright: ignore[reportCallIssue]
