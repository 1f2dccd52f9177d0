"""Gradient flow against independent integrations and closed forms, its events, refusals and derivatives."""

import inspect

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import load_cases, relative_error, tolerance
from scipy.integrate import solve_ivp
from scipy.linalg import expm
from scipy.optimize import brentq

import lindyn_jax as ld
from lindyn_jax import trajectory

N, n, m, h = 4, 6, 2, 9
TIMES = np.array([0.05, 0.4, 1.5])

# The public function without the run-time check of its annotations, which would refuse wrong types before it does.
unchecked = inspect.unwrap(ld.gradient_flow)


@pytest.fixture
def data(rng):
    return rng.normal(size=(N, n)), rng.normal(size=(N, m)), rng.normal(size=(n, h)) / 3, rng.normal(size=(m, h)) / 3


def integrate(velocity, weights, times):
    """An independent integration of d(weights)/dt = velocity(weights), a list of arrays, by SciPy."""
    sizes, shapes = np.cumsum([w.size for w in weights])[:-1], [w.shape for w in weights]

    def unpack(y):
        return [part.reshape(shape) for part, shape in zip(np.split(y, sizes), shapes, strict=True)]

    solution = solve_ivp(
        lambda t, y: np.concatenate([v.ravel() for v in velocity(*unpack(y))]),
        (0.0, times[-1]),
        np.concatenate([w.ravel() for w in weights]),
        method="DOP853",
        t_eval=times,
        rtol=1e-12,
        atol=1e-14,
    )
    return [np.stack(path) for path in zip(*[unpack(y) for y in solution.y.T], strict=True)]


# -- independent integrations --------------------------------------------------------------------------------------------


def test_flow_agrees_with_an_independent_integration(data):
    X, Y, U, V = data
    q, c = 1 / N, 0.7

    def velocity(U, V):
        E = Y - c * X @ U @ V.T
        return q * c * X.T @ E @ V, q * c * E.T @ X @ U

    U_t, V_t = integrate(velocity, [U, V], TIMES)
    problem = ld.LeastSquares(X, Y, scale="mean", output_scale=c)
    out = ld.gradient_flow(ld.TwoLayer(U, V), problem, TIMES, rtol=1e-12, atol=1e-14, keep_models=True)
    # Both integrate to 1e-12 a step; a hundred steps may add up.
    assert relative_error(out.models.U, U_t) < 1e-9
    assert relative_error(out.models.V, V_t) < 1e-9
    losses = [q / 2 * np.sum((Y - c * X @ A @ B.T) ** 2) for A, B in zip(U_t, V_t, strict=True)]
    assert relative_error(out.observables["loss"], losses) < 1e-9
    assert int(out.result) == trajectory.FINISHED
    assert relative_error(out.final.U, out.models.U[-1]) < tolerance("float64")


def test_linear_flow_agrees_with_the_matrix_exponential(data):
    X, Y, _, _ = data
    Theta0, problem = np.ones((n, m)), ld.LeastSquares(X, Y)
    out = ld.gradient_flow(ld.LinearModel(Theta0), problem, TIMES, rtol=1e-12, atol=1e-14, keep_models=True)
    limit = np.linalg.pinv(X) @ Y
    expected = [expm(-t * X.T @ X) @ (Theta0 - limit) + limit for t in TIMES]
    assert relative_error(out.models.Theta, expected) < 1e-10


def test_symmetric_flow_agrees_with_an_independent_integration(rng):
    A, U = rng.normal(size=(4, 4)), rng.normal(size=(4, 3))
    Y = A + A.T
    (U_t,) = integrate(lambda U: [2 * (Y - U @ U.T) @ U], [U], TIMES)
    out = ld.gradient_flow(ld.SymmetricFactors(U), ld.factorization(Y), TIMES, rtol=1e-12, atol=1e-14, keep_models=True)
    assert relative_error(out.models.U, U_t) < 1e-9


def test_flow_through_a_link_agrees_conserves_the_imbalance_and_reduces(data):
    X, Y, U, V = data
    targets = 1 / (1 + np.exp(-Y))

    def velocity(U, V):
        P = 1 / (1 + np.exp(-X @ U @ V.T))
        G = X.T @ ((P - targets) * P * (1 - P))
        return -G @ V, -G.T @ U

    U_t, _ = integrate(velocity, [U, V], TIMES)
    problem = ld.LeastSquares(X, targets, link=jax.nn.sigmoid)
    small, full = (
        ld.gradient_flow(
            ld.TwoLayer(U, V),
            problem,
            TIMES,
            rtol=1e-12,
            atol=1e-14,
            reduce=reduce,
            keep_models=True,
            observables=("loss", "imbalance_drift"),
        )
        for reduce in (True, False)
    )
    assert relative_error(small.models.U, U_t) < 1e-9
    for name in ("U", "V"):
        assert relative_error(getattr(small.models, name), getattr(full.models, name)) < 1e-10
    assert np.max(small.observables["imbalance_drift"]) < 1e-10
    U1 = np.einsum("nr,tnh->trh", problem.Phi1, small.models.U)
    D = np.einsum("trh,trk->thk", U1, U1) - np.einsum("tmh,tmk->thk", small.models.V, small.models.V)
    U1 = np.asarray(problem.Phi1).T @ U
    assert relative_error(D, np.broadcast_to(U1.T @ U1 - V.T @ V, D.shape)) < 1e-10
    assert relative_error(small.observables["loss"], full.observables["loss"]) < 1e-10


@pytest.mark.parametrize("reduce", [True, False])
def test_reference_full_row_rank(reduce):
    case = load_cases("m22")["reparam_fullrowrank_3x5"]
    given, expected = case["inputs"], case["expected"]
    X, Y, U, V = (np.array(given[name]) for name in "XYUV")
    problem, start = ld.LeastSquares(X, Y), ld.TwoLayer(U, V)
    assert problem.rank == expected["rank"]
    assert relative_error(problem.singular_values, expected["singular_values"]) < tolerance("float64")
    assert relative_error(problem.theta_hat, expected["Theta_hat"]) < tolerance("float64")
    assert relative_error(problem.loss(start.product()), expected["L"]) < tolerance("float64")
    assert relative_error(ld.observables.excess_loss(start, problem), expected["half_E_fro2"]) < tolerance("float64")
    velocity = start.velocity(problem)
    # The reference prints ten decimals of entries up to 31.
    assert relative_error(velocity.U, expected["grad_flow_dU"]) < 1e-10
    assert relative_error(velocity.V, expected["grad_flow_dV"]) < 1e-10
    D = ld.observables.imbalance_spectrum(start, problem)
    assert relative_error(D, expected["eig_D_U1"]) < tolerance("float64")
    assert relative_error(start.imbalance_spectrum(), expected["eig_D_full"]) < tolerance("float64")
    out = ld.gradient_flow(start, problem, np.array([expected["T"]]), rtol=1e-12, atol=1e-14, reduce=reduce)
    # The integration is asked for 1e-12 a step.
    assert relative_error(out.final.product(), expected["UVt_T"]) < 1e-10
    assert relative_error(out.final.U, expected["U_T"]) < 1e-10
    assert relative_error(out.final.V, expected["V_T"]) < 1e-10
    assert relative_error(out.observables["loss"][0], expected["L_T"]) < 1e-10


# -- invariants and events -----------------------------------------------------------------------------------------------


def test_flow_conserves_the_imbalance_at_default_tolerances(rng):
    problem = ld.LeastSquares(rng.normal(size=(N, n)), rng.normal(size=(N, m)))
    starts = ld.TwoLayer(rng.normal(size=(n, h)), rng.normal(size=(m, h)))
    for scale in (0.1, 0.5, 1.0, 1.5):
        start = ld.TwoLayer(scale * starts.U, starts.V)
        out = ld.gradient_flow(start, problem, TIMES, observables=("imbalance_drift", "loss"))
        assert np.max(out.observables["imbalance_drift"]) < 1e-8
        assert np.all(np.diff(out.observables["loss"]) < 0)


def test_stop_ends_the_flow_at_the_ratio_asked_for(data):
    X, Y, U, V = data
    problem = ld.LeastSquares(X, Y)
    out = ld.gradient_flow(
        ld.TwoLayer(U, V), problem, np.array([0.0, 0.1, 1e5]), observables=("excess_loss",), stop=1e-12
    )
    excess = np.asarray(out.observables["excess_loss"])
    assert int(out.result) == trajectory.STOPPED and bool(out.ok)
    assert np.all(np.isfinite(excess[:2])) and np.isinf(excess[2])
    assert float(out.final_observables["excess_loss"]) <= 1e-12 * excess[0]
    assert 0.1 < float(out.stats["final_time"]) < 1e5
    assert int(out.stats["num_accepted"]) < 2000
    # What is left in the frozen directions is U2(0) V(infinity)^T.
    Phi1 = np.asarray(problem.Phi1)
    expected = np.linalg.pinv(X) @ Y + (U - Phi1 @ Phi1.T @ U) @ np.asarray(out.final.V).T
    assert relative_error(out.final.product(), expected) < 1e-5  # the square root of the stopping ratio


def test_running_out_of_steps_is_a_result_and_not_an_error(data):
    X, Y, U, V = data
    problem, ts = ld.LeastSquares(X, Y), np.array([0.0, 1e5])
    out = ld.gradient_flow(ld.TwoLayer(U, V), problem, ts, solver="tsit5", max_steps=10)
    assert int(out.result) == trajectory.STEP_LIMIT and not bool(out.ok)
    assert np.isinf(out.observables["loss"][1]) and int(out.stats["num_steps"]) == 10


# -- batches, compilation, derivatives -----------------------------------------------------------------------------------


def test_flow_is_traced_once_for_all_weights_and_times(data):
    X, Y, U, V = data
    traces = []

    def counted(model, problem):
        traces.append(1)
        return jnp.sum(model.V)

    problem = ld.LeastSquares(X, Y)
    ld.gradient_flow(ld.TwoLayer(U, V), problem, TIMES, observables={"count": counted})
    first = len(traces)
    assert first > 0
    for factor in (2.0, 3.0):
        ld.gradient_flow(ld.TwoLayer(factor * U, V), problem, factor * TIMES, observables={"count": counted})
        ld.gradient_flow(ld.TwoLayer(U, V), ld.LeastSquares(factor * X, Y), TIMES, observables={"count": counted})
    assert len(traces) == first


def scaled_loss(data, **options_given):
    X, Y, U, V = data
    problem = ld.LeastSquares(X, Y)

    def value(scale):
        options = {"solver": "tsit5"} | options_given
        out = ld.gradient_flow(ld.TwoLayer(scale * U, V), problem, np.array([0.3]), rtol=1e-10, **options)
        return out.observables["loss"][0]

    return value


def loss_by_scipy(data):
    """What `scaled_loss(data)` is at 1."""
    X, Y, *start = data
    U, V = integrate(lambda U, V: (X.T @ (Y - X @ U @ V.T) @ V, (Y - X @ U @ V.T).T @ X @ U), start, [0.3])
    return np.sum((Y - X @ U[0] @ V[0].T) ** 2) / 2


def test_vmap_equals_a_loop(data):
    scales, value = [0.8, 1.0, 1.3], scaled_loss(data)
    batch = jax.jit(jax.vmap(value))(jnp.asarray(scales))
    assert relative_error(batch, [value(scale) for scale in scales]) < tolerance("float64")


# Also one of the derivatives of simulations, which are all held in one table.
@pytest.mark.slow
def test_the_derivative_is_a_central_difference(data):
    value, forward, step = jax.jit(scaled_loss(data)), diffrax.ForwardMode(), 1e-4
    difference = (float(value(1.0 + step)) - float(value(1.0 - step))) / (2 * step)
    reverse = float(jax.jit(jax.grad(scaled_loss(data)))(1.0))
    # Central difference: step^2 and the tolerance of the integration over the step.
    assert abs(reverse - difference) < 1e-6 * abs(difference) and abs(difference) > 1e-2
    slope = float(jax.jit(jax.jacfwd(scaled_loss(data, adjoint=forward)))(1.0))
    assert abs(slope - reverse) < 1e-9 * abs(reverse)


def test_float32_stays_float32_and_agrees(data):
    problem = ld.LeastSquares(*(A.astype(np.float32) for A in data[:2]))
    start = ld.TwoLayer(*(A.astype(np.float32) for A in data[2:]))
    out = ld.gradient_flow(start, problem, np.array([0.3], np.float32))
    assert out.final.U.dtype == np.float32 and out.observables["loss"].dtype == np.float32
    # The default tolerance in float32 is 1e-5 a step.
    assert relative_error(out.observables["loss"][0], loss_by_scipy(data)) < tolerance("float32", 10)


@pytest.mark.parametrize("solver", ["tsit5", "kvaerno5", diffrax.Dopri5()])
def test_solvers_agree(solver, data):
    value = scaled_loss(data, solver=solver, atol=1e-12)(1.0)
    assert relative_error(value, loss_by_scipy(data)) < 1e-8


# -- refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"model": ld.TwoLayer(np.ones((n + 1, h)), np.ones((m, h)))}, "does not fit the problem"),
        ({"model": ld.SymmetricFactors(np.ones((n, h)))}, "does not fit the problem"),
        ({"model": ld.TwoLayer(np.zeros((n, h)), np.zeros((m, h)))}, "The start is the saddle"),
        ({"ts": np.zeros((2, 2))}, r"`ts` must have shape \(T,\) with T >= 1, but has shape \(2, 2\)"),
        ({"ts": np.zeros(0)}, r"`ts` must have shape \(T,\) with T >= 1, but has shape \(0,\)"),
        ({"ts": np.array([0.0, np.nan])}, "`ts` must be finite"),
        ({"ts": np.array([0.0, 0.0])}, "`ts` must increase strictly"),
        ({"ts": np.array([-1.0, 1.0])}, "`ts` must increase strictly from a time of at least 0"),
        ({"ts": np.array([0.0])}, "and end after 0"),
        ({"rtol": 1e-17}, "`rtol` is 1e-17, which float64 cannot resolve"),
        ({"rtol": -1.0}, "`rtol` must be a positive number, but is -1.0"),
        ({"atol": 0.0}, "`atol` must be a positive number, but is 0.0"),
        ({"stop": 1.5}, r"must lie in \(0, 1\), but is 1.5"),
        ({"max_steps": 0}, "`max_steps` must be at least 1, but is 0"),
        ({"solver": "euler"}, "`solver` must be one of 'auto', 'tsit5'"),
        ({"observables": "speed"}, "`observables` must be one of 'loss'"),
    ],
)
def test_bad_arguments_are_refused(change, match, data):
    X, Y, U, V = data
    arguments = {"model": ld.TwoLayer(U, V), "problem": ld.LeastSquares(X, Y), "ts": TIMES, **change}
    with pytest.raises(ValueError, match=match):
        unchecked(**arguments)


def test_other_objects_are_refused(data):
    X, Y, U, V = data
    check = inspect.unwrap(ld.flow.check_flow)
    with pytest.raises(ValueError, match="`model` must be a model of this package, but is a int"):
        check(3, ld.LeastSquares(X, Y), TIMES)
    with pytest.raises(ValueError, match="`problem` must be a problem such as LeastSquares, but is a int"):
        check(ld.TwoLayer(U, V), 3, TIMES)


def test_float32_refuses_tolerances_it_cannot_resolve(data):
    problem = ld.LeastSquares(*(A.astype(np.float32) for A in data[:2]))
    start = ld.TwoLayer(*(A.astype(np.float32) for A in data[2:]))
    with pytest.raises(ValueError, match=r"float32 cannot resolve: pass at least 9\.5e-07, or turn on 64-bit mode"):
        ld.gradient_flow(start, problem, TIMES, rtol=1e-8)


def test_a_stop_is_refused_with_a_link(data):
    X, Y, U, V = data
    with pytest.raises(ValueError, match="`stop` needs the least loss"):
        ld.gradient_flow(ld.TwoLayer(U, V), ld.LeastSquares(X, Y, link=jax.nn.sigmoid), TIMES, stop=0.1)


def test_a_start_at_the_minimum_stops_at_a_time_that_is_a_number():
    out = ld.gradient_flow(
        ld.TwoLayer(np.eye(2), np.eye(2)), ld.factorization(np.eye(2)), TIMES, stop=0.1, solver="tsit5"
    )
    assert int(out.result) == trajectory.STOPPED and 0 <= float(out.stats["final_time"]) <= TIMES[-1]


def test_the_time_of_a_stop_has_the_derivative_of_the_time_at_which_the_loss_is_reached(data):
    X, Y, U, V = (jnp.asarray(A) for A in data)

    def times(q, stop, size, solver="tsit5"):
        problem = ld.LeastSquares(X, Y, scale=q, rank=4)
        out = ld.gradient_flow(ld.TwoLayer(size * U, V), problem, TIMES * 100, stop=stop, solver=solver, rtol=1e-8)
        ratio = out.final_observables["loss"] - problem.loss_star
        return out.stats["final_time"], ratio / (
            ld.observables.loss(ld.TwoLayer(size * U, V), problem) - problem.loss_star
        )

    (end, reached), slopes = jax.jit(jax.value_and_grad(times, (0, 1, 2), has_aux=True))(1.3, 1e-3, 1.1)
    # The loss scale is a unit of time.
    assert relative_error(slopes[0], -end / 1.3) < 1e-6
    # The others by the times at which other flows have the very same ratio.
    step = 1e-4

    def reaching(ratio, size):
        """By a root in the time, of a flow without a stop."""
        excess = lambda time: np.log(ratio_at(time, size) / ratio)  # noqa: E731
        return brentq(excess, 0.99 * float(end), 1.01 * float(end), xtol=1e-12 * float(end))

    problem = ld.LeastSquares(X, Y, scale=1.3)

    @jax.jit
    def ratio_at(time, size):
        start = ld.TwoLayer(size * U, V)
        out = ld.gradient_flow(start, problem, jnp.stack([time]), observables="excess_loss", solver="tsit5", rtol=1e-10)
        return out.observables["excess_loss"][0] / ld.observables.excess_loss(start, problem)

    by_stop = (reaching(reached * (1 + step), 1.1) - reaching(reached * (1 - step), 1.1)) / (2 * step * reached)
    by_size = (reaching(reached, 1.1 + step) - reaching(reached, 1.1 - step)) / (2 * step)
    assert relative_error(slopes[1], by_stop) < 1e-4
    assert relative_error(slopes[2], by_size) < 1e-4
