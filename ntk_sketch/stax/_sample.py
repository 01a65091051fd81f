"""Computing a sample's features layer by layer while a map is made."""

import math

import equinox as eqx
import jax
from jax import numpy as jnp

from ..features._hidden import of_examples
from ..numerics._compiling import fitting_jit
from ..numerics._memory import array_bytes
from ._rule import Transform

#: A sample is transformed in parts whose features take about this many bytes.
_PART_BYTES = 2**26


def shapes_after(transform: Transform, shapes, **kwargs):
    """Shapes of the features after `transform`, from the shapes before it."""
    return eqx.filter_eval_shape(_call_jitted, transform, shapes, kwargs)


def advance(transform: Transform, sample, shapes, **kwargs):
    """A sample's features after `transform`, computed in parts if they are large; `shapes` are
    those of the result.
    """
    examples = jax.tree.leaves(sample)[0].shape[0]
    # Call-time arguments may belong to examples, so that the sample cannot be split.
    share = (
        1
        if kwargs
        else min(_PART_BYTES / max(sum(map(array_bytes, jax.tree.leaves(shapes))), 1), 1)
    )
    size, parts = math.ceil(examples * share), []
    if size == examples:
        return _call_jitted(transform, sample, kwargs)
    for start in range(0, examples, size):
        # All parts have one shape, for one compilation; the last one overlaps.
        first = min(start, examples - size)
        part = of_examples(lambda leaf, first=first: leaf[first : first + size], sample)
        done = _call_jitted(transform, part, kwargs)
        parts.append(of_examples(lambda leaf, cut=start - first: leaf[cut:], done))
    return of_examples(lambda *leaves: jnp.concatenate(leaves), *parts)


def abstracted(features):
    """Shapes of `features`."""
    return eqx.filter_eval_shape(lambda f: f, features)


def _call(transform, features, kwargs):
    return transform(features, **kwargs)


_call_jitted = fitting_jit(_call)
