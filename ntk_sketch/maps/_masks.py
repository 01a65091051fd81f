"""Masked entries of examples, marked by the number `mask_constant`."""

import numbers
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jax.core import Tracer

from .._arguments import checked_inputs
from .._typing import Array
from ..methods import Method
from ..stax import Layer
from ..stax._masking import check_masks


def checked_constant(value: Any, model: Layer, method: Method) -> str | None:
    """The constant as text, so that NaN equals itself; `None` without one.

    Raises:
        TypeError: it is not a number.
        NotImplementedError: a layer or the method does not support masks.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(
            f"mask_constant is the number that marks masked entries of x, such as -1000.0 or nan;"
            f" got {value!r}."
        )
    if method.whole_network:
        raise NotImplementedError(
            f'{type(method).__name__} with scope="network" has no masks. Use scope="layer", or'
            " examples without mask_constant."
        )
    check_masks(model)
    return str(float(value))


def check_same(value: Any, constant: str | None) -> None:
    """Refuses a `mask_constant` at a call that differs from that of the map."""
    if value is None or (constant is not None and str(float(value)) == constant):
        return
    if constant is None:
        raise ValueError(
            f"mask_constant={value!r}: this map was made without masks. Make it with"
            " ntk_sketch.feature_map(..., mask_constant=...); it then masks every batch."
        )
    raise ValueError(
        f"mask_constant={value!r}: this map was made with mask_constant={constant}. Leave it out,"
        " or mark masked entries by the same number."
    )


def split(x: Array, constant: str | None, dtype: Any) -> tuple[Array, Array | None]:
    """Inputs with 0 in place of the constant, and the mask (n, *space) of positions.

    A position is masked if all of its channels are, as in NT's first layer with weights.

    Args:
        dtype: that in which the user gave the examples, and in which they hold the constant.
    """
    if constant is None:
        return x, None
    marked = _marked(x, constant, dtype)
    return jnp.where(marked, 0, x), jnp.all(marked, axis=-1)


def without_marks(x: Any, constant: str | None) -> Any:
    """Example inputs with 0 in place of the constant, for checks of their values.

    Raises:
        ValueError: all entries are masked, or another entry is NaN, infinite or too large.
    """
    if constant is None or isinstance(x, jax.ShapeDtypeStruct | Tracer):
        return x
    x = np.asarray(x)
    marked = _marked(x, constant, x.dtype)
    if marked.all():
        raise ValueError(f"all entries of x are mask_constant={constant}: nothing is left.")
    return checked_inputs(np.where(marked, x.dtype.type(0), x), "x (but for what is masked)")


def _marked(x: Any, constant: str, dtype: Any) -> Any:
    number = np.asarray(float(constant)).astype(dtype)
    if np.isnan(number):
        return (np if isinstance(x, np.ndarray) else jnp).isnan(x)
    return x == number.astype(x.dtype)
