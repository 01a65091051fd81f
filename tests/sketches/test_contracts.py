"""Contracts of every sketch: transformations, dtypes, linearity, moments, errors."""

import functools
import itertools
import math

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax.test_util import check_grads
from marks import also_by_default, others_slow
from sketch_table import LINEAR, SKETCHES, Pairs

KEYS = 4096


def arguments(row, n=3, dtype=None):
    """Unit vectors for each argument; the last is between the others, one is sparse."""
    rng = np.random.default_rng(3)
    drawn = []
    for d in row.dimensions:
        x = rng.standard_normal((n, d))
        x[1, 2:] = 0
        x[-1] += 2 * x[0]
        drawn.append(jnp.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True), dtype))
    return drawn


def close(a, b, factor=10):
    """Equal to 10 eps of the largest entry, which sums in another order may differ by."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.dtype == b.dtype
    assert np.abs(a - b).max() <= factor * np.finfo(a.dtype).eps * max(np.abs(b).max(), 1)


@functools.cache
def moments(name):
    """Mean, variance and their standard errors of `<S x, S x'>` over keys, and the truth."""
    row = SKETCHES[name]
    x = arguments(row)

    def kernel(key):
        z = row.apply(row.make(key), *x)
        return z @ z.T

    draws = np.asarray(jax.jit(jax.vmap(kernel))(jax.random.split(jax.random.key(5), KEYS)))
    pairs = [
        Pairs(a @ a.T, np.outer(*[np.sum(a**2, -1)] * 2), a**2 @ (a**2).T)
        for a in map(np.asarray, x)
    ]
    variance = draws.var(0)
    fourth = np.mean((draws - draws.mean(0)) ** 4, axis=0)
    return {
        "mean": draws.mean(0),
        "mean_error": np.sqrt(variance / KEYS),
        "variance": variance,
        "variance_error": np.sqrt(np.maximum(fourth - variance**2, 0) / KEYS),
        "truth": math.prod(p.inner for p in pairs) ** row.degree,
        "bound": row.variance(*pairs),
    }


#: The same sketches at other sizes.
MORE = [name for name in SKETCHES if ", " in name and name != "TensorSRHT, more pairs than rows"]
ROWS = others_slow(SKETCHES, *set(SKETCHES).difference(MORE))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ROWS)
class TestMoments:
    ROUNDING = 1e-12  # of float64, where a sketch is exact

    def test_unbiased(self, name):
        found = moments(name)
        error = np.abs(found["mean"] - found["truth"])
        assert (error <= 4 * found["mean_error"] + self.ROUNDING).all()

    def test_variance(self, name):
        """As published, or below."""
        found = moments(name)
        excess = found["variance"] - found["bound"]
        assert (excess <= 4 * found["variance_error"] + self.ROUNDING).all()
        if SKETCHES[name].exact:
            assert (-excess <= 4 * found["variance_error"] + self.ROUNDING).all()


@pytest.mark.parametrize(
    "name",
    also_by_default(SKETCHES, "CountSketch", "TensorSRHT", slow=MORE),
)
def test_transformations(name):
    """jit, vmap over examples and over keys, one vector, NumPy inputs, and the same key again."""
    row, x = SKETCHES[name], arguments(SKETCHES[name])
    keys = jax.random.split(jax.random.key(0), 2)
    sketch = row.make(keys[0])
    z = row.apply(sketch, *x)
    assert z.shape == (3, sketch.m)
    assert jnp.isrealobj(z)
    close(row.apply(sketch, *map(np.asarray, x)), z)

    @jax.jit
    def variants(sketch, *x):
        return (
            row.apply(sketch, *x),
            jax.vmap(lambda *v: row.apply(sketch, *v))(*x),
            row.apply(sketch, *(v[0] for v in x))[None],
            row.apply(sketch, *(v[None, :, None] for v in x))[0, :, 0],
            *jax.vmap(lambda key: row.apply(row.make(key), *x))(keys),
        )

    *same, one, leading, again, other = variants(sketch, *x)
    for result in (*same, leading, again):
        close(result, z)
    close(one, z[:1])
    assert jnp.any(other != z)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ROWS)
def test_dtypes_and_gradients(name):
    """The result follows the inputs; gradients are those of finite differences."""
    row = SKETCHES[name]
    dtypes = (jnp.bfloat16, jnp.float32, jnp.float64)
    for drawn, dtype in itertools.product(dtypes, repeat=2):
        x = arguments(row, dtype=dtype)
        result = jax.eval_shape(
            lambda *x, drawn=drawn: row.apply(row.make(jax.random.key(0), drawn), *x), *x
        )
        assert result.dtype == dtype
    sketch = row.make(jax.random.key(0))
    check_grads(lambda *v: row.apply(sketch, *v), arguments(row), order=1, modes=["rev"])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", LINEAR)
def test_the_dense_matrix(name):
    """Linear in each argument: the matrix of all products of unit vectors, times `x ⊗ y ⊗ ...`."""
    row = SKETCHES[name]
    sketch, x = row.make(jax.random.key(0)), arguments(row)
    products = itertools.product(*(range(d) for d in row.dimensions))
    columns = np.array(list(products)).T
    units = [jnp.eye(d)[of] for d, of in zip(row.dimensions, columns, strict=True)]
    matrix = row.apply(sketch, *units)  # (products, m)
    tensors = functools.reduce(lambda a, b: jnp.einsum("ni,nj->nij", a, b).reshape(3, -1), x)
    close(row.apply(sketch, *x), tensors @ matrix, factor=100)


@pytest.mark.parametrize("name", ROWS)
def test_errors(name):
    row = SKETCHES[name]
    sketch, x = row.make(jax.random.key(0)), [np.asarray(v) for v in arguments(row)]

    def refuses(error, message, change):
        with pytest.raises(error, match=message):
            row.apply(sketch, *map(change, x))

    refuses(ValueError, "drawn for", lambda v: v[:, :-1])
    for dtype in (np.complex64, np.int32):
        refuses(TypeError, "real floating point", lambda v, dtype=dtype: v.astype(dtype))
    with pytest.raises(TypeError, match="sketches are real"):
        row.make(jax.random.key(0), jnp.complex64)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_nan_in_nan_out(name, bad):
    """Values are not looked at; the other examples do not notice."""
    row = SKETCHES[name]
    sketch, x = row.make(jax.random.key(0)), arguments(row)
    spoilt = [x[0].at[1, 0].set(bad), *x[1:]]
    found, clean = (np.asarray(row.apply(sketch, *v)) for v in (spoilt, x))
    assert not np.isfinite(found[1]).all()
    close(np.delete(found, 1, axis=0), np.delete(clean, 1, axis=0))


@pytest.mark.parametrize("name", ROWS)
def test_a_seed_is_no_key(name):
    with pytest.raises(TypeError, match=r"for a seed write jax\.random\.key\(7\)"):
        SKETCHES[name].make(7, np.float32)
    with pytest.raises(TypeError, match="must be one key, got keys of shape"):
        SKETCHES[name].make(jax.random.split(jax.random.key(0)), np.float32)
