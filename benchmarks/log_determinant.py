"""`python -m benchmarks.log_determinant`: log-determinants of sparse precision matrices of a
million rows, whose exact values are known: error and time.

* lattice: the Laplacian of a square lattice plus a shift, by its eigenvalues;
* permuted band: random entries of both signs next to the diagonal, rows and columns in random
  order, diagonally dominant by the shift, by a Cholesky factor of the band before;
* random graph: random entries anywhere, by SciPy's sparse LU, whose fill-in allows few rows.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg

from experiments._common._arguments import count, one_of, option, settings_from
from experiments._common._command import exit_code
from experiments._common._measure import load_average
from experiments._common._study import finish
from ntk_sketch.spectral import log_determinant

METHODS = ("chebyshev", "lanczos", "randomized_chebyshev")
BAND = 6  # diagonals on either side
NEIGHBOURS = 4  # of a row of the random graph, on average


@dataclass(frozen=True)
class Settings:
    side: int = option(1000, count, "of the lattice; the band has as many rows as it has points")
    rows: int = option(10_000, count, "of the random graph")
    percent: int = option(10, count, "100 times the shift")
    tolerance: int = option(1000, count, "1 over the relative error asked for")
    methods: tuple[str, ...] = option(("chebyshev", "lanczos"), one_of(METHODS), name="NAME")
    keys: int = option(3, count)
    out: Path = option(Path(__file__).parent / "results", Path, "folder of the record", "DIR")


def lattice(settings: Settings) -> tuple[Any, float]:
    """The matrix and its log-determinant."""
    m, shift = settings.side, settings.percent / 100
    beside = scipy.sparse.eye_array(m, k=1)
    second = 2 * scipy.sparse.eye_array(m) - beside - beside.T
    identity = scipy.sparse.eye_array(m)
    a = scipy.sparse.kron(second, identity) + scipy.sparse.kron(identity, second)
    values = 2 - 2 * np.cos(np.pi * np.arange(1, m + 1) / (m + 1))
    exact = float(np.sum(np.log(values[:, None] + values + shift)))
    return (a + shift * scipy.sparse.eye_array(m * m)).tocsr(), exact


def permuted_band(settings: Settings) -> tuple[Any, float]:
    n, rng = settings.side**2, np.random.default_rng(0)
    band = np.zeros((BAND + 1, n))
    for offset in range(1, BAND + 1):
        kept = rng.random(n - offset) < 0.5
        band[offset, : n - offset] = kept * rng.normal(size=n - offset)
    a = scipy.sparse.csr_array((n, n))
    for k in range(1, BAND + 1):
        lower = scipy.sparse.diags_array(band[k, : n - k], offsets=-k)
        a = a + lower + lower.T
    band[0] = abs(a).sum(axis=1) + settings.percent / 100
    factor = scipy.linalg.cholesky_banded(band, lower=True)
    exact = 2 * float(np.sum(np.log(factor[0])))
    order = rng.permutation(n)
    return (a + scipy.sparse.diags_array(band[0])).tocsr()[order][:, order], exact


def random_graph(settings: Settings) -> tuple[Any, float]:
    n, rng = settings.rows, np.random.default_rng(0)
    edges = rng.integers(0, n, (2, n * NEIGHBOURS // 2))
    a = scipy.sparse.coo_array((rng.normal(size=edges.shape[1]), edges), shape=(n, n)).tocsr()
    a = a + a.T
    a = a - scipy.sparse.diags_array(a.diagonal())
    a = a + scipy.sparse.diags_array(abs(a).sum(axis=1) + settings.percent / 100)
    factors = scipy.sparse.linalg.splu(a.tocsc(), permc_spec="MMD_AT_PLUS_A")
    return a.tocsr(), float(np.sum(np.log(np.abs(factors.U.diagonal()))))


MATRICES: dict[str, Callable[[Settings], tuple[Any, float]]] = {
    "lattice": lattice,
    "permuted band": permuted_band,
    "random graph": random_graph,
}


def measured(a: Any, exact: float, method: str, settings: Settings) -> dict[str, Any]:
    """Of several keys: how far off, and how long."""
    found: dict[str, Any] = {"relative_errors": [], "relative_standard_errors": [], "seconds": []}
    estimate: Any = None
    for seed in range(settings.keys):
        start = time.perf_counter()
        estimate = log_determinant(
            a, key=jax.random.key(seed), method=method, tolerance=1 / settings.tolerance
        )
        found["seconds"].append(time.perf_counter() - start)
        found["relative_errors"].append(abs(estimate.value / exact - 1))
        found["relative_standard_errors"].append(estimate.standard_error / abs(exact))
    more = {"degree": estimate.degree, "probes": estimate.probes, "interval": estimate.interval}
    return found | more | {"relative_bound": estimate.truncation_bound / abs(exact)}


def run(settings: Settings) -> dict[str, Any]:
    """Measures, prints, writes and returns the record."""
    results, lines = {}, []
    for name, make in MATRICES.items():
        start = time.perf_counter()
        a, exact = make(settings)
        results[name] = {
            "rows": a.shape[0],
            "entries": int(a.nnz),
            "log_determinant": exact,
            "seconds_of_matrix_and_exact_value": time.perf_counter() - start,
        }
        for method in settings.methods:
            found = results[name][method] = measured(a, exact, method, settings)
            lines.append(
                f"{name:13} {a.shape[0]:>9,} rows, {method}: relative error"
                f" {max(found['relative_errors']):.2g} at most, {np.median(found['seconds']):.1f} s"
                f" (degree {found['degree']}, {found['probes']} probes)"
            )
    environment = {"load_average": load_average()}
    about = "log_determinant", settings, "log-determinant", results, "\n".join(lines)
    return finish(*about, environment=environment)


def main(arguments: list[str] | None = None) -> int:
    settings, _ = settings_from(Settings, "benchmarks.log_determinant", __doc__, arguments)
    return exit_code(run, settings)


if __name__ == "__main__":
    sys.exit(main())
