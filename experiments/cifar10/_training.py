"""Training a network for a number of seconds: one cycle of the learning rate, mirrors and crops."""

import math
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax import numpy as jnp
from jaxtyping import Array, Bool, Float, Int
from tqdm.auto import tqdm

SMOOTHING = 0.1  # of labels
DECAY = 5e-4  # of weights
MOMENTUM = 0.9
WARM_UP = 0.2  # of the time
SHIFT = 8  # crops are shifted by at most the side over this

State = tuple[Any, Any, Any]  # parameters, batch statistics, state of the optimizer


class Programs:
    """Steps of training and predictions, compiled for batches of one size.

    Args:
        model: of nnx, from what `front` makes of images to logits.
        shape: of an image.
    """

    def __init__(self, model: nnx.Module, front: Callable, shape: tuple[int, ...], batch: int):
        self._graph, params, rest = nnx.split(model, nnx.Param, ...)
        self._front, self._shape, self.batch = front, shape, batch
        self._optimizer = optax.chain(
            optax.add_decayed_weights(DECAY), optax.trace(MOMENTUM, nesterov=True)
        )
        self.start: State = params, rest, self._optimizer.init(params)

    def compile(self) -> None:
        """Before training, so that its seconds are known."""
        b, spec = self.batch, jax.ShapeDtypeStruct
        images, labels = spec((b, *self._shape), np.float32), spec((b,), np.int32)
        change = spec((b,), np.bool_), spec((b, 2), np.int32)
        rate = spec((), np.float32)
        self.step = jax.jit(self._step).lower(self.start, images, labels, *change, rate).compile()
        self._outputs_of = jax.jit(self._outputs).lower(self.start, images).compile()

    def predictions(
        self, state: State, images: Float[np.ndarray, "n h w c"]
    ) -> Float[np.ndarray, "n k"]:
        """Probabilities, averaged over an image and its mirror image."""
        found = []
        for start in range(0, len(images), self.batch):
            part = images[start : start + self.batch]
            filled = part[np.resize(np.arange(len(part)), self.batch)]
            found.append(np.asarray(self._outputs_of(state, filled))[: len(part)])
        return np.concatenate(found)

    def _step(
        self,
        state: State,
        images: Float[Array, "b h w c"],
        labels: Int[Array, " b"],
        flip: Bool[Array, " b"],
        starts: Int[Array, "b 2"],
        rate: Float[Array, ""],
    ) -> tuple[State, Array]:
        params, rest, optimizer = state

        def loss(params):
            model = nnx.merge(self._graph, params, rest, copy=True)
            model.train()
            logits = model(self._front(augmented(images, flip, starts)))
            targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[1]), SMOOTHING)
            return optax.softmax_cross_entropy(logits, targets).mean(), nnx.split(
                model, nnx.Param, ...
            )[2]

        (value, rest), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, optimizer = self._optimizer.update(gradient, optimizer, params)
        params = jax.tree.map(lambda p, u: p - rate * u, params, updates)
        return (params, rest, optimizer), value

    def _outputs(self, state: State, images: Float[Array, "b h w c"]) -> Float[Array, "b k"]:
        model = nnx.merge(self._graph, *state[:2], copy=True)
        model.eval()
        both = images, jnp.flip(images, 2)
        first, second = (jax.nn.softmax(model(self._front(x))) for x in both)
        return (first + second) / 2


def augmented(
    images: Float[Array, "b h w c"], flip: Bool[Array, " b"], starts: Int[Array, "b 2"]
) -> Float[Array, "b h w c"]:
    """Mirror images of some, and crops that begin at `starts` of images with a border, in which
    they are mirrored."""
    images = jnp.where(flip[:, None, None, None], jnp.flip(images, 2), images)
    side = images.shape[1]
    border = (side // SHIFT,) * 2
    padded = jnp.pad(images, ((0, 0), border, border, (0, 0)), mode="reflect")

    def crop(image, start):
        return jax.lax.dynamic_slice(image, (start[0], start[1], 0), (side, side, image.shape[2]))

    return jax.vmap(crop)(padded, starts)


def one_cycle(share: float) -> float:
    """Of the largest learning rate, after this share of the time: up, and down to 0."""
    return min(share / WARM_UP, (1 - share) / (1 - WARM_UP))


def train(
    programs: Programs,
    images: Float[np.ndarray, "n h w c"],
    labels: Int[np.ndarray, " n"],
    n_test: int,
    *,
    rate: float,
    deadline: float,
    steps: int | None,
    seed: int,
) -> tuple[State, float]:
    """The state at the end, and how often each image was used. One step at least.

    Args:
        n_test: images whose predictions are to end at the deadline, of `time.perf_counter`.
        rate: the largest learning rate.
        steps: so many in place of a deadline.
    """
    state, batch = programs.start, programs.batch
    seconds = min(_seconds_of_batch(programs, images) for _ in range(2))
    start, end = time.perf_counter(), deadline - seconds * math.ceil(n_test / batch)
    rng, crops = np.random.default_rng(seed), 2 * (images.shape[1] // SHIFT) + 1
    order, done, share = np.arange(0), 0, 0.0
    with tqdm(total=1.0, desc="training", bar_format="{l_bar}{bar}{postfix}", mininterval=1) as bar:
        while share < 1 or not done:
            if len(order) < batch:
                order = np.concatenate([order, rng.permutation(len(images))])
            rows, order = order[:batch], order[batch:]
            flip, starts = rng.random(batch) < 0.5, rng.integers(0, crops, (batch, 2), np.int32)
            size = np.float32(rate * one_cycle(min(share, 1.0)))
            state, loss = programs.step(state, images[rows], labels[rows], flip, starts, size)
            done += 1
            bar.set_postfix(
                loss=f"{float(loss):.3f}", epochs=f"{done * batch / len(images):.1f}", refresh=False
            )
            now = time.perf_counter()
            share = done / steps if steps else (now - start) / (end - start) if now < end else 1.0
            bar.update(min(share, 1.0) - bar.n)
    return state, done * batch / len(images)


def _seconds_of_batch(programs: Programs, images: Float[np.ndarray, "n h w c"]) -> float:
    start = time.perf_counter()
    programs.predictions(programs.start, images[: programs.batch])
    return time.perf_counter() - start


def normalised(
    model: nnx.Module, front: Callable, images: Float[np.ndarray, "b h w c"], times: int = 50
) -> tuple[Any, Any, Any]:
    """The parts of a network whose batch statistics are those of these images: definition,
    parameters, others. Running means forget 0.9 of themselves a time."""

    @nnx.jit
    def forward(model):
        model.train()
        model(front(jnp.asarray(images)))

    for _ in range(times):
        forward(model)
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    return graph, params, rest
