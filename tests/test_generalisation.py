"""Test errors for data of large size are those of draws, and of exact limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import relative_error, tolerance

import lindyn_jax as ld

errors = ld.theory.regression_errors


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
def test_errors_are_those_of_draws(ratio):
    n, draws, rng = 40, 100, np.random.default_rng(int(10 * ratio))
    signal, start, noise, ts = 0.8, 0.4, 0.5, np.array([0.3, 1.0, 3.0])
    tests, trains = [], []
    for _ in range(draws):
        X = rng.normal(size=(int(ratio * n), n)) / np.sqrt(n)
        teacher, epsilon = signal * rng.normal(size=n), noise * rng.normal(size=len(X))
        W, s, PhiT = np.linalg.svd(X, full_matrices=False)
        Y, Theta0 = X @ teacher + epsilon, start * rng.normal(size=n)
        decay = np.exp(-(s**2) * ts[:, None])
        seen = decay * (PhiT @ Theta0) + (1 - decay) / s * (W.T @ Y)
        Theta = Theta0 + (seen - PhiT @ Theta0) @ PhiT
        tests.append(np.mean((Theta - teacher) ** 2, axis=1) + noise**2)
        trains.append(np.mean((Theta @ X.T - Y) ** 2, axis=1))
    found = errors(ts, ratio, signal=signal, start=start, noise=noise)
    assert bool(found.applies)
    for values, expected in ((tests, found.test), (trains, found.train)):
        standard = np.std(values, axis=0, ddof=1) / np.sqrt(draws)
        assert np.all(standard < 0.25 * expected)
        # Small enough for one thread. Three standard errors, and what is left of order 1/n.
        assert np.all(np.abs(np.mean(values, axis=0) - expected) < 3 * standard + expected / n)


@pytest.mark.parametrize("ratio", [1e-3, 2.0])
def test_limits_are_exact(ratio, dtype):
    S, noise = 0.7, 0.3
    found = errors(np.array([0.0, 1e9], dtype), ratio, signal=S, noise=noise)
    assert found.test.dtype == dtype
    # Over-parametrized: what is not seen stays, and the noise is fitted; otherwise the noise alone is left.
    end = S**2 * (1 - ratio) + noise**2 / (1 - ratio) if ratio < 1 else noise**2 * ratio / (ratio - 1)
    assert relative_error(found.test, [S**2 + noise**2, end]) < tolerance(dtype, 10)
    fitted = [S**2 + noise**2, noise**2 * max(0, 1 - 1 / ratio)]
    assert relative_error(found.train, fitted) < tolerance(dtype, 10)


def test_error_at_ratio_one_grows_like_the_root_of_time_and_has_derivatives():
    ts = np.logspace(4, 16, 4)
    variance = errors(ts, 1.0, noise=1.0).variance
    # 2/pi int (1 - e^{-x^2 t})^2/x^2 dx over x > 0.
    assert relative_error(variance / (2 * (2 - np.sqrt(2)) * np.sqrt(ts / np.pi)), np.ones(4)) < 2e-2
    assert relative_error(variance[1:] / variance[:-1], np.full(3, 1e2)) < 2e-2

    @jax.jit
    def total(x):
        return jnp.sum(errors(jnp.array([0.5, 3.0]) * x[0], 0.6 * x[1], signal=x[2], noise=0.4 * x[2]).test)

    x, dx, e = jnp.ones(3), np.array([0.3, -1.0, 0.5]), 1e-5
    numeric = (total(x + e * dx) - total(x - e * dx)) / (2 * e)
    assert relative_error(jax.jit(jax.grad(total))(x) @ dx, numeric) < 1e-8


def test_wrong_numbers_are_refused():
    one = np.ones(1)
    with pytest.raises(ValueError, match="`ratio` must be a positive number, but is 0"):
        errors(one, 0.0)
    with pytest.raises(ValueError, match="`noise` must be a number of at least 0"):
        errors(one, 0.5, noise=-1.0)
