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
    """Ridge regression on the features of x: the W that minimises ‖Z W - y‖² + λ ‖W‖².

    Predictions are those of the kernel K = ZZᵀ, K(·, x) (K + λ I)⁻¹ y, with λ as in
    `neural_tangents.predict`: `diag_reg * trace(K) / n`, that is relative to the mean squared norm
    of the training features, or `diag_reg` itself. As there, nothing is centred and no intercept is
    fitted, unless `fit_intercept` asks for it.

    With `sample_weight` wᵢ it is the W that minimises Σ wᵢ ‖zᵢ W - yᵢ‖² + λ ‖W‖²: an example of
    weight 2 is that example twice, one of weight 0 is not there, and an inverse variance of its
    noise is the weight that a noisy example should have. λ is then
    `diag_reg * Σ wᵢ ‖zᵢ‖² / Σ wᵢ`. Weights are not normalised: c w with c `diag_reg` gives the W of
    w with `diag_reg`.

    Inputs are looked at here: they must be finite, and what lies outside of the range of float32 is
    refused. Targets are brought to units of order one on the host, so that neither solution nor
    scores depend on theirs.

    With n > p examples the features are streamed once into `GramState` (memory independent of n:
    about 24 p² bytes; n p² FLOPs on a CPU, 2 n p² elsewhere) and ZᵀZ is decomposed in float64, by
    LAPACK or, if it is on a GPU, there: all eigenvalues and eigenvectors (9 p³ FLOPs), after which
    every regulariser is cheap, or beyond 4,096 features (beyond 1,023 for a single regulariser) a
    Cholesky factor for each of m regularisers (m p³ / 3, with 'gcv' 2 m p³ / 3). Leave-one-out and
    λ = 0 need the former. With n <= p the features are kept (n p numbers on the host) and ZZᵀ
    (2 n² p FLOPs) is decomposed in the same way, with n in place of p. A path adds
    2 m min(n, p)² k FLOPs.

    On a CPU, ZᵀZ of up to 1,024 float32 features is summed in float64. Otherwise it carries the
    rounding error of float32 products. Directions whose
    eigenvalue plus λ drowns in it are dropped, and a warning gives the numbers; that is rare with
    λ > 0. `diag_reg=0` gives the solution of least norm on the directions that stay
    (`solution.rank` of them, with `solution.condition`); float64 features resolve more of them.
    `solution.residual` says how well the normal equations are solved.

    Data that do not fit in memory come as a `numpy.memmap`, which is read twice, a part at a time
    (once to be looked at), or as batches `(x, y)` in place of x and y: a `tf.data.Dataset`, a
    `torch.utils.data.DataLoader`, a loader of `grain`, a list, or a generator *function*, which is
    called for every pass. Batches may be of any sizes and hold what has `__array__`. A thread reads
    the next ones meanwhile, and looks at them. They are always solved in the primal form, in one
    pass, which an iterator that can be read once is good for too; 'loo' and `HoldOut` take two. Of
    a `pyarrow.dataset` d of files of Parquet or CSV batches are

        lambda: ((np.stack([b[c] for c in columns], 1), np.asarray(b["y"], float))
                 for b in d.to_batches())

    Shuffle them: units of targets are those of the first block.

    Args:
      feature_map: x → object with attributes `nngp` and `ntk`, (n, p) each. A pytree; its call is
        jitted here.
      x: training inputs (n, ...), floating point: NumPy (may exceed device memory), JAX, or
        whatever has `__array__`, such as a data frame or a tensor on the CPU. Or, without y,
        batches.
      y: targets (n, outputs) or (n,), floating point. Classes as centred one-hot rows, for instance
        `jax.nn.one_hot(labels, 10) - 0.1`.
      sample_weight: weights (n,) of the examples, >= 0; None: all 1. Batches hold them as
        `(x, y, sample_weight)`.
      diag_reg: regulariser >= 0, or a sequence of them: a path from one decomposition.
      diag_reg_absolute_scale: `diag_reg` is λ, not relative to the mean squared norm.
      select: picks one of the path: 'gcv' (generalised cross-validation; one more pass over the
        landmarks among x), 'loo' (exact leave-one-out error at fixed λ; a second pass over the
        features if n > p), `(x_val, y_val)` (error on these), or `HoldOut(share, key=key)` (error
        on a share of x that is not fitted); or one of `GCV`, `LeaveOneOut`, `Validation`. All but
        those on other examples leave out the examples that became landmarks of the map, which are
        not like new ones; `LeaveOneOut` says why. Of equal scores the largest `diag_reg` is taken.
      get: 'nngp' or 'ntk'.
      batch_size: examples per call of the feature map; None: `feature_map.batch_size()`, else 256.
      mesh: a `jax.sharding.Mesh`, to work on several devices. Examples are split among all of
        them, and ZᵀZ is summed on each and merged once, at the end. A second axis splits the
        columns of ZᵀZ, which it must divide, for more features than one device holds (24 p² bytes).
        `batch_size` is that of all together, rounded up to a multiple of their number. With the
        devices of all processes that `jax.distributed` joined, x and y are those of this process
        (of any number, also none) and every process returns the same solution: all of them make the
        call, with their own x, y, weights, groups and validation examples and otherwise the same
        arguments. `docs/many-machines.md` says how to start them. `keep_features` is of one
        process.
      groups: integers (n,), for select='loo' and `HoldOut`: examples with equal numbers (augmented
        copies of one image) are left out together.
      fit_intercept: adds a constant b to the predictions, which no regulariser shrinks: exact, from
        the sums of Z and y. λ is the same with and without it. Use it where the mean of y outweighs
        its spread.
      progress: of each pass over examples. None: a bar on a terminal, for a pass of more than a
        second. True: a bar. False: none. A function: called with the number of examples of every
        batch.
      keep_features: features that are needed twice, those of x for 'loo' (or of its sample) and of
        the examples held out for `refit`, stay in the host's memory (n p numbers) and are not
        computed again. A path, or `ntk_sketch.streaming.FeatureCache(path, dtype=...)`: those of
        all x stay in this file, of n p numbers, also for later calls with the same map and
        examples; then batches may be kept too.
      refit: after `(x_val, y_val)` or `HoldOut` has chosen, the regression is that of all examples,
        these included.
      extend_path: while the choice is the smallest or the largest of the path, the path goes on
        there by its own ratio, up to eight times. 'loo' makes another pass for each. A path of
        wide features (p > 4,096) does not go on below the rounding of ZᵀZ.
      solver: 'cg' or `ConjugateGradient(...)`: by products with the features, without ZᵀZ, which
        widths of 30,000 and more do not allow. Every iteration is a pass over the features; see
        there. None: by a decomposition.
      checkpoint: a path, or `Checkpoint(path, seconds=...)`: the statistics are written there while
        they are made, and the same call goes on from them after an interrupt, an error or a kill.
        Always primal. Passes for a selection begin anew. Of several processes each has a file:
        'run-{process}.safetensors'.

    Returns:
      A `RidgeSolution`; on a sequence of `diag_reg` without `select`, one that cannot `predict`
      but whose `.path` can.

    Raises:
      TypeError: x or y not floating point, groups not integer, diag_reg not numbers.
      ValueError: shapes that do not fit, values that are not finite, negative `diag_reg`, unknown
        `select` or `get`, features with more than one axis per example. Of a batch, with its number
        and its examples; an error of the iterable itself is passed on as it is.
      ValueError: a checkpoint of something else, with what differs; a mesh that does not fit.
      RuntimeError: another process failed, with its error, or cannot be reached any more.

    Warns:
      RuntimeWarning: the problem is numerically rank-deficient at the regulariser used; the mean of
        the targets outweighs their spread and no intercept is fitted; so many examples are
        landmarks that scores are of all of them; a column of x loses its variation in float32.

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
