"""What predictions refuse, before any long work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Float

from ..parallel._devices import Devices
from ..solvers._checks import checked_diag_reg


def refuse_traced(*given: Any) -> None:
    """Statistics are made and decomposed on the host."""
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(given)):
        raise TypeError(
            "predictions decompose their statistics on the host and cannot be traced by jax.jit,"
            " jax.grad or jax.vmap: make them outside. ntk_sketch.predict.log_evidence can be"
            " differentiated"
        )


def own_devices(mesh: Any) -> Devices:
    """The devices of a user's mesh, which must be of this process."""
    devices = Devices.of(mesh)
    if devices.processes is not None:
        raise ValueError(
            "derivatives of the evidence are of one process, and this mesh is of several, whose"
            " examples they do not share: give all training examples and a mesh of"
            " jax.local_devices(). The evidence itself takes several"
        )
    return devices


def check_bool(value: Any, name: str) -> None:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}={value!r}; needed: True or False")


def checked_regulariser(diag_reg: Any) -> float:
    """One number >= 0."""
    values, is_path = checked_diag_reg(diag_reg)
    if is_path:
        raise ValueError(
            f"diag_reg={diag_reg!r} is a sequence; needed: one number >= 0. Choose it by"
            " ntk_sketch.ridge(..., select=...) or ntk_sketch.predict.log_evidence"
        )
    return values[0]


def checked_learning_rate(learning_rate: Any) -> float:
    number = np.asarray(learning_rate)
    if number.dtype.kind not in "fiu" or number.ndim:
        raise TypeError(f"learning_rate={learning_rate!r}; needed: a number > 0")
    if not np.isfinite(number) or number <= 0:
        raise ValueError(f"learning_rate={learning_rate!r}; it must be finite and > 0")
    return float(number)


def checked_times(t: Any) -> tuple[Float[np.ndarray, " m"], tuple[int, ...]]:
    """Times one after the other, and the shape they were given in; None is infinity."""
    times = np.asarray(np.inf if t is None else t)
    if times.dtype.kind not in "fiu":
        raise TypeError(
            f"t={t!r}; needed: None (infinity), a number >= 0 or an array of such numbers"
        )
    times = times.astype(np.float64)
    if times.size == 0:
        raise ValueError("t is empty; needed: at least one time, or None for infinity")
    if np.isnan(times).any() or (times < 0).any():
        raise ValueError(f"t={t!r}; every time must be >= 0 (training starts at 0)")
    return times.reshape(-1), times.shape


def checked_kernels(
    get: Any, known: Sequence[str], available: Sequence[str], hint: str = ""
) -> tuple[tuple[str, ...], bool]:
    """The names in `get`, and whether it was one string; `None` is all that the map has.

    Args:
      known: words that this function takes.
      available: kernels that the feature map has.
      hint: ends the message about an unknown word.
    """
    if get is None:
        return tuple(available), False
    names = (get,) if isinstance(get, str) else tuple(get)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        listed = ", ".join(map(repr, known))
        raise ValueError(f"get={get!r}; known: {listed}, or several of them{hint}")
    if len(set(names)) < len(names):
        raise ValueError(f"get={get!r} has the same name twice")
    for name in names:
        check_available(get, kernel_of(name), available)
    return names, isinstance(get, str)


def kernel_of(name: str) -> str:
    """The kernel whose training statistics a prediction is made of."""
    return "ntk" if name == "ntkgp" else name


def check_available(get: Any, kernel: str, available: Sequence[str], why: str = "") -> None:
    if kernel not in available:
        raise ValueError(
            f"get={get!r}{why} needs {kernel} features, but this feature map gives"
            f" {list(available)}: make it with get=('nngp', 'ntk')"
        )


def checked_covariance(compute_cov: Any) -> bool | str:
    if isinstance(compute_cov, str) and compute_cov == "diagonal":
        return compute_cov
    if isinstance(compute_cov, bool | np.bool_):
        return bool(compute_cov)
    raise ValueError(
        f"compute_cov={compute_cov!r}; needed: False (means alone), True (covariances of all pairs"
        " of test examples), or 'diagonal' (variances)"
    )


def checked_function(value: Any, name: str, shape: tuple[int, ...]) -> Float[np.ndarray, ...]:
    """Outputs of a network at t = 0, which broadcast to (n, outputs), or (n,)."""
    outputs = np.asarray(value)
    if outputs.dtype.kind not in "iu" and not jnp.issubdtype(outputs.dtype, jnp.floating):
        raise TypeError(f"{name} has dtype {outputs.dtype}; needed: real numbers")
    outputs = outputs.astype(np.float64)
    try:
        broadcast = np.broadcast_to(outputs, shape)
    except ValueError as error:
        raise ValueError(
            f"{name} has shape {outputs.shape}; needed: {shape}, one row for each example, or a"
            " number"
        ) from error
    if not np.isfinite(outputs).all():
        raise ValueError(f"{name} has entries that are NaN or infinite")
    return broadcast
