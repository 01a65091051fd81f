"""Images → features → sums → weights, with the time of each told apart."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import ntk_sketch as ns
from experiments._phases import Phases
from ntk_sketch.solvers import GCV, GramState, LeaveOneOut, Validation, accumulate, solve
from ntk_sketch.streaming import stream

CHUNK = 2048  # examples that go from "features" to "Gram" at a time
HELD_OUT = 0.2  # share of the training images in `select="validation"`


class Given(NamedTuple):
    """Features that are already there, in the shape that the solvers take."""

    nngp: jax.Array
    ntk: jax.Array


def given(z: jax.Array) -> Given:
    """The feature map of features: z → z."""
    return Given(z, z)


@dataclass(frozen=True)
class RidgePath:
    """Ridge regressions for every `diag_reg`, and the one that the training data chose."""

    diag_reg: np.ndarray
    weights: np.ndarray  # (len(diag_reg), p, outputs)
    scores: np.ndarray
    chosen: int


def fit_path(
    feature_map: ns.FeatureMap,
    x: np.ndarray,
    y: np.ndarray,
    *,
    get: str,
    groups: np.ndarray,
    diag_reg: tuple[float, ...],
    select: str,
    batch_size: int,
    phases: Phases,
    progress: Callable[[int], object],
) -> RidgePath:
    """Ridge regression of y on the features of x for a path of `diag_reg`, one of them chosen.

    `gcv` needs the sums alone, so that memory does not depend on the number of examples; the
    others keep the features on the host (n·p numbers) and do not compute them twice. After
    `validation` has chosen, the regression is repeated with the held-out examples.

    Args:
        feature_map: of the architecture.
        x, y: training examples (n, h, w, c) and targets (n, k).
        get: "ntk" or "nngp".
        groups: ascending integers (n,); copies of one image share a number and are left out or
            held out together.
        diag_reg: candidates, relative to the mean squared norm of the features.
        select: "gcv", "loo" or "validation".
        batch_size: images per call of the feature map.
        phases: where the time goes.
        progress: called with the number of images of each batch.
    """
    options = {
        "get": get,
        "batch_size": batch_size,
        "phases": phases,
        "progress": progress,
    }
    if select != "validation":
        fitted, z = _sums(feature_map, x, y, keep=select == "loo", **options)
        with phases("solve"):
            selector = GCV() if z is None else LeaveOneOut(z, y, groups)
            return _solve(fitted, None, diag_reg, selector, get)

    n_images = groups[-1] + 1
    n_fit = int(np.searchsorted(groups, n_images - max(1, round(HELD_OUT * n_images))))
    if n_fit == 0:
        raise ValueError("select='validation' needs at least two training images.")
    fitted, _ = _sums(feature_map, x[:n_fit], y[:n_fit], keep=False, **options)
    held_out, z = _sums(feature_map, x[n_fit:], y[n_fit:], keep=True, **options)
    assert z is not None
    with phases("solve"):
        return _solve(fitted, held_out, diag_reg, Validation(z, y[n_fit:]), get)


def _sums(
    feature_map: ns.FeatureMap, x: np.ndarray, y: np.ndarray, *, keep: bool, get: str, **options
) -> tuple[GramState, np.ndarray | None]:
    """The statistics of a regression, and the features themselves if they are to be kept."""
    total, kept = None, []
    for start, z in _chunks(feature_map, x, get=get, **options):
        with options["phases"]("Gram"):
            targets = y[start : start + len(z)]
            state = accumulate(given, z, targets, get=get, batch_size=min(1024, len(z)))
            total = jax.block_until_ready(state if total is None else total.merge(state))
            if keep:
                kept.append(np.asarray(z))
    assert total is not None
    return total, np.concatenate(kept) if keep else None


def _solve(
    fitted: GramState, held_out: GramState | None, diag_reg, selector, get: str
) -> RidgePath:
    options = {"diag_reg": list(diag_reg), "get": get}
    solution = solve(given, fitted, select=selector, **options)
    scores = np.asarray(solution.scores)
    if held_out is not None:
        solution = solve(given, fitted.merge(held_out), **options)
    weights = np.stack([np.asarray(one.weights) for one in solution.path])
    return RidgePath(np.array(diag_reg), weights, scores, int(np.nanargmin(scores)))


def predict_path(
    feature_map: ns.FeatureMap,
    path: RidgePath,
    x: np.ndarray,
    *,
    get: str,
    batch_size: int,
    phases: Phases,
    progress: Callable[[int], object],
) -> np.ndarray:
    """Outputs of every regression on the path: (len(path.diag_reg), n, k)."""
    options = {"get": get, "batch_size": batch_size, "phases": phases, "progress": progress}
    outputs = []
    for _, z in _chunks(feature_map, x, **options):
        with phases("predict"):
            product = jnp.einsum("np,mpk->mnk", z, path.weights, precision="highest")
            outputs.append(np.asarray(product))
    return np.concatenate(outputs, axis=1)


def _chunks(
    feature_map: ns.FeatureMap,
    x: np.ndarray,
    *,
    get: str,
    batch_size: int,
    phases: Phases,
    progress: Callable[[int], object],
) -> Iterator[tuple[int, jax.Array]]:
    """Yields `(start, features of x[start : start + CHUNK or so])`; batches have one shape."""
    per_chunk = batch_size * max(1, CHUNK // batch_size)
    batches = stream(feature_map, x, get=get, batch_size=batch_size, progress=progress)
    for start in range(0, len(x), per_chunk):
        with phases("features"):
            parts = [z for _, _, z in itertools.islice(batches, per_chunk // batch_size)]
        yield start, jnp.concatenate(parts)
