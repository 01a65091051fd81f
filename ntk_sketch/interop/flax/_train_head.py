"""`train_head`: a linear or softmax head on features, trained by optax."""

import contextlib
import os
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

from ..._arguments import checked_integer, checked_key
from ..._typing import Inputs, PRNGKey
from ...numerics._host_random import generator
from ...numerics._threads import uninterrupted
from ...solvers import Checkpoint, HoldOut, Validation
from ...solvers._origin import fingerprint_of, origin_of
from ...streaming import FeatureCache
from ...streaming._batches import BatchesLike
from ...streaming._feature_stream import FeatureStream
from ...streaming._progress import Progress, reporting
from ._head import Head
from ._head_data import HeadData, head_data, keep
from ._head_run import HeadRun
from ._losses import LossLike


def train_head(
    feature_map: Any,
    x: Inputs | BatchesLike,
    y: Inputs | None = None,
    *,
    key: PRNGKey,
    loss: str | LossLike = "softmax",
    optimizer: optax.GradientTransformation | None = None,
    epochs: int = 20,
    batch_size: int = 256,
    get: str = "ntk",
    trainable: bool = False,
    validation: Validation | HoldOut | BatchesLike | tuple[Any, ...] | None = None,
    patience: int = 3,
    sample_weight: Inputs | None = None,
    keep_features: bool | FeatureCache | str | os.PathLike = False,
    checkpoint: Checkpoint | str | os.PathLike | None = None,
    progress: Progress = None,
) -> tuple[nnx.Sequential, list[dict[str, float]]]:
    r"""A linear head on features of an infinitely wide network, trained by optax on batches.

    Use it for what `ntk_sketch.ridge` does not minimise: a softmax, a loss of your own, or
    (`trainable`) the landmarks, roots and hyperparameters of the map with the head. For squared
    errors on features that stay as they are `ridge` has the minimum itself, without steps.

    Minimises `Σᵢ wᵢ ℓ(s z(xᵢ) W + b, yᵢ) / Σᵢ wᵢ` from W = 0, b = 0, where s makes the first
    batch's features have a mean square of 1, and is multiplied into W in the end.

    Args:
      feature_map: as in `ridge`; to be trained it must be a pytree, as `ntk_sketch.feature_map`
        makes it.
      x, y: as in `ridge`: arrays, or batches (x, y) or (x, y, sample_weight) that can be read more
        than once.
        For 'softmax' y has one-hot rows, or probabilities; centred ones, which `ridge` takes, are
        the same. Arrays come in a new random order in each epoch, batches in their own.
      key: of `jax.random`, for these orders.
      loss: 'softmax' (cross-entropy), 'squared' (½ the squared error, summed over outputs), or a
        function from outputs (b, k) and targets (b, k) to (b,).
      optimizer: of optax, with schedule, weight decay and clipping as you like; its steps are
        batches. None: `optax.adam(1e-2)` for the head, `optax.adam(1e-3)` if the map is trained.
      epochs: passes over the examples at most.
      batch_size: examples of a step.
      get: the features, 'ntk' or 'nngp'.
      trainable: floating point arrays of the map are trained too. Examples that are landmarks have
        a cosine of 1 with themselves, where it is clipped: their gradient is one-sided there.
      validation: `(x_val, y_val)`, batches of both, a `Validation` (its own loss is not used) or
        `HoldOut(share, key=...)`: after each epoch the mean loss of these examples is computed;
        the parameters of the best epoch are returned, and training stops when `patience` epochs
        were not better. None: the last ones.
      sample_weight: (n,) weights of arrays.
      keep_features: as in `ridge`: features of a map that is not trained are computed once, and
        kept in memory (n p numbers) or in a file, in place of once for each epoch.
      checkpoint: path, or `Checkpoint(path, seconds=...)`: parameters, state of the optimizer and
        place in the data are written there, by Flax's serialisation, whole or not at all; also when
        the run is ended by Ctrl-C or an error, after the last whole step. The same call goes on
        from there, to the same numbers; with more `epochs` also from the end of a run.
      progress: as in `stream`, of examples of all epochs.

    Returns:
      `nnx.Sequential(FeatureModule(feature_map), nnx.Linear(p, k))`, whose call gives outputs
      (n, k); and for each epoch a dictionary of `epoch`, mean `loss` while it ran, and
      `validation_loss`.

    Cost: features once for each epoch, or once; 4 p k FLOPs for an example and an epoch.
    `trainable`: about three times the features for each epoch.

    Raises:
      TypeError, ValueError: what `ridge` refuses of examples; targets that are no probabilities; an
        iterator that can be read once; settings that do not go together; a loss that is not finite,
        with its epoch; a checkpoint of another call, with what differs.

    Example: classes that no linear function of the columns tells apart.

      >>> import jax
      >>> import numpy as np
      >>> import ntk_sketch as ns
      >>> from ntk_sketch import stax
      >>> from ntk_sketch.interop.flax import train_head
      >>> x = np.random.default_rng(0).normal(size=(300, 2)).astype("float32")
      >>> y = np.eye(2, dtype="float32")[(x[:, 0] * x[:, 1] > 0).astype(int)]
      >>> net = stax.serial(stax.Dense(1, b_std=0.3), stax.Relu(), stax.Dense(1))
      >>> feature_map = ns.feature_map(net, x[:200], ns.Nystroem(32), key=jax.random.key(0))
      >>> model, history = train_head(
      ...     feature_map, x[:200], y[:200], key=jax.random.key(1), batch_size=32, epochs=30,
      ...     validation=(x[200:], y[200:]))
      >>> bool((model(x[200:]).argmax(1) == y[200:].argmax(1)).mean() > 0.9)
      True
      >>> history[-1]["validation_loss"] < history[0]["validation_loss"]
      True
    """
    for name, value in (("epochs", epochs), ("patience", patience), ("batch_size", batch_size)):
        checked_integer(value, name)
    checked_key(key)
    if trainable and keep_features is not False:
        raise ValueError(
            "keep_features keeps the features of a map that stays as it is, and trainable=True"
            " changes it: leave out one of them"
        )
    head = Head(feature_map, get, loss, optimizer, trainable)
    features = FeatureStream(feature_map, get, batch_size, progress=False)
    with contextlib.ExitStack() as stack:
        data = head_data(features, x, y, sample_weight, validation, stack)
        keep(features, data, keep_features)
        first = None if data.order is None else data.order[:batch_size]
        with contextlib.closing(data.train.steps(features, raw=False, order=first)) as steps:
            start = head.start(next(steps), data.outputs)
        settings = {
            "feature map": fingerprint_of(origin_of(feature_map, get)),
            "examples": data.n,
            "outputs": data.outputs,
            "batch_size": batch_size,
            "loss": loss if isinstance(loss, str) else "a function",
            "key": int(generator(key).integers(2**32)),
            "trainable": trainable,
            "validation": data.others is not None,
        }
        run = HeadRun(checkpoint, start, settings)
        total = None if data.n is None else epochs * data.n
        report = stack.enter_context(reporting(progress, total, "training"))
        stack.enter_context(run.kept())
        while run.epoch < epochs and run.epochs_since_best < patience:
            _epoch(head, data, features, run, key, report)
    params = run.state.params if data.others is None else run.state.best
    return head.model(params), run.history


def _epoch(
    head: Head, data: HeadData, features: FeatureStream, run: HeadRun, key: PRNGKey, report: Any
) -> None:
    """The steps of an epoch that are not done, and its losses."""
    order, done = None, run.digests[:]
    if data.order is not None:
        shuffled = generator(jax.random.fold_in(key, run.epoch)).permutation(data.order)
        order, done = shuffled[run.step * features.rows(len(shuffled)) :], None
    steps = data.train.steps(features, raw=head.trainable, order=order, done=done)
    with contextlib.closing(steps):
        for step in steps:
            made = head.made(step)
            with uninterrupted():
                run.stepped(head.step(run.state, *made), step.digest)
            run.write_if_due()
            report(step.n)
    loss = None
    if data.others is not None:
        sums = np.zeros(2)
        with contextlib.closing(data.others.steps(features, raw=head.trainable)) as others:
            for step in others:
                sums += [float(s) for s in head.sums(run.state.params, *head.made(step))]
        loss = float(sums[0] / sums[1])
    with uninterrupted():
        run.ended_epoch(loss)
