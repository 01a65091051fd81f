"""README and the table of layers: the example runs, links lead somewhere, the table is complete."""

import inspect
import re
from pathlib import Path

import pytest

from ntk_sketch import stax

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LAYERS = (ROOT / "docs" / "layers.md").read_text(encoding="utf-8")
CODE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
(EXAMPLE,) = CODE.findall(README)
LINKS = re.findall(r"\]\((?!https?://)([^)#]+)(?:#([^)]+))?\)", CODE.sub("", README))


def test_example_runs(capsys):
    exec(compile(EXAMPLE, "README.md", "exec"), {"__name__": "readme"})
    (accuracy,) = re.findall(r": ([\d.]+)$", capsys.readouterr().out, re.MULTILINE)
    assert float(accuracy) > 0.9


def test_is_one_page():
    assert len(EXAMPLE.splitlines()) <= 15
    assert len(README.splitlines()) <= 100


@pytest.mark.parametrize(("target", "anchor"), sorted(set(LINKS)))
def test_links_lead_somewhere(target, anchor):
    path = ROOT / target
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


def test_table_has_every_layer():
    (table,) = re.findall(r"^\| layer \|.*?\n\n", LAYERS.replace("<!--", "\n<!--"), re.M | re.S)
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("|")]
    listed = sorted({name for cell in cells for name in re.findall(r"`([A-Za-z_]+)`", cell)})
    constructors = {name for name, value in vars(stax).items() if inspect.isfunction(value)}
    layers = {name for name in constructors if name[0].isupper()}
    assert listed == sorted(layers | {"serial", "parallel", "repeat"})
