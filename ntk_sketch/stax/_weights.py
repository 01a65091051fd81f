"""Rules of layers with weights: Dense and all convolutions."""

import dataclasses
import math
import warnings
from typing import Any

import equinox as eqx

from .._typing import Offsets
from ..features._hidden import Affine, HiddenFeatures
from ..features._patch_operator import PatchOperator
from ..features._patch_variances import patch_numbers, patch_offsets
from ..features._transposed_windows import TransposedWindows
from ..features._unshared_windows import UnsharedWindows
from ..features._windows import Windows
from ..identity._specification import as_leaves
from ._linear import MASKING, AffineTransform
from ._rule import Covariances, NoRule, Rule, check_axes

#: There is a warning if a feature after a ConvLocal takes more bytes than this in a map's filters.
_BYTES_PER_FEATURE = 2**22


class Weights(Rule):
    """The rule of a layer with weights and a bias.

    Use this for a layer of your own that multiplies a vector of inputs by the same weights at every
    position. Dense, Conv and ConvTranspose have this rule.

    Let `A` be the mean over the entries of that vector (the identity without `operator`), c the
    input channels and |w| the number of entries for each channel. Then `K' = W_std² A(K) + b_std²`
    and, depending on `parameterization`,

        'ntk':       Θ' = K' + W_std² A(Θ)
        'standard':  Θ' = c |w| / s[0] A(K) + W_std² A(Θ) + 1 (the last with a bias only)

    as in NT (Jacot et al. 2018, arXiv 1806.07572; Sohl-Dickstein et al. 2020, arXiv 2001.07301).
    Patches are not formed: the layer stays pending on the features until a nonlinearity projects
    them.

    Args:
        layer: the layer of this rule, for its name.
        out: channels of the finite network's output.
        W_std, b_std, parameterization, s: as those of `Dense`.
        operator: makes the vector that the weights multiply at every position: a `Patches`, or a
            hashable object with the same members. `None`: the vector of the position itself.
        axes: batch and channel axis of the finite network, which must be the first and the last.

    Example: a convolution with windows of three positions, written as a function of blocks.

        >>> import jax
        >>> import neural_tangents as nt
        >>> import numpy as np
        >>> import ntk_sketch as ns
        >>> from ntk_sketch import stax
        >>> from jax import numpy as jnp
        >>> def three(x):
        ...     return jnp.concatenate([x[:, :-2], x[:, 1:-1], x[:, 2:]], axis=-1)
        >>> def rule(layer, out_chan, shape, strides, padding, W_std, b_std, *more):
        ...     return stax.Weights(layer, out_chan, W_std, b_std, operator=stax.Patches(three, 3))
        >>> Mine = stax.register(nt.stax.Conv, rule)
        >>> x, z = np.random.default_rng(0).normal(size=(4, 6, 2)).astype("float32"), []
        >>> for conv in (stax.Conv, Mine):
        ...     model = stax.serial(conv(8, (3,), b_std=0.1), stax.Relu(), stax.Flatten())
        ...     z.append(ns.feature_map(model, x, ns.Nystroem(6), key=jax.random.key(0))(x).ntk)
        >>> bool(jnp.allclose(z[0] @ z[0].T, z[1] @ z[1].T, rtol=1e-3))
        True
    """

    forms_patches = True

    def __init__(
        self,
        layer,
        out: int,
        W_std=1.0,
        b_std=None,
        parameterization: str = "ntk",
        s: tuple[int, int] = (1, 1),
        operator: PatchOperator | None = None,
        axes: tuple[int, int] = (0, -1),
    ):
        self.name, self.operator, self.axes = layer.name, operator, axes
        self.W_std, self.b_std, self.s = W_std, b_std, s
        self.standard = parameterization.lower() == "standard"
        self.channels = out * s[1] if self.standard else out
        self.masks = operator is None or isinstance(operator, MASKING)
        self.makes_patches = operator is not None and operator.size > 1

    def needs(self, offsets, shape, *, method):
        check_axes(self.name, shape, *self.axes)
        return patch_offsets(self.operator, tuple(shape[1:-1]), offsets)

    def covariances(self, offsets, shape, *, method):
        return Covariances(0, *patch_numbers(self.operator, tuple(shape[1:-1]), offsets))

    def affine(self, channels: int) -> Affine:
        """This layer as an `Affine`, for inputs of `channels` channels."""
        size = 1 if self.operator is None else self.operator.size
        weight = self.W_std / size**0.5
        if self.standard:
            ntk_weight = (channels / self.s[0]) ** 0.5
            ntk_bias = None if self.b_std is None else 1.0
        else:
            ntk_weight, ntk_bias = weight, self.b_std
        return Affine(weight, self.b_std, ntk_weight, ntk_bias, self.operator)

    def fit(self, features, *, method, offsets, key):
        affine = as_leaves(self.affine(features.channels))
        return AffineTransform(affine, self.operator, self.channels, offsets)

    def series(self, series):
        if self.operator is not None:
            return super().series(series)
        a = self.affine(series.channels)
        after = series.affine(a.weight, a.bias, a.ntk_weight, a.ntk_bias)
        return after._replace(channels=self.channels)


def dense(layer, out_dim, W_std, b_std, batch_axis, channel_axis, parameterization, s):
    axes = (batch_axis, channel_axis)
    return Weights(layer, out_dim, W_std, b_std, parameterization, s, axes=axes)


def conv(layer, out_chan, shape, strides, padding, W_std, b_std, dimension_numbers, *more) -> Rule:
    windows = windows_of(shape, strides, padding)
    return _convolution(Weights, windows, layer, out_chan, W_std, b_std, dimension_numbers, *more)


def conv_transpose(
    layer, out_chan, shape, strides, padding, W_std, b_std, dimension_numbers, *more
) -> Rule:
    """A convolution of inputs with zeros in between, by a patch operator."""
    windows = windows_of(shape, strides, padding)
    operator = TransposedWindows(windows.shape, windows.strides, windows.padding)
    return _convolution(Weights, operator, layer, out_chan, W_std, b_std, dimension_numbers, *more)


def conv_local(
    layer, out_chan, shape, strides, padding, W_std, b_std, dimension_numbers, *more
) -> Rule:
    windows = windows_of(shape, strides, padding)
    return _convolution(
        LocalWeights, windows, layer, out_chan, W_std, b_std, dimension_numbers, *more
    )


class LocalWeights(Weights):
    """ConvLocal: `K'(S, T) = 1[S = T] (W_std² A(K)(S, S) + b_std²)`, Θ likewise.

    Each position has its own weights. Its vector is therefore a separate block of a vector of all
    positions (`UnsharedWindows`), and random directions and landmarks are vectors of that length.
    Methods need no change. Filters of the next nonlinearity have `|space| (|w| p + 1)` numbers for
    every feature.
    """

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.makes_patches = False  # vectors of different positions are orthogonal

    def needs(self, offsets, shape, *, method):
        return super().needs(self._own(offsets), shape, method=method)

    def fit(self, features, *, method, offsets, key):
        windows: Any = self.operator
        affine = self.affine(features.channels)
        unshared = UnsharedWindows(windows, features.space)
        affine = as_leaves(dataclasses.replace(affine, operator=unshared))
        self._check_size(
            eqx.filter_eval_shape(lambda f: f.applied().replace(pending=affine), features)
        )
        return LocalTransform(affine, windows, self.channels, offsets)

    def _own(self, offsets: Offsets) -> Offsets:
        return None if offsets is None else ((0,),) * len(offsets)

    def _check_size(self, features: HiddenFeatures) -> None:
        vectors = [features.nngp_vectors()]
        vectors += [] if features.ntk is None else [features.ntk_vectors()]
        size = sum(v.dimension for v in vectors) * features.dtype.itemsize
        if size > _BYTES_PER_FEATURE:
            warnings.warn(
                f"{self.name}: every feature of the next nonlinearity takes {size / 2**20:.3g} MiB"
                f" of the map, since {math.prod(features.space)} positions have weights of their"
                " own: a width of 1024 makes that GiB. Give smaller widths before this layer, or"
                " fewer positions.",
                UserWarning,
                stacklevel=2,
            )


class LocalTransform(AffineTransform):
    """Covariances of different positions are 0."""

    def after(self, variances, a, offsets):
        centre = ((0,),) * len(offsets)
        return super().after(variances, a, centre).select(offsets)


def _convolution(
    kind: type[Weights],
    operator: PatchOperator,
    layer,
    out: int,
    W_std,
    b_std,
    dimension_numbers,
    parameterization: str,
    s: tuple[int, int],
) -> Rule:
    if dimension_numbers is not None and not _channels_last(*dimension_numbers):
        reason = (
            f"has dimension_numbers={dimension_numbers!r}; features support the default,"
            " channels-last order, for example ('NHWC', 'HWIO', 'NHWC')"
        )
        return NoRule(layer.name, reason)
    return kind(layer, out, W_std, b_std, parameterization, s, operator)


def windows_of(shape, strides, padding) -> Windows:
    shape = tuple(map(int, shape))
    strides = (1,) * len(shape) if strides is None else tuple(map(int, strides))
    return Windows(shape, strides, getattr(padding, "name", padding))


def _channels_last(lhs: str, rhs: str, out: str) -> bool:
    space = lhs[1:-1]
    return lhs == out == f"N{space}C" and rhs == f"{space}IO"
