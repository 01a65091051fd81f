"""The wheel, the scripts and the examples in docstrings."""

import os
import re
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import ntk_sketch

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = [*sorted((ROOT / "scripts").glob("*.sh")), ROOT / ".ci" / "run"]
EXTRAS = {"sklearn", "flax", "tfds", "cuda", "docs", "test"}


def _run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _pip(*arguments):
    _run(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT))
    (path,) = folder.glob("ntk_sketch-*.whl")
    return path


def test_wheel_holds_the_package_alone(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert top == {"ntk_sketch", f"ntk_sketch-{ntk_sketch.__version__}.dist-info"}
    source = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "ntk_sketch").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if name.startswith("ntk_sketch/")} == source
    assert {"LICENSE", "NOTICE"} <= {name.split("/")[-1] for name in names}


def test_wheel_metadata(wheel):
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = Parser().parsestr(archive.read(name).decode())
    assert metadata["Name"] == "ntk-sketch"
    assert metadata["Version"] == ntk_sketch.__version__
    assert set(metadata.get_all("Provides-Extra", [])) >= EXTRAS
    required = metadata.get_all("Requires-Dist", [])
    assert "neural-tangents==0.6.5" in required
    assert any("extra" not in line and line.startswith("jax>=") for line in required)


def test_wheel_imports_outside_the_checkout(wheel, tmp_path):
    target = tmp_path / "site"
    _pip("install", "--no-deps", "--no-compile", "--target", str(target), str(wheel))
    assert (target / "ntk_sketch" / "py.typed").is_file()
    code = "import ntk_sketch as n, neural_tangents; print(n.__version__); print(n.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(target)}
    printed = _run(sys.executable, "-c", code, cwd=tmp_path, env=environment).splitlines()
    assert printed[0] == ntk_sketch.__version__
    assert Path(printed[1]).is_relative_to(target)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_script(script):
    _run("bash", "-n", str(script))
    sourced = script.name.startswith("_")
    assert os.access(script, os.X_OK) != sourced
    assert script.read_text().startswith("#!/usr/bin/env bash\n") != sourced


def test_script_names_a_python_that_does_not_run():
    done = subprocess.run(
        [ROOT / "scripts" / "test.sh"],
        env={**os.environ, "PYTHON": "no-such-python"},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "PYTHON=no-such-python does not run" in done.stderr


def test_changelog_and_citation_name_the_version():
    version = re.escape(ntk_sketch.__version__)
    assert re.search(rf"^## \[{version}\] - ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert re.search(rf"^version: {version}$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
