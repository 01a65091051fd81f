"""The rule of Aggregate: sums over the edges of a graph, which is given with each example."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax import numpy as jnp
from jax.core import Tracer

from .._typing import Array, Offsets
from ..features._hidden import HiddenFeatures, positions
from ..features._position_pairs import (
    pair_bands,
    pair_matrices,
    pair_offsets,
    through_weights,
)
from ..identity._specification import Specification
from ._rule import MATRICES, Covariances, Rule, check_axes, check_positions


@dataclasses.dataclass(frozen=True)
class Graphs:
    """The form that `pattern` must have.

    Attributes:
        name: of the layer, for errors.
        axis: the axes of (n, *space, c) that are aggregated; `None`: all spatial axes.
        sparse: whether the pattern is a list of edges, instead of weights.
        to_dense: the layer's function from patterns to weights; `None`: patterns are weights.
    """

    name: str
    axis: int | tuple[int, ...] | None
    sparse: bool
    to_dense: Callable | None

    def along(self, space: tuple[int, ...]) -> tuple[int, ...]:
        """The spatial axes that are aggregated, counted from 0."""
        if self.axis is None:
            return tuple(range(len(space)))
        axis = (self.axis,) if isinstance(self.axis, int) else self.axis
        return tuple(a % (len(space) + 2) - 1 for a in axis)

    def check(self, pattern: Any, space: tuple[int, ...], examples: int | None = None) -> None:
        """Raises an error unless `pattern` holds graphs on the positions of `space`.

        Args:
            examples: number of examples; `None`: any.

        Raises:
            TypeError: the pattern is missing, is a tuple or not an array, or has edges that are not
                integers.
            ValueError: the pattern has another shape, or not one graph for each example. If values
                are known: weights are not finite, or an edge has a vertex that does not exist.
        """
        sizes = tuple(space[axis] for axis in self.along(space))
        wanted = f"weights (n, {', '.join(map(str, sizes * 2))})"
        if self.sparse:
            short = " or (n, edges, 2)" * (len(sizes) == 1)
            wanted = f"integers (n, edges, {len(sizes)}, 2){short}, tails and heads of edges"
        if pattern is None:
            raise TypeError(
                f"{self.name}: there is no graph; pass pattern=... to feature_map and to every"
                f" call: {wanted}. ridge, predict and stream know examples alone: let these carry"
                " their graphs, as docs/graphs-and-text.md shows."
            )
        if isinstance(pattern, tuple):
            raise TypeError(
                f"{self.name}: pattern is a tuple; needed: the graphs of these examples alone,"
                f" {wanted}. Pairs (pattern1, pattern2) are for kernel_fn."
            )
        if not (hasattr(pattern, "shape") and hasattr(pattern, "dtype")):
            raise TypeError(
                f"{self.name}: pattern is a {type(pattern).__name__}; needed: an array, {wanted}."
            )
        if self.sparse and not jnp.issubdtype(pattern.dtype, jnp.integer):
            raise TypeError(f"{self.name}: pattern has dtype {pattern.dtype}; needed: {wanted}.")
        weights = pattern
        if self.to_dense is not None and not self.sparse:
            weights = eqx.filter_eval_shape(self.to_dense, pattern)
        got = tuple(weights.shape)
        ends = [(len(sizes), 2), (2,)][: 1 + (len(sizes) == 1)] if self.sparse else [sizes * 2]
        if got[2 if self.sparse else 1 :] not in ends or len(got) < 2:
            raise ValueError(f"{self.name}: pattern has shape {got}; needed: {wanted}.")
        if examples not in (None, got[0]):
            raise ValueError(
                f"{self.name}: pattern has {got[0]} graphs for {examples} examples; needed: one for"
                f" each, {wanted}."
            )
        if isinstance(pattern, np.ndarray | jax.Array) and not isinstance(pattern, Tracer):
            self._check_values(pattern, sizes)

    def _check_values(self, pattern: Array | np.ndarray, sizes: tuple[int, ...]) -> None:
        """Raises an error for bad values that NT accepts silently."""
        if not self.sparse:
            if self.to_dense is None and not np.isfinite(np.asarray(pattern)).all():
                raise ValueError(f"{self.name}: pattern has weights that are NaN or infinite.")
            return
        largest = np.asarray(pattern).max(axis=(0, 1, -1), initial=-1).reshape(-1)
        if (largest >= sizes).any():
            raise ValueError(
                f"{self.name}: pattern has an edge at vertex {tuple(map(int, largest))} of"
                f" {sizes}, counted from 0; needed: smaller ones, or negative ones for no edge."
            )


NOTE = """
The sums over edges are exact. A nonlinearity after them divides by variances, which need the
covariances of all pairs of vertices of a graph. These are exact up to 256 vertices. Beyond, the
covariances of different vertices are *estimated* by products of features. Measured on graphs of
400 vertices with four edges each, three keys, the estimate adds no visible error: the NTK error
under `Nystroem(256)` is 0.010 to 0.013 with estimated and with exact covariances (`python -m
benchmarks.position_pairs`).

Give `pattern` to `feature_map(...)` and to every call of the map.
"""


class Aggregate(Rule):
    """`K'(S, T) = Σ_st A[s, S] A'[t, T] K(s, t)` with the graphs `A` and `A'` of two examples.

    The layer is linear in the features. A nonlinearity after it needs the covariances of all pairs
    of positions of an example (`NOTE`).
    """

    positions, masks, compares = "pooled", True, True
    call_arguments = frozenset({"pattern"})

    def __init__(self, layer, axes, graphs: Graphs):
        self.name, self.layer = layer.name, layer.specification
        self.axes, self.graphs = axes, graphs
        if graphs.sparse or graphs.to_dense is None:
            self.per_example = self.call_arguments

    def needs(self, offsets, shape, *, method, pattern=None):
        check_axes(self.name, shape, *self.axes)
        check_positions(self.name, shape)
        space = tuple(shape[1:-1])
        self.graphs.check(pattern, space)
        exact = positions(space) <= method.max_positions_all_pairs
        return pair_offsets(space, self.graphs.along(space), offsets, exact=exact)

    def covariances(self, offsets, shape, *, method, **kwargs):
        along = self.graphs.along(tuple(shape[1:-1]))
        sizes = (shape[1 + axis] for axis in along)
        return Covariances(0, MATRICES * math.prod(shape[1:-1]) * math.prod(sizes))

    def fit(self, features, *, method, offsets, key, pattern=None):
        exact = positions(features.space) <= method.max_positions_all_pairs
        return AggregateTransform(self.layer, self.graphs, exact, offsets)


#: The default of `pattern`, which raises an error. `None` means no aggregation in NT; it is passed
#: when only the shapes of a map's features are needed.
_NOT_GIVEN: Any = object()


class AggregateTransform(eqx.Module):
    layer: Specification
    graphs: Graphs = eqx.field(static=True)
    exact: bool = eqx.field(static=True)
    offsets: Offsets = eqx.field(static=True)

    def __call__(
        self, features: HiddenFeatures, *, pattern: Any = _NOT_GIVEN, **kwargs
    ) -> HiddenFeatures:
        features = features.applied() if self.exact else features.concrete()
        space, examples = features.space, features.nngp[0].shape[0]
        if pattern is not None:
            given = None if pattern is _NOT_GIVEN else pattern
            self.graphs.check(given, space, examples)
        _, aggregate_fn, _ = self.layer.triple()

        def aggregate(block: Array) -> Array:
            with jax.default_matmul_precision("highest"):
                return aggregate_fn((), block, pattern=pattern)

        mixed = features.map(aggregate)
        mixed = mixed.map(mixed.masked)
        if self.offsets is None:
            return mixed.replace(variances=None)
        along = self.graphs.along(space)
        size = math.prod(space[axis] for axis in along)
        # Aggregating unit vectors, with one channel for each position, gives the weights.
        lone = [space[axis] if axis in along else 1 for axis in range(len(space))]
        unit = np.eye(size, dtype=features.dtype).reshape(1, *lone, size)
        unit = jnp.broadcast_to(unit, (examples, *lone, size))
        weights = aggregate(unit).reshape(examples, size, size)
        matrices = pair_matrices(features, along, self.offsets, exact=self.exact)
        bands = pair_bands(through_weights(weights, matrices), space, along, self.offsets)
        return mixed.replace(variances=bands.masked(features.mask))


def aggregate(layer, aggregate_axis, batch_axis, channel_axis, to_dense, implementation):
    sparse = getattr(implementation, "value", implementation) == "SPARSE"
    axis = tuple(aggregate_axis) if isinstance(aggregate_axis, list) else aggregate_axis
    own = to_dense if "to_dense" in layer.specification.arguments else None
    return Aggregate(layer, (batch_axis, channel_axis), Graphs(layer.name, axis, sparse, own))
