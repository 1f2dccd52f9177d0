"""Diagonal networks keep what they conserve, and end where the hypentropy says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import load_cases, relative_error

import lindyn_jax as ld

CASES = {name: case for name, case in load_cases("workbench").items() if case["kind"] == "diagonal"}
DRAWS = np.random.default_rng(0)
X, y = DRAWS.normal(size=(3, 6)), DRAWS.normal(size=(3, 1))
PROBLEM = ld.LeastSquares(X, y)


@pytest.mark.parametrize("name", CASES)
def test_limits_are_those_of_the_reference(name):
    case = CASES[name]
    given = case["inputs"]
    problem = ld.LeastSquares(np.array(given["X"]), np.array(given["y"])[:, None])
    u0, v0 = (np.full(problem.num_inputs, given[key]) for key in ("u0", "v0"))
    limit = ld.exact.diagonal_limit(problem, u0, v0)
    assert bool(limit.applies)
    assert relative_error(limit.value, case["expected"]["beta"]) < case["rel_or_abs_tol"]


@pytest.mark.parametrize("form", ["product", "difference"])
def test_flow_ends_in_the_limit_and_keeps_what_is_conserved(form):
    u0, v0 = 0.3 + 0.5 * DRAWS.uniform(size=6), 0.2 * DRAWS.normal(size=6)
    network = {"product": ld.Diagonal, "difference": ld.DiagonalDifference}[form](u0, v0)
    path = ld.gradient_flow(network, PROBLEM, [200.0], rtol=1e-11, observables=("loss",))
    limit = ld.exact.diagonal_limit(PROBLEM, u0, v0, form=form)
    assert bool(limit.applies) and bool(path.ok)
    assert relative_error(path.final.product()[:, 0], limit.value) < 1e-8
    assert relative_error(path.final.conserved, network.conserved) < 1e-9


@pytest.mark.parametrize("scale", [1e-100, 1e-12, 1e-4, 1.0, 1e4, 1e12])
def test_limits_solve_and_are_nearest_at_every_scale(scale):
    u0 = np.full(6, np.sqrt(2) * scale)
    value, applies = ld.exact.diagonal_limit(PROBLEM, u0, np.zeros(6))
    assert bool(applies) and relative_error(X @ value, y[:, 0]) < 1e-11
    if 1e-12 <= scale <= 1e4:
        potential = np.arcsinh(np.asarray(value) / scale**2)
        outside = potential - X.T @ np.linalg.lstsq(X.T, potential, rcond=None)[0]
        assert np.linalg.norm(outside) < 1e-9 * np.linalg.norm(potential)
    if scale > 1:
        assert relative_error(value, np.linalg.pinv(X) @ y[:, 0]) < 1e-6
    if scale < 1e-11:
        from scipy.optimize import linprog

        least = linprog(np.ones(12), A_eq=np.hstack([X, -X]), b_eq=y[:, 0]).fun
        assert abs(np.sum(np.abs(value)) / least - 1) < (1e-6 if scale < 1e-50 else 0.05)


def test_limits_of_deficient_noisy_data_and_of_several_outputs():
    draws = np.random.default_rng(1)
    A = draws.normal(size=(8, 2)) @ draws.normal(size=(2, 5))
    problem = ld.LeastSquares(A, draws.normal(size=(8, 2)), scale="mean")
    u0, v0 = draws.normal(size=(5, 2)), draws.normal(size=(5, 2))
    value, applies = ld.exact.diagonal_limit(problem, u0, v0)
    # No solution, but one of least error, from which the gradient is zero.
    assert bool(applies) and np.max(np.abs(problem.loss_gradient(value))) < 1e-12
    assert problem.loss_star > 0.1
    columns = [ld.LeastSquares(A, problem.Y[:, j : j + 1]) for j in range(2)]
    for j, one in enumerate(columns):
        assert relative_error(ld.exact.diagonal_limit(one, u0[:, j], v0[:, j]).value, value[:, j]) < 1e-12


@pytest.mark.slow
def test_limits_of_determined_problems_are_their_solutions():
    draws = np.random.default_rng(1)
    u0, v0 = draws.normal(size=(5, 2)), draws.normal(size=(5, 2))
    tall = ld.LeastSquares(draws.normal(size=(8, 5)), draws.normal(size=(8, 2)))
    assert relative_error(ld.exact.diagonal_limit(tall, u0, v0).value, tall.theta_hat) < 1e-11
    plain = ld.factorization(draws.normal(size=(5, 2)))
    assert relative_error(ld.exact.diagonal_limit(plain, u0, v0).value, plain.Y) < 1e-11


def test_entries_that_cannot_change_sign_reach_what_they_can():
    # u0 = v0: the entry stays positive, and (1, 1) Theta = -1 has no such solution.
    ones = np.ones(2)
    for target, reached in ((1.0, True), (-1.0, False)):
        problem = ld.LeastSquares(ones[None], np.full((1, 1), target))
        value, applies = ld.exact.diagonal_limit(problem, ones, ones)
        assert bool(applies) == reached
        assert np.all(np.isfinite(value)) == reached


def test_limits_in_float32():
    problem = ld.LeastSquares(X.astype(np.float32), y.astype(np.float32))
    u0 = np.full(6, 0.1, np.float32)
    value, applies = ld.exact.diagonal_limit(problem, u0, 0 * u0)
    assert value.dtype == np.float32 and bool(applies)
    assert relative_error(value, ld.exact.diagonal_limit(PROBLEM, np.full(6, 0.1), np.zeros(6)).value) < 1e-4


def test_wrong_starts_are_refused():
    with pytest.raises(ValueError, match=r"must have one shape, \(6,\) or \(6, 1\), for this problem, but `u0` has"):
        ld.exact.diagonal_limit(PROBLEM, np.ones(5), np.ones(5))
    with pytest.raises(ValueError, match="`form` must be one of 'product', 'difference', but is 'sum'"):
        ld.exact.diagonal_limit(PROBLEM, np.ones(6), np.ones(6), form="sum")
    with pytest.raises(ValueError, match="the saddle u = 0, v = 0"):
        ld.gradient_flow(ld.Diagonal(np.zeros(6), np.zeros(6)), PROBLEM, [1.0])


@pytest.mark.slow
def test_limits_are_differentiable_to_second_order_and_in_batches():
    v0, e = jnp.zeros(6), 1e-5
    total = lambda scale: jnp.sum(ld.exact.diagonal_limit(PROBLEM, jnp.full(6, scale), v0).value ** 3)  # noqa: E731
    everything = jax.jit(jax.vmap(lambda x: jax.jvp(jax.value_and_grad(total), (x,), (1.0,))))
    (value, first), (_, second) = jax.tree.map(np.asarray, everything(np.array([0.3, 0.3 + e, 0.3 - e, 0.01, 2.0])))
    assert relative_error(first[0], (value[1] - value[2]) / (2 * e)) < 1e-8
    assert relative_error(second[0], (first[1] - first[2]) / (2 * e)) < 1e-7
    assert relative_error(value[[0, 3, 4]], [*map(jax.jit(total), (0.3, 0.01, 2.0))]) < 1e-12
