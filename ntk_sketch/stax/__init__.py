"""`neural_tangents.stax`, every layer also knowing its features.

The whole public namespace of `neural_tangents.stax` is here under the same names and signatures;
its constructors return a `Layer`, NT's triple with a feature rule. Layers of other origin join by
`register` and `layer`, nonlinearities by `register(constructor, nonlinearity)`.
"""

from .._nt import nt_stax
from ..methods import Method as Method
from . import _branching, _combinators, _elementwise, _linear, _pool
from ._elementwise import nonlinearity as nonlinearity
from ._layer import Layer as Layer
from ._layer import NoRule as NoRule
from ._layer import Rule as Rule
from ._layer import layer as layer
from ._layer import register as register
from ._layer import with_method as with_method


def _exact_only(new_layer, *args, **kwargs):
    return NoRule(new_layer.name)


# Combinators.
serial = register(nt_stax.serial, _combinators.serial)
repeat = register(nt_stax.repeat, _combinators.repeat)
parallel = register(nt_stax.parallel, _combinators.parallel)

# Nonlinearities.
ABRelu = register(nt_stax.ABRelu, _elementwise.nonlinearity)
Abs = register(nt_stax.Abs, _elementwise.nonlinearity)
Cos = register(nt_stax.Cos, _elementwise.nonlinearity)
Elementwise = register(nt_stax.Elementwise, _elementwise.elementwise)
ElementwiseNumerical = register(nt_stax.ElementwiseNumerical, _elementwise.nonlinearity)
Erf = register(nt_stax.Erf, _elementwise.nonlinearity)
Exp = register(nt_stax.Exp, _elementwise.nonlinearity)
ExpNormalized = register(nt_stax.ExpNormalized, _elementwise.nonlinearity)
Gabor = register(nt_stax.Gabor, _elementwise.nonlinearity)
Gaussian = register(nt_stax.Gaussian, _elementwise.nonlinearity)
Gelu = register(nt_stax.Gelu, _elementwise.nonlinearity)
Hermite = register(nt_stax.Hermite, _elementwise.nonlinearity)
LeakyRelu = register(nt_stax.LeakyRelu, _elementwise.nonlinearity)
Monomial = register(nt_stax.Monomial, _elementwise.nonlinearity)
Polynomial = register(nt_stax.Polynomial, _elementwise.nonlinearity)
Rbf = register(nt_stax.Rbf, _elementwise.nonlinearity)
RectifiedMonomial = register(nt_stax.RectifiedMonomial, _elementwise.rectified_monomial)
Relu = register(nt_stax.Relu, _elementwise.nonlinearity)
Sigmoid_like = register(nt_stax.Sigmoid_like, _elementwise.nonlinearity)
Sign = register(nt_stax.Sign, _elementwise.nonlinearity)
Sin = register(nt_stax.Sin, _elementwise.nonlinearity)

# Linear layers.
AvgPool = register(nt_stax.AvgPool, _pool.avg_pool)
Conv = register(nt_stax.Conv, _linear.conv)
Dense = register(nt_stax.Dense, _linear.dense)
Dropout = register(nt_stax.Dropout, _linear.dropout)
Flatten = register(nt_stax.Flatten, _linear.flatten)
GlobalAvgPool = register(nt_stax.GlobalAvgPool, _pool.global_avg_pool)
GlobalSumPool = register(nt_stax.GlobalSumPool, _pool.global_sum_pool)
Identity = register(nt_stax.Identity, _linear.identity)
SumPool = register(nt_stax.SumPool, _pool.sum_pool)

# Branches.
FanInConcat = register(nt_stax.FanInConcat, _branching.fan_in_concat)
FanInSum = register(nt_stax.FanInSum, _branching.fan_in_sum)
FanOut = register(nt_stax.FanOut, _branching.fan_out)

# Exact kernel and finite network only, so far.
Aggregate = register(nt_stax.Aggregate, _exact_only)
ConvLocal = register(nt_stax.ConvLocal, _exact_only)
ConvTranspose = register(nt_stax.ConvTranspose, _exact_only)
DotGeneral = register(nt_stax.DotGeneral, _exact_only)
FanInProd = register(nt_stax.FanInProd, _exact_only)
GlobalSelfAttention = register(nt_stax.GlobalSelfAttention, _exact_only)
ImageResize = register(nt_stax.ImageResize, _exact_only)
Index = register(nt_stax.Index, _exact_only)
LayerNorm = register(nt_stax.LayerNorm, _exact_only)

# What is not a layer.
AggregateImplementation = nt_stax.AggregateImplementation
AttentionMechanism = nt_stax.AttentionMechanism
Bool = nt_stax.Bool
Diagonal = nt_stax.Diagonal
MaskedArray = nt_stax.MaskedArray
Padding = nt_stax.Padding
PositionalEmbedding = nt_stax.PositionalEmbedding
Slice = nt_stax.Slice
requires = nt_stax.requires
supports_masking = nt_stax.supports_masking
unmask_fn = nt_stax.unmask_fn
