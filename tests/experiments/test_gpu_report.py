"""The report of a GPU, rehearsed on the CPU at its smallest sizes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "gpu_report.sh"


def report(*arguments):
    environment = os.environ | {"PYTHON": sys.executable}
    command = ["bash", str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)


def test_every_part_writes_its_record(images, tmp_path):
    out = tmp_path / "out"
    done = report("--data-dir", images, "--out", out, "--toy")
    assert done.returncode == 0, done.stdout + done.stderr
    names = {json.loads(path.read_text())["experiment"] for path in out.glob("*.json")}
    assert names == {"matrix rate", "cifar10", "exact time", "kernel_approximation"}
    rates = json.loads((out / "matrix-rate.json").read_text())["results"]["flops_per_second"]
    assert set(rates) == {"float32", "float32, default", "bfloat16"}
    assert all(rate > 0 for rate in rates.values())
    assert "left out" not in done.stdout


def test_what_does_not_fit_is_left_out(images, tmp_path):
    done = report("--data-dir", images, "--out", tmp_path / "out", "--budget", 30)
    assert "CIFAR-10: left out" in done.stdout
    assert "exact kernel: left out" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "x"], "--data-dir (not given) is no folder"),
        (["--data-dir", "/nowhere", "--out", "x"], "--data-dir /nowhere is no folder"),
        (["--data-dir", "/"], "--out is not given"),
        (["--data-dir", "/", "--out", "x", "--budget", "10"], "too small for any part"),
        (["--fast"], "unknown argument --fast"),
    ],
)
def test_refusals(arguments, message):
    done = report(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
