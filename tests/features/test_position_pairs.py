"""Covariances of all pairs of positions as matrices, against loops over pairs."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk_sketch.features import HiddenFeatures
from ntk_sketch.features._position_pairs import (
    pair_bands,
    pair_matrices,
    pair_offsets,
    through_weights,
)
from ntk_sketch.features._variances import input_variances

pytestmark = pytest.mark.usefixtures("float64")

CASES = {
    "one axis": ((5, 3), (0,), ((0, 2, -1),)),
    "first of two": ((3, 4, 2), (0,), ((0, 1), (0, -1, 2))),
    "outer two of three": ((2, 3, 2, 2), (0, 2), ((0, 1), (0, 1, -1), (0,))),
}


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_mixed_covariances(case, exact):
    """`x_S = Σ_s W[S, s] x_s` along some axes: covariances are those of the mixed vectors.

    Products of features are exact ones here, since the features are the inputs.
    """
    (*space, c), axes, out = case
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *space, c))
    size = int(np.prod([space[a] for a in axes]))
    weights = rng.normal(size=(2, size, size))
    needed = pair_offsets(tuple(space), axes, out, exact=exact)
    assert min(needed[0]) == 0

    @jax.jit
    def through(x, weights):
        variances = input_variances(x, needed, True)
        features = HiddenFeatures((x / c**0.5,), (), variances, c)
        matrices = pair_matrices(features, axes, out, exact=exact)
        return pair_bands(through_weights(weights, matrices), tuple(space), axes, out)

    found = through(x, weights)
    assert found.offsets == out
    assert found.ntk == ()
    same = np.asarray(found.same)

    moved = np.moveaxis(x, [1 + a for a in axes], range(1, 1 + len(axes)))
    mixed = np.matmul(weights, moved.reshape(2, size, -1)).reshape(moved.shape)
    mixed = np.moveaxis(mixed, range(1, 1 + len(axes)), [1 + a for a in axes])
    for place, at in itertools.product(np.ndindex(*space), np.ndindex(*map(len, out))):
        other = tuple(p + out[a][i] for a, (p, i) in enumerate(zip(place, at, strict=True)))
        inside = all(0 <= o < s for o, s in zip(other, space, strict=True))
        for n in range(2):
            wanted = mixed[(n, *place)] @ mixed[(n, *other)] / c if inside else 0.0
            np.testing.assert_allclose(same[(n, *at, *place)], wanted, atol=1e-12)


def test_equal_positions_are_exact_where_pairs_are_estimated():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 3)))
    variances = input_variances(x, ((0,),), True)
    features = HiddenFeatures((jnp.zeros((2, 4, 1)),), (), variances, 3)
    found = pair_matrices(features, (0,), ((0,),), exact=False).same
    wanted = jnp.mean(x**2, -1)[:, :, None] * jnp.eye(4)[None]
    np.testing.assert_allclose(found, wanted)
