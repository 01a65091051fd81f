"""The methods that `--methods` compares: those of the regression, and variants; one line each."""

import functools
from collections.abc import Callable

import ntk_sketch as ns
from experiments.cifar10 import _methods

from ._recipe import TensorSRHTRecipe

METHODS: dict[str, Callable] = _methods.METHODS | {
    "Nystroem-half-residual": functools.partial(ns.Nystroem, residual=0.5),
    "Nystroem-half-residual-uncalibrated": functools.partial(
        ns.Nystroem, residual=0.5, calibrate=False
    ),
    "Nystroem-uncalibrated": functools.partial(ns.Nystroem, calibrate=False),
    **{
        f"Nystroem-rcond{rcond:g}": functools.partial(ns.Nystroem, rcond=rcond)
        for rcond in (1e-4, 1e-3, 1e-2)
    },
    **{
        f"Nystroem-uncalibrated-rcond{rcond:g}": functools.partial(
            ns.Nystroem, calibrate=False, rcond=rcond
        )
        for rcond in (1e-4, 1e-3, 1e-2)
    },
    "PolySketch": functools.partial(ns.PolySketch, 8),
    "PolySketch-network": functools.partial(ns.PolySketch, 8, scope="network"),
    "Gegenbauer": functools.partial(ns.Gegenbauer, 8),
    "Gegenbauer-network": functools.partial(ns.Gegenbauer, 12, scope="network"),
    "TensorSRHT-recipe": functools.partial(TensorSRHTRecipe, 8),
    "Nystroem-diagonal": functools.partial(ns.Nystroem, sampling="diagonal"),
    "Nystroem-uniform": functools.partial(ns.Nystroem, sampling="uniform"),
    "Nystroem-tensorfloat32": functools.partial(ns.Nystroem, precision="tensorfloat32"),
    "Nystroem-bfloat16": functools.partial(ns.Nystroem, precision="bfloat16"),
    "RandomFeatures-unnormalised": functools.partial(ns.RandomFeatures, normalize=False),
}
