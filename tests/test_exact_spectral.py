"""Aligned starts of the asymmetric model in closed form, for every shape: the flow, still modes, repeated singular values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Compiled, integrated, load_cases, relative_error, tolerance

import lindyn_jax as ld
from lindyn_jax.exact.spectral import _vectors

exact = Compiled(ld.exact)

CASES = [case for case in load_cases("t21").values() if case["formula"] == "prop3_eq17"]
SHAPES = [(3, 3, 3, 3), (4, 3, 2, 2), (2, 5, 4, 1)]  # n, m, h, k


def target(rng, n, m, sigma):
    """A target with given singular values, and its singular vectors."""
    Phi = np.linalg.qr(rng.normal(size=(n, n)))[0][:, : len(sigma)]
    Psi = np.linalg.qr(rng.normal(size=(m, m)))[0][:, : len(sigma)]
    return (Phi * sigma) @ Psi.T


def test_modes_agree_with_the_reference(dtype):
    sigma, u0, v0 = (np.array([case["inputs"][key] for case in CASES], dtype) for key in ("sigma", "u0", "v0"))
    ts = np.array(CASES[0]["times"], dtype)
    x = exact.spectral(sigma, u0, v0, ts)
    assert x.shape == (len(ts), len(CASES)) and x.dtype == dtype
    assert relative_error(x, np.array([case["expected"]["x"] for case in CASES]).T) < tolerance(dtype)
    # One mode without a rate is among them; without it the statement holds.
    slow = (sigma == 0) & (u0 == v0)
    assert not bool(exact.spectral_rate(sigma, u0, v0).applies)
    rate = exact.spectral_rate(sigma[~slow], u0[~slow], v0[~slow])
    assert bool(rate.applies)
    expected = min(case["rate"] for case, excluded in zip(CASES, slow, strict=True) if not excluded)
    assert relative_error(rate.value, expected) < tolerance(dtype)


def test_a_vector_of_times_is_a_loop_over_times_and_goes_to_the_limit(rng):
    sigma, u0, v0 = rng.uniform(0.2, 2, 4), rng.normal(size=4), rng.normal(size=4)
    ts = np.array([0.0, 0.3, 4.0, 1e6])
    x = exact.spectral(sigma, u0, v0, ts)
    assert np.array_equal(x, [exact.spectral(sigma, u0, v0, ts[i : i + 1])[0] for i in range(4)])
    assert np.array_equal(x[0], u0 * v0)
    limit = exact.spectral_limit(sigma, u0, v0)
    assert bool(limit.applies) and relative_error(limit.value, sigma) < tolerance(np.float64)
    assert relative_error(x[-1], limit.value) < tolerance(np.float64)
    stuck = exact.spectral_limit(sigma, np.r_[u0[:3], 0.3], np.r_[v0[:3], -0.3])
    assert not bool(stuck.applies) and stuck.value[3] == 0


def products_of_the_flow(Y, u0, v0, h, ts):
    options = {
        "rtol": 1e-11,
        "atol": 1e-13,
        "solver": "tsit5",
        "reduce": False,
        "max_steps": 4096,
        "keep_models": True,
    }
    models = ld.gradient_flow(ld.init.spectral(Y, u0, v0, h), ld.factorization(Y), ts, **options).models
    return jax.vmap(lambda model: model.product())(models)


def integrate(Y, u0, v0, h, ts):
    start = jax.vmap(ld.init.spectral, (0, 0, 0, None))(Y, u0, v0, h)
    U, V = integrated(lambda Theta: Theta - Y, start.U, start.V, ts, 1e-11)
    return np.swapaxes(U @ np.swapaxes(V, -1, -2), 0, 1)


def instances(rng, n, m, k, size=16):
    """Targets with singular values that are apart, for the derivative of their singular vectors; weights of every sign."""
    sigma = np.sort(rng.uniform(0, 2, (size, min(n, m))))[:, ::-1] + 0.3 * np.arange(min(n, m))[::-1]
    u0, v0 = rng.normal(size=(2, size, k))
    v0[0] = u0[0]
    return jnp.array([target(rng, n, m, s) for s in sigma]), jnp.array(u0), jnp.array(v0)


@pytest.mark.parametrize(("n", "m", "h", "k"), SHAPES)
def test_products_agree_with_the_integrated_flow(rng, n, m, h, k):
    draws, ts = instances(rng, n, m, k), jnp.array([0.2, 1.0, 3.0])
    closed = jax.jit(jax.vmap(lambda *draw: exact.spectral_product(*draw, h, ts)))(*draws)
    expected = integrate(*draws, h, ts)
    assert max(map(relative_error, closed, expected)) < 1e-9


@pytest.mark.slow
def test_gradients_of_products_agree_with_those_through_the_integrated_flow(rng):
    ts, mix = jnp.array([0.2, 1.0, 3.0]), jnp.array(rng.normal(size=(3, 4, 3)))

    def gradient(function):
        mixed = lambda Y, u0, v0, t: jnp.sum(mix * function(Y, u0, v0, 5, t))  # noqa: E731
        return jax.jit(jax.vmap(jax.grad(mixed, (0, 1, 2, 3)), (0, 0, 0, None)))

    draws = instances(rng, 4, 3, 2)
    closed = gradient(exact.spectral_product)(*draws, ts)
    for value, expected in zip(closed, gradient(products_of_the_flow)(*draws, ts), strict=True):
        assert max(map(relative_error, value, expected)) < 1e-7


def test_products_start_at_the_start_and_end_at_the_best_approximation(rng, dtype):
    Y = target(rng, 5, 4, np.array([2.0, 1.5, 0.8, 0.3])).astype(dtype)
    u0, v0 = rng.uniform(0.2, 1, (2, 2)).astype(dtype)
    Theta = exact.spectral_product(Y, u0, v0, 3, np.array([0.0, 1e6], dtype))
    assert Theta.dtype == dtype
    assert relative_error(Theta[0], ld.init.spectral(Y, u0, v0, 3).product()) < tolerance(dtype)
    W, s, PsiT = np.linalg.svd(Y.astype(float))
    best = (W[:, :2] * s[:2]) @ PsiT[:2]
    limit = exact.spectral_product_limit(Y, u0, v0, 3)
    assert bool(limit.applies) and relative_error(limit.value, best) < tolerance(dtype)
    assert relative_error(Theta[1], best) < tolerance(dtype)


def test_modes_beyond_the_given_ones_never_move(rng):
    Y = target(rng, 4, 5, np.array([2.0, 1.5, 0.8, 0.3]))
    Theta = exact.spectral_product(Y, np.array([0.7]), np.array([0.4]), 1, np.array([0.0, 0.5, 50.0]))
    W, _, PsiT = np.linalg.svd(Y, full_matrices=False)
    modes = np.einsum("ni,tnm,im->ti", W, Theta, PsiT)
    assert np.max(np.abs(modes[:, 1:])) < 1e-14
    assert (
        relative_error(
            modes[:, 0],
            exact.spectral([2.0] * np.ones(1), [0.7] * np.ones(1), [0.4] * np.ones(1), np.array([0.0, 0.5, 50.0]))[
                :, 0
            ],
        )
        < 1e-14
    )


def test_measured_rate_of_the_flow_is_the_stated_one(rng):
    Y = target(rng, 3, 3, np.array([1.6, 0.9, 0.5]))
    u0, v0 = np.array([0.5, 0.2, 0.4]), np.array([0.3, 0.9, 0.1])
    rate = exact.spectral_rate(np.array([1.6, 0.9, 0.5]), u0, v0)
    assert bool(rate.applies)
    ts = np.array([18.0, 21.0])
    error = np.linalg.norm(integrate(Y[None], u0[None], v0[None], 3, ts)[0] - Y, axis=(1, 2))
    assert abs(np.log(error[0] / error[1]) / 3 / rate.value - 1) < 1e-3


def test_derivatives_in_the_target_exist_at_repeated_and_zero_singular_values(rng):
    n, m, k = 4, 3, 3
    ts, step = np.array([0.0, 0.4, 2.0]), 1e-5

    @jax.jit
    def along(Y, dY, u0, v0):
        function = lambda s: exact.spectral_product(Y + s * dY, u0, v0, 4, ts)  # noqa: E731
        return jax.jvp(function, (0.0,), (1.0,))[1], (function(step) - function(-step)) / (2 * step)

    repeated = [1.0] * k
    for sigma, u, v in (
        (repeated, 0.7, 0.4),  # repeated, equal weights
        (repeated, 0.6, 0.6),
        ([1.0] * (k - 1) + [1e-9], 0.7, 0.0),  # nearly and exactly singular, starting from no product
        ([1.0] * (k - 1) + [0.0], 0.0, 0.8),
        (np.linspace(1.5, 0.4, k), 0.5, 0.2),
        (1 + 1e-9 * np.arange(k)[::-1], 0.5, 0.2),  # equal up to nine digits
    ):
        Y, dY = target(rng, n, m, np.array(sigma)), rng.normal(size=(n, m))
        derivative, expected = along(Y, dY, np.full(k, u), np.full(k, v))
        assert jnp.max(jnp.abs(derivative - expected)) < 1e-6, sigma
    # With different weights there is no derivative: it is finite all the same.
    Y = target(rng, n, m, np.array(repeated))
    assert bool(jnp.all(jnp.isfinite(along(Y, dY, np.linspace(0.3, 1, k), np.ones(k))[0])))


def test_the_limit_that_is_the_target_has_its_derivative_at_repeated_singular_values(rng):
    change = rng.normal(size=(3, 4))
    limit = jax.jit(lambda Y: exact.spectral_product_limit(Y, np.ones(3), 0.5 * np.ones(3), 3).value)
    for Y in (jnp.eye(3, 4), 0.5 * jnp.eye(3, 4)):
        tangent = jax.jvp(limit, (Y,), (change,))[1]
        assert relative_error(limit(Y), Y) < 1e-14 and relative_error(tangent, change) < tolerance("float64")


def test_second_derivatives_in_the_target_are_refused_and_in_the_weights_are_not(rng):
    Y, ts = target(rng, 2, 2, np.ones(2)), np.array([0.5])
    value = lambda Y, u0: jnp.sum(ld.exact.spectral_product(Y, u0, np.ones(2), 2, ts) ** 2)  # noqa: E731
    with pytest.raises(NotImplementedError, match="first derivatives in Y"):
        jax.eval_shape(jax.hessian(value), Y, np.ones(2))
    assert jax.eval_shape(jax.hessian(value, 1), Y, np.ones(2)).shape == (2, 2)


def test_two_thousand_degenerate_targets_give_no_nan(rng):
    sizes = np.array([0.0, 1e-300, 1e-20, 1e-8, 0.5, 1.0, 1.0 + 1e-15])
    sigma, u0, v0 = rng.choice(sizes, (3, 2000, 3))
    Phi = np.linalg.qr(rng.normal(size=(2000, 4, 4)))[0][:, :, :3]
    Psi = np.linalg.qr(rng.normal(size=(2000, 3, 3)))[0]
    Psi[::2] = np.eye(3)
    Ys = np.einsum("bni,bi,bmi->bnm", Phi, sigma, Psi)
    ts = np.array([0.0, 0.5, 30.0, 1e6])

    def everything(Y, u0, v0):
        # The mean, for a finite sum of derivatives near the saddle.
        Theta = exact.spectral_product(Y, u0, v0, 3, ts)
        return jnp.mean(Theta), Theta

    gradients, values = jax.jit(jax.vmap(jax.grad(everything, (0, 1, 2), has_aux=True)))(Ys, u0, v0)
    assert np.all(np.isfinite(values))
    for gradient in gradients:
        bad = ~np.isfinite(np.asarray(gradient)).reshape(2000, -1).all(axis=1)
        assert not bad.any(), (sigma[bad][:3], u0[bad][:3], v0[bad][:3])


def test_wrong_arguments_are_refused():
    one, ts = np.ones(1), np.array([1.0])
    with pytest.raises(ValueError, match="must have one entry a mode"):
        _vectors(np.ones(2), one, one)
    with pytest.raises(ValueError, match="1 <= k <= min\\(n, m, h\\) = 1"):
        ld.exact.spectral_product(np.eye(3), np.ones(2), np.ones(2), 1, ts)
    with pytest.raises(ValueError, match="Argument `ts` must not be negative"):
        ld.exact.spectral(one, one, one, -ts)
