"""Linear maps of positions that treat channels alike, as sparse matrices found from functions."""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import numpy as jnp

from .._typing import Array
from ..numerics._precision import float64
from ._patch_operator import PatchOperator

#: `sources_of` applies a map to this many vectors at a time, always the same number for the sake of
#: compilation, or to fewer where these, or what becomes of them, are more than `_PART` numbers.
_VECTORS = 32
_PART = 2**22
_SEED = 20110519


class Sources(NamedTuple):
    """A sparse linear map: entry u of the vector at output S is `Σ_k weight[u, S, k] x[source[u, S,
    k]]`.

    Attributes:
        space, outputs: spatial shapes before and after.
        source: flat input positions (taps, outputs, terms), -1 behind them if there are fewer.
        weight: of each term, 0 where source is -1; of NumPy, or traced by JAX.
    """

    space: tuple[int, ...]
    outputs: tuple[int, ...]
    source: np.ndarray
    weight: Any

    def weighted(self, fn: Callable[[Array], Array], dtype) -> "Sources":
        """The same sources with the weights of `fn`, which is applied to as many vectors as the
        outputs have terms, or a few more (`_colours`).
        """
        colours = _colours(self.source, math.prod(self.space))
        units = np.arange(colours.max(initial=0) + 1)[:, None] == colours
        found = fn(jnp.asarray(units, dtype).reshape(len(units), *self.space, 1))
        found = found.reshape(len(units), *self.source.shape[1::-1])
        taps, outputs, _ = self.source.shape
        u, s = np.arange(taps)[:, None, None], np.arange(outputs)[None, :, None]
        weight = found[colours[np.maximum(self.source, 0)], s, u]
        return self._replace(weight=jnp.where(self.source >= 0, weight, 0))

    def matrix(self) -> Any:
        """The weights (taps, outputs, positions), 0 where an output has no such term."""
        place = np.full((*self.source.shape[:2], math.prod(self.space)), -1)
        tap, output, term = np.nonzero(self.source >= 0)
        place[tap, output, self.source[tap, output, term]] = term
        xp = np if isinstance(self.weight, np.ndarray) else jnp
        return xp.where(
            place >= 0, xp.take_along_axis(self.weight, np.maximum(place, 0), axis=-1), 0
        )

    def masks(self, mask: Array) -> Array:
        """Which outputs are masked (n, *outputs), from `mask` (n, *space).

        As in NT, an output is masked if all of its inputs are.
        """
        seen = ~mask.reshape(len(mask), -1)[:, np.maximum(self.source, 0)]
        met = jnp.any(seen & (self.weight != 0)[None], axis=(1, 3))
        return ~met.reshape(len(mask), *self.outputs)


def sources_of(fn: Callable[[Array], Array], space: tuple[int, ...]) -> Sources:
    """The sources of a linear map `fn` (n, *space, 1) -> (n, *outputs, taps).

    Blocks of positions are cut in four until they are single positions. Of every output, only parts
    of blocks that it depends on are looked at; those that no output has in common are looked at
    together (`_colours`). Weights are those of unit vectors of positions, in float64. What is less
    than `eps^(5/8)` (1.6e-10) of an output's largest weight is left out: it may be rounding, as of
    a difference of long sums.

    Cost: `fn` of about `4 t log4 |space|` vectors of `|space|` numbers, if an output has t terms
    close together. There are more where terms are scattered, up to some `|space|` in all.
    """
    count = math.prod(space)
    with float64(), jax.ensure_compile_time_eval():
        shape = jax.eval_shape(fn, jax.ShapeDtypeStruct((1, *space, 1), np.float64)).shape
        outputs, taps = shape[1:-1], shape[-1]
        step = min(max(_PART // max(count, math.prod(shape)), 1), _VECTORS)
        # Numbers of which no sum over a block is 0 by chance; the last blocks are unit vectors.
        # They are not the numbers of a layer, which may be random too.
        numbers = np.random.default_rng(_SEED).uniform(0.5, 1.5, count)
        source = np.zeros((taps, math.prod(outputs), 1), int)
        weight = np.zeros(source.shape)
        for level in reversed(range(0, (count - 1).bit_length() + 1, 2)):
            block = np.arange(count) >> level
            parts = np.arange(block[-1] + 1)
            colours = 4 * _colours(source, block[-1] // 4 + 1)[parts // 4] + parts % 4
            source = (4 * source[..., None] + np.arange(4)).reshape(*source.shape[:2], -1)
            source[(source < 0) | (source > block[-1])] = -1
            weight = np.zeros(source.shape)
            places = np.nonzero(source >= 0)
            colour = colours[source[places]]
            order = np.argsort(colour, kind="stable")
            colour, places = colour[order], tuple(place[order] for place in places)
            for start in range(0, colours.max() + 1, step):
                part = np.arange(start, start + step)
                vectors = np.where(part[:, None] == colours[block], numbers if level else 1.0, 0.0)
                values = np.asarray(fn(jnp.asarray(vectors).reshape(step, *space, 1)))
                found = slice(*np.searchsorted(colour, (start, start + step)))
                tap, output, _ = here = tuple(place[found] for place in places)
                weight[here] = values.reshape(step, -1, taps)[colour[found] - start, output, tap]
            rounding = float(jnp.finfo(values.dtype).eps) ** 0.625
            left_out = np.abs(weight) <= rounding * np.abs(weight).max(axis=-1, keepdims=True)
            source[left_out], weight[left_out] = -1, 0
            order = np.argsort(source < 0, axis=-1, kind="stable")
            order = order[..., : max(int((source >= 0).sum(-1).max(initial=0)), 1)]
            source, weight = (np.take_along_axis(a, order, axis=-1) for a in (source, weight))
    return Sources(tuple(space), tuple(outputs), source, weight)


def _colours(source: np.ndarray, count: int) -> np.ndarray:
    """A number for each of `count` inputs, such that the inputs of an output have different ones.

    Inputs of one number can share a vector, as in estimating sparse Jacobian matrices (Curtis,
    Powell and Reid 1974). Each takes the first number that is free.
    """
    if source.shape[-1] == 1:
        return np.zeros(count, int)
    if source.shape[-1] == count:
        return np.arange(count)
    outputs = np.unique(source.reshape(-1, source.shape[-1]), axis=0).tolist()
    taken: list[set[int]] = [set() for _ in outputs]
    belongs: list[list[int]] = [[] for _ in range(count)]
    for output, inputs in enumerate(outputs):
        for at in inputs:
            if at >= 0:
                belongs[at].append(output)
    colours = np.zeros(count, int)
    for at, own in enumerate(belongs):
        used = set().union(*(taken[output] for output in own))
        colour = next(c for c in itertools.count() if c not in used)
        colours[at] = colour
        for output in own:
            taken[output].add(colour)
    return colours


@functools.lru_cache(maxsize=64)
def operator_sources(operator: PatchOperator, space: tuple[int, ...]) -> Sources:
    """The sources of any patch operator."""
    return sources_of(operator.patches, space)
