"""The README: its code runs, its table is complete, its links lead somewhere."""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest

from ntk_sketch import stax

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CODE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = CODE.findall(README)
LINKS = re.findall(r"\]\((?!https?://)([^)#]+)\)", CODE.sub("", README))


def test_blocks_run(capsys):
    """In order and in one namespace: later ones go on from the example."""
    namespace = {"__name__": "readme"}
    for number, block in enumerate(BLOCKS, 1):
        exec(compile(block, f"README.md, block {number}", "exec"), namespace)
    found = re.findall(r": ([\d.]+)$", capsys.readouterr().out, re.MULTILINE)
    accuracy, error, of_estimator = map(float, found)
    assert accuracy > 0.9
    assert of_estimator > 0.9
    assert error < 0.1
    z, exact = namespace["z"], namespace["exact"]
    np.testing.assert_allclose(z.ntk @ z.ntk.T, namespace["approximate"], rtol=1e-4)
    assert np.linalg.norm(z.ntk @ z.ntk.T - exact) < 0.1 * np.linalg.norm(exact)


def test_example_is_short():
    assert len(BLOCKS[0].splitlines()) <= 15


@pytest.mark.parametrize("target", sorted(set(LINKS)))
def test_links_lead_somewhere(target):
    assert (ROOT / target).exists()


def test_table_is_what_rules_say():
    (table,) = re.findall(
        r"^<!-- layers: .*?-->\n(.*?)\n<!-- end", README, re.MULTILINE | re.DOTALL
    )
    assert table == str(stax.supported()), "put str(ntk_sketch.stax.supported()) in its place"


def test_table_has_every_layer():
    (table,) = re.findall(r"^\| layer \|.*?\n\n", README, re.MULTILINE | re.DOTALL)
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("|")]
    listed = sorted({name for cell in cells for name in re.findall(r"`([A-Za-z_]+)`", cell)})
    constructors = {name for name, value in vars(stax).items() if inspect.isfunction(value)}
    layers = {name for name in constructors if name[0].isupper()}
    assert listed == sorted(layers | {"serial", "parallel", "repeat"})
