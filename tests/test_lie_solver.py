"""The explicit solver on the group O(r, m) against matrix exponentials, another method, its order and finite differences."""

import inspect

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from helpers import integrated, relative_error, tolerance

import lindyn_jax as ld
from lindyn_jax.solvers import LieRK4, NormController, control, lie

r, m, k = 5, 3, 8


def start_and_problem(rng, **options):
    X = rng.normal(size=(9, 6))
    problem = ld.LeastSquares(X, X @ rng.normal(size=(6, m)) / 2, scale="mean", **options)
    return ld.TwoLayer(rng.normal(size=(6, 12)) / 3, rng.normal(size=(m, 12)) / 3), problem


@pytest.mark.parametrize("shape", [(r, m), (m, r), (r, 1), (1, 1)])
def test_rotation_is_the_matrix_exponential_and_keeps_the_form(shape, rng):
    rows, columns = shape
    B = rng.normal(size=shape)
    B *= 1.1 / np.linalg.norm(B)
    U, V = rng.normal(size=(rows, k)), rng.normal(size=(columns, k))
    A = np.block([[np.zeros((rows, rows)), B], [B.T, np.zeros((columns, columns))]])
    U1, V1 = jax.jit(lie.rotate)(B, U, V)
    assert relative_error(np.vstack([U1, V1]), scipy.linalg.expm(A) @ np.vstack([U, V])) < tolerance("float64")
    assert np.linalg.norm(U1.T @ U1 - V1.T @ V1 - U.T @ U + V.T @ V) < tolerance("float64") * (
        np.sum(U**2) + np.sum(V**2)
    )


def test_a_rotation_too_long_for_its_series_is_shortened_and_stays_finite(rng):
    B = 1e200 * rng.normal(size=(r, m))
    U1, V1 = lie.rotate(jnp.asarray(B), jnp.ones((r, k)), jnp.ones((m, k)))
    assert np.all(np.isfinite(U1)) and np.all(np.isfinite(V1))


def test_the_method_has_order_four(rng):
    start, problem = start_and_problem(rng)
    core = ld.reduce(start, problem)
    moving, fixed = eqx.partition(core, core.moving())

    @jax.jit
    def end(steps):
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: y),  # the solver knows the flow by itself
            LieRK4(),
            0.0,
            1.0,
            1 / steps,
            moving,
            args=(problem, fixed),
            stepsize_controller=diffrax.ConstantStepSize(),
            max_steps=200,
        )
        return jnp.concatenate([solution.ys.U1[-1], solution.ys.V[-1]])

    U1, V = integrated(jax.jit(lambda Theta: problem.reduced_loss_gradient(Theta)), core.U1, core.V, [1.0], 1e-13)
    errors = [relative_error(end(steps), np.concatenate([U1[0], V[0]])) for steps in (32.0, 64.0, 128.0)]
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    print("errors", errors, "orders", orders)
    assert np.all(np.abs(orders - 4) < 0.2)


def test_path_agrees_with_another_method_and_the_imbalance_stays_at_any_tolerance(rng):
    start, problem = start_and_problem(rng)
    ts = np.array([0.0, 0.3, 1.0, 5.0, 30.0])
    X, Y = np.asarray(problem.X), np.asarray(problem.Y)
    exact = integrated(lambda Theta: X.T @ (X @ Theta - Y) / 9, start.U, start.V, ts)
    for rtol in (1e-9, 1e-3):
        out = ld.gradient_flow(
            start, problem, ts, solver="lie", rtol=rtol, observables=("imbalance_drift",), keep_models=True
        )
        assert bool(out.ok) and not bool(out.stats["implicit"])
        assert np.max(out.observables["imbalance_drift"]) < tolerance("float64", 10)
        for layer, expected in zip((out.models.U, out.models.V), exact, strict=True):
            # The tolerance is that of a step; measured: up to its double at the end.
            assert relative_error(layer, expected) < 4 * rtol


def test_dense_output_between_steps_has_order_three(rng):
    start, problem = start_and_problem(rng)
    core = ld.reduce(start, problem)
    moving, fixed = eqx.partition(core, core.moving())

    gradient = jax.jit(lambda Theta: problem.reduced_loss_gradient(Theta))

    @jax.jit
    def middle(length):
        return diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: y),
            LieRK4(),
            0.0,
            length,
            length,
            moving,
            args=(problem, fixed),
            saveat=diffrax.SaveAt(ts=length[None] * 0.4),
            stepsize_controller=diffrax.ConstantStepSize(),
        ).ys.U1[0]

    errors = []
    for length in (0.02, 0.01, 0.005):
        U1, _ = integrated(gradient, core.U1, core.V, [0.4 * length], 1e-13)
        errors.append(np.linalg.norm(middle(jnp.asarray(length)) - U1[0]))
    # A cubic leaves an error of fourth order in the length of the step.
    assert np.all(np.abs(np.log2(np.divide(errors[:-1], errors[1:])) - 4) < 0.3)


def test_a_link_function_keeps_the_imbalance_as_well(rng):
    start, problem = start_and_problem(rng, link=jax.nn.sigmoid)
    ts = np.array([1.0, 20.0])
    X, Y = np.asarray(problem.X), np.asarray(problem.Y)

    def gradient(Theta):
        P = 1 / (1 + np.exp(-X @ Theta))
        return X.T @ ((P - Y) * P * (1 - P)) / 9

    U, V = integrated(gradient, start.U, start.V, ts, 1e-11)
    expected = [np.sum((1 / (1 + np.exp(-X @ A @ B.T)) - Y) ** 2) / 18 for A, B in zip(U, V, strict=True)]
    out = ld.gradient_flow(start, problem, ts, solver="lie", rtol=1e-7, observables=("loss", "imbalance_drift"))
    assert relative_error(out.observables["loss"], expected) < 1e-7
    assert np.max(out.observables["imbalance_drift"]) < tolerance("float64", 10)


def test_derivatives_agree_with_central_differences(rng):
    start, problem = start_and_problem(rng)

    @jax.jit
    @jax.value_and_grad
    def loss(scale):
        scaled = ld.TwoLayer(scale * start.U, start.V)
        return ld.gradient_flow(scaled, problem, jnp.array([2.0]), solver="lie", rtol=1e-10).observables["loss"][-1]

    step = 1e-4
    (behind, _), (_, gradient), (ahead, _) = (loss(1 + k * step) for k in (-1.0, 0.0, 1.0))
    assert abs(gradient - (ahead - behind) / (2 * step)) < 1e-7 * abs(gradient)


def test_the_derivative_of_a_rotation_by_nothing_is_that_of_its_first_order(rng):
    # Where the loss has no gradient steps are rotations by zero: exp(A(B)) Z = Z + A(B) Z there.
    U, V = jnp.asarray(rng.normal(size=(3, 4))), jnp.asarray(rng.normal(size=(2, 4)))
    weights = rng.normal(size=(3, 4)), rng.normal(size=(2, 4))

    def seen(B):
        return sum(jnp.sum(weight * part) for weight, part in zip(weights, lie.rotate(B, U, V), strict=True))

    gradient = jax.jit(jax.grad(seen))(jnp.zeros((3, 2)))
    assert relative_error(gradient, weights[0] @ V.T + U @ weights[1].T) < tolerance("float64")


def test_what_is_not_a_rotation_is_refused(rng):
    start, problem = start_and_problem(rng)
    unchecked = inspect.unwrap(ld.gradient_flow)
    for model, data, options, match in (
        (start, problem.regularized(1.0), {}, "has a penalty"),
        (start, problem, {"reduce": False}, "`reduce` is False"),
        (ld.LinearModel(np.ones((6, m))), problem, {}, "is a LinearModel"),
    ):
        with pytest.raises(ValueError, match=f"The solver 'lie' moves two-layer models.*{match}"):
            unchecked(model, data, np.ones(1), solver="lie", **options)


def test_a_batch_in_float32_stays_float32(rng):
    _, problem = start_and_problem(rng)
    small = ld.LeastSquares(np.asarray(problem.X, np.float32), np.asarray(problem.Y, np.float32), scale="mean")
    U, V = (np.asarray(rng.normal(size=(4, size, k)) / 3, np.float32) for size in (6, m))

    def end(U, V):
        out = ld.gradient_flow(
            ld.TwoLayer(U, V), small, jnp.ones(1, jnp.float32), solver="lie", observables=("imbalance_drift",)
        )
        return out.final.U, out.observables["imbalance_drift"][0], out.ok

    U1, drift, ok = jax.jit(jax.vmap(end))(U, V)
    assert U1.dtype == jnp.float32 and np.all(ok) and np.max(drift) < 1e-5
    one, *_ = jax.jit(end)(U[2], V[2])
    assert relative_error(U1[2], one) < 1e-5


def test_controller_caps_steps_by_the_gradient(rng):
    start, problem = start_and_problem(rng)
    core = ld.reduce(start, problem)
    steepest = np.linalg.norm(problem.reduced_loss_gradient(core.product()), 2)
    cap = jax.jit(lambda: NormController(jnp.asarray(1e-3))._cap(core, control._Growth(core, (problem,))))()
    assert 0.9 / steepest < cap <= 1 / steepest
