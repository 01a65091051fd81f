"""The compiled functions that add examples to a `GramState`."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..numerics._two_sum import Pair
from ..parallel._mesh import own_columns
from ._host_sums import HostSums
from ._targets import LARGEST_EXPONENT


def _transposed_product(a: Float[Array, "n p"], b: Float[Array, "n k"]) -> Float[Array, "p k"]:
    return jnp.matmul(a.T, b, precision=jax.lax.Precision.HIGHEST)


@jax.jit
def updated(state: Any, z: Any, y: Any, weights: Any, added: Int[Array, ""]) -> Any:
    dtype, shift = state.gram.high.dtype, state.target_shift
    unit = jnp.ldexp(jnp.ones((), dtype), -state.target_exponent)
    # Scaled before the subtraction, whose result may be below the dtype's normal numbers.
    y = y.astype(dtype).reshape(len(z), -1) * unit
    y = y - (shift.high * unit)[None] - (shift.low * unit)[None]
    real = jnp.arange(len(z), dtype=added.dtype) < added
    weights = jnp.where(real, weights, 0)
    return with_block(state, z, jnp.where(real[:, None], y, 0), weights)


def _digits(largest: Array) -> Array:
    """`exponent_of` of a traced number."""
    return jnp.clip(jnp.frexp(largest)[1], -LARGEST_EXPONENT, LARGEST_EXPONENT)


def with_block(
    state: Any,
    z: Float[Array, "n p"],
    t: Float[Array, "n k"],
    sample_weight: Float[Array, " n"],
    reference: Float[Array, " p"] | None = None,
) -> Any:
    """The state with one more block of examples added.

    The same program runs with and without weights, so that weights of 1 and no weights give the
    same bits.

    Args:
      t: targets in the state's units.
      sample_weight: 1 without weights. After the last example it is 0, like z and t.
      reference: subtracted from z, for a state of z - reference.
    """
    dtype = state.gram.high.dtype
    root = jnp.sqrt(sample_weight)[:, None]
    z, t = z.astype(dtype), t.astype(dtype) * root
    z = (z if reference is None else z - reference[None]) * root
    added, weight = jnp.sum(sample_weight > 0, dtype=jnp.int32), jnp.sum(sample_weight)
    unit = jnp.asarray(jnp.finfo(dtype).eps / 2, dtype)
    return dataclasses.replace(
        state,
        gram=state.gram.add(_transposed_product(z, own_columns(z, state.gram.high.shape[1]))),
        cross=state.cross.add(_transposed_product(z, t)),
        target_norm=state.target_norm.add(jnp.sum(t * t, axis=0)),
        target_sum=state.target_sum.add(jnp.sum(t * root, axis=0)),
        feature_norm=state.feature_norm.add(jnp.sum(z * z)),
        feature_sum=state.feature_sum.add(jnp.sum(z * root, axis=0)),
        weight=state.weight.add(weight),
        n_examples=state.n_examples + added,
        rounding=state.rounding + unit**2 * added.astype(dtype) * weight**2,
    )


@jax.jit
def merged(state: Any, other: Any) -> Any:
    """`GramState.merge` for states that are known to be compatible."""
    first = state.n_examples > 0  # a state without examples takes the other's shift
    shift = jax.tree.map(
        lambda a, b: jnp.where(first, a, b), state.target_shift, other.target_shift
    )
    exponent = _common_exponent(state, other, shift)
    a, b = _in_units(state, shift, exponent), _in_units(other, shift, exponent)
    sums = {name: getattr(a, name).merge(getattr(b, name)) for name in HostSums._fields}
    return dataclasses.replace(
        a,
        **sums,
        n_examples=a.n_examples + b.n_examples,
        rounding=a.rounding + b.rounding,
        origin=jnp.maximum(state.origin, other.origin),  # equal, or one is unknown
        one_output=state.one_output and other.one_output,
        weighted=state.weighted or other.weighted,
    )


def _common_exponent(state: Any, other: Any, shift: Pair) -> Int[Array, ""]:
    """The larger of both, where a state without examples, or whose targets are all 0 in its units,
    has no say; at least that of the distance between both shifts.
    """
    least = jnp.full_like(state.target_exponent, -LARGEST_EXPONENT)
    needed = []
    for side in (state, other):
        varies = jnp.any(side.target_norm.high > 0)
        needed.append(jnp.where(varies, side.target_exponent, least))
        distance = jnp.max(jnp.abs(side.target_shift.high - shift.high), initial=0)
        moves = (side.n_examples > 0) & (distance > 0)
        needed.append(jnp.where(moves, _digits(distance).astype(least.dtype), least))
    found = functools.reduce(jnp.maximum, needed)
    usual = jnp.maximum(state.target_exponent, other.target_exponent)
    return jnp.where(found > least, found, usual)


def with_exponent(state: Any, exponent: Int[Array, ""]) -> Any:
    """The state in units of another power of two."""
    return _in_units(state, state.target_shift, exponent)


def _in_units(state: Any, shift: Pair, exponent: Int[Array, ""]) -> Any:
    """The state in other units: T' = (Y - shift) / 2^exponent = factor T + moved."""
    one = jnp.ones((), state.gram.high.dtype)
    # Units become smaller only where all sums of targets are 0.
    factor = jnp.ldexp(one, jnp.minimum(state.target_exponent - exponent, 0))
    unit = jnp.ldexp(one, -exponent)
    moved = state.target_shift.high * unit - shift.high * unit
    moved = moved + (state.target_shift.low * unit - shift.low * unit)
    total, weight = state.target_sum.times(factor), state.weight.high
    sums = state.feature_sum.high
    return dataclasses.replace(
        state,
        cross=state.cross.times(factor).add(sums[:, None] * moved[None, :]),
        target_norm=state.target_norm.times(factor**2).add(
            moved * (2 * total.high + weight * moved)
        ),
        target_sum=total.add(weight * moved),
        target_shift=shift,
        target_exponent=exponent,
    )
