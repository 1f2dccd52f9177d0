"""When two layers are faster than one: thresholds, and the measured times of the flows themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Compiled, relative_error, tolerance

import lindyn_jax as ld

exact, theory = Compiled(ld.exact), Compiled(ld.theory)


def measured_rate(function, ts):
    """Rate at which |function(t)| falls between two times."""
    error = jnp.abs(function(ts))
    return jnp.log(error[0] / error[1]) / (ts[1] - ts[0])


@pytest.mark.parametrize(
    ("sigma", "u0", "v0", "faster"),
    [
        (0.6, 0.5, 0.5, True),  # 2 sigma > 1: any imbalance
        (0.4, 0.5, 0.5, False),  # balanced and small
        (0.4, 1.0, 0.5, True),  # lambda = .75 > sqrt(1 - .64) = .6
        (0.4, 0.8, 0.4, False),  # lambda = .48
        (-0.4, 1.0, -0.5, True),
        (0.0, 1.1, 0.2, True),  # imbalance alone
    ],
)
def test_two_layers_are_faster_exactly_above_the_threshold(sigma, u0, v0, faster):
    result = theory.mode_acceleration(sigma, u0, v0)
    assert bool(result.applies) and bool(result.faster) == faster
    assert (abs(sigma) > 0.5 or abs(u0**2 - v0**2) > theory.least_imbalance(sigma)) == faster
    ts = jnp.array([10.0, 13.0]) / result.rate
    assert abs(measured_rate(lambda t: sigma - exact.mode(sigma, u0, v0, t).x, ts) / result.rate - 1) < 1e-3
    # One layer: sigma - x falls like e^{-t}.
    assert result.linear_rate == 1


def test_thresholds_are_where_the_rates_are_equal(dtype):
    sigma = np.array([0.0, 0.1, 0.4, 0.5, -0.3, 0.7], dtype)
    lam = theory.least_imbalance(sigma)
    assert lam.dtype == dtype
    rate = exact.mode_rate(sigma, jnp.sqrt(lam), jnp.zeros_like(lam)).value
    assert relative_error(jnp.where(np.abs(sigma) < 0.5, rate, 1), np.ones(6)) < tolerance(dtype)
    assert lam[3] == 0 and lam[5] == 0
    assert bool(jnp.all(jnp.isfinite(jax.vmap(jax.grad(theory.least_imbalance))(jnp.array(sigma)))))


def test_the_slowest_mode_decides():
    sigma, u0, v0 = np.array([2.0, 0.3]), np.array([0.4, 0.5]), np.array([0.4, 0.2])
    slow = theory.spectral_acceleration(sigma, u0, v0)
    assert bool(slow.applies) and not bool(slow.faster)
    assert relative_error(slow.rate, theory.mode_acceleration(0.3, 0.5, 0.2).rate) < 1e-15
    assert bool(theory.spectral_acceleration(sigma, np.array([0.4, 1.2]), v0).faster)
    assert not bool(theory.spectral_acceleration(sigma, np.array([0.4, 0.2]), np.array([0.4, -0.2])).applies)


@pytest.mark.parametrize(("sigma", "faster"), [(0.3, True), (0.2, False), (-0.3, True), (-0.2, False)])
def test_tied_layers_are_faster_exactly_above_a_quarter(sigma, faster):
    result = theory.tied_acceleration(sigma, 0.1)
    assert bool(result.applies) and bool(result.faster) == faster

    def error(t):
        # The tied solution in closed form.
        return sigma * 0.1 / (0.1 + (sigma - 0.1) * jnp.exp(-4 * t * sigma)) - max(sigma, 0)

    ts = jnp.array([10.0, 13.0]) / result.rate
    assert abs(measured_rate(error, ts) / result.rate - 1) < 1e-3


def test_hypotheses_are_told():
    assert not bool(theory.tied_acceleration(0.0, 1.0).applies) and not bool(theory.tied_acceleration(1.0, 0.0).applies)
    assert not bool(theory.mode_acceleration(1.0, 0.5, -0.5).applies)
    with pytest.raises(ValueError, match="Argument `x0` must not be negative"):
        ld.theory.tied_acceleration(1.0, -0.1)


def test_under_descent_the_order_turns_at_the_stated_step():
    sigma = np.array([0.3, 0.8, 1.5])
    edge = 2 / (4 * sigma + 1)
    for share, faster in ((0.1, True), (0.99, True), (1.01, False)):
        result = theory.tied_descent_acceleration(sigma, share * edge)
        assert np.all(result.applies) and np.all(np.asarray(result.faster) == faster)
        assert np.array_equal(result.faster, result.rate > result.linear_rate)
    assert not bool(theory.tied_descent_acceleration(0.8, 0.7).applies)


def test_rates_of_a_step_that_lands_on_the_target_have_derivative_zero():
    rate = lambda eta: theory.tied_descent_acceleration(0.2, eta).linear_rate  # noqa: E731
    gradient = jax.jit(jax.vmap(jax.grad(rate)))(jnp.array([1.0, 0.5]))
    assert gradient[0] == 0 and np.isfinite(gradient[1])
