"""The fixed case of studies: CIFAR-10 images, a Myrtle network and its exact NTK."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import ntk_sketch as ns
from experiments.cifar10 import data
from experiments.cifar10._architectures import myrtle
from experiments.cifar10._preprocess import Steps, fit
from experiments.cifar10._regression import given
from experiments.cifar10._settings import DIAG_REG

from ._exact import exact_kernels, fingerprint
from ._measure import centred_error, relative_error
from ._settings import Settings

TRAIN, TEST, IMAGES = 2000, 1000, 24


@dataclass(frozen=True)
class Case:
    """Training and test images, preprocessed, their labels, the network and the exact NTK of the
    first test images.
    """

    source: data.Source
    model: Any
    x: np.ndarray
    labels: np.ndarray
    x_test: np.ndarray
    labels_test: np.ndarray
    exact: np.ndarray

    def errors(self, z_test: np.ndarray) -> dict[str, float]:
        """Of the kernel of the first test images, given features of the test images (n, p)."""
        first = z_test[:IMAGES].astype(np.float64)
        close = first @ first.T
        return {
            "relative": relative_error(close, self.exact),
            "centred": centred_error(close, self.exact),
        }

    def accuracy(self, z: np.ndarray, z_test: np.ndarray) -> dict[str, float]:
        """Of ridge regression on features of the training images (n, p), `diag_reg` by GCV."""
        classes = len(self.source.classes)
        y = (np.eye(classes)[self.labels] - 1 / classes).astype(np.float32)
        solution = ns.ridge(given, z, y, diag_reg=DIAG_REG, select="gcv")
        right = np.argmax(solution.predict(z_test), 1) == self.labels_test
        return {
            "accuracy": float(np.mean(right)),
            "diag_reg": float(np.asarray(solution.diag_reg)),
        }


def read_case(data_dir: str | None, out: Path) -> Case:
    """Reads the images and computes the exact NTK, which is kept in `out`.

    Raises:
        data.DataError: data that is missing or damaged.
    """
    source, network, steps = data.find(data_dir), Settings().network, Steps(zca_reg=0.1)
    images, labels = source.read("train", min(TRAIN, source.n_train))
    test_images, labels_test = source.read("test", min(TEST, source.n_test))
    preprocessing = fit(images, steps)
    x, x_test = preprocessing(images), preprocessing(test_images)
    model = myrtle(shape=source.shape, **network)
    kernel_hash = fingerprint(
        network | {"preprocessing": asdict(steps)}, images, test_images[:IMAGES]
    )
    exact = exact_kernels(model[2], x_test[:IMAGES], out / f"exact-{kernel_hash}.npz")["ntk"]
    return Case(source, model, x, labels, x_test, labels_test, exact)
