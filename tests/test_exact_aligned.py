"""Aligned components of G19 in closed form: reference values, the flow, extreme exponents, steps and plateaus."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Compiled, load_cases, relative_error, tolerance

import lindyn_jax as ld
from lindyn_jax.exact.aligned import _components

exact, theory = Compiled(ld.exact), Compiled(ld.theory)

CASES = load_cases("g19")

# (sigma, lam, d, t), w: to 17 digits, computed with 60 digits from the formula of Theorem 1.
HARD = (
    ((0.5, 0.25, 2.0, 0.0), 0.018315638888734180),
    ((0.5, 0.25, 400.0, 800.0), 0.66666666666666667),
    ((0.5, 0.25, 400.0, 790.0), 4.5398899209067159e-5),
    ((2.0, 0.5, -1.0, 3.0), 4.0000112724216744),
    ((0.0, 1.5, 0.5, 1e6), 3.3333303130229273e-7),
    ((0.0, 0.0, 0.75, 1e6), 0.22313016014842983),
    ((2.0**-20, 1.0, 1.0, 64.0), 0.0073865967932959646),
    ((-0.5, 1.0, 0.25, 8.0), 9.1956688131082620e-5),
    ((3.0, 0.0, 8.0, 2.0), 0.018315638888734180),
)


def integrated(problem, start, ts):
    options = {
        "rtol": 1e-11,
        "atol": 1e-13,
        "solver": "tsit5",
        "reduce": False,
        "max_steps": 4096,
        "keep_models": True,
    }
    return ld.gradient_flow(start, problem, ts, **options).models


def problem_with(Sx, Sxy, dtype=np.float64):
    """A problem with loss scale 1 whose X^T X and X^T Y are Sigma_x and Sigma_xy."""
    X = np.linalg.cholesky(np.asarray(Sx, float)).T
    return ld.LeastSquares(X.astype(dtype), np.linalg.solve(X.T, np.asarray(Sxy, float)).astype(dtype))


def test_layers_of_theorem_1_agree_with_the_reference(dtype):
    inputs, expected = CASES["thm1_square"]["inputs"], CASES["thm1_square"]["expected"]
    sigma, lam, d = (np.array(inputs[key], dtype) for key in ("sigma", "lam", "delta"))
    w = exact.aligned(sigma, lam, d, inputs["t"])
    assert w.dtype == dtype
    assert relative_error(w, expected["w"]) < tolerance(dtype)
    # The start is Phi diag(e^{-d}) Q, Q^T diag(e^{-d}) Psi^T: every column of Phi keeps its factor.
    growth = np.sqrt(np.asarray(w)) / np.exp(-d)
    Phi, _, PsiT = np.linalg.svd(np.array(inputs["Sxy"]))
    W1 = (Phi * growth) @ Phi.T @ np.array(inputs["W1_0"])
    W2 = np.array(inputs["W2_0"]) @ (PsiT.T * growth) @ PsiT
    for value, key in ((W1, "W1"), (W2, "W2"), ((Phi * np.asarray(w)) @ PsiT, "W")):
        assert relative_error(value, expected[key]) < tolerance(dtype), key


def test_without_orthogonality_the_closed_form_fails_and_the_flow_does_not():
    inputs, expected = (
        CASES["thm1_nonorthogonal_Q_counterexample"]["inputs"],
        CASES["thm1_nonorthogonal_Q_counterexample"]["expected"],
    )
    start = ld.TwoLayer(np.array(inputs["W1_0"]), np.array(inputs["W2_0"]).T)
    models = integrated(problem_with(inputs["Sx"], inputs["Sxy"]), start, jnp.array([float(inputs["t"])]))
    # An integration: the integrator's tolerance.
    assert relative_error(models.U[0], expected["W1"]) < 1e-9
    assert relative_error(models.V[0].T, expected["W2"]) < 1e-9
    sigma, lam = np.diag(inputs["Sxy"]), np.diag(inputs["Sx"])
    w = exact.aligned(sigma, lam, 1.0, inputs["t"])
    assert relative_error(w[:1], expected["formula_w_wrong"][:1]) < tolerance(np.float64)
    assert abs(w[0] - expected["W"][0][0]) > 5e-3


def test_rescaled_time_agrees_with_the_reference_and_its_limit(dtype):
    inputs, expected = CASES["thm2_cor1_rescaled"]["inputs"], CASES["thm2_cor1_rescaled"]["expected"]
    sigma, lam = np.array(inputs["sigma"], dtype), np.array(inputs["lam"], dtype)
    t = np.array(inputs["t"], dtype)[:, None]
    w = exact.aligned(sigma, lam, inputs["delta"], inputs["delta"] * t)
    # e^{2 d sigma t} turns a last digit of t into 2 d sigma t of them, up to 250.
    factor = 100
    assert relative_error(w, expected["w"]) < tolerance(dtype, factor)
    assert relative_error(jnp.sum(w**2, axis=1), expected["fro2"]) < tolerance(dtype, factor)
    assert relative_error(jnp.sum(w, axis=1), expected["nuclear"]) < tolerance(dtype, factor)
    step = exact.aligned_step(sigma, lam, t)
    assert bool(jnp.all(step.applies))
    assert relative_error(jnp.sum(step.value**2, axis=1), expected["fro2_limit"]) < tolerance(dtype)
    assert relative_error(jnp.sum(step.value, axis=1), expected["nuclear_limit"]) < tolerance(dtype)


def test_rescaled_time_tends_to_the_step_as_the_start_vanishes():
    sigma, lam = np.array([0.9, 0.5, 0.2, 0.0]), np.array([0.6, 1.1, 0.3, 0.7])
    jump = exact.aligned_jump_time(sigma)
    assert np.array_equal(jump.applies, sigma > 0) and np.allclose(jump.value[:3], 1 / sigma[:3])
    t = np.array([0.8, 1.0, 1.2])[:, None] * np.where(sigma > 0, 1 / np.where(sigma > 0, sigma, 1), 1)
    step = exact.aligned_step(sigma, lam, t)
    assert np.array_equal(step.applies[0], [True, True, True, False])
    assert np.allclose(step.value[1, :3], sigma[:3] / (lam[:3] + sigma[:3]))
    error = [jnp.max(jnp.abs(exact.aligned(sigma, lam, d, d * t) - step.value)) for d in (10.0, 30.0, 100.0)]
    assert error[0] < 0.1 and error[1] < 1e-4 and error[2] < 1e-13
    # From w(0) = e^{-d} the jump is at half the time.
    half = exact.aligned(0.9, 0.6, 50.0, 100.0 * np.array([0.49, 0.51]) / 0.9)
    assert half[0] < 0.5 and half[1] > 1.0


def test_autoencoder_of_figure_1_agrees_with_the_reference(dtype):
    inputs, rows = CASES["fig1_autoencoder"]["inputs"], CASES["fig1_autoencoder"]["expected"]["rows"]
    sigma, ts = np.array(inputs["sigma"], dtype), np.array(inputs["t"], dtype)
    problem = ld.LeastSquares(np.diag(np.sqrt(sigma)), np.diag(np.sqrt(sigma)))
    for row in rows:
        # The caption's start W1 W2 = e^{-d} I has half the exponent of Theorem 1's.
        d = row["delta"] / 2 if "caption" in row["init"] else row["delta"]
        w = exact.aligned(sigma, sigma, d, row["delta"] * ts[:, None])
        assert relative_error(jnp.sum(w**2, axis=1), row["fro2_two_layer"]) < tolerance(dtype), row["init"]
        linear = exact.linear(problem, np.exp(-row["delta"]) * np.eye(3), row["delta"] * ts)
        assert relative_error(jnp.sum(linear**2, axis=(1, 2)), row["fro2_linear"]) < tolerance(dtype), row["init"]


def test_plateaus_need_the_order_of_what_components_gain():
    case = CASES["cor2_counterexample"]
    inputs, expected = case["inputs"], case["expected"]
    sigma, lam = np.array(inputs["sigma"]), np.array(inputs["lam"])
    w = exact.aligned(sigma, lam, inputs["delta"], inputs["delta"] * inputs["t_rescaled"])
    assert relative_error(w, expected["W_flow_diag"]) < tolerance(np.float64)
    plateau = exact.plateau(sigma, lam, 1)
    assert not bool(plateau.applies) and np.array_equal(plateau.value, [0.25, 0.0])
    assert np.array_equal(exact.reduced_rank(sigma, lam, 1), np.diag(expected["W_rrr1"]))
    assert np.allclose(sigma**2 / lam, expected["sigma2_over_lambda"], rtol=1e-15)
    for value, key in ((w, "objective_flow"), (exact.reduced_rank(sigma, lam, 1), "objective_rrr")):
        assert abs(jnp.sum(lam * value**2 / 2 - sigma * value) - expected[key]) < 1e-12
    # With the hypothesis the two agree, in any order of the components.
    sigma, lam = np.array([0.5, 2.0, 1.0]), np.array([1.0, 2.0, 1.5])
    for k in range(4):
        plateau = exact.plateau(sigma, lam, k)
        assert bool(plateau.applies)
        assert np.array_equal(plateau.value, exact.reduced_rank(sigma, lam, k))


def test_every_digit_is_right_at_extreme_exponents(dtype):
    used = [case for case in HARD if dtype == np.float64 or abs(case[0][2]) < 40]
    w = exact.aligned(*np.array([case[0] for case in used], dtype).T)
    expected = np.array([case[1] for case in used])
    exponent = np.array([1 + 2 * abs(case[0][2]) + abs(case[0][0]) * case[0][3] for case in used])
    assert np.max(np.abs(np.asarray(w, float) / expected - 1) / exponent) < 4 * np.finfo(dtype).eps


@pytest.mark.slow
def test_components_agree_with_the_integrated_flow_and_its_gradient(rng):
    points = np.stack(
        [rng.uniform(0, 2, 44), rng.uniform(0.1, 2, 44), rng.uniform(-0.3, 3, 44), rng.uniform(0.2, 4, 44)], 1
    )
    points[:4, 0], points[4:8, 0] = 0.0, -points[4:8, 0]
    points[8:12, 2] = -0.5 * np.log(points[8:12, 0] / points[8:12, 1])  # start at the limit
    # There the integrator sees no error, and only a short time keeps its steps short enough for a derivative.
    points[8:12, 3] /= 8
    points = jnp.array(points)

    def flow(point):
        sigma, lam, d, t = point
        problem = ld.LeastSquares(jnp.sqrt(lam)[None, None], (sigma / jnp.sqrt(lam))[None, None], rank=1)

        # In pieces, for the same reason.
        def piece(weights, _):
            models = integrated(problem, ld.TwoLayer(weights[:1, None], weights[1:, None]), t[None] / 8)
            return jnp.stack([models.U[0, 0, 0], models.V[0, 0, 0]]), None

        return jnp.prod(jax.lax.scan(piece, jnp.exp(-d) * jnp.ones(2), None, length=8)[0])

    value, gradient = jax.jit(jax.vmap(jax.value_and_grad(lambda point: exact.aligned(*point))))(points)
    expected, expected_gradient = jax.jit(jax.vmap(jax.value_and_grad(flow)))(points)
    assert jnp.max(jnp.abs(value - expected)) < 1e-9
    assert jnp.max(jnp.abs(gradient - expected_gradient) / jnp.maximum(1, jnp.abs(expected_gradient))) < 1e-7


def test_time_zero_and_large_times_give_start_and_limit(rng, dtype):
    sigma, lam, d = (
        rng.uniform(-0.5, 2, 50).astype(dtype),
        rng.uniform(0.1, 2, 50).astype(dtype),
        rng.uniform(0, 5, 50).astype(dtype),
    )
    sigma[:3] = 0
    assert relative_error(exact.aligned(sigma, lam, d, 0.0) * np.exp(2 * d), np.ones(50)) < tolerance(dtype, 10)
    limit = exact.aligned_limit(sigma, lam, d)
    assert np.array_equal(limit.applies, sigma >= 0)
    late = exact.aligned(sigma, lam, d, 1e6)
    # Small sigma need longer; sigma = 0 decays like 1/t.
    assert np.max(np.abs(late - limit.value)[3:]) < tolerance(dtype, 10) and np.max(late[:3]) < 1e-5
    together = exact.aligned(0.7, 0.3, 2.0, np.array([0.0, 1.0, 9.0], dtype))
    assert np.array_equal(together, [exact.aligned(0.7, 0.3, 2.0, t) for t in np.array([0.0, 1.0, 9.0], dtype)])


def test_half_heights_are_reached_at_the_stated_times():
    sigma, lam, d = np.array([0.9, 0.5, 2.0, 1e-3]), np.array([0.6, 1.1, 0.3, 2.0]), np.array([3.0, 0.8, 400.0, 5.0])
    time = exact.aligned_half_time(sigma, lam, d)
    assert bool(jnp.all(time.applies))
    half = exact.aligned(sigma, lam, d, time.value)
    # The time is known to its last digit, which 2 sigma t = 800 makes larger.
    assert np.max(np.abs(half / (sigma / lam / 2) - 1)) < 1e-12
    assert np.array_equal(
        exact.aligned_half_time(np.array([0.5, 0.0, 1.0]), np.array([1.0, 1.0, 0.0]), 0.1).applies, [False] * 3
    )


def test_half_heights_behind_the_start_have_the_negative_time_of_the_formula():
    sigma, lam, d = np.array([1.0, 2.0, 0.5]), np.array([1.0, 1.5, 0.4]), np.array([0.2, 0.1, -0.05])
    time = exact.aligned_half_time(sigma, lam, d)
    assert not np.any(time.applies) and np.all(np.asarray(time.value) < 0)
    assert relative_error(time.value, (2 * d + np.log(sigma / lam - np.exp(-2 * d))) / (2 * sigma)) < 1e-13
    problem = ld.factorization(np.diag([1.0, 1.0]))
    assert relative_error(theory.learning_order(problem, 0.2).half_time, np.full(2, time.value[0])) < 1e-13
    # From above the limit there is no such path.
    assert exact.aligned_half_time(1.0, 1.0, -0.1).value == 0


def test_whole_numbers_of_any_size_are_numbers():
    assert exact.aligned(1.0, 2.0, 1.0, 2**70) == 0.5


def test_measured_rates_are_the_stated_ones():
    sigma, lam = np.array([0.9, 0.4, -0.6]), np.array([0.6, 1.1, 0.8])
    rate = exact.aligned_rate(sigma, lam)
    assert bool(jnp.all(rate.applies))
    assert not bool(exact.aligned_rate(0.0, 1.0).applies)
    ts = jnp.array([[9.0], [12.0]]) / np.abs(sigma)
    error = jnp.abs(exact.aligned(sigma, lam, 0.3, ts) - exact.aligned_limit(sigma, lam).value)
    measured = jnp.log(error[0] / error[1]) / (ts[1] - ts[0])
    assert jnp.max(jnp.abs(measured / rate.value - 1)) < 1e-3


def test_gradients_agree_with_central_differences(rng):
    points = np.stack(
        [rng.uniform(-0.5, 2, 40), rng.uniform(0, 2, 40), rng.uniform(-0.5, 3, 40), rng.uniform(0.1, 4, 40)], 1
    )
    points[:6, 0], points[6:10, 1], points[10:12, :2], points[12:15, 3] = 0, 0, 0, 0
    points[15:25, 0] = 10.0 ** -rng.uniform(2, 12, 10)
    step = 1e-5
    shifts = step * np.concatenate([np.eye(4), -np.eye(4)])
    derivatives = jax.jit(jax.vmap(jax.value_and_grad(lambda point: exact.aligned(*point))))
    _, gradient = derivatives(jnp.array(points))
    value, _ = derivatives(jnp.array(points[:, None, :] + shifts).reshape(-1, 4))
    value = value.reshape(len(points), 2, 4)
    expected = (value[:, 0] - value[:, 1]) / (2 * step)
    assert jnp.max(jnp.abs(gradient - expected) / jnp.maximum(1, jnp.abs(expected))) < 1e-6


def test_ten_thousand_degenerate_draws_give_no_nan(rng, dtype):
    size = 10_000
    tiny = [1e-300, 1e-160, 1e-8] if dtype == np.float64 else [1e-37, 1e-20, 1e-5]
    numbers = np.array([0.0, 0.5, 1.0, 30.0, 1e3, *tiny])
    draws = np.stack(
        [
            rng.choice([-1, 1], size) * rng.choice(numbers, size),
            rng.choice(numbers, size),
            rng.choice([-1.0, 0.0, 0.5, 5.0, 40.0, 300.0, 1e4], size),
            rng.choice([*numbers, 1e6], size),
        ],
        axis=1,
    )

    def everything(point):
        sigma, lam, d, t = point
        numbers = (
            exact.aligned(*point),
            exact.aligned_half_time(sigma, lam, d).value,
            exact.aligned_step(sigma, lam, t).value,
        )
        numbers = jnp.stack(numbers)
        return numbers, numbers

    gradients, values = jax.jit(jax.vmap(jax.jacrev(everything, has_aux=True)))(jnp.array(draws, dtype))
    assert values.dtype == gradients.dtype == dtype
    for array in (values, gradients):
        bad = ~np.isfinite(np.asarray(array)).reshape(size, -1).all(axis=1)
        assert not bad.any(), draws[bad][:5]


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="Argument `lam` must not be negative"):
        ld.exact.aligned(1.0, -1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="Argument `t` must not be negative"):
        ld.exact.aligned(1.0, 1.0, 1.0, -1.0)
    with pytest.raises(ValueError, match="Argument `k` must lie between 0 and p = 2"):
        ld.exact.plateau(np.ones(2), np.ones(2), 3)
    with pytest.raises(ValueError, match="must have the same shape"):
        _components(np.ones(2), np.ones(3), 1)
