"""Statements on a network of one's own, of which only the product is known: those that are defined for it, and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import relative_error, tolerance

import lindyn_jax as ld
from lindyn_jax import theory

n, m, h = 4, 3, 5


class Factored(ld.AbstractModel):
    """Two layers, as a user writes them."""

    first: jax.Array
    second: jax.Array

    def product(self):
        return self.first @ self.second


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    problem = ld.LeastSquares(rng.normal(size=(3, n)), rng.normal(size=(3, m)), scale="mean", output_scale=0.7)
    U, V = rng.normal(size=(n, h)), rng.normal(size=(m, h))
    return problem, Factored(jnp.asarray(U), jnp.asarray(V.T)), ld.TwoLayer(U, V)


def test_what_is_defined_by_the_product_is_that_of_the_layers(case):
    problem, own, two = case

    def both(model):
        standing = theory.stationarity(model, problem)
        sharp = theory.hessian_sharpness(model, problem)
        step = ld.stable_step(model, problem, 1.0, at="state")
        values = theory.instantaneous_rate(model, problem), standing.speed, sharp.value, step * sharp.value
        return values, standing.residual

    (ours, *residuals), (known, other) = jax.jit(both)(own), jax.jit(both)(two)
    for value, expected in zip(ours, known, strict=True):
        assert relative_error(value / expected, 1.0) < tolerance("float64", 10)
    assert relative_error(ours[3], 2.0) < tolerance("float64")
    # The terms that cancel are bounded by the Frobenius norm of the Jacobian: never less than their sizes.
    assert 0 < residuals[0] <= other <= 1


def test_the_residual_vanishes_at_a_solution_and_nowhere_else(case):
    problem, own, _ = case
    solved = Factored(problem.theta_hat, jnp.eye(m))
    stationarity = jax.jit(theory.stationarity)
    assert bool(stationarity(solved, problem).holds) and not bool(stationarity(own, problem).holds)


@pytest.mark.parametrize(
    "ask, match",
    [
        (theory.imbalance, "must be a network of two layers, but is a Factored"),
        (theory.rate_bound, "must be a network of two layers, but is a Factored"),
        (theory.line_search, "must be a network of two layers, but is a Factored"),
        (theory.sharpness, "is that of a chain of layers, but the model is a Factored: use `hessian_sharpness`"),
        (theory.stationary_point, "known for one layer, two layers and tied layers, but the model is a Factored"),
        (ld.stable_step, "`stable_step` is for two-layer models and for one layer, but the model is a Factored"),
        (theory.imbalances, "must be a TwoLayer or a DeepLinear, but is a Factored"),
    ],
)
def test_what_asks_for_layers_says_so(case, ask, match):
    problem, own, _ = case
    with pytest.raises(ValueError, match=match):
        ask(own) if ask is theory.imbalances else ask(own, problem)


def test_a_deep_network_of_two_layers_is_one_of_two_layers(case):
    problem, _, two = case
    deep = ld.DeepLinear((two.U, two.V.T))
    asked = theory.rate_bound, theory.lemma7, theory.imbalance, ld.stable_step, theory.margin
    answers = jax.jit(lambda model: [ask(model, problem) for ask in asked])
    for ours, known in zip(jax.tree.leaves(answers(deep)), jax.tree.leaves(answers(two)), strict=True):
        assert relative_error(ours, known) < tolerance("float64")
    with pytest.raises(ValueError, match="must be a network of two layers, but is a DeepLinear"):
        theory.rate_bound(ld.DeepLinear((two.U, np.eye(h), two.V.T)), problem)


def test_the_rate_of_a_flow_that_follows_no_gradient_is_that_of_its_loss(case):
    problem, _, two = case
    wide = ld.WideLimit(two.product(), 0.5)

    @jax.jit
    def rate_and_slope(model):
        velocity = model.velocity(problem).Theta
        log_excess = lambda t: jnp.log(problem.excess_loss(problem.to_data(model.Theta + t * velocity)))  # noqa: E731
        return theory.instantaneous_rate(model, problem), -jax.grad(log_excess)(0.0)

    rate, slope = rate_and_slope(wide)
    assert rate > 0 and relative_error(rate / slope, 1.0) < tolerance("float64")


def test_one_layer_has_a_stable_step_on_its_path(case):
    problem, _, two = case
    for model in (ld.LinearModel(two.product()), ld.DeepLinear((two.product(),))):
        step = ld.stable_step(model, problem, 1.0)
        assert relative_error(step * problem.scale * problem.singular_values[0] ** 2, 2.0) < tolerance("float64")
        assert relative_error(ld.stable_step(model, problem, 1.0, at="solution"), step) < tolerance("float64")
