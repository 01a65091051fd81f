"""The methods that `--methods` compares: those of the regression, and variants; one line each."""

import functools
from collections.abc import Callable

import ntk_sketch as ns
from experiments.cifar10 import _methods

from ._recipe import TensorSRHTRecipe
from ._variants import IndependentDirections, LandmarksOfBoth, NTKLandmarks, SobolDirections

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
    # Where residual features are: shares of the width, nonlinearity by nonlinearity.
    "Nystroem-quarter-residual": functools.partial(ns.Nystroem, residual=0.25),
    "Nystroem-three-quarters-residual": functools.partial(ns.Nystroem, residual=0.75),
    "Nystroem-half-residual-but-last": functools.partial(ns.Nystroem, residual=(0.5, 0.5, 0.5, 0)),
    "Nystroem-half-residual-early": functools.partial(ns.Nystroem, residual=(0.5, 0.5, 0, 0)),
    "Nystroem-half-residual-last": functools.partial(ns.Nystroem, residual=(0, 0, 0, 0.5)),
    "Nystroem-half-residual-independent": functools.partial(IndependentDirections, residual=0.5),
    "Nystroem-half-residual-Sobol": functools.partial(SobolDirections, residual=0.5),
    "Nystroem-NTK-landmarks": NTKLandmarks,
    "Nystroem-landmarks-of-both": LandmarksOfBoth,
    "Nystroem-NTK-landmarks-uncalibrated": functools.partial(NTKLandmarks, calibrate=False),
    "Nystroem-landmarks-of-both-uncalibrated": functools.partial(LandmarksOfBoth, calibrate=False),
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
