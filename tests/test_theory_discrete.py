"""Descent of one component against its flow: rates, stability, bounds at every step, and the times of the jumps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import load_cases, relative_error, tolerance

import lindyn_jax as ld
from lindyn_jax import exact, theory

CASES = load_cases("g19")


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
        return jnp.stack([bounds.lower, bounds.upper, zero.lower, zero.upper, rate.rate, rate.factor, one.rate])

    points = np.stack(
        [rng.uniform(0.5, 1, 30), rng.uniform(0.3, 1, 30), rng.uniform(0.05, 0.3, 30), rng.uniform(0.05, 0.2, 30)], 1
    )
    shifts = 1e-6 * np.concatenate([np.eye(4), -np.eye(4)])
    both = jax.jit(jax.vmap(lambda p: (everything(p), jax.jacrev(everything)(p))))
    gradient = both(jnp.array(points))[1]
    value = both(jnp.array(points[:, None, :] + shifts).reshape(-1, 4))[0].reshape(30, 2, 4, -1)
    expected = jnp.moveaxis((value[:, 0] - value[:, 1]) / 2e-6, 1, -1)
    assert jnp.max(jnp.abs(gradient - expected) / jnp.maximum(1, jnp.abs(expected))) < 1e-6


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
        numbers = jnp.stack([*bounds[:2], *zero[:2], theory.tied_descent_rate(sigma, eta).factor])
        return numbers, numbers

    gradients, values = jax.jit(jax.vmap(jax.jacrev(everything, has_aux=True)))(jnp.array(draws, dtype))
    for array in (values, gradients):
        bad = np.isnan(np.asarray(array)).reshape(10_000, -1).any(axis=1)
        assert not bad.any(), draws[bad][:5]


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="Argument `w0` must not be negative"):
        theory.descent_bounds(1.0, 1.0, -0.1, 0.1, 1)
    with pytest.raises(ValueError, match="Argument `x` must not be negative"):
        theory.tied_descent_step(-1.0, 1.0, 0.1)
    with pytest.raises(ValueError, match="Argument `sigma` must be finite"):
        theory.jump_steps(np.array([np.nan]), 0.1)
