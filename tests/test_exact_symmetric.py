"""Tied layers in closed form against reference values, the integrated flow, its limit, its rates and its derivatives."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Compiled, load_cases, relative_error, tolerance
from scipy.integrate import solve_ivp

import lindyn_jax as ld

exact = Compiled(ld.exact)

CASES = {name: case for name, case in load_cases("t21").items() if case["formula"] == "eq5_prop1_phi1"}
symmetric = jax.jit(exact.symmetric)


def target(rng, sigma):
    """A symmetric matrix with these eigenvalues."""
    Q = np.linalg.qr(rng.normal(size=(len(sigma), len(sigma))))[0]
    Y = (Q * np.asarray(sigma)) @ Q.T
    return (Y + Y.T) / 2


def by_scipy(Y, U0, ts):
    """X(t) = U U^T under U' = 2 (Y - U U^T) U by SciPy; leading axes are a batch, times come first."""

    def velocity(t, y):
        U = y.reshape(U0.shape)
        return (2 * (Y @ U - U @ (np.swapaxes(U, -1, -2) @ U))).ravel()

    U = solve_ivp(velocity, (0, ts[-1]), U0.ravel(), "DOP853", t_eval=ts, rtol=1e-12, atol=1e-15).y.T
    U = U.reshape(-1, *U0.shape)
    return U @ np.swapaxes(U, -1, -2)


def integrated(Y, U0, ts):
    """X(t) by the integrator, with an adaptive solver of order 8 at 1e-11."""
    flow = ld.gradient_flow(
        ld.SymmetricFactors(U0),
        ld.factorization(Y),
        ts,
        observables={"X": lambda model, problem: model.product()},
        solver="dopri8",
        rtol=1e-11,
        atol=1e-13,
    )
    return flow.observables["X"]


@pytest.mark.parametrize("name", CASES)
def test_reference_values(name, dtype):
    case = CASES[name]
    Y, U0, ts = (np.asarray(values, dtype) for values in (case["inputs"]["Y"], case["inputs"]["U0"], case["times"]))
    X = symmetric(Y, U0, ts)
    assert X.dtype == dtype
    for value, expected in zip(X, case["expected"]["X"], strict=True):
        assert relative_error(value, expected) <= tolerance(dtype)


def test_random_instances_agree_with_the_integrated_flow(rng):
    spectra = [(2, 1, 0.5, 0.25), (2, 1, -0.5, -1), (1, 1, 1, -1), (1, 0, 0, -1), (0, 0, 0, 0), (-1, -0.5, -0.5, -2)]
    Y = np.stack([target(rng, sigma) for sigma in spectra * 4])
    U0 = rng.normal(size=(24, 4, 5))
    for rank, some in ((1, slice(6, 12)), (3, slice(12, 18))):
        U0[some, :, rank:] = 0
    U0[18:] *= 1e-3
    ts = np.array([0.0, 0.1, 1.0, 4.0])
    closed = jax.jit(jax.vmap(lambda Y, U0: exact.symmetric(Y, U0, ts)))(Y, U0)
    numerical = np.swapaxes(by_scipy(Y, U0, ts), 0, 1)
    for value, expected, start in zip(closed, numerical, U0, strict=True):
        assert relative_error(value[0], start @ start.T) <= tolerance("float64")
        assert relative_error(value, expected) <= 1e-9


def test_vector_of_times_in_any_order_equals_a_loop_over_times(rng):
    Y, U0, ts = target(rng, (1, 0, 0, -1)), rng.normal(size=(4, 5)), np.array([3.0, 0.0, 1e6, 0.2])
    together = exact.symmetric(Y, U0, ts)
    one_by_one = np.concatenate([symmetric(Y, U0, ts[i : i + 1]) for i in range(4)])
    assert relative_error(together, one_by_one) <= tolerance("float64")


def test_derivatives_agree_with_differences_and_with_the_integrator(rng):
    # Simple, repeated and zero eigenvalues; full and deficient rank of the start; a start with X0 = Y.
    spectra = [(2, 1, 0.5, -1), (1, 1, 1, -1), (1, 0, 0, -1), (0, 0, 0, 0), (1, 1, 0.5, 0.5)]
    Y = np.stack([target(rng, sigma) for sigma in spectra])
    U0 = rng.normal(size=(5, 4, 4))
    U0[1, :, 2] = U0[1, :, 1]
    U0[2, :, 1:] = 0
    U0[4] = np.linalg.cholesky(Y[4])
    dY, dU0, dt = rng.normal(size=(4, 4)), rng.normal(size=(4, 4)), 0.5
    dY = dY + dY.T
    ts = np.array([0.0, 0.3, 2.0])

    def along(solve, Y, U0):
        return lambda e: solve(Y + e * dY, U0 + e * dU0, 1 + e * dt)

    def closed_form(Y, U0, speed):
        return exact.symmetric(Y, U0, ts * speed)

    # Steps of at most 0.05: a start at its limit does not move, and adaptive steps would step over its derivatives. The
    # derivative with respect to time is that of the loss scale: that of a save time is only that of an interpolation.
    def by_integrator(Y, U0, speed):
        path = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, U, problem: ld.SymmetricFactors(U).velocity(problem).U),
            diffrax.Dopri8(),
            0.0,
            ts[-1],
            0.01,
            U0,
            ld.factorization(Y, scale=speed),
            saveat=diffrax.SaveAt(ts=ts),
            stepsize_controller=diffrax.PIDController(rtol=1e-12, atol=1e-13, dtmax=0.05),
            adjoint=diffrax.ForwardMode(),
        ).ys
        return path @ path.swapaxes(1, 2)

    def tangents(solve):
        return jax.jit(jax.vmap(lambda Y, U0: jax.jvp(along(solve, Y, U0), (0.0,), (1.0,))[1]))(Y, U0)

    closed = jax.jit(jax.vmap(lambda Y, U0, e: along(closed_form, Y, U0)(e), (0, 0, None)))
    forward, expected = tangents(closed_form), tangents(by_integrator)
    step = 1e-5
    differences = (closed(Y, U0, step) - closed(Y, U0, -step)) / (2 * step)
    weights = rng.normal(size=(3, 4, 4))
    pulled = jax.jit(jax.vmap(lambda Y, U0: jax.vjp(exact.symmetric, Y, U0, ts)[1](jnp.asarray(weights))))(Y, U0)
    for i in range(len(spectra)):
        assert relative_error(forward[i], differences[i]) <= 1e-6
        assert relative_error(forward[i], expected[i]) <= 1e-7
        backward = np.sum(pulled[0][i] * dY) + np.sum(pulled[1][i] * dU0) + np.sum(pulled[2][i] * ts * dt)
        assert abs(backward - np.sum(weights * forward[i])) <= tolerance("float64", 10) * max(1, abs(backward))


def test_measured_rates_of_the_integrated_flow_are_the_stated_ones(rng):
    cases = {  # eigenvalues, rank of the start, rate
        "definite": ((4, 3, 0.5), 3, 2.0),
        "indefinite": ((4, 0.6, -3), 3, 2.4),
        "low rank": ((4, 1.5, 0.5), 2, 2.0),
        "rank one, indefinite": ((1.5, -0.5, -3), 1, 4.0),
        "negative": ((-0.6, -2.5, -3), 3, 2.4),
    }
    Y = np.stack([target(rng, sigma) for sigma, _, _ in cases.values()])
    U0 = rng.normal(size=(len(cases), 3, 3))
    for start, (_, rank, _) in zip(U0, cases.values(), strict=True):
        start[:, rank:] = 0
    # Late enough for the next terms to be below 1e-4 of the leading one, early enough for 1e-11 to be.
    times = np.stack([np.array([0.0, 9.6, 13.2]) / rate for _, _, rate in cases.values()])
    X = jax.jit(jax.vmap(integrated))(Y, U0, times)
    for i, (name, (_, _, expected)) in enumerate(cases.items()):
        rate, limit = exact.symmetric_rate(Y[i], U0[i]), exact.symmetric_limit(Y[i], U0[i])
        assert bool(rate.applies) and abs(rate.value - expected) <= 1e-12 * expected, name
        assert bool(limit.applies) == (name != "low rank") == bool(exact.symmetric_converges(Y[i], U0[i]))
        first, second = (np.linalg.norm(X[i, j] - limit.value) for j in (1, 2))
        measured = np.log(first / second) / (times[i, 2] - times[i, 1])
        assert abs(measured / expected - 1) <= 1e-3, (name, measured)


def test_entries_decay_at_the_sum_of_two_eigenvalues(rng):
    sigma = np.array([-2.2, -0.4, 0.7, 1.1])
    Y, U0 = np.diag(sigma), rng.normal(size=(4, 4))
    rates = exact.symmetric_entry_rates(Y, U0)
    assert bool(rates.applies)
    expected = 2 * (np.abs(sigma)[:, None] + np.abs(sigma)[None, :])
    assert relative_error(rates.value, expected) <= tolerance("float64")
    assert not exact.symmetric_entry_rates(Y, U0[:, :3]).applies
    # Entries that vanish in the limit can be followed as far down as one likes.
    X = symmetric(Y, U0, np.array([16.0, 17.0]))
    negative = slice(0, 2)
    measured = np.log(np.abs(X[0] / X[1]))[negative, negative]
    assert np.max(np.abs(measured / expected[negative, negative] - 1)) <= 1e-3


def test_kernel_of_the_target_decays_like_one_over_four_t(rng):
    Y, U0 = target(rng, (2, 0, 0, -1)), rng.normal(size=(4, 4))
    rate = exact.symmetric_rate(Y, U0)
    assert rate.value == 0 and bool(rate.applies)
    t = 1e5
    left = np.asarray(symmetric(Y, U0, np.array([1.0, t]))[1] - exact.symmetric_limit(Y, U0).value)
    np.testing.assert_allclose(np.linalg.eigvalsh(left)[-2:] * 4 * t, 1, rtol=1e-3)


def test_convergence_condition_is_the_corrected_one():
    # The earlier version of the paper asks for I + |Y|(X0 - Y_+) to be invertible, which is 0 here.
    Y, U0 = np.diag([2.0, 1.0, -1.0, -1.0]), np.diag([np.sqrt(1.5), 1.0, 1.0, 1.0])
    assert abs(1 + 2 * (1.5 - 2)) == 0
    assert bool(exact.symmetric_converges(Y, U0))
    assert relative_error(symmetric(Y, U0, np.array([0.0, 20.0]))[1], np.maximum(Y, 0)) <= tolerance("float64")
    assert not exact.symmetric_converges(Y, np.diag([1.0, 0.0, 1.0, 1.0]))


def test_one_mode_is_the_scalar_case_for_every_sign_and_time(rng):
    sigma = np.array([2.0, -1.5, 0.0, 1e-9, -1e-9, 1.0, 3.0])
    x0 = np.array([0.1, 3.0, 2.0, 1.0, 1.0, 1.0, 0.0])
    ts = np.array([0.0, 1e-3, 1.0, 50.0, 1e6])

    @jax.jit
    @jax.vmap
    def both(s, x):
        return exact.symmetric_mode(s, x, ts), exact.symmetric(s[None, None], jnp.sqrt(x)[None, None], ts)[:, 0, 0]

    modes, matrices = map(np.asarray, both(sigma, x0))
    assert relative_error(modes, matrices) <= tolerance("float64")
    assert relative_error(modes[2], 2.0 / (1 + 8.0 * ts)) <= tolerance("float64")
    assert modes[1, 3] > 0 and abs(modes[1, 3] / (1.5 * 3 / (1.5 + 3) * np.exp(-300.0)) - 1) <= 1e-12
    # sigma -> x has a second derivative at zero: differences of the first.
    step = 1e-5
    derivatives = jax.jit(jax.vmap(jax.value_and_grad(jax.grad(lambda s: exact.symmetric_mode(s, 2.0, 0.5)))))
    first, second = derivatives(step * np.array([-1.0, 0, 1]))
    assert abs(second[1] - (first[2] - first[0]) / (2 * step)) <= 1e-8


def test_bad_input_is_refused():
    ts = np.array([1.0])
    with pytest.raises(ValueError, match="`Y` must be symmetric"):
        ld.exact.symmetric(np.array([[1.0, 2], [0, 1]]), np.ones((2, 1)), ts)
    with pytest.raises(ValueError, match="same number of rows, but have 2 and 3"):
        ld.exact.symmetric_factors.__wrapped__(np.eye(2), np.ones((3, 1)), ts)
    with pytest.raises(ValueError, match="`ts` must not be negative"):
        ld.exact.symmetric(np.eye(2), np.ones((2, 1)), -ts)
    with pytest.raises(ValueError, match=r"`ts` must have shape \(T,\)"):
        ld.exact.symmetric_factors.__wrapped__(np.eye(2), np.ones((2, 1)), 1.0)
    with pytest.raises(ValueError, match="`x0` must not be negative"):
        ld.exact.symmetric_mode(1.0, -1.0, 1.0)


@pytest.mark.parametrize("h", [2, 4, 6])
def test_a_start_of_low_rank_in_dense_columns_keeps_it_at_any_time(h, rng):
    # Dependent up to round-off, in columns (h <= n) and in rows (h >= n).
    reached = exact.symmetric_limit
    for rank in (1, 2):
        for _ in range(10):
            Y, U0 = target(rng, [2.0, 1, 0.5, -1]), rng.normal(size=(4, rank)) @ rng.normal(size=(rank, h))
            limit = reached(Y, U0)
            for late in np.asarray(symmetric(Y, U0, np.array([1e3, 1e6]))):
                # Round-off of exponents: eps t ||A||.
                assert np.sum(np.linalg.eigvalsh(late) > 1e-9) == rank
                assert relative_error(late, limit.value) <= 1e-9


@pytest.mark.parametrize("h", [2, 6])
def test_derivatives_of_a_start_of_rank_one_in_dense_columns_are_those_of_one_column(h, rng):
    Y, a, b = target(rng, [2.0, 1, 0.5, -1, -2]), rng.normal(size=5), rng.normal(size=h)
    dY, da, weights = target(rng, [1.0, 2, -1, 0, 1]), rng.normal(size=5), rng.normal(size=(5, 5))
    one = np.linalg.norm(b) * np.eye(h)[0]
    along = jax.jit(lambda ts, *x: jax.jvp(lambda Y, U: exact.symmetric(Y, U, ts), x[:2], x[2:])[1])
    back = jax.jit(jax.grad(lambda Y, U, ts: jnp.sum(weights * exact.symmetric(Y, U, ts)[0]), (0, 1)))
    for t in (0.7, 30.0, 1e6):
        ts = np.array([t])
        expected = along(ts, Y, np.outer(a, one), dY, np.outer(da, one))
        forward = along(ts, Y, np.outer(a, b), dY, np.outer(da, b))
        pulled = back(Y, np.outer(a, b), ts)
        assert relative_error(forward, expected) <= tolerance("float64", max(1, t))
        paired = np.sum(pulled[0] * dY) + np.sum(pulled[1] * np.outer(da, b))
        assert abs(paired - np.sum(weights * forward[0])) <= tolerance("float64", max(1, t)) * max(1, abs(paired))


def test_modes_of_a_start_that_are_tiny_and_there_are_learned():
    Y, late = np.diag([2.0, 1.0, -1.0, -1.0]), np.array([1e3, 1e3])
    padded = lambda U0: np.pad(U0, ((0, 1), (0, 1)))  # noqa: E731
    for tiny in (1e-13, 1e-50):
        close = np.array([[1, 1, 0], [1, 1 + max(tiny, 1e-13), 0], [0, 0, 0]])
        for U0 in (np.diag([1, tiny, 1]), np.diag([tiny, 1, 1]), close):
            for value in (symmetric(Y, padded(U0), late)[0], exact.symmetric_limit(Y, padded(U0)).value):
                assert relative_error(value, np.diag([2.0, 1, 0, 0])) <= tolerance("float64", 1e3)
    # At its time, and not before: x' = 4 x (sigma - x) from 1e-26.
    t = np.log(1e26) / 4
    learned = np.asarray(symmetric(Y, padded(np.diag([1, 1e-13, 1])), np.array([0, t])))[1, 1, 1]
    assert relative_error(learned, exact.symmetric_mode(1.0, 1e-26, t)) <= 1e-11
