"""Lemma 11, Theorem 12, the sharp law of the distance, NTK scaling and the invariant set."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Compiled, load_cases, relative_error, tolerance
from scipy import stats

import lindyn_jax as ld
from lindyn_jax.models import Rest

theory = Compiled(ld.theory)

CASES = load_cases("m22")


def data_problem(r, m, n, rng, singular_values=None, Y=None):
    """A problem of rank r with n inputs and the given singular values."""
    s = np.linspace(2.0, 1.0, r) if singular_values is None else np.asarray(singular_values)
    Phi1 = np.linalg.qr(rng.normal(size=(n, r)))[0]
    return ld.LeastSquares(np.diag(s) @ Phi1.T, rng.normal(size=(r, m)) if Y is None else Y)


def test_lemma11_constants_agree_with_the_reference(rng):
    case = CASES["lemma11_constants_n20_r5_m2"]
    inputs, expected = case["inputs"], case["expected"]
    problem = data_problem(5, 2, 20, rng)
    h, alpha = 1234.0, 0.4
    paper = theory.lemma11(problem, h, alpha, inputs["delta"])
    sharp = theory.lemma11(problem, h, alpha, inputs["delta"], constant="davidson-szarek")
    assert relative_error(paper.w, expected["s_paper"]) < 1e-13
    assert relative_error(sharp.w, expected["s_DavidsonSzarek"]) < 1e-13
    assert relative_error(paper.h0, expected["h0_paper"]) < 1e-13
    assert relative_error(sharp.h0, expected["h0_DS"]) < 1e-13
    assert relative_error(paper.h0_level, expected["h0_improved"]) < 1e-13
    power = h ** (2 * alpha - 0.5)
    assert relative_error(paper.coupling * power, expected["bound34_times_h_pow"]) < 1e-13
    assert relative_error(paper.product * power, expected["bound35_times_h_pow"]) < 1e-13
    assert relative_error(paper.level, h ** (1 - 2 * alpha)) < 1e-13


def test_lemma11_thresholds_of_the_large_setting(rng):
    problem = data_problem(100, 1, 500, rng)
    bounds = theory.lemma11(problem, 1e4, 0.5, 0.1)
    # 2499 against 9125: the widths of the sharpened and of the printed statement.
    assert round(float(bounds.h0_level)) == 2499
    assert round(float(bounds.h0)) == 9125


def test_lemma11_applies_above_its_width_for_every_exponent(rng):
    problem = data_problem(5, 2, 20, rng)
    widths = jnp.array([612.0, 613.0, 1e9])
    assert list(np.asarray(theory.lemma11(problem, widths, 0.5, 0.1).applies)) == [False, True, True]
    # The range of the exponent is a hypothesis of Theorem 12.
    assert np.all(theory.lemma11(problem, 1000, jnp.array([0.1, 0.25, 0.5, 0.51]), 0.1).applies)
    traced = jax.jit(lambda h, alpha, delta: theory.lemma11(problem, h, alpha, delta).applies)
    assert bool(traced(1000.0, 0.4, 0.1))
    assert not bool(traced(1000.0, 0.4, 1.5))


def test_theorem12_constants_agree_with_the_reference(rng):
    case = CASES["theorem12_constants"]
    inputs, expected = case["inputs"], case["expected"]
    s = np.sqrt(np.linspace(inputs["lambda1"], inputs["lambda_r"], inputs["r"]))
    Y = rng.normal(size=(inputs["r"], inputs["m"]))
    Y *= inputs["Y_fro"] / np.linalg.norm(Y)
    problem = data_problem(inputs["r"], inputs["m"], inputs["n"], rng, s, Y)
    bound = theory.theorem12(problem, inputs["h"], inputs["alpha"], inputs["delta"])
    assert relative_error(jnp.exp(bound.log_C), expected["C"]) < 1e-13
    # h0 squares the condition number, which the decomposition of X gives to a few units of round-off.
    assert relative_error(bound.h0, expected["h0_corrected"]) < 1e-12
    assert relative_error(jnp.exp(bound.log_bound), expected["bound"]) < 1e-13
    assert bool(bound.applies)
    assert not bool(theory.theorem12(problem, 3e4, inputs["alpha"], inputs["delta"]).applies)


def test_theorem12_does_not_depend_on_the_units_of_the_data(rng):
    X, Y = rng.normal(size=(5, 8)), rng.normal(size=(5, 2))
    bound = theory.theorem12(ld.LeastSquares(X, Y), 1e6, 0.4, 0.1)
    for problem in (ld.LeastSquares(X / 7, Y / 7), ld.LeastSquares(X, Y / 7, output_scale=1 / 7, scale="mean")):
        other = theory.theorem12(problem, 1e6, 0.4, 0.1)
        assert relative_error(other.h0, bound.h0) < tolerance("float64")
        assert relative_error(other.log_bound, bound.log_bound) < tolerance("float64")


def test_theorem12_does_not_overflow_on_ill_conditioned_data(dtype):
    problem = ld.LeastSquares(np.diag([1.0, 1e-2]).astype(dtype), np.full((2, 1), 1.0 / np.sqrt(2), dtype))
    bound = theory.theorem12(problem, 1e12, 0.5, 0.1)
    # C = exp(1 + 1e4), at alpha = 1/2 to the first power.
    w = np.sqrt(3) + 0.5 * np.log(20)
    expected = np.log(2) + 1 + 1e4 + 0.5 * np.log(3) + np.log(w) - 0.5 * np.log(1e12)
    assert relative_error(bound.log_bound, expected) < tolerance(dtype)
    assert bound.log_bound.dtype == dtype


def test_theorem12_reports_exponents_outside_its_hypothesis(rng):
    problem = data_problem(5, 2, 14, rng)
    bound = theory.theorem12(problem, 1e300, jnp.array([0.1, 0.25, 0.2501, 0.5, 0.6]), 0.1)
    assert list(np.asarray(bound.applies)) == [False, False, False, True, False]
    assert np.all(np.isinf(np.asarray(bound.log_width)) == [True, True, False, False, False])
    slope = jax.grad(lambda alpha: theory.theorem12(problem, 1e4, alpha, 0.1).log_bound)
    assert np.isfinite(slope(0.2))


@pytest.mark.parametrize("delta", [0.0, 1.0, -0.1, float("nan")])
def test_a_probability_of_failure_outside_the_unit_interval_is_refused(rng, delta):
    problem = data_problem(2, 1, 4, rng)
    for statement in (ld.theory.lemma11, ld.theory.theorem12):
        with pytest.raises(ValueError, match="`delta` is a probability"):
            statement(problem, 100, 0.5, delta)
    with pytest.raises(ValueError, match="`delta` is a probability"):
        ld.theory.lemma11_events(ld.TwoLayer(np.ones((4, 9)), np.ones((1, 9))), problem, 0.5, delta)


def test_bad_settings_are_refused(rng):
    problem = data_problem(2, 1, 4, rng)
    with pytest.raises(ValueError, match="`h` must be a positive number"):
        ld.theory.lemma11(problem, 0, 0.5, 0.1)
    with pytest.raises(ValueError, match="`h` must be a positive number"):
        ld.theory.sharp_distance(problem, -1.0, 0.5)
    with pytest.raises(ValueError, match="must be one of 'paper', 'davidson-szarek'"):
        ld.theory.lemma11.__wrapped__(problem, 10, 0.5, 0.1, constant="best")
    with pytest.raises(ValueError, match="must have 1 rows, but has 2"):
        ld.theory.conditional_distance(problem, np.ones((2, 2)), 10, 0.5)
    sigmoid = ld.LeastSquares(np.eye(2), np.ones((2, 1)), link=jax.nn.sigmoid)
    for call in (
        lambda: ld.theory.theorem12(sigmoid, 10, 0.5, 0.1),
        lambda: ld.theory.sharp_distance(sigmoid, 10, 0.5),
    ):
        with pytest.raises(ValueError, match="without a link function"):
            call()


def test_lemma11_events_measure_the_full_network(rng):
    n, m, r, h, alpha, delta = 7, 2, 3, 400, 0.4, 0.2
    problem = data_problem(r, m, n, rng)
    U, V = rng.normal(size=(n, h)) * h**-alpha, rng.normal(size=(m, h)) * h**-alpha
    events = theory.lemma11_events(ld.TwoLayer(U, V), problem, alpha, delta)
    Phi = np.linalg.svd(np.asarray(problem.X))[2].T
    U1, U2 = Phi[:, :r].T @ U, Phi[:, r:].T @ U
    e = np.linalg.eigvalsh(U1.T @ U1 - V.T @ V)[::-1]
    level, coupling = max(e[r - 1], 0) + max(-e[-m], 0), np.linalg.norm(np.vstack([V @ U2.T, U1 @ U2.T]))
    product = np.linalg.norm(U1 @ V.T)
    assert relative_error([events.level, events.coupling, events.product], [level, coupling, product]) < 1e-12
    bounds = theory.lemma11(problem, h, alpha, delta)
    assert bool(events.level_is_large) == (level > bounds.level)
    assert bool(events.coupling_is_small) == (coupling <= bounds.coupling)
    assert bool(events.product_is_small) == (product <= bounds.product)


def core(problem, U, V):
    """The reduced model of a full one, by the textbook QR."""
    U1 = np.asarray(problem.to_data(jnp.asarray(U)))
    Q = np.linalg.qr(np.vstack([U1, V]).T)[0]
    U2 = U - np.asarray(problem.from_data(jnp.asarray(U1)))
    rest = (Rest.of(jnp.linalg.norm(U2)), None)
    return ld.Reduction(ld.TwoLayer(U1 @ Q, V @ Q), U.shape[1], problem.num_frozen, U2 @ Q, rest=rest)


def test_lemma11_events_of_a_core_are_those_of_the_network(rng):
    problem = data_problem(3, 2, 7, rng)
    U, V = rng.normal(size=(7, 50)), rng.normal(size=(2, 50))
    full = theory.lemma11_events(ld.TwoLayer(U, V), problem, 0.3, 0.1)
    reduced = theory.lemma11_events(core(problem, U, V), problem, 0.3, 0.1)
    for a, b in zip(full, reduced, strict=True):
        assert relative_error(a, b) < tolerance("float64", 10)


def test_lemma11_events_do_not_depend_on_the_exponent(rng):
    n, m, r, h = 20, 2, 5, 31
    problem = data_problem(r, m, n, rng)
    U, V = rng.normal(size=(200, n, h)), rng.normal(size=(200, m, h))

    @eqx.filter_jit
    def events(alpha):
        scale = h**-alpha
        start = jax.vmap(lambda U, V: theory.lemma11_events(ld.TwoLayer(scale * U, scale * V), problem, alpha, 0.1))
        return start(U, V)

    reference = events(jnp.asarray(0.5))
    assert 0 < np.mean(reference.level_is_large) < 1
    for alpha in (0.3, 0.4):
        other = events(jnp.asarray(alpha))
        for name in ("level_is_large", "coupling_is_small", "product_is_small"):
            assert np.array_equal(getattr(other, name), getattr(reference, name))


def test_frequency_of_a_large_level_agrees_with_its_measured_table(rng):
    n, m, r, h, trials = 20, 2, 5, 31, 3000
    problem = data_problem(r, m, n, rng)
    U, V = rng.normal(size=(trials, n, h)) / h**0.5, rng.normal(size=(trials, m, h)) / h**0.5
    run = jax.jit(jax.vmap(lambda U, V: theory.lemma11_events(ld.TwoLayer(U, V), problem, 0.5, 0.1)))
    events = run(U, V)
    # .783 is itself a measured frequency: four standard errors of this run and one unit of its last digit.
    assert abs(np.mean(events.level_is_large) - 0.783) < 4 * np.sqrt(0.783 * 0.217 / trials) + 1e-3
    assert np.all(events.coupling_is_small)
    assert np.all(events.product_is_small)


def test_homogeneous_imbalance_fixes_the_end_point():
    case = CASES["homogeneous_imbalance_limit"]
    M, kappa = np.array(case["inputs"]["M"]), case["inputs"]["kappa"]
    # The problem whose minimum-norm solution is M, in n - r = 1 more direction than the data reach.
    problem = ld.LeastSquares(np.eye(4)[:3], M)
    alpha, h = 0.4, kappa ** (1 / 0.2)
    law = theory.sharp_distance(problem, h, alpha)
    assert relative_error(law.level, kappa) < 1e-13
    assert relative_error(law.rms**2 * h ** (2 * alpha), case["expected"]["trace_VVt"]) < 1e-13
    gram = theory.wide_gram(problem, h, alpha)
    # Narrower than r + m here.
    assert not bool(gram.applies) and bool(theory.wide_gram(problem, 5.0, alpha).applies)
    assert relative_error(gram.value, gram.value.T) < 1e-13
    assert relative_error(gram.value @ gram.value, M.T @ M + kappa**2 * np.eye(M.shape[1])) < 1e-13
    assert relative_error(jnp.trace(gram.value), case["expected"]["trace_VVt"]) < 1e-13


@pytest.mark.parametrize("shape", [(3, 2), (2, 3)])
def test_sharp_distance_is_the_formula_with_every_output_counted(rng, shape):
    r, m = shape
    problem = data_problem(r, m, 9, rng)
    h, alpha = 1e3, 0.45
    G = np.asarray(problem.theta_hat).T @ np.asarray(problem.theta_hat)
    e = np.clip(np.linalg.eigvalsh(G), 0, None)
    expected = np.sqrt((9 - r) * h ** (-2 * alpha) * np.sum(np.sqrt(h ** (2 - 4 * alpha) + e)))
    assert relative_error(theory.sharp_distance(problem, h, alpha).rms, expected) < tolerance("float64")


@pytest.mark.parametrize(("alpha", "slope"), [(0.5, -0.498), (0.35, -0.203), (0.3, -0.102)])
def test_sharp_distance_has_the_measured_slopes(rng, alpha, slope):
    problem = data_problem(5, 2, 14, rng)
    far = theory.sharp_distance(problem, jnp.array([1e30, 1e31]), alpha).rms
    assert relative_error(jnp.log10(far[1] / far[0]), -(2 * alpha - 0.5)) < 1e-6
    widths = jnp.logspace(2, 8, 13)
    fitted = np.polyfit(np.log(widths), np.log(theory.sharp_distance(problem, widths, alpha).rms), 1)[0]
    # Measured on another data draw; the data decide where the slope bends.
    assert abs(fitted - slope) < 0.02


def test_final_product_is_the_solution_plus_the_frozen_part_times_the_final_layer():
    case = CASES["eq30_final_decomposition"]
    problem = ld.LeastSquares(np.array(case["inputs"]["X"]), np.array(case["inputs"]["Y"]))
    U, V_inf = np.array(case["inputs"]["U"]), np.array(case["expected"]["V_inf"])
    frozen = U - np.asarray(problem.from_data(problem.to_data(jnp.asarray(U))))
    assert relative_error(problem.theta_hat, case["expected"]["Theta_hat"]) < 1e-13
    assert relative_error(frozen @ V_inf.T, case["expected"]["Phi2U2Vt_inf"]) < 1e-13
    assert relative_error(np.linalg.norm(frozen @ V_inf.T), case["expected"]["dist_fro"]) < 1e-13


def test_conditional_law_is_that_of_a_gaussian_frozen_part(rng):
    n, m, r, h, alpha, trials = 9, 2, 3, 20, 0.4, 4000
    problem = data_problem(r, m, n, rng)
    V = rng.normal(size=(m, h))
    law = theory.conditional_distance(problem, V, h, alpha)
    U2 = rng.normal(size=(trials, n - r, h)) * h**-alpha
    distance = np.linalg.norm(U2 @ V.T, axis=(1, 2))
    error = np.std(distance**2) / np.sqrt(trials)
    assert abs(np.mean(distance**2) - law.mean_square) < 4 * error
    assert abs(np.var(distance**2) / law.variance_square - 1) < 0.15  # four standard errors of a variance, kurtosis 6
    draws = theory.sample_distance(law, (trials,), key=jax.random.key(0))
    assert stats.ks_2samp(np.asarray(draws), distance).pvalue > 1e-3
    assert relative_error(law.mean_square, (n - r) * h ** (-2 * alpha) * np.sum(V**2)) < tolerance("float64")


def test_distance_is_zero_when_the_data_reach_every_direction(rng):
    problem = data_problem(3, 2, 3, rng)
    law = theory.conditional_distance(problem, rng.normal(size=(2, 4)), 4, 0.5)
    assert law.mean_square == 0
    assert np.all(theory.sample_distance(law, (5,), key=jax.random.key(0)) == 0)
    assert theory.sharp_distance(problem, 100, 0.5).rms == 0


def test_ntk_rescaling_agrees_with_the_reference():
    case = CASES["ntk_rescale_h4_alpha0.4"]
    inputs, expected = {k: np.array(v) for k, v in case["inputs"].items()}, case["expected"]
    problem = ld.LeastSquares(inputs["X"], inputs["Y"])
    model = ld.TwoLayer(inputs["U"], inputs["V"])
    scaled = theory.ntk_rescaling(model, problem, float(inputs["alpha"]))
    assert relative_error(problem.loss(model.product()), expected["L"]) < 1e-13
    assert relative_error(scaled.problem.loss(scaled.model.product()), expected["Ltilde"]) < 1e-13
    assert relative_error(scaled.time_factor, expected["time_factor"]) < 1e-13
    assert relative_error(scaled.prefactor, expected["output_scale_on_f"]) < 1e-13
    assert relative_error(jnp.sqrt(scaled.time_factor), expected["h_alpha"]) < 1e-13
    assert relative_error(model.velocity(problem).U, expected["dU"]) < 1e-13
    velocity = scaled.model.velocity(scaled.problem).U
    assert relative_error(velocity, expected["gradtilde_flow_dU"]) < 1e-13
    assert relative_error(scaled.time_factor * velocity, expected["dUtilde"]) < 1e-13


def test_ntk_rescaling_of_a_core_is_the_core_of_the_rescaling(rng):
    problem = data_problem(3, 2, 7, rng)
    U, V = rng.normal(size=(7, 9)), rng.normal(size=(2, 9))
    alpha = 0.4
    scaled = theory.ntk_rescaling(core(problem, U, V), problem, alpha)
    expected = core(problem, U * 9**alpha, V * 9**alpha)
    for a, b in zip(jax.tree.leaves(scaled.model), jax.tree.leaves(expected), strict=True):
        assert relative_error(a, b) < tolerance("float64", 10)


def test_invariant_set_needs_both_layers_orthogonal_to_the_frozen_rows(rng):
    n, m, r = 6, 2, 3
    problem = data_problem(r, m, n, rng)
    Phi = np.linalg.svd(np.asarray(problem.X))[2].T
    U1, V, U2 = (np.zeros((rows, 12)) for rows in (r, m, n - r))
    U1[:, :5], V[:, :5] = rng.normal(size=(r, 5)), rng.normal(size=(m, 5))
    U2[:, 5:9] = rng.normal(size=(n - r, 4))
    inside = ld.TwoLayer(Phi @ np.vstack([U1, U2]), V)
    half = ld.TwoLayer(Phi @ np.vstack([U1 + np.eye(r, 12, 6), U2]), V)
    assert bool(theory.invariant_set(inside, problem).applies)
    assert not bool(theory.invariant_set(half, problem).applies)
    assert relative_error(theory.invariant_set(half, problem).distance, np.linalg.norm(U2[:, 6:9])) < 1e-12
    for model in (inside, half):
        reduced = core(problem, np.asarray(model.U), np.asarray(model.V))
        assert bool(theory.invariant_set(reduced, problem).applies) == (model is inside)
    no_frozen = ld.TwoLayer(Phi @ np.vstack([U1, 0 * U2]), V)
    assert bool(theory.invariant_set(no_frozen, problem).applies)
    assert bool(theory.invariant_set(ld.TwoLayer(U1, V), ld.factorization(np.ones((r, m)))).applies)


def test_statements_are_traced_once_for_all_widths(rng):
    problem = data_problem(3, 2, 7, rng)

    @eqx.filter_jit
    @eqx.debug.assert_max_traces(max_traces=1)
    def statements(h, alpha, delta):
        return (
            theory.lemma11(problem, h, alpha, delta),
            theory.theorem12(problem, h, alpha, delta),
            theory.sharp_distance(problem, h, alpha),
        )

    for h in (10.0, 1e6, 1e12):
        values = statements(jnp.asarray(h), jnp.asarray(0.4), jnp.asarray(0.1))
        assert np.all(np.isfinite(jax.tree.leaves(values)[0]))


def test_statements_have_finite_derivatives(rng):
    problem = data_problem(3, 2, 7, rng)

    def log_rms(h, alpha):
        return jnp.log(theory.sharp_distance(problem, h, alpha).rms)

    h, alpha, step = 1e3, 0.4, 1e-4
    finite = (log_rms(h * np.exp(step), alpha) - log_rms(h * np.exp(-step), alpha)) / (2 * step)
    # A central difference with this step is good to its square.
    assert relative_error(h * jax.grad(log_rms)(h, alpha), finite) < 1e-7
    assert np.isfinite(jax.grad(lambda a: theory.theorem12(problem, h, a, 0.1).log_bound)(alpha))
