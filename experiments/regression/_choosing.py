"""Training examples, and folds on which methods are chosen that do not leave out one by one."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, ShuffleSplit

DIAG_REG = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # times the mean of the kernel's diagonal
MOST = 8000  # examples that a choice is made on
FEW = 500  # up to so many examples there are three folds; beyond, a fifth is held out once

Candidate = TypeVar("Candidate")


@dataclass(frozen=True, eq=False)
class Train:
    """Training examples in units of their own standard deviation, x (n, d) float32 and y (n,)."""

    x: np.ndarray
    y: np.ndarray
    seed: int
    width: int  # features of each map

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray, seed: int, width: int) -> "Train":
        """At most `width` features, and three for five different examples: landmarks say nothing
        about an error on new ones."""
        return cls(x, y, seed, max(2, min(width, len(np.unique(x, axis=0)) * 3 // 5)))

    def at(self, index: np.ndarray) -> "Train":
        return replace(self, x=self.x[index], y=self.y[index])

    def some(self, count: int) -> "Train":
        return self.at(np.random.default_rng(self.seed).permutation(len(self.x))[:count])

    @property
    def folds(self) -> KFold | ShuffleSplit:
        if len(self.x) <= FEW:
            return KFold(3, shuffle=True, random_state=self.seed)
        return ShuffleSplit(1, test_size=0.2, random_state=self.seed)

    def parts(self) -> Iterator[tuple["Train", "Train"]]:
        """Those to fit, and those held out."""
        for fitted, held_out in self.folds.split(self.x):
            yield self.at(fitted), self.at(held_out)


def choose(
    train: Train,
    candidates: Sequence[Candidate],
    errors: Callable[[Train, Train, Candidate], list[float]],
) -> tuple[Candidate, float, float]:
    """The candidate and the regulariser of the smallest error on `MOST` examples, and that error.

    Args:
      errors: mean squared errors on the second part after a fit to the first, one for each value
        of `DIAG_REG`.
    """
    parts = list(train.some(MOST).parts())
    found = np.array(
        [np.mean([errors(*part, one) for part in parts], axis=0) for one in candidates]
    )
    candidate, at = divmod(int(np.argmin(found)), len(DIAG_REG))
    return candidates[candidate], DIAG_REG[at], float(found.min())


def searched(model: Any, grid: dict[str, Any], train: Train) -> tuple[Any, float, dict[str, Any]]:
    """The best of a grid on the folds of `MOST` examples, not fitted; its error and parameters."""
    part = train.some(MOST)
    search = GridSearchCV(model, grid, cv=part.folds, scoring="neg_mean_squared_error", refit=False)
    search.fit(part.x, part.y)
    best: Any = clone(model)
    return best.set_params(**search.best_params_), -search.best_score_, search.best_params_
