"""The code of pages in `docs/` runs and finds what they say."""

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"


def run(name):
    """Every block of a page, one after the other."""
    namespace = {"__name__": "page"}
    blocks = re.findall(r"^```python\n(.*?)^```$", (DOCS / name).read_text("utf-8"), re.M | re.S)
    assert blocks
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"{name}, block {number}", "exec"), namespace)


def test_graphs_and_text(capsys):
    run("graphs-and-text.md")
    accuracy, error = map(float, re.findall(r": ([\d.]+)$", capsys.readouterr().out, re.M))
    assert accuracy > 0.65  # half of the sentences are of either module
    assert error < 0.5


def test_your_own_layer():
    """Which asserts of each layer that its rule is right."""
    run("your-own-layer.md")
