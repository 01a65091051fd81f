"""The report of a GPU, rehearsed on the CPU at its smallest sizes."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "gpu_report.sh"
PARTS = {
    "matrix rate": "benchmarks.matrix_rate",
    "CIFAR-10": "experiments.cifar10",
    "exact kernel": "benchmarks.exact_time",
    "kernel errors": "experiments.kernel_approximation",
    "CIFAR-10, wider": "experiments.cifar10",
}


def report(*arguments, python=sys.executable):
    command = ["bash", str(SCRIPT), *map(str, arguments)]
    environment = os.environ | {"PYTHON": str(python)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)


@pytest.fixture
def recorder(tmp_path):
    """In place of Python: writes down its arguments, one line for each command."""
    path = tmp_path / "recorder"
    path.write_text(
        f'#!/usr/bin/env bash\nprintf "%s\\t" "$@" >>{tmp_path}/said\necho >>{tmp_path}/said\n'
    )
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("toy", [[], ["--toy"]])
def test_every_part_is_a_command_that_its_module_takes(
    toy, recorder, images, tmp_path, monkeypatch
):
    done = report("--data-dir", images, "--out", tmp_path / "out", *toy, python=recorder)
    assert done.returncode == 0, done.stdout + done.stderr
    commands = [
        line.rstrip("\t").split("\t") for line in (tmp_path / "said").read_text().splitlines()
    ]
    parts = list(PARTS.items())[: 4 if toy else None]
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [name for name, _ in parts]
    assert [module for _, module, *_ in commands] == [module for _, module in parts]
    for flag, name, *arguments in commands:
        assert flag == "-m"
        module = importlib.import_module(name)
        if hasattr(module, "__path__"):  # a package
            module = importlib.import_module(f"{name}.__main__")
        found = []
        monkeypatch.setattr(module, "run", found.append)
        assert module.main(arguments) == 0
        assert found[0].out == tmp_path / "out"
        assert name == "benchmarks.matrix_rate" or Path(found[0].data_dir) == images


@pytest.mark.slow
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


def test_what_does_not_fit_is_left_out(recorder, images, tmp_path):
    done = report("--data-dir", images, "--out", tmp_path / "out", "--budget", 30, python=recorder)
    assert re.search(r"^matrix rate: \d+ s \(exit status 0\)$", done.stdout, re.MULTILINE)
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
