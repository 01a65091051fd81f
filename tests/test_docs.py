"""The site: its code runs and finds what pages say, its table of layers is that of the rules."""

import contextlib
import inspect
import io
import re
import warnings
from pathlib import Path

import pytest

from ntk_sketch import stax

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: Scripts of several processes, which `tests/parallel/test_many_machines.py` starts.
OF_PROCESSES = {"many-machines"}
TEXTS = {
    path.relative_to(DOCS).with_suffix("").as_posix(): path.read_text("utf-8")
    for path in sorted(DOCS.rglob("*.md"))
    if "_build" not in path.parts
}
PAGES = [name for name, text in TEXTS.items() if BLOCK.search(text) and name not in OF_PROCESSES]


def run(name):
    """Every block of a page, one after the other; what they print."""
    namespace, printed = {"__name__": "page"}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        for number, block in enumerate(BLOCK.findall(TEXTS[name]), 1):
            exec(compile(block, f"{name}, block {number}", "exec"), namespace)
    return printed.getvalue()


@pytest.mark.parametrize("name", PAGES)
def test_page(name):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    try:
        print(run(name))
    finally:
        pyplot.close("all")
