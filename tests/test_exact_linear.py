"""One layer in closed form: reference values, the integrated flow, descent step by step, and powers beyond loops."""

from decimal import Decimal, localcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from helpers import Compiled, load_cases, relative_error, tolerance

import lindyn_jax as ld

exact = Compiled(ld.exact)

CASE = load_cases("g19")["linear_flow_singular_nullspace"]


def data(rng, N, n, r):
    return rng.normal(size=(N, r)) @ rng.normal(size=(r, n)) / np.sqrt(r)


def test_flow_on_singular_data_agrees_with_the_reference(dtype):
    inputs, expected = CASE["inputs"], CASE["expected"]
    problem = ld.LeastSquares(np.array(inputs["X"], dtype), np.array(inputs["Y"], dtype), scale="mean")
    Theta0 = np.array(inputs["W0"], dtype)
    Thetas = exact.linear(problem, Theta0, np.array(inputs["t"], dtype))
    assert Thetas.dtype == dtype
    assert relative_error(Thetas, expected["W"]) < tolerance(dtype)
    limit = exact.linear_limit(problem, Theta0)
    assert bool(limit.applies) and relative_error(limit.value, expected["W_inf"]) < tolerance(dtype)
    assert relative_error(limit.value - problem.theta_hat, expected["null_part"]) < tolerance(dtype)
    from_zero = exact.linear(problem, 0 * Theta0, np.array([3.0], dtype))[0]
    assert relative_error(from_zero, expected["W_zero_init_t3"]) < tolerance(dtype)


def test_flow_agrees_with_the_exponential_of_its_generator(rng):
    N, n, m, r = 5, 6, 2, 3
    X, ts = data(rng, N, n, r), np.array([0.2, 1.0, 4.0])
    for _ in range(20):
        (Y, Theta0), (q, c) = (rng.normal(size=shape) for shape in ((N, m), (n, m))), rng.uniform(0.2, 1, 2)
        # Of the weights above an identity.
        generator = np.zeros((n + m, n + m))
        generator[:n] = np.hstack([-q * c**2 * X.T @ X, q * c * X.T @ Y])
        start = np.vstack([Theta0, np.eye(m)])
        expected = [(scipy.linalg.expm(t * generator) @ start)[:n] for t in ts]
        problem = ld.LeastSquares(X, Y, scale=q, output_scale=c)
        assert problem.rank == r
        assert relative_error(exact.linear(problem, Theta0, ts), expected) < tolerance("float64")


@pytest.mark.slow
def test_flow_agrees_with_the_integrated_flow_and_its_gradient(rng):
    N, n, m, r = 5, 6, 2, 3
    X, ts = data(rng, N, n, r), jnp.array([0.2, 1.0, 4.0])
    draws = (rng.normal(size=(40, N, m)), rng.normal(size=(40, n, m)), rng.uniform(0.2, 1, (40, 2)))
    mix = jnp.array(rng.normal(size=(3, n, m)))

    def flow(Y, Theta0, scales, t):
        problem = ld.LeastSquares(X, Y, scale=scales[0], output_scale=scales[1], rank=r)
        options = {"rtol": 1e-11, "atol": 1e-13, "keep_models": True, "max_steps": 4096, "solver": "tsit5"}
        return ld.gradient_flow(ld.LinearModel(Theta0), problem, t, **options).models.Theta

    def closed(Y, Theta0, scales, t):
        problem = ld.LeastSquares(X, Y, scale=scales[0], output_scale=scales[1], rank=r)
        return exact.linear(problem, Theta0, t)

    def with_gradient(function):
        def mixed(*arguments):
            Theta = function(*arguments)
            return jnp.sum(mix * Theta), Theta

        return jax.jit(jax.vmap(jax.grad(mixed, (0, 1, 2, 3), has_aux=True), (0, 0, 0, None)))

    gradients, Thetas = with_gradient(closed)(*draws, ts)
    expected_gradients, expected = with_gradient(flow)(*draws, ts)
    assert max(map(relative_error, Thetas, expected)) < 1e-9
    for gradient, other in zip(gradients, expected_gradients, strict=True):
        assert max(map(relative_error, gradient, other)) < 1e-7


@pytest.mark.parametrize(("N", "n", "m", "r"), [(6, 4, 3, 4), (3, 6, 2, 3), (5, 4, 1, 2)])
def test_flow_is_the_matrix_exponential_for_every_shape_and_rank(rng, N, n, m, r):
    X, Y, Theta0 = data(rng, N, n, r), rng.normal(size=(N, m)), rng.normal(size=(n, m))
    problem = ld.LeastSquares(X, Y, scale=0.7, output_scale=1.4)
    center = np.linalg.pinv(1.4 * X) @ Y
    ts = np.array([0.0, 0.3, 2.5])
    expected = [center + scipy.linalg.expm(-0.7 * t * 1.4**2 * X.T @ X) @ (Theta0 - center) for t in ts]
    assert relative_error(exact.linear(problem, Theta0, ts), expected) < tolerance(np.float64)


def test_time_zero_gives_the_start_and_a_vector_of_times_is_a_loop(rng, dtype):
    problem = ld.LeastSquares(data(rng, 4, 6, 3).astype(dtype), rng.normal(size=(4, 2)).astype(dtype))
    Theta0, ts = rng.normal(size=(6, 2)).astype(dtype), np.array([0.0, 0.3, 5.0, 1e6], dtype)
    Thetas = exact.linear(problem, Theta0, ts)
    assert relative_error(Thetas[0], Theta0) < tolerance(dtype)
    assert relative_error(Thetas, [exact.linear(problem, Theta0, np.array([t]))[0] for t in ts]) < tolerance(dtype)
    assert relative_error(Thetas[-1], exact.linear_limit(problem, Theta0).value) < tolerance(dtype)
    assert relative_error(exact.linear_descent(problem, Theta0, 0.1, np.array([0]))[0], Theta0) < tolerance(dtype)


def test_directions_of_the_data_decay_at_the_stated_rate(rng):
    problem = ld.LeastSquares(data(rng, 6, 4, 4), rng.normal(size=(6, 2)), scale=0.5, output_scale=1.2)
    Theta0, rate = rng.normal(size=(4, 2)), exact.linear_rate(problem)
    assert bool(rate.applies)
    gap = problem.scale * (problem.singular_values[-2] ** 2 - problem.singular_values[-1] ** 2)
    ts = jnp.array([9.0, 10.0]) / gap
    error = jnp.linalg.norm(exact.linear(problem, Theta0, ts) - exact.linear_limit(problem, Theta0).value, axis=(1, 2))
    assert abs(jnp.log(error[0] / error[1]) / (ts[1] - ts[0]) / rate.value - 1) < 1e-3


def test_descent_agrees_with_descent_step_by_step(rng):
    X, Y, Theta0 = data(rng, 5, 6, 4), rng.normal(size=(5, 2)), rng.normal(size=(6, 2))
    problem = ld.LeastSquares(X, Y, scale="mean", output_scale=1.3)
    curvature = float(problem.scale * problem.singular_values[0] ** 2)
    # From slow, over one that solves the first direction in one step, to oscillating and unstable ones.
    for eta in np.array([1e-3, 0.4, 1.0, 1.4, 1.95, 2.1]) / curvature:
        path = [Theta0]
        for _ in range(20):
            path.append(path[-1] + eta / 5 * 1.3 * X.T @ (Y - 1.3 * X @ path[-1]))
        # Twenty steps, each with its own rounding errors.
        Thetas = exact.linear_descent(problem, Theta0, eta, np.arange(21))
        assert relative_error(Thetas, path) < tolerance(np.float64)


def test_descent_converges_exactly_up_to_the_stated_step(rng):
    problem = ld.LeastSquares(data(rng, 5, 4, 3), rng.normal(size=(5, 2)), scale="mean")
    Theta0 = rng.normal(size=(4, 2))
    curvature = float(problem.scale * problem.singular_values[0] ** 2)
    limit = exact.linear_limit(problem, Theta0).value
    for share, converges in ((-1e-3, False), (1e-3, True), (1.999, True), (2.001, False)):
        rate = exact.linear_descent_rate(problem, share / curvature)
        assert bool(rate.applies) == converges
        assert (rate.value > 0) == converges
        late = exact.linear_descent(problem, Theta0, share / curvature, np.array([10**6, 10**9]))
        assert bool(jnp.all(jnp.isfinite(late)))
        distance = jnp.linalg.norm(late - limit, axis=(1, 2))
        assert distance[1] < 1e-9 if converges else distance[1] > 1e100
    steps = np.array([40_000, 60_000])
    distance = jnp.linalg.norm(exact.linear_descent(problem, Theta0, 1e-2 / curvature, steps) - limit, axis=(1, 2))
    expected = exact.linear_descent_rate(problem, 1e-2 / curvature).value
    slow = -np.log1p(-1e-2 * float(problem.singular_values[-1] / problem.singular_values[0]) ** 2)
    assert abs(expected / slow - 1) < 1e-12
    assert distance[1] <= distance[0]


def test_a_thousand_million_small_steps_keep_their_digits():
    eta, steps = 3.0**-19, 10**9
    problem = ld.factorization(np.array([[2.0]]))
    Theta = exact.linear_descent(problem, np.array([[0.0]]), eta, np.array([1, 10**3, 10**6, steps]))[:, 0, 0]
    with localcontext() as context:
        context.prec = 50
        expected = [float(2 * (1 - (1 - Decimal(eta)) ** t)) for t in (1, 10**3, 10**6, steps)]
    assert np.max(np.abs(Theta / np.array(expected) - 1)) < 1e-15
    # The same powers near the other end of stability, with alternating sign.
    Theta = exact.linear_descent(problem, np.array([[0.0]]), 2 - 2.0**-22, np.array([10**6, 10**6 + 1]))[:, 0, 0]
    with localcontext() as context:
        context.prec = 50
        power = (1 - Decimal(2.0**-22)) ** 10**6
        expected = [float(2 * (1 - power)), float(2 * (1 + power * (1 - Decimal(2.0**-22))))]
    assert np.max(np.abs(Theta / np.array(expected) - 1)) < 1e-15


def test_gradients_of_flow_and_descent_agree_with_central_differences(rng):
    X = data(rng, 4, 5, 2)
    Y, Theta0, ts = rng.normal(size=(4, 2)), rng.normal(size=(5, 2)), np.array([0.0, 0.4, 3.0])
    curvature = float(ld.LeastSquares(X, Y).singular_values[0] ** 2)
    mix = rng.normal(size=(3, 5, 2))

    @jax.jit
    def flow(s):
        # A direction in targets, start and time at once, and with it every partial derivative along a random line.
        problem = ld.LeastSquares(X, Y + s * np.cos(Y), output_scale=1 + 0.3 * s, rank=2)
        return jnp.sum(mix * exact.linear(problem, Theta0 + s * np.sin(Theta0), ts + s))

    @jax.jit
    def descent(s, share):
        problem = ld.LeastSquares(X, Y + s * np.cos(Y), rank=2)
        eta = share / curvature + s
        return jnp.sum(mix * exact.linear_descent(problem, Theta0 + s * np.sin(Theta0), eta, np.array([0, 1, 6])))

    step = 1e-5
    assert abs(jax.grad(flow)(0.0) - (flow(step) - flow(-step)) / (2 * step)) < 1e-6
    for share in (0.3, 0.5, 1.0, 1.5, 1.9):
        expected = (descent(step, share) - descent(-step, share)) / (2 * step)
        assert abs(jax.grad(descent)(0.0, share) - expected) < 1e-6 * max(1, abs(expected)), share


def test_wrong_arguments_are_refused(rng):
    X, Y, Theta0 = data(rng, 4, 3, 2), rng.normal(size=(4, 2)), np.zeros((3, 2))
    problem = ld.LeastSquares(X, Y)
    for other, match in (
        (ld.LeastSquares(X, Y, link=jax.nn.sigmoid), "no closed form for a problem with a link"),
        (problem.regularized(0.5), "must be a LeastSquares, but is a Penalised"),
    ):
        for call in (
            lambda: ld.exact.linear(other, Theta0, np.array([1.0])),  # noqa: B023
            lambda: ld.exact.linear_limit(other, Theta0),  # noqa: B023
            lambda: ld.exact.linear_rate(other),  # noqa: B023
            lambda: ld.exact.linear_descent(other, Theta0, 0.1, np.array([1])),  # noqa: B023
            lambda: ld.exact.linear_descent_rate(other, 0.1),  # noqa: B023
        ):
            with pytest.raises(ValueError, match=match):
                call()
    with pytest.raises(ValueError, match="Argument `Theta0` must have shape \\(3, 2\\)"):
        ld.exact.linear(problem, np.zeros((2, 2)), np.array([1.0]))
    with pytest.raises(ValueError, match="Argument `ts` must not be negative"):
        ld.exact.linear(problem, Theta0, np.array([-1.0]))
    with pytest.raises(ValueError, match="Argument `steps` must not be negative"):
        ld.exact.linear_descent(problem, Theta0, 0.1, np.array([-1]))


@pytest.mark.parametrize("x64", [True, False])
def test_steps_beyond_the_default_integers_are_not_wrapped(x64):
    with jax.enable_x64(x64):
        problem = ld.factorization(np.eye(1))
        path = ld.exact.linear_descent(problem, np.zeros((1, 1)), 1e-10, np.array([10**10, 2**31]))
        np.testing.assert_allclose(path[:, 0, 0], -np.expm1([-1.0, -(2.0**31) * 1e-10]), rtol=1e-9 if x64 else 1e-5)
        # At an odd number of steps beyond the integers a step beyond 1/lambda ends on the other side.
        odd = ld.exact.linear_descent(problem, np.zeros((1, 1)), 2.0, np.array([2**33, 2**33 + 1]))
        np.testing.assert_array_equal(odd[:, 0, 0], [0, 2])
