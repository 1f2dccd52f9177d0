"""Two balanced layers with weight decay: the closed form against an integration of its own, and the limit."""

import diffrax
import jax.numpy as jnp
import numpy as np
import pytest

import lindyn_jax as ld

random = np.random.default_rng(4)
LEFT, RIGHT = (np.linalg.qr(random.normal(size=(k, k)))[0] for k in (4, 3))
SIGMA = np.array([3.0, 1.0, 0.2])
Y = LEFT[:, :3] * SIGMA @ RIGHT.T


def balanced(h=3):
    A, turn = random.normal(size=(4, 3)), np.linalg.qr(random.normal(size=(max(h, 3), 3)))[0]
    P, s, QT = np.linalg.svd(A, full_matrices=False)
    return (P * np.sqrt(s)) @ turn.T, (QT.T * np.sqrt(s)) @ turn.T


def test_it_is_the_integrated_flow():
    beta, ts = 0.4, np.array([0.0, 0.3, 2.0])
    U, V = balanced(9)
    assert ld.exact.homogeneous_condition(U, V, 0.0).applies

    def velocity(t, y, args):
        U, V = y
        E = Y - U @ V.T
        return E @ V - beta * U, E.T @ U - beta * V

    found = diffrax.diffeqsolve(
        diffrax.ODETerm(velocity), diffrax.Dopri8(), 0.0, 2.0, 0.01, (jnp.asarray(U), jnp.asarray(V)),
        saveat=diffrax.SaveAt(ts=ts), stepsize_controller=diffrax.PIDController(rtol=1e-12, atol=1e-12),
    )  # fmt: skip
    Theta = jnp.einsum("tih,tjh->tij", *found.ys)
    np.testing.assert_allclose(ld.exact.decayed(Y, U, V, beta, ts), Theta, rtol=0, atol=1e-9)
    without = ld.exact.homogeneous_product(Y, U, V, 0.0, ts)
    np.testing.assert_allclose(ld.exact.decayed(Y, U, V, 0.0, ts), without, rtol=0, atol=1e-13)


def test_the_limit_has_the_singular_values_less_the_decay():
    U, V = balanced()
    limit = ld.exact.decayed_limit(Y, U, V, 0.5)
    assert limit.applies
    np.testing.assert_allclose(limit.value, LEFT[:, :3] * np.maximum(SIGMA - 0.5, 0) @ RIGHT.T, rtol=0, atol=1e-13)
    late = ld.exact.decayed(Y, U, V, 0.5, np.array([300.0]))[0]
    np.testing.assert_allclose(late, limit.value, rtol=0, atol=1e-12)
    # All that decays faster than it is learned is forgotten.
    assert np.max(np.abs(ld.exact.decayed_limit(Y, U, V, 5.0).value)) == 0


def test_a_negative_decay_is_refused():
    with pytest.raises(ValueError, match="`weight_decay` must not be negative"):
        ld.exact.decayed(Y, *balanced(), -0.1, np.array([1.0]))
