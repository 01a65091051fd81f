"""One factor for each regulariser gives what the whole spectrum gives."""

import jax
import numpy as np
import pytest
from marks import others_slow

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.solvers import GCV, HoldOut, LeaveOneOut, accumulate, solve
from ntk_sketch.solvers import _examples as examples
from ntk_sketch.solvers._dual_equations import DualEquations
from ntk_sketch.solvers._dual_factors import DualFactors
from ntk_sketch.solvers._dual_spectrum import DualSpectrum
from ntk_sketch.solvers._factors import _largest_eigenvalue
from ntk_sketch.solvers._gram_state import GramState
from ntk_sketch.solvers._normal_equations import NormalEquations
from ntk_sketch.solvers._primal_factors import PrimalFactors
from ntk_sketch.solvers._primal_spectrum import PrimalSpectrum

PATH = [1e-3, 1e-2, 0.1]


@pytest.fixture
def factored(monkeypatch):
    """Few features are factored too."""

    def set_to(value: bool):
        for name in ("FACTORED_ONE", "FACTORED_PATH"):
            monkeypatch.setattr(examples, name, 0 if value else 10**9)

    return set_to


@pytest.fixture
def spectra(monkeypatch):
    """Which eigendecompositions were made."""
    made = []

    def count(kind):
        init = kind.__init__

        def counting(self, equations):
            made.append(kind)
            init(self, equations)

        monkeypatch.setattr(kind, "__init__", counting)

    count(PrimalSpectrum)
    count(DualSpectrum)
    return made


def problem(landmarks: bool, n=300):  # of 80 features
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    y = np.stack([np.sin(x.sum(1)), x[:, 0] * x[:, 1] + 0.3], axis=1)
    model = stax.serial(stax.Dense(1, b_std=0.3), stax.Relu(), stax.Dense(1))
    if landmarks:
        feature_map = ns.feature_map(model, x[:60], ns.Nystroem(40), key=jax.random.key(0))
    else:
        feature_map = ns.feature_map(model, x, ns.RandomFeatures(40), key=jax.random.key(0))
    return feature_map, x, y


@pytest.mark.parametrize("select", ["gcv", "validation", "refit", None])
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("landmarks", others_slow([False, True], True))
def test_scores_weights_and_conditions_are_those_of_the_spectrum(
    factored, spectra, select, fit_intercept, landmarks
):
    feature_map, x, y = problem(landmarks)
    held = HoldOut(0.2, key=jax.random.key(0))
    chosen = {"validation": held, "refit": held}.get(select, select)
    options = {"select": chosen, "fit_intercept": fit_intercept, "refit": select == "refit"}
    found = []
    for value in (False, True):
        factored(value)
        spectra.clear()
        found.append(ns.ridge(feature_map, x, y, diag_reg=PATH, **options))
        assert bool(spectra) is not value
    a, b = found
    if select is not None:
        np.testing.assert_allclose(b.scores, a.scores, rtol=1e-5)
        assert b.diag_reg == a.diag_reg
    largest = np.abs(a.path_weights).max()
    np.testing.assert_allclose(b.path_weights, a.path_weights, atol=1e-6 * largest)
    for fit, other in zip(a.fits, b.fits, strict=True):
        assert fit.rank == other.rank
        assert fit.condition == pytest.approx(other.condition, rel=0.05)  # by Lanczos


@pytest.mark.parametrize("select", ["gcv", "sample", None])
@pytest.mark.parametrize(("fit_intercept", "weighted"), [(False, False), (True, True)])
def test_so_they_are_with_fewer_examples_than_features(
    factored, spectra, select, fit_intercept, weighted
):
    """Landmarks among the examples, and some of weight 0: rows of what is left out."""
    feature_map, x, y = problem(True, n=78)
    weights = np.random.default_rng(4).uniform(0.5, 2, size=len(x)) if weighted else None
    if weighted:
        weights[::20] = 0
    if select == "sample":
        key = jax.random.key(1)
        select = LeaveOneOut(x, y, sample=20, key=key, sample_weight=weights)
    options = {"select": select, "fit_intercept": fit_intercept, "sample_weight": weights}
    found = []
    for value in (False, True):
        factored(value)
        spectra.clear()
        found.append(ns.ridge(feature_map, x, y, diag_reg=PATH, **options))
        assert spectra == ([] if value else [DualSpectrum])
    a, b = found
    if select is not None:
        np.testing.assert_allclose(b.scores, a.scores, rtol=1e-9)
    largest = np.abs(a.path_weights).max()
    np.testing.assert_allclose(b.path_weights, a.path_weights, atol=1e-6 * largest)
    for fit, other in zip(a.fits, b.fits, strict=True):
        assert fit.rank == other.rank
        assert fit.condition == pytest.approx(other.condition, rel=0.05)  # by Lanczos
        assert other.residual < 1e-12


@pytest.mark.parametrize("fit_intercept", [False, True])
def test_a_kernel_that_drowns_in_rounding_is_left_to_the_spectrum(fit_intercept):
    """Twelve examples of rank 3, in float64, by either form and in either order of values."""
    rng = np.random.default_rng(1)
    z = rng.normal(size=(12, 3)) @ rng.normal(size=(3, 20))
    y = z[:, :1] + 0.1 * rng.normal(size=(12, 1))
    one, large, small = DualEquations.of(z, y, fit_intercept), 10.0, 1e-16
    factors = DualFactors(one)
    assert factors.stands_out(large)
    assert not factors.stands_out(small)
    ((_, _, rows),) = factors.example_rows(None, np.array([7, 2]))
    alone = factors.left_out(rows, y[[7, 2]], large)
    spectrum = DualSpectrum(DualEquations.of(z, y, fit_intercept))
    assert factors.rank(small) == spectrum.rank(small) < spectrum.rank(large)
    assert factors.deficiency(small) == spectrum.deficiency(small)
    np.testing.assert_allclose(factors.residual_sums(small), spectrum.residual_sums(small))
    for found in (alone, factors.left_out(rows, y[[7, 2]], large)):
        ((_, _, own),) = spectrum.example_rows(None, np.array([7, 2]))
        for a, b in zip(found, spectrum.left_out(own, y[[7, 2]], large), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10)


@pytest.mark.parametrize("loss", ["squared", "zero_one"])
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("landmarks", [False, True])
def test_a_sample_left_out_needs_no_spectrum(factored, spectra, loss, fit_intercept, landmarks):
    feature_map, x, y = problem(landmarks)
    select = LeaveOneOut(x, y, loss=loss, sample=50, key=jax.random.key(1))
    found = []
    for value in (False, True):
        factored(value)
        spectra.clear()
        options = {"select": select, "fit_intercept": fit_intercept}
        found.append(ns.ridge(feature_map, x, y, diag_reg=PATH, **options))
        assert bool(spectra) is not value
    a, b = found
    np.testing.assert_allclose(b.scores, a.scores, rtol=1e-5)
    assert b.diag_reg == a.diag_reg


def test_groups_left_out_of_a_sample_take_the_spectrum(factored, spectra):
    factored(True)
    feature_map, x, y = problem(False)
    groups = np.arange(len(x)) // 2
    select = LeaveOneOut(x, y, groups, sample=50, key=jax.random.key(1))
    ns.ridge(feature_map, x, y, diag_reg=PATH, select=select)
    assert spectra


def test_leave_one_out_and_no_regulariser_take_the_spectrum(factored, spectra):
    factored(True)
    feature_map, x, y = problem(False)
    ns.ridge(feature_map, x, y, diag_reg=PATH, select="loo")
    assert spectra
    spectra.clear()
    ns.ridge(feature_map, x, y, diag_reg=0)
    assert spectra


def test_a_selector_of_ones_own_is_given_the_spectrum(factored, spectra):
    class Smallest:
        def scores(self, decomposition, penalties, features):
            return np.array([decomposition.values.sum() + p for p in penalties])

    factored(True)
    feature_map, x, y = problem(False)
    assert ns.ridge(feature_map, x, y, diag_reg=PATH, select=Smallest()).diag_reg == PATH[0]
    assert spectra


@pytest.mark.parametrize("fit_intercept", [False, True])
def test_what_drowns_in_rounding_is_left_to_the_spectrum(fit_intercept):
    """Twenty features of rank 5, in float32: smallest regularisers do not stand out."""
    rng = np.random.default_rng(1)
    z = (rng.normal(size=(400, 5)) @ rng.normal(size=(5, 20))).astype(np.float32)
    y = z[:, :1] + 0.1 * rng.normal(size=(400, 1)).astype(np.float32)
    state = GramState.init(20, 1).update(z, y)
    factors = PrimalFactors(NormalEquations.of(state, fit_intercept))
    spectrum = PrimalSpectrum(NormalEquations.of(state, fit_intercept))
    for penalty in (10.0, 1e-9):  # the second one creates the spectrum, in the memory of ZᵀZ
        rows = factors.with_intercept((z[:3] - factors.feature_mean).astype(np.float64))
        assert factors.rank(penalty) == spectrum.rank(penalty)
        assert factors.deficiency(penalty) == spectrum.deficiency(penalty)
        np.testing.assert_allclose(
            factors.residual_sums(penalty), spectrum.residual_sums(penalty), rtol=1e-5
        )
        for a, b in zip(
            factors.left_out(rows, y[:3], penalty),
            spectrum.left_out(spectrum.rotated(rows), y[:3], penalty),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, atol=1e-6)
    assert spectrum.rank(1e-9) < 20
    assert factors.rank(10.0) == 20
    np.testing.assert_allclose(
        factors.left_out(rows, y[:3], 10.0)[1],
        spectrum.left_out(spectrum.rotated(rows), y[:3], 10.0)[1],
        atol=1e-8,
    )


@pytest.mark.parametrize("times", [1.5, 4.0])
def test_a_regulariser_has_to_stand_out_of_negative_eigenvalues(times):
    """As for the spectrum: by twice their size, which is that of the rounding."""
    rng = np.random.default_rng(1)
    z = (rng.normal(size=(400, 5)) @ rng.normal(size=(5, 20))).astype(np.float32)
    state = GramState.init(20, 1).update(z, z[:, :1])
    lowest = float(np.linalg.eigvalsh(state.gram.to_host())[0])
    assert lowest < 0
    factors = PrimalFactors(NormalEquations.of(state))
    assert factors.stands_out(-times * lowest) == (times > 2)
    assert factors.rank(-times * lowest) == PrimalSpectrum(NormalEquations.of(state)).rank(
        -times * lowest
    )


@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("kind", [PrimalSpectrum, PrimalFactors, DualSpectrum, DualFactors])
@pytest.mark.parametrize("weighted", [False, True])
def test_residuals_of_the_normal_equations(kind, fit_intercept, weighted):
    """Of any weights, against the equations written out; next to nothing of the solution."""
    rng = np.random.default_rng(2)
    dual = kind in (DualSpectrum, DualFactors)
    n, p = (8, 12) if dual else (60, 12)
    z = rng.normal(size=(n, p)).astype(np.float32)
    y = 100 * rng.normal(size=(n, 2)) + 5
    weights = rng.uniform(0.5, 2, size=n) if weighted else np.ones(n)
    if dual:
        equations = DualEquations.of(z, y, fit_intercept, weights if weighted else None)
    else:
        state = GramState.init(p, 2, weighted=weighted)
        state = state.update(z, y, sample_weight=weights if weighted else None)
        equations = NormalEquations.of(state, fit_intercept)
    found, penalties = kind(equations), [0.1, 3.0]
    solved = [found.weights(penalty) for penalty in penalties]
    others = [w + rng.normal(size=w.shape) for w in solved]
    centre = np.eye(n) - fit_intercept * weights / weights.sum()
    root = np.sqrt(weights)[:, None]
    z, y = root * (centre @ z.astype(np.float64)), root * (centre @ y)
    expected = [
        np.linalg.norm(z.T @ (z @ w - y) + penalty * w) / np.linalg.norm(z.T @ y)
        for penalty, w in zip(penalties, others, strict=True)
    ]
    np.testing.assert_allclose(found.residuals(penalties, others), expected, rtol=1e-6)
    assert max(found.residuals(penalties, solved)) < 1e-13


def test_zero_features_have_zero_weights(factored, features_type):
    factored(True)
    feature_map = lambda x: features_type(None, 0 * x)  # noqa: E731
    x = np.ones((30, 4), np.float32)
    with pytest.warns(RuntimeWarning, match="4 of 4 eigenvalues"):
        solution = ns.ridge(feature_map, x, x[:, 0] - 1, diag_reg=0.1)
    np.testing.assert_array_equal(solution.weights, 0)
    assert solution.residual == 0


def test_which_decomposition_a_size_takes(monkeypatch):
    """A single regulariser from 1,024 features, a path from 4,097."""
    sizes = []
    for name in ("PrimalSpectrum", "PrimalFactors"):
        monkeypatch.setattr(examples, name, lambda equations, name=name: name)

    class Equations:
        @staticmethod
        def of(state, fit_intercept):
            sizes.append(state)
            return type("E", (), {"gram": np.empty((state, 0))})

    monkeypatch.setattr(examples, "NormalEquations", Equations)
    keys = [(1023, 1, False), (1024, 1, False), (4096, 3, False)]
    keys += [(4097, 3, False), (4097, 3, True), (9000, 1, True)]
    taken = {key: examples.decomposed(key[0], False, key[2], key[1]) for key in keys}
    assert [key for key, value in taken.items() if value == "PrimalFactors"] == [
        (1024, 1, False),
        (4097, 3, False),
    ]


# ---- paths that go on ------------------------------------------------------------------------


@pytest.mark.parametrize("select", ["gcv", "loo", "validation"])
@pytest.mark.parametrize("path", [[10.0, 30.0], [1e-9, 1e-8], [1e-8, 1e-9]])
def test_a_path_goes_on_until_its_best_is_inside(select, path):
    feature_map, x, y = problem(False)
    y = y + 0.3 * np.random.default_rng(3).normal(size=y.shape)
    chosen = HoldOut(0.3, key=jax.random.key(0)) if select == "validation" else select
    solution = ns.ridge(
        feature_map, x, y, diag_reg=path, select=chosen, fit_intercept=True, extend_path=True
    )
    values = [fit.diag_reg for fit in solution.fits]
    assert len(values) == len(solution.scores) == len(solution.path_weights) > 2
    assert len(values) <= 10
    assert sorted(values, reverse=path[0] > path[1]) == values
    ratios = np.array(values[1:]) / values[:-1]
    np.testing.assert_allclose(ratios, path[1] / path[0])
    if len(values) < 10:
        assert min(values) < solution.diag_reg < max(values)
    whole = ns.ridge(feature_map, x, y, diag_reg=values, select=chosen, fit_intercept=True)
    np.testing.assert_allclose(solution.scores, whole.scores, rtol=1e-6)
    assert whole.diag_reg == solution.diag_reg


def test_a_path_that_data_do_not_end_is_said_to_be_one():
    """Targets without noise: the smaller, the better."""
    feature_map, x, _ = problem(False)
    y = np.asarray(feature_map(x).ntk)[:, :2]
    with pytest.warns(RuntimeWarning, match="extended 8 times") as caught:
        solution = ns.ridge(feature_map, x, y, diag_reg=[0.3, 1], select="loo", extend_path=True)
    assert len(solution.fits) == 10
    assert [w.filename for w in caught if "extended" in str(w.message)] == [__file__]


def test_a_path_of_factors_ends_above_the_rounding(factored, spectra):
    """No spectrum, of 27 times the cost, for a value that nobody asked for."""
    factored(True)
    _, x, _ = problem(False)
    model = stax.serial(stax.Dense(1), stax.Dense(1))  # every feature twice
    feature_map = ns.feature_map(model, x, ns.RandomFeatures(1), key=jax.random.key(0))
    y, held_out = x.sum(1), HoldOut(0.3, key=jax.random.key(0))
    options = {"diag_reg": [1e-9, 1e-3], "select": held_out, "extend_path": True}
    with pytest.warns(RuntimeWarning, match="does not stand out of the rounding") as caught:
        solution = ns.ridge(feature_map, x, y, **options)
    assert len(solution.fits) < 10
    assert not spectra
    assert [w.filename for w in caught if "stand out" in str(w.message)] == [__file__]
    asked = [fit.diag_reg for fit in solution.fits]
    assert solution.diag_reg == min(asked)
    with pytest.warns(RuntimeWarning, match="rank-deficient"):
        ns.ridge(feature_map, x, y, diag_reg=[min(asked) / 1e6, *asked], select=held_out)
    assert spectra


def test_solve_extends_too():
    feature_map, x, y = problem(False)
    state = accumulate(feature_map, x, y)
    options = {"fit_intercept": True, "extend_path": True}
    for select in (GCV(), LeaveOneOut(x, y)):
        solution = solve(feature_map, state, diag_reg=[10, 30], select=select, **options)
        assert len(solution.fits) > 2


@pytest.mark.parametrize(
    "options",
    [
        {"diag_reg": [0.1, 1.0]},
        {"diag_reg": 0.1, "select": "gcv"},
        {"diag_reg": [0.0, 1.0], "select": "gcv"},
        {"diag_reg": [1.0, 1.0], "select": "gcv"},
    ],
)
def test_a_path_that_cannot_go_on_is_refused(options):
    feature_map, x, y = problem(False)
    with pytest.raises(ValueError, match="two or more different diag_reg above 0"):
        ns.ridge(feature_map, x, y, extend_path=True, **options)


@pytest.mark.parametrize("kind", ["close together", "one far away", "rank 2"])
def test_the_largest_eigenvalue(kind):
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(300, 300)))[0]
    values = {
        "close together": np.linspace(0.1, 1.0, 300),
        "one far away": np.append(np.linspace(0.1, 1.0, 299), 3.0),
        "rank 2": np.append(np.zeros(298), [0.5, 1.0]),
    }[kind]
    matrix = (rotation * values) @ rotation.T
    found = _largest_eigenvalue(matrix.__matmul__, 300)
    assert 0.98 * values.max() < found <= values.max() * (1 + 1e-12)
