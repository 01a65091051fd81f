"""`python -m benchmarks.position_pairs`: NTK errors where covariances of pairs are estimated.

Beyond 256 positions, attention, `Aggregate` and a global pool before a nonlinearity use covariances
of pairs of positions that are estimated by products of features. The networks are small ones around
these layers, of 400 positions, and one with attention over 64 tokens. The error of the NTK between
examples that are not in the sample is measured with estimated and with exact covariances.
"""

import contextlib
import functools
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

import ntk_sketch as ns
from experiments._common._arguments import count, option, settings_from
from experiments._common._command import exit_code
from experiments._common._study import finish
from ntk_sketch import stax
from ntk_sketch.methods import Method

POSITIONS, BATCH = 400, 6
METHODS = {"Nystroem": ns.Nystroem, "RandomFeatures": ns.RandomFeatures}


def first():
    return stax.serial(stax.Dense(1), stax.Relu())


def last():
    return stax.serial(stax.Relu(), stax.GlobalAvgPool(), stax.Dense(1))


def attention(**options):
    return stax.GlobalSelfAttention(1, 1, 1, 1, b_std=0.1, **options)


NETS = {
    "attention": lambda: stax.serial(first(), attention(linear_scaling=True), last()),
    "quadratic attention": lambda: stax.serial(
        first(), attention(linear_scaling=False, attention_mechanism="IDENTITY"), last()
    ),
    "aggregate": lambda: stax.serial(first(), stax.Aggregate(), stax.Dense(1, b_std=0.1), last()),
    "pool": lambda: stax.serial(
        *(stax.Conv(1, (3,)), stax.Relu(), stax.GlobalAvgPool()),
        *(stax.Dense(1, b_std=0.1), stax.Relu(), stax.Dense(1)),
    ),
    "64 tokens": lambda: stax.serial(
        first(),
        attention(linear_scaling=True, pos_emb_type="SUM", pos_emb_decay_fn=lambda d: 1 / (1 + d)),
        stax.Dense(1),
        last(),
    ),
}


@functools.cache
def walks() -> tuple[np.ndarray, np.ndarray]:
    """Random walks on the sphere, and graphs with four edges a vertex."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4 * BATCH, POSITIONS, 8)).cumsum(1).astype(np.float32)
    graphs = rng.uniform(size=(4 * BATCH, POSITIONS, POSITIONS)) < 4 / POSITIONS
    graphs = graphs / np.maximum(graphs.sum(1, keepdims=True), 1)
    return x / np.linalg.norm(x, axis=-1, keepdims=True), graphs.astype(np.float32)


def tokens() -> np.ndarray:
    """Random tokens."""
    return np.random.default_rng(0).normal(size=(4 * BATCH, 64, 4)).astype(np.float32)


def errors(name: str, method: str, width: int, seed: int) -> tuple[float, float]:
    """Relative errors of the NTK with estimated, and with exact covariances of pairs."""
    x, graphs = (tokens(), None) if name == "64 tokens" else walks()
    model, own, other = NETS[name](), slice(BATCH), slice(BATCH, 2 * BATCH)
    sample = slice(2 * BATCH, None)

    def pattern(*rows: slice) -> dict[str, Any]:
        if name != "aggregate" or graphs is None:
            return {}
        found: Any = [graphs[row] for row in rows]
        return {"pattern": tuple(found) if len(found) > 1 else found[0]}

    with jax.numpy_dtype_promotion("standard"):  # of NT
        right = np.asarray(model[2](x[own], x[other], "ntk", **pattern(own, other)))
    found = []
    for limit in (1, math.inf):
        with pairs_up_to(limit):
            key = jax.random.key(seed)
            options = pattern(sample)
            made = ns.feature_map(model, x[sample], METHODS[method](width), key=key, **options)
            z = [np.asarray(made(x[rows], **pattern(rows)).ntk) for rows in (own, other)]
        found.append(float(np.linalg.norm(z[0] @ z[1].T - right) / np.linalg.norm(right)))
    estimated, exact = found
    return estimated, exact


@contextlib.contextmanager
def pairs_up_to(limit: float) -> Iterator[None]:
    """Covariances of all pairs of positions are exact up to so many positions."""
    every: Any = Method
    usual, every.max_positions_all_pairs = every.max_positions_all_pairs, limit
    try:
        yield
    finally:
        every.max_positions_all_pairs = usual


@dataclass(frozen=True)
class Settings:
    width: int = option(256, count)
    seeds: int = option(3, count)
    nets: tuple[str, ...] = option(tuple(NETS), str, name="NAME")
    out: Path = option(Path(__file__).parent / "results", Path, "folder of the record", "DIR")


def run(settings: Settings) -> dict[str, Any]:
    """Measures, prints, writes and returns the record."""
    results: dict[str, Any] = {}
    lines = [f"{'network':20} {'method':15} estimated (keys)      exact (keys)"]
    for name in settings.nets:
        for method in METHODS:
            seeds = range(settings.seeds)
            found = [errors(name, method, settings.width, seed) for seed in seeds]
            estimated, exact = (list(column) for column in zip(*found, strict=True))
            own = results.setdefault(name, {})
            own[method] = {"estimated": estimated, "exact": exact}
            lines.append(f"{name:20} {method:15} {_told(estimated)}   {_told(exact)}")
    return finish("position_pairs", settings, "position-pairs", results, "\n".join(lines))


def _told(errors: list[float]) -> str:
    return " ".join(f"{error:.4f}" for error in errors)


def main(arguments: list[str] | None = None) -> int:
    settings, parser = settings_from(Settings, "benchmarks.position_pairs", __doc__, arguments)
    if unknown := set(settings.nets) - set(NETS):
        parser.error(f"argument --nets: {sorted(unknown)}; known: {', '.join(NETS)}")
    return exit_code(run, settings)


if __name__ == "__main__":
    sys.exit(main())
