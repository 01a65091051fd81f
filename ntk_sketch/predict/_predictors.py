"""What `gp_inference` and `gradient_descent_mse_ensemble` return."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from .._arguments import checked_examples, checked_inputs, checked_integer, checked_key
from .._nt import nt
from .._typing import PRNGKey
from ..numerics._host_random import generator
from . import _checks, _training_set
from ._gaussians import Process, named, processes
from ._missing import Missing, has_diagonals, warn_without_diagonals
from ._test_set import Spread, Weights, evaluate
from ._training import Training

Gaussian = nt.predict.Gaussian

_NAMES = ("nngp", "ntk", "ntkgp")


class Predictor:
    """Predictions from the statistics of training examples, which the first call makes; those of
    several processes are made at once."""

    def __init__(
        self, training: Training, known: tuple[str, ...], exact_diagonal: bool, rate: float = 1.0
    ):
        self._training, self._known, self._rate = training, known, rate
        self._exact_diagonal = bool(exact_diagonal)
        training.share(training.kernels)

    def _names(self, get: Any, spread: bool) -> tuple[tuple[str, ...], bool]:
        hint = ""
        if "ntkgp" not in self._known:
            hint = (
                ". The Gaussian process with the NTK as covariance is get='ntkgp' of gp_inference"
            )
        available = self._training.kernels
        names, single = _checks.checked_kernels(get, self._known, available, hint)
        if spread and "ntk" in names:
            why = ", whose covariance is that of networks drawn from the NNGP and then trained,"
            _checks.check_available(get, "nngp", available, why)
        return names, single

    def _predicted(self, t: Any, x_test: Any, get: Any, compute_cov: Any) -> Any:
        compute_cov = _checks.checked_covariance(compute_cov)
        names, single = self._names(get, bool(compute_cov))
        times, shape = _checks.checked_times(t)
        times = times * self._rate
        x = None if x_test is None else self._checked(x_test)
        if x is None and t is None:
            found = [self._fitted(compute_cov) for _ in names]
        else:
            if x is not None and compute_cov and self._exact_diagonal:
                warn_without_diagonals(self._training.feature_map, stacklevel=3)
            made = processes(self._training, names, bool(compute_cov), stacklevel=3)
            if x is None:
                found = [self._on_training(process, times, compute_cov) for process in made]
            else:
                found = self._on_test(made, x, times, compute_cov)
        results = [self._result(mean, cov, shape) for mean, cov in found]
        return results[0] if single else named(names)(*results)

    def _checked(self, x_test: Any) -> Any:
        _checks.refuse_traced(x_test)
        x = checked_examples(x_test, "x_test")
        checked_inputs(x, "x_test", tuple(self._training.x.shape[1:]), values=False)
        return x

    def _fitted(self, compute_cov: bool | str):
        """The training examples at t = ∞: their targets, for certain."""
        n = len(self._training.x)
        shape = (1, n) if compute_cov == "diagonal" else (1, n, n)
        return self._training.y[None], np.zeros(shape) if compute_cov else None

    def _on_training(self, process: Process, times: np.ndarray, compute_cov: bool | str):
        training, directions = self._training, process.directions
        about = (process.kernel, directions, process.flow)
        rest = _training_set.left(training, *about, training.y, directions.targets, times)
        if not compute_cov:
            return training.y - rest, None
        full = compute_cov != "diagonal"
        return training.y - rest, _training_set.covariance(training, process, times, full)

    def _on_test(self, made: list[Process], x: Any, times: np.ndarray, compute_cov: bool | str):
        training, k = self._training, self._training.y.shape[1]
        kernels = {process.kernel for process in made}
        spread = None
        if compute_cov:
            kernels |= {process.prior for process in made}
            missing = self._missing(made, x)
            spread = Spread(made, len(x), times, missing, full=compute_cov != "diagonal")
        functions = [
            {p.kernel: np.concatenate([p.mean_weights(tau) for tau in times], axis=1)} for p in made
        ]
        stream = training.stream(tuple(sorted(kernels)))
        values = evaluate(stream, x, functions, training.dtype, spread)
        means = [np.moveaxis(value.reshape(len(x), len(times), k), 1, 0) for value in values]
        covariances = [None] * len(made) if spread is None else spread.covariances()
        return list(zip(means, covariances, strict=True))

    def _missing(self, made: list[Process], x: Any) -> Missing | None:
        if not self._exact_diagonal or not has_diagonals(self._training.feature_map):
            return None
        return Missing(self._training, {process.prior for process in made}, x)

    def _result(self, mean: np.ndarray, cov: np.ndarray | None, shape: tuple[int, ...]) -> Any:
        dtype, (_, m, k) = self._training.dtype, mean.shape
        outputs = () if self._training.one_output else (k,)
        found = jax.device_put(mean.reshape(*shape, m, *outputs).astype(dtype))
        if cov is None:
            return found
        cov = cov.reshape(*shape, *cov.shape[1:])
        return Gaussian(found, jax.device_put(cov.astype(dtype)))

    def _sampled(self, x_test: Any, key: Any, n_samples: Any, t: Any, get: Any) -> Any:
        checked_key(key)
        n_samples = checked_integer(n_samples, "n_samples")
        names, single = self._names(get, True)
        times, shape = _checks.checked_times(t)
        times = times * self._rate
        x, training = self._checked(x_test), self._training
        if self._exact_diagonal:
            warn_without_diagonals(training.feature_map, stacklevel=3)
        made = processes(training, names, True, stacklevel=3)
        rngs = [_generators(jax.random.fold_in(key, _NAMES.index(p.name))) for p in made]
        k, functions = training.y.shape[1], []
        for process, (rng, _) in zip(made, rngs, strict=True):
            functions.append(_random_function(process, times, n_samples, k, rng))
        kernels = tuple(sorted({kernel for weights in functions for kernel in weights}))
        missing = self._missing(made, x)
        stream = training.stream(kernels, "samples")
        values = evaluate(stream, x, functions, training.dtype, missing)
        results = []
        outputs = () if training.one_output else (k,)
        for value, process, (_, rng) in zip(values, made, rngs, strict=True):
            value = value.reshape(len(x), len(times), n_samples, k).transpose(2, 1, 0, 3)
            if missing is not None:  # of every example alone, whatever the time
                noise = rng.normal(size=(n_samples, 1, len(x), k))
                value = value + np.sqrt(missing.variances[process.prior])[:, None] * noise
            value = value.reshape(n_samples, *shape, len(x), *outputs)
            results.append(jax.device_put(value.astype(training.dtype)))
        return results[0] if single else named(names)(*results)


def _generators(key: PRNGKey) -> tuple[np.random.Generator, np.random.Generator]:
    """For random functions, and for what features miss."""
    key_function, key_missing = jax.random.split(key)
    return generator(key_function), generator(key_missing)


def _random_function(
    process: Process, times: np.ndarray, n_samples: int, k: int, rng: np.random.Generator
) -> Weights:
    """Weights of samples at all times, one after the other: (p, times · samples · k)."""
    noise = rng.normal(size=(process.noise_size(), n_samples * k))
    found: dict[str, list[np.ndarray]] = {}
    for tau in times:
        weights = process.sample_weights(noise, tau)
        mean = np.tile(process.mean_weights(tau), n_samples)
        for kernel, w in weights.items():
            found.setdefault(kernel, []).append(w + mean if kernel == process.kernel else w)
    return {kernel: np.concatenate(w, axis=1) for kernel, w in found.items()}
