"""Ridge regression on features: x → features → Gram matrix → weights → predictions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from .._arguments import checked_examples, warn_of_lost_variation
from ..streaming._stream import FeatureMapLike, Inputs, Progress, batch_rows, feature_spec
from . import _checks
from ._gram_state import GramState
from ._origin import check_same, origin_of
from ._selection import GCV, LeaveOneOut, Selector, Validation
from ._solution import RidgeSolution, solution_from
from ._spectrum import DualSpectrum, PrimalSpectrum, Spectrum
from ._sums import collect, gram_of_stream

Number = float | int | np.number
DiagReg = Number | Sequence[Number] | np.ndarray | Array


def ridge(
    feature_map: FeatureMapLike,
    x: Inputs,
    y: Inputs,
    *,
    diag_reg: DiagReg = 1e-3,
    diag_reg_absolute_scale: bool = False,
    select: Selector | str | tuple[Any, ...] | None = None,
    get: str = "ntk",
    batch_size: int | None = None,
    mesh: Any = None,
    groups: Inputs | None = None,
    fit_intercept: bool = False,
) -> RidgeSolution:
    """Ridge regression on the features of x: the W that minimises ‖Z W - y‖² + λ ‖W‖².

    Predictions are those of the kernel K = ZZᵀ, K(·, x) (K + λ I)⁻¹ y, with λ as in
    `neural_tangents.predict`: `diag_reg * trace(K) / n`, that is relative to the mean squared norm
    of the training features, or `diag_reg` itself. As there, nothing is centred and no intercept is
    fitted, unless `fit_intercept` asks for it.

    Inputs are looked at here: they must be finite, and what lies outside of the range of float32 is
    refused. Targets are brought to units of order one on the host, so that neither solution nor
    scores depend on theirs.

    With n > p examples the features are streamed once into `GramState` (2 n p² FLOPs, memory
    independent of n: about 12 p² bytes on the device, 24 p² on the host) and ZᵀZ is decomposed
    on the host (9 p³ FLOPs, float64). Otherwise the features are kept (n p numbers on the host) and
    ZZᵀ is (2 n² p + 9 n³ FLOPs). A path of m regularisers adds 2 m min(n, p)² k FLOPs.

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
      select: picks one of the path: 'gcv' (generalised cross-validation, no further pass), 'loo'
        (exact leave-one-out error at fixed λ; a second pass over the features if n > p), or
        `(x_val, y_val)` (error on these); or one of `GCV`, `LeaveOneOut`, `Validation`. The first
        two leave out of their mean the examples that became landmarks of the map, which are not
        like new ones; `LeaveOneOut` says why.
      get: 'nngp' or 'ntk'.
      batch_size: examples per call of the feature map; None: `feature_map.batch_size()`, else 256.
      mesh: several devices; must be None for now.
      groups: integers (n,), for select='loo': examples with equal numbers (augmented copies of one
        image) are left out together.
      fit_intercept: adds a constant b to the predictions, which no regulariser shrinks: exact, from
        the sums of Z and y. λ is the same with and without it. Use it where the mean of y outweighs
        its spread.

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
    """
    if mesh is not None:
        raise NotImplementedError(
            "regression over several devices is not available yet: leave mesh=None to use one, or "
            "add up the shards' GramState with `merge`"
        )
    values, is_path = _checks.checked_diag_reg(diag_reg)
    x, targets, one_output, spec, rows = _checked(feature_map, x, y, get, batch_size)
    if fit_intercept and len(x) < 2:
        raise ValueError("fit_intercept=True needs at least two examples, got one")
    selector = _selector(select, x, targets, groups)
    if len(x) > spec.shape[1]:
        options = {"get": get, "rows": rows, "spec": spec, "one_output": one_output}
        state = gram_of_stream(feature_map, x, targets, **options)
        spectrum: Spectrum = PrimalSpectrum(state, fit_intercept)
    else:
        z = collect(feature_map, x, get=get, rows=rows, spec=spec)
        spectrum = DualSpectrum(z, targets, fit_intercept)
    return solution_from(
        feature_map,
        spectrum,
        values,
        is_path=is_path,
        absolute=diag_reg_absolute_scale,
        selector=selector,
        get=get,
        batch_size=batch_size,
        one_output=one_output,
    )


def accumulate(
    feature_map: FeatureMapLike,
    x: Inputs,
    y: Inputs,
    *,
    get: str = "ntk",
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> GramState:
    """Streams features of x into the statistics of a regression on y.

    Call it on every part of the data (shards, augmented copies, another day) and `merge` the
    states; `solve` takes the sum, with or without an intercept. Cost: the features, 2 n p (p + k)
    FLOPs, 12 p² bytes on the device (24 p² on the host for up to 1,024 features on a CPU).

    Args:
      feature_map, x, y, get, batch_size: as in `ridge`.
      progress: called after every batch with its number of examples; `tqdm(...).update` fits.

    Raises:
      TypeError, ValueError: as `ridge`.
    """
    x, targets, one_output, spec, rows = _checked(feature_map, x, y, get, batch_size)
    state = gram_of_stream(
        feature_map,
        x,
        targets,
        get=get,
        rows=rows,
        spec=spec,
        one_output=one_output,
        progress=progress,
    )
    return dataclasses.replace(state, origin=origin_of(feature_map, get))


def solve(
    feature_map: FeatureMapLike,
    state: GramState,
    *,
    diag_reg: DiagReg = 1e-3,
    diag_reg_absolute_scale: bool = False,
    select: Selector | str | tuple[Any, ...] | None = None,
    get: str = "ntk",
    batch_size: int | None = None,
    fit_intercept: bool = False,
) -> RidgeSolution:
    """The regression whose statistics are `state`: the second half of `ridge`, always primal.

    Cost: 9 p³ FLOPs in float64 on the host, 24 p² bytes.

    Args:
      feature_map, get: those of the statistics, for predictions.
      state: from `accumulate`, or a merge of such states.
      diag_reg, diag_reg_absolute_scale, batch_size, fit_intercept: as in `ridge`.
      select: 'gcv' or `GCV()`, `LeaveOneOut(x, y, groups)`, `(x_val, y_val)` or
        `Validation(x_val, y_val)`, or None. The statistics do not hold the examples: only
        `GCV(x, y)`, with the examples that landmarks come from, leaves these out of its mean.

    Returns:
      A `RidgeSolution` with weights of shape (p, outputs), or (p,) if all targets were (n,).

    Raises:
      TypeError, ValueError: as `ridge`.
    """
    values, is_path = _checks.checked_diag_reg(diag_reg)
    if isinstance(select, str) and select == "gcv":
        select = GCV()
    elif isinstance(select, tuple | list):
        select = _validation(select)
    if not (select is None or isinstance(select, Selector)):
        raise TypeError(
            f"select={select!r}; needed: None, 'gcv', (x_val, y_val), or an object such as "
            "LeaveOneOut(x, y): the statistics do not hold the examples"
        )
    check_same(
        state.origin, origin_of(feature_map, get), "these statistics are not of this feature map"
    )
    return solution_from(
        feature_map,
        PrimalSpectrum(state, fit_intercept),
        values,
        is_path=is_path,
        absolute=diag_reg_absolute_scale,
        selector=select,
        get=get,
        batch_size=batch_size,
        one_output=state.one_output,
    )


def _checked(feature_map: Any, x: Any, y: Any, get: str, batch_size: int | None):
    """Examples, targets as (n, k), whether these were (n,), the features' shape and dtype, and the
    rows of a batch."""
    _checks.check_feature_map(feature_map)
    x = checked_examples(x)
    y, one_output = _checks.checked_targets(y, len(x))
    warn_of_lost_variation(x)
    rows = batch_rows(feature_map, len(x), batch_size)
    spec = feature_spec(feature_map, x, get, rows)
    _checks.check_range(y, spec.dtype)
    return x, y, one_output, spec, rows


def _selector(select: Any, x: Any, y: Float[np.ndarray, "n k"], groups: Any) -> Selector | None:
    """`ridge`'s `select` as an object, checked."""
    if groups is not None and not (isinstance(select, str) and select == "loo"):
        raise ValueError("groups are used by select='loo' only; pass that, or no groups")
    if isinstance(select, str) and select == "loo":
        return LeaveOneOut(x, y, groups)
    if (isinstance(select, str) and select == "gcv") or (
        isinstance(select, GCV) and select.x is None
    ):
        return GCV(x, y)
    if isinstance(select, tuple | list):
        select = _validation(select)
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
        "GCV, LeaveOneOut or Validation"
    )


def _validation(select: Sequence[Any]) -> Validation:
    if len(select) != 2:
        raise ValueError(f"select is a tuple of {len(select)}; needed: (x_val, y_val)")
    return Validation(*select)
