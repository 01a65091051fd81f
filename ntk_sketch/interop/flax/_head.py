"""A head and its map as a function of what is trained: the programs of a step and of losses."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax
from flax import nnx
from jax import numpy as jnp

from ..._typing import Array
from ...numerics._precision import matmul
from ...streaming._computed import kernel_features
from ._feature_module import FeatureModule
from ._head_data import Step
from ._head_run import State
from ._losses import loss_of, targets_of


class Head:
    """Outputs `s z(x) W + b`, of parameters `kernel` W (p, k), `bias` b (k,), and `map`, the arrays
    of the map that are trained.

    Attributes:
        step: State, inputs, targets, weights to the next State.
        sums: parameters, inputs, targets, weights to the sums of losses and of weights.
    """

    def __init__(self, feature_map: Any, get: str, loss: Any, optimizer: Any, trainable: bool):
        self.get, self.trainable, self._loss_name, self._loss = get, trainable, loss, loss_of(loss)
        self._optimizer = optimizer or optax.adam(1e-3 if trainable else 1e-2)
        trained, self._fixed = eqx.partition(
            feature_map, lambda leaf: trainable and eqx.is_inexact_array(leaf)
        )
        self._arrays, self._tree = jax.tree.flatten(trained)
        if trainable and not self._arrays:
            raise TypeError(
                f"trainable=True, but a {type(feature_map).__name__} has no floating point arrays;"
                " needed: what ntk_sketch.feature_map(model, ...) makes"
            )
        self._scale: Any = None
        self.step, self.sums = jax.jit(self._step), jax.jit(self._sums)

    def start(self, first: Step, outputs: int) -> State:
        """Zeros for the head; and the scale, by which the features of the first batch have a mean
        square of 1."""
        z = np.asarray(first.inputs, np.float64)[: first.n]
        mean_square = float(np.mean(z**2))
        dtype = first.inputs.dtype
        self._scale = np.asarray(mean_square**-0.5 if mean_square > 0 else 1.0, dtype)
        params = {
            "kernel": jnp.zeros((z.shape[1], outputs), dtype),
            "bias": jnp.zeros(outputs, dtype),
            "map": [jnp.asarray(array) for array in self._arrays],
        }
        zero = jnp.zeros((), dtype)
        return State(params, self._optimizer.init(params), params, zero, zero)

    def made(self, step: Step) -> tuple[Any, Array, Array]:
        """Inputs, targets and weights on the device."""
        y, dtype = targets_of(self._loss_name, step.y), self._scale.dtype
        return step.inputs, jnp.asarray(y, dtype), jnp.asarray(step.weights, dtype)

    def model(self, params: dict[str, Any]) -> nnx.Sequential:
        kernel = params["kernel"] * self._scale
        linear = nnx.Linear(*kernel.shape, param_dtype=kernel.dtype, rngs=nnx.Rngs(0))
        nnx.update(linear, {"kernel": kernel, "bias": params["bias"]})
        return nnx.Sequential(FeatureModule(self._map(params), self.get, self.trainable), linear)

    def _map(self, params: dict[str, Any]) -> Any:
        return eqx.combine(jax.tree.unflatten(self._tree, params["map"]), self._fixed)

    def _sums(self, params: dict[str, Any], inputs: Any, y: Array, weights: Array):
        z = kernel_features(self._map(params)(inputs), self.get) if self.trainable else inputs
        outputs = matmul(z * self._scale, params["kernel"], "full") + params["bias"][None]
        losses = self._loss(outputs, y)
        if losses.shape != weights.shape:
            raise ValueError(
                f"the loss of outputs {outputs.shape} and targets {y.shape} has shape"
                f" {losses.shape}; needed: one number for each example, {weights.shape}"
            )
        return jnp.sum(losses * weights), jnp.sum(weights)

    def _step(self, state: State, inputs: Any, y: Array, weights: Array) -> State:
        def mean(params):
            loss, weight = self._sums(params, inputs, y, weights)
            return loss / jnp.maximum(weight, jnp.finfo(weight.dtype).tiny), (loss, weight)

        gradient, (loss, weight) = jax.grad(mean, has_aux=True)(state.params)
        with jax.numpy_dtype_promotion("standard"):  # optax counts steps in integers
            updates, optimizer = self._optimizer.update(gradient, state.optimizer, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        return State(
            params,
            optimizer,
            state.best,
            state.loss + loss,
            state.weight + weight,
        )
