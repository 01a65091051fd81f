"""Runs the test files inside neural-tangents' wheel; see neural_tangents_tests.sh.

Each file runs in a process of its own, since they change JAX's global settings when imported.
"""

import argparse
import importlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What the tests import beyond Neural Tangents' own needs; a file without one of these is not run.
OPTIONAL = ("flax", "more_itertools", "tensorflow", "tensorflow_datasets", "tf2jax")


def shipped() -> dict[str, Path]:
    """Name, as in `stax/linear_test`, -> file, of every test in the installed wheel."""
    files = importlib.metadata.files("neural-tangents") or []
    return {
        str(file).removeprefix("tests/").removesuffix(".py"): Path(str(file.locate()))
        for file in sorted(files, key=str)
        if str(file).startswith("tests/") and str(file).endswith("_test.py")
    }


def run_one(name: str, path: Path) -> dict:
    """Runs one file in this process; counts, or what it needs to run."""
    import ntk_sketch  # noqa: F401, I001  first: makes Neural Tangents importable
    import jax
    import jax.core
    import jax.extend.core
    import pytest
    from jax.interpreters import ad
    from neural_tangents._src.utils import rules

    # Names that JAX has removed and the tests themselves (not the library) use.
    if not hasattr(jax, "tree_map"):
        jax.tree_map = jax.tree_util.tree_map  # pyright: ignore
    if not hasattr(jax.core, "Primitive"):
        jax.core.Primitive = jax.extend.core.Primitive  # pyright: ignore
    if not hasattr(ad, "zeros_like_p"):  # a key of the library's tables
        ad.zeros_like_p = rules.jax.interpreters.ad.zeros_like_p  # pyright: ignore

    # The package `tests` that is meant is theirs, not one of the checkout.
    sys.path.insert(0, str(path.parents[len(Path(name).parts)]))
    try:
        importlib.import_module("tests." + name.replace("/", "."))
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in OPTIONAL:
            raise
        return {"needs": missing}

    class Counter:
        def __init__(self):
            self.counts = dict.fromkeys(("passed", "failed", "skipped"), 0)

        def pytest_runtest_logreport(self, report):
            if report.when == "call" or not report.passed:
                self.counts[report.outcome] += 1

        def pytest_collectreport(self, report):
            self.counts["failed"] += report.failed

    counter = Counter()
    # Not our pytest settings, and no cache folder in site-packages.
    options = ["-c", os.devnull, "--rootdir", os.getcwd(), "-p", "no:cacheprovider", "-q"]
    status = int(pytest.main([*options, str(path)], plugins=[counter]))
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        counter.counts["failed"] += 1
    return counter.counts


def run_all(names: list[str]) -> int:
    """Runs each file in its own process and prints a line for it; 1 if a test failed."""
    known = shipped()
    names = [re.sub(r"^tests/|\.py$", "", name) for name in names] or list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"no such test file: {', '.join(unknown)}; there are: {', '.join(known)}")

    versions = {name: importlib.metadata.version(name) for name in ("jax", "neural-tangents")}
    print("Python", sys.version.split()[0], *(f"{k} {v}" for k, v in versions.items()), flush=True)
    print(f"{'file':36}{'passed':>8}{'failed':>8}{'skipped':>8}{'seconds':>9}", flush=True)
    total = {"passed": 0, "failed": 0, "skipped": 0}

    def row(label, counts, seconds):
        print(f"{label:36}", *(f"{counts[key]:7}" for key in total), f"{seconds:8.1f}", flush=True)

    begin = time.perf_counter()
    for name in names:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder, "report.json")
            done = subprocess.run(
                [sys.executable, "-P", __file__, "--report", str(report), name],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            # No report: the process died, or the file could not be imported.
            dead = {"passed": 0, "failed": 1, "skipped": 0}
            counts = json.loads(report.read_text()) if report.exists() else dead
        if "needs" in counts:
            print(f"{name:36} not run, needs {counts['needs']}", flush=True)
            continue
        for key in total:
            total[key] += counts[key]
        row(name, counts, time.perf_counter() - start)
        if counts["failed"]:
            print(done.stdout, flush=True)
    row("total", total, time.perf_counter() - begin)
    return int(total["failed"] > 0)


def main() -> int:
    parser = argparse.ArgumentParser(prog="neural_tangents_tests.sh")
    parser.add_argument("files", nargs="*", help="such as predict_test or stax/linear_test")
    parser.add_argument("--report", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.report is None:
        return run_all(args.files)
    (name,) = args.files
    sys.argv = sys.argv[:1]  # the test files parse the command line too
    Path(args.report).write_text(json.dumps(run_one(name, shipped()[name])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
