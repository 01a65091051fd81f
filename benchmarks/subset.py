"""`python -m benchmarks.subset`: diverse subsets of many items by their feature vectors: time, and
the same picks or determinants as others find.

Against the published algorithm for greedy MAP (Chen, Zhang and Zhou 2018, algorithm 1, of kernel
rows as they are needed), and against DPPy for k-DPP samples, where it is installed
(`pip install dppy`), by its dual sampler. (DPPy has no greedy MAP.)
"""

import importlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments._common._arguments import count, option, settings_from
from experiments._common._command import exit_code
from experiments._common._measure import load_average
from experiments._common._study import finish
from ntk_sketch import subset


@dataclass(frozen=True)
class Settings:
    items: int = option(100_000, count)
    features: int = option(512, count)
    k: int = option(500, count, "items chosen, at most as many as features")
    sample: int = option(100, count, "items of a k-DPP sample; DPPy overflows at larger ones")
    repetitions: int = option(3, count, "of this library's functions")
    out: Path = option(Path(__file__).parent / "results", Path, "folder of the record", "DIR")


def items(settings: Settings, unit_norm: bool) -> np.ndarray:
    """Features whose directions have a decaying spectrum."""
    rng = np.random.default_rng(0)
    scales = np.arange(1, settings.features + 1) ** -0.5
    z = rng.normal(size=(settings.items, settings.features)) * scales
    if unit_norm:
        z /= np.linalg.norm(z, axis=1, keepdims=True)
    return z


def published_greedy(z: np.ndarray, k: int) -> list[int]:
    """Rows of the incremental Cholesky factor c are kept for all items, k numbers each."""
    squares, c, chosen = np.einsum("ij,ij->i", z, z), np.zeros((k, len(z))), []
    for m in range(k):
        j = int(np.argmax(squares))
        c[m] = (z @ z[j] - c[:m, j] @ c[:m]) / squares[j] ** 0.5
        squares -= c[m] ** 2
        squares[j] = -np.inf
        chosen.append(j)
    return chosen


def dppy_sample(z: np.ndarray, k: int) -> dict[str, Any] | None:
    """One sample; None: DPPy is not installed."""
    try:
        dpps = importlib.import_module("dppy.finite_dpps")
    except ImportError:
        return None

    scaled = z * (z.shape[1] / np.sum(z**2)) ** 0.5  # the same process, with eigenvalues about 1

    def sample() -> list[int]:
        dpp = dpps.FiniteDPP("likelihood", L_gram_factor=scaled.T)
        return dpp.sample_exact_k_dpp(size=k, random_state=0)

    found, seconds = timed(sample)
    return {"seconds": seconds[0], "log_determinant": log_determinant(z, found)}


def timed(call: Callable[[], Any], repetitions: int = 1) -> tuple[Any, list[float]]:
    found, seconds = None, []
    for _ in range(repetitions):
        start = time.perf_counter()
        found = call()
        seconds.append(time.perf_counter() - start)
    return found, seconds


def log_determinant(z: np.ndarray, indices: Any) -> float:
    chosen = z[np.asarray(indices)]
    return float(np.linalg.slogdet(chosen @ chosen.T)[1])


def greedy(z: np.ndarray, settings: Settings) -> dict[str, Any]:
    ours, seconds = timed(lambda: subset.greedy_map(z, settings.k), settings.repetitions)
    loose, loose_seconds = timed(lambda: subset.greedy_map(z, settings.k, slack=0.1))
    theirs, their_seconds = timed(lambda: published_greedy(z, settings.k))
    return {
        "seconds": seconds,
        "published_seconds": their_seconds,
        "ratio": their_seconds[0] / float(np.median(seconds)),
        "same_picks": int(np.sum(ours.indices == np.array(theirs))),
        "log_determinant": log_determinant(z, ours.indices),
        "published_log_determinant": log_determinant(z, theirs),
        "with_slack": {
            "seconds": loose_seconds,
            "log_determinant": log_determinant(z, loose.indices),
        },
    }


def random(z: np.ndarray, settings: Settings) -> dict[str, Any]:
    key, k = jax.random.key(0), settings.sample
    ours, seconds = timed(lambda: subset.k_dpp(z, k, key=key), settings.repetitions)
    pivots, pivot_seconds = timed(
        lambda: subset.randomly_pivoted_cholesky(z, settings.k, key=key), settings.repetitions
    )
    found = {
        "seconds": seconds,
        "log_determinant": log_determinant(z, ours),
        "pivoted_seconds": pivot_seconds,
        "pivoted_share_of_trace_missed": pivots.residual / float(np.sum(z**2)),
    }
    theirs = dppy_sample(z, k)
    if theirs is not None:
        theirs["ratio"] = theirs["seconds"] / float(np.median(seconds))
    return found | {"dppy": theirs}


def run(settings: Settings) -> dict[str, Any]:
    """Measures, prints, writes and returns the record."""
    norms = {"different norms": items(settings, False), "unit norm": items(settings, True)}
    results: dict[str, Any] = {f"greedy, {name}": greedy(z, settings) for name, z in norms.items()}
    results["random"] = random(norms["unit norm"], settings)
    lines = [
        f"{name}: {np.median(found['seconds']):.1f} s, published algorithm"
        f" {found['published_seconds'][0]:.1f} s, {found['ratio']:.1f} times;"
        f" {found['same_picks']} of {settings.k} picks the same"
        for name, found in list(results.items())[:2]
    ]
    dppy = results["random"]["dppy"]
    other = "not installed" if dppy is None else f"{dppy['seconds']:.1f} s"
    random_seconds = [np.median(results["random"][name]) for name in ("seconds", "pivoted_seconds")]
    lines.append(
        f"k-DPP of {settings.sample}: {random_seconds[0]:.1f} s, DPPy {other};"
        f" {settings.k} random pivots: {random_seconds[1]:.1f} s"
    )
    about = "subset", settings, "subset", results, "\n".join(lines)
    return finish(*about, environment={"load_average": load_average()})


def main(arguments: list[str] | None = None) -> int:
    settings, parser = settings_from(Settings, "benchmarks.subset", __doc__, arguments)
    if max(settings.k, settings.sample) > min(settings.features, settings.items):
        parser.error("--k and --sample are at most --features and --items")
    return exit_code(run, settings)


if __name__ == "__main__":
    sys.exit(main())
