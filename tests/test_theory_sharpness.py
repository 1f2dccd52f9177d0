"""Sharpness: against the dense Hessian, against descent itself, and under transformations."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Compiled, relative_error, tolerance
from jax.flatten_util import ravel_pytree

import lindyn_jax as ld
from lindyn_jax.theory.eigenvector import largest_eigenvector

theory = Compiled(ld.theory)

N, n, m = 9, 4, 3
SIZES = {2: (n, 5, m), 3: (n, 5, 4, m), 4: (n, 3, 5, 4, m)}


def network(rng, depth, std=0.7):
    return ld.DeepLinear([std * rng.normal(size=shape) for shape in itertools.pairwise(SIZES[depth])])


def solved_by(model, rng, noise=0.0):
    """A problem whose solutions include the model: any X, one of its columns repeated, and targets with noise."""
    X = rng.normal(size=(N, n))
    X[:, -1] = X[:, 0]
    Y = 0.8 * X @ np.asarray(model.product())
    outside = np.eye(N) - X @ np.linalg.pinv(X)
    return ld.LeastSquares(X, Y + noise * outside @ rng.normal(size=(N, m)), scale="mean", output_scale=0.8)


@jax.jit
def hessian(model, problem):
    weights, unravel = ravel_pytree(model)
    return jax.hessian(lambda w: problem.loss(unravel(w).product()))(weights)


sharpness = eqx.filter_jit(theory.sharpness)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_sharpness_at_a_solution_is_the_largest_eigenvalue_of_the_hessian(depth, rng):
    model = network(rng, depth)
    problem = solved_by(model, rng, noise=0.5)  # the loss at the solution is not zero
    assert float(problem.loss(model.product())) > 1e-2
    largest = np.linalg.eigvalsh(hessian(model, problem))[-1]
    found = sharpness(model, problem)
    assert bool(found.applies) and bool(found.converged)
    assert relative_error(found.value / largest, 1.0) < tolerance("float64")
    assert float(found.deviation) < tolerance("float64", 10)
    anywhere = theory.hessian_sharpness(model, problem)
    assert bool(anywhere.converged) and relative_error(anywhere.value / largest, 1.0) < tolerance("float64")


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_away_from_solutions_the_hessian_lies_within_the_deviation(depth, rng):
    model = network(rng, depth)
    problem = solved_by(network(rng, depth), rng)
    H = hessian(model, problem)
    largest = np.linalg.eigvalsh(H)[-1]
    found, anywhere = sharpness(model, problem), theory.hessian_sharpness(model, problem)
    assert not bool(found.applies)
    gap = abs(float(found.value) - largest)
    assert 1e-3 < gap <= float(found.deviation)
    assert bool(anywhere.converged) and relative_error(anywhere.value / largest, 1.0) < tolerance("float64")


def test_two_layers_of_every_kind_agree_and_have_the_closed_form_for_whitened_data(rng):
    two = ld.TwoLayer(rng.normal(size=(n, 30)), rng.normal(size=(m, 30)))
    deep = ld.DeepLinear((two.U, two.V.T))
    problem = solved_by(two, rng)
    value = sharpness(two, problem).value
    for other in (deep, ld.reduce(two, problem), ld.reduce(deep, problem)):
        assert relative_error(sharpness(other, problem).value / value, 1.0) < tolerance("float64")
    rates = theory.rate_spectrum(two, problem)
    assert relative_error(value / (problem.scale * jnp.max(rates)), 1.0) < tolerance("float64")
    white = ld.factorization(two.product(), scale=0.3, output_scale=2.0)
    norms = [np.linalg.norm(W, 2) ** 2 for W in (two.U, two.V)]
    assert relative_error(sharpness(two, white).value / (0.3 * 4 * sum(norms)), 1.0) < tolerance("float64")
    # One layer: q lambda_1, whatever Theta.
    single = ld.LinearModel(two.product())
    expected = problem.scale * problem.singular_values[0] ** 2
    assert relative_error(sharpness(single, problem).value / expected, 1.0) < tolerance("float64")


@pytest.mark.parametrize("depth", [2, 4])
def test_descent_is_stable_just_under_the_largest_step_and_unstable_just_above(depth, rng):
    model = network(rng, depth)
    problem = solved_by(model, rng)
    limit = ld.stable_step(model, problem, 1.0, at="solution")
    key = np.random.default_rng(0)
    near = ld.DeepLinear([W + 1e-7 * key.normal(size=W.shape) for W in model.layers])

    @jax.jit
    def end(share):
        out = ld.gradient_descent(
            near,
            problem,
            300,
            optimizer=ld.plain_descent(share * limit),
            save_at=np.array([100, 300]),
            observables="excess_loss",
        )
        return out.observables["excess_loss"]

    # The leading component is multiplied by 1 - 2 share a step: 0.98 and 1.02 in size.
    under, above = end(0.99), end(1.01)
    assert float(under[1]) < 1e-2 * float(under[0])
    growth = np.log(float(above[1]) / float(above[0])) / 200
    assert abs(growth - 2 * np.log(1.02)) < 2e-3


def test_sharpness_works_under_jit_and_vmap(rng):
    model = network(rng, 3)
    problem = solved_by(model, rng)

    def value(scale):
        return theory.sharpness(ld.DeepLinear([scale * W for W in model.layers]), problem).value

    scales = jnp.asarray([0.7, 1.0, 1.3])
    batch = jax.jit(jax.vmap(value))(scales)
    # Two of the three layers stand in every term, squared.
    assert relative_error(batch / batch[1], scales**4) < tolerance("float64")


@pytest.mark.parametrize("function", [theory.sharpness, theory.hessian_sharpness])
def test_the_eigenvalue_has_one_derivative_in_both_modes_and_what_has_none_says_so(function, rng):
    model, start = network(rng, 3), network(rng, 3)
    problem = solved_by(start, rng)
    target, change = problem.Y, rng.normal(size=problem.Y.shape)

    def parts(x, layers):
        targets = ld.LeastSquares(problem.X, target + x * change, scale="mean", output_scale=0.8, rank=3)
        found = function(ld.DeepLinear([W + x * dW for W, dW in zip(layers, model.layers, strict=True)]), targets)
        return found.value, found.residual

    value = lambda x: parts(x, start.layers)[0]  # noqa: E731
    along = jax.jit(lambda x: jax.jvp(lambda x: parts(x, start.layers), (x,), (1.0,)))
    ((above, _), _), ((below, _), _) = along(1e-5), along(-1e-5)
    (_, residual), (slope, unknown) = along(0.0)
    assert abs(slope) > 1e-2 and np.isfinite(residual)
    assert relative_error((above - below) / 2e-5 / slope, 1.0) < 1e-7
    assert relative_error(jax.jit(jax.grad(value))(0.0) / slope, 1.0) < tolerance("float64", 100)
    # No number stands for a derivative that is not known, and it spoils none beside it.
    assert np.isnan(unknown) and np.isnan(jax.jit(jax.grad(lambda x: parts(x, start.layers)[1]))(0.0))
    for second in (jax.jacfwd(jax.jacfwd(value)), jax.grad(jax.grad(value)), jax.jacfwd(jax.grad(value))):
        with pytest.raises(NotImplementedError, match="has no second derivative here"):
            second(0.0)


def test_the_iteration_finds_negative_repeated_and_zero_eigenvalues():
    find = jax.jit(lambda a: largest_eigenvector(lambda x: a * x, (6,), a.dtype, 1e-10, 200))
    for values, largest in (
        ([-3.0, -1.0, -2.0, -9.0, -5.0, -4.0], -1.0),
        ([2.0, 2.0, 2.0, -7.0, 1.0, 0.0], 2.0),
        ([0.0] * 6, 0.0),
        ([1.0] * 6, 1.0),
    ):
        values = jnp.asarray(values)
        x, residual, steps = find(values)
        assert abs(float(jnp.sum(x * values * x)) - largest) < tolerance("float64") and float(residual) <= 1e-10
        assert int(steps) < 100


def test_float32_and_refusals(rng):
    model = network(rng, 3)
    problem = solved_by(model, rng)
    small = ld.DeepLinear([np.asarray(W, np.float32) for W in model.layers])
    problem32 = ld.LeastSquares(
        np.asarray(problem.X, np.float32), np.asarray(problem.Y, np.float32), scale="mean", output_scale=0.8, rank=3
    )
    found = sharpness(small, problem32)
    assert found.value.dtype == np.float32
    largest = np.linalg.eigvalsh(hessian(model, problem))[-1]
    assert relative_error(found.value / largest, 1.0) < tolerance("float32", 10)
    square = ld.factorization(np.eye(2))
    two = ld.TwoLayer(np.eye(2), np.eye(2))
    for ask, match in (
        (lambda: ld.theory.sharpness(two, square.regularized(1.0)), "Penalised"),
        (lambda: ld.theory.hessian_sharpness(ld.reduce(two, square), square), "the model is reduced: lift it"),
        (lambda: ld.theory.sharpness(two, square, rtol=1e-20), "cannot resolve"),
        (
            lambda: ld.theory.sharpness(ld.TwoLayer(np.ones((3, 2)), np.ones((2, 2))), square),
            "does not fit the problem",
        ),
    ):
        with pytest.raises(ValueError, match=match):
            ask()


@pytest.mark.slow
def test_with_a_link_the_hessian_itself_is_still_there():
    two = ld.TwoLayer(np.eye(2), np.eye(2))
    linked = ld.LeastSquares(np.eye(2), np.eye(2), link="sigmoid")
    largest = np.linalg.eigvalsh(hessian(two, linked))[-1]
    assert relative_error(theory.hessian_sharpness(two, linked).value, largest) < 1e-10
