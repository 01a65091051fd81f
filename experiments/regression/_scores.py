"""How good predictions with variances are."""

from typing import NamedTuple

import numpy as np
from scipy import stats

LEVELS = np.linspace(0.05, 0.95, 19)


class Prediction(NamedTuple):
    """Of test examples, and what was chosen for it.

    Attributes:
        mean: (m,).
        variance: of an observation, (m,) or one number.
        chosen: on the training examples.
    """

    mean: np.ndarray
    variance: np.ndarray | float
    chosen: dict[str, float | int | str]


def rmse(y: np.ndarray, prediction: Prediction) -> float:
    return float(np.sqrt(np.mean((y - prediction.mean) ** 2)))


def log_likelihood(y: np.ndarray, prediction: Prediction) -> float:
    """Mean over test examples of the log density of the normal distribution."""
    variance = np.broadcast_to(prediction.variance, y.shape)
    densities = np.log(2 * np.pi * variance) + (y - prediction.mean) ** 2 / variance
    return float(-0.5 * np.mean(densities))


def coverage(y: np.ndarray, prediction: Prediction) -> list[float]:
    """For each of `LEVELS`, the share of test examples inside the central interval that the normal
    distribution gives this probability."""
    z = np.abs(y - prediction.mean) / np.sqrt(prediction.variance)
    return [float(np.mean(z <= stats.norm.ppf(0.5 + level / 2))) for level in LEVELS]


def mean_ranks(errors: np.ndarray) -> np.ndarray:
    """Mean over rows of the rank of each column, 1 the smallest; equal ones share theirs."""
    return stats.rankdata(errors, axis=1).mean(axis=0)
