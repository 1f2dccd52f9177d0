"""Tied layers: the product's own equation, reference values, the width reduction, descent, and refusals."""

import inspect

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import load_cases, relative_error, tolerance
from scipy.linalg import expm

import lindyn_jax as ld
from lindyn_jax import trajectory

n = 4
TIMES = np.array([0.05, 0.3])
CASES = {name: case for name, case in load_cases("t21").items() if case["formula"] == "eq5_prop1_phi1"}


def symmetric(rng, size=n):
    A = rng.normal(size=(size, size))
    return (A + A.T) / 2


def padded(A, shape, dtype):
    out = np.zeros(shape, dtype)
    out[: np.shape(A)[0], : np.shape(A)[1]] = A
    return out


def test_reference_solutions_are_reproduced(dtype):
    # Rows and columns of zeros stay zero, so that all cases make one batch of 5 x 5.
    Y, U0 = (np.stack([padded(case["inputs"][key], (5, 5), dtype) for case in CASES.values()]) for key in ("Y", "U0"))
    # An explicit solver takes as many steps as the time is long; longer times are for closed forms.
    times = np.array([0.001, 0.25, 1.0, 10.0], dtype)
    assert all(case["times"][:4] == [0.001, 0.25, 1.0, 10.0] for case in CASES.values())
    options = {"rtol": 1e-11, "atol": 1e-14} if dtype == np.float64 else {"rtol": 2e-6, "atol": 1e-8}
    observables = {"product": lambda model, problem: model.product()}

    @jax.jit
    @jax.vmap
    def flow(Y, U0):
        start, problem = ld.SymmetricFactors(U0), ld.factorization(Y)
        return ld.gradient_flow(start, problem, times, observables=observables, solver="tsit5", **options)

    out = flow(Y, U0)
    assert np.all(np.asarray(out.result) == trajectory.FINISHED) and out.final.U.dtype == dtype
    # The integrator's tolerance a step, over some tens of steps.
    limit = 1e-9 if dtype == np.float64 else 1e-4
    for case, products in zip(CASES.values(), out.observables["product"], strict=True):
        for value, expected in zip(products, case["expected"]["X"][:4], strict=True):
            assert relative_error(value, padded(expected, (5, 5), float)) < limit, case["name"]


@pytest.mark.parametrize("width", [2, 4, 9])
def test_the_product_obeys_its_own_riccati_equation(width, rng):
    Y, q, c = symmetric(rng), 0.4, 1.3
    problem, start = ld.factorization(Y, scale=q, output_scale=c), ld.SymmetricFactors(rng.normal(size=(n, width)))
    X = np.asarray(start.product())
    _, moved = jax.jvp(lambda model: model.product(), (start,), (start.velocity(problem),))
    assert relative_error(moved, q * c * (2 * Y @ X + 2 * X @ Y - 4 * c * X @ X)) < tolerance("float64", 10)


def test_only_the_symmetric_part_of_the_target_moves_the_weights(rng):
    Y, start = rng.normal(size=(n, n)), ld.SymmetricFactors(rng.normal(size=(n, 2)))
    given, part = ld.factorization(Y), ld.factorization((Y + Y.T) / 2)
    assert relative_error(start.velocity(given).U, start.velocity(part).U) < tolerance("float64")
    rest = np.sum((Y - Y.T) ** 2) / 8
    gap = ld.observables.loss(start, given) - ld.observables.loss(start, part)
    assert relative_error(gap, rest) < tolerance("float64", 10)


def test_wide_tied_layers_are_moved_with_as_many_columns_as_rows(rng):
    problem, start = ld.factorization(symmetric(rng)), ld.SymmetricFactors(rng.normal(size=(n, 30)) / 5)
    reduced = ld.reduce(start, problem)
    assert isinstance(reduced.core, ld.SymmetricFactors) and reduced.core.U.shape == (n, n)
    assert relative_error(ld.lift(reduced).U, start.U) < tolerance("float64")
    narrow = ld.SymmetricFactors(start.U[:, :3])
    assert relative_error(ld.lift(ld.reduce(narrow, problem)).U, narrow.U) == 0
    for name in ("loss", "excess_loss", "reconstruction_error", "singular_values", "distance_to_theta_hat"):
        observable = ld.observables.OBSERVABLES[name]
        assert relative_error(observable(reduced, problem), observable(start, problem)) < tolerance("float64", 10), name


def test_wide_tied_layers_flow_as_with_as_many_columns_as_rows(rng):
    problem, start = ld.factorization(symmetric(rng)), ld.SymmetricFactors(rng.normal(size=(n, 30)) / 5)
    small, full = (
        ld.gradient_flow(start, problem, TIMES, solver="tsit5", reduce=reduce, keep_models=True, rtol=1e-11, atol=1e-13)
        for reduce in (True, False)
    )
    # Two integrations at 1e-11 a step.
    assert small.models.U.shape == (2, n, 30)
    assert relative_error(small.models.U, full.models.U) < 1e-9


def test_wide_tied_layers_descend_as_written_down(rng):
    Y, U = symmetric(rng), rng.normal(size=(n, 30)) / 5
    # Momentum: an optimizer that has to be found to commute with the reduction.
    out = ld.gradient_descent(ld.SymmetricFactors(U), ld.factorization(Y), 20, optimizer=optax.sgd(0.01, momentum=0.9))
    velocity = np.zeros_like(U)
    for _ in range(20):
        velocity = 0.9 * velocity + 2 * (U @ U.T - Y) @ U
        U = U - 0.01 * velocity
    assert relative_error(out.final.U, U) < tolerance("float64", 10)


def test_descent_follows_the_scalar_recursion_of_the_paper():
    sigma, eta = 1.3, 0.1
    X, expected = 0.02, []
    for _ in range(40):
        X = X * (1 + 2 * eta * (sigma - X)) ** 2
        expected.append(X)
    out = ld.gradient_descent(
        ld.SymmetricFactors(np.array([[np.sqrt(0.02)]])),
        ld.factorization(np.array([[sigma]])),
        40,
        optimizer=ld.plain_descent(eta),
        save_at=np.arange(1, 41),
        observables={"product": lambda model, problem: model.product()[0, 0]},
    )
    assert relative_error(out.observables["product"], expected) < tolerance("float64", 10)


def test_general_data_move_all_rows(rng):
    X, Y = rng.normal(size=(3, n)), rng.normal(size=(3, n))
    problem, start = ld.LeastSquares(X, Y, scale="mean"), ld.SymmetricFactors(rng.normal(size=(n, 6)) / 3)
    step = 1e-3
    moved = ld.gradient_descent(start, problem, 1, optimizer=ld.plain_descent(step)).final
    U = np.asarray(start.U)
    G = X.T @ (X @ U @ U.T - Y) / 3
    assert relative_error(moved.U, U - step * (G + G.T) @ U) < tolerance("float64")
    assert ld.reduce(start, problem).core.U.shape == (n, n)


def test_starts_form_a_batch_and_derivatives_pass_through_the_reduction(rng):
    Y = symmetric(rng)
    U, direction = rng.normal(size=(n, 7)) / 2, rng.normal(size=(n, 7))

    def value(x):
        out = ld.gradient_flow(
            ld.SymmetricFactors(U + x * direction),
            ld.factorization(Y),
            TIMES,
            solver="tsit5",
            rtol=1e-11,
            atol=1e-13,
            adjoint=diffrax.ForwardMode(),
        )
        return jnp.sum(jnp.sin(out.final.U)), out.final.product()

    @jax.jit
    @jax.vmap
    def with_slope(x):
        return jax.jvp(value, (x,), (1.0,), has_aux=True)

    step = 1e-5
    xs = jnp.array([-step, 0.0, step, 0.5])
    values, slopes, products = with_slope(xs)
    difference = float(values[2] - values[0]) / (2 * step)
    # The integrator's 1e-11 over the step, and step^2.
    assert abs(difference) > 1e-3 and abs(float(slopes[1]) - difference) < 1e-6 * max(1, abs(difference))
    # X = e^{2tY} X0 (I + (e^{4tY} - I) Y^{-1} X0)^{-1} e^{2tY}, for invertible Y.
    once, twice = expm(2 * TIMES[-1] * Y), expm(4 * TIMES[-1] * Y)
    for x, product in zip(xs, products, strict=True):
        X0 = (U + x * direction) @ (U + x * direction).T
        exact = once @ X0 @ np.linalg.inv(np.eye(n) + (twice - np.eye(n)) @ np.linalg.inv(Y) @ X0) @ once
        assert relative_error(product, exact) < 1e-9


def test_a_definite_target_is_learned_to_the_stopping_loss(rng):
    A = rng.normal(size=(n, n))
    problem = ld.factorization(A @ A.T + 0.5 * np.eye(n))
    start = ld.SymmetricFactors(1e-2 * rng.normal(size=(n, 8)))
    out = ld.gradient_flow(start, problem, np.array([1e3]), solver="tsit5", stop=1e-8, observables=("excess_loss",))
    assert int(out.result) == trajectory.STOPPED and out.final.U.shape == (n, 8)
    ratio = float(out.final_observables["excess_loss"] / ld.observables.excess_loss(start, problem))
    assert 1e-10 < ratio <= 1e-8


def test_what_tied_layers_cannot_do_is_refused(rng):
    start, square = ld.SymmetricFactors(np.eye(3)), ld.factorization(symmetric(rng, 3))
    wide = ld.factorization(rng.normal(size=(3, 2)))
    descend = {"optimizer": ld.plain_descent(0.1)}
    for act in (lambda: ld.gradient_flow(start, wide, TIMES), lambda: ld.gradient_descent(start, wide, 3, **descend)):
        with pytest.raises(ValueError, match="a square target, n = m, but the problem has n = 3 inputs and m = 2"):
            act()
    with pytest.raises(ValueError, match=r"\(U rows, U rows\) must be \(4, 4\), but is \(3, 3\)"):
        ld.gradient_flow(start, ld.factorization(symmetric(rng)), TIMES)
    for act in (
        lambda: ld.gradient_flow(ld.SymmetricFactors(np.zeros((3, 2))), square, TIMES),
        lambda: ld.gradient_descent(ld.SymmetricFactors(np.zeros((3, 2))), square, 3, **descend),
    ):
        with pytest.raises(ValueError, match="The start is the saddle U = 0, which gradients never leave"):
            act()
    with pytest.raises(ValueError, match="two-layer models, but the model is a SymmetricFactors"):
        inspect.unwrap(ld.observables.imbalance_spectrum)(start, square)
