"""The site: the code of its pages runs and finds what they say."""

import contextlib
import io
import re
from pathlib import Path

import jax
import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: Scripts of several processes, which `tests/parallel/test_many_machines.py` starts.
OF_PROCESSES = {"many-machines"}
TEXTS = {
    path.relative_to(DOCS).with_suffix("").as_posix(): path.read_text("utf-8")
    for path in sorted(DOCS.rglob("*.md"))
    if "_build" not in path.parts
}
PAGES = [name for name, text in TEXTS.items() if BLOCK.search(text) and name not in OF_PROCESSES]
#: What numbers that pages print have to be: (what stands before, at least, at most).
PRINTED = {
    "graphs-and-text": [
        ("accuracy on .* sentences:", 0.65, 1),
        ("accuracy of bags of words:", 0.6, 1),
        ("of the variance:", 0, 0.5),
    ],
    "start": [("NTK:", 0, 0.05), ("test accuracy:", 0.9, 1)],
    "guide/other-libraries": [("test accuracy:", 0.9, 1), ("loss: .* to", 0, 0.6)],
    "guide/saving": [("predictions: True", None, None)],
    "tutorials/kernel-to-features": [("nngp", 0, 0.1), ("ntk", 0, 0.2)],
    "tutorials/method-and-width": [("Nystroem +128: .* accuracy", 0.9, 1)],
    "tutorials/million-rows": [("test error", 0, 0.4)],
    "tutorials/uncertainty": [("training point", 0, 0.2), ("in the gap", 0.2, 2)],
    "tutorials/many-devices": [("device, largest difference:", 0, 1e-4)],
    "tutorials/empirical-flax": [(", error", 0, 0.15), ("linearised training", 0, 0.4)],
    "methods/nystroem": [(r"layer \(200, 64\)", 0, 0.1), (r"network \(200, 32\)", 0, 0.1)],
    "methods/gegenbauer": [("", 0, 0.15)],
    "mathematics/exact-variances": [("exact variances:", 0, 1e-3)],
    "coming-from/neural-tangents": [("mean squared difference:", 0, 0.1)],
    "coming-from/scikit-learn": [("NTK R²", 0.4, 1)],
    "troubleshooting": [("finite: True", None, None), ("32", 0, 0.1)],
}


def run(name):
    """Every block of a page, one after the other, as users run them; what they print."""
    namespace, printed = {"__name__": "page"}, io.StringIO()
    loosely = jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard")
    with contextlib.redirect_stdout(printed), loosely[0], loosely[1]:
        for number, block in enumerate(BLOCK.findall(TEXTS[name]), 1):
            exec(compile(block, f"{name}, block {number}", "exec"), namespace)
    return printed.getvalue()


@pytest.mark.parametrize("name", PAGES)
def test_page(name):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    try:
        printed = run(name)
    finally:
        pyplot.close("all")
    for before, least, most in PRINTED.get(name, []):
        if least is None:
            assert before in printed
            continue
        found = re.search(rf"^.*?{before} *([\d.e+-]+)", printed, re.MULTILINE)
        assert found, f"{before} not in\n{printed}"
        assert least <= float(found[1].rstrip(".")) <= most, found[0]


def test_expectations_are_of_pages():
    assert set(PRINTED) <= set(PAGES)
