"""The quick ones among the test files that Neural Tangents ships.

All of them: scripts/neural_tangents_tests.sh.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from marks import others_slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "name",
    others_slow(["elementwise_numerical_test", "elementwise_test", "rules_test"], "rules_test"),
)
def test_shipped(name):
    done = subprocess.run(
        [ROOT / "scripts" / "neural_tangents_tests.sh", name],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    row = re.search(rf"^{name} +(\d+) +(\d+) +(\d+) ", done.stdout, re.MULTILINE)
    assert row is not None, done.stdout + done.stderr
    passed, failed = int(row[1]), int(row[2])
    assert (passed > 0, failed) == (True, 0), done.stdout
    assert done.returncode == 0


def test_unknown_file():
    done = subprocess.run(
        [ROOT / "scripts" / "neural_tangents_tests.sh", "no_such_test"],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "no such test file: no_such_test" in done.stderr
