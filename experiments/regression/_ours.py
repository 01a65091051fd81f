"""Networks of Dense and ReLU layers: landmark features, their Gaussian process, exact kernels."""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
import scipy.linalg

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.interop.sklearn import NTKRegressor
from ntk_sketch.streaming import stream

from ._choosing import DIAG_REG, Train, choose, searched
from ._scores import Prediction

DEPTHS = (1, 2, 3, 4)
W_STD, B_STD = 2**0.5, 1.0
SAMPLE = 4096  # training examples that landmarks are chosen from
FOR_EVIDENCE = 5000
FOR_DEPTH = 1000
ROUNDS = 5  # of feature learning at most
SEARCHED = {"activation": ("relu", "gelu"), "depth": (1, 2)}  # as many as bandwidths of an RBF

Scope = Literal["layer", "network"]


def network(depth: int, b_std: float = B_STD) -> stax.Layer:
    """`depth` hidden ReLU layers."""
    hidden = (stax.Dense(1, W_STD, b_std), stax.Relu()) * depth
    return stax.serial(*hidden, stax.Dense(1, 1.0, b_std))


@functools.lru_cache(maxsize=4)
def landmark_map(train: Train, depth: int, scope: Scope) -> ns.FeatureMap:
    """Of `train.width` features of the NTK in either scope: layer by layer, half of them are φ and
    half ψ. That of a whole network has both kernels."""
    whole = scope == "network"
    method = ns.Nystroem(train.width if whole else max(1, train.width // 2), scope=scope)
    get = ("nngp", "ntk") if whole else "ntk"
    sample, key = train.some(SAMPLE).x, jax.random.key(train.seed)
    return ns.feature_map(network(depth), sample, method, key=key, get=get)


def ntk_features(train: Train, x_test: np.ndarray, scope: Scope) -> Prediction:
    """Ridge regression of the depth and the regulariser of the smallest leave-one-out error."""
    found = {}
    for depth in DEPTHS:
        solution = ns.ridge(
            landmark_map(train, depth, scope),
            train.x,
            train.y,
            diag_reg=DIAG_REG,
            select="loo",
            keep_features=True,
            progress=False,
        )
        assert solution.scores is not None
        found[float(np.min(solution.scores)), depth] = solution
    (score, depth), solution = min(found.items(), key=lambda item: item[0])
    mean = np.asarray(solution.predict(x_test, progress=False), np.float64)
    return Prediction(mean, score, {"depth": depth, "diag_reg": solution.diag_reg})


def estimator(
    train: Train, x_test: np.ndarray, *, learns: bool = False, searches: bool = False
) -> Prediction:
    """That of scikit-learn's kind with its defaults, which choose `alpha`; with feature learning,
    or with the activation and depth that a search on held-out examples finds."""
    model: Any = NTKRegressor(feature_learning=ROUNDS * learns, random_state=train.seed)
    if searches:
        model, _, _ = searched(model, SEARCHED, train)
    model.fit(train.x, train.y)
    mean, spread = model.predict(x_test, return_std=True)
    variance = np.asarray(spread, np.float64) ** 2
    chosen: dict[str, float | int | str] = {"alpha": float(np.asarray(model.alpha_))}
    return Prediction(
        np.asarray(mean, np.float64),
        variance,
        chosen | {name: getattr(model, name) for name in SEARCHED},
    )


def nngp_features(train: Train, x_test: np.ndarray) -> Prediction:
    """A Gaussian process: depth, `diag_reg` and the scale of the kernel of the largest evidence."""
    part, best = train.some(FOR_EVIDENCE), None
    n = len(part.y)
    for depth in DEPTHS:
        made = landmark_map(train, depth, "network")
        # E(y) = -½ (c + Q) and E(√2 y) = -½ (c + 2 Q), where Q = yᵀ (K + λI)⁻¹ y. A factor s of
        # both K and λ makes it -½ (c + Q / s + n log s), which is largest at s = Q / n.
        once, twice = (
            ns.predict.log_evidence(made, part.x, y, diag_reg=DIAG_REG, progress=False)
            for y in (part.y, math.sqrt(2) * part.y)
        )
        quadratic = 2 * (once - twice)
        evidence = once + 0.5 * (quadratic - n - n * np.log(quadratic / n))
        at = int(np.argmax(evidence))
        if best is None or evidence[at] > best[0]:
            best = float(evidence[at]), made, depth, DIAG_REG[at], float(quadratic[at] / n)
    assert best is not None
    evidence, made, depth, diag_reg, scale = best
    predict_fn = ns.predict.gp_inference(made, train.x, train.y, diag_reg, progress=False)
    mean, variance = predict_fn("nngp", x_test, compute_cov="diagonal")
    noise = diag_reg * mean_square_norm(made, train.x)
    chosen = {"depth": depth, "diag_reg": diag_reg, "scale": scale, "evidence": evidence}
    return Prediction(np.asarray(mean, np.float64), scale * (variance + noise), chosen)


def mean_square_norm(feature_map: ns.FeatureMap, x: np.ndarray) -> float:
    """Of the NNGP features: `diag_reg` is relative to it."""
    batches = stream(feature_map, x, get="nngp", progress=False)
    return float(np.sum([np.sum(np.asarray(z, np.float64) ** 2) for *_, z in batches])) / len(x)


def exact_ntk(train: Train, x_test: np.ndarray) -> Prediction:
    """Kernel regression; the depth is chosen on some of the examples."""

    def errors(part: Train, held_out: Train, depth: int) -> list[float]:
        cross = _kernel(depth, held_out.x, part.x)
        duals = _duals(_kernel(depth, part.x), part.y, DIAG_REG)
        return [float(np.mean((cross @ dual - held_out.y) ** 2)) for dual in duals]

    depth, _, _ = choose(train.some(FOR_DEPTH), DEPTHS, errors)
    _, diag_reg, score = choose(train, (depth,), errors)
    [dual] = _duals(_kernel(depth, train.x), train.y, (diag_reg,))
    mean = _kernel(depth, x_test, train.x) @ dual
    return Prediction(mean, score, {"depth": depth, "diag_reg": diag_reg})


def _duals(kernel: np.ndarray, y: np.ndarray, diag_reg: tuple[float, ...]) -> list[np.ndarray]:
    """(K + λI)⁻¹ y."""
    each = [value * np.trace(kernel) / len(y) for value in diag_reg]
    return [
        scipy.linalg.solve(kernel + penalty * np.eye(len(y)), y, assume_a="pos") for penalty in each
    ]


def _kernel(depth: int, a: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    return np.asarray(_compiled(depth)(a, b, get="ntk"), np.float64)


@functools.cache
def _compiled(depth: int) -> Callable[..., jax.Array]:
    _, _, kernel_fn = network(depth)
    return jax.jit(kernel_fn, static_argnames="get")
