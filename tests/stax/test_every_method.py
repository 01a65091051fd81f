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
    "LeverageScore": ns.LeverageScore(512),
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
#: Errors of weighted samples vary by key: of a deep net at a width of 256 from 0.16 to 0.45.
KEYS = {"LeverageScore": 4}


@pytest.mark.parametrize("case", others_slow(CASES, *KEPT))
def test_both_kernels(case, record_property):
    """The root mean square over keys."""
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
    errors = []
    for key in jax.random.split(jax.random.key(0), KEYS.get(method, 1)):
        z = ns.feature_map(model, x, METHODS[method], key=key, **given)(x, **given)
        for found, right in zip((z.nngp, z.ntk), exact, strict=True):
            missed = np.linalg.norm(found[:3] @ found[3:].T - right)
            errors.append(missed / np.linalg.norm(right))
    found = np.sqrt(np.mean(np.reshape(errors, (-1, 2)) ** 2, axis=0))
    record_property("nngp, ntk", [float(error) for error in found])
    assert (found < 0.4).all()
