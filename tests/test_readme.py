"""README and the table of layers: the example runs, links lead somewhere, the table is complete."""

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ntk_sketch import stax

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LAYERS = (ROOT / "docs" / "layers.md").read_text(encoding="utf-8")
CODE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
(EXAMPLE,) = CODE.findall(README)
PAGES = [ROOT / "README.md", ROOT / "benchmarks" / "README.md"]
PAGES += sorted((ROOT / "experiments").glob("**/README.md"))
LINK = re.compile(r"\]\((?!https?://)([^)#]+)(?:#([^)]+))?\)")
LINKS = {
    (page.relative_to(ROOT).as_posix(), *link)
    for page in PAGES
    for link in LINK.findall(CODE.sub("", page.read_text("utf-8")))
}


def test_example_runs(capsys):
    exec(compile(EXAMPLE, "README.md", "exec"), {"__name__": "readme"})
    (accuracy,) = re.findall(r": ([\d.]+)$", capsys.readouterr().out, re.MULTILINE)
    assert float(accuracy) > 0.9


def test_the_example_warns_of_nothing():
    """In a process of its own, with the settings that users have: 32 bits above all."""
    words = [sys.executable, "-W", "error::UserWarning", "-W", "error::RuntimeWarning"]
    done = subprocess.run([*words, "-c", EXAMPLE], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_example_is_short():
    assert len(EXAMPLE.splitlines()) <= 15


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_is_one_page(page):
    assert len(page.read_text("utf-8").splitlines()) <= 100


@pytest.mark.parametrize(("page", "target", "anchor"), sorted(LINKS))
def test_links_lead_somewhere(page, target, anchor):
    path = (ROOT / page).parent / target
    assert path.exists()
    if anchor:
        headings = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.MULTILINE)
        plain = [re.sub(r"[^\w -]", "", heading).lower() for heading in headings]
        assert anchor in [heading.replace(" ", "-") for heading in plain]


def test_table_is_what_rules_say():
    (table,) = re.findall(
        r"^<!-- layers: .*?-->\n(.*?)\n<!-- end", LAYERS, re.MULTILINE | re.DOTALL
    )
    assert table == str(stax.supported()), "put str(ntk_sketch.stax.supported()) in its place"


def test_every_cell_is_measured():
    """But where the cell is a "no"; `Exact()` is exact in float32."""
    found = json.loads((ROOT / "benchmarks" / "results" / "layers.json").read_text("utf-8"))
    results, table = found["results"], stax.supported()
    assert list(results) == list(table)
    for layer, cells in table.items():
        for method, cell in cells.items():
            assert (results[layer][method] is None) == cell.startswith("no")
    assert max(row["Exact"] for row in results.values()) < 1e-4
    assert max(error for row in results.values() for error in row.values() if error) < 1
    assert not found["environment"]["commit"].endswith("+")


def test_wide_residual_network():
    """What its experiment says: errors on CIFAR-10, and the share of the matrix rate."""
    folder = ROOT / "experiments" / "kernel_approximation" / "results"
    name = "cifar10-wideresnet10-relu-12images-2keys.json"
    rows = json.loads((folder / name).read_text("utf-8"))["results"]
    (row,) = (row for row in rows if (row["method"], row["width"]) == ("Nystroem", 256))
    assert row["errors"]["ntk"]["relative"]["mean"] <= 0.03
    assert row["share_of_large_product"] >= 0.6


def test_attention_over_64_tokens():
    """Landmarks of a sample, on other sequences; pairs exact and estimated."""
    path = ROOT / "benchmarks" / "results" / "position-pairs.json"
    found = json.loads(path.read_text("utf-8"))
    assert found["settings"]["width"] == 256
    errors = found["results"]["64 tokens"]["Nystroem"]
    assert len(errors["exact"]) >= 3
    assert max(*errors["exact"], *errors["estimated"]) <= 0.02


def test_table_has_every_layer():
    (table,) = re.findall(r"^\| layer \|.*?\n\n", LAYERS.replace("<!--", "\n<!--"), re.M | re.S)
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("|")]
    listed = sorted({name for cell in cells for name in re.findall(r"`([A-Za-z_]+)`", cell)})
    constructors = {name for name, value in vars(stax).items() if inspect.isfunction(value)}
    layers = {name for name in constructors if name[0].isupper()}
    assert listed == sorted(layers | {"serial", "parallel", "repeat"})
