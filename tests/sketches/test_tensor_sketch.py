"""`CountSketch` and `TensorSketch` from their definitions, their exact moments, sparse inputs."""

import itertools

import jax
import numpy as np
import pytest
import scipy.sparse
from jax import numpy as jnp
from jax.experimental.sparse import BCOO

from ntk_sketch.sketches import CountSketch, TensorSketch, _sparse
from ntk_sketch.sketches._tensor_sketch import tensor_sketch_variance

KEY = jax.random.key(0)


def vectors(*shape):
    return np.random.default_rng(3).standard_normal(shape)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("d", "m"), [(7, 3), (3, 7), (16, 16), (12, 4), (1, 1), (5, 1)])
def test_a_count_sketch_adds_signed_coordinates_in_buckets(d, m):
    sketch, x = CountSketch(d, m, key=KEY), vectors(d)
    buckets, signs = np.asarray(sketch.buckets), np.asarray(sketch.signs)
    expected = np.zeros(m)
    for i in range(d):
        expected[buckets[i]] += signs[i] * x[i]
    np.testing.assert_allclose(sketch(x), expected, atol=1e-14)
    assert set(signs) <= {-1.0, 1.0}
    assert np.bincount(buckets, minlength=m).max() <= -(-d // m)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("d", "m", "degree"), [(4, 3, 2), (3, 8, 2), (5, 4, 3), (2, 1, 3)])
def test_a_tensor_sketch_is_a_count_sketch_of_the_tensor_product(d, m, degree):
    sketch, x = TensorSketch(d, m, degree, key=KEY), vectors(degree, d)
    buckets = [np.asarray(count.buckets) for count in sketch.counts]
    signs = [np.asarray(count.signs) for count in sketch.counts]
    for inputs in (x, [x[0]] * degree):
        expected = np.zeros(m)
        for multi in itertools.product(range(d), repeat=degree):
            value, bucket = 1.0, 0
            for l, i in enumerate(multi):
                value *= signs[l][i] * inputs[l][i]
                bucket += buckets[l][i]
            expected[bucket % m] += value
        np.testing.assert_allclose(sketch(*inputs), expected, atol=1e-13)
    np.testing.assert_allclose(sketch(x[0]), sketch(*[x[0]] * degree), atol=1e-14)


@pytest.mark.usefixtures("float64")
def test_powers_are_sketches_of_the_first_factors():
    sketch, x = TensorSketch(5, 6, 4, key=KEY), vectors(2, 3, 5)
    powers = sketch.powers(x)
    assert powers.shape == (2, 3, 5, 6)
    np.testing.assert_allclose(powers[..., 0, :], np.broadcast_to(np.eye(6)[0], (2, 3, 6)))
    np.testing.assert_allclose(powers[..., 1, :], sketch.counts[0](x), atol=1e-14)
    np.testing.assert_allclose(powers[..., -1, :], sketch(x), atol=1e-13)
    compiled = jax.jit(lambda sketch, x: sketch.powers(x))(sketch, x)
    np.testing.assert_allclose(compiled, powers, atol=1e-13)
    first = jnp.fft.ifft(jnp.fft.fft(sketch.counts[0](x)) * jnp.fft.fft(sketch.counts[1](x)))
    np.testing.assert_allclose(powers[..., 2, :], first.real, atol=1e-13)


def all_count_sketches(x, m):
    """The sketch of x by every way to deal and every choice of signs, equally likely."""
    places = -(-len(x) // m) * m
    rows = []
    for dealt in itertools.permutations(range(places), len(x)):
        for signs in itertools.product((-1, 1), repeat=len(x)):
            row = np.zeros(m)
            for place, sign, value in zip(dealt, signs, x, strict=True):
                row[place % m] += sign * value
            rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize(("d", "m", "degree"), [(3, 2, 2), (2, 2, 3), (3, 3, 2), (3, 1, 2)])
def test_moments_over_all_sketches(d, m, degree):
    """Mean, variance and covariance of powers, by enumeration: no sampling error."""
    x, y = vectors(2, d)
    count_x, count_y = all_count_sketches(x, m), all_count_sketches(y, m)
    circulant = (np.arange(m)[:, None] - np.arange(m)) % m
    power_x, power_y = count_x, count_y  # (ways, m), one factor after another
    t, errors = x @ y, []
    for j in range(1, degree + 1):
        if j > 1:
            power_x, power_y = (
                np.einsum("ai,bki->abk", power, count[:, circulant]).reshape(-1, m)
                for power, count in ((power_x, count_x), (power_y, count_y))
            )
        products = np.sum(power_x * power_y, axis=1)
        assert products.mean() == pytest.approx(t**j)
        pair = [np.array([value]) for value in (t, (x @ x) * (y @ y), x**2 @ y**2)]
        (variance,) = tensor_sketch_variance(d, m, j, *pair)
        assert products.var() == pytest.approx(variance)
        errors.append((products - t**j, variance))
    for (j, (error, variance)), (k, (later, _)) in itertools.combinations(enumerate(errors), 2):
        together = np.repeat(error, len(later) // len(error)) * later
        assert together.mean() == pytest.approx(t ** (k - j) * variance)


def test_the_variance_is_at_most_the_published_bound():
    x, y = vectors(2, 40, 12)
    x[:10], y[5:10] = np.eye(12)[:10] + 1e-3 * x[:10], x[5:10]
    y[20:] = x[20:]
    y[30:, 3:], x[30:, 3:] = 0, 0
    t, norms, overlap = (x * y).sum(1), (x**2).sum(1) * (y**2).sum(1), (x**2 * y**2).sum(1)
    for m, degree in itertools.product((1, 2, 3, 4, 7, 12, 13, 64), range(1, 12)):
        variance = tensor_sketch_variance(12, m, degree, t, norms, overlap)
        assert (variance <= (2 + 3**degree) / m * norms**degree).all()
        assert (variance >= -1e-12 * norms**degree).all()


def test_half_precision():
    x = jnp.asarray(vectors(2, 5), jnp.bfloat16)
    for sketch in (CountSketch(5, 4, key=KEY), TensorSketch(5, 4, 2, key=KEY)):
        assert sketch(x).dtype == jnp.bfloat16
        np.testing.assert_allclose(sketch(x), sketch(x.astype(jnp.float32)), rtol=0.02, atol=0.02)


SPARSE = [
    lambda d: CountSketch(d, 4, key=KEY),
    lambda d: CountSketch(d, 20, key=KEY),
    lambda d: TensorSketch(d, 5, 3, key=KEY),
]


def near(found, expected):
    """Rounding of Fourier transforms is relative to the largest number, wherever it is."""
    largest = max(float(np.abs(expected).max()), 1.0)
    np.testing.assert_allclose(found, expected, atol=4 * np.finfo(expected.dtype).eps * largest)


@pytest.mark.parametrize("make", SPARSE)
@pytest.mark.usefixtures("float64")
class TestSparse:
    def matrix(self, dtype=np.float64):
        x = vectors(6, 9) * (np.random.default_rng(1).random((6, 9)) < 0.3)
        x[2] = 0
        return x.astype(dtype)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("kind", ["csr_array", "csr_matrix", "csc_array", "coo_matrix"])
    def test_scipy(self, make, kind, dtype):
        sketch, x = make(9), self.matrix(dtype)
        z = sketch(getattr(scipy.sparse, kind)(x))
        assert z.dtype == dtype
        near(z, sketch(x))

    def test_scipy_unsorted_with_duplicates(self, make):
        sketch = make(9)
        parts = ([1.0, 2.0, 3.0, 4.0, 5.0], [8, 1, 8, 0, 0], [0, 3, 3, 5])
        x = scipy.sparse.csr_array(parts, shape=(3, 9))
        dense = np.zeros((3, 9))
        dense[0, 8], dense[0, 1], dense[2, 0] = 4, 2, 9
        np.testing.assert_allclose(sketch(x), sketch(dense), atol=1e-12)
        np.testing.assert_array_equal(x.indices, parts[1])  # as it was
        empty = scipy.sparse.csr_array((2, 9))
        np.testing.assert_array_equal(sketch(empty), np.zeros((2, sketch.m)))

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_bcoo(self, make, dtype):
        sketch, x = make(9), self.matrix(dtype)
        padded = BCOO.fromdense(x, nse=40)
        for z in (sketch(padded), jax.jit(lambda x: sketch(x))(padded)):
            assert z.dtype == dtype
            near(z, sketch(x))
        one = BCOO.fromdense(x[1])
        near(sketch(one), sketch(x[1]))
        stack = x.reshape(2, 3, 9)
        near(sketch(BCOO.fromdense(stack)), sketch(stack))
        rows = BCOO.fromdense(x, n_batch=1)
        near(jax.vmap(sketch)(rows), sketch(x))

    def test_bcoo_unsorted_with_duplicates(self, make):
        sketch = make(9)
        indices = jnp.array([[2, 0], [0, 8], [0, 1], [2, 0], [0, 8]])
        x = BCOO((jnp.arange(1.0, 6.0), indices), shape=(3, 9))
        dense = np.zeros((3, 9))
        dense[2, 0], dense[0, 8], dense[0, 1] = 5, 7, 3
        np.testing.assert_allclose(sketch(x), sketch(dense), atol=1e-12)

    def test_gradient(self, make):
        sketch, x = make(9), self.matrix()
        sparse = BCOO.fromdense(x)

        def loss(data):
            return jnp.sum(sketch(BCOO((data, sparse.indices), shape=x.shape)) ** 2)

        dense = jax.grad(lambda x: jnp.sum(sketch(x) ** 2))(x)
        expected = dense[tuple(sparse.indices.T)]
        np.testing.assert_allclose(jax.grad(loss)(sparse.data), expected, atol=1e-10)

    def test_traced_sketches(self, make):
        """Sketches that are traced take sparse inputs, too."""
        sketch, x = make(9), self.matrix()
        keys = jax.random.split(KEY, 3)
        for sparse in (BCOO.fromdense(x), scipy.sparse.csr_array(x)):
            of_keys = jax.vmap(lambda key, x=sparse: TensorSketch(9, 4, 2, key=key)(x))(keys)
            expected = TensorSketch(9, 4, 2, key=keys[1])(x)
            np.testing.assert_allclose(of_keys[1], expected, atol=1e-12)
            compiled = jax.jit(lambda sketch, x=sparse: sketch(x))(sketch)
            np.testing.assert_allclose(compiled, sketch(x), atol=1e-12)

    def test_indices_beyond_32_bits(self, make, monkeypatch):
        """A result too large for one index takes an index for each axis."""
        sketch, x = make(9), self.matrix().reshape(2, 3, 9)
        jax.clear_caches()
        monkeypatch.setattr(_sparse, "_LARGEST_INDEX", 6 * sketch.m - 1)
        program = jax.make_jaxpr(sketch)(BCOO.fromdense(x, nse=40))
        z = sketch(BCOO.fromdense(x, nse=40))
        jax.clear_caches()
        assert f"[2,3,{sketch.m}] = scatter-add" in str(program)
        np.testing.assert_allclose(z, sketch(x), atol=1e-12)

    def test_programs(self, make):
        """Matrices with about as many non-zeros share a program: eight of them from n to 2n."""
        sizes = []
        for entries in range(1000, 2001):
            x = scipy.sparse.csr_array((np.ones(entries), np.arange(entries), [0, entries]))
            sizes.append(_sparse.checked_inputs(x, entries).data.size)
            assert entries <= sizes[-1] <= 1.125 * entries
        assert len(set(sizes)) <= 9
        sketch = make(1100)
        for entries in (1025, 1088):
            x = scipy.sparse.random_array((1, 1100), density=entries / 1100, rng=0)
            np.testing.assert_allclose(sketch(x), sketch(x.toarray()), atol=1e-12)


@pytest.mark.parametrize("make", SPARSE)
class TestErrors:
    @pytest.mark.parametrize("convert", [scipy.sparse.csr_array, BCOO.fromdense])
    def test_entries(self, make, convert):
        x = np.eye(9, dtype=np.float32)
        spoilt = np.asarray(make(9)(convert(np.where(x == 1, [[np.nan]] + [[1]] * 8, x))))
        assert np.isnan(spoilt[0]).any()
        assert np.isfinite(spoilt[1:]).all()
        with pytest.raises(ValueError, match=r"x has shape \(9, 9\).*drawn for \(..., 8\)"):
            make(8)(convert(x))
        for dtype in (np.complex64, np.int32):
            with pytest.raises(TypeError, match=r"x.data has dtype.*real floating point"):
                make(9)(convert(x.astype(dtype)))

    def test_layouts(self, make):
        x = np.eye(9, dtype=np.float32)
        for layout in ({"n_batch": 1}, {"n_dense": 1}):
            with pytest.raises(ValueError, match=r"all axes must be sparse.*update_layout"):
                make(9)(BCOO.fromdense(x, **layout))
        with pytest.raises(ValueError, match="must be a sparse matrix of rows"):
            make(9)(scipy.sparse.coo_array(x[0]))


def test_sizes():
    for d, m in ((0, 3), (3, 0), (3, -1)):
        with pytest.raises(ValueError, match="positive integer"):
            CountSketch(d, m, key=KEY)
        with pytest.raises(ValueError, match="positive integer"):
            TensorSketch(d, m, 2, key=KEY)
    for degree, error in ((0, ValueError), (-1, ValueError), (2.0, TypeError), (True, TypeError)):
        with pytest.raises(error, match="degree must be a positive integer"):
            TensorSketch(3, 4, degree, key=KEY)
    sketch, x = TensorSketch(3, 4, 3, key=KEY), np.ones(3, np.float32)
    for inputs in ((), (x, x), (x,) * 4):
        with pytest.raises(TypeError, match=f"1 or 3 inputs.*got {len(inputs)}"):
            sketch(*inputs)
    with pytest.raises(ValueError, match="x_2 has shape"):
        sketch(x, x[:2], x)
