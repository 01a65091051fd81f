"""`neural_tangents.stax`, with a feature rule for every layer.

The module has all public names of `neural_tangents.stax`, with the same signatures. Its
constructors return a `Layer`, which is NT's triple with a feature rule. `supported` says which
layers have features by which method. Give other layers a rule with `register` or `layer`:

* `nonlinearity` for an elementwise function with its kernels; `homogeneous(p)` if `σ(s u) = s^p
  σ(u)`. A function without a layer needs no rule: use `Elementwise(function, kernel)` or
  `ElementwiseNumerical(function, nodes)`.
* `linear` for a layer without weights that acts on positions.
* `Weights` for a layer whose weights multiply the vectors of a patch operator (`Patches`).
* A subclass of `Rule` for everything else.

Example: a nonlinearity, and a layer of Neural Tangents that swaps the halves of a sequence.

    >>> import jax
    >>> import neural_tangents as nt
    >>> import numpy as np
    >>> import ntk_sketch as ns
    >>> from ntk_sketch import stax
    >>> from jax import numpy as jnp
    >>> def square(x):
    ...     return x**2
    >>> def kernel(c, q, r):  # E[u² v²]
    ...     return q * r + 2 * c**2
    >>> def derivative_kernel(c, q, r):
    ...     return 4 * c
    >>> Square = stax.Elementwise(square, kernel, derivative_kernel)
    >>> Index = stax.register(nt.stax.Index, stax.linear)
    >>> swapped = Index(stax.Slice[:, jnp.array([2, 3, 0, 1])])
    >>> model = stax.serial(stax.Conv(1, (2,)), Square, swapped, stax.Flatten(), stax.Dense(1))
    >>> x = np.random.default_rng(0).normal(size=(6, 5, 2)).astype("float32")
    >>> features = ns.feature_map(model, x, ns.Exact(), key=jax.random.key(0))
    >>> close, exact = features.kernel_fn(x, None, "ntk"), model[2](x, None, "ntk")
    >>> bool(abs(close - exact).max() < 1e-3 * abs(exact).max())
    True
"""

from .._nt import nt_stax as _nt_stax
from ..features._patch_operator import Patches as Patches
from ..methods import Method as Method
from . import (
    _aggregate,
    _attention,
    _branching,
    _combinators,
    _elementwise,
    _linear,
    _normalization,
    _pool,
    _positions,
    _products,
    _repaired,
    _resize,
    _supported,
    _weights,
)
from ._elementwise import homogeneous as homogeneous
from ._elementwise import nonlinearity as nonlinearity
from ._layer import Layer as Layer
from ._layer import layer as layer
from ._layer import register as register
from ._layer import with_method as with_method
from ._positions import linear as linear
from ._rule import Rule as Rule
from ._weights import Weights as Weights

# Combinators.
serial = register(_nt_stax.serial, _combinators.serial)
repeat = register(_nt_stax.repeat, _combinators.repeat)
parallel = register(_nt_stax.parallel, _combinators.parallel)

# Nonlinearities.
ABRelu = register(_nt_stax.ABRelu, _elementwise.homogeneous(1))
Abs = register(_nt_stax.Abs, _elementwise.homogeneous(1))
Cos = register(_nt_stax.Cos, _elementwise.smooth)
Elementwise = register(_nt_stax.Elementwise, _elementwise.elementwise)
ElementwiseNumerical = register(_nt_stax.ElementwiseNumerical, _elementwise.nonlinearity)
Erf = register(_nt_stax.Erf, _elementwise.smooth)
Exp = register(_nt_stax.Exp, _elementwise.exponential)
ExpNormalized = register(_nt_stax.ExpNormalized, _elementwise.exp_normalized(Exp))
Gabor = register(_nt_stax.Gabor, _elementwise.smooth)
Gaussian = register(_nt_stax.Gaussian, _elementwise.smooth)
Gelu = register(_nt_stax.Gelu, _elementwise.smooth)
Hermite = register(_repaired.Hermite, _elementwise.smooth)
LeakyRelu = register(_nt_stax.LeakyRelu, _elementwise.homogeneous(1))
Monomial = register(_nt_stax.Monomial, _elementwise.monomial)
Polynomial = register(_nt_stax.Polynomial, _elementwise.smooth)
Rbf = register(_nt_stax.Rbf, _elementwise.smooth)
RectifiedMonomial = register(_nt_stax.RectifiedMonomial, _elementwise.rectified_monomial)
Relu = register(_nt_stax.Relu, _elementwise.homogeneous(1))
Sigmoid_like = register(_nt_stax.Sigmoid_like, _elementwise.smooth)
Sign = register(_nt_stax.Sign, _elementwise.homogeneous(0))
Sin = register(_nt_stax.Sin, _elementwise.smooth)

# Linear layers, and LayerNorm, which is linear for given variances.
AvgPool = register(_nt_stax.AvgPool, _pool.avg_pool)
Conv = register(_nt_stax.Conv, _weights.conv)
ConvLocal = register(_repaired.ConvLocal, _weights.conv_local)
ConvTranspose = register(_nt_stax.ConvTranspose, _weights.conv_transpose)
Dense = register(_nt_stax.Dense, _weights.dense)
DotGeneral = register(_repaired.DotGeneral, _positions.dot_general)
Dropout = register(_nt_stax.Dropout, _linear.dropout)
Flatten = register(_nt_stax.Flatten, _linear.flatten)
GlobalAvgPool = register(_nt_stax.GlobalAvgPool, _pool.global_avg_pool, note=_pool.GLOBAL_POOL_NOTE)
GlobalSumPool = register(_nt_stax.GlobalSumPool, _pool.global_sum_pool, note=_pool.GLOBAL_POOL_NOTE)
Identity = register(_nt_stax.Identity, _linear.identity)
ImageResize = register(_resize.ImageResize, _resize.image_resize)
Index = register(_nt_stax.Index, _positions.index)
LayerNorm = register(_nt_stax.LayerNorm, _normalization.layer_norm)
SumPool = register(_nt_stax.SumPool, _pool.sum_pool)

# Layers that mix positions, by a graph or by their covariances.
Aggregate = register(_nt_stax.Aggregate, _aggregate.aggregate, note=_aggregate.NOTE)
GlobalSelfAttention = register(
    _nt_stax.GlobalSelfAttention, _attention.global_self_attention, note=_attention.NOTE
)

# Branches.
FanInConcat = register(_nt_stax.FanInConcat, _branching.fan_in_concat)
FanInProd = register(_nt_stax.FanInProd, _products.fan_in_prod)
FanInSum = register(_nt_stax.FanInSum, _branching.fan_in_sum)
FanOut = register(_nt_stax.FanOut, _branching.fan_out)

# Other names of `neural_tangents.stax`.
AggregateImplementation = _nt_stax.AggregateImplementation
AttentionMechanism = _nt_stax.AttentionMechanism
Bool = _nt_stax.Bool
Diagonal = _nt_stax.Diagonal
MaskedArray = _nt_stax.MaskedArray
Padding = _nt_stax.Padding
PositionalEmbedding = _nt_stax.PositionalEmbedding
Slice = _nt_stax.Slice
requires = _nt_stax.requires
supports_masking = _nt_stax.supports_masking
unmask_fn = _nt_stax.unmask_fn


def supported() -> _supported.Supported:
    """A table of which layers have features by which method.

    Use this to check an architecture before you build it. `supported()[layer][method]` is "yes",
    "no" with its reason, or a condition. Printed, it is the table of `docs/layers.md`. A layer with
    "no" still has its finite network and exact kernel; `register` and `layer` give it a rule.

    Example:
        >>> from ntk_sketch import stax
        >>> stax.supported()["Relu"]["Nystroem"]
        'yes'
    """
    return _supported.table(globals())
