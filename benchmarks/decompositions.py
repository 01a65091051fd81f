"""`python -m benchmarks.decompositions`: seconds of decompositions in float64, against their size.

Of p landmarks of a dense ReLU network, and of a regression on as many features: the root of the
Gram matrix, a regulariser by eigenvalues and eigenvectors, one by a Cholesky factor, and a path of
eight by both. All take turns in every repetition. By LAPACK on a CPU; on a GPU where the matrix is.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments._common._arguments import count, option, settings_from
from experiments._common._command import exit_code
from experiments._common._measure import interleaved_seconds, load_average
from experiments._common._study import finish
from ntk_sketch.methods._roots import inverse_root
from ntk_sketch.numerics._linalg import at_home
from ntk_sketch.solvers._gram_state import GramState
from ntk_sketch.solvers._host_sums import HostSums
from ntk_sketch.solvers._normal_equations import NormalEquations
from ntk_sketch.solvers._primal_factors import PrimalFactors
from ntk_sketch.solvers._primal_spectrum import PrimalSpectrum
from ntk_sketch.solvers._targets import Units

PATH = np.geomspace(1e-6, 1.0, 8)
FORMS = {"eigenvectors": PrimalSpectrum, "factors": PrimalFactors}


def gram(p: int) -> np.ndarray:
    """The NNGP kernel of one hidden ReLU layer at p points of the sphere in 20 dimensions."""
    x = np.random.default_rng(0).normal(size=(p, 20))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    cosines = np.clip(x @ x.T, -1.0, 1.0)
    return (np.sqrt(1 - cosines**2) + cosines * (np.pi - np.arccos(cosines))) / np.pi


def statistics(kernel: np.ndarray) -> GramState:
    """As if that kernel were ZᵀZ, with ten outputs."""
    p = len(kernel)
    rng = np.random.default_rng(1)
    cross, outputs = rng.normal(size=(p, 10)), np.ones(10)
    norm = np.asarray(np.trace(kernel))
    weight = np.asarray(10.0 * p)
    sums = HostSums(kernel, cross, 1e3 * p * outputs, 0 * outputs, norm, kernel[0], weight)
    return GramState.of_host(sums, Units(0 * outputs, 0), 10 * p, np.float32, False, 1e-14)


def solved(state: GramState, form: Callable, diag_regs: np.ndarray) -> dict[str, float]:
    """Weights and what GCV needs of each regulariser; the largest condition and residual."""
    found = form(NormalEquations.of(state))
    penalties = [diag_reg * found.mean_square_norm for diag_reg in diag_regs]
    weights, conditions = [], []
    for penalty in penalties:
        weights.append(found.weights(penalty))
        found.residual_sums(penalty)
        conditions.append(found.condition(penalty))
    return {"condition": max(conditions), "residual": max(found.residuals(penalties, weights))}


@dataclass(frozen=True)
class Settings:
    sizes: tuple[int, ...] = option((2048, 4096, 8192), count, name="P")
    repetitions: int = option(3, count)
    out: Path = option(Path(__file__).parent / "results", Path, "folder of the record", "DIR")


def measure(p: int, repetitions: int) -> dict[str, Any]:
    kernel = gram(p)
    matrix, state = at_home(kernel), statistics(kernel)
    calls: dict[str, Callable[[], Any]] = {"root": lambda: inverse_root(matrix)}
    quality: dict[str, Any] = {}
    for name, form in FORMS.items():
        for text, path in [("one regulariser", PATH[4:5]), (f"{len(PATH)} regularisers", PATH)]:

            def call(key=f"{text} by {name}", form=form, path=path):
                quality[key] = solved(state, form, path)

            calls[f"{text} by {name}"] = call
    seconds = interleaved_seconds(calls, repetitions)
    return {name: {"seconds": found} | quality.get(name, {}) for name, found in seconds.items()}


def run(settings: Settings) -> dict[str, Any]:
    """Measures, prints, writes and returns the record."""
    results, record = {}, {}
    for p in settings.sizes:
        results[str(p)] = measure(p, settings.repetitions)
        lines = [
            f"p = {p:6}: {name:33} {np.median(found['seconds']):8.2f} s"
            for name, found in results[str(p)].items()
        ]
        load = {"load_average": load_average()}
        about = ("decompositions", settings, "decompositions", results, "\n".join(lines))
        record = finish(*about, environment=load)  # an interruption leaves what is there
    return record


def main(arguments: list[str] | None = None) -> int:
    settings, _ = settings_from(Settings, "benchmarks.decompositions", __doc__, arguments)
    return exit_code(run, settings)


if __name__ == "__main__":
    sys.exit(main())
