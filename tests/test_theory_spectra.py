"""Singular values of Gaussian matrices against draws, and of products against the inequality (M22 appendix E)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Compiled
from scipy.stats import norm

import lindyn_jax as ld
from lindyn_jax.theory import lemma_e1, lemma_e2

theory = Compiled(ld.theory)


@pytest.mark.parametrize("n, m", [(30, 5), (12, 12), (400, 3)])
def test_gaussian_singular_values_lie_in_the_range_of_lemma_e1(n, m, rng):
    t = np.array([0.5, 1.0, 2.0])
    bound = lemma_e1(n, m, t)
    values = np.linalg.svd(rng.normal(size=(400, n, m)), compute_uv=False)[..., None]
    inside = np.mean(np.all((bound.lower <= values) & (values <= bound.upper), axis=1), axis=0)
    assert np.all(inside >= bound.probability) and bool(jnp.all(bound.applies))
    np.testing.assert_allclose(bound.probability, 1 - 2 * np.exp(-(t**2) / 2), rtol=1e-13)
    np.testing.assert_allclose(bound.upper + bound.lower, 2 * np.sqrt(n), rtol=1e-13)


def test_lemma_e1_has_the_exponent_that_holds():
    # One entry: the printed 1 - 2 e^{-t^2} is above the probability at t = 6.
    failure = 2 * norm.sf(float(lemma_e1(1, 1, 6.0).upper))
    assert 2 * np.exp(-36.0) < failure < 2 * np.exp(-18.0)


def test_lemma_e1_applies_to_tall_matrices_only():
    assert list(lemma_e1(jnp.array([5.0, 2.0, 5.0]), jnp.array([2.0, 5.0, 0.0]), 1.0).applies) == [True, False, False]
    assert not lemma_e1(5, 2, 0.0).applies


def test_the_tail_of_lemma_e1_is_the_second_constant_of_lemma11():
    problem, delta = ld.LeastSquares(np.eye(4)[:3], np.eye(3)[:, :2]), 0.1
    t = np.sqrt(2 * np.log(2 / delta))
    np.testing.assert_allclose(lemma_e1(100, 6, t).probability, 1 - delta, rtol=1e-12)
    w = theory.lemma11(problem, 1e4, 0.5, delta, constant="davidson-szarek").w
    np.testing.assert_allclose(w, np.sqrt(6) + t, rtol=1e-12)


@pytest.mark.parametrize("k, n, m", [(3, 4, 6), (5, 4, 4), (4, 4, 9), (2, 1, 3), (3, 5, 4)])
def test_products_obey_lemma_e2(k, n, m, rng):
    A, B = rng.normal(size=(k, n)), rng.normal(size=(n, m))
    bound = lemma_e2(A, B)
    value = np.linalg.svd(A @ B, compute_uv=False)
    least = np.linalg.svd(B, compute_uv=False)[n - 1] if n <= m else 0.0
    np.testing.assert_allclose(bound.lower, np.linalg.svd(A, compute_uv=False) * least, rtol=1e-12)
    np.testing.assert_allclose(bound.value[: len(value)], value[: min(k, n)], rtol=1e-10)
    assert bool(jnp.all(bound.lower <= bound.value * (1 + 1e-12))) and bool(bound.applies) == (n <= m)


def test_lemma_e2_is_an_equality_for_orthogonal_factors(rng):
    A, Q = rng.normal(size=(3, 4)), np.linalg.qr(rng.normal(size=(6, 4)))[0].T
    bound = lemma_e2(A, 2 * Q)
    np.testing.assert_allclose(bound.lower, bound.value, rtol=1e-13)
    assert bool(jnp.all(jnp.isfinite(jax.grad(lambda A: jnp.sum(lemma_e2(A, Q).lower))(jnp.asarray(A)))))
