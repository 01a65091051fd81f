"""`python -m experiments.kernel_approximation.elementwise`: low-rank factors of f(A Bᵀ).

Relative errors of `ntk_sketch.sketches.elementwise` on UCI data, of a Gaussian kernel and of
functions of the cosine, against the degree of the polynomial and the width of its sketch; of the
same sketch with Chebyshev and with Taylor coefficients; of random Fourier features of that rank.
"""

import argparse
import math
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.polynomial import Chebyshev, Polynomial
from scipy import special
from sklearn.kernel_approximation import RBFSampler
from tqdm import tqdm

from experiments import _uci
from experiments._record import command_line, environment, write_record
from experiments.cifar10._settings import count
from experiments.cifar10.data import DataError
from ntk_sketch.sketches import TensorSketch, elementwise

from ._measure import relative_error
from ._settings import OUTPUT

DEGREES, WIDTHS = (2, 4, 8, 12), (32, 128, 512)
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


def run(dataset: str, points: int, seeds: int, data_dir: str | None, out: Path) -> dict[str, Any]:
    """Measures, prints, writes and returns the record.

    Raises:
        DataError: the data set is missing or damaged.
    """
    data, _, name = _uci.load(dataset, data_dir)
    data = data[np.random.default_rng(0).permutation(len(data))]
    spread = data.std(axis=0)
    x = ((data - data.mean(axis=0)) / np.where(spread > 0, spread, 1))[:points].astype(np.float32)
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
                        | {key: summary([each[key] for each in found]) for key in found[0]}
                    )
    record = {
        "experiment": "kernel_approximation.elementwise",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        "settings": {"points": len(x), "seeds": seeds, "gamma": GAMMA},
        "environment": environment(),
        "data": {"dataset": name},
        "results": rows,
    }
    path = out / f"elementwise-{name.replace(' ', '-')}-{len(x)}points-{seeds}keys"
    write_record(path.with_name(f"{path.name}.json"), record)
    print(f"{table(rows)}\n\nrecord: {path}.json")
    draw(path.with_name(f"{path.name}.png"), rows, name)
    return record


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
    sketch = TensorSketch(case.x.shape[1], width, degree, key=key)
    radius = np.linalg.norm(case.x, axis=1).max() ** 2
    powers = np.asarray(sketch.powers(case.x / radius**0.5), np.float64)
    powers = powers * case.scale[:, None, None]
    ball = Chebyshev.interpolate(lambda t: case.f(radius * t), degree)
    coefficients: dict[str, Any] = {"Chebyshev": ball.convert(kind=Polynomial).coef}
    if case.taylor is not None:
        coefficients["Taylor"] = [case.taylor(j) * radius**j for j in range(degree + 1)]
    for name, c in coefficients.items():
        weighted = powers[:, : len(c)] * np.asarray(c, np.float64)[:, None]
        close = np.einsum("ajm,bjm->ab", weighted, powers[:, : len(c)], optimize=True)
        result[name] = relative_error(close, exact)
    if case.scale.min() < 1:  # the Gaussian kernel
        sampler = RBFSampler(gamma=GAMMA, n_components=left.shape[1], random_state=seed)
        z = sampler.fit_transform(case.x.astype(np.float64))
        result["Fourier features"] = relative_error(z @ z.T, exact)
    return result


def summary(values: list[float]) -> dict[str, Any]:
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "std": std}


COLUMNS = ("elementwise", "expected", "Chebyshev", "Taylor", "Fourier features")


def table(rows: list[dict[str, Any]]) -> str:
    """Mean errors over keys; `expected` is what `elementwise` says of itself."""
    lines = [
        f"| f | degree | width | rank | {' | '.join(COLUMNS)} |",
        "|" + "---|" * (4 + len(COLUMNS)),
    ]
    for row in rows:
        cells = [f"{row[c]['mean']:.2g}" if c in row else "" for c in COLUMNS]
        start = f"{row['function']} | {row['degree']} | {row['width']} | {row['rank']['mean']:.0f}"
        lines.append(f"| {start} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(path: Path, rows: list[dict[str, Any]], dataset: str) -> None:
    """The figure; the record is already written, so that nothing is lost when this fails."""
    try:
        from ._elementwise_figure import elementwise_figure
    except ImportError as error:
        print(f"no figure: {error} (pip install matplotlib)", file=sys.stderr)
        return
    elementwise_figure(path, rows, [c for c in COLUMNS if c != "expected"], dataset)
    print(f"figure: {path}")


def main(arguments: list[str] | None = None) -> int:
    """Runs the measurement; 0 when it is done, 2 when the data are missing or damaged."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.kernel_approximation.elementwise",
        description="Errors of low-rank factors of f(A Bᵀ) on UCI data.",
    )
    add = parser.add_argument
    add("--dataset", default="protein", metavar="NAME", help="(default: protein)")
    add("--points", type=count, default=1000, metavar="N")
    add("--seeds", type=count, default=5, metavar="N", help="number of keys")
    add("--data-dir", metavar="DIR", help="folder with uci_regression/NAME.npz or NAME.npz")
    add("--out", type=Path, default=OUTPUT, metavar="DIR")
    given = parser.parse_args(arguments)
    try:
        run(given.dataset, given.points, given.seeds, given.data_dir, given.out)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
