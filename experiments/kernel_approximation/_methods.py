"""The methods that `--methods` compares: one line each."""

import functools
from collections.abc import Callable

import ntk_sketch as ns

from ._recipe import TensorSRHTRecipe

METHODS: dict[str, Callable] = {
    "Nystroem": ns.Nystroem,
    "Nystroem-half-residual": functools.partial(ns.Nystroem, residual=0.5),
    "Nystroem-network": functools.partial(ns.Nystroem, scope="network"),
    "Nystroem-uncalibrated": functools.partial(ns.Nystroem, calibrate=False),
    "RandomFeatures": ns.RandomFeatures,
    "LeverageScore": ns.LeverageScore,
    "PolySketch": functools.partial(ns.PolySketch, 8),
    "PolySketch-network": functools.partial(ns.PolySketch, 8, scope="network"),
    "Gegenbauer": functools.partial(ns.Gegenbauer, 8),
    "Gegenbauer-network": functools.partial(ns.Gegenbauer, 12, scope="network"),
    "TensorSRHT-recipe": functools.partial(TensorSRHTRecipe, 8),
}
