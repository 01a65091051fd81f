"""`Nystroem(width)` by default has smaller kernel errors than random features of that width.

Examples have structure, as real data do. In white noise no landmarks could represent the others.
"""

import jax
import numpy as np
import pytest
from architectures import ARCHITECTURES
from marks import others_slow

import ntk_sketch as ns

WIDTH, NEW = 64, 24
DENSE = [name for name in ARCHITECTURES if name.startswith("dense ")]
CONVOLUTIONAL = [
    "1-D valid",
    "2-D even and odd filters",
    "average pool",
    "average pool, circular",
    "flatten between",
    "layer norm on channels",
    "residual",
]
#: Without random features: no finite network, or a kernel that is 0 away from the diagonal.
WITHOUT = {"dense ExpNormalized", "dense Monomial(0)"}


def waves(shape, n):
    """Sines over positions and channels, whose phases depend on three numbers of each example."""
    rng, size = np.random.default_rng(0), int(np.prod(shape))
    latent, directions = rng.normal(size=(n, 3)), rng.normal(size=(3, size))
    phases = 0.5 * latent @ directions + rng.uniform(0, 2 * np.pi, size)
    return np.sin(phases).reshape(n, *shape).astype(np.float32)


#: With a kink, with a jump; positions, and a Flatten behind which each counts.
KEPT = ("flatten between",)


@pytest.mark.parametrize(
    "name", others_slow([*sorted(set(DENSE) - WITHOUT), *CONVOLUTIONAL], *KEPT)
)
def test_default_is_better_than_random_features(name, record_property):
    make, shape, _, options = ARCHITECTURES[name]
    model, sample = make(), 200 if len(shape) == 1 else 32
    x = waves(shape, sample + NEW)
    rows, columns = x[:sample], x[sample:]
    exact = jax.jit(lambda a, b: model[2](a, b, ("nngp", "ntk"), **dict(options)))(rows, columns)

    def errors(method):
        feature_map = ns.feature_map(model, rows, method, key=jax.random.key(0))
        close = feature_map.kernel_fn(rows, columns)
        return [
            np.linalg.norm(getattr(close, kind) - getattr(exact, kind))
            / np.linalg.norm(getattr(exact, kind))
            for kind in ("nngp", "ntk")
        ]

    default, random = errors(ns.Nystroem(WIDTH)), errors(ns.RandomFeatures(WIDTH))
    ratios = [float(a / b) for a, b in zip(default, random, strict=True)]
    record_property("ratios", ratios)
    assert max(ratios) < 1
