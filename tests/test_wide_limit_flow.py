"""The wide-limit flow against networks of growing width, and the derivatives of its matrix roots."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from helpers import integrated, relative_error, tolerance

import lindyn_jax as ld
from lindyn_jax._roots import gram_roots
from lindyn_jax.observables import reduced_product

PRODUCT = {"p": reduced_product}


def test_roots_are_the_matrix_roots_for_every_shape_rank_and_level(rng, dtype):
    roots = jax.jit(gram_roots)
    for n, m, rank in ((4, 2, 2), (2, 3, 1), (3, 3, 2), (2, 2, 0)):
        Theta = (rng.normal(size=(n, rank)) @ rng.normal(size=(rank, m))).astype(dtype)
        for level in (0.7, 1e-6, 0.0):
            rows, columns = roots(jnp.asarray(Theta), jnp.asarray(level, dtype))
            for root, gram in ((rows, Theta @ Theta.T), (columns, Theta.T @ Theta)):
                assert relative_error(root @ root, gram + level**2 * np.eye(len(gram))) < tolerance(dtype, 20)
                assert np.linalg.eigvalsh(root).min() > -tolerance(dtype, 20)


def test_small_singular_values_keep_their_digits():
    # 1e-9 squared is below round-off beside 1.
    rows, _ = gram_roots(jnp.diag(jnp.asarray([1.0, 1e-9])), jnp.asarray(0.0))
    assert abs(rows[1, 1] / 1e-9 - 1) < 1e-6


@pytest.mark.parametrize("Theta", [np.zeros((2, 3)), np.eye(2, 3), np.diag([2.0, 2.0, 0.0]), np.ones((3, 2))])
def test_first_and_second_derivatives_are_finite_and_right_at_repeated_and_zero_singular_values(rng, Theta):
    direction, weights = rng.normal(size=Theta.shape), rng.normal(size=(len(Theta), len(Theta)))

    def along(t):
        return jnp.sum(weights * gram_roots(jnp.asarray(Theta) + t * direction, 0.5 + 0.3 * t)[0])

    def by_scipy(t):
        moved = Theta + t * direction
        return np.sum(weights * scipy.linalg.sqrtm(moved @ moved.T + (0.5 + 0.3 * t) ** 2 * np.eye(len(Theta))))

    first, second = jax.jit(lambda t: jax.jvp(jax.grad(along), (t,), (1.0,)))(0.0)
    step = 1e-4
    values = [by_scipy(k * step) for k in (-1, 0, 1)]
    # Errors of the differences: step^2, and round-off over step^2.
    assert abs(first - (values[2] - values[0]) / (2 * step)) < 1e-6
    assert abs(second - (values[2] - 2 * values[1] + values[0]) / step**2) < 1e-5


def test_mode_by_mode_it_is_the_scalar_flow():
    # With a diagonal target and start every mode obeys x' = 2 sqrt(x^2 + c^2) (sigma - x).
    sigma, level = np.array([2.0, 0.5]), 0.3
    model = ld.WideLimit(jnp.zeros((2, 2)), level)
    path = ld.gradient_flow(
        model, ld.factorization(np.diag(sigma)), np.array([0.4, 1.5]), observables=PRODUCT, solver="tsit5", rtol=1e-11
    )
    assert path.ok and path.final.level == level
    expected = scipy.integrate.solve_ivp(
        lambda t, x: 2 * np.hypot(x, level) * (sigma - x),
        (0, 1.5),
        np.zeros(2),
        t_eval=[0.4, 1.5],
        rtol=1e-12,
        atol=1e-12,
    ).y.T
    assert relative_error(np.diagonal(path.observables["p"], axis1=1, axis2=2), expected) < 1e-9


def test_it_is_the_flow_of_a_balanced_start_at_level_zero(rng):
    Y, Theta, ts = rng.normal(size=(2, 2)), rng.normal(size=(2, 2)), np.array([0.3, 1.0])
    problem = ld.factorization(Y)
    wide = ld.gradient_flow(
        ld.WideLimit(Theta, 0.0), problem, ts, observables=PRODUCT, solver="tsit5", rtol=1e-11
    ).observables["p"]
    # The balanced start: both layers are roots of the product.
    left, s, right = np.linalg.svd(Theta)
    U, V = integrated(lambda Theta: Theta - Y, left * np.sqrt(s), right.T * np.sqrt(s), ts)
    assert relative_error(wide, U @ np.swapaxes(V, 1, 2)) < 1e-9


def test_networks_come_within_the_inverse_root_of_their_width(rng):
    # s^2 h = 1 at every width; layers of different size have the mean of their levels.
    problem = ld.factorization(rng.normal(size=(3, 4)))
    ts = np.linspace(0, 1.5, 16)[1:]
    limit = ld.gradient_flow(
        ld.WideLimit(jnp.zeros((3, 4)), (1.2 + 0.8) / 2), problem, ts, observables=PRODUCT, solver="tsit5"
    ).observables["p"]

    @jax.jit
    def gap(key, width):
        std = (jnp.sqrt(1.2 / width), jnp.sqrt(0.8 / width))
        start = ld.init.gaussian_core(problem, width, std=std, key=key)
        path = ld.gradient_flow(start, problem, ts, observables=PRODUCT, solver="tsit5", rtol=1e-8)
        return jnp.max(jnp.linalg.norm(path.observables["p"] - limit, axis=(1, 2))) / jnp.linalg.norm(problem.Y)

    widths = np.array([1e2, 1e4, 1e6, 1e8])
    keys = jax.random.split(jax.random.key(0), 6)
    gaps = np.array([np.mean([gap(key, width) for key in keys]) for width in widths])
    slope = np.polyfit(np.log(widths), np.log(gaps), 1)[0]
    assert abs(slope + 0.5) < 0.03
    assert gaps[-1] < 1e-3


def test_it_refuses_what_it_is_not_defined_for(rng):
    problem = ld.factorization(rng.normal(size=(2, 3)))
    with pytest.raises(ValueError, match="shape of Theta must be"):
        ld.gradient_flow(ld.WideLimit(np.zeros((3, 2)), 1.0), problem, np.array([1.0]))
    with pytest.raises(ValueError, match="at least 0"):
        ld.WideLimit(np.zeros((2, 3)), -1.0)
    with pytest.raises(ValueError, match="penalty on the imbalance"):
        ld.gradient_flow(ld.WideLimit(np.zeros((2, 3)), 1.0), problem.regularized(1.0), np.array([1.0]))
