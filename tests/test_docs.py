"""The code of pages in `docs/` runs and finds what they say."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "graphs-and-text.md"


def test_graphs_and_text(capsys):
    namespace = {"__name__": "page"}
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"{PAGE.name}, block {number}", "exec"), namespace)
    accuracy, error = map(float, re.findall(r": ([\d.]+)$", capsys.readouterr().out, re.M))
    assert accuracy > 0.65  # half of the sentences are of either module
    assert error < 0.5
