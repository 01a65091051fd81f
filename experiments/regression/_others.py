"""What regression on tables is compared with, of scikit-learn."""

from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.kernel_approximation import Nystroem, RBFSampler
from sklearn.kernel_ridge import KernelRidge

import ntk_sketch as ns
from experiments._common._given import GivenFeatures

from ._choosing import DIAG_REG, Train, searched
from ._scores import Prediction

BANDWIDTHS = (1 / 32, 1 / 8, 1 / 2, 2)  # γ times the number of inputs
TREES = {
    "learning_rate": (0.03, 0.1),
    "max_leaf_nodes": (4, 8, 31),
    "min_samples_leaf": (5, 20),
}


def rbf_features(train: Train, x_test: np.ndarray, landmarks: bool) -> Prediction:
    """Random Fourier features, or landmarks, of a Gaussian kernel, as many as ours; ridge
    regression of the smallest leave-one-out error, by our solver."""
    found = {}
    for bandwidth in BANDWIDTHS:
        kind = Nystroem if landmarks else RBFSampler
        gamma = bandwidth / train.x.shape[1]
        sampler = kind(gamma=gamma, n_components=train.width, random_state=train.seed)
        z = sampler.fit_transform(train.x).astype(np.float32)
        known = np.zeros(len(z), bool)
        known[getattr(sampler, "component_indices_", [])] = True
        solution = ns.ridge(
            GivenFeatures(known), z, train.y, diag_reg=DIAG_REG, select="loo", progress=False
        )
        assert solution.scores is not None
        found[float(np.min(solution.scores)), bandwidth] = sampler, solution
    (score, bandwidth), (sampler, solution) = min(found.items(), key=lambda item: item[0])
    z = sampler.transform(x_test).astype(np.float32)
    mean = np.asarray(solution.predict(z, progress=False), np.float64)
    return Prediction(mean, score, {"bandwidth": bandwidth, "diag_reg": solution.diag_reg})


def kernel_ridge(train: Train, x_test: np.ndarray) -> Prediction:
    """Exact kernel ridge regression with a Gaussian kernel."""
    grid = {
        "gamma": [bandwidth / train.x.shape[1] for bandwidth in BANDWIDTHS],
        "alpha": DIAG_REG,  # the kernel's diagonal is 1
    }
    return _searched(KernelRidge(kernel="rbf"), grid, train, x_test)


def trees(train: Train, x_test: np.ndarray) -> Prediction:
    """Gradient boosting of 200 trees on histograms."""
    fixed: dict[str, Any] = {"max_iter": 200, "early_stopping": False, "random_state": train.seed}
    return _searched(HistGradientBoostingRegressor(**fixed), TREES, train, x_test)


def _searched(model: Any, grid: dict[str, Any], train: Train, x_test: np.ndarray) -> Prediction:
    train = replace(train, x=train.x.astype(np.float64))
    best, score, chosen = searched(model, grid, train)
    mean = best.fit(train.x, train.y).predict(x_test.astype(np.float64))
    return Prediction(mean, score, chosen)
