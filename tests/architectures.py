"""The table of architectures that every contract of feature maps is tested on.

Between them they use every layer, option and nonlinearity that features support. A new layer is one
more row.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax.scipy.special import erf

from ntk_sketch import stax


class Architecture(NamedTuple):
    """`across` compares two different batches only: with Dropout the diagonal is that of two
    passes, and NT's formulas for Sign and rectified monomials fail where an example meets itself.
    """

    model: Callable
    shape: tuple[int, ...]
    across: bool = False
    nt_options: tuple[tuple[str, bool], ...] = ()


def _erf_dual(c, q, r):
    return jnp.arcsin(2 * c / jnp.sqrt((1 + 2 * q) * (1 + 2 * r))) * 2 / jnp.pi


NONLINEARITIES = {
    "ABRelu": lambda: stax.ABRelu(-0.3, 0.9),
    "Abs": lambda: stax.Abs(),
    "Cos": lambda: stax.Cos(0.8, 1.1, 0.3),
    "Elementwise": lambda: stax.Elementwise(erf, _erf_dual),
    "ElementwiseNumerical": lambda: stax.ElementwiseNumerical(jnp.sin, 25),
    "Erf": lambda: stax.Erf(0.9, 1.2, 0.1),
    "Exp": lambda: stax.Exp(0.5, 0.4),
    "ExpNormalized": lambda: stax.ExpNormalized(),
    "Gabor": lambda: stax.Gabor(),
    "Gaussian": lambda: stax.Gaussian(1.0, -0.5),
    "Gelu": lambda: stax.Gelu(),
    "Hermite": lambda: stax.Hermite(3),
    "LeakyRelu": lambda: stax.LeakyRelu(0.1),
    "Monomial(0)": lambda: stax.Monomial(0),
    "Monomial(2)": lambda: stax.Monomial(2),
    "Monomial(3)": lambda: stax.Monomial(3),
    "Polynomial": lambda: stax.Polynomial([0.3, 1.0, -0.2, 0.1]),
    "Rbf": lambda: stax.Rbf(0.7),
    "RectifiedMonomial(0)": lambda: stax.RectifiedMonomial(0),
    "RectifiedMonomial(1)": lambda: stax.RectifiedMonomial(1),
    "RectifiedMonomial(2)": lambda: stax.RectifiedMonomial(2),
    "Relu": lambda: stax.Relu(),
    "Relu stabilised": lambda: stax.Relu(do_stabilize=True),
    "Sigmoid_like": lambda: stax.Sigmoid_like(),
    "Sign": lambda: stax.Sign(),
    "Sin": lambda: stax.Sin(1.1, 0.9, 0.2),
}


# Where an example meets itself NT's formulas for Sign and, from JAX 0.12 on, for Abs are off by the
# root of rounding, layer after layer: that of Sign by 5e-5 after two. That of rectified monomials
# is 0/0, and their variances are right only along this path.
_OPTIONS = {"Sign": (True,), "Abs": (True,)} | {
    f"RectifiedMonomial({p})": (True, (("diagonal_spatial", True),)) for p in range(3)
}


def _nonlinear(make) -> Callable:
    return lambda: stax.serial(
        stax.Dense(5, 1.2, 0.3), make(), stax.Dense(4, 0.9, 0.1), make(), stax.Dense(1)
    )


def conv(shape, **options):
    return stax.Conv(8, shape, **({"W_std": 1.4, "b_std": 0.1, "padding": "SAME"} | options))


def standard(size, s, **options):
    return stax.Dense(size, parameterization="standard", s=s, **options)


def _residual(width):
    block = stax.serial(stax.Relu(), conv((3, 3)), stax.Relu(), conv((3, 3), b_std=None))
    return stax.serial(
        stax.FanOut(width), stax.parallel(block, *[stax.Identity()] * (width - 1)), stax.FanInSum()
    )


def _wide(shortcut, strides):
    """A block of the wide residual network in Neural Tangents' examples."""
    main = stax.serial(stax.Relu(), conv((3, 3), strides=strides), stax.Relu(), conv((3, 3)))
    return stax.serial(stax.FanOut(2), stax.parallel(main, shortcut), stax.FanInSum())


def attention(**options):
    defaults = {"W_key_std": 1.3, "W_query_std": 1.1, "W_out_std": 0.9, "b_std": 0.2}
    return stax.GlobalSelfAttention(8, 4, 5, 2, **(defaults | options))


def decay(distance):
    return jnp.exp(-distance / 4)


#: Shapes of the weights of one example's graph, for models that take one.
GRAPHS = {"graph": (5, 5)}


ARCHITECTURES = {
    **{
        f"dense {name}": Architecture(_nonlinear(make), (6,), *_OPTIONS.get(name, ()))
        for name, make in NONLINEARITIES.items()
    },
    "linear": Architecture(lambda: stax.serial(stax.Dense(3, 1.1, 0.2), stax.Dense(2)), (4,)),
    "dense standard": Architecture(
        lambda: stax.serial(
            standard(6, (1, 2), W_std=1.2, b_std=0.3),
            stax.Relu(),
            standard(5, (2, 3), W_std=0.9),
            stax.Erf(),
            standard(1, (3, 1), b_std=0.2),
        ),
        (7,),
    ),
    "dense without bias": Architecture(
        lambda: stax.serial(stax.Dense(4), stax.Relu(), stax.Identity(), stax.Dense(4)), (5,)
    ),
    "dense on positions": Architecture(
        lambda: stax.serial(stax.Dense(4, b_std=0.1), stax.Gelu(), stax.Flatten(), stax.Dense(2)),
        (3, 4, 2),
    ),
    "flatten first": Architecture(
        lambda: stax.serial(stax.Flatten(), stax.Dense(4), stax.Relu(), stax.Dense(2)), (3, 4, 2)
    ),
    "flatten between": Architecture(
        lambda: stax.serial(
            conv((3, 2)),
            stax.Relu(),
            stax.Flatten(),
            stax.Dense(5, b_std=0.2),
            stax.Relu(),
            stax.Dense(1),
        ),
        (4, 3, 2),
    ),
    "dense after dense": Architecture(
        lambda: stax.serial(
            stax.Dense(3, 1.2, 0.3), stax.Dense(4, 0.7, 0.1), stax.Relu(), stax.Dense(2, b_std=0.4)
        ),
        (5,),
    ),
    "no last layer": Architecture(lambda: stax.serial(stax.Dense(3), stax.Erf()), (5,)),
    "1-D valid": Architecture(
        lambda: stax.serial(
            conv((3,), padding="VALID"),
            stax.Relu(),
            conv((2,), padding="VALID", strides=(2,)),
            stax.Erf(),
            stax.Flatten(),
            stax.Dense(1),
        ),
        (9, 2),
    ),
    "1-D standard": Architecture(
        lambda: stax.serial(
            conv((3,), parameterization="standard", s=(1, 2)),
            stax.Relu(),
            stax.AvgPool((2,)),
            conv((2,), parameterization="standard", s=(2, 1), b_std=None),
            stax.Relu(),
            stax.GlobalAvgPool(),
            standard(2, (1, 1)),
        ),
        (6, 3),
    ),
    "2-D even and odd filters": Architecture(
        lambda: stax.serial(
            conv((3, 2)),
            stax.Relu(),
            conv((4, 1), b_std=None),
            stax.Gelu(),
            stax.Flatten(),
            stax.Dense(1),
        ),
        (5, 4, 2),
    ),
    "2-D strides": Architecture(
        lambda: stax.serial(
            conv((3, 3), strides=(2, 1)),
            stax.Relu(),
            conv((2, 3), strides=(1, 2)),
            stax.Relu(),
            stax.Flatten(),
            stax.Dense(1),
        ),
        (6, 5, 2),
    ),
    "2-D circular": Architecture(
        lambda: stax.serial(
            conv((3, 2), padding="CIRCULAR"),
            stax.Relu(),
            conv((2, 3), strides=(2, 1), padding="CIRCULAR"),
            stax.Relu(),
            stax.GlobalAvgPool(),
            stax.Dense(3),
            stax.Erf(),
            stax.Dense(1),
        ),
        (5, 4, 2),
    ),
    "3-D": Architecture(
        lambda: stax.serial(
            conv((2, 3, 2), strides=(1, 2, 1)),
            stax.Relu(),
            stax.AvgPool((2, 1, 2), padding="SAME"),
            conv((2, 2, 2), padding="VALID"),
            stax.Abs(),
            stax.Flatten(),
            stax.Dense(1),
        ),
        (3, 5, 3, 2),
    ),
    "average pool": Architecture(
        lambda: stax.serial(
            conv((3, 3)),
            stax.Relu(),
            stax.AvgPool((2, 2), (2, 2)),
            conv((3, 3)),
            stax.Relu(),
            stax.GlobalAvgPool(),
            stax.Dense(1),
        ),
        (6, 4, 3),
    ),
    "average pool, window over stride": Architecture(
        lambda: stax.serial(
            conv((3, 3)),
            stax.Relu(),
            stax.AvgPool((3, 2), (2, 1)),
            conv((2, 2)),
            stax.Relu(),
            stax.AvgPool((2, 2), (1, 1)),
            conv((1, 2)),
            stax.Relu(),
            stax.Flatten(),
            stax.Dense(1),
        ),
        (7, 5, 2),
    ),
    "average pool, stride over window": Architecture(
        lambda: stax.serial(
            conv((3,)),
            stax.Relu(),
            stax.AvgPool((2,), (3,)),
            conv((2,)),
            stax.Relu(),
            stax.GlobalSumPool(),
            stax.Dense(1),
        ),
        (10, 2),
    ),
    "average pool, SAME": Architecture(
        lambda: stax.serial(
            conv((3, 3)),
            stax.Relu(),
            stax.AvgPool((3, 2), (2, 2), padding="SAME"),
            conv((2, 2)),
            stax.Relu(),
            stax.GlobalAvgPool(),
            stax.Dense(1),
        ),
        (5, 4, 2),
    ),
    "average pool, normalised edges": Architecture(
        lambda: stax.serial(
            conv((3, 2)),
            stax.Relu(),
            stax.AvgPool((3, 3), padding="SAME", normalize_edges=True),
            conv((2, 2)),
            stax.Relu(),
            stax.GlobalAvgPool(),
            stax.Dense(1),
        ),
        (4, 5, 2),
    ),
    "average pool, circular": Architecture(
        lambda: stax.serial(
            conv((2, 3)),
            stax.Relu(),
            stax.AvgPool((3, 2), (2, 1), padding="CIRCULAR"),
            conv((2, 2)),
            stax.Relu(),
            stax.AvgPool((2, 2), padding="CIRCULAR"),
            conv((1, 2)),
            stax.Relu(),
            stax.Flatten(),
            stax.Dense(1),
        ),
        (5, 4, 2),
    ),
    "sum pool": Architecture(
        lambda: stax.serial(
            conv((3, 3)),
            stax.Relu(),
            stax.SumPool((2, 3), (2, 2), padding="SAME"),
            conv((2, 2)),
            stax.Gelu(),
            stax.GlobalSumPool(),
            stax.Dense(1),
        ),
        (5, 5, 2),
    ),
    "resized": Architecture(  # two convolutions before the second: Neural Tangents reverses axes
        lambda: stax.serial(
            conv((3, 3)),
            stax.Relu(),
            stax.ImageResize((-1, 4, 3, -1), "linear"),
            conv((2, 2)),
            stax.Relu(),
            stax.ImageResize((-1, 3, 2, -1), "linear"),
            stax.Dense(3, b_std=0.2),
            stax.Gelu(),
            stax.Flatten(),
            stax.Dense(1),
        ),
        (6, 5, 2),
    ),
    "resized, larger": Architecture(
        lambda: stax.serial(
            conv((2,)),
            stax.Relu(),
            stax.ImageResize((-1, 7, -1), "linear"),
            conv((2,)),
            stax.Erf(),
            stax.ImageResize((-1, 3, -1), "nearest"),
            stax.Dense(3),
            stax.Relu(),
            stax.GlobalAvgPool(),
            stax.Dense(1),
        ),
        (5, 2),
    ),
    "resized, not antialiased": Architecture(
        lambda: stax.serial(
            conv((3, 3)),
            stax.ImageResize((-1, 3, -1, -1), "linear", antialias=False),
            stax.Relu(),
            stax.Flatten(),
            stax.Dense(1),
        ),
        (5, 4, 2),
    ),
    "normalised exponentials": Architecture(
        lambda: stax.serial(
            conv((3, 3)),
            stax.ExpNormalized(2.0),
            stax.ImageResize((-1, 3, 3, -1), "linear"),
            conv((2, 2)),
            stax.ExpNormalized(1.5),
            stax.ImageResize((-1, 2, 2, -1), "linear"),
            stax.Flatten(),
            stax.Dense(1),
        ),
        (6, 6, 2),
    ),
    "pool before the nonlinearity": Architecture(
        lambda: stax.serial(
            conv((3,)), stax.AvgPool((2,), (2,)), stax.Relu(), stax.Flatten(), stax.Dense(1)
        ),
        (8, 2),
    ),
    "nonlinearity after a global pool": Architecture(
        lambda: stax.serial(
            conv((3, 3)),
            stax.Relu(),
            stax.GlobalAvgPool(),
            stax.Dense(4, b_std=0.3),
            stax.Erf(),
            stax.Dense(1),
        ),
        (5, 4, 2),
    ),
    "dropout": Architecture(
        lambda: stax.serial(
            stax.Dense(4, 1.2, 0.3),
            stax.Relu(),
            stax.Dropout(0.7),
            stax.Dense(5),
            stax.Erf(),
            stax.Dropout(0.5),
            stax.Dense(1),
        ),
        (5,),
        across=True,
    ),
    "dropout, test mode": Architecture(
        lambda: stax.serial(
            stax.Dense(4), stax.Relu(), stax.Dropout(0.7, mode="test"), stax.Dense(5)
        ),
        (5,),
    ),
    "dropout and overlapping pools": Architecture(
        lambda: stax.serial(
            conv((3,)),
            stax.Relu(),
            stax.Dropout(0.7),
            stax.AvgPool((3,), padding="SAME"),
            conv((2,), strides=(2,)),
            stax.Gelu(),
            stax.Dropout(0.5),
            stax.SumPool((2,)),
            conv((2,)),
            stax.Relu(),
            stax.Flatten(),
            stax.Dense(1),
        ),
        (9, 3),
        across=True,
    ),
    "layer norm": Architecture(
        lambda: stax.serial(
            stax.Dense(5, 1.2, 0.3),
            stax.LayerNorm(),
            stax.Relu(),
            stax.Dense(4, 0.9, 0.1),
            stax.LayerNorm(eps=0.1),
            stax.Erf(),
            stax.Dense(1),
        ),
        (6,),
    ),
    "layer norm last": Architecture(
        lambda: stax.serial(stax.Dense(5), stax.Gelu(), stax.Dense(4), stax.LayerNorm((1,))), (6,)
    ),
    "layer norm on channels": Architecture(
        lambda: stax.serial(
            conv((3, 2)),
            stax.LayerNorm((-1,)),
            stax.Relu(),
            stax.AvgPool((2, 2)),
            conv((2, 2)),
            stax.LayerNorm(-1, eps=0.03),
            stax.AvgPool((2, 1)),
            stax.Relu(),
            stax.Flatten(),
            stax.Dense(1),
        ),
        (5, 4, 2),
    ),
    "layer norm on positions": Architecture(
        lambda: stax.serial(
            conv((3, 2)),
            stax.LayerNorm((1, 2, 3)),
            stax.Relu(),
            stax.AvgPool((3, 2), (1, 2)),
            conv((2, 2), strides=(2, 1)),
            stax.LayerNorm((-1, 1), eps=0.2),
            stax.Gelu(),
            stax.GlobalAvgPool(),
            stax.Dense(1),
        ),
        (6, 5, 2),
    ),
    "layer norm and dropout": Architecture(
        lambda: stax.serial(
            conv((3,)),
            stax.Relu(),
            stax.Dropout(0.7),
            conv((2,)),
            stax.LayerNorm((1, 2)),
            stax.Erf(),
            stax.Dropout(0.6),
            conv((2,)),
            stax.LayerNorm(),
            stax.Relu(),
            stax.Flatten(),
            stax.Dense(1),
        ),
        (5, 2),
        across=True,
    ),
    "residual": Architecture(
        lambda: stax.serial(
            conv((3, 3)),
            _residual(2),
            _residual(3),
            stax.Relu(),
            stax.GlobalAvgPool(),
            stax.Dense(1),
        ),
        (4, 3, 2),
    ),
    "parallel dense": Architecture(
        lambda: stax.serial(
            stax.FanOut(2),
            stax.parallel(
                stax.Dense(4, 1.2, 0.1),
                stax.serial(stax.Dense(3), stax.Relu(), stax.Dropout(0.8), stax.Dense(4)),
            ),
            stax.FanInSum(),
            stax.Erf(),
            stax.Dense(1),
        ),
        (5,),
        across=True,
    ),
    "wide residual": Architecture(
        lambda: stax.serial(
            conv((3, 3)),
            _wide(stax.Identity(), (1, 1)),
            _wide(conv((3, 3), strides=(2, 2)), (2, 2)),
            stax.AvgPool((2, 2)),
            stax.Flatten(),
            stax.Dense(1),
        ),
        (4, 3, 2),
    ),
    "Myrtle, layer norm": Architecture(
        lambda: stax.serial(
            *[conv((3, 3)), stax.LayerNorm(), stax.Relu(), stax.AvgPool((2, 2), (2, 2))] * 2,
            stax.GlobalAvgPool(),
            stax.Dense(1),
        ),
        (4, 5, 2),
    ),
    "upsampled": Architecture(
        lambda: stax.serial(
            conv((2, 1)),
            stax.Relu(),
            stax.ConvTranspose(4, (3, 2), (1, 2), "SAME", W_std=1.3, b_std=0.1),
            stax.Relu(),
            stax.ImageResize((-1, 3, 3, -1), "linear"),
            conv((2, 2)),
            stax.Gelu(),
            stax.Flatten(),
            stax.Dense(1),
        ),
        (2, 3, 2),
    ),
    "transposed, circular": Architecture(
        lambda: stax.serial(
            stax.ConvTranspose(4, (4,), (2,), "CIRCULAR", parameterization="standard", s=(1, 2)),
            stax.Relu(),
            stax.AvgPool((2,)),
            stax.ConvTranspose(4, (3,), None, "VALID", 0.9, 0.2),
            stax.Erf(),
            stax.GlobalAvgPool(),
            stax.Dense(1),
        ),
        (3, 2),
    ),
    "locally connected": Architecture(
        lambda: stax.serial(
            stax.ConvLocal(4, (2, 2), None, "SAME", 1.3, 0.1),
            stax.Relu(),
            stax.ConvLocal(4, (2, 1), (1, 2), b_std=0.2, parameterization="standard", s=(2, 1)),
            stax.Relu(),
            stax.Flatten(),
            stax.Dense(1),
        ),
        (3, 4, 2),
    ),
    "locally connected, pooled": Architecture(  # behind a convolution: axes in reverse
        lambda: stax.serial(
            conv((2, 1)),
            stax.Relu(),
            stax.ConvLocal(4, (2, 1), None, "CIRCULAR", 1.3, 0.1),
            stax.AvgPool((2, 2), padding="SAME"),
            stax.Relu(),
            stax.ConvLocal(4, (1, 2), b_std=0.1),
            stax.Relu(),
            stax.GlobalAvgPool(),
            stax.Dense(1),
        ),
        (2, 3, 2),
    ),
    "locally connected, behind linear layers": Architecture(
        lambda: stax.serial(
            stax.Dense(4, 1.1, 0.3),
            stax.ConvLocal(4, (2, 1), None, "SAME", 1.3, 0.1),
            stax.Relu(),
            conv((2, 2)),
            stax.ConvLocal(4, (1, 2), None, "SAME", 0.9, 0.2),
            stax.Relu(),
            stax.Flatten(),
            stax.Dense(1),
        ),
        (3, 2, 2),
    ),
    "selected positions": Architecture(
        lambda: stax.serial(
            conv((2, 2)),
            stax.Relu(),
            stax.AvgPool((2, 1)),
            stax.Index(stax.Slice[:, ::-1, 1:]),
            conv((2, 1)),
            stax.Relu(),
            stax.DotGeneral(rhs=(1.0, -0.5), dimension_numbers=(((1,), (0,)), ((), ()))),
            stax.DotGeneral(lhs=0.7),
            stax.Dense(3, b_std=0.1),
            stax.Erf(),
            stax.Index(stax.Slice[:, -1]),
            stax.Dense(1),
        ),
        (3, 4, 2),
    ),
    "product": Architecture(
        lambda: stax.serial(
            stax.FanOut(3),
            stax.parallel(
                stax.serial(conv((2,)), stax.Relu()),
                stax.Dense(8, 1.1, 0.2),
                stax.serial(stax.Dense(8, b_std=0.1), stax.Erf(), stax.Dropout(0.8)),
            ),
            stax.FanInProd(),
            stax.AvgPool((2,)),
            conv((2,)),
            stax.Relu(),
            stax.Flatten(),
            stax.Dense(1),
        ),
        (4, 2),
        across=True,
    ),
    "kernels alone": Architecture(
        lambda: stax.serial(
            stax.Dense(3, 1.2, 0.1), stax.Elementwise(None, _erf_dual), stax.Dense(1)
        ),
        (4,),
    ),
    "concatenated channels": Architecture(
        lambda: stax.serial(
            conv((3, 3)),
            stax.FanOut(2),
            stax.parallel(
                stax.serial(stax.Relu(), stax.Dense(3)), stax.serial(stax.Erf(), conv((3, 3)))
            ),
            stax.FanInConcat(-1),
            stax.AvgPool((2, 2)),
            stax.Dense(3, b_std=0.2),
            stax.Relu(),
            stax.GlobalAvgPool(),
            standard(2, (1, 1)),
        ),
        (4, 3, 2),
    ),
    "concatenated positions": Architecture(
        lambda: stax.serial(
            conv((3, 2)),
            stax.FanOut(2),
            stax.parallel(
                stax.serial(stax.Relu(), stax.Dense(8)),
                stax.serial(stax.Erf(), conv((2, 1), strides=(2, 1))),
            ),
            stax.FanInConcat(1),
            stax.Relu(),
            stax.AvgPool((3, 2)),
            conv((2, 2)),
            stax.Relu(),
            stax.Flatten(),
            stax.Dense(1),
        ),
        (4, 3, 2),
    ),
    "repeat": Architecture(
        lambda: stax.serial(
            stax.Dense(5),
            stax.repeat(stax.serial(stax.Relu(), stax.Dense(5, 1.3, 0.1)), 3),
            stax.Erf(),
            stax.Dense(1),
        ),
        (5,),
    ),
    "nested serial": Architecture(
        lambda: stax.serial(
            stax.serial(conv((3,)), stax.serial(stax.Relu(), stax.AvgPool((2,), (2,)))),
            stax.serial(conv((3,)), stax.Sin()),
            stax.serial(stax.GlobalAvgPool(), stax.serial(stax.Dense(1))),
        ),
        (6, 2),
    ),
    "graph": Architecture(
        lambda: stax.serial(
            stax.Dense(4, 1.2, 0.1),
            stax.Relu(),
            stax.Aggregate(),
            stax.Dense(4, b_std=0.2),
            stax.Gelu(),
            stax.Aggregate(),
            stax.GlobalAvgPool(),
            stax.Dense(1),
        ),
        (5, 3),
    ),
    "attention": Architecture(
        lambda: stax.serial(
            conv((3,)),
            stax.Relu(),
            attention(pos_emb_type="CONCAT", pos_emb_decay_fn=decay, val_pos_emb=True),
            stax.Gelu(),
            attention(attention_mechanism="ABS", pos_emb_type="SUM", W_pos_emb_std=0.7),
            stax.GlobalAvgPool(),
            stax.Dense(1),
        ),
        (5, 3),
    ),
}
