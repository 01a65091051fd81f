"""Gradient descent on the squared error, from given initial outputs."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from .._arguments import checked_choice, checked_examples, checked_inputs
from .._typing import KERNELS
from ..numerics._linalg import transposed_product
from ..parallel._devices import Devices
from ..streaming._progress import Progress
from ..streaming._stream import FeatureMapLike, Inputs
from . import _checks
from ._directions import DualDirections
from ._test_set import evaluate
from ._training import Statistics, Training
from ._training_set import left


class Trajectory:
    """What `gradient_descent_mse` returns, documented there."""

    def __init__(self, training: Training, kernel: str, rate: float):
        self._training, self._kernel, self._rate = training, kernel, rate
        training.share((kernel,))

    def __call__(
        self,
        t: Any = None,
        fx_train_0: Any = 0.0,
        fx_test_0: Any = None,
        x_test: Inputs | None = None,
    ) -> Any:
        training = self._training
        with training.devices.together():
            given = self._checked(t, fx_train_0, fx_test_0, x_test)
        times, shape, start, x, at_test = given
        results = []
        alone = training.devices.processes is None
        if x is None and t is None and alone:  # at once: no statistics
            return self._result(training.y[None], shape)
        statistics = training.statistics((self._kernel,))
        with training.devices.together():  # decomposed here
            training.warn_of_rank(statistics, self._kernel, stacklevel=2)
        residuals = training.y - start
        coordinates = self._coordinates(statistics, start)
        if fx_train_0 is not None:
            results.append(self._on_training(statistics, t, times, residuals, coordinates))
        if x is not None:
            results.append(at_test + self._change(statistics, times, coordinates, x))
        results = [self._result(values, shape) for values in results]
        return results[0] if len(results) == 1 else tuple(results)

    def _checked(self, t: Any, fx_train_0: Any, fx_test_0: Any, x_test: Any):
        """Times and their shape, f_0 of the training examples, test examples and f_0 of these."""
        training = self._training
        times, shape = _checks.checked_times(t)
        if fx_train_0 is None and fx_test_0 is None:
            raise ValueError(
                "fx_train_0 and fx_test_0 are both None, so that no predictions are asked for: give"
                " the outputs at t = 0 of the examples you want, such as fx_test_0=0.0"
            )
        if (fx_test_0 is None) != (x_test is None):
            given, lacks = ("x_test", "fx_test_0=0.0")
            if x_test is None:
                given, lacks = ("fx_test_0", "x_test")
            raise ValueError(f"{given} is given, but predictions at test examples need {lacks} too")
        start = self._outputs(0.0 if fx_train_0 is None else fx_train_0, "fx_train_0", training.x)
        x = at_test = None
        if x_test is not None:
            _checks.refuse_traced(x_test)
            x = checked_examples(x_test, "x_test")
            checked_inputs(x, "x_test", tuple(training.x.shape[1:]), values=False)
            at_test = self._outputs(fx_test_0, "fx_test_0", x)
        return times, shape, start, x, at_test

    def _outputs(self, value: Any, name: str, x: Any) -> Float[np.ndarray, "n k"]:
        outputs = () if self._training.one_output else self._training.y.shape[1:]
        return _checks.checked_function(value, name, (len(x), *outputs)).reshape(len(x), -1)

    def _coordinates(
        self, statistics: Statistics, start: Float[np.ndarray, "n k"]
    ) -> Float[np.ndarray, "r k"]:
        """Of y - f_0: in the primal form by another pass over the examples, unless f_0 = 0."""
        directions, devices = statistics.directions(self._kernel), self._training.devices
        if not devices.summed(np.array([float(start.any())])).any():
            return directions.targets
        if isinstance(directions, DualDirections):
            return directions.targets - transposed_product(directions.vectors, start)
        products = np.zeros((statistics.widths[self._kernel], start.shape[1]))
        with devices.together():
            stream = self._training.stream((self._kernel,), together=True)
            for first, last, z in stream(self._training.x):
                rows = np.asarray(z[self._kernel])[: last - first].astype(np.float64)
                products += rows.T @ start[first:last]
        products = devices.summed(products.reshape(-1)).reshape(products.shape)
        return directions.targets - transposed_product(directions.vectors, products)

    def _on_training(self, statistics, t, times, residuals, coordinates):
        training, kernel = self._training, self._kernel
        if t is None:
            return training.y[None]
        about = (kernel, statistics.directions(kernel), training.flow(statistics, kernel))
        return training.y - left(training, *about, residuals, coordinates, times * self._rate)

    def _change(self, statistics, times, coordinates, x) -> Float[np.ndarray, "t m k"]:
        training, kernel = self._training, self._kernel
        directions, flow = statistics.directions(kernel), training.flow(statistics, kernel)
        steps = [flow.trained(tau)[:, None] * coordinates for tau in times * self._rate]
        weights = {kernel: np.concatenate([directions.weights(step) for step in steps], axis=1)}
        [values] = evaluate(training.stream((kernel,)), x, [weights], training.dtype)
        return np.moveaxis(values.reshape(len(x), len(times), -1), 1, 0)

    def _result(self, values: Float[np.ndarray, "t m k"], shape: tuple[int, ...]) -> jax.Array:
        outputs = () if self._training.one_output else values.shape[2:]
        values = values.reshape(*shape, values.shape[1], *outputs)
        return jax.device_put(values.astype(self._training.dtype))


def gradient_descent_mse(
    feature_map: FeatureMapLike,
    x_train: Inputs,
    y_train: Inputs,
    learning_rate: float = 1.0,
    diag_reg: float = 0.0,
    diag_reg_absolute_scale: bool = False,
    get: str = "ntk",
    batch_size: int | None = None,
    progress: Progress = None,
    *,
    mesh: Any = None,
) -> Trajectory:
    """Outputs of one wide network trained by gradient descent on the squared error, at any time.

    Use this to follow a given network from its own initial outputs f_0. For the distribution over
    all initialisations use `gradient_descent_mse_ensemble`. It is
    `neural_tangents.predict.gradient_descent_mse` on features. With K the kernel of the features,
    `τ = learning_rate t / y.size` and φ_τ(s) = (1 - exp(-(s + λ) τ)) / (s + λ):

        f_t(x_train) = y + exp(-(K + λI) τ) (f_0(x_train) - y)
        f_t(x_test) = f_0(x_test) + K* φ_τ(K) (y - f_0(x_train))

    Cost: the statistics of `gradient_descent_mse_ensemble` for one kernel. With n > p examples,
    predictions on the training set at finite t take another pass over it, and so does an f_0 that
    is not 0. With `fx_train_0=None` only test predictions are computed.

    Args:
      get: the kernel of the training, 'ntk', or 'nngp' if only the last layer is trained.
      feature_map, x_train, y_train, learning_rate, diag_reg, diag_reg_absolute_scale, batch_size,
        progress, mesh: as in `gradient_descent_mse_ensemble`; but each call of `predict_fn` is made
        by all processes, with f_0 of their own training examples and with what each wants to know.

    Returns:
      `predict_fn(t=None, fx_train_0=0.0, fx_test_0=None, x_test=None)`, as in Neural Tangents with
      examples in place of their kernel:

      * t: None for ∞, a number ≥ 0, or an array of them, whose axes come first in results.
      * fx_train_0, fx_test_0: f_0 of the training and test examples, (n, outputs) and (m, outputs),
        or one number for all. None: no predictions for these (f_0 of training examples is then 0).
      * x_test: test inputs (m, ...), together with `fx_test_0`.

      It returns predictions on the training examples, on the test examples, or a pair of both. At
      t = None those on training examples are `y_train`.

    Raises:
      TypeError, ValueError: as `gradient_descent_mse_ensemble`; f_0 has the wrong shape.

    Warns:
      RuntimeWarning: the kernel is numerically rank-deficient at this λ.

    Source: J. Lee et al., NeurIPS 2019 (arXiv 1902.06720), eqs. 8 and 9.

    Example:
      >>> import jax
      >>> import numpy as np
      >>> import ntk_sketch as ns
      >>> from ntk_sketch import stax
      >>> model = stax.serial(stax.Dense(128), stax.Erf(), stax.Dense(1))
      >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
      >>> features = ns.feature_map(model, x, ns.Nystroem(16), key=jax.random.key(0))
      >>> predict_fn = ns.predict.gradient_descent_mse(
      ...     features, x[:50], np.sin(x[:50, :1]), diag_reg=1e-3)
      >>> init_fn, apply_fn, _ = model
      >>> _, params = init_fn(jax.random.key(1), x.shape)
      >>> start = apply_fn(params, x)
      >>> train, test = predict_fn(np.array([1.0, 1e4]), start[:50], start[50:], x[50:])
      >>> train.shape, test.shape
      ((2, 50, 1), (2, 10, 1))
    """
    devices = Devices.of(mesh)
    with devices.together():
        rate = _checks.checked_learning_rate(learning_rate)
        checked_choice(get, "get", KERNELS)
        training = Training(
            feature_map,
            x_train,
            y_train,
            diag_reg=diag_reg,
            absolute=diag_reg_absolute_scale,
            batch_size=batch_size,
            progress=progress,
            devices=devices,
        )
        _checks.check_available(get, get, training.kernels)
    training.join(learning_rate=rate, get=get)
    return Trajectory(training, get, rate / (training.n_examples * training.y.shape[1]))
