"""Ridge regression on features: x → features → Gram matrix → weights → predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from ..streaming._feature_stream import FeatureStream
from ..streaming._progress import Progress
from ..streaming._stream import FeatureMapLike, Inputs
from . import _checks
from ._checks import DiagReg
from ._examples import Examples, checked_data
from ._gcv import GCV
from ._leave_one_out import LeaveOneOut
from ._regression import Regression
from ._selection import Selector, needs_spectrum
from ._solution import RidgeSolution
from ._validation import HoldOut, Validation, validation


def ridge(
    feature_map: FeatureMapLike,
    x: Inputs,
    y: Inputs,
    *,
    diag_reg: DiagReg = 1e-3,
    diag_reg_absolute_scale: bool = False,
    select: Selector | HoldOut | str | tuple[Any, ...] | None = None,
    get: str = "ntk",
    batch_size: int | None = None,
    mesh: Any = None,
    groups: Inputs | None = None,
    fit_intercept: bool = False,
    progress: Progress = None,
    keep_features: bool = False,
    refit: bool = False,
    extend_path: bool = False,
) -> RidgeSolution:
    """Ridge regression on the features of x: the W that minimises ‖Z W - y‖² + λ ‖W‖².

    Predictions are those of the kernel K = ZZᵀ, K(·, x) (K + λ I)⁻¹ y, with λ as in
    `neural_tangents.predict`: `diag_reg * trace(K) / n`, that is relative to the mean squared norm
    of the training features, or `diag_reg` itself. As there, nothing is centred and no intercept is
    fitted, unless `fit_intercept` asks for it.

    Inputs are looked at here: they must be finite, and what lies outside of the range of float32 is
    refused. Targets are brought to units of order one on the host, so that neither solution nor
    scores depend on theirs.

    With n > p examples the features are streamed once into `GramState` (memory independent of n:
    about 24 p² bytes; n p² FLOPs on a CPU, 2 n p² elsewhere) and ZᵀZ is decomposed on the host in
    float64: all eigenvalues and eigenvectors (9 p³ FLOPs), after which every regulariser is cheap,
    or beyond 4,096 features (beyond 1,023 for a single regulariser) a Cholesky factor and its
    inverse for each of m regularisers (2 m p³ / 3). Leave-one-out and λ = 0 need the former.
    With n <= p the features are kept (n p numbers on the host) and ZZᵀ is decomposed (2 n² p + 9 n³
    FLOPs). A path adds 2 m min(n, p)² k FLOPs.

    On a CPU, ZᵀZ of up to 1,024 float32 features is summed in float64. Otherwise it carries the
    rounding error of float32 products. Directions whose
    eigenvalue plus λ drowns in it are dropped, and a warning gives the numbers; that is rare with
    λ > 0. `diag_reg=0` gives the solution of least norm on the directions that stay
    (`solution.rank` of them, with `solution.condition`); float64 features resolve more of them.

    Args:
      feature_map: x → object with attributes `nngp` and `ntk`, (n, p) each. A pytree; its call is
        jitted here.
      x: training inputs (n, ...), floating point: NumPy (may exceed device memory), JAX, or
        whatever has `__array__`, such as a data frame or a tensor on the CPU.
      y: targets (n, outputs) or (n,), floating point. Classes as centred one-hot rows, for instance
        `jax.nn.one_hot(labels, 10) - 0.1`.
      diag_reg: regulariser >= 0, or a sequence of them: a path from one decomposition.
      diag_reg_absolute_scale: `diag_reg` is λ, not relative to the mean squared norm.
      select: picks one of the path: 'gcv' (generalised cross-validation; one more pass over the
        landmarks among x), 'loo' (exact leave-one-out error at fixed λ; a second pass over the
        features if n > p), `(x_val, y_val)` (error on these), or `HoldOut(share, key=key)` (error
        on a share of x that is not fitted); or one of `GCV`, `LeaveOneOut`, `Validation`. All but
        those on other examples leave out the examples that became landmarks of the map, which are
        not like new ones; `LeaveOneOut` says why.
      get: 'nngp' or 'ntk'.
      batch_size: examples per call of the feature map; None: `feature_map.batch_size()`, else 256.
      mesh: several devices; must be None for now.
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
        computed again.
      refit: after `(x_val, y_val)` or `HoldOut` has chosen, the regression is that of all examples,
        these included.
      extend_path: while the choice is the smallest or the largest of the path, the path goes on
        there by its own ratio, up to eight times. 'loo' makes another pass for each.

    Returns:
      A `RidgeSolution`; on a sequence of `diag_reg` without `select`, one that cannot `predict`
      but whose `.path` can.

    Raises:
      TypeError: x or y not floating point, groups not integer, diag_reg not numbers.
      ValueError: shapes that do not fit, values that are not finite, negative `diag_reg`, unknown
        `select` or `get`, features with more than one axis per example.
      NotImplementedError: a mesh.

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
    """
    if mesh is not None:
        raise NotImplementedError(
            "regression over several devices is not available yet: leave mesh=None to use one, or "
            "add up the shards' GramState with `merge`"
        )
    values, is_path = _checks.checked_diag_reg(diag_reg)
    features = FeatureStream(feature_map, get, batch_size, progress)
    x, targets, one_output, spec = checked_data(features, x, y)
    selector = _selector(select, x, targets, groups, refit)
    _checks.check_extend(extend_path, values, selector)
    fitted, order = targets, None
    if isinstance(selector, HoldOut):
        order, selector = selector.split(x, targets, groups, features.landmarks(x))
        fitted = targets[order]
    if fit_intercept and len(fitted) < 2:
        raise ValueError("fit_intercept=True needs at least two examples, got one")
    if keep_features and isinstance(selector, LeaveOneOut) and len(x) > spec.shape[1]:
        if selector.sample is None:
            features.keep(x, also=selector.x)
        elif selector.x is x and selector.groups is None:
            features.keep_some(x, selector.order(features)[0])
    elif keep_features and refit and isinstance(selector, Validation):
        features.keep(selector.x)
    sums = Examples(features, spec, one_output).plus(x, fitted, order)
    whole = needs_spectrum(selector, values)
    found = sums.decomposition(fit_intercept, whole, len(values))
    regression = Regression(found, values, diag_reg_absolute_scale)
    scores = None if selector is None else regression.scores(selector, features, extend_path)
    if refit and isinstance(selector, Validation):
        values = regression.diag_regs
        found = sums.plus(selector.x, selector.y).decomposition(fit_intercept, whole, len(values))
        regression = Regression(found, values, diag_reg_absolute_scale)
    return regression.solution(features, scores, is_path=is_path, one_output=one_output)


def _selector(
    select: Any, x: Any, y: Float[np.ndarray, "n k"], groups: Any, refit: bool
) -> Selector | HoldOut | None:
    """`ridge`'s `select` as an object, checked."""
    held_out = isinstance(select, tuple | list | Validation | HoldOut)
    if groups is not None and not (
        isinstance(select, HoldOut) or (isinstance(select, str) and select == "loo")
    ):
        raise ValueError(
            "groups are left out together by select='loo' and HoldOut(share, key=key); "
            f"select={select!r} does not look at them: pass one of those, or no groups"
        )
    if refit and not held_out:
        raise ValueError(
            f"refit=True adds the examples that were held out, but select={select!r} holds none: "
            "use select=(x_val, y_val) or HoldOut(share, key=key), or no refit"
        )
    if isinstance(select, HoldOut):
        return select
    if isinstance(select, str) and select == "loo":
        return LeaveOneOut(x, y, groups)
    if (isinstance(select, str) and select == "gcv") or (
        isinstance(select, GCV) and select.x is None
    ):
        return GCV(x, y)
    if isinstance(select, tuple | list):
        select = validation(select)
    if isinstance(select, Validation):
        if select.x.shape[1:] != x.shape[1:]:
            raise ValueError(
                f"x_val has shape {select.x.shape} but x has shape {x.shape}: examples must have "
                f"the same shape {tuple(x.shape[1:])}"
            )
        if select.y.shape[1] != y.shape[1]:
            raise ValueError(f"y_val has {select.y.shape[1]} outputs but y has {y.shape[1]}")
    if select is None or isinstance(select, Selector):
        return select
    raise ValueError(
        f"select={select!r} is unknown; known: None, 'gcv', 'loo', (x_val, y_val), or an object of "
        "GCV, LeaveOneOut, Validation or HoldOut"
    )
