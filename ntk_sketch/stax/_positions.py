"""The rule of layers without weights that act linearly on positions."""

import functools
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax import numpy as jnp

from .._typing import Offsets
from ..features._hidden import HiddenFeatures
from ..features._position_map import map_numbers, map_offsets, through_map
from ..features._sources import Sources, sources_of
from ..identity._specification import Given, Specification, in_dtype
from ..numerics._precision import float64
from ._rule import Covariances, Rule, check_axes, check_layer

#: Unusual sizes, by which the axes of examples and channels are found in an output.
_EXAMPLES, _CHANNELS = 1009, 1013


class Linear(Rule):
    """`K'(S, T) = Σ_st W[S, s] W[T, t] K(s, t)` of a layer `x'_S = Σ_s W[S, s] x_s`.

    The layer's own function is applied to features, as it treats all channels alike. `W`, which the
    variances need, is found by applying it to vectors of positions.
    """

    positions, masks = "pooled", True

    def __init__(self, layer, axes: tuple[int, int] = (0, -1)):
        specification = getattr(layer, "specification", None)
        if specification is None:
            specification = Specification.of(Given(tuple, "layer", tuple(layer)), {})
        self.name = getattr(layer, "name", specification.name)
        self.layer, self.axes = specification, axes

    def needs(self, offsets, shape, *, method):
        check_axes(self.name, shape, *self.axes)
        space = tuple(shape[1:-1])
        self._check_layout(space)
        if not self.layer.is_traced and not _is_linear(self, space):
            raise ValueError(
                f"{self.name}: a layer with the rule stax.linear is linear in its inputs and treats"
                " examples one by one and channels alike, but for a random input that does not"
                " hold. A nonlinearity takes stax.nonlinearity, a layer with weights stax.Weights;"
                " others need a stax.Rule of their own."
            )
        return (
            None if offsets is None else map_offsets(_sources(_generic(self.layer), space), offsets)
        )

    def covariances(self, offsets, shape, *, method):
        if offsets is None:
            return Covariances(0, 0)
        sources = _sources(_generic(self.layer), tuple(shape[1:-1]))
        return Covariances(0, *map_numbers(sources, offsets))

    def fit(self, features, *, method, offsets, key):
        return LinearTransform(self.layer, offsets)

    def series(self, series):
        """For vectors without positions the layer is multiplication by a number."""
        with float64():
            factor = float(np.asarray(self._apply(np.ones((1, 1)))).item())
        return series.scaled(factor**2)

    def _apply(self, x):
        _, apply_fn, _ = in_dtype(self.layer, x.dtype).triple()
        return apply_fn((), x)

    def _check_layout(self, space: tuple[int, ...]) -> None:
        shape = (_EXAMPLES, *space, _CHANNELS)
        try:
            out = jax.eval_shape(self._apply, jax.ShapeDtypeStruct(shape, np.float32)).shape
        except Exception as error:
            if not self._has_weights(shape):
                raise
            raise TypeError(
                f"{self.name} has weights, and stax.linear is the rule of layers without: its"
                " apply_fn is called as apply_fn((), x). A layer with weights takes stax.Weights."
            ) from error
        if len(out) < 2 or out[0] != _EXAMPLES or out[-1] != _CHANNELS:
            letters = {_EXAMPLES: "n", _CHANNELS: "channels"}
            given, made = (
                "(" + ", ".join(str(letters.get(size, size)) for size in sizes) + ")"
                for sizes in (shape, out)
            )
            raise NotImplementedError(
                f"{self.name} makes {made} of {given}; features need examples on the first axis,"
                " all of them, and channels on the last. Give it arguments that leave both in their"
                " places."
            )

    def _has_weights(self, shape: tuple[int, ...]) -> bool:
        init_fn = self.layer.triple()[0]
        params = jax.eval_shape(lambda: init_fn(jax.random.PRNGKey(0), shape)[1])
        return bool(jax.tree.leaves(params))


@functools.lru_cache(maxsize=256)
def _is_linear(rule: Linear, space: tuple[int, ...]) -> bool:
    """Whether a layer is linear and mixes neither examples nor channels, for a random input."""
    with float64(), jax.ensure_compile_time_eval():
        x = jnp.asarray(np.random.default_rng(0).normal(size=(2, *space, 2)))
        whole, right = 3 * rule._apply(x), True
        for at in (slice(0, 1), slice(1, 2)):
            alone = rule._apply(3 * x[at, ..., at])
            right = right and np.allclose(whole[at, ..., at], alone, rtol=1e-6, atol=1e-9)
    return right


class LinearTransform(eqx.Module):
    layer: Specification
    offsets: Offsets = eqx.field(static=True)

    def __call__(self, features: HiddenFeatures, **kwargs) -> HiddenFeatures:
        features, variances = features.applied(), None
        _, apply_fn, _ = self.layer.triple()

        def apply(x):
            with jax.default_matmul_precision("highest"):
                return apply_fn((), x)

        mask = features.mask
        if self.offsets is not None or mask is not None:
            sources = _sources(_generic(self.layer), features.space)
            if self.layer.numbers:
                sources = sources.weighted(apply, features.dtype)
            if self.offsets is not None:
                variances = through_map(features.variances, sources, self.offsets)
            if mask is not None:
                mask = sources.masks(mask)
        return features.map(apply).replace(variances=variances, mask=mask)


def _generic(layer: Specification) -> Specification:
    """The layer with random numbers in place of its own, so that no weight of `W` cancels to 0."""
    if not layer.numbers:
        return layer
    rng, like = np.random.default_rng(0), layer.like()
    numbers = tuple(np.asarray(rng.uniform(0.5, 1.5, np.shape(number))) for number in like.numbers)
    return eqx.tree_at(lambda s: s.numbers, like, numbers)


@functools.lru_cache(maxsize=256)
def _sources(layer: Specification, space: tuple[int, ...]) -> Sources:
    with float64():
        _, apply_fn, _ = layer.triple()
        return sources_of(lambda x: apply_fn((), x), space)


def linear(layer, *args: Any, **kwargs: Any) -> Rule:
    """The rule of a layer without weights that is linear in its inputs.

    Use this as `register(constructor, linear)`, for your own layers too. The rule applies NT's
    `apply_fn((), x)` to features (n, *space, p) in place of channels (n, *space, c). The layer must
    therefore treat examples one by one and channels alike. It may move, select, sum or interpolate
    positions, and change their number and that of their axes.

    Cost: that of the layer, for every feature. If variances are needed after it, the weights of
    positions are found once for each shape: about `4 t log4 |space|` vectors of `|space|` numbers
    pass through the layer, if a position of its output is a sum over t neighbouring positions, and
    more if these are scattered. Each variance is then a sum over `t²` pairs of input positions,
    whose covariances are computed for all positions at the same distance. If that is more work, as
    where every output is a sum over most positions, it is matrix products `W K Wᵀ` with covariances
    of all pairs: of the order of `|space|²` numbers for each example.

    Example: positions in reversed order, as Neural Tangents would take them.

        >>> import neural_tangents as nt
        >>> from ntk_sketch import stax
        >>> Index = stax.register(nt.stax.Index, stax.linear)
        >>> model = stax.serial(stax.Conv(1, (3,)), Index(stax.Slice[:, ::-1]), stax.Relu())
    """
    check_layer(layer, "linear")
    return Linear(layer)


def index(layer, idx, batch_axis: int, channel_axis: int) -> Rule:
    return Linear(layer, (batch_axis, channel_axis))


def dot_general(layer, lhs, rhs, dimension_numbers, precision, batch_axis, channel_axis) -> Rule:
    return Linear(layer, (batch_axis, channel_axis))
