"""The methods that `--methods` compares: those of the regression, and variants; one line each."""

import functools
from collections.abc import Callable

import ntk_sketch as ns
from experiments.cifar10 import _methods

METHODS: dict[str, Callable] = _methods.METHODS | {
    "Nystroem-half-residual": functools.partial(ns.Nystroem, residual=0.5),
    "Nystroem-half-residual-uncalibrated": functools.partial(
        ns.Nystroem, residual=0.5, calibrate=False
    ),
    "Nystroem-uncalibrated": functools.partial(ns.Nystroem, calibrate=False),
    "Nystroem-diagonal": functools.partial(ns.Nystroem, sampling="diagonal"),
    "Nystroem-uniform": functools.partial(ns.Nystroem, sampling="uniform"),
    "Nystroem-tensorfloat32": functools.partial(ns.Nystroem, precision="tensorfloat32"),
    "Nystroem-bfloat16": functools.partial(ns.Nystroem, precision="bfloat16"),
    "RandomFeatures-unnormalised": functools.partial(ns.RandomFeatures, normalize=False),
}
