"""The gauge: there and back, what it diagonalises, and that the dynamics is the same in it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import relative_error, tolerance

import lindyn_jax as ld

TIMES = np.array([0.05, 0.4])


def network(rng, n, m, h, rank=None, dtype=np.float64):
    Z = rng.normal(size=(n + m, rank or h)) @ rng.normal(size=(rank or h, h)) / (rank or h)
    return ld.TwoLayer(Z[:n].astype(dtype), Z[n:].astype(dtype))


def diagonal(values, n, m):
    out = np.zeros((n, m))
    np.fill_diagonal(out, values)
    return out


def imbalance_of(model, problem):
    U1, V = np.asarray(problem.to_data(model.U)), np.asarray(model.V)
    return U1.T @ U1 - V.T @ V


# Narrow, square, wide; more inputs than outputs and fewer; rows of full rank and not, and of rank one.
SHAPES = [
    (3, 2, 1, None, "float64"),
    (2, 3, 5, 2, "float64"),
    (3, 3, 20, None, "float64"),
    (4, 1, 9, 3, "float64"),
    (2, 4, 20, 1, "float32"),
]


@pytest.mark.parametrize(("n", "m", "h", "rank", "dtype"), SHAPES)
def test_the_gauge_diagonalises_target_and_imbalance_and_comes_back(n, m, h, rank, dtype, rng):
    # The second target has rank one and so repeated singular values, zero.
    for Y in (rng.normal(size=(n, m)), np.outer(rng.normal(size=n), rng.normal(size=m))):
        problem, model = ld.factorization(Y.astype(dtype), output_scale=0.7), network(rng, n, m, h, rank, dtype)
        gauge = ld.find_gauge(model, problem)
        gauged, gauged_problem = ld.to_gauge(model, gauge), ld.to_gauge(problem, gauge)
        k, limit = min(h, n + m), tolerance(dtype, 10)
        assert gauged.width == k and gauge.G.shape == (h, k) and gauged.U.dtype == dtype
        for A in (gauge.Phi, gauge.Psi, gauge.G):
            assert relative_error(A.T @ A, np.eye(A.shape[1])) < limit
        assert np.all(np.diff(gauge.target) <= 0) and np.all(np.diff(gauge.imbalance) <= 0)
        assert relative_error(gauge.target, np.linalg.svd(Y / 0.7, compute_uv=False)) < limit
        assert np.all(np.asarray(gauged_problem.Y) == np.asarray(diagonal(0.7 * gauge.target, n, m), dtype))
        assert relative_error(imbalance_of(gauged, gauged_problem), np.diag(gauge.imbalance)) < limit
        assert relative_error((gauge.G * gauge.imbalance) @ gauge.G.T, imbalance_of(model, problem)) < limit
        back, back_problem = ld.from_gauge(gauged, gauge), ld.from_gauge(gauged_problem, gauge)
        assert relative_error(back.U, model.U) < limit and relative_error(back.V, model.V) < limit
        assert relative_error(back_problem.Y, Y) < limit and back_problem.X is None
        loss = ld.observables.loss(model, problem)
        assert relative_error(ld.observables.loss(gauged, gauged_problem), loss) < limit


@pytest.mark.parametrize(("N", "rank"), [(3, None), (7, 2)])
def test_any_data_have_a_gauge(N, rank, rng):
    n, m, h = 5, 3, 12
    X = rng.normal(size=(N, n)) if rank is None else rng.normal(size=(N, rank)) @ rng.normal(size=(rank, n))
    problem, model = ld.LeastSquares(X, rng.normal(size=(N, m)), scale="mean", output_scale=1.4), network(rng, n, m, h)
    gauge = ld.find_gauge(model, problem)
    gauged, gauged_problem = ld.to_gauge(model, gauge), ld.to_gauge(problem, gauge)
    limit = tolerance("float64", 100)
    assert relative_error(gauged_problem.theta_hat, diagonal(gauge.target, n, m)) < limit
    assert relative_error(imbalance_of(gauged, gauged_problem), np.diag(gauge.imbalance)) < limit
    assert relative_error(ld.from_gauge(gauged, gauge).U, model.U) < limit
    back = ld.from_gauge(gauged_problem, gauge)
    assert relative_error(back.X, X) < limit and relative_error(back.Phi1, problem.Phi1) < limit
    # Rotated by hand, the data give the same problem.
    again = ld.LeastSquares(X @ gauge.Phi, problem.Y @ gauge.Psi, scale="mean", output_scale=1.4)
    assert again.rank == gauged_problem.rank
    for name in ("loss", "excess_loss", "imbalance_spectrum", "distance_to_theta_hat", "frozen_product_norm"):
        observable = ld.observables.OBSERVABLES[name]
        expected = observable(model, problem)
        assert relative_error(observable(gauged, gauged_problem), expected) < limit, name
        assert relative_error(observable(gauged, again), expected) < limit, name


@pytest.mark.parametrize("kind", ["factorization", "data", "penalty"])
def test_the_flow_commutes_with_the_gauge(kind, rng):
    n, m, h = 3, 2, (9 if kind == "factorization" else 4)
    if kind == "data":
        problem = ld.LeastSquares(rng.normal(size=(2, n)), rng.normal(size=(2, m)))
    else:
        problem = ld.factorization(rng.normal(size=(n, m)), scale=0.6, output_scale=1.2)
    model = network(rng, n, m, h)
    if kind == "penalty":
        A = rng.normal(size=(h, h))
        problem = problem.regularized(A + A.T, 0.2)
    gauge = ld.find_gauge(model, problem)

    def flow(model, problem):
        return ld.gradient_flow(model, problem, TIMES, solver="tsit5", keep_models=True, rtol=1e-12, atol=1e-14)

    plain = flow(model, problem)
    gauged = flow(ld.to_gauge(model, gauge), ld.to_gauge(problem, gauge))
    assert relative_error(gauged.observables["loss"], plain.observables["loss"]) < 1e-10
    for i in range(len(TIMES)):
        state = jax.tree.map(lambda leaf, i=i: leaf[i], plain.models)
        there = ld.to_gauge(state, gauge)
        # Two integrations at 1e-12 a step. Wide states stay in the span of G, which `to_gauge` checks.
        assert relative_error(gauged.models.U[i], there.U) < 1e-10
        assert relative_error(gauged.models.V[i], there.V) < 1e-10
        back = ld.from_gauge(jax.tree.map(lambda leaf, i=i: leaf[i], gauged.models), gauge)
        assert relative_error(back.U, state.U) < 1e-10
    D = imbalance_of(gauged.final, ld.to_gauge(problem, gauge))
    moved = relative_error(D, np.diag(gauge.imbalance))
    assert moved > 1e-3 if kind == "penalty" else moved < 1e-10


def test_one_layer_goes_to_the_same_frames(rng):
    problem = ld.factorization(rng.normal(size=(3, 2)))
    model = network(rng, 3, 2, 9)
    gauge = ld.find_gauge(model, problem)
    single = ld.to_gauge(ld.LinearModel(model.product()), gauge)
    assert relative_error(single.product(), ld.to_gauge(model, gauge).product()) < tolerance("float64")
    assert relative_error(ld.from_gauge(single, gauge).product(), model.product()) < tolerance("float64")


def test_a_descent_step_commutes_with_the_gauge(rng):
    problem, model = ld.factorization(rng.normal(size=(3, 2))), network(rng, 3, 2, 9)
    gauge = ld.find_gauge(model, problem)
    step = lambda model, problem: ld.gradient_descent(model, problem, 5, optimizer=ld.plain_descent(0.05)).final  # noqa: E731
    there = ld.to_gauge(step(model, problem), gauge)
    assert relative_error(step(ld.to_gauge(model, gauge), ld.to_gauge(problem, gauge)).U, there.U) < tolerance(
        "float64", 10
    )


@pytest.mark.parametrize("h", [4, 9])
def test_derivatives_of_what_does_not_depend_on_the_frames_are_exact(h, rng):
    n, m = 3, 2
    model, direction = network(rng, n, m, h), network(rng, n, m, h)
    # A target of rank one with repeated singular values, where derivatives of singular vectors do not exist.
    Y, dY = np.outer([1.0, 2.0, 0.5], [1.0, -1.0]), rng.normal(size=(n, m))

    def value(x, gauged):
        moved = ld.TwoLayer(model.U + x * direction.U, model.V + x * direction.V)
        problem = ld.factorization(Y + x * dY)
        total = jnp.sum(jnp.sin(moved.U))
        if gauged:
            gauge = ld.find_gauge(moved, problem)
            there, problem = ld.to_gauge(moved, gauge), ld.to_gauge(problem, gauge)
            total = jnp.sum(jnp.sin(ld.from_gauge(there, gauge).U))
            moved = there
        return total + ld.observables.loss(moved, problem) + ld.observables.loss(moved, problem) ** 2

    xs = jnp.array([0.0, 0.2])
    slopes, expected = (jax.jit(jax.vmap(jax.grad(lambda x, g=g: value(x, g))))(xs) for g in (True, False))
    assert relative_error(slopes, expected) < tolerance("float64", 100)


def test_what_has_no_gauge_is_refused(rng):
    problem, model = ld.factorization(rng.normal(size=(3, 2))), network(rng, 3, 2, 9)
    gauge = ld.find_gauge(model, problem)
    with pytest.raises(ValueError, match="outside the 5 hidden directions of the gauge"):
        ld.to_gauge(network(rng, 3, 2, 9), gauge)
    with pytest.raises(ValueError, match=r"\(U rows, V rows, width\) must be \(3, 2, 9\), but is \(3, 2, 8\)"):
        ld.to_gauge(network(rng, 3, 2, 8), gauge)
    with pytest.raises(ValueError, match=r"must be \(3, 2, 5\), but is \(3, 2, 9\)"):
        ld.from_gauge(model, gauge)
    with pytest.raises(ValueError, match=r"\(inputs, outputs\) of the problem must be \(3, 2\), but is \(2, 2\)"):
        ld.to_gauge(ld.factorization(np.eye(2)), gauge)
    with pytest.raises(ValueError, match=r"Theta \(n, m\) must be \(3, 2\), but is \(2, 2\)"):
        ld.to_gauge(ld.LinearModel(np.eye(2)), gauge)
    linked = ld.LeastSquares(np.eye(3), problem.Y, link=jax.nn.sigmoid)
    with pytest.raises(ValueError, match="undefined for a problem with a link"):
        ld.find_gauge(model, linked)
    with pytest.raises(ValueError, match="A problem with a link function has no gauge"):
        ld.to_gauge(linked, gauge)
    with pytest.raises(ValueError, match="needs all 9 hidden directions, but the gauge has 5 = n"):
        ld.to_gauge(problem.regularized(np.eye(9)), gauge)
    assert float(ld.to_gauge(problem.regularized(2.0), gauge).imbalance.Lambda) == 2.0
