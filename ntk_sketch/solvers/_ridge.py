"""Ridge regression on features: x → features → Gram matrix → weights → predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from . import _checks
from ._gram_state import GramState
from ._selection import GCV, LeaveOneOut, Selector, Validation
from ._solution import RidgeSolution, solution_from
from ._spectrum import DualSpectrum, PrimalSpectrum, Spectrum
from ._streaming import (
    FeatureMapLike,
    Inputs,
    Progress,
    batch_rows,
    collect,
    feature_spec,
    gram_of_stream,
)

Number = float | int | np.number
DiagReg = Number | Sequence[Number] | np.ndarray | Array


def ridge(
    feature_map: FeatureMapLike,
    x: Inputs,
    y: Inputs,
    *,
    diag_reg: DiagReg = 1e-3,
    diag_reg_absolute_scale: bool = False,
    select: str | tuple[Any, ...] | None = None,
    get: str = "ntk",
    batch_size: int | None = None,
    mesh: Any = None,
    groups: Inputs | None = None,
) -> RidgeSolution:
    """Ridge regression on the features of x: the W that minimises ‖Z W - y‖² + λ ‖W‖².

    Predictions are those of the kernel K = ZZᵀ, K(·, x) (K + λ I)⁻¹ y, with λ as in
    `neural_tangents.predict`: `diag_reg * trace(K) / n`, that is relative to the mean squared norm
    of the training features, or `diag_reg` itself. Nothing is centred and no intercept is fitted.

    With n > p examples the features are streamed once into `GramState` (2 n p² FLOPs, memory
    independent of n: about 12 p² bytes on the device, 24 p² on the host) and ZᵀZ is decomposed
    on the host (9 p³ FLOPs, float64). Otherwise the features are kept (n p numbers on the host) and
    ZZᵀ is (2 n² p + 9 n³ FLOPs). A path of m regularisers adds 2 m min(n, p)² k FLOPs.

    With float32 features ZᵀZ carries the rounding error of float32 products. Directions whose
    eigenvalue plus λ drowns in it are dropped, and a warning gives the numbers; that is rare with
    λ > 0. `diag_reg=0` gives the solution of least norm on the directions that stay
    (`solution.rank` of them, with `solution.condition`); float64 features resolve more of them.

    Args:
      feature_map: x → object with attributes `nngp` and `ntk`, (n, p) each. A pytree; its call is
        jitted here.
      x: training inputs (n, ...), NumPy (may exceed device memory) or JAX, floating point.
      y: targets (n, outputs) or (n,), floating point. Classes as centred one-hot rows, for instance
        `jax.nn.one_hot(labels, 10) - 0.1`.
      diag_reg: regulariser >= 0, or a sequence of them: a path from one decomposition.
      diag_reg_absolute_scale: `diag_reg` is λ, not relative to the mean squared norm.
      select: picks one of the path: 'gcv' (generalised cross-validation, no further pass), 'loo'
        (exact leave-one-out error at fixed λ; a second pass over the features if n > p), or
        `(x_val, y_val)` (error on these); see `GCV`, `LeaveOneOut`, `Validation`.
      get: 'nngp' or 'ntk'.
      batch_size: examples per call of the feature map; None: `feature_map.batch_size()`, else 256.
      mesh: several devices; must be None for now.
      groups: integers (n,), for select='loo': examples with equal numbers (augmented copies of one
        image) are left out together.

    Returns:
      A `RidgeSolution`; on a sequence of `diag_reg` without `select`, one that cannot `predict`
      but whose `.path` can.

    Raises:
      TypeError: x or y not floating point, groups not integer, diag_reg not numbers.
      ValueError: shapes that do not fit, values that are not finite, negative `diag_reg`, unknown
        `select` or `get`, features with more than one axis per example.
      NotImplementedError: a mesh.

    Warns:
      RuntimeWarning: the problem is numerically rank-deficient at the regulariser used.
    """
    if mesh is not None:
        raise NotImplementedError(
            "regression over several devices is not available yet: leave mesh=None to use one, or "
            "add up the shards' GramState with `merge`"
        )
    values, is_path = _checks.checked_diag_reg(diag_reg)
    x = _checks.checked_inputs(x)
    targets = _checks.checked_targets(y, x.shape[0])
    selector = _selector(select, x, targets, groups)
    spec = feature_spec(feature_map, x, get)
    rows = batch_rows(feature_map, x.shape[0], batch_size)

    if x.shape[0] > spec.shape[1]:
        state = gram_of_stream(feature_map, x, targets, get=get, rows=rows, spec=spec)
        spectrum: Spectrum = PrimalSpectrum(state)
    else:
        z = collect(feature_map, x, get=get, rows=rows, spec=spec)
        spectrum = DualSpectrum(z, targets)
    return solution_from(
        feature_map,
        spectrum,
        values,
        is_path=is_path,
        absolute=diag_reg_absolute_scale,
        selector=selector,
        get=get,
        batch_size=batch_size,
        one_output=y.ndim == 1,
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
    states; `solve` takes the sum. Cost: the features, 2 n p (p + k) FLOPs, 12 p² bytes on the
    device.

    Args:
      feature_map, x, y, get, batch_size: as in `ridge`.
      progress: called after every batch with its number of examples; `tqdm(...).update` fits.

    Raises:
      TypeError, ValueError: as `ridge`.
    """
    x = _checks.checked_inputs(x)
    targets = _checks.checked_targets(y, x.shape[0])
    spec = feature_spec(feature_map, x, get)
    rows = batch_rows(feature_map, x.shape[0], batch_size)
    return gram_of_stream(feature_map, x, targets, get=get, rows=rows, spec=spec, progress=progress)


def solve(
    feature_map: FeatureMapLike,
    state: GramState,
    *,
    diag_reg: DiagReg = 1e-3,
    diag_reg_absolute_scale: bool = False,
    select: Selector | str | None = None,
    get: str = "ntk",
    batch_size: int | None = None,
) -> RidgeSolution:
    """The regression whose statistics are `state`: the second half of `ridge`, always primal.

    Cost: 9 p³ FLOPs in float64 on the host, 24 p² bytes.

    Args:
      feature_map, get: those of the statistics, for predictions.
      state: from `accumulate`, or a merge of such states.
      diag_reg, diag_reg_absolute_scale, batch_size: as in `ridge`.
      select: 'gcv' or `GCV()`, `LeaveOneOut(x, y, groups)`, `Validation(x_val, y_val)`, or None.

    Returns:
      A `RidgeSolution` with weights of shape (p, outputs).

    Raises:
      TypeError, ValueError: as `ridge`.
    """
    values, is_path = _checks.checked_diag_reg(diag_reg)
    selector = GCV() if isinstance(select, str) and select == "gcv" else select
    if not (selector is None or isinstance(selector, Selector)):
        raise TypeError(
            f"select={select!r}; needed: None, 'gcv', or an object such as LeaveOneOut(x, y) or "
            "Validation(x_val, y_val): the statistics do not hold the examples"
        )
    return solution_from(
        feature_map,
        PrimalSpectrum(state),
        values,
        is_path=is_path,
        absolute=diag_reg_absolute_scale,
        selector=selector,
        get=get,
        batch_size=batch_size,
        one_output=False,
    )


def _selector(select: Any, x: Any, y: Float[np.ndarray, "n k"], groups: Any) -> Selector | None:
    """`ridge`'s `select` as an object, checked."""
    if groups is not None and not (isinstance(select, str) and select == "loo"):
        raise ValueError("groups are used by select='loo' only; pass that, or no groups")
    if select is None:
        return None
    if isinstance(select, str) and select == "gcv":
        return GCV()
    if isinstance(select, str) and select == "loo":
        return LeaveOneOut(x, y, groups)
    if isinstance(select, tuple | list):
        return _validation(select, x, y)
    raise ValueError(f"select={select!r} is unknown; known: None, 'gcv', 'loo', (x_val, y_val)")


def _validation(select: Sequence[Any], x: Any, y: Float[np.ndarray, "n k"]) -> Validation:
    if len(select) != 2:
        raise ValueError(f"select is a tuple of {len(select)}; needed: (x_val, y_val)")
    x_val = _checks.checked_inputs(select[0], "x_val")
    if x_val.shape[1:] != x.shape[1:]:
        raise ValueError(
            f"x_val has shape {x_val.shape} but x has shape {x.shape}: examples must have the "
            f"same shape {tuple(x.shape[1:])}"
        )
    validation = Validation(x_val, select[1])
    if validation.y.shape[1] != y.shape[1]:
        raise ValueError(f"y_val has {validation.y.shape[1]} outputs but y has {y.shape[1]}")
    return validation
