"""The methods that `--methods` compares: those of the regression, and variants; one line each."""

import functools
from collections.abc import Callable

import ntk_sketch as ns
from experiments.cifar10 import _methods

METHODS: dict[str, Callable] = _methods.METHODS | {
    "RandomFeatures-unnormalised": functools.partial(ns.RandomFeatures, normalize=False),
}
