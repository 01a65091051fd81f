"""The examples in Neural Tangents' wheel run once README's two lines are changed in them."""

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from marks import others_slow

DATA = '''
"""In place of TensorFlow Datasets: random images of two classes, far apart."""

import numpy as np


def get_dataset(name, n_train=640, n_test=128, permute_train=False):
    rng = np.random.default_rng(0)
    length = {"mnist": 784, "cifar10": 3072}[name]
    centres = rng.standard_normal((2, length))
    labels = [rng.integers(2, size=n) for n in (n_train, n_test)]
    images = [0.5 * rng.standard_normal((len(l), length)) + centres[l] for l in labels]
    one_hot = [np.eye(10, dtype=np.float32)[l] for l in labels]
    x_train, x_test = (x.astype(np.float32) for x in images)
    return x_train, one_hot[0], x_test, one_hot[1]


def minibatch(x_train, y_train, batch_size, train_epochs):
    for _ in range(train_epochs):
        for start in range(0, len(x_train), batch_size):
            yield x_train[start : start + batch_size], y_train[start : start + batch_size]
'''
PRINTS = {
    "elementwise": "matches the hand-derived NTK",
    "elementwise_numerical": "Gaussian quadrature approximation of the kernel is accurate",
    "empirical_ntk": "All NTK implementations match",
    "function_space": "RMSE of predictions",
    "infinite_fcn": "NTK test",
    "imdb": "Kernel construction and inference done",
    "weight_space": "Linearization Accuracy",
}
SHORTER = {
    "_TRAIN_SIZE = 128": "_TRAIN_SIZE = 32",
    "_TRAIN_TIME = 1000.0": "_TRAIN_TIME = 200.0",
    "_MAX_SENTENCE_LENGTH = 500": "_MAX_SENTENCE_LENGTH = 20",
    # Its own option for a machine without the embeddings.
    "use_dummy_data: bool = False": "use_dummy_data: bool = True",
}


def shipped(name):
    files = importlib.metadata.files("neural-tangents") or []
    (file,) = (file for file in files if str(file) == f"examples/{name}.py")
    return Path(str(file.locate())).read_text(encoding="utf-8")


def two_lines(source):
    """What README tells the owner of existing code to change."""
    first = source.index("import neural_tangents as nt\n" if "as nt\n" in source else "from neural")
    changed = f"{source[:first]}import ntk_sketch\n{source[first:]}"
    return changed.replace("from neural_tangents import stax", "from ntk_sketch import stax")


#: Between them: kernels, quadrature and predictions.
KEPT = ("infinite_fcn",)


@pytest.mark.parametrize("name", others_slow(PRINTS, *KEPT))
def test_example(name, tmp_path):
    package = tmp_path / "examples"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "datasets.py").write_text(DATA)
    (package / "util.py").write_text(shipped("util"))
    source = two_lines(shipped(name))
    for long, short in SHORTER.items():
        source = source.replace(long, short)
    (tmp_path / "example.py").write_text(source)
    done = subprocess.run(
        [sys.executable, "example.py"],
        cwd=tmp_path,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert PRINTS[name] in done.stdout
    if "mnist" in source or "cifar10" in source:
        accuracies = map(float, re.findall(r"Accuracy = ([\d.]+)", done.stdout))
        assert min(accuracies) > 0.7  # guessing: 0.5
