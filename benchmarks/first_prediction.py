"""`python -m benchmarks.first_prediction`: a saved CIFAR-10 model in a fresh process.

The model of `experiments.cifar10`, at its default widths, fitted to a few images, which changes
nothing of what a prediction costs. Each fresh process, without a compilation cache, imports the
package, loads the model and predicts one image; then it predicts others, one at a time. It finds
Python's bytecode, which a first run leaves, that is not counted.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import ntk_sketch as ns
from experiments._common import data
from experiments._common._arguments import count, option, settings_from
from experiments._common._command import exit_code
from experiments._common._measure import load_average
from experiments._common._study import finish
from experiments.cifar10 import _run
from experiments.cifar10._recipes import RECIPES
from experiments.cifar10._settings import Settings as Job

ROOT = Path(__file__).parent.parent
STEPS = ("import", "load", "first prediction")
LATER = 20  # predictions of one image each

_TIMED = """
import json, sys, time
times = [time.perf_counter()]
import numpy as np
import ntk_sketch as ns
times.append(time.perf_counter())
solution = ns.load(sys.argv[1])
times.append(time.perf_counter())
images, outputs = np.load(sys.argv[2]), []
for i in range(len(images)):
    outputs.append(np.asarray(solution.predict(images[i : i + 1])))
    times.append(time.perf_counter())
print(json.dumps([np.diff(times).tolist(), np.concatenate(outputs).tolist()]))
"""


@dataclass(frozen=True)
class Settings:
    width: tuple[int, ...] = option((32, 1536), count, "two numbers", as_given=True)
    train: int = option(2000, count, "images")
    repetitions: int = option(5, count, "processes")
    data_dir: str | None = option(None, str, "folder of the images", "DIR")
    digits: bool = option(False, help="scikit-learn's digits in place of CIFAR-10")
    out: Path = option(Path(__file__).parent / "results", Path, "folder of the record", "DIR")


def fitted(settings: Settings) -> tuple[ns.RidgeSolution, np.ndarray]:
    """The model, and images to predict."""
    job = Job(width=settings.width, train=settings.train, test=1 + LATER)
    source = data.open_digits() if settings.digits else data.find(settings.data_dir)
    resolved = _run._resolve(job, source)
    images, labels = source.read("train", resolved.train)
    test_images, _ = source.read("test", resolved.test)
    x, x_test, preprocess = RECIPES[job.recipe].prepared(images, test_images, job.preprocessing)
    model = _run._model(job, resolved, source)
    feature_map = _run._feature_map(job, resolved, model, x, preprocess)
    y = np.eye(len(source.classes))[labels]
    batch_size = feature_map.batch_size(resolved.batch_bytes)
    how = {"get": resolved.kernel, "batch_size": batch_size, "fit_intercept": True}
    return ns.ridge(feature_map, x, y, diag_reg=1e-3, **how), x_test


def in_a_fresh_process(folder: Path) -> tuple[list[float], np.ndarray]:
    """Seconds of the steps and of later predictions; outputs."""
    without = ("JAX_COMPILATION_CACHE_DIR", "PYTHONDONTWRITEBYTECODE")
    environment = {k: v for k, v in os.environ.items() if k not in without}
    environment |= {"PYTHONPYCACHEPREFIX": str(folder), "PYTHONPATH": str(ROOT)}
    files = [str(folder / "model.safetensors"), str(folder / "images.npy")]
    command = [sys.executable, "-c", _TIMED, *files]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"a fresh process failed:\n{done.stderr}")
    seconds, outputs = json.loads(done.stdout.splitlines()[-1])
    return seconds, np.array(outputs)


def run(settings: Settings) -> dict[str, Any]:
    """Measures, prints, writes and returns the record."""
    solution, images = fitted(settings)
    seconds, expected = [], np.asarray(solution.predict(images))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        solution.save(folder / "model.safetensors")
        size = (folder / "model.safetensors").stat().st_size
        np.save(folder / "images.npy", images)
        for repetition in range(settings.repetitions + 1):
            found, outputs = in_a_fresh_process(folder)
            np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-4)
            if repetition:
                seconds.append(found)
    first = np.array([found[: len(STEPS)] for found in seconds])
    later = np.array([found[len(STEPS) :] for found in seconds])
    results = {step: first[:, i].tolist() for i, step in enumerate(STEPS)}
    results["median"] = float(np.median(first.sum(axis=1)))
    results["later, milliseconds (quartiles)"] = np.percentile(1e3 * later, [25, 50, 75]).tolist()
    results["bytes"] = size
    text = " + ".join(f"{step} {np.median(results[step]):.2f}" for step in STEPS)
    lines = f"{results['median']:.2f} s = {text}; later {1e3 * np.median(later):.1f} ms an image"
    load = {"load_average": load_average()}
    return finish(
        "first_prediction", settings, "first-prediction", results, lines, environment=load
    )


def main(arguments: list[str] | None = None) -> int:
    settings, _ = settings_from(Settings, "benchmarks.first_prediction", __doc__, arguments)
    return exit_code(run, settings)


if __name__ == "__main__":
    sys.exit(main())
