"""`python -m experiments.kernel_approximation.elementwise`: low-rank factors of f(A Bᵀ).

Relative errors of `ntk_sketch.sketches.elementwise` on UCI data, of a Gaussian kernel and of
functions of the cosine, against the degree of the polynomial and the width of its sketch; of the
same factors with the coefficients of the published objective, of Chebyshev and of Taylor; of random
Fourier features of that rank.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.polynomial import Chebyshev, Polynomial
from scipy import special
from sklearn.kernel_approximation import RBFSampler
from tqdm import tqdm

from experiments._common import _uci
from experiments._common._arguments import count, option, settings_from
from experiments._common._command import exit_code
from experiments._common._study import finish, markdown, mean_and_std
from ntk_sketch.diagnostics import relative_error
from ntk_sketch.sketches import TensorSketch, elementwise, greedy_coreset

from ._elementwise_figure import elementwise_figure

DEGREES, WIDTHS = (2, 4, 8, 12), (32, 128, 512)
CORESET = 64  # rows of A at which coefficients are fitted, as `elementwise` does by default
GAMMA = 0.05  # of the Gaussian kernel exp(-γ ‖x - y‖²) of standardised inputs


class Case(NamedTuple):
    """`f(x xᵀ)`, for a Gaussian kernel scaled on both sides; Taylor coefficients where known."""

    f: Callable
    x: np.ndarray
    scale: np.ndarray
    taylor: Callable[[int], float] | None = None


def cases(x: np.ndarray) -> dict[str, Case]:
    """The functions: of standardised inputs, then of cosines."""
    unit, one = x / np.linalg.norm(x, axis=1, keepdims=True), np.ones(len(x))
    return {
        "Gaussian kernel": Case(
            lambda t: np.exp(2 * GAMMA * t),
            x,
            np.exp(-GAMMA * np.sum(x**2, axis=1)),
            lambda j: (2 * GAMMA) ** j / math.factorial(j),
        ),
        "exp(2t)": Case(lambda t: np.exp(2 * t), unit, one, lambda j: 2.0**j / math.factorial(j)),
        "sigmoid(4t)": Case(lambda t: special.expit(4 * t), unit, one),
        "max(t, 0)": Case(lambda t: np.maximum(t, 0), unit, one),
    }


@dataclass(frozen=True)
class Settings:
    dataset: str = option("protein", str, "name of the npz file", "NAME")
    points: int = option(1000, count)
    seeds: int = option(5, count, "number of keys")
    data_dir: str | None = option(None, str, "folder with uci_regression/NAME.npz", "DIR")
    out: Path = option(Path(__file__).parent / "output", Path, "folder of results", "DIR")


def run(settings: Settings) -> dict[str, Any]:
    """Measures, prints, writes and returns the record.

    Raises:
        DataError: the data set is missing or damaged.
    """
    seeds = settings.seeds
    data, _, name = _uci.load(settings.dataset, settings.data_dir)
    data = data[np.random.default_rng(0).permutation(len(data))]
    spread = data.std(axis=0)
    x = ((data - data.mean(axis=0)) / np.where(spread > 0, spread, 1))[: settings.points].astype(
        np.float32
    )
    rows = []
    chosen = cases(x)
    with tqdm(total=len(chosen) * len(DEGREES) * len(WIDTHS) * seeds, unit="factors") as bar:
        for function, case in chosen.items():
            exact = case.f(case.x @ case.x.T.astype(np.float64)) * np.outer(case.scale, case.scale)
            for degree in DEGREES:
                for width in WIDTHS:
                    found = []
                    for k in range(seeds):
                        found.append(measured(case, exact, degree, width, k))
                        bar.update()
                    rows.append(
                        {"function": function, "degree": degree, "width": width}
                        | {key: mean_and_std([each[key] for each in found]) for key in found[0]}
                    )
    columns = [c for c in COLUMNS if c != "expected"]
    return finish(
        "kernel_approximation.elementwise",
        settings,
        f"elementwise-{name.replace(' ', '-')}-{len(x)}points-{seeds}keys",
        rows,
        table(rows),
        lambda path: elementwise_figure(path, rows, columns, name),
        data={"dataset": name, "gamma": GAMMA},
    )


def measured(case: Case, exact: np.ndarray, degree: int, width: int, seed: int) -> dict[str, float]:
    """Errors of everything that is compared, with one key."""
    key = jax.random.key(seed)
    scales = (case.scale, case.scale)
    factors = elementwise(
        case.f, case.x, case.x, degree=degree, width=width, key=key, scales=scales
    )
    left, right = np.asarray(factors.left, np.float64), np.asarray(factors.right, np.float64)
    result = {
        "rank": float(left.shape[1]),
        "elementwise": relative_error(left @ right.T, exact),
        "expected": factors.expected_error,
    }
    powers = gram_powers(case, degree, width, key)
    radius = np.linalg.norm(case.x, axis=1).max() ** 2
    ball = Chebyshev.interpolate(lambda t: case.f(radius * t), degree)
    coefficients = {
        "upper bound": upper_bound_coefficients(case, degree, width),
        "Chebyshev": ball.convert(kind=Polynomial).coef,
    }
    if case.taylor is not None:
        taylor = [case.taylor(j) * radius**j for j in range(degree + 1)]
        coefficients["Taylor"] = np.array(taylor)
    for name, c in coefficients.items():
        close = np.tensordot(c, powers[: len(c)], axes=1)
        result[name] = relative_error(close, exact)
    if case.scale.min() < 1:  # the Gaussian kernel
        sampler = RBFSampler(gamma=GAMMA, n_components=left.shape[1], random_state=seed)
        z = sampler.fit_transform(case.x.astype(np.float64))
        result["Fourier features"] = relative_error(z @ z.T, exact)
    return result


def gram_powers(case: Case, degree: int, width: int, key: jax.Array) -> np.ndarray:
    """`s_a s_b <S_j a, S_j b>` of rows in the unit ball (degree + 1, n, n), as in `elementwise`:
    powers of no more than `width` monomials are exact, others sketched.
    """
    d, radius = case.x.shape[1], np.linalg.norm(case.x, axis=1).max()
    unit = case.x / radius
    powers = np.asarray(TensorSketch(d, width, degree, key=key).powers(unit), np.float64)
    t = unit.astype(np.float64) @ unit.T
    exact = exact_powers(d, degree, width)
    grams = [t**j if exact[j] else powers[:, j] @ powers[:, j].T for j in range(degree + 1)]
    return np.array(grams) * np.outer(case.scale, case.scale)


def exact_powers(d: int, degree: int, width: int) -> list[bool]:
    """Whether a power has no more than `width` monomials."""
    return [math.comb(d + j - 1, j) <= width for j in range(degree + 1)]


def upper_bound_coefficients(case: Case, degree: int, width: int) -> np.ndarray:
    r"""Coefficients of powers of `t / radius` that minimise the published bound of the error:

        Σ w (f(t) - Σ_j c_j t^j)² + Σ_j W_j² c_j²,
        W_j² = r (2 + 3^j) / m Σ w ‖a‖^{2j} ‖b‖^{2j},

    sums over pairs of rows, with squared scales in the weights w and the coreset of `elementwise`;
    r is the number of powers that are sketched, and W_j is 0 for others.

    Source: Han, Avron and Shin 2020 (arXiv 1905.11616), whose factors sketch all powers but 0.
    """
    x = case.x / np.linalg.norm(case.x, axis=1).max()
    radius = np.linalg.norm(case.x, axis=1).max() ** 2
    chosen = greedy_coreset(case.x, CORESET)
    centres, weights = x[chosen.indices], chosen.weights * case.scale[chosen.indices] ** 2
    t = (centres.astype(np.float64) @ x.T).ravel()
    w = np.sqrt(np.outer(weights, case.scale**2).ravel())
    j = np.arange(degree + 1)
    norms = [
        np.sum(of_row[:, None] * np.sum(rows.astype(np.float64) ** 2, axis=1)[:, None] ** j, axis=0)
        for of_row, rows in ((weights, centres), (case.scale**2, x))
    ]
    sketched = ~np.array(exact_powers(x.shape[1], degree, width))
    penalty = sketched * np.sqrt(sketched.sum() * (2 + 3.0**j) / width * norms[0] * norms[1])
    system = np.vstack([w[:, None] * np.vander(t, degree + 1, increasing=True), np.diag(penalty)])
    right_side = np.concatenate([w * case.f(t * radius), np.zeros(degree + 1)])
    size = np.linalg.norm(system, axis=0)
    return np.linalg.lstsq(system / size, right_side, rcond=None)[0] / size


COLUMNS = ("elementwise", "expected", "upper bound", "Chebyshev", "Taylor", "Fourier features")


def table(rows: list[dict[str, Any]]) -> str:
    """Mean errors over keys; `expected` is what `elementwise` says of itself."""
    lines = []
    for row in rows:
        cells = [f"{row[c]['mean']:.2g}" if c in row else "" for c in COLUMNS]
        lines.append([row["function"], row["degree"], row["width"], f"{row['rank']['mean']:.0f}"])
        lines[-1] += cells
    return markdown(["f", "degree", "width", "rank", *COLUMNS], lines)


def main(arguments: list[str] | None = None) -> int:
    """Runs the measurement; 0 when it is done, 2 when the data are missing or damaged."""
    module = "experiments.kernel_approximation.elementwise"
    text = "Errors of low-rank factors of f(A Bᵀ) on UCI data."
    settings, _ = settings_from(Settings, module, text, arguments)
    return exit_code(run, settings)


if __name__ == "__main__":
    sys.exit(main())
