"""`python -m benchmarks.layers`: the error of every layer's features under every method.

A small network around each layer of `stax.supported()`, structured examples, and the relative error
of the NTK between new examples and examples of the sample: its root mean square over several keys.
The methods have one width, so that numbers of a row can be compared; those of two rows belong to
different networks. `Exact()` is measured between examples of the sample, where it has to be exact,
but of an example with itself: there Neural Tangents' `RectifiedMonomial` is 0/0.
"""

import functools
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf

import ntk_sketch as ns
from experiments._common._arguments import count, option, settings_from
from experiments._common._command import exit_code
from experiments._common._record import environment
from experiments._common._study import finish
from ntk_sketch import stax

COMPARED, NEW = 48, 16  # examples of the sample, and others, between which kernels are compared
DEGREE = 6
RADII = (0.01, 5.0)  # of the series of `Exp`, which overflows at those of the default
IMAGES, SEQUENCES, VECTORS = (4, 4, 3), (6, 3), (12,)
SAMPLES = {IMAGES: 48, SEQUENCES: 48, VECTORS: 512}  # more positions than the default width


def arcsine(c, q, r):
    """The dual kernel of `erf`."""
    return jnp.arcsin(2 * c / jnp.sqrt((1 + 2 * q) * (1 + 2 * r))) * 2 / jnp.pi


def before():
    return stax.Conv(4, (3, 3), W_std=1.3, b_std=0.1, padding="SAME"), stax.Relu()


def after():
    return stax.Dense(4, 1.1, 0.1), stax.Relu()


def linear(*layers):
    """Between two nonlinearities, on images."""
    return stax.serial(*before(), *layers, *after(), stax.GlobalAvgPool(), stax.Dense(1)), IMAGES


def branches(join):
    first = stax.Conv(4, (3, 3), W_std=1.1, b_std=0.1, padding="SAME")
    return linear(stax.FanOut(2), stax.parallel(first, stax.Dense(4, 0.9, 0.2)), join)


def to_vectors(*layers):
    """Between two nonlinearities, of images before and of vectors behind it."""
    return stax.serial(*before(), *layers, *after(), stax.Dense(1)), IMAGES


def sequences(*layers):
    layers = *after(), *layers, *after(), stax.GlobalAvgPool(), stax.Dense(1)
    return stax.serial(*layers), SEQUENCES


def nonlinear(layer):
    """Twice, on vectors."""
    dense = stax.Dense(4, 1.0, 0.1)
    return stax.serial(dense, layer, dense, layer, stax.Dense(1)), VECTORS


def once(layer):
    return stax.serial(stax.Dense(4, 1.0, 0.1), layer, stax.Dense(1)), VECTORS


NETS = {
    "serial": lambda: linear(stax.serial(stax.Dense(4), stax.Dense(4, 1.1))),
    "parallel": lambda: branches(stax.FanInSum()),
    "repeat": lambda: linear(stax.repeat(stax.Dense(4, 1.1), 2)),
    "FanOut": lambda: branches(stax.FanInSum()),
    "FanInSum": lambda: branches(stax.FanInSum()),
    "FanInConcat (channels or a spatial axis)": lambda: branches(stax.FanInConcat(-1)),
    "FanInProd": lambda: branches(stax.FanInProd()),
    "Identity": lambda: linear(stax.Identity()),
    "Dense": lambda: linear(stax.Dense(4, 1.1, 0.2)),
    "Conv": lambda: linear(stax.Conv(4, (3, 3), padding="SAME", b_std=0.1)),
    "ConvTranspose": lambda: linear(stax.ConvTranspose(4, (2, 2), (2, 2), "CIRCULAR")),
    "ConvLocal": lambda: linear(stax.ConvLocal(4, (3, 3), padding="SAME")),
    "Flatten": lambda: to_vectors(stax.Flatten()),
    "Dropout": lambda: linear(stax.Dropout(0.7)),
    "LayerNorm": lambda: linear(stax.Dense(4, 1.1), stax.LayerNorm()),
    "AvgPool": lambda: linear(stax.AvgPool((2, 2), (2, 2))),
    "SumPool": lambda: linear(stax.SumPool((2, 2), (2, 2))),
    "GlobalAvgPool": lambda: to_vectors(stax.GlobalAvgPool()),
    "GlobalSumPool": lambda: to_vectors(stax.GlobalSumPool()),
    "ImageResize (linear, nearest)": lambda: linear(stax.ImageResize((-1, 6, 6, -1), "linear")),
    "Index": lambda: linear(stax.Index((slice(None), slice(1, None), slice(0, 3)))),
    "DotGeneral (examples stay first, channels last)": lambda: linear(
        stax.DotGeneral(rhs=(1.0, -0.5, 0.3, 0.8), dimension_numbers=(((1,), (0,)), ((), ())))
    ),
    "Aggregate": lambda: sequences(stax.Aggregate()),
    "GlobalSelfAttention": lambda: sequences(
        stax.GlobalSelfAttention(4, n_chan_key=4, n_chan_val=4, n_heads=2, linear_scaling=True)
    ),
    "ABRelu": lambda: nonlinear(stax.ABRelu(-0.3, 0.9)),
    "Abs": lambda: nonlinear(stax.Abs()),
    "Cos": lambda: nonlinear(stax.Cos()),
    "Elementwise (given a function)": lambda: nonlinear(stax.Elementwise(erf, arcsine)),
    "ElementwiseNumerical": lambda: nonlinear(stax.ElementwiseNumerical(jnp.sin, 25)),
    "Erf": lambda: nonlinear(stax.Erf()),
    "Exp": lambda: once(stax.Exp(0.5, 0.4)),
    "Gabor": lambda: nonlinear(stax.Gabor()),
    "Gaussian": lambda: nonlinear(stax.Gaussian()),
    "Gelu": lambda: nonlinear(stax.Gelu()),
    "Hermite (its formula assumes inputs of unit variance)": lambda: (
        stax.serial(stax.Dense(4, 1.1), stax.LayerNorm(), stax.Hermite(3), stax.Dense(1)),
        VECTORS,
    ),
    "LeakyRelu": lambda: nonlinear(stax.LeakyRelu(0.1)),
    "Monomial": lambda: once(stax.Monomial(2)),
    "Polynomial": lambda: nonlinear(stax.Polynomial([0.3, 1.0, -0.2, 0.1])),
    "Rbf": lambda: nonlinear(stax.Rbf(0.7)),
    "RectifiedMonomial": lambda: once(stax.RectifiedMonomial(2)),
    "Relu": lambda: nonlinear(stax.Relu()),
    "Sigmoid_like": lambda: nonlinear(stax.Sigmoid_like()),
    "Sign": lambda: nonlinear(stax.Sign()),
    "Sin": lambda: nonlinear(stax.Sin()),
    "ExpNormalized": lambda: nonlinear(stax.ExpNormalized()),
    "Elementwise (given kernels alone)": lambda: once(stax.Elementwise(None, arcsine)),
}
METHODS = {
    "Nystroem": ns.Nystroem,
    "RandomFeatures": ns.RandomFeatures,
    "LeverageScore": ns.LeverageScore,
    "PolySketch": functools.partial(ns.PolySketch, DEGREE),
    "Gegenbauer": functools.partial(ns.Gegenbauer, DEGREE),
    "Exact": lambda width: ns.Exact(),
}


def examples(shape: tuple[int, ...]) -> np.ndarray:
    """Sines over positions and channels, whose phases depend on three numbers of each example."""
    rng, size = np.random.default_rng(0), int(np.prod(shape))
    count = NEW + SAMPLES[shape]
    latent, directions = rng.normal(size=(count, 3)), rng.normal(size=(3, size))
    phases = 0.5 * latent @ directions + rng.uniform(0, 2 * np.pi, size)
    return np.sin(phases).reshape(-1, *shape).astype(np.float32)


def error(layer: str, method: str, width: int, seeds: int) -> float | None:
    """Root mean square over keys of the NTK's relative error; `None` for a "no" of the table."""
    if stax.supported()[layer][method].startswith("no"):
        return None
    model, shape = NETS[layer]()
    x = examples(shape)
    graphs, given = {}, METHODS[method]
    if layer == "Exp" and method in ("PolySketch", "Gegenbauer"):
        given = functools.partial(given, radii=RADII)
    if layer == "Aggregate":
        pattern = np.random.default_rng(1).uniform(size=(len(x), shape[0], shape[0]))
        graphs = {"pattern": pattern.astype(np.float32)}
    rows, columns, sample = slice(NEW), slice(NEW, NEW + COMPARED), slice(NEW, None)
    if method == "Exact":
        rows = columns

    def at(part, kwargs):
        return {name: value[part] for name, value in kwargs.items()}

    pairs = {name: (value[rows], value[columns]) for name, value in graphs.items()}
    exact = np.asarray(jax.jit(lambda a, b: model[2](a, b, "ntk", **pairs))(x[rows], x[columns]))
    others = ~np.eye(COMPARED, dtype=bool) if method == "Exact" else np.full(exact.shape, True)
    squares = []
    for seed in range(seeds):
        options: dict[str, Any] = at(sample, graphs) | {"key": jax.random.key(seed), "get": "ntk"}
        feature_map = ns.feature_map(model, x[sample], given(width), **options)
        first, second = (feature_map(x[part], **at(part, graphs)).ntk for part in (rows, columns))
        found = np.asarray(first) @ np.asarray(second).T
        squares.append(np.sum((found - exact)[others] ** 2) / np.sum(exact[others] ** 2))
    return float(np.sqrt(np.mean(squares)))


@dataclass(frozen=True)
class Settings:
    width: int = option(128, count)
    seeds: int = option(1, count)
    layers: tuple[str, ...] = option(tuple(NETS), str, name="NAME")
    out: Path = option(Path(__file__).parent / "results", Path, "folder of the record", "DIR")


def _begun(settings: Settings) -> dict[str, Any]:
    """Results of a run with these settings on this code that did not come to its end."""
    path = settings.out / "layers.json"
    if not path.exists():
        return {}
    record = json.loads(path.read_text("utf-8"))
    same = record["environment"] == environment() and record["settings"] == {
        "width": settings.width,
        "seeds": settings.seeds,
        "layers": list(settings.layers),
    }
    return record["results"] if same and len(record["results"]) < len(settings.layers) else {}


def run(settings: Settings) -> dict[str, Any]:
    """Measures, prints, writes and returns the record; goes on where a run was interrupted."""
    results, record = _begun(settings), {}
    for layer in settings.layers[len(results) :]:
        results[layer] = {
            method: error(layer, method, settings.width, settings.seeds) for method in METHODS
        }
        told = "  ".join("no" if e is None else f"{e:.2g}" for e in results[layer].values())
        record = finish("layers", settings, "layers", results, f"{layer:56} {told}")
        jax.clear_caches()
    return record


def main(arguments: list[str] | None = None) -> int:
    settings, parser = settings_from(Settings, "benchmarks.layers", __doc__, arguments)
    unknown = set(settings.layers) - set(NETS)
    if unknown:
        parser.error(f"argument --layers: {sorted(unknown)}; known: {', '.join(NETS)}")
    return exit_code(run, settings)


if __name__ == "__main__":
    sys.exit(main())
