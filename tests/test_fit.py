"""The general fit: worked examples against independent answers, and what it says when things go wrong."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix as optx
import pytest
import scipy.optimize
from helpers import relative_error

import lindyn_jax as ld
from lindyn_jax import exact, fits
from lindyn_jax.fits.general import CONVERGED, NOT_FINITE, SIMULATION_FAILED, STEP_LIMIT

QUADRATIC = jnp.asarray([[3.0, 1.0], [1.0, 2.0]])


def bowl(x):
    return 0.5 * x @ QUADRATIC @ x - jnp.sum(x)


OPTIMIZERS = {
    "adam": optax.adam(0.05),
    "descent": optax.sgd(0.3),
    "lbfgs": optax.lbfgs(),
    "optimistix": optx.BFGS(rtol=1e-9, atol=1e-9),
}


@pytest.mark.parametrize("autodiff", ["reverse", "forward"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_kind_of_optimizer_finds_the_minimum_of_a_bowl(name, autodiff):
    start = {"x": jnp.asarray([1.0, -1.0]), "label": "kept", "count": 3}
    result = ld.fit(start, lambda p: p["x"], bowl, OPTIMIZERS[name], steps=2000, autodiff=autodiff)
    assert result.result == CONVERGED and result.converged
    assert relative_error(result.parameters["x"], np.linalg.solve(QUADRATIC, np.ones(2))) < 1e-7
    assert (result.parameters["label"], result.parameters["count"]) == ("kept", 3)
    taken = int(result.num_steps)
    assert np.all(np.isfinite(result.history[:taken])) and np.all(np.isinf(result.history[taken + 1 :]))
    assert abs(result.objective - bowl(result.parameters["x"])) < 1e-14
    assert "converged" in repr(result)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_fits_keep_strict_promotion_and_the_precision_they_are_given(name, dtype):
    def run(x):
        return ld.fit({"x": x, "count": 3}, lambda p: p["x"], lambda x: jnp.sum(x**2), OPTIMIZERS[name], steps=5)

    with jax.numpy_dtype_promotion("strict"):
        result = run(jnp.ones(2, dtype))
    numbers = (result.parameters["x"], result.objective, result.history, result.gradient_norm)
    assert {x.dtype for x in numbers} == {np.dtype(dtype)}
    assert np.all(np.abs(result.parameters["x"]) < 1)


def test_step_limit_is_said(capsys):
    result = ld.fit(jnp.asarray([1.0, -1.0]), lambda x: x, bowl, optax.sgd(1e-3), steps=3)
    assert result.result == STEP_LIMIT and not result.converged
    assert int(result.num_steps) == 3
    assert np.all(np.diff(result.history) < 0)
    assert result.objective == result.history[-1]


@pytest.mark.parametrize("optimizer", [optax.sgd(0.5), optx.BFGS(rtol=1e-6, atol=1e-6)])
def test_an_objective_that_is_not_finite_ends_the_fit_and_keeps_the_best(optimizer):
    # sqrt(x) descends over x = 0, where it ends to exist.
    result = ld.fit(jnp.asarray(0.3), lambda x: x, lambda x: jnp.sqrt(x) + x, optimizer, steps=50)
    assert np.isfinite(result.parameters) and np.isfinite(result.objective)
    if isinstance(optimizer, optax.GradientTransformation):
        assert result.result == NOT_FINITE
        assert result.objective == np.min(result.history[np.isfinite(result.history)])
    lost = ld.fit(jnp.asarray(-1.0), lambda x: x, jnp.log, optimizer, steps=5)
    assert lost.result == NOT_FINITE and np.isinf(lost.objective) and lost.parameters == -1.0


def test_fits_can_be_mapped():
    targets = jnp.asarray([1.0, 2.0, 3.0])
    result = jax.jit(
        jax.vmap(lambda t: ld.fit(jnp.asarray(0.5), lambda x: x, lambda x: (x**2 - t) ** 2, optax.sgd(0.03), steps=400))
    )(targets)
    np.testing.assert_allclose(result.parameters, np.sqrt(targets), rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optimizer": "adam"}, "must be an optax transformation"),
        ({"parameters": 3}, "no floating-point number"),
        ({"loss": lambda x: x * jnp.ones(2)}, "must return a number"),
        ({"steps": 0}, "at least 1"),
        ({"autodiff": "both"}, "'reverse', 'forward'"),
    ],
)
def test_mistakes_are_refused(arguments, message):
    given = {
        "parameters": jnp.asarray(1.0),
        "simulate": lambda x: x,
        "loss": lambda x: x**2,
        "optimizer": optax.sgd(0.1),
    }
    given |= arguments
    policy = {name: given.pop(name) for name in ("steps", "autodiff") if name in given}
    with pytest.raises(ValueError, match=message):
        ld.fit(*given.values(), **policy)


# -- worked examples -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def problem():
    return ld.factorization(np.array([[2.0, 0.3, 0.0], [0.0, 1.0, -0.5]]))


def test_start_scale_that_reaches_a_loss_at_a_given_time():
    sigma, time, target = jnp.asarray([2.0, 1.0]), 1.5, 1e-2
    problem = ld.factorization(jnp.diag(sigma))
    direction = ld.init.spectral(problem.Y, jnp.asarray([1.0, 0.7]), jnp.asarray([0.8, 0.9]), 2)

    def simulate(log_scale):
        start = jax.tree.map(lambda leaf: jnp.exp(log_scale) * leaf, direction)
        return ld.gradient_flow(
            start, problem, jnp.asarray([time]), solver="tsit5", rtol=1e-10, adjoint=diffrax.ForwardMode()
        )

    def miss(trajectory):
        return jnp.log(trajectory.observables["loss"][-1] / target) ** 2

    result = ld.fit(jnp.asarray(-2.0), simulate, miss, optx.BFGS(rtol=1e-8, atol=1e-8), steps=50, autodiff="forward")
    assert result.converged

    def loss_of(scale):
        modes = exact.spectral(sigma, scale * np.array([1.0, 0.7]), scale * np.array([0.8, 0.9]), np.array([time]))
        return 0.5 * float(jnp.sum((sigma - modes[0]) ** 2))

    expected = scipy.optimize.brentq(lambda s: np.log(loss_of(s) / target), 0.01, 0.9, xtol=1e-13)
    # The miss is a square: its minimum is found to half of the digits, the scale to those of its gradient.
    assert abs(np.exp(float(result.parameters)) - expected) < 1e-6


def test_schedule_that_minimises_the_loss_after_k_steps_beats_exact_line_search(problem):
    steps = 4
    start = ld.init.gaussian(2, 3, 4, std=0.7, key=jax.random.key(3))

    def greedy(model, _):
        found = ld.theory.line_search(model, problem)
        velocity = model.velocity(problem)
        return jax.tree.map(lambda w, v: w + found.step * v, model, velocity), found.step

    last, line = jax.jit(lambda: jax.lax.scan(greedy, start, None, length=steps))()

    def simulate(log_etas):
        schedule = lambda count: jnp.exp(log_etas[count])  # noqa: E731
        return ld.gradient_descent(start, problem, steps, optimizer=optax.sgd(schedule), reduce=False)

    def loss(trajectory):
        return jnp.log(trajectory.observables["loss"][-1])

    first = float(jnp.exp(loss(simulate(jnp.log(line)))))
    assert abs(first - float(problem.loss(last.product()))) < 1e-12
    result = ld.fit(jnp.log(line), simulate, loss, optx.BFGS(rtol=1e-8, atol=1e-8), steps=200)
    # The line search is best for one step, and far from it for four.
    assert float(jnp.exp(result.objective)) < 0.5 * first


def test_a_diagonal_lambda_follows_the_flow_better_than_a_number(problem):
    start = ld.init.gaussian(2, 3, 3, std=1.0, key=jax.random.key(4))
    # In the eigenbasis of the imbalance, where Lambda = Q0 makes the regularized flow the plain one.
    _, basis = jnp.linalg.eigh(start.U.T @ start.U - start.V.T @ start.V)
    start = ld.TwoLayer(start.U @ basis, start.V @ basis)
    imbalance = jnp.diagonal(start.U.T @ start.U - start.V.T @ start.V)
    number = ld.fit_lambda0(problem, start.U, start.V, horizon=2.0, nodes=16)

    def simulate(Lambda):
        flow = ld.gradient_flow(
            start,
            problem.regularized(jnp.diag(Lambda)),
            number.ts,
            observables={"product": lambda model, _: model.product()},
            solver="tsit5",
            rtol=1e-8,
            adjoint=diffrax.ForwardMode(),
        )
        return number.mismatch(flow.observables["product"])

    scalar = jnp.full(3, number.best_lambda0)
    result = ld.fit(scalar, simulate, lambda J: J, optax.adam(0.15), steps=80, autodiff="forward")
    # The tolerance of the integration.
    assert abs(float(result.history[0]) - float(number.best_objective)) < 1e-7
    assert result.objective < 0.3 * number.best_objective
    assert simulate(imbalance) < 1e-12


def test_a_simulation_that_fails_is_said(problem):
    start = ld.init.gaussian(2, 3, 4, std=1.0, key=jax.random.key(5))

    def simulate(scale):
        moved = jax.tree.map(lambda leaf: scale * leaf, start)
        # Steps far beyond the stable one.
        options = {"optimizer": ld.plain_descent(50.0), "observables": (), "differentiate": "forward"}
        return ld.gradient_descent(moved, problem, 40, **options)

    def loss(path):
        return problem.loss(path.final.product())

    result = ld.fit(jnp.asarray(1.0), simulate, loss, optax.sgd(0.1), steps=5, autodiff="forward")
    assert result.result == SIMULATION_FAILED
    assert "simulation failed" in fits.FIT_RESULTS[int(result.result)]


class Wanderer(optx.AbstractMinimiser):
    """A minimiser that passes by a good point and ends at a bad one."""

    rtol: float = 0.0
    atol: float = 0.0
    norm: object = max

    def init(self, fn, y, args, options, f_struct, aux_struct, tags):
        return jnp.zeros(())

    def step(self, fn, y, args, options, state, tags):
        return y - 1.0, state + 1, jnp.zeros(())

    def terminate(self, fn, y, args, options, state, tags):
        return jnp.zeros((), bool), optx.RESULTS.successful

    def postprocess(self, fn, y, aux, args, options, state, tags, result):
        return y, aux, {}


def test_an_optimistix_fit_returns_the_best_point_and_the_objective_before_every_step():
    result = ld.fit(jnp.asarray(1.0), lambda x: x, lambda x: x**2 + 0.5, Wanderer(), steps=4)
    assert (float(result.parameters), float(result.objective)) == (0.0, 0.5)
    np.testing.assert_array_equal(result.history, [1.5, 0.5, 1.5, 4.5, 9.5])


def test_the_history_of_a_simplex_starts_at_the_start():
    result = ld.fit(jnp.asarray([1.0, -1.0]), lambda x: x, bowl, optx.NelderMead(rtol=1e-6, atol=1e-6), steps=200)
    assert result.history[0] == bowl(jnp.asarray([1.0, -1.0]))
    assert result.objective == jnp.min(result.history)
