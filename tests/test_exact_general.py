"""The general Riccati flow against an independent integration, and the lemma as it should be printed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Compiled
from scipy.integrate import quad_vec, solve_ivp
from scipy.linalg import expm, solve_continuous_are

import lindyn_jax as ld

exact = Compiled(ld.exact)


def draw(seed):
    rng = np.random.default_rng(seed)
    A, r, q, x = rng.normal(size=(4, 3, 3))
    return A, r @ r.T, q[:, :2] @ q[:, :2].T, x[:, :1] @ x[:, :1].T


def test_general_riccati_agrees_with_integration():
    A, R, Q, P0 = draw(0)
    ts = np.array([0.0, 0.3, 1.0, 4.0])
    rhs = lambda t, y: (lambda P: A @ P + P @ A.T - P @ R @ P + Q)(y.reshape(3, 3)).ravel()  # noqa: E731
    path = solve_ivp(rhs, (0, 4), P0.ravel(), "DOP853", ts, rtol=1e-12, atol=1e-12).y.T.reshape(-1, 3, 3)
    np.testing.assert_allclose(exact.riccati_general(A, R, Q, P0, ts), path, rtol=1e-9, atol=1e-9)
    # Long after the transient it is the solution of the algebraic equation.
    late = exact.riccati_general(A, R, Q, P0, jnp.asarray([1e3, 1e6, 1e200, 1.0]))
    end = solve_continuous_are(A.T, np.linalg.cholesky(R), Q, np.eye(3))
    np.testing.assert_allclose(late[:3], np.stack([end] * 3), rtol=1e-11)


def test_lemma_6_holds_with_the_hats_exchanged_and_not_as_printed():
    A, R, Q, P0 = draw(1)
    Pbar, t = solve_continuous_are(A.T, np.linalg.cholesky(R), Q, np.eye(3)), 0.7
    Atil, Ahat = A - Pbar @ R, A.T - R @ Pbar
    expected = exact.riccati_general(A, R, Q, P0, np.array([t]))[0]

    def lemma(first, last):
        J = quad_vec(lambda s: expm(-(t - s) * first) @ R @ expm(s * Atil), 0, t, epsabs=1e-13)[0]
        X1 = expm(-t * first) + J @ (P0 - Pbar)
        return (Pbar @ X1 + expm(t * last) @ (P0 - Pbar)) @ np.linalg.inv(X1)

    np.testing.assert_allclose(lemma(Ahat, Atil), expected, rtol=1e-10)
    assert np.max(np.abs(lemma(Atil, Ahat) - expected)) > 1e-2


def test_general_riccati_is_riccati_without_a_constant_term():
    A, _, _, P0 = draw(2)
    A, U0 = A + A.T, np.linalg.cholesky(P0 + 1e-3 * np.eye(3))
    ts = np.array([0.0, 0.5, 1.0])
    P = exact.riccati_general(A, 2 * np.eye(3), np.zeros((3, 3)), U0 @ U0.T, ts)
    np.testing.assert_allclose(P, exact.riccati(A, 2.0, U0, ts), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("a", [1e-30, 1e-5, 1e30])
def test_general_riccati_is_equivariant_under_units(a):
    A, R, Q, P0 = draw(3)
    ts = jnp.asarray([0.2, 5.0, 1e4])
    P = exact.riccati_general(A, R, Q, P0, ts)
    np.testing.assert_allclose(exact.riccati_general(A, R / a, a * Q, a * P0, ts), a * P, rtol=1e-11)
    np.testing.assert_allclose(exact.riccati_general(a * A, a * R, a * Q, P0, ts / a), P, rtol=1e-9)


def test_general_riccati_has_the_same_derivative_in_both_modes():
    A, R, Q, P0 = draw(4)
    # Positive definite, so that the differences stay where the hypotheses hold.
    arguments = tuple(map(jnp.asarray, (A, R, Q + np.eye(3), P0 + np.eye(3))))
    tangents = tuple(x + x.T for x in np.random.default_rng(0).normal(size=(4, 3, 3)))
    f = lambda *x: jnp.sum(jnp.sin(exact.riccati_general(*x, jnp.asarray([0.5, 300.0]))))  # noqa: E731
    along = jax.jit(lambda *x: jax.jvp(f, x, tangents))
    forward = along(*arguments)[1]
    gradients = jax.jit(jax.grad(f, (0, 1, 2, 3)))(*arguments)
    reverse = sum(np.sum(g * d) for g, d in zip(gradients, tangents, strict=True))
    step = 1e-5
    moved = [along(*(x + s * step * d for x, d in zip(arguments, tangents, strict=True)))[0] for s in (1, -1)]
    np.testing.assert_allclose(reverse, forward, rtol=1e-10)
    np.testing.assert_allclose((moved[0] - moved[1]) / (2 * step), forward, rtol=1e-7)


def test_general_riccati_refuses_what_may_blow_up():
    A, R, Q, P0 = draw(5)
    with pytest.raises(ValueError, match="Argument `Q` must be positive semidefinite"):
        ld.exact.riccati_general(A, R, -Q, P0, np.array([1.0]))


def test_general_riccati_refuses_growth_that_cannot_be_represented():
    A, R, P0 = np.diag([1.0, -2.0]), np.eye(2), np.diag([0.5, 0.3])
    at = lambda t: ld.exact.riccati_general(A, R, 0 * R, P0, jnp.asarray([1.0, t]))  # noqa: E731
    # P' = 2 P - P^2 tends to 2, P' = -4 P - P^2 to 0.
    np.testing.assert_allclose(at(300.0)[1], np.diag([2.0, 0.0]), atol=1e-12)
    with pytest.raises(ValueError, match=r"Argument `ts` must hold times .* but holds 1000, where"):
        at(1000.0)
    assert np.all(np.isnan(jax.jit(at)(1000.0)[1])) and np.all(np.isfinite(jax.jit(at)(1000.0)[0]))
