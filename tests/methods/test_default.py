"""`Nystroem(width)` by default has smaller kernel errors than random features of that width.

Examples have structure, as real data do. In white noise no landmarks could represent the others.
"""

import jax
import numpy as np
import pytest
from architectures import ARCHITECTURES
from marks import others_slow

import ntk_sketch as ns

WIDTH, NEW, KINDS = 64, 24, ("nngp", "ntk")
#: Without random features (no finite network, or a kernel that is 0 off the diagonal), without an
#: error, or with a graph for each example.
WITHOUT = {
    *("dense ExpNormalized", "dense Monomial(0)", "normalised exponentials", "kernels alone"),
    *("linear", "graph"),
}
#: Where one key decides little.
KEYS = {"2-D strides": 3, "concatenated positions": 3}


def waves(shape, n):
    """Sines over positions and channels, whose phases depend on three numbers of each example."""
    rng, size = np.random.default_rng(0), int(np.prod(shape))
    latent, directions = rng.normal(size=(n, 3)), rng.normal(size=(3, size))
    phases = 0.5 * latent @ directions + rng.uniform(0, 2 * np.pi, size)
    return np.sin(phases).reshape(n, *shape).astype(np.float32)


#: Positions, and a Flatten behind which each counts.
KEPT = ("flatten between",)


@pytest.mark.parametrize("name", others_slow(sorted(set(ARCHITECTURES) - WITHOUT), *KEPT))
def test_default_is_better_than_random_features(name, record_property):
    make, shape, _, options = ARCHITECTURES[name]
    model, sample = make(), 200 if len(shape) == 1 else 32
    x = waves(shape, sample + NEW)
    rows, columns = x[:sample], x[sample:]
    exact = jax.jit(lambda a, b: model[2](a, b, KINDS, **dict(options)))(rows, columns)

    def errors(method):
        """Mean squares over keys of the relative errors of both kernels."""
        squares = []
        for seed in range(KEYS.get(name, 1)):
            feature_map = ns.feature_map(model, rows, method, key=jax.random.key(seed))
            close = feature_map.kernel_fn(rows, columns)
            missed = [getattr(close, kind) - getattr(exact, kind) for kind in KINDS]
            squares.append([np.sum(part**2) for part in missed])
        return np.mean(squares, axis=0)

    default, random = errors(ns.Nystroem(WIDTH)), errors(ns.RandomFeatures(WIDTH))
    ratios = np.sqrt(default / random).tolist()
    record_property("ratios", ratios)
    assert max(ratios) < 1
