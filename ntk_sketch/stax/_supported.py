"""The table of layers and methods, `stax.supported`."""

import warnings
from collections.abc import Mapping
from typing import Any

from .. import methods
from .._nt import nt_stax
from ..methods import Method

#: In the order of `docs/layers.md`.
_METHODS: tuple[type[Method], ...] = (
    methods.Nystroem,
    methods.RandomFeatures,
    methods.LeverageScore,
    methods.PolySketch,
    methods.Gegenbauer,
    methods.Exact,
)


class Supported(dict[str, dict[str, str]]):
    """`table[layer][method]`: "yes", "no" or a condition.

    Printed, it is the table of `docs/layers.md`: layers of one family with equal entries share a
    row.
    """

    families: dict[str, int]

    def __str__(self) -> str:
        rows: dict[tuple, list[str]] = {}
        for name, cells in self.items():
            rows.setdefault((self.families[name], *cells.values()), []).append(name)
        names = [kind.__name__ for kind in _METHODS]
        lines = [f"| layer | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
        for (_, *cells), layers in rows.items():
            lines.append(f"| {', '.join(map(_quoted, layers))} | {' | '.join(cells)} |")
        return "\n".join(lines)


def _quoted(name: str) -> str:
    name, space, note = name.partition(" ")
    return f"`{name}`{space}{note}"


def table(namespace: Mapping[str, Any]) -> Supported:
    """The table of one layer of each constructor in `namespace`, from its rule's `support`."""
    found = Supported()
    found.families = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of Neural Tangents about these examples
        for number, family in enumerate(_FAMILIES):
            for name, (args, kwargs) in family.items():
                rule = namespace[name.partition(" ")[0]](*args, **kwargs).rule
                found[name] = {kind.__name__: rule.support(kind) for kind in _METHODS}
                found.families[name] = number
    return found


def _of(*args: Any, **kwargs: Any) -> tuple[tuple, dict[str, Any]]:
    return args, kwargs


def _covariance(c, q, r):
    return c


def _identity(x):
    return x


def _one(c, q, r):
    return 1.0 + 0 * c


_LAYER = nt_stax.Identity()

#: An example of each layer's arguments.
_FAMILIES: tuple[dict[str, tuple[tuple, dict[str, Any]]], ...] = (
    {
        "serial": _of(_LAYER),
        "parallel": _of(_LAYER),
        "repeat": _of(_LAYER, 1),
    },
    {
        "FanOut": _of(1),
        "FanInSum": _of(),
        "FanInConcat (channels or a spatial axis)": _of(),
        "FanInProd": _of(),
    },
    {
        "Identity": _of(),
        "Dense": _of(1),
        "Conv": _of(1, (1,)),
        "ConvTranspose": _of(1, (1,)),
        "ConvLocal": _of(1, (1,)),
        "Flatten": _of(),
        "Dropout": _of(0.5),
        "LayerNorm": _of(),
    },
    {
        "AvgPool": _of((1,)),
        "SumPool": _of((1,)),
        "GlobalAvgPool": _of(),
        "GlobalSumPool": _of(),
        "ImageResize (linear, nearest)": _of((-1, 1, -1), "linear"),
        "Index": _of((slice(None),)),
        "DotGeneral (examples stay first, channels last)": _of(rhs=1.0),
    },
    {"Aggregate": _of(), "GlobalSelfAttention": _of(1, 1, 1, 1)},
    {
        "ABRelu": _of(-1.0, 1.0),
        "Abs": _of(),
        "Cos": _of(),
        "Elementwise (given a function)": _of(_identity, _covariance, _one),
        "ElementwiseNumerical": _of(_identity, 1, _identity),
        "Erf": _of(),
        "Exp": _of(),
        "Gabor": _of(),
        "Gaussian": _of(),
        "Gelu": _of(),
        "Hermite (its formula assumes inputs of unit variance)": _of(1),
        "LeakyRelu": _of(0.1),
        "Monomial": _of(1),
        "Polynomial": _of((0.0, 1.0)),
        "Rbf": _of(),
        "RectifiedMonomial": _of(1),
        "Relu": _of(),
        "Sigmoid_like": _of(),
        "Sign": _of(),
        "Sin": _of(),
        "ExpNormalized": _of(),
        "Elementwise (given kernels alone)": _of(None, _covariance, _one),
    },
)
