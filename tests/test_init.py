"""Starts have the law, the product and the imbalance that they promise."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import load_cases, relative_error, tolerance
from numpy.testing import assert_allclose
from scipy.stats import chi2, ks_2samp, kstest

import lindyn_jax as ld
from lindyn_jax.init import gaussians

N, n, m = 5, 9, 2
DRAWS = 2000


@pytest.fixture
def problem(rng):
    return ld.LeastSquares(rng.normal(size=(N, n)), rng.normal(size=(N, m)))


def moving(start, problem):
    return np.asarray(problem.to_data(start.U)), np.asarray(start.V)


def imbalance_matrix(start, problem):
    U1, V = moving(start, problem)
    return U1.T @ U1 - V.T @ V


# -- Gaussian starts -----------------------------------------------------------------------------------------------------


def statistics(model, problem):
    """What the reduction keeps of a start: level of imbalance, coupling of the layers, frozen product, frozen norm."""
    reduced = model if isinstance(model, ld.Reduction) else ld.reduce(model, problem)
    return jnp.stack(
        [
            ld.theory.imbalance(reduced, problem).level,
            ld.observables.imbalance_spectrum(reduced, problem)[0],
            jnp.linalg.norm(reduced.product(), ord=2),
            ld.observables.frozen_product_norm(reduced, problem),
            reduced.rest[0].norm,
        ]
    )


@pytest.mark.parametrize("h", [3, 40])
def test_cores_have_the_law_of_reduced_draws(h, problem):
    keys = jax.random.split(jax.random.key(h), (2, DRAWS))
    std = (0.3, 0.7)
    core = jax.jit(jax.vmap(lambda key: statistics(ld.init.gaussian_core(problem, h, std=std, key=key), problem)))(
        keys[0]
    )
    full = jax.jit(jax.vmap(lambda key: statistics(ld.init.gaussian(n, m, h, std=std, key=key), problem)))(keys[1])
    for i in range(core.shape[1]):
        assert ks_2samp(core[:, i], full[:, i]).pvalue > 1e-4
    assert np.mean(full[:, 0] > 0) > 0.2  # the level of imbalance is not a constant


@pytest.mark.parametrize("degrees", [0.5, 3.0, 1e4, 1e8, 1e15])
def test_draws_of_chi_squared_have_its_law(degrees, draws=4000):
    key_normal, key_uniform = jax.random.split(jax.random.key(int(degrees)))
    normals = jax.random.normal(key_normal, (gaussians.PROPOSALS * draws,))
    uniforms = jax.random.uniform(key_uniform, ((gaussians.PROPOSALS + 1) * draws,))

    def drawn(degrees):
        return gaussians._chi_squared(degrees, normals, uniforms)

    values, change = jax.jvp(drawn, (jnp.full(draws, degrees),), (jnp.ones(draws),))
    assert kstest(values, chi2(degrees).cdf).pvalue > 1e-4
    assert np.all(np.isfinite(change))
    if 1 < degrees < 1e15:
        # What a quantile changes by, of which SciPy has the inverse function.
        some, step = np.asarray(values[:9]), 1e-4 * degrees
        levels = chi2(degrees).cdf(some)
        quantiles = [chi2(degrees + sign * step).ppf(levels) for sign in (1, -1)]
        assert_allclose(change[:9], (quantiles[0] - quantiles[1]) / (2 * step), rtol=1e-5)


def test_one_factor_may_begin_at_zero(problem):
    key, other = jax.random.split(jax.random.key(3))
    for std, zero, drawn in (((0.5, 0), "V", "U"), ((0, 0.5), "U", "V")):
        full = ld.init.gaussian(n, m, 40, std=std, key=key)
        core = ld.init.gaussian_core(problem, 1e9, std=std, key=other)
        assert not np.any(getattr(full, zero)) and np.std(getattr(full, drawn)) > 0.3
        path = ld.gradient_flow(core, problem, [0.0, 1e-9], observables=("loss",), solver="tsit5")
        # The start is no saddle: the factor that is not zero moves the other.
        assert not np.any(core.product()) and path.observables["loss"][1] < path.observables["loss"][0]


def test_moments_of_cores_are_exact():
    case = load_cases("m22")["gaussian_init_moments"]
    given, expected = case["inputs"], case["expected"]
    r, m, h = given["r"], given["m"], given["h"]
    X = np.eye(r, given["n"])
    problem = ld.LeastSquares(X, np.ones((r, m)))

    def moments(key):
        core = ld.init.gaussian_core(problem, h, alpha=given["alpha"], key=key)
        spectrum = ld.observables.imbalance_spectrum(core, problem)
        frozen = jnp.concatenate([core.V, core.U1]) @ core.frozen.T
        squares = jnp.sum(spectrum), jnp.sum(spectrum**2), jnp.sum(core.product() ** 2), jnp.sum(frozen**2)
        return jnp.stack([*squares, core.rest[0].norm ** 2])

    values = np.asarray(jax.jit(jax.vmap(moments))(jax.random.split(jax.random.key(1), DRAWS)))
    exact = [expected[name] for name in ("E_trD", "E_D_fro2", "E_U1Vt_fro2", "E_VU2_U1U2_fro2")]
    exact.append((given["n"] - r) * h * h ** (-2 * given["alpha"]))
    standard_error = values.std(axis=0) / np.sqrt(DRAWS)
    assert np.all(np.abs(values.mean(axis=0) - exact) < 5 * standard_error)


def test_one_compilation_serves_all_widths_up_to_a_trillion(problem):
    traces = []

    @jax.jit
    def level(h, key):
        traces.append(1)
        core = ld.init.gaussian_core(problem, h, alpha=0.5, key=key)
        finite = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(core)]
        return ld.theory.imbalance(core, problem).level, jnp.all(jnp.stack(finite))

    for h in (1.0, 3.0, 1e3, 1e6, 1e12):
        value, finite = level(h, jax.random.key(0))
        assert bool(finite)
    # For alpha = 1/2 every eigenvalue of the imbalance tends to 1 or -1, and the level to 2, with errors of h^{-1/2}.
    assert abs(float(value) - 2) < 1e-4
    assert len(traces) == 1
    assert np.isnan(level(0.5, jax.random.key(0))[0])


def test_full_draws_have_the_scales_asked_for():
    start = ld.init.gaussian(40, 30, 1000, std=(0.5, 2.0), key=jax.random.key(0))
    # 40,000 and 30,000 entries: standard errors of the deviations are .4 and .5 per cent.
    assert abs(float(jnp.std(start.U)) / 0.5 - 1) < 0.02 and abs(float(jnp.std(start.V)) / 2.0 - 1) < 0.02
    start = ld.init.gaussian(40, 30, 1000, alpha=0.3, key=jax.random.key(1))
    assert abs(float(jnp.std(start.U)) / 1000**-0.3 - 1) < 0.02
    assert ld.init.gaussian(2, 2, 3, std=1, dtype=jnp.float32, key=jax.random.key(1)).U.dtype == jnp.float32


# -- structured starts ---------------------------------------------------------------------------------------------------


def test_spectral_starts_decouple_the_modes_of_their_target(rng):
    Y, u0, v0 = rng.normal(size=(5, 4)), np.array([0.5, 0.2, 0.1]), np.array([0.1, 0.3, 0.6])
    start = ld.init.spectral(Y, u0, v0, 6)
    Phi, _, PsiT = np.linalg.svd(Y)
    core = Phi.T @ np.asarray(start.product()) @ PsiT.T
    expected = np.zeros((5, 4))
    expected[:3, :3] = np.diag(u0 * v0)
    assert relative_error(core, expected) < tolerance("float64")
    assert start.U.shape == (5, 6) and not np.any(start.U[:, 3:])


@pytest.mark.parametrize("key", [None, 4])
def test_aligned_starts_diagonalise_the_correlation(key, problem):
    d = np.array([2.0, 3.0])
    start = ld.init.aligned(problem, d, 7, key=None if key is None else jax.random.key(key))
    Phi, _, PsiT = np.linalg.svd(np.asarray(problem.X).T @ np.asarray(problem.Y), full_matrices=False)
    expected = Phi @ np.diag(np.exp(-2 * d)) @ PsiT
    assert relative_error(start.product(), expected) < tolerance("float64")
    assert relative_error(start.U.T @ start.U, start.V.T @ start.V) < tolerance("float64")


@pytest.mark.parametrize("h", [2, 11])
def test_balanced_starts_reproduce_the_product_without_imbalance(h, problem, rng):
    inside = np.asarray(problem.from_data(jnp.asarray(rng.normal(size=(N, m)))))
    start = ld.init.balanced(problem, inside, h, key=jax.random.key(0))
    assert relative_error(start.product(), inside) < tolerance("float64")
    assert np.linalg.norm(imbalance_matrix(start, problem)) < tolerance("float64", 10)
    # Of full column rank: the part outside the range of the data is reproduced too.
    Theta = rng.normal(size=(n, m))
    start = ld.init.balanced(problem, Theta, h)
    assert relative_error(start.product(), Theta) < tolerance("float64")
    assert np.linalg.norm(imbalance_matrix(start, problem)) < tolerance("float64", 10)
    assert relative_error(ld.init.balanced(problem, 0 * Theta, h).product(), 0 * Theta) == 0


@pytest.mark.parametrize("deep", [False, True])
def test_balanced_starts_of_low_rank_are_of_the_size_of_their_product(deep, problem, rng):
    def start(Theta, h):
        return ld.init.deep_balanced(problem, Theta, (h, h)) if deep else ld.init.balanced(problem, Theta, h)

    def size(start):
        return max(np.max(np.abs(W)) for W in jax.tree.leaves(start))

    # Of rank 1 as the data see it, and of rank 2 and nothing at all outside of their range.
    seen = problem.from_data(jnp.asarray(np.outer(rng.normal(size=N), [1.0, 2.0])))
    other = jnp.asarray(rng.normal(size=(n, m)))
    outside = other - problem.from_data(problem.to_data(other))
    for Theta, h in ((seen, 1), (seen + outside, 2), (outside, 2)):
        model = start(Theta, h)
        assert size(model) < 10
        inside = problem.to_data(model.product())
        assert relative_error(inside, problem.to_data(Theta)) < tolerance("float64")
    # A network as narrow as the rank has the whole product.
    assert relative_error(start(seen, 1).product(), seen) < tolerance("float64")
    assert np.all(np.asarray(start(0 * seen, 1).product()) == 0)


def test_reference_balanced_start():
    case = load_cases("m22")["balanced_init_r2_n3_m1"]
    problem = ld.LeastSquares(np.eye(2, 3), np.ones((2, 1)))
    start = ld.init.balanced(problem, np.array(case["inputs"]["Theta0"]), 2)
    V, U = np.array(case["expected"]["V"]), np.array(case["expected"]["U_col1"])
    sign = np.sign(float(start.V[0, 0]))  # of a singular vector: free
    assert relative_error(sign * start.V, V) < tolerance("float64")
    assert relative_error(sign * start.U[:, :1], U) < tolerance("float64")


BALANCED = {name: case for name, case in load_cases("workbench").items() if case["kind"] == "balanced_values"}


@pytest.mark.parametrize("name", BALANCED)
def test_reference_values_of_homogeneous_imbalance(name, rng):
    given, expected = BALANCED[name]["inputs"], BALANCED[name]["expected"]
    P, T = (np.linalg.qr(rng.normal(size=(size, 2)))[0] for size in (3, 4))
    Theta = P * given["singular_values"] @ T.T
    start = ld.init.balanced(ld.factorization(0 * Theta), Theta, 2, lambda0=given["lambda0"], key=jax.random.key(0))
    for layer in ("U", "V"):
        values = np.linalg.svd(getattr(start, layer), compute_uv=False)
        assert relative_error(values, expected[layer]) < BALANCED[name]["rel_or_abs_tol"]
    assert relative_error(start.product(), Theta) < tolerance("float64")


@pytest.mark.parametrize(("rows", "m", "h", "lambda0"), [
    (4, 2, 4, 0.7), (4, 2, 3, 1e4), (2, 4, 4, -0.7), (2, 4, 3, -1e4), (3, 3, 3, 1e-9), (3, 3, 3, -1e-9), (4, 2, 2, -1.0),
])  # fmt: skip
def test_starts_of_homogeneous_imbalance_have_it_and_their_product(rows, m, h, lambda0, rng, dtype):
    problem = ld.LeastSquares(rng.normal(size=(rows, 5)).astype(dtype), rng.normal(size=(rows, m)).astype(dtype))

    @jax.jit
    def drawn(inside):
        Theta = problem.from_data(inside)
        start = ld.init.balanced(problem, Theta, h, lambda0=lambda0, key=jax.random.key(0))
        U1 = problem.to_data(start.U)
        condition = ld.exact.homogeneous_condition(U1, start.V, lambda0).applies
        return start, start.product() - Theta, U1, condition

    for rank in (2, 1, 0):
        inside = rng.normal(size=(rows, rank)) @ rng.normal(size=(rank, m))
        start, error, U1, applies = drawn(inside.astype(dtype))
        assert start.U.dtype == dtype and start.width == h
        U1, V = np.asarray(U1), np.asarray(start.V)
        unit = np.sqrt(lambda0**2 + np.linalg.norm(inside) ** 2)
        assert np.max(np.abs(error)) < tolerance(dtype) * unit
        assert np.max(np.abs(U1.T @ U1 - V.T @ V - lambda0 * np.eye(h))) < tolerance(dtype) * unit
        assert dtype == np.float32 or bool(applies)
    if lambda0 < 0 and h >= m:
        # V has rank m: all of the product outside of the data's range is there.
        Theta = rng.normal(size=(5, m)).astype(dtype)
        assert relative_error(ld.init.balanced(problem, Theta, h, lambda0=lambda0).product(), Theta) < tolerance(dtype)


@pytest.mark.parametrize("unit", [1e-140, 1e140])
def test_homogeneous_imbalance_in_all_units(unit):
    Theta = unit * np.diag([2.0, 0.5])
    start = ld.init.balanced(ld.factorization(Theta), Theta, 2, lambda0=2.0 * unit)
    expected = BALANCED["lambda_balanced_2.0"]["expected"]
    for layer in ("U", "V"):
        values = np.abs(np.diag(getattr(start, layer))) / np.sqrt(unit)
        assert relative_error(values, expected[layer]) < 1e-12


def test_widths_that_homogeneous_imbalance_does_not_allow_are_refused(rng):
    problem, Theta = ld.factorization(rng.normal(size=(4, 2))), rng.normal(size=(4, 2))
    for h, lambda0, match in (
        (5, 0.1, "`h` must be at most 4 for `lambda0` = 0.1"),
        (3, -0.1, "`h` must be at most 2 for `lambda0` = -0.1"),
        (1, 0.1, "`h` must be at least the rank 2"),
        (2, np.nan, "`lambda0` must be finite"),
    ):
        with pytest.raises(ValueError, match=match):
            ld.init.balanced(problem, Theta, h, lambda0=lambda0)
    # Without it any width will do. Where it is traced, what is not possible is no number.
    assert ld.init.balanced(problem, Theta, 9).width == 9
    size = jax.jit(jax.vmap(lambda x: jnp.sum(ld.init.balanced(problem, Theta, 3, lambda0=x).U ** 2)))
    sizes = size(jnp.array([-1.0, 0, 1]))
    assert np.isfinite(sizes).tolist() == [False, True, True]


def test_derivatives_of_homogeneous_starts_keep_product_and_imbalance():
    # Singular values that are equal, where frames do not turn.
    Theta, problem = jnp.asarray(np.diag([1.0, 1.0, 0.3])), ld.factorization(np.eye(3))
    dTheta, dlambda = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3))), 0.7

    def what(Theta, lambda0):
        start = ld.init.balanced(problem, Theta, 3, lambda0=lambda0)
        return start.product(), start.U.T @ start.U - start.V.T @ start.V

    for lambda0 in (0.0, 0.8, -0.8):
        change = jax.jvp(what, (Theta, lambda0), (dTheta, dlambda if lambda0 else 0.0))[1]
        assert relative_error(change[0], dTheta) < tolerance("float64")
        assert relative_error(change[1], (dlambda if lambda0 else 0.0) * np.eye(3)) < tolerance("float64", 10)


@pytest.mark.parametrize(("r", "m"), [(3, 2), (2, 4), (3, 3)])
def test_prescribed_imbalance_and_product_are_met(r, m, rng):
    problem = ld.LeastSquares(rng.normal(size=(r, 6)), rng.normal(size=(r, m)))
    Theta = rng.normal(size=(6, m))
    positive, negative = rng.uniform(0.1, 3, r), rng.uniform(0.1, 3, m)
    positive[0] = negative[-1] = 0.0
    for key in (None, jax.random.key(2)):
        start = ld.init.with_imbalance(problem, Theta, positive, negative, r + m + 2, key=key)
        U1, V = moving(start, problem)
        assert relative_error(U1 @ V.T, problem.to_data(jnp.asarray(Theta))) < tolerance("float64")
        spectrum = np.linalg.eigvalsh(U1.T @ U1 - V.T @ V)
        expected = np.sort(np.concatenate([positive, -negative, np.zeros(2)]))
        assert relative_error(spectrum, expected) < tolerance("float64")


def test_prescribed_imbalance_has_finite_derivatives_at_zero(problem):
    def value(scale):
        zero_r, zero_m = scale * jnp.zeros(N), scale * jnp.zeros(m)
        start = ld.init.with_imbalance(problem, np.ones((n, m)), zero_r, zero_m, N + m)
        return jnp.sum(start.V**2)

    assert np.isfinite(float(jax.jit(jax.grad(value))(1.0)))


def test_starts_with_a_given_product_have_its_derivative(rng):
    """Also where singular values are repeated, and of the part outside of the range of the data."""
    problem = ld.LeastSquares(np.diag([1.0, 2.0, 0.5]) @ np.linalg.qr(rng.normal(size=(5, 3)))[0].T, np.ones((3, 3)))
    other = jnp.asarray(rng.normal(size=(5, 3)))
    Theta = problem.from_data(2 * jnp.eye(3)) + other - problem.from_data(problem.to_data(other))
    change, key = rng.normal(size=(5, 3)), jax.random.key(0)

    def products(Theta):
        deep = ld.init.deep_balanced(problem, Theta, (4, 6), key=key)
        return ld.init.balanced(problem, Theta, 4, key=key).product(), deep.product()

    assert relative_error(jnp.linalg.svd(problem.to_data(Theta), compute_uv=False), [2, 2, 2]) < tolerance("float64")
    for tangent in jax.jit(lambda dTheta: jax.jvp(products, (Theta,), (dTheta,))[1])(change):
        assert relative_error(tangent, change) < tolerance("float64", 10)


@pytest.mark.parametrize(("r", "m"), [(3, 2), (2, 3)])
def test_starts_with_an_imbalance_have_derivatives_in_product_and_imbalance(r, m, rng):
    problem, change = ld.factorization(np.zeros((r, m))), rng.normal(size=(r, m))
    positive, negative = np.array([1.0, 0.7, 0.2])[:r], np.array([0.9, 0.4, 0.1])[:m]

    @jax.jit
    def both(Theta):
        start = ld.theory.tight_start(problem, Theta, positive, negative, r + m)
        return start.product(), ld.observables.imbalance_spectrum(start, problem)

    product, spectrum = jax.jvp(both, (rng.normal(size=(r, m)),), (change,))[1]
    assert relative_error(product, change) < tolerance("float64", 10)
    assert relative_error(spectrum, np.zeros(r + m)) < tolerance("float64", 10)

    def total(positive):
        start = ld.init.with_imbalance(problem, np.eye(r, m)[::-1] * (np.arange(m) == 0), positive, 0 * negative, r + m)
        return jnp.sum(start.U) + jnp.sum(start.V)

    # A pair without imbalance and product, and a value without a partner: derivative zero.
    assert np.all(np.isfinite(jax.jit(jax.grad(total))(jnp.zeros(r))))


def test_spectral_starts_have_finite_derivatives_at_repeated_and_zero_targets():
    start = jax.jit(jax.jacrev(lambda Y: ld.init.spectral(Y, np.ones(2), np.ones(2), 3).product()))
    for Y in (np.zeros((3, 2)), np.eye(3, 2)):
        assert np.all(np.isfinite(start(Y)))


def test_invariant_starts_lead_to_the_minimum_norm_solution(problem):
    start = ld.init.invariant(problem, 12, std=0.5, key=jax.random.key(0))
    U1, V = moving(start, problem)
    Phi1 = np.asarray(problem.Phi1)
    U2 = np.asarray(start.U) - Phi1 @ U1
    assert np.linalg.norm(U2) > 1
    assert np.linalg.norm(V @ U2.T) < tolerance("float64", 10)
    assert np.linalg.norm(U1 @ U2.T) < tolerance("float64", 10)
    end = ld.gradient_flow(start, problem, np.array([1e4]), stop=1e-20, solver="tsit5").final.product()
    # The square root of the stopping ratio, times the largest inverse singular value.
    assert relative_error(end, problem.theta_hat) < 1e-8
    narrow = ld.init.invariant(problem, 3, std=0.5, key=jax.random.key(0))
    assert np.linalg.norm(narrow.U - Phi1 @ Phi1.T @ narrow.U) < tolerance("float64")


# -- refusals ------------------------------------------------------------------------------------------------------------

KEY = jax.random.key(0)
ONE = "Give exactly one of `std` and `alpha`"


@pytest.mark.parametrize(
    ("name", "arguments", "options", "match"),
    [
        ("gaussian", (2, 2, 3), {}, ONE),
        ("gaussian", (2, 2, 3), {"std": 1.0, "alpha": 0.5}, ONE),
        ("gaussian", (2, 2, 3), {"std": -1.0}, "`std` must be a positive number, but is -1.0"),
        ("gaussian", (2, 2, 3), {"std": (0.0, 0.0)}, "`std` must be a positive number, but is 0.0"),
        ("gaussian", (2, 2, 3), {"alpha": 0.0}, "`alpha` must be a positive number"),
        ("gaussian", (2, 2, 0), {"std": 1.0}, "`h` must be at least 1, but is 0"),
        ("gaussian_core", ("problem", 2.5), {"std": 1.0}, "`h` must be a whole number from 1 to 1e12, but is 2.5"),
        ("gaussian_core", ("problem", 0), {"std": 1.0}, "`h` must be a whole number from 1 to 1e12, but is 0"),
        ("gaussian_core", ("problem", 1e13), {"std": 1.0}, "`h` must be a whole number from 1 to 1e12"),
        ("gaussian_core", ("problem", 10), {}, ONE),
        ("spectral", (np.eye(3), np.ones(4), np.ones(4), 9), None, r"1 <= k <= min\(n, m, h\) = 3"),
        ("spectral", (np.eye(3), np.ones(2), np.ones(3), 9), None, "vectors of one length k"),
        ("aligned", ("problem", np.ones(3), 9), {}, r"1 <= k <= min\(n, m, h\) = 2"),
        (
            "balanced",
            ("problem", np.eye(n, m), 1),
            {},
            "at least the rank 2 of its product for a balanced start, but is 1",
        ),
        ("balanced", ("problem", np.ones((n, 3)), 9), {}, r"`Theta` must have shape \(9, 2\)"),
        ("with_imbalance", ("problem", np.ones((n, m)), np.ones(N), np.ones(m), 6), {}, r"at least r \+ m = 7"),
        (
            "with_imbalance",
            ("problem", np.ones((n, m)), np.ones(3), np.ones(m), 9),
            {},
            r"`positive` must have shape \(5,",
        ),
        (
            "with_imbalance",
            ("problem", np.ones((n, m)), np.ones(N), -np.ones(m), 9),
            {},
            "`negative` must have no negative",
        ),
    ],
)
def test_bad_arguments_are_refused(name, arguments, options, match, problem):
    arguments = [problem if isinstance(value, str) else value for value in arguments]
    options = {} if options is None else {"key": KEY, **options}
    with pytest.raises(ValueError, match=match):
        inspect.unwrap(getattr(ld.init, name))(*arguments, **options)


def test_a_width_that_is_no_whole_number_is_refused():
    with pytest.raises(ValueError, match=r"`h` must be a whole number, but is 2\.5"):
        inspect.unwrap(ld.init._parts.size_of)(2.5, "h")


# -- starts as objects ---------------------------------------------------------------------------------------------------


def test_starts_as_objects_draw_what_the_functions_return(rng):
    init, key = ld.init, jax.random.key(3)
    problem = ld.LeastSquares(rng.normal(size=(4, 3)), rng.normal(size=(4, 3)))
    one, other = jax.random.split(key)
    deep = init.deep_gaussian((3, 5, 5, 3), std=0.3, key=one).product()
    for start, expected in (
        (init.Gaussian(7, std=(0.3, 0.2)), init.gaussian_core(problem, 7, std=(0.3, 0.2), key=key)),
        (init.Aligned(4, 2.0), init.aligned(problem, jnp.full(3, 2.0), 4, key=key)),
        (init.Invariant(8, alpha=0.5), init.invariant(problem, 8, alpha=0.5, key=key)),
        (init.GaussianWithImbalance(6, 0.1, 2.0), init.gaussian_with_imbalance(3, 6, std=0.1, imbalance=2.0, key=key)),
        (init.DeepGaussian((5, 5), 0.3), init.deep_gaussian((3, 5, 5, 3), std=0.3, key=key)),
        (init.DeepOrthogonal((5, 5), 0.3), init.deep_orthogonal((3, 5, 5, 3), std=0.3, key=key)),
        (init.DeepBalanced((5, 5), 0.3), init.deep_balanced(problem, deep, (5, 5), key=other)),
        (init.DeepAligned((5, 5), (2.0, 3.0)), init.deep_aligned(problem, jnp.array([2.0, 3.0]), (5, 5), key=key)),
    ):
        start.check(problem)
        found = jax.tree.leaves(start.draw(problem, key=key))
        assert len(found) == len(jax.tree.leaves(expected))
        for value, wanted in zip(found, jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(value, wanted, rtol=1e-12, atol=0, err_msg=start.label())
    narrow = ld.LeastSquares(np.eye(3), np.ones((3, 2)))
    with pytest.raises(ValueError, match="as many inputs as outputs, but there are 3 and 2"):
        init.GaussianWithImbalance(6, 0.1, 2.0).draw(narrow, key=key)


def test_a_start_object_begins_with_one_factor_at_zero(rng):
    problem = ld.LeastSquares(rng.normal(size=(3, 5)), rng.normal(size=(3, 2)))
    for std, zero in (((0.3, 0.0), "V"), ((0.0, 0.3), "U1")):
        start = ld.init.Gaussian(40, std=std)
        start.check(problem)
        core = start.draw(problem, key=KEY)
        assert not np.any(getattr(core, zero)) and not np.any(core.product())
        assert np.any(core.velocity(problem).layers[zero == "V"])
        # What has a product of zero is the saddle only where nothing else gives it weights.
        ld.init.Imbalance(40, std=std).check(problem)
        ld.init.Balanced(3, std=std, lambda0=0.5).check(problem)
        with pytest.raises(ValueError, match="product of the start is zero, and so are balanced layers"):
            ld.init.Balanced(40, std=std).check(problem)
    for std in ((0.0, 0.0), (0.3, -1.0), 0.0):
        with pytest.raises(ValueError, match="`std` must be a positive number"):
            ld.init.Gaussian(40, std=std).check(problem)


@pytest.mark.parametrize(
    ("rows", "m", "h", "lambda0"), [(4, 2, 3, 1.3), (4, 2, 1, 1.3), (2, 4, 3, -0.7), (3, 3, 3, -2.0)]
)
def test_balanced_start_objects_have_the_imbalance_and_the_product_of_the_gaussian_one(rows, m, h, lambda0, rng):
    problem = ld.LeastSquares(rng.normal(size=(rows, 5)), rng.normal(size=(rows, m)))
    start = ld.init.Balanced(h, std=0.5, lambda0=lambda0)
    start.check(problem)

    @jax.jit
    def seen(key):
        cores = start.draw(problem, key=key), ld.init.Gaussian(h, std=0.5).draw(problem, key=key)
        of_width = lambda width: ld.init.Balanced(width, std=0.5, lambda0=lambda0).draw(problem, key=key)  # noqa: E731
        norms = jax.vmap(lambda width: jnp.sum(of_width(width).V ** 2))(jnp.array([float(h), 50.0]))
        return cores[0], [(core.product(), core.frozen_product(problem)) for core in cores], norms

    core, ((product, frozen), (gaussian, other)), norms = seen(KEY)
    U1, V = np.asarray(core.U1), np.asarray(core.V)
    unit = abs(lambda0) + np.linalg.norm(gaussian)
    assert np.abs(U1.T @ U1 - V.T @ V - lambda0 * np.diag(np.arange(rows + m) < h)).max() < tolerance("float64") * unit
    assert relative_error(product, gaussian) < tolerance("float64")
    outside = [np.linalg.norm(x) for x in (frozen, other)]
    # Of more directions than the product has, those of V are not the Gaussian ones.
    assert relative_error(*outside) < tolerance("float64") if h <= rows else outside[0] < outside[1]
    assert start.label() == f"balanced, h = {h}, std = 0.5, D = {lambda0:g} I"
    # Widths are numbers of one program, and one that cannot have this imbalance is not finite.
    np.testing.assert_allclose(norms[0], np.sum(V**2), rtol=1e-12)
    assert np.isnan(norms[1])
    with pytest.raises(ValueError, match=r"`lambda0` = .* needs a width of at most [rm] = \d, for every hidden"):
        ld.init.Balanced(50, lambda0=lambda0).check(problem)


def test_an_imbalance_that_is_traced_serves_both_signs(rng):
    problem = ld.LeastSquares(rng.normal(size=(4, 3)), rng.normal(size=(4, 2)))

    def spread(lambda0):
        core = ld.init.Balanced(2, std=0.4, lambda0=lambda0).draw(problem, key=KEY)
        return core.U1.T @ core.U1 - core.V.T @ core.V

    known = jax.jit(lambda: [spread(0.7), spread(-0.7)])()
    found = jax.jit(jax.vmap(spread))(jnp.array([0.7, -0.7]))
    np.testing.assert_allclose(found, known, atol=1e-14)
    np.testing.assert_allclose(found[0], 0.7 * np.diag([1, 1, 0, 0, 0]), atol=1e-14)


def test_a_width_that_a_start_cannot_have_is_refused_where_it_is_known_and_not_finite_where_it_is_traced(rng):
    problem = ld.LeastSquares(rng.normal(size=(4, 3)), rng.normal(size=(4, 2)))
    traced = "`lambda0` that is traced needs a width of at most min(r, m) = 2, for every .* not 3"
    for start, message in (
        (
            lambda x: ld.init.Balanced(40, std=x, lambda0=-2.0),
            "`lambda0` = -2 needs a width of at most m = 2, .* not 40",
        ),
        (lambda x: ld.init.Balanced(3, std=0.3, lambda0=x), traced.replace("(", r"\(").replace(")", r"\)")),
        (lambda x: ld.init.Imbalance(4, std=x), r"imbalance needs a width of at least r \+ m = 5, not 4"),
    ):
        with pytest.raises(ValueError, match=message):
            jax.jit(lambda x, start=start: start(x).draw(problem, key=KEY).product())(0.3)
    with pytest.raises(ValueError, match=r"`h` is a shape here and cannot be traced.*`init\.gaussian_core`"):
        jax.jit(lambda h: inspect.unwrap(ld.init._parts.size_of)(h, "h"))(8)
    widths = jnp.array([4.0, 5.0, 50.0])
    found = jax.jit(jax.vmap(lambda h: ld.init.Imbalance(h, std=0.3).draw(problem, key=KEY).product()))(widths)
    assert np.isnan(found).all(axis=(1, 2)).tolist() == [True, False, False] and np.isfinite(found[1:]).all()


# -- scalings by name ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ld.init.SCALINGS)
def test_scalings_fall_with_the_width_as_they_say(name):
    n, m = 5, 3
    wide = [ld.init.scaling(name, n, h, m) for h in (1e9, 1e11)]
    for i in (0, 1):
        slope = np.log(wide[1].std[i] / wide[0].std[i]) / np.log(100)
        assert abs(slope + wide[0].exponents[i]) < 1e-7
    problem = ld.factorization(np.ones((n, m)))
    start = ld.init.Scaled(name, 1e9)
    start.check(problem)
    drawn = start.draw(problem, key=KEY)
    expected = ld.init.gaussian_core(problem, 1e9, std=wide[0].std, key=KEY)
    for value, wanted in zip(drawn.layers, expected.layers, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-14)
    # The order of the imbalance is what the exponents make of it, in the larger layer.
    level = np.linalg.norm(drawn.U1, 2) ** 2 + np.linalg.norm(drawn.V, 2) ** 2
    assert 0.05 < level / 1e9 ** (1 - 2 * min(wide[0].exponents)) < 5
    assert start.label() == f"{name}, h = 1e+09"


@pytest.mark.parametrize("name", ["ntk", "mup"])
def test_scalings_with_multipliers_move_the_product_as_their_own_convention_does(name, rng):
    n, m, h, eta = 4, 3, 30, 0.05
    A, B, Y = rng.normal(size=(n, h)), rng.normal(size=(m, h)), rng.normal(size=(n, m))
    said = ld.init.scaling(name, n, h, m)
    U, V = said.std[0] * A, said.std[1] * B
    # In their own convention: multiplier, standard deviations, and step sizes of U and V.
    multiplier, stds, steps = {
        "ntk": ((n * h) ** -0.5, (1.0, 1.0), (eta, eta)),
        "mup": (1.0, (n**-0.5, 1 / h), (h * eta, eta / h)),
    }[name]
    own = [stds[0] * A, stds[1] * B]
    for _ in range(25):
        E = Y - multiplier * own[0] @ own[1].T
        own = [own[0] + steps[0] * multiplier * E @ own[1], own[1] + steps[1] * multiplier * E.T @ own[0]]
        E = Y - U @ V.T
        U, V = U + eta * said.step * E @ V, V + eta * said.step * E.T @ U
    np.testing.assert_allclose(U @ V.T, multiplier * own[0] @ own[1].T, rtol=1e-10)


def test_one_strength_stands_for_all_modes_and_more_modes_than_the_width_are_refused():
    problem = ld.factorization(np.diag([3.0, 2.0, 1.0]))
    for start, wide, narrow in ((ld.init.aligned, 4, 2), (ld.init.deep_aligned, (4, 5), (2, 5))):
        for mine, other in zip(*(start(problem, d, wide).layers for d in (2.0, np.full(3, 2.0))), strict=True):
            assert np.array_equal(mine, other)
        with pytest.raises(ValueError, match=r"shape \(3,\): they need a width of at least 3"):
            start(problem, np.ones(3), narrow)


def test_layers_the_wrong_way_round_are_named():
    construct = inspect.unwrap(ld.TwoLayer.__init__)
    for shapes, match in (
        (((16, 8), (15, 16)), r"have 8 and 16: U is W1\^T and V is W2 .*, so `U.T` would fit"),
        (((8, 16), (16, 15)), r"so `V.T` would fit"),
        (((16, 8), (16, 15)), r"so `U.T, V.T` would fit"),
        (((16, 8), (15, 7)), r"have 8 and 7\."),
    ):
        with pytest.raises(ValueError, match=match):
            construct(object.__new__(ld.TwoLayer), *map(np.ones, shapes))
    with pytest.raises(ValueError, match=r"2 keys: give one, and use `jax.vmap` for several"):
        ld.init.gaussian(2, 2, 4, std=1.0, key=jax.random.split(jax.random.key(0)))


def test_scalings_refuse_other_names_and_sizes():
    with pytest.raises(
        ValueError, match="`name` must be one of 'xavier', 'he', 'lecun', 'ntk', 'mup', but is 'kaiming'"
    ):
        ld.init.scaling("kaiming", 3, 4, 2)
    with pytest.raises(ValueError, match="`h` must be a positive number, but is 0"):
        ld.init.scaling("he", 3, 0, 2)


# -- isometries and residual layers --------------------------------------------------------------------------------------


def test_isometric_layers_keep_lengths_and_have_the_smallest_exact_form(rng):
    n, m, h = 3, 2, 12
    deep = ld.init.deep_isometric((n, h, h, h, m), gain=(2.0, 0.5, 1.5, 1.0), key=KEY)
    for W, gain in zip(deep.layers, (2.0, 0.5, 1.5, 1.0), strict=True):
        np.testing.assert_allclose(np.linalg.svd(W, compute_uv=False), gain, rtol=1e-13)
    problem = ld.LeastSquares(rng.normal(size=(4, n)), rng.normal(size=(4, m)))
    assert max(ld.reduce(deep, problem).core.widths) == n + m
    start = ld.init.DeepIsometric((h, h), gain=0.7).draw(problem, key=KEY)
    expected = ld.init.deep_isometric((n, h, h, m), gain=0.7, key=KEY)
    np.testing.assert_allclose(start.product(), expected.product(), rtol=1e-14)


def test_residual_layers_are_the_identity_and_a_little(rng):
    exact = ld.init.deep_residual((3, 5, 5, 2), std=0.0, key=KEY)
    np.testing.assert_array_equal(exact.product(), np.eye(3, 2))
    problem = ld.factorization(rng.normal(size=(4, 4)))
    start = ld.init.DeepResidual((4, 4), std=1e-3).draw(problem, key=KEY)
    for W in start.layers:
        assert 1e-4 < np.abs(W - np.eye(4)).max() < 6e-3
    # From the identity itself a symmetric network stays symmetric.
    still = ld.init.DeepResidual((4, 4), std=0.0).draw(problem, key=KEY)
    moved = ld.gradient_descent(still, ld.factorization(np.diag([-1.0, 2, 3, 4])), 50, optimizer=ld.plain_descent(0.01))
    assert float(moved.final.product()[0, 0]) > 0
    with pytest.raises(ValueError, match="`std` must be a number of at least 0"):
        ld.init.deep_residual((3, 3), std=-1.0, key=KEY)
