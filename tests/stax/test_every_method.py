"""Every kind of layer under the data-independent methods: bounds of the errors of both kernels.

Under `Exact` all rows of the table are equal to the kernel (`tests/methods/test_exact.py`), and
`Nystroem` has the same expansions; nonlinearities have their tables in `tests/methods`. Rows that
take long are run by hand (`-m slow`).
"""

import jax
import numpy as np
import pytest
from architectures import ARCHITECTURES, GRAPHS
from marks import others_slow

import ntk_sketch as ns

METHODS = {
    "LeverageScore": ns.LeverageScore(256),
    "PolySketch": ns.PolySketch(4, 256),
    "Gegenbauer": ns.Gegenbauer(4, 256),
}

#: Between them: FanInProd, Index, DotGeneral, Aggregate, GlobalSelfAttention, ExpNormalized,
#: ConvLocal, ConvTranspose, ImageResize, branches and what joins them, repeated layers, pools (also
#: of sums), and everything before a `Flatten`.
ROWS = (
    "product",
    "selected positions",
    "graph",
    "attention",
    "normalised exponentials",
    "locally connected, pooled",
    "upsampled",
    "transposed, circular",
    "wide residual",
    "sum pool",
    "concatenated channels",
    "concatenated positions",
    "repeat",
)
#: Samples are those of a function.
SERIES = [name for name in METHODS if name != "LeverageScore"]
CASES = {f"{row}-{method}": (row, method) for row in ROWS for method in METHODS}
CASES |= {f"kernels alone-{method}": ("kernels alone", method) for method in SERIES}
KEPT = ("graph-LeverageScore",)


@pytest.mark.parametrize("case", others_slow(CASES, *KEPT))
def test_both_kernels(case, record_property):
    """At a width of 256: of one key, or the root mean square over four where keys differ much."""
    row, method = CASES[case]
    architecture = ARCHITECTURES[row]
    model, options = architecture.model(), dict(architecture.nt_options)
    x = np.random.default_rng(1).normal(size=(6, *architecture.shape)).astype(np.float32)
    given = {}
    if row in GRAPHS:
        graphs = np.random.default_rng(2).uniform(size=(6, *GRAPHS[row])).astype(np.float32)
        given, options = {"pattern": graphs}, {"pattern": (graphs[:3], graphs[3:])}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # of NT
        exact = model[2](x[:3], x[3:], ("nngp", "ntk"), **options)
    squares = []
    for seed in range(4 if method == "LeverageScore" else 1):
        key = jax.random.key(seed)
        z = ns.feature_map(model, x, METHODS[method], key=key, **given)(x, **given)
        close = (f[:3] @ f[3:].T for f in (z.nngp, z.ntk))
        pairs = zip(close, exact, strict=True)
        squares.append([np.sum((k - right) ** 2) / np.sum(right**2) for k, right in pairs])
    for name, error in zip(("nngp", "ntk"), np.sqrt(np.mean(squares, axis=0)), strict=True):
        record_property(name, float(error))
        assert error < 0.4
