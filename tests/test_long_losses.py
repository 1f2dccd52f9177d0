"""Long horizons and limits under losses other than least squares: implicit steps by impulses, and what auto takes."""

import functools
import inspect

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import integrated, relative_error
from scipy.optimize import root

import lindyn_jax as ld
from lindyn_jax import flow, trajectory
from lindyn_jax.methods import METHODS

n, m, h = 4, 3, 9
unchecked = inspect.unwrap(ld.gradient_flow)


def start_of(width=h, size=0.5, seed=3, outputs=m):
    rng = np.random.default_rng(seed)
    return ld.TwoLayer(size * rng.normal(size=(n, width)), size * rng.normal(size=(outputs, width)))


def completion(decades=1.0):
    """A matrix of rank two whose singular values span decades, nine entries of twelve seen."""
    rng = np.random.default_rng(1)
    A, B = np.linalg.qr(rng.normal(size=(n, 2)))[0], np.linalg.qr(rng.normal(size=(m, 2)))[0]
    mask = np.array([[1, 1, 0], [1, 0, 1], [1, 1, 1], [0, 1, 1]])
    return ld.MatrixCompletion(3 * A * np.array([1.0, 10.0**-decades]) @ B.T, mask)


def classes(kind="softmax", noise=0.0):
    """Samples of three classes or two: separable without noise."""
    rng = np.random.default_rng(2)
    X = rng.normal(size=(20, n))
    answers = X[:, :m] + noise * rng.normal(size=(20, m))
    if kind == "softmax":
        return ld.Softmax(X, np.argmax(answers, axis=1), scale="mean")
    return ld.Logistic(X, answers[:, 0] > 0, scale="mean")


def sensing():
    rng = np.random.default_rng(4)
    return ld.MatrixSensing((rng.normal(size=(7, n)), rng.normal(size=(7, m))), rng.normal(size=7), scale="mean")


def gradient_of(kind, problem):
    """G of Theta by NumPy where that is short: independent of the library, and faster a step."""
    if kind == "completion":
        mask, target = np.asarray(problem.mask), np.asarray(problem.Y)
        return lambda Theta: mask * (Theta - target)
    if kind == "sensing":
        rng = np.random.default_rng(4)
        left, right, y = rng.normal(size=(7, n)), rng.normal(size=(7, m)), rng.normal(size=7)
        A = (left[:, :, None] * right[:, None]).reshape(7, n * m)
        return lambda Theta: (A.T @ (A @ Theta.ravel() - y)).reshape(n, m) / 7
    return jax.jit(lambda Theta: problem.loss_gradient(Theta))


PROBLEMS = {
    "completion": completion,
    "sensing": sensing,
    "softmax": functools.partial(classes, noise=2.0),
    "linked": lambda: ld.LeastSquares(classes().X, np.eye(m)[np.arange(20) % m], link="sigmoid", scale="mean"),
}


@pytest.mark.parametrize(
    ("kind", "width"),
    [("completion", h), ("sensing", 2), ("softmax", h), pytest.param("linked", h, marks=pytest.mark.slow)],
)
def test_implicit_paths_agree_with_an_independent_integration(kind, width):
    problem, start, ts = PROBLEMS[kind](), start_of(width), np.array([0.0, 0.1, 1.0, 7.0, 60.0])
    exact = integrated(gradient_of(kind, problem), start.U, start.V, ts)
    out = ld.gradient_flow(
        start, problem, ts, solver="radau", rtol=1e-10, observables="imbalance_drift", keep_models=True
    )
    assert bool(out.ok) and bool(out.stats["implicit"])
    assert np.max(out.observables["imbalance_drift"]) < 1e-12
    for layers, expected in zip((out.models.U, out.models.V), exact, strict=True):
        assert relative_error(layers, expected) < 1e-8


def test_steps_grow_with_the_decades_of_a_completion_and_not_with_its_horizon():
    steps = []
    for decades in (1.0, 3.0, 5.0):
        problem = completion(decades)
        out = ld.gradient_flow(
            start_of(), problem, [100 * 10**decades], rtol=1e-6, observables=("loss", "imbalance_drift")
        )
        # Of auto's own choice.
        assert bool(out.ok) and bool(out.stats["implicit"])
        assert out.final_observables["loss"] < 1e-12 * problem.loss(0 * problem.Y)
        assert out.final_observables["imbalance_drift"] < 1e-12
        steps.append(int(out.stats["num_steps"]))
    print("steps", steps)
    # An explicit method's grow a hundredfold.
    assert steps[2] < 2 * steps[0] + 40 and steps[2] < 200


def test_auto_is_explicit_where_the_curvature_fades_and_implicit_where_it_stays():
    def takes(problem, horizon, level=None, outputs=m):
        start, ts = start_of(outputs=outputs), jnp.array([horizon])
        stop = flow.as_stop(None, level, None, problem)
        (method,) = flow._choose("auto", jnp.float64, start, problem, ts, stop, True)
        return next(name for name, known in METHODS.items() if known is method)

    assert takes(classes(), 1e12) == "dopri8"
    assert takes(classes(noise=2.0), 1e6) == "radau"
    # What ends early is not stiff.
    assert takes(classes(noise=2.0), 1e6, level=1.0) == "dopri8"


# The same choice of traced least squares is made in test_solvers.
@pytest.mark.slow
def test_traced_losses_choose_at_run_time_as_concrete_ones_do():
    problems = [classes(), classes(noise=2.0)]

    @jax.jit
    def run(problem):
        return ld.gradient_flow(start_of(), problem, [1e5], rtol=1e-6).stats["implicit"]

    assert [bool(run(problem)) for problem in problems] == [False, True]


def test_what_has_too_many_impulses_is_refused():
    large = ld.MatrixCompletion(np.ones((40, 30)))
    start = ld.TwoLayer(np.ones((40, 2)), np.ones((30, 2)))
    with pytest.raises(ValueError, match="the loss of the MatrixCompletion has 1200 impulses, more than the 1000"):
        unchecked(start, large, np.ones(1), solver="radau")


# -- the limit -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "width"), [("completion", h), ("sensing", 2)])
def test_limits_of_underdetermined_problems_are_those_of_a_long_integration(kind, width):
    problem, start = PROBLEMS[kind](), start_of(width)
    out = ld.flow_to_limit(start, problem, rtol=1e-9, observables=("loss", "imbalance_drift"))
    assert bool(out.ok) and np.isinf(out.ts[0])
    exact = integrated(gradient_of(kind, problem), start.U, start.V, [1e3], 1e-11)
    for layer, (expected,) in zip((out.final.U, out.final.V), exact, strict=True):
        assert relative_error(layer, expected) < 1e-8
    assert out.final_observables["imbalance_drift"] < 1e-12 and out.final_observables["loss"] < 1e-16


def test_limits_of_determined_problems_are_their_minima():
    problem, start = classes("logistic", noise=2.0), start_of(outputs=1)
    loss, slope = (
        jax.jit(f) for f in (lambda x: problem.loss(x[:, None]), lambda x: problem.loss_gradient(x[:, None]))
    )
    best = root(lambda x: np.asarray(slope(x))[:, 0], np.zeros(n), jac=jax.jit(jax.hessian(loss)), tol=1e-13)
    out = ld.flow_to_limit(start, problem, rtol=1e-9)
    assert bool(out.ok) and relative_error(out.final.product()[:, 0], best.x) < 1e-8
    assert np.array_equal(ld.limit(start, problem, rtol=1e-9).U, out.final.U)


def test_what_has_no_limit_or_stops_at_a_saddle_is_not_convergence():
    separable = ld.flow_to_limit(start_of(outputs=1), classes("logistic"), rtol=1e-6, max_steps=1500)
    assert int(separable.result) in (trajectory.NOT_CONVERGED, trajectory.STEP_LIMIT)
    # A start of rank one at rank two, and a narrow one in the second mode of what is seen of its target.
    full = ld.MatrixCompletion(np.diag([2.0, 1.0]))
    saddle = ld.TwoLayer(np.array([[0.0], [0.5]]), np.array([[0.0], [0.5]]))
    assert int(ld.flow_to_limit(saddle, full, rtol=1e-8).result) == trajectory.NOT_CONVERGED
    one = ld.TwoLayer(np.array([[0.0, 0.0], [0.5, 0.3]]), np.array([[0.0, 0.0], [0.5, 0.3]]))
    assert int(ld.flow_to_limit(one, full, rtol=1e-8, max_steps=200).result) == trajectory.STEP_LIMIT


@pytest.mark.parametrize("end", ["path", pytest.param("limit", marks=pytest.mark.slow)])
def test_ends_have_one_derivative_in_both_modes(end):
    problem, start = completion(), start_of()
    directions = np.random.default_rng(6).normal(size=(n, m)), np.random.default_rng(7).normal(size=(n, h))

    def ends(numbers, adjoint=None):
        y, u = numbers
        moved = ld.MatrixCompletion(problem.Y + y * directions[0], problem.mask)
        model = ld.TwoLayer(start.U + u * directions[1], start.V)
        if end == "limit":
            return jnp.sum(jnp.sin(ld.limit(model, moved, rtol=1e-10, adjoint=adjoint).U))
        return jnp.sum(
            jnp.sin(ld.gradient_flow(model, moved, [20.0], solver="radau", rtol=1e-11, adjoint=adjoint).final.V)
        )

    point, along = jnp.zeros(2), jnp.array([1.0, -0.7])
    forward = jax.jit(lambda x: jax.jvp(functools.partial(ends, adjoint=diffrax.ForwardMode()), (x,), (along,)))
    _, slope = forward(point)
    assert relative_error(jax.jit(jax.grad(ends))(point) @ along, slope) < 1e-10
    step = 1e-3
    near, far = ((forward(k * step * along)[0] - forward(-k * step * along)[0]) / (2 * k * step) for k in (1, 2))
    np.testing.assert_allclose(slope, (4 * near - far) / 3, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_float32_stays_float32_and_agrees():
    def end(dtype):
        given = completion(2.0)
        problem = ld.MatrixCompletion(given.Y.astype(dtype), given.mask.astype(dtype))
        start = jax.tree.map(lambda W: W.astype(dtype), start_of())
        out = ld.flow_to_limit(start, problem)
        assert bool(out.ok) and out.final.V.dtype == dtype
        return np.asarray(out.final.product(), np.float64)

    assert relative_error(end(jnp.float32), end(jnp.float64)) < 1e-4


@pytest.mark.slow
def test_a_batch_is_its_members():
    problem, starts = completion(), [start_of(seed=seed) for seed in range(3)]
    batch = jax.tree.map(lambda *W: jnp.stack(W), *starts)
    together = jax.jit(jax.vmap(lambda start: ld.limit(start, problem).product()))(batch)
    for product, start in zip(together, starts, strict=True):
        assert relative_error(product, ld.limit(start, problem).product()) < 1e-12
