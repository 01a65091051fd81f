"""The choice of landmarks: usable positions, each once, by every distribution."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from entering import entering
from jax import numpy as jnp
from marks import others_slow
from scipy import stats

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.methods import _survey
from ntk_sketch.methods._sampling import (
    SAMPLINGS,
    ridge_leverage_scores,
    sample_positions,
    sampled,
    weighted_sample,
)
from ntk_sketch.methods._survey import kernel_of, surveyed

pytestmark = pytest.mark.usefixtures("float64")

over_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


# ------------------------------------------------------------------ usable positions


def dense(bias):
    return stax.serial(stax.Dense(4, 1.1, bias), stax.Relu(), stax.Dense(1))


def convolutional(bias):
    conv = stax.Conv(4, (3, 2), b_std=bias, padding="SAME")
    return stax.serial(conv, stax.Relu(), stax.GlobalAvgPool())


def patches(x):
    """Windows of 3 x 2 padded with zeros as "SAME", one by one: (n * positions, 6 c)."""
    x = np.pad(x, ((0, 0), (1, 1), (0, 1), (0, 0)))
    _, rows, columns, _ = x.shape
    return np.array(
        [
            image[i : i + 3, j : j + 2].ravel()
            for image in x
            for i in range(rows - 2)
            for j in range(columns - 1)
        ]
    )


def usable(model, x):
    return surveyed(*entering(model, x)[0]).usable


@over_dtypes
@pytest.mark.parametrize("bias", [None, 0.3])
def test_examples_count_once(dtype, bias):
    x = np.random.default_rng(0).normal(size=(9, 3)).astype(dtype)
    x[4] = x[1]
    x[7] = x[1]
    x[5] = 2 * x[0]  # the same direction, but not the same point
    x[6] = -x[0]
    x[2] = x[8] = 0.0
    found = usable(dense(bias), x)
    zeros = [] if bias is None else [2]
    assert list(found) == sorted([0, 1, 3, 5, 6, *zeros])
    assert np.array_equal(found, usable(dense(bias), x))


@over_dtypes
@pytest.mark.parametrize("bias", [None, 0.3])
def test_positions_count_once(dtype, bias):
    """Repeated and constant images, and an image of zeros, under a convolution."""
    x = np.random.default_rng(0).normal(size=(5, 4, 5, 2)).astype(dtype)
    x[1] = x[0]
    x[2] = 0.7
    x[3] = 0.0
    x[4, :, 2:] = 0.0
    found = usable(convolutional(bias), x)
    all_patches = patches(x)
    if bias is None:
        distinct = np.unique(all_patches[np.any(all_patches != 0, axis=1)], axis=0)
    else:
        distinct = np.unique(all_patches, axis=0)
    assert len(found) == len(distinct)
    assert np.array_equal(np.unique(all_patches[found], axis=0), distinct)
    assert np.array_equal(found, np.sort(found))
    assert np.array_equal(found, usable(convolutional(bias), x))


@over_dtypes
def test_rounding_is_no_difference(dtype):
    """What differs by a few eps is one position; by 1 %, two."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 6))
    eps = float(np.finfo(dtype).eps)
    same = x * (1 + 2 * eps * rng.uniform(-1, 1, x.shape))
    other = x * (1 + 0.01 * rng.uniform(-1, 1, x.shape))
    found = usable(dense(0.3), np.concatenate([x, same, other]).astype(dtype))
    assert np.array_equal(found, [*range(40), *range(80, 120)])


# ------------------------------------------------------------------ weighted sampling


def test_weighted_sample_is_sequential():
    """The probability that i, then j comes is w_i / Σw · w_j / (Σw - w_i)."""
    weights = np.array([4.0, 2.0, 1.0, 0.5, 0.0])
    items, draws = np.array([7, 3, 5, 1, 9]), 20_000
    rng = np.random.default_rng(0)
    counts = np.zeros((5, 5))
    for _ in range(draws):
        first, second = weighted_sample(items, weights, 2, rng)
        counts[list(items).index(first), list(items).index(second)] += 1
    for i in range(5):
        for j in range(5):
            left = weights.sum() - weights[i]
            p = 0.0 if i == j else weights[i] / weights.sum() * weights[j] / left
            error = abs(counts[i, j] / draws - p)
            assert error <= 4 * np.sqrt(p * (1 - p) / draws)


def test_weighted_sample_of_all():
    """Weights of 0 come last, and every item once."""
    rng = np.random.default_rng(0)
    chosen = weighted_sample(np.arange(6), np.array([0, 1, 0, 2, 3, 0.0]), 6, rng)
    assert set(chosen[:3]) == {1, 3, 4}
    assert set(chosen) == set(range(6))


# ------------------------------------------------------------------ ridge leverage scores


def cluster_and_outliers():
    """300 points close together and 6 far away from them and from each other."""
    rng = np.random.default_rng(0)
    x = np.concatenate([0.1 * rng.normal(size=(300, 3)), 8 * rng.normal(size=(6, 3))])
    square = np.sum((x[:, None] - x) ** 2, axis=-1)
    return np.exp(-square / 2), np.arange(306) >= 300


def approximate_scores(kernel, count, seed):
    rng = np.random.default_rng(seed)
    return ridge_leverage_scores(lambda r, c: kernel[np.ix_(r, c)], np.diag(kernel), count, rng)


def naive_scores(kernel, ridge):
    """`(K (K + λI)⁻¹)_ii`."""
    return np.diag(kernel @ np.linalg.inv(kernel + ridge * np.eye(len(kernel))))


@pytest.mark.parametrize("count", [24, 60])
def test_outliers_have_large_scores(count, record_property):
    kernel, outlier = cluster_and_outliers()
    # The λ of the definition, from all of the kernel: what rank `count / (4 log count)` leaves.
    rank = int(np.ceil(count / (4 * np.log(count))))
    eigenvalues = np.linalg.eigvalsh(kernel)[::-1]
    exact = naive_scores(kernel, eigenvalues[rank:].sum() / rank)
    assert exact[outlier].min() > 5 * exact[~outlier].max()  # the case is a clear one
    correlations = []
    for seed in range(5):
        scores = approximate_scores(kernel, count, seed)
        assert np.all((scores >= 0) & (scores <= 1))
        assert scores[outlier].min() > scores[~outlier].max()
        correlations.append(stats.spearmanr(scores, exact).statistic)
    record_property("rank correlation", float(min(correlations)))
    # Of 306 independent pairs it exceeds 0.23 once in 16,000.
    assert min(correlations) > 4 / np.sqrt(len(kernel))


def test_scores_from_half_of_the_points():
    """Below twice as many points as landmarks the recursion is one step, from a uniform half."""
    kernel, _ = cluster_and_outliers()
    kernel, count = kernel[-39:, -39:], 20
    scores = approximate_scores(kernel, count, 5)
    half = np.random.default_rng(5).permutation(39)[:20]
    # b_i of K = B Bᵀ: the score is b_iᵀ (Σ_j b_j b_jᵀ + λI)⁻¹ b_i, j over the half.
    b = np.linalg.cholesky(kernel + 1e-13 * np.eye(39))
    rank = int(np.ceil(count / (4 * np.log(count))))
    ridge = np.linalg.eigvalsh(kernel[np.ix_(half, half)])[::-1][rank:].sum() / rank
    second = sum(np.outer(b[j], b[j]) for j in half) + ridge * np.eye(39)
    naive = [b[i] @ np.linalg.solve(second, b[i]) for i in range(39)]
    # The difference of two numbers of the kernel's size, over λ.
    np.testing.assert_allclose(scores, np.minimum(naive, 1), rtol=1e-10, atol=1e-12 / ridge)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_few_landmarks_are_found_from_few_points(count):
    """Where chance picks next to none, the ridge does not become 0 and with it every score 1."""
    x = np.random.default_rng(0).normal(size=(1024, 3))
    kernel = np.exp(-np.sum((x[:, None] - x) ** 2, axis=-1) / 2)
    columns = []

    def entries(rows, chosen):
        columns.append(len(chosen))
        return kernel[np.ix_(rows, chosen)]

    for seed in range(40):
        rng = np.random.default_rng(seed)
        scores = ridge_leverage_scores(entries, np.diag(kernel), count, rng)
        assert 0 < scores.sum() < 100
    assert max(columns) < 100


def test_scores_where_the_points_are_few():
    """No more points than landmarks: all are wanted alike."""
    kernel, _ = cluster_and_outliers()
    scores = approximate_scores(kernel[-20:, -20:], 20, 0)
    assert np.array_equal(scores, np.ones(20))


def test_scores_of_a_kernel_of_low_rank():
    """Copies of four points: finite scores, in [0, 1]."""
    x = np.repeat(np.eye(4), 30, axis=0)
    scores = approximate_scores(x @ x.T, 8, 0)
    assert np.all((scores >= 0) & (scores <= 1))


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_kernel_that_is_zero(sampling):
    """Features of zeros, and no division by them."""
    model = stax.serial(stax.Dense(1), stax.ABRelu(0.0, 0.0), stax.Dense(1))
    x = np.random.default_rng(0).normal(size=(8, 3))
    z = ns.feature_map(model, x, ns.Nystroem(4, sampling=sampling), key=jax.random.key(0))(x)
    assert not np.any(z.nngp)
    assert not np.any(z.ntk)


def test_rounding_hardly_parts_a_pair():
    """Cells have borders, which some of 500 pairs lie across, but hardly any in both layouts."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 3))
    copies = x * (1 + 1e-10 * rng.normal(size=x.shape))
    assert 500 <= len(usable(dense(0.3), np.concatenate([x, copies]))) <= 502


@pytest.mark.parametrize("rows_of_a_block", [8, 40])
def test_kernel_in_blocks(rows_of_a_block, monkeypatch):
    """Any rows and columns: more of them than fit a block, or with the whole kernel at hand."""
    monkeypatch.setattr(_survey, "_ROWS", rows_of_a_block)
    model = stax.serial(stax.Dense(4, 1.1, 0.2), stax.Relu(), stax.Dense(1))
    x = np.random.default_rng(0).normal(size=(40, 3))
    [(dual, features)] = entering(model, x)
    pool = np.random.default_rng(1).permutation(40)[:30]
    survey = surveyed(dual, features, whole=True)
    assert (survey.kernel is None) == (rows_of_a_block < 40)
    kernel = kernel_of(dual, features, survey, pool, 7)
    rows, columns = np.arange(3, 25), np.arange(29, 10, -1)
    exact = np.array(stax.serial(stax.Dense(4, 1.1, 0.2), stax.Relu())[2](x, None, "nngp"))
    exact = exact[np.ix_(pool[rows], pool[columns])]
    np.testing.assert_allclose(kernel(rows, columns), exact, rtol=1e-10)


# ------------------------------------------------------------------ the three distributions


@pytest.mark.parametrize("whole", [False, True])
def test_a_position_with_itself_has_its_exact_variance(whole):
    """Features that lost energy know less of it."""
    x = np.random.default_rng(0).normal(size=(9, 5))
    [(dual, features)] = entering(dense(0.2), x)
    lossy = features.map(lambda block: 0.5 * block)
    survey, unchanged = (surveyed(dual, f, whole=whole) for f in (lossy, features))
    everywhere = np.arange(len(survey.usable))
    kernel = kernel_of(dual, lossy, survey, survey.usable, 4)(everywhere, everywhere)
    np.testing.assert_allclose(np.diag(kernel), survey.diagonal[survey.usable], rtol=1e-12)
    exact = kernel_of(dual, features, unchanged, survey.usable, 4)
    exact = exact(everywhere, everywhere)
    np.testing.assert_allclose(np.diag(exact), np.diag(kernel), rtol=1e-12)
    assert not np.any(np.isclose(exact, kernel, rtol=1e-3) & ~np.eye(len(kernel), dtype=bool))


@functools.cache
def sample():
    x = np.random.default_rng(0).normal(size=(150, 4))
    x[:75] *= 0.1  # small values of the kernel
    return entering(dense(0.1), x)[0]


def landmarks(sampling, seed, count=20):
    dual, features = sample()
    survey = surveyed(dual, features)
    survey = dataclasses.replace(survey, usable=survey.usable[::-1])
    rng = np.random.default_rng(seed)
    return sample_positions(dual, features, survey, count, sampling, rng)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_landmarks_are_positions_once(sampling):
    chosen = landmarks(sampling, 0)
    assert len(set(chosen)) == 20
    assert set(chosen) <= set(range(150))
    assert np.array_equal(chosen, landmarks(sampling, 0))
    assert not np.array_equal(chosen, landmarks(sampling, 1))


@pytest.mark.parametrize("sampling", others_slow(SAMPLINGS, "leverage", "uniform"))
def test_probabilities(sampling):
    """How often one landmark is among the first 75 examples, whose kernel values are small."""
    dual, features = sample()
    q = jnp.asarray(features.variances.same).ravel()
    diagonal = np.asarray(dual(q, q, q)[0])
    draws = np.concatenate([landmarks(sampling, seed, count=1) for seed in range(400)])
    share = np.mean(draws < 75)
    expected = diagonal[:75].sum() / diagonal.sum()
    if sampling == "uniform":
        expected = 0.5
    error = 4 * np.sqrt(expected * (1 - expected) / len(draws))
    if sampling == "leverage":  # rarer too, as their scores are smaller
        assert share < 0.5 - error
    else:
        assert abs(share - expected) < error


def test_samplings_differ():
    """In a map too: its features, not its size."""
    x = np.random.default_rng(1).normal(size=(40, 4))
    features = {
        name: ns.feature_map(
            dense(0.1), x, ns.Nystroem(8, sampling=name, calibrate=False), key=jax.random.key(0)
        )(x).nngp
        for name in SAMPLINGS
    }
    values = [np.asarray(z @ z.T) for z in features.values()]
    for i in range(3):
        assert values[i].shape == (40, 40)
        assert not np.allclose(values[i], values[i - 1])


# ------------------------------------------------------------------ pivots


def pivots(kernel, count, seed):
    """Those of any kernel, whatever blocks it is asked for."""

    def kernel_of(pool, columns):
        return lambda r, c: kernel[np.ix_(pool[r], pool[c])]

    rng = np.random.default_rng(seed)
    return sampled(np.arange(len(kernel)), np.diag(kernel), kernel_of, count, "pivoted", 1e-16, rng)


def test_pivots_find_outliers():
    """Once some landmarks explain the cluster, what is left is outside of it."""
    kernel, outlier = cluster_and_outliers()
    for seed in range(5):
        assert set(np.flatnonzero(outlier)) <= set(pivots(kernel, 24, seed))


def test_pivots_of_a_kernel_of_low_rank():
    """One of each kind first; then others, each once, to have as many as were asked for."""
    kind = np.repeat(np.arange(4), 30)
    x = np.eye(4)[kind]
    for seed in range(5):
        chosen = pivots(x @ x.T, 8, seed)
        assert set(kind[chosen[:4]]) == {0, 1, 2, 3}
        assert len(set(chosen)) == 8
