"""Descent of one component against its flow: rates, stability, bounds at every step, and the times of the jumps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Compiled, load_cases, relative_error, tolerance

import lindyn_jax as ld

exact, theory = Compiled(ld.exact), Compiled(ld.theory)

CASES = load_cases("g19")


def ends(bounds):
    return bounds.lower, bounds.upper


def components(sigma, lam, w0, eta, steps):
    """The component of G19's descent after 0, ..., `steps` steps, in NumPy; the arguments broadcast."""
    u = np.sqrt(np.asarray(w0, float)) * np.ones(np.broadcast_shapes(*map(np.shape, (sigma, lam, w0, eta))))
    path = [u**2]
    for _ in range(steps):
        u = u + eta * u * (sigma - lam * u**2)
        path.append(u**2)
    return np.array(path)


def test_tied_step_is_descent_on_tied_layers():
    sigma, x, eta = 0.8, 0.3, 0.1
    problem, model = ld.factorization(np.array([[sigma]])), ld.SymmetricFactors(np.array([[np.sqrt(x)]]))
    for _ in range(5):
        model = ld.SymmetricFactors(model.U + eta * model.velocity(problem).U)
        x = theory.tied_descent_step(x, sigma, eta)
        assert abs(x - model.product()[0, 0]) < tolerance(np.float64)


def test_measured_tied_factors_are_the_stated_ones():
    sigma = np.array([0.8, 0.8, 0.8, 2.0, -0.6, -0.6])
    eta = np.array([0.05, 0.3, 0.6, 0.01, 0.1, 1.2])
    rate = theory.tied_descent_rate(sigma, eta)
    assert bool(jnp.all(rate.applies))
    assert relative_error(rate.flow_rate, 4 * np.abs(sigma)) < 1e-15
    limit = np.maximum(sigma, 0)
    x = np.where(sigma > 0, sigma + 1e-7, 1e-7)
    stepped = x * (1 + 2 * eta * (sigma - x)) ** 2
    assert np.max(np.abs((stepped - limit) / (x - limit) - rate.factor)) < 1e-5
    assert relative_error(rate.rate, -np.log(np.abs(rate.factor)) / eta) < tolerance(np.float64)


def test_tied_descent_tends_to_the_flow_from_above():
    eta = np.array([1e-1, 1e-3, 1e-6, 1e-12])
    for sigma in (0.7, -0.7):
        rate = theory.tied_descent_rate(sigma, eta)
        assert bool(jnp.all(rate.applies)) and bool(jnp.all(rate.rate > rate.flow_rate))
        # The excess is 8 sigma^2 eta for sigma > 0, and half of it for sigma < 0.
        share = 8 * sigma**2 * (1 if sigma > 0 else 0.5)
        assert np.max(np.abs((rate.rate - rate.flow_rate)[1:3] / (share * eta[1:3]) - 1)) < 1e-2
        assert abs(rate.rate[3] / rate.flow_rate[3] - 1) < 1e-11


@pytest.mark.parametrize(("sigma", "edge"), [(0.8, 1 / 1.6), (-0.6, 1 / 0.6)])
def test_tied_descent_is_stable_exactly_up_to_the_stated_step(sigma, edge):
    assert bool(theory.tied_descent_rate(sigma, 0.99 * edge).applies)
    assert not bool(theory.tied_descent_rate(sigma, 1.01 * edge).applies)
    limit = max(sigma, 0)
    for share, stable in ((0.99, True), (1.01, False)):
        x = limit + 1e-6
        for _ in range(2000):
            # Unstable ones may run off to infinity.
            x = min(x * (1 + 2 * share * edge * (sigma - x)) ** 2, 1e3)
        assert (abs(x - limit) < 1e-9) == stable


def test_one_layer_has_its_own_factor_and_edge():
    eta = np.array([1e-9, 0.5, 1.0, 1.9, 2.1, -0.1])
    rate = theory.linear_descent_step_rate(1.0, eta)
    assert np.array_equal(rate.applies, [True] * 4 + [False] * 2)
    assert relative_error(rate.factor, 1 - eta) < 1e-15
    assert abs(rate.rate[0] - 1) < 1e-8 and rate.rate[2] == np.inf
    problem = ld.factorization(np.ones((1, 1)))
    by_problem = exact.linear_descent_rate(problem, 0.5)
    assert abs(rate.rate[1] * 0.5 - by_problem.value) < 1e-15


def test_one_step_beyond_the_printed_upper_bound_agrees_with_the_reference():
    inputs, expected = (CASES["thm3_upper_bound_violated_one_step"][key] for key in ("inputs", "expected"))
    arguments = [inputs[key] for key in ("sigma", "lam", "w0", "eta")]
    w = components(*arguments, expected["t"])[-1]
    bounds = theory.descent_bounds(*arguments, expected["t"])
    assert bool(bounds.applies)
    assert abs(w - expected["w"]) < 1e-12
    assert abs(bounds.lower - expected["sharp_lower"]) < 1e-12
    assert abs(bounds.upper - min(expected["sharp_upper"], expected["growth_upper"])) < 1e-12
    assert expected["paper_upper"] < w <= bounds.upper


def test_corrected_bounds_hold_at_every_step_of_a_grid():
    sigma, lam, share, x = (
        a.ravel()
        for a in np.meshgrid(
            [0.2, 1.0, 5.0], [0.1, 1.0, 4.0], [1e-12, 1e-4, 0.3, 0.9, 1.0], [1e-3, 0.05, 0.2, 0.4, 0.49]
        )
    )
    w0, eta = share * sigma / lam, x / sigma
    w = components(sigma, lam, w0, eta, 400)
    bounds = theory.descent_bounds(sigma, lam, w0, eta, np.arange(401)[:, None])
    # At share = 1 the start is at the limit to the last digit, on either side of the hypothesis.
    used = np.asarray(bounds.applies)
    assert np.all(used[:, share < 1])
    round_off = 1e-12 * w
    assert np.all((bounds.lower <= w + round_off) | ~used) and np.all((w <= bounds.upper + round_off) | ~used)
    assert np.all((bounds.upper <= sigma / lam * (1 + 1e-15)) | ~used)
    # They are sharp at the start, and at the end.
    assert relative_error(bounds.lower[0, share < 1], w0[share < 1]) < 1e-12
    assert relative_error(bounds.upper[0, share < 1], w0[share < 1]) < 1e-12


def test_the_growth_bound_does_not_overflow():
    bounds = theory.descent_bounds(1.0, 1.0, np.array([1e-200, 1e-3]), 0.4, np.array([[0.0], [10.0], [1e3], [1e9]]))
    assert bool(jnp.all(bounds.applies))
    assert bool(jnp.all(jnp.isfinite(bounds.upper) & (bounds.lower <= bounds.upper * (1 + 1e-12))))
    assert np.allclose(bounds.upper[-1], 1.0) and np.allclose(bounds.lower[-1], 1.0)
    gradient = jax.grad(lambda w0: theory.descent_bounds(1.0, 1.0, w0, 0.4, 1e9).upper)(1e-200)
    assert np.isfinite(gradient)


def test_hypotheses_of_the_bounds_are_told():
    arguments = np.array(
        [
            (1.0, 1.0, 0.5, 0.4),
            (1.0, 1.0, 0.5, 0.5),  # step too large
            (1.0, 1.0, 1.5, 0.4),  # starts above
            (0.0, 1.0, 0.5, 0.4),  # no target
            (1.0, 1.0, 0.0, 0.4),  # never starts
        ]
    ).T
    bounds = theory.descent_bounds(*arguments, 3)
    assert np.array_equal(bounds.applies, [True, False, False, False, False])
    assert not np.any(bounds.upper[1:])


def test_bounds_without_a_target_agree_with_the_reference(dtype):
    inputs, expected = (CASES["gd_zero_sigma_bounds"][key] for key in ("inputs", "expected"))
    lam, w0, eta = (np.asarray(inputs[key], dtype) for key in ("lam", "w0", "eta"))
    steps = np.array(inputs["steps"])
    bounds = theory.zero_mode_bounds(lam, w0, eta, steps)
    assert bounds.lower.dtype == dtype and bool(jnp.all(bounds.applies))
    assert relative_error(bounds.lower, expected["lower"]) < tolerance(dtype)
    assert relative_error(bounds.upper, expected["upper"]) < tolerance(dtype)
    w = components(0.0, inputs["lam"], inputs["w0"], inputs["eta"], 100)[steps]
    assert relative_error(w, expected["w"]) < 1e-12


def test_bounds_without_a_target_hold_up_to_the_stated_start():
    a = np.array([0.0, 1e-6, 0.1, 0.5, 0.99, 1.2, 1.5])
    w = components(0.0, 1.0, a, 1.0, 300)
    bounds = theory.zero_mode_bounds(1.0, a, 1.0, np.arange(301)[:, None])
    assert bool(jnp.all(bounds.applies))
    assert np.all(bounds.lower <= w * (1 + 1e-12)) and np.all(w <= bounds.upper * (1 + 1e-12))
    assert not bool(theory.zero_mode_bounds(1.0, 1.6, 1.0, 1).applies)
    assert components(0.0, 1.0, 1.6, 1.0, 1)[1] > 1.6 / (1 + 3.2)


def test_a_component_steps_as_descent_on_its_layers_does():
    sigma, lam, w, eta = 0.8, 1.7, np.array([0.0, 0.1, 0.9]), 0.3
    assert (
        relative_error(theory.descent_component_step(w, sigma, lam, eta), components(sigma, lam, w, eta, 1)[1]) < 1e-14
    )
    assert theory.descent_component_step(0.2, 0.4, 2.0, 0.3) == 0.2
    with pytest.raises(ValueError, match="Argument `w` must not be negative"):
        ld.theory.descent_component_step(-0.1, 1.0, 1.0, 0.1)


def test_measured_component_rate_is_the_stated_one():
    eta = np.array([0.05, 0.2, 0.45])
    rate = theory.descent_component_rate(0.9, eta)
    assert bool(jnp.all(rate.applies))
    steps = np.ceil(12 / np.asarray(rate.value)).astype(int)
    for k in range(3):
        path = 0.9 / 0.6 - components(0.9, 0.6, 0.3, eta[k], steps[k] + 4)
        measured = np.log(np.abs(path[steps[k]] / path[steps[k] + 4])) / 4
        assert abs(measured / rate.value[k] - 1) < 1e-3
    assert not bool(theory.descent_component_rate(0.9, 1.2).applies)


def test_jumps_come_at_the_stated_steps_without_a_gap_between_targets():
    # The second pair is closer than the condition on gaps of the paper allows.
    sigma, d = np.array([1.0, 0.95, 0.3]), 300.0
    for eta in (0.01, 0.2, 0.45):
        jump = theory.jump_steps(sigma, eta)
        assert bool(jnp.all(jump.applies))
        for s, T in zip(sigma, np.asarray(jump.value), strict=True):
            log_w, path = -2 * d, []
            for _ in range(int(1.1 * d * T)):
                path.append(log_w)
                log_w += 2 * np.log1p(eta * (s - 0.8 * np.exp(log_w)))
            w = np.exp(path)
            assert w[int(0.97 * d * T)] < 1e-3 * s / 0.8 and w[int(1.03 * d * T)] > 0.9 * s / 0.8
    assert not bool(theory.jumps_are_separate(sigma[:2], 0.2)) and bool(theory.jumps_are_separate(sigma[1:], 0.2))
    assert not np.any(theory.jump_steps(sigma, 0.51).applies)
    stuck = theory.jump_steps(np.array([1.0, 0.0]), 0.1)
    assert np.array_equal(stuck.applies, [True, False]) and stuck.value[1] == np.inf


def test_half_height_steps_of_figure_2_follow_the_jump_times():
    sigma = np.array([53.5, 4.78, 2.88, 0.894, 0.199])
    steps = 5 * theory.jump_steps(sigma, 0.4 / 53.5).value
    # As published beside the figure's data, to the digits given there; sigma itself has three.
    assert np.max(np.abs(steps / np.array([14.9, 142.5, 234.5, 750.7, 3364.4]) - 1)) < 3e-3


def test_gradients_agree_with_central_differences(rng):
    def everything(p):
        sigma, lam, w0, eta = p
        bounds, zero = theory.descent_bounds(sigma, lam, w0, eta, 7.0), theory.zero_mode_bounds(lam, w0, eta, 7.0)
        rate, one = theory.tied_descent_rate(sigma, eta), theory.linear_descent_step_rate(lam, eta)
        numbers = jnp.stack([bounds.lower, bounds.upper, zero.lower, zero.upper, rate.rate, rate.factor, one.rate])
        return numbers, numbers

    points = np.stack(
        [rng.uniform(0.5, 1, 30), rng.uniform(0.3, 1, 30), rng.uniform(0.05, 0.3, 30), rng.uniform(0.05, 0.2, 30)], 1
    )
    shifts = 1e-6 * np.concatenate([np.eye(4), -np.eye(4)])
    around = points[:, None, :] + np.concatenate([np.zeros((1, 4)), shifts])
    both = jax.jit(jax.vmap(jax.jacrev(everything, has_aux=True)))(around.reshape(-1, 4))
    gradient, value = (np.asarray(part).reshape(30, 9, *part.shape[1:]) for part in both)
    expected = np.moveaxis((value[:, 1:5] - value[:, 5:]) / 2e-6, 1, -1)
    assert np.max(np.abs(gradient[:, 0] - expected) / np.maximum(1, np.abs(expected))) < 1e-6


def test_degenerate_arguments_give_no_nan(rng, dtype):
    numbers = np.array(
        [0.0, 1e-300, 1e-160, 1e-8, 0.25, 0.5, 1.0, 2.0, 1e3]
        if dtype == np.float64
        else [0, 1e-37, 1e-20, 0.25, 0.5, 1, 2, 1e3]
    )
    draws = rng.choice(numbers, (10_000, 5))

    def everything(p):
        sigma, lam, w0, eta, t = p
        bounds, zero = theory.descent_bounds(sigma, lam, w0, eta, t), theory.zero_mode_bounds(lam, w0, eta, t)
        every = theory.g19_theorem3(sigma, lam, w0, eta, t)
        numbers = jnp.stack([*ends(bounds), *ends(zero), *ends(every), theory.tied_descent_rate(sigma, eta).factor])
        return numbers, numbers

    gradients, values = jax.jit(jax.vmap(jax.jacrev(everything, has_aux=True)))(jnp.array(draws, dtype))
    for array in (values, gradients):
        bad = np.isnan(np.asarray(array)).reshape(10_000, -1).any(axis=1)
        assert not bad.any(), draws[bad][:5]


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="Argument `w0` must not be negative"):
        ld.theory.descent_bounds(1.0, 1.0, -0.1, 0.1, 1)
    with pytest.raises(ValueError, match="Argument `x` must not be negative"):
        ld.theory.tied_descent_step(-1.0, 1.0, 0.1)
    with pytest.raises(ValueError, match="Argument `sigma` must be finite"):
        ld.theory.jump_steps(np.array([np.nan]), 0.1)


# -- every case of Theorem 3 -----------------------------------------------------------------------------------------------

GRID = np.stack(
    [
        a.ravel()
        for a in np.meshgrid([0.5, 1, 2], [0.5, 1, 4], [1e-4, 1e-2, 0.1, 0.5, 0.9], [0.01, 0.1, 0.2, 0.3, 0.4, 0.49])
    ]
)


def test_no_bound_is_crossed_in_270_cells_in_225_of_which_the_printed_one_is():
    sigma, lam, share, x = GRID
    assert sigma.size == 270
    w0, eta, steps = share * sigma / lam, x / sigma, np.arange(401)[:, None]
    w = components(sigma, lam, w0, eta, 400)
    bounds = theory.g19_theorem3(sigma, lam, w0, eta, steps)
    assert bool(jnp.all(bounds.applies))
    round_off = 1e-12 * w
    assert np.all(bounds.lower <= w + round_off) and np.all(w <= bounds.upper + round_off)
    printed = sigma * w0 / ((sigma - lam * w0) * np.exp(-(2 * x + x**2) * steps) + lam * w0)
    expected = CASES["thm3_upper_bound_violated_one_step"]["expected"]
    cell = np.argmin(np.abs(sigma - 1) + np.abs(lam - 1) + np.abs(share - 0.9) + np.abs(x - 0.4))
    assert abs(printed[1, cell] - expected["paper_upper"]) < 1e-12
    # By more than a millionth, within 400 steps; by anything at all in 252 of them.
    assert np.sum(np.any(w > printed * (1 + 1e-6), axis=0)) == 225


def test_simulated_flow_and_descent_obey_closed_form_and_bounds_in_270_cells():
    sigma, lam, share, x = (jnp.array(row) for row in GRID)
    w0 = share * sigma / lam
    save_at = np.array([1, 3, 10, 30, 100])

    def cell(sigma, lam, w0, eta):
        problem = ld.LeastSquares(jnp.sqrt(lam)[None, None], (sigma / jnp.sqrt(lam))[None, None], rank=1)
        start = ld.TwoLayer(jnp.sqrt(w0)[None, None], jnp.sqrt(w0)[None, None])
        product = {"w": lambda model, problem: model.product()[0, 0]}
        gd = ld.gradient_descent(
            start, problem, 100, optimizer=ld.plain_descent(eta), save_at=save_at, observables=product, reduce=False
        )
        flow = ld.gradient_flow(
            start, problem, eta * save_at, observables=product, solver="tsit5", reduce=False, rtol=1e-10, atol=1e-13
        )
        return gd.observables["w"], flow.observables["w"]

    descent, flow = jax.jit(jax.vmap(cell))(sigma, lam, w0, x / sigma)
    steps = save_at[:, None]
    assert relative_error(descent.T, components(sigma, lam, w0, x / sigma, 100)[save_at]) < 1e-12
    bounds = theory.g19_theorem3(sigma, lam, w0, x / sigma, steps)
    assert np.all(bounds.lower <= descent.T * (1 + 1e-12)) and np.all(bounds.upper * (1 + 1e-12) >= descent.T)
    # The integrator's own tolerance.
    closed = exact.aligned(sigma, lam, -jnp.log(w0) / 2, x / sigma * steps)
    assert jnp.max(jnp.abs(flow.T / closed - 1)) < 1e-8


def test_bounds_hold_from_above_the_limit_without_a_target_and_away_from_it():
    sigma, lam, w0, x = (
        a.ravel()
        for a in np.meshgrid([1.0, 0.5, 0.0, -0.5], [0.5, 2.0], [0.05, 0.6, 2.5, 9.0], [0.01, 0.05, 0.1, 0.3, 0.45])
    )
    eta = x / np.maximum(np.abs(sigma), 0.2)
    with np.errstate(over="ignore", invalid="ignore"):
        # Outside of the hypotheses descent runs off.
        w = components(sigma, lam, w0, eta, 300)
    bounds = theory.g19_theorem3(sigma, lam, w0, eta, np.arange(301)[:, None])
    used = np.asarray(bounds.applies[0])
    above = (sigma > 0) & (lam * w0 > sigma)
    # Each case occurs, and outside of the hypotheses there are cells as well.
    assert min(np.sum(used & above), np.sum(used & (sigma == 0)), np.sum(used & (sigma < 0))) >= 5
    assert np.sum(~used & above) >= 3
    round_off = 1e-12 * np.abs(w) + 1e-300
    assert np.all((bounds.lower <= w + round_off) | ~used) and np.all((w <= bounds.upper + round_off) | ~used)
    # Without a target the lower bound is 0 for large steps.
    sharp = used & (sigma != 0)
    assert relative_error(bounds.lower[0, sharp], w0[sharp]) < 1e-12
    assert relative_error(bounds.upper[0, used], w0[used]) < 1e-12
    # The hypothesis above the limit is exact: one step beyond it passes the limit.
    a = 3.0
    edge = 1 / (a + np.sqrt(a))
    assert bool(theory.g19_theorem3(1.0, 1.0, a, 0.999 * edge, 1).applies)
    assert not bool(theory.g19_theorem3(1.0, 1.0, a, 1.001 * edge, 1).applies)
    assert components(1.0, 1.0, a, 0.999 * edge, 1)[1] > 1 > components(1.0, 1.0, a, 1.001 * edge, 1)[1]


def test_bounds_from_tiny_starts_have_finite_derivatives_in_float32():
    steps = np.array([0, 1, 10, 100, 1000], np.float32)
    bounds = lambda a, t: jnp.stack(ends(theory.descent_bounds(*a, t)))  # noqa: E731
    point = np.array([0.5, 1e-12, 1e-20, 0.5], np.float32)
    value, gradient = (
        jax.jit(jax.vmap(f, (None, 0)))(point, steps) for f in (bounds, jax.jacrev(bounds, argnums=(0, 1)))
    )
    assert all(np.all(np.isfinite(g)) for g in gradient)
    exactly = theory.descent_bounds(*point.astype(float), steps)
    # An exponent of about a hundred.
    for ours, expected in zip(value.T, ends(exactly), strict=True):
        assert relative_error(ours / expected, np.ones(5)) < tolerance("float32", 10)


def test_bounds_from_far_above_a_small_limit_keep_their_digits(dtype):
    sigma, steps = np.array([1e-3, 1e-8, 1e-12, 1e-18])[:, None], np.array([0, 10, 1000])
    w = components(sigma, 1.0, 0.9, 1e-3, 1000)[steps, :, 0].T

    @jax.jit
    def everything(sigma):
        bounds, pullback = jax.vjp(lambda s: ends(theory.g19_theorem3(s, 1.0, 0.9, 1e-3, steps)), sigma)
        return *bounds, theory.g19_theorem3(sigma, 1.0, 0.9, 1e-3, steps).applies, pullback(bounds)[0]

    lower, upper, applies, gradient = map(np.asarray, everything(sigma.astype(dtype)))
    assert lower.dtype == dtype and np.all(applies) and np.all(np.isfinite(gradient))
    round_off = tolerance(dtype, 10)
    assert np.all(lower <= w * (1 + round_off)) and np.all(w <= upper * (1 + round_off))
    # The two differ by eta w0 a step, relatively, at most.
    assert np.max(upper / lower) < 1 + 1e-3


def test_a_component_without_curvature_grows_as_stated_until_it_overflows():
    bounds = theory.g19_theorem3(1.0, 0.0, 1e-3, 0.25, np.array([0.0, 3.0, 50.0, 1e5]))
    assert np.array_equal(bounds.applies, [True, True, True, False])
    assert np.allclose(bounds.lower[:3], 1e-3 * 1.25 ** (2 * np.array([0, 3, 50])), rtol=1e-12)
    assert np.array_equal(bounds.lower, bounds.upper)


def test_step_limit_of_descent_is_reached_as_the_start_vanishes():
    sigma, lam, eta = np.array([1.0, 0.9, 0.3, 0.0]), np.array([0.8, 0.5, 1.2, 1.0]), 0.3
    T = np.array([*(1 / np.log1p(eta * sigma[:3])), 10.0])
    d = 600.0
    for factor in (0.98, 1.02):
        limit = theory.descent_step_limit(sigma, lam, eta, factor * T)
        assert bool(jnp.all(limit.applies))
        for s, l, t, expected in zip(sigma, lam, factor * T, np.asarray(limit.value), strict=True):
            log_w = -2 * d
            for _ in range(int(d * t)):
                log_w += 2 * np.log1p(eta * (s - l * np.exp(log_w)))
            assert abs(np.exp(log_w) - expected) < 1e-3
    assert not np.any(theory.descent_step_limit(sigma[:3], lam[:3], eta, T[:3]).applies)


def test_separation_steps_are_the_root_of_the_condition_and_below_it_the_jumps_are_separate():
    sigma = np.array([2.0, 1.9, 1.0, 0.99999, 0.2, 1e-6, 0.0])
    steps = theory.separation_steps(sigma)
    assert np.array_equal(steps.applies, [True] * 5 + [False]) and steps.exact[-1] == np.inf
    root = np.asarray(steps.exact[:5])
    # At the root both sides agree; the second pair is so close that they cancel to a few digits.
    assert np.max(np.abs(np.log1p(root * sigma[:5]) / (root * sigma[1:6]) - 1)) < 1e-10
    assert np.all(steps.sufficient[:5] <= root * (1 + 1e-6))
    assert steps.sufficient[0] > 0.9 * root[0]
    for i in (0, 2):
        pair, edge = sigma[i : i + 2], root[i]
        assert bool(theory.jumps_are_separate(pair, 0.99 * edge)) and not bool(
            theory.jumps_are_separate(pair, 1.01 * edge)
        )
    assert np.array_equal(theory.separation_steps(np.ones(2)).exact, [0.0])
    edge = lambda s: theory.separation_steps(s).exact[0]  # noqa: E731
    ends, gradient = jax.jit(jax.vmap(jax.value_and_grad(edge)))(
        sigma[:2] + 1e-6 * np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
    )
    expected = (ends[1::2] - ends[2::2]) / 2e-6
    assert np.max(np.abs(gradient[0] / expected - 1)) < 1e-6


# -- two layers in general -------------------------------------------------------------------------------------------------


def random_cases(rng, count, N=7, n=5, m=3, h=4, dtype=np.float64):
    """Random data and starts of one shape, some of the data of rank 5."""
    X, Y = rng.normal(size=(count, N, n)), rng.normal(size=(count, N, m))
    U, V = rng.normal(size=(count, n, h)), rng.normal(size=(count, m, h))
    return [jnp.array(a, dtype) for a in (X, Y, U, V)]


def build(X, Y, U, V):
    return ld.TwoLayer(U, V), ld.LeastSquares(X, Y, scale=0.3, output_scale=1.4, rank=5)


def stepped(model, problem, eta):
    velocity = model.velocity(problem)
    return ld.TwoLayer(model.U + eta * velocity.U, model.V + eta * velocity.V)


@jax.jit
def descended(model, problem, eta, steps):
    return jax.lax.fori_loop(0, steps, lambda _, model: stepped(model, problem, eta), model)


def test_imbalance_moves_in_one_step_by_the_stated_spectrum(rng, dtype):
    def both(X, Y, U, V):
        model, problem = build(X, Y, U, V)
        drift = theory.drift_spectrum(model, problem, 0.02)
        after = stepped(model, problem, 0.02)
        D = [problem.to_data(x.U).T @ problem.to_data(x.U) - x.V.T @ x.V for x in (after, model)]
        return drift, D[0] - D[1], theory.drift_spectrum(ld.reduce(model, problem), problem, 0.02).norm

    drift, change, reduced = jax.jit(jax.vmap(both))(*random_cases(rng, 20, dtype=dtype))
    expected = np.linalg.eigvalsh(np.asarray(change))[:, ::-1]
    # D itself, of size 10, cancels.
    assert np.max(np.abs(drift.spectrum - expected)) < tolerance(dtype, 100)
    assert relative_error(drift.norm, np.linalg.norm(change, axis=(1, 2))) < tolerance(dtype, 100)
    assert relative_error(reduced, drift.norm) < tolerance(dtype, 100)
    assert drift.spectrum.dtype == dtype


def test_drift_over_a_fixed_time_is_proportional_to_the_step(rng):
    model, problem = build(*(a[0] for a in random_cases(rng, 1)))
    drift = []
    for eta, steps in ((2e-4, 500), (1e-4, 1000)):
        after = descended(model, problem, eta, steps)
        drift.append(float(ld.observables.imbalance_drift(after, problem, model)))
    assert abs(drift[0] / drift[1] - 2) < 0.05
    steep = jax.jit(jax.grad(lambda eta: theory.drift_spectrum(model, problem, eta).norm))(0.1)
    assert abs(steep - 2 * theory.drift_spectrum(model, problem, 0.1).norm / 0.1) < 1e-9 * abs(steep)


def test_stability_limit_is_where_descent_leaves_a_solution(rng):
    def solution(X, Y, U, V):
        Theta = U @ V.T
        problem = ld.LeastSquares(X, 1.4 * X @ Theta, scale=0.3, output_scale=1.4, rank=5)
        return ld.TwoLayer(U, V), problem

    X, Y, U, V = random_cases(rng, 8)

    def limits(X, Y, U, V, size):
        model, problem = solution(X, Y, U, V)
        model = ld.TwoLayer(size * model.U, size * model.V)
        steps = [ld.stable_step(model, problem, 1.0, at=at) for at in ("solution", "state", "path")]
        return *steps, theory.sharpness(model, problem).applies

    # The last one is no solution, but the saddle: nothing is steep there.
    last = np.arange(8) == 7
    step, here, along, applies = map(np.asarray, jax.jit(jax.vmap(limits))(X, Y, U, V, 1.0 * ~last))
    assert np.all(applies == ~last) and step[-1] == np.inf
    step, here, along, X, Y, U, V = (a[:-1] for a in (step, here, along, X, Y, U, V))
    assert np.all(along <= step)
    X, U, V = (np.asarray(a) for a in (X, U, V))
    # Without a residual the Hessian is J^T J: J moves the outputs by a move of either layer.
    J = [np.concatenate([np.kron(x, v), np.kron(x @ u, np.eye(3))], axis=1) for x, u, v in zip(X, U, V, strict=True)]
    sharpest = 0.3 * 1.4**2 * np.linalg.svd(J, compute_uv=False)[:, 0] ** 2
    assert np.max(np.abs(step * sharpest / 2 - 1)) < 1e-10 and np.max(np.abs(here * sharpest / 2 - 1)) < 1e-10
    left = []
    for factor in (0.95, 1.05):
        A, B = U[0] * (1 + 1e-6), V[0]
        errors = []
        for _ in range(301):
            error = X[0] @ (A @ B.T - U[0] @ V[0].T)
            errors.append(np.sum(error**2))
            G = factor * step[0] * 0.3 * 1.4**2 * X[0].T @ error
            A, B = A - G @ B, B - G.T @ A
        left.append(errors[-1] / errors[0])
    assert left[0] < 1e-6 and left[1] > 1e3
    model, problem = jax.jit(solution)(X[0], Y[0], U[0], V[0])
    with pytest.raises(ValueError, match="`at` must be one of 'path', 'solution', 'state', but is 'end'"):
        ld.stable_step(model, problem, at="end")
    with pytest.raises(ValueError, match="`stable_step` is for two-layer models"):
        ld.stable_step(ld.DeepLinear((model.U, np.eye(4), model.V.T)), problem)


def test_loss_along_the_gradient_is_the_stated_quartic(rng, dtype):
    etas = np.array([0.0, 1e-3, 0.02, 0.1], dtype)

    def both(X, Y, U, V):
        model, problem = build(X, Y, U, V)
        c = theory.step_polynomial(model, problem)
        losses = [ld.observables.excess_loss(stepped(model, problem, eta), problem) for eta in etas]
        return jnp.polyval(c[::-1], etas), jnp.stack(losses)

    value, expected = jax.jit(jax.vmap(both))(*random_cases(rng, 20, dtype=dtype))
    assert value.dtype == dtype
    assert np.max(np.abs(value / expected - 1)) < tolerance(dtype, 10)


def test_line_search_finds_the_global_minimum_along_the_gradient(rng):
    X, Y, U, V = random_cases(rng, 200)
    # From tiny and from huge weights, and with a target that one step may solve.
    size = jnp.array(10.0 ** rng.uniform(-3, 1.5, 200))[:, None, None]
    U, V = U * size, V * size

    def search(X, Y, U, V):
        model, problem = build(X, Y, U, V)
        found = theory.line_search(model, problem)
        after = ld.observables.excess_loss(stepped(model, problem, found.step), problem)
        return found, after, theory.line_search(ld.reduce(model, problem), problem).step

    found, after, reduced = jax.jit(jax.vmap(search))(X, Y, U, V)
    assert bool(jnp.all(found.applies)) and bool(jnp.all(found.step > 0))
    assert np.max(np.abs(after / found.excess_loss - 1)) < 1e-9
    assert np.max(np.abs(reduced / found.step - 1)) < 1e-9
    local_minima = 0
    for c, step, value in zip(
        *(np.asarray(a) for a in (found.coefficients, found.step, found.excess_loss)), strict=True
    ):
        # Independent: eigenvalues of the companion matrix, in units of the step.
        scaled = c * step ** np.arange(5)
        roots = np.roots((scaled * np.arange(5))[:0:-1])
        real = roots[np.abs(roots.imag) < 1e-7].real
        real = real[real > 0]
        least = min(np.polyval(scaled[::-1], z) for z in real)
        # The polynomial cancels by up to L(0)/L(step).
        assert abs(value - least) < 1e-10 * scaled[0]
        assert np.min(np.abs(real - 1)) < 1e-7
        local_minima += len(real) == 3
    assert local_minima >= 3


def test_line_search_stops_where_there_is_no_gradient_and_has_a_derivative(rng):
    X, Y, U, V = (a[0] for a in random_cases(rng, 1))

    @jax.jit
    @jax.vmap
    def both(scale_U, scale_V):
        def step(scale):
            found = theory.line_search(*build(X, Y, scale * U, scale_V * V))
            return found.step, found

        return jax.value_and_grad(step, has_aux=True)(scale_U)

    (step, found), gradient = both(np.array([0.0, 1 - 1e-6, 1.0, 1 + 1e-6]), np.array([0.0, 1.0, 1.0, 1.0]))
    assert not bool(found.applies[0]) and step[0] == 0 and gradient[0] == 0
    assert found.excess_loss[0] == found.coefficients[0, 0] > 0
    assert abs(gradient[2] / ((step[3] - step[1]) / 2e-6) - 1) < 1e-6


@pytest.mark.slow
def test_line_search_in_single_precision(rng):
    X, Y, U, V = (a[0] for a in random_cases(rng, 1))
    step = jax.jit(lambda *a: theory.line_search(*build(*a)).step)
    float32 = step(*(a.astype(np.float32) for a in (X, Y, U, V)))
    assert float32.dtype == np.float32 and abs(float32 / step(X, Y, U, V) - 1) < 1e-4


def test_descent_by_line_search_never_raises_the_loss(rng):
    X, Y, U, V = (a[0] for a in random_cases(rng, 1))
    model, problem = build(X, Y, 0.1 * U, 0.1 * V)

    def one(model, _):
        found = theory.line_search(model, problem)
        return stepped(model, problem, found.step), found.excess_loss

    # Steepest descent crawls in the end, at a rate that the conditioning of the data sets.
    _, losses = jax.jit(lambda model: jax.lax.scan(one, model, length=400))(model)
    assert np.all(np.diff(losses) <= 1e-12 * losses[0])
    best = theory.reduced_rank_regression(problem, 3).excess_loss
    assert losses[-1] - best < 1e-2 * losses[0]


def test_step_inequality_holds_with_the_constants_measured_on_the_step(rng):
    X, Y, U, V = random_cases(rng, 300)
    etas = jnp.array(10.0 ** rng.uniform(-5, -0.5, 300))

    def both(X, Y, U, V, eta):
        model, problem = build(X, Y, U, V)
        found = theory.step_inequality(model, problem, eta)
        after = ld.observables.excess_loss(stepped(model, problem, eta), problem)
        before = ld.observables.excess_loss(model, problem)
        return found, after / before, theory.instantaneous_rate(model, problem), theory.lemma7(model, problem).value

    everything = jax.jit(jax.vmap(both))
    found, ratio, rate, lemma7 = everything(X, Y, U, V, etas)
    assert np.max(np.abs(found.measured / ratio - 1)) < 1e-9
    assert bool(jnp.all(found.measured <= found.factor * (1 + 1e-12)))
    assert 20 < int(jnp.sum(found.applies)) < 290
    assert np.max(np.abs(2 * found.mu / rate - 1)) < 1e-12
    assert bool(jnp.all(2 * found.mu >= lemma7))
    # Sharp to second order: what is left is of third.
    small = everything(X, Y, U, V, np.full(300, 1e-6))[0]
    left = (small.factor - small.measured) / (1 - small.measured)
    assert np.max(left) < 1e-2 and bool(jnp.all(small.applies))
