"""Computing a sample's features layer by layer while a map is made."""

import math

import equinox as eqx
import jax
import numpy as np
from jax import numpy as jnp

from ..features._hidden import of_examples
from ..numerics._compiling import fitting_jit
from ..numerics._memory import array_bytes, peak_bytes
from ._rule import Transform

#: A sample is transformed in parts whose features take about so many bytes, and in smaller ones if
#: computing them takes more than the second number.
_PART_BYTES, _PEAK_BYTES = 2**26, 2**30


def shapes_after(transform: Transform, shapes, **kwargs):
    """Shapes of the features after `transform`, from the shapes before it."""
    return eqx.filter_eval_shape(_call_jitted, transform, shapes, kwargs)


def advance(
    transform: Transform, sample, shapes, per_example: frozenset[str] = frozenset(), **kwargs
):
    """A sample's features after `transform`, computed in parts if they, or what is computed on the
    way to them, are large.

    Args:
        shapes: of the result.
        per_example: names of the call-time arguments with one entry for each example.
    """
    examples = jax.tree.leaves(sample)[0].shape[0]
    own = {name: value for name, value in kwargs.items() if name in per_example}
    size, parts = examples, []
    # Others may belong to examples in a way of their own, so that the sample cannot be split.
    if len(own) == len(kwargs) and all(isinstance(a, jax.Array | np.ndarray) for a in own.values()):
        size = _part(transform, sample, shapes, own)
    if size == examples:
        return _call_jitted(transform, sample, kwargs)
    for start in range(0, examples, size):
        # All parts have one shape, for one compilation; the last one overlaps.
        first = min(start, examples - size)
        rows = slice(first, first + size)
        part = of_examples(lambda leaf, rows=rows: leaf[rows], sample)
        given = {name: value[rows] for name, value in own.items()}
        done = _call_jitted(transform, part, given)
        parts.append(of_examples(lambda leaf, cut=start - first: leaf[cut:], done))
    return of_examples(lambda *leaves: jnp.concatenate(leaves), *parts)


def _part(transform: Transform, sample, shapes, kwargs) -> int:
    """Number of examples of a part."""
    examples = jax.tree.leaves(sample)[0].shape[0]
    dynamic, static = eqx.partition((transform, sample, kwargs), eqx.is_array)
    peak = peak_bytes(lambda arrays: _call_jitted(*eqx.combine(arrays, static)), dynamic)
    result = sum(map(array_bytes, jax.tree.leaves(shapes)))
    share = min(_PART_BYTES / max(result, 1), _PEAK_BYTES / peak, 1)
    return math.ceil(examples * share)


def abstracted(features):
    """Shapes of `features`."""
    return eqx.filter_eval_shape(lambda f: f, features)


def _call(transform, features, kwargs):
    return transform(features, **kwargs)


_call_jitted = fitting_jit(_call)
