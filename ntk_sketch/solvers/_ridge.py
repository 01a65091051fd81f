"""Ridge regression on features: x → features → Gram matrix → weights → predictions."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from .._arguments import warn_of_lost_ranges, warn_of_lost_variation
from ..parallel._devices import Devices
from ..streaming._batches import Batches, BatchesLike
from ..streaming._feature_cache import FeatureCache
from ..streaming._feature_stream import FeatureStream
from ..streaming._progress import Progress
from ..streaming._stream import FeatureMapLike, Inputs
from . import _checks
from ._agreement import agreed, given_by, unless_empty
from ._checkpoint import Checkpoint
from ._checks import DiagReg
from ._conjugate_gradient import ConjugateGradient
from ._examples import checked_arrays
from ._gcv import of_all_processes
from ._regression import Regression
from ._run import Run
from ._selection import Selector, needs_spectrum
from ._solution import RidgeSolution
from ._task import How, keep_twice, task_of_arrays, task_of_batches
from ._validation import HoldOut, Validation


def ridge(
    feature_map: FeatureMapLike,
    x: Inputs | BatchesLike,
    y: Inputs | None = None,
    *,
    sample_weight: Inputs | None = None,
    diag_reg: DiagReg = 1e-3,
    diag_reg_absolute_scale: bool = False,
    select: Selector | HoldOut | str | tuple[Any, ...] | None = None,
    get: str = "ntk",
    batch_size: int | None = None,
    mesh: Any = None,
    groups: Inputs | None = None,
    fit_intercept: bool = False,
    progress: Progress = None,
    keep_features: bool | FeatureCache | str | os.PathLike = False,
    refit: bool = False,
    extend_path: bool = False,
    solver: ConjugateGradient | str | None = None,
    checkpoint: Checkpoint | str | os.PathLike | None = None,
) -> RidgeSolution:
    """Ridge regression on the features Z of x: minimises ‖Z W - y‖² + λ ‖W‖² over W.

    Use this for kernel regression and classification with many examples: the cost is linear in
    their number.

    Predictions are K(·, x) (K + λ I)⁻¹ y with the kernel K = ZZᵀ. As in `neural_tangents.predict`,
    λ is `diag_reg * trace(K) / n`, relative to the mean squared norm of the training features, or
    `diag_reg` itself. Nothing is centred, and an intercept is fitted only with `fit_intercept`.

    With `sample_weight` wᵢ, W minimises Σ wᵢ ‖zᵢ W - yᵢ‖² + λ ‖W‖² and λ is
    `diag_reg * Σ wᵢ ‖zᵢ‖² / Σ wᵢ`. An example of weight 2 counts as two, one of weight 0 is left
    out. For noisy examples the weight is the inverse variance of the noise. Weights are not
    normalised: c w with c `diag_reg` gives the same W as w with `diag_reg`.

    Inputs must be finite and within the range of float32. Targets are scaled to order one on the
    host, so that solution and scores do not depend on their units.

    *Cost.* With n > p examples, features are streamed once into a `GramState` (about 24 p² bytes,
    whatever n; n p² FLOPs on a CPU, 2 n p² elsewhere). ZᵀZ is decomposed in float64, by LAPACK or
    on its GPU: into eigenvalues and eigenvectors (9 p³ FLOPs), after which every regulariser is
    cheap; or, beyond 4,096 features (beyond 1,023 for a single regulariser), into a Cholesky factor
    for each of m regularisers (m p³ / 3, with 'gcv' 2 m p³ / 3). Leave-one-out and λ = 0 need
    eigenvectors. With n <= p, features are kept (n p numbers on the host) and ZZᵀ (2 n² p FLOPs) is
    decomposed in the same way, with n in place of p. A path adds 2 m min(n, p)² k FLOPs.

    *Rounding.* On a CPU, ZᵀZ of up to 1,024 float32 features is summed in float64. Otherwise it has
    the rounding error of float32 products. Directions whose eigenvalue plus λ is below that error
    are dropped, with a warning; that is rare with λ > 0. `diag_reg=0` gives the solution of minimal
    norm on the remaining directions (`solution.rank` of them, with `solution.condition`); float64
    features resolve more directions. `solution.residual` is that of the normal equations.

    *Data that do not fit in memory* are given as a `numpy.memmap`, which is read twice in parts
    (once for checks), or as batches `(x, y)` in place of x and y. Batches come from a
    `tf.data.Dataset`, a `torch.utils.data.DataLoader`, a loader of `grain`, a list, or a generator
    *function*, which is called for every pass. They may have any sizes and hold any objects with
    `__array__`. A thread reads and checks the next batches in advance. They are solved in the
    primal form, in one pass, for which an iterator that can be read once is enough; 'loo' and
    `HoldOut` need two. For a `pyarrow.dataset` d of Parquet or CSV files give

        lambda: ((np.stack([b[c] for c in columns], 1), np.asarray(b["y"], float))
                 for b in d.to_batches())

    Shuffle batches: the scale of targets is that of the first block.

    Args:
      feature_map: maps x to an object with attributes `nngp` and `ntk`, (n, p) each. A pytree; its
        call is compiled here.
      x: training inputs (n, ...), floating point: of NumPy (may exceed device memory), of JAX, or
        an object with `__array__`, such as a data frame or a tensor on the CPU. Without y: batches.
      y: targets (n, outputs) or (n,), floating point. Give classes as centred one-hot rows, for
        instance `jax.nn.one_hot(labels, 10) - 0.1`.
      sample_weight: weights (n,) of the examples, >= 0; None: all 1. Batches hold them as
        `(x, y, sample_weight)`.
      diag_reg: regulariser >= 0, or a sequence of them, a path, which costs one decomposition.
      diag_reg_absolute_scale: `diag_reg` is λ, not relative to the mean squared norm.
      select: how to choose from the path: 'gcv' (generalised cross-validation; one more pass over
        the landmarks among x), 'loo' (exact leave-one-out error at fixed λ; a second pass over the
        features if n > p), `(x_val, y_val)` (error on these), or `HoldOut(share, key=key)` (error
        on a share of x that is not fitted); or a `GCV`, `LeaveOneOut` or `Validation`. Start with
        'gcv'. Scores on x leave out the examples that are landmarks of the map; `LeaveOneOut` says
        why. Of equal scores the largest `diag_reg` is chosen.
      get: 'nngp' or 'ntk'.
      batch_size: examples per call of the feature map; None: `feature_map.batch_size()`, else 256.
      mesh: a `jax.sharding.Mesh`, to work on several devices. Examples are split among all of
        them. ZᵀZ is summed on each and merged once, at the end. A second axis splits the columns of
        ZᵀZ, whose number it must divide, for more features than one device holds (24 p² bytes).
        `batch_size` is the total of all devices, rounded up to a multiple of their number. With the
        devices of all processes of `jax.distributed`, each process makes the call with its own x,
        y, weights, groups and validation examples (of any number, also none) and otherwise the same
        arguments, and gets the same solution. `docs/many-machines.md` says how to start them.
        `keep_features` needs a single process.
      groups: integers (n,), for select='loo' and `HoldOut`: examples with equal numbers (augmented
        copies of one image) are left out together.
      fit_intercept: add a constant b to the predictions, which is not regularised. It is computed
        exactly from the sums of Z and y, and λ does not depend on it. Set it if the mean of y is
        large compared to its spread.
      progress: shown for each pass over examples. None: a bar on a terminal, for a pass of more
        than a second. True: a bar. False: none. A function: called with the number of examples of
        every batch.
      keep_features: True: keep features that are needed twice in the host's memory (n p numbers):
        those of x for 'loo' (or of its sample), and of the examples held out for `refit`. A path,
        or `ntk_sketch.streaming.FeatureCache(path, dtype=...)`: keep the features of all x in this
        file (n p numbers), also for later calls with the same map and examples, and for batches.
      refit: after `(x_val, y_val)` or `HoldOut` has chosen, fit all examples, these included.
      extend_path: while the smallest or largest regulariser of the path is chosen, extend the path
        there by its own ratio, up to eight times. 'loo' makes another pass for each. A path of wide
        features (p > 4,096) is not extended below the rounding of ZᵀZ.
      solver: None: a decomposition. 'cg' or `ConjugateGradient(...)`: products with the features,
        without ZᵀZ, for 30,000 features and more. Every iteration is a pass over the features.
      checkpoint: a path, or `Checkpoint(path, seconds=...)`: write the statistics there while they
        are computed, so that the same call resumes after an interrupt, an error or a kill. It
        implies the primal form. Passes for a selection start anew. Each of several processes has a
        file: 'run-{process}.safetensors'.

    Returns:
      A `RidgeSolution`. Given a sequence of `diag_reg` without `select`, it cannot `predict`, but
      the solutions of its `.path` can.

    Raises:
      TypeError: x or y is not floating point, groups are not integers, diag_reg is not a number.
      ValueError: shapes that do not fit, values that are not finite, negative `diag_reg`, unknown
        `select` or `get`, features with more than one axis per example. For batches the message has
        the number of the batch and its examples; errors of the iterable itself are passed on.
      ValueError: a checkpoint of another run (the message says what differs); a mesh that does not
        fit.
      RuntimeError: another process failed (the message has its error) or cannot be reached.

    Warns:
      RuntimeWarning: the problem is numerically rank-deficient at the regulariser used; the mean of
        the targets outweighs their spread and no intercept is fitted; so many examples are
        landmarks that scores use all of them; a column of x loses its variation in float32.

    Example:
      >>> import numpy as np
      >>> import jax
      >>> import ntk_sketch as ns
      >>> from ntk_sketch import stax
      >>> model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
      >>> x = np.random.default_rng(0).normal(size=(50, 3)).astype("float32")
      >>> features = ns.feature_map(model, x, ns.Nystroem(16), key=jax.random.key(0))
      >>> solution = ns.ridge(features, x, np.sin(x), diag_reg=[1e-3, 1e-2, 0.1], select="loo")
      >>> solution.predict(x).shape
      (50, 3)
      >>> def batches():
      ...     for i in range(0, 50, 20):  # from a file, say
      ...         yield x[i : i + 20], np.sin(x[i : i + 20])
      >>> ns.ridge(features, batches, diag_reg=1e-2).n_examples
      50
    """
    devices = Devices.of(mesh)
    with contextlib.ExitStack() as stack:
        with devices.together():
            values, is_path = _checks.checked_diag_reg(diag_reg)
            run = Run.of(checkpoint, devices)
            features = FeatureStream(feature_map, get, batch_size, progress, devices=devices)
            given = given_by(x, y, devices)
            sample_weight, groups = (unless_empty(a, devices) for a in (sample_weight, groups))
            how = How.of(
                devices,
                keep_features,
                solver,
                sample_weight=sample_weight,
                select=select,
                groups=groups,
                refit=refit,
                fit_intercept=fit_intercept,
                extend_path=extend_path,
                values=values,
            )
            if isinstance(given, Batches):
                task = task_of_batches(features, given, how, run, stack)
            else:
                data = checked_arrays(features, given, y, sample_weight)
                warn_of_lost_variation(data.x, stacklevel=3)
                task = task_of_arrays(features, data, how, run)
        data, selector = agreed(features, task.data, how.in_words()), task.selector
        if how.keep_features:
            keep_twice(features, data, selector, how)
        none, settings = how.no_examples(features, data.one_output), (task.order, run)
        sums = none.plus(data.x, data.y, *settings, data.sample_weight)
        _checks.check_intercept(fit_intercept, sums.n_examples)
    if isinstance(given, Batches):
        warn_of_lost_ranges(data.x.ranges, stacklevel=3)
    selector = of_all_processes(selector, features)
    whole = needs_spectrum(selector, values)
    found = sums.decomposition(fit_intercept, whole, len(values))
    regression = Regression(found, values, diag_reg_absolute_scale)
    scores = None if selector is None else regression.scores(selector, features, extend_path)
    if refit and isinstance(selector, Validation):
        values = regression.diag_regs
        more = sums.plus(selector.x, selector.y, sample_weight=selector.sample_weight)
        found = more.decomposition(fit_intercept, whole, len(values))
        regression = Regression(found, values, diag_reg_absolute_scale)
    return regression.solution(features, scores, is_path=is_path, one_output=sums.one_output)
