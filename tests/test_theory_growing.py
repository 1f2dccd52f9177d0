"""Small random starts are learned as their growing part says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import relative_error

import lindyn_jax as ld


def test_modes_are_half_learned_when_the_growing_part_of_the_start_says():
    draws = np.random.default_rng(0)
    X = 1.5 * np.linalg.qr(draws.normal(size=(6, 3)))[0]
    P, T = (np.linalg.qr(draws.normal(size=(3, 3)))[0] for _ in range(2))
    problem = ld.LeastSquares(X, X @ (P * [3.0, 2.0, 1.0] @ T.T), scale="mean")

    @jax.jit
    @jax.vmap
    def draw(key):
        core = ld.init.gaussian_core(problem, 1e6, std=1e-6, key=key)
        return core, ld.theory.growing_modes(core, problem)

    cores, many = draw(jax.random.split(jax.random.key(0), 21))
    core, said = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[0]), (cores, many))
    assert bool(said.applies)
    ts = np.sort(np.asarray(said.half_time))
    path = ld.gradient_flow(core, problem, ts, observables=("mode_strengths",), rtol=1e-10)
    halves = np.diagonal(path.observables["mode_strengths"])
    # sigma_i/s^2 is what mode i tends to.
    np.testing.assert_allclose(halves, [1.5, 1.0, 0.5], rtol=1e-2)
    curves = ld.exact.aligned(said.sigma, said.lam, -np.log(np.asarray(said.strengths)) / 2, ts[:, None])
    assert relative_error(path.observables["mode_strengths"], curves) < 1e-2
    assert abs(np.mean(many.strengths) / 5e-7 - 1) < 1e-2


def test_starts_that_are_large_and_data_that_are_not_white_do_not_apply():
    Y = np.diag([2.0, 1.0])
    start = ld.init.gaussian(2, 2, 5, std=1e-4, key=jax.random.key(0))
    assert bool(ld.theory.growing_modes(start, ld.factorization(Y)).applies)
    assert not bool(ld.theory.growing_modes(start.scaled(jnp.asarray(1e4)), ld.factorization(Y)).applies)
    assert not bool(ld.theory.growing_modes(start, ld.LeastSquares(np.diag([2.0, 1.0]), Y)).applies)
    with pytest.raises(ValueError, match="link function"):
        ld.theory.growing_modes(start, ld.LeastSquares(np.eye(2), Y, link="tanh"))
