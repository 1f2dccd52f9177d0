"""The limit of the flow against long explicit integrations, the closed form of the product, and finite differences."""

import inspect

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import integrated, relative_error, tolerance

import lindyn_jax as ld
from lindyn_jax import trajectory

N, n, m, h = 4, 6, 2, 9
unchecked = inspect.unwrap(ld.flow_to_limit)


@pytest.fixture
def problem(rng):
    W, _ = np.linalg.qr(rng.normal(size=(N, N)))
    Phi1, _ = np.linalg.qr(rng.normal(size=(n, N)))
    X = W * np.array([1.0, 0.6, 0.3, 0.15]) @ Phi1.T
    return ld.LeastSquares(X, rng.normal(size=(N, m)), scale="mean")


def start(rng, width=h):
    return ld.TwoLayer(rng.normal(size=(n, width)) / 3, rng.normal(size=(m, width)) / 3)


@pytest.mark.parametrize("width", [h, 1], ids=["wide", "h < min(r, m)"])
def test_limit_agrees_with_a_long_explicit_integration(width, problem, rng):
    model = start(rng, width)
    out = ld.flow_to_limit(model, problem, observables="loss", rtol=1e-9)
    assert int(out.result) == trajectory.FINISHED and bool(out.ok) and np.isinf(out.ts[0])
    X, Y = np.asarray(problem.X), np.asarray(problem.Y)
    (U,), (V,) = integrated(lambda Theta: X.T @ (X @ Theta - Y) / N, model.U, model.V, [8e3], 1e-11)
    # Asked for 1e-9; the explicit path adds its own errors.
    assert relative_error(out.final.V, V) < 1e-8
    assert relative_error(out.final.U, U) < 1e-8
    assert relative_error(out.observables["loss"][0], np.sum((X @ U @ V.T - Y) ** 2) / 2 / N) < 1e-8


def test_limit_is_theta_hat_and_what_the_frozen_directions_keep(problem, rng):
    model = start(rng)
    end = ld.flow_to_limit(model, problem, observables="loss", rtol=1e-9).final
    Phi1 = np.asarray(problem.Phi1)
    expected = problem.theta_hat + (model.U - Phi1 @ (Phi1.T @ model.U)) @ np.asarray(end.V).T
    # The product to 1e-9 of Theta_hat.
    assert relative_error(end.product(), expected) < 1e-8
    assert ld.observables.imbalance_drift(end, problem, model) < 1e-12


def test_error_follows_the_tolerance(rng):
    X = np.diag([1.0, 1e-1, 1e-2, 1e-3]) @ np.eye(4, n)
    problem, model = ld.LeastSquares(X, rng.normal(size=(4, m)), scale="mean"), start(rng)

    def limit(rtol):
        return ld.flow_to_limit(model, problem, observables="loss", rtol=rtol).final

    exact = limit(1e-11)
    size = np.sqrt(np.sum(exact.U**2) + np.sum(exact.V**2))
    for rtol in (1e-5, 1e-7):
        assert np.linalg.norm(limit(rtol).V - exact.V) < rtol * size


def test_scale_and_output_scale_do_not_move_the_limit_more_than_they_should(rng):
    X, Y = rng.normal(size=(N, n)), rng.normal(size=(N, m))
    model = start(rng)

    def limit(*data, **options):
        return ld.flow_to_limit(model, ld.LeastSquares(*data, **options), observables="loss", rtol=1e-9).final

    # The loss scale is a change of time, and the limit knows none; a factor c of the output is one of the data.
    plain, slow = (limit(X, Y, scale=q) for q in (1.0, 1e-6))
    assert relative_error(plain.V, slow.V) < 1e-8
    assert relative_error(limit(X, Y, output_scale=0.5).V, limit(0.5 * X, Y).V) < 1e-8


@pytest.mark.slow
def test_derivatives_of_the_limit_agree_with_central_differences(problem, rng):
    model = ld.reduce(start(rng), problem)
    direction = rng.normal(size=problem.Ytil.shape)

    def outcome(parameters, adjoint=None):
        data, spectrum, scale = parameters
        s = problem.data_singular_values ** (1 + spectrum)
        moved = eqx.tree_at(lambda p: (p.Ytil, p.data_singular_values), problem, (problem.Ytil + data * direction, s))
        scaled = model.with_core(model.core.scaled(scale))
        end = ld.limit(scaled, moved, rtol=1e-10, adjoint=adjoint)
        return jnp.array([jnp.sum(jnp.sin(end.V)), jnp.sum(end.frozen_product(problem) ** 2), jnp.sum(end.product())])

    point = jnp.array([0.0, 0.0, 1.0])
    reverse = jax.jit(jax.jacrev(outcome))(point)

    @jax.jit
    def forward_and_value(p):
        def twice(p):
            value = outcome(p, diffrax.ForwardMode())
            return value, value

        return jax.jacfwd(twice, has_aux=True)(p)

    assert relative_error(forward_and_value(point)[0], reverse) < tolerance("float64", 100)
    value = lambda p: np.asarray(forward_and_value(p)[1])  # noqa: E731
    for index in range(3):
        step = 2e-4 * np.eye(3)[index]
        near, far = ((value(point + k * step) - value(point - k * step)) / (2 * k * 2e-4) for k in (1, 2))
        difference = (4 * near - far) / 3
        # What is left in the differences is the tolerance of the integration over the step.
        np.testing.assert_allclose(reverse[:, index], difference, rtol=1e-6, atol=1e-6)


def test_derivatives_with_respect_to_the_inputs_agree_with_central_differences(problem, rng):
    model, weights = start(rng), rng.normal(size=(n, m))
    # Moves the singular values and vectors of X, and keeps the span of its rows.
    direction = rng.normal(size=(N, N)) @ problem.X

    @jax.jit
    @jax.value_and_grad
    def outcome(move):
        moved = ld.LeastSquares(problem.X + move * direction, problem.Y, scale="mean", rank=N)
        loss = ld.gradient_flow(model, moved, jnp.array([5.0]), solver="radau", rtol=1e-10).final_observables["loss"]
        return loss + jnp.sum(weights * ld.limit(model, moved, rtol=1e-10).product())

    (_, gradient), step = outcome(0.0), 1e-3
    near, far = ((outcome(k * step)[0] - outcome(-k * step)[0]) / (2 * k * step) for k in (1, 2))
    np.testing.assert_allclose(gradient, (4 * near - far) / 3, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("condition", [1e2, 1e6])
def test_float32_reaches_the_limit_to_a_millionth_times_the_root_of_the_condition_number(condition, rng):
    s = np.logspace(0, -np.log10(condition) / 2, N)
    U, V, Theta = rng.normal(size=(n, h)) / 3, rng.normal(size=(m, h)) / 3, rng.normal(size=(N, m))

    def limit(dtype):
        X, Y = ((s[:, None] * A).astype(dtype) for A in (np.eye(N, n), Theta))
        problem = ld.LeastSquares(X, Y, rank=N, scale="mean")
        problem = eqx.tree_at(
            lambda p: (p.Ytil, p.data_singular_values, p.Phi1), problem, (Y, s.astype(dtype), np.eye(n, N, dtype=dtype))
        )
        model = ld.TwoLayer(U.astype(dtype), V.astype(dtype))
        out = ld.flow_to_limit(model, problem, observables="loss", rtol=1e-9 if dtype == np.float64 else None)
        assert bool(out.ok) and out.final.V.dtype == dtype
        return np.asarray(out.final.V, np.float64)

    # Measured for condition numbers to 1e8, where it is .011: 1e-6 to 3e-6 times the root.
    error = relative_error(limit(np.float32), limit(np.float64))
    print("error", error, "over the root", error / condition**0.5)
    assert error < 5e-6 * condition**0.5


def test_a_limit_that_is_not_reached_has_a_result_code(problem, rng):
    column = np.ones((1, h))
    narrow = ld.TwoLayer(rng.normal(size=(n, 1)) * column, np.ones((m, 1)) * column)
    out = ld.flow_to_limit(narrow, problem, observables=(), rtol=1e-9, max_steps=100)
    assert int(out.result) == trajectory.STEP_LIMIT and not bool(out.ok)
    assert int(out.stats["num_steps"]) == 100 and np.all(np.isfinite(out.final.V))


def test_weights_of_a_limit_that_is_not_reached_are_infinite(problem, rng):
    assert np.all(np.isinf(ld.limit(start(rng), problem, rtol=1e-9, max_steps=3).V))


def test_coming_to_rest_at_a_saddle_is_not_convergence():
    # A narrow network (h = 1) started in the second mode of its target stays in it: the velocity along the first is zero.
    problem = ld.factorization(np.diag([2.0, 1.0]))
    saddle = ld.TwoLayer(np.array([[0.0], [0.5]]), np.array([[0.0], [0.5]]))
    out = ld.flow_to_limit(saddle, problem, rtol=1e-8)
    assert int(out.result) == trajectory.NOT_CONVERGED and not bool(out.ok) and np.isinf(out.observables["loss"][0])
    off = ld.TwoLayer(np.array([[1e-8], [0.5]]), np.array([[1e-8], [0.5]]))
    end = ld.flow_to_limit(off, problem, rtol=1e-8)
    np.testing.assert_allclose(end.final.product(), np.diag([2.0, 0.0]), atol=1e-6)


def test_a_saddle_left_by_round_off_alone_is_not_convergence(rng):
    # U = -V stays so and tends to zero (THEORY 7); a start of rank one keeps its rank. Round-off leads away from both.
    cross, one = (ld.TwoLayer(np.ones((1, 1)), np.array([[v]])) for v in (-1.0, 1.0))
    scalar = ld.factorization(np.ones((1, 1)))
    out = ld.flow_to_limit(cross, scalar)
    assert int(out.result) == trajectory.NOT_CONVERGED and out.stats["roundoff"] > 0.01
    u, v, c = rng.normal(size=(3, 1)), rng.normal(size=(3, 1)), rng.normal(size=(1, 6))
    square = ld.factorization(rng.normal(size=(3, 3)))
    assert int(ld.flow_to_limit(ld.TwoLayer(u @ c, v @ c), square).result) == trajectory.NOT_CONVERGED
    # What passes the saddle at a distance loses as many digits as that distance has, and says so; others lose none.
    for distance in (1e-4, 1e-8):
        near = ld.flow_to_limit(eqx.tree_at(lambda model: model.V, cross, cross.V + distance), scalar)
        assert bool(near.ok) and 0.1 < near.stats["roundoff"] / (np.finfo(float).eps / distance) < 10
    tiny = ld.TwoLayer(1e-9 * rng.normal(size=(3, 6)), 1e-9 * rng.normal(size=(3, 6)))
    for model, problem in ((one, scalar), (tiny, square)):
        out = ld.flow_to_limit(model, problem)
        assert bool(out.ok) and out.stats["roundoff"] < 1e-13


def test_a_drawn_core_narrower_than_its_data_has_its_own_columns_only_and_reaches_its_limit(problem):
    start = ld.init.gaussian_core(problem, 1, alpha=0.5, key=jax.random.key(3))
    assert start.U1.shape == (N, 1) and start.V.shape == (m, 1)
    out = ld.flow_to_limit(start, problem, rtol=1e-9)
    long = ld.gradient_flow(start, problem, np.array([4e4]), solver="dopri8", rtol=1e-11, atol=1e-14).final
    assert bool(out.ok) and int(out.stats["num_steps"]) < 500
    assert relative_error(out.final.V, long.V) < 1e-8
    traced = jax.jit(lambda h: ld.init.gaussian_core(problem, h, alpha=0.5, key=jax.random.key(3)))(1.0)
    assert np.array_equal(traced.V[:, :1], start.V) and not np.any(traced.V[:, 1:])


def test_a_narrow_network_in_float32_comes_to_rest_in_its_slow_directions_too(rng):
    s, Theta = np.array([1.0, 0.3, 0.1, 0.03]), rng.normal(size=(4, 4))
    weights = rng.normal(size=(2, 4, 3))

    def limit(dtype):
        problem = ld.LeastSquares(np.diag(s).astype(dtype), (s[:, None] * Theta).astype(dtype))
        out = ld.flow_to_limit(ld.TwoLayer(*weights.astype(dtype)), problem)
        assert bool(out.ok) and out.final.V.dtype == dtype
        return np.asarray(out.final.product(), np.float64)

    exact = limit(np.float64)
    assert np.linalg.norm(limit(np.float32) - exact) < 1e-3 * np.linalg.norm(exact)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"model": ld.LinearModel(np.ones((n, m)))}, "but the model is a LinearModel: use `gradient_flow`"),
        ({"model": ld.TwoLayer(np.zeros((n, h)), np.zeros((m, h)))}, "The start is the saddle"),
        ({"model": ld.TwoLayer(np.ones((n + 1, h)), np.ones((m, h)))}, "does not fit the problem"),
        (
            {
                "problem": ld.LeastSquares(np.eye(4, n), np.ones((4, m))),
                "model": ld.TwoLayer(np.eye(n, h, k=0) * (np.arange(n) >= 4)[:, None], np.zeros((m, h))),
            },
            "The start is the saddle Phi1\\^T U = 0, V = 0",
        ),
        ({"rtol": 1e-17}, "`rtol` is 1e-17, which float64 cannot resolve"),
        ({"max_steps": 0}, "`max_steps` must be at least 1, but is 0"),
        ({"problem": 3}, "`problem` must be a problem such as LeastSquares, but is a int"),
        ({"problem": ld.factorization(np.ones((n, m))).regularized(1.0)}, "but the problem has a penalty"),
    ],
)
def test_bad_arguments_are_refused(change, match, problem, rng):
    with pytest.raises(ValueError, match=match):
        unchecked(**{"model": start(rng), "problem": problem, **change})
