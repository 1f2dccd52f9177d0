"""Stationary points: the residual, their kinds against the full Hessian, least losses, and balance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Compiled, integrated, relative_error, tolerance
from jax.flatten_util import ravel_pytree

import lindyn_jax as ld

theory = Compiled(ld.theory)

n, m = 4, 3
stationarity, stationary_point = jax.jit(theory.stationarity), jax.jit(theory.stationary_point)


@jax.jit
def hessian_edges(model, problem):
    """The least eigenvalue of the Hessian and the norm of the gradient, over all weights."""
    flat, unravel = ravel_pytree(model)
    loss = lambda x: problem.loss(unravel(x).product())  # noqa: E731
    least = jnp.linalg.eigvalsh(jax.hessian(loss)(flat))[0]
    return least, jnp.linalg.norm(jax.grad(loss)(flat))


def weights_with(rng, problem, learned, h, *, split=None):
    """Weights of width h with a stationary product; `split` mixes the hidden layer, so that they are not balanced."""
    Theta1 = problem.to_data(theory.stationary_product(problem, np.array(learned, bool)))
    P, sigma, QT = np.linalg.svd(np.asarray(problem.singular_values[:, None] * Theta1), full_matrices=False)
    keep = sigma > 1e-12
    A, V = P[:, keep] * np.sqrt(sigma[keep]), QT[keep].T * np.sqrt(sigma[keep])
    if split is not None:
        C = np.eye(keep.sum()) + split * rng.normal(size=(keep.sum(),) * 2)
        A, V = A @ C, V @ np.linalg.inv(C).T
    O = np.linalg.qr(rng.normal(size=(h, h)))[0][: keep.sum()]
    U1 = (A / np.asarray(problem.singular_values)[:, None]) @ O
    return ld.TwoLayer(problem.from_data(jnp.asarray(U1)), jnp.asarray(V @ O))


# -- two layers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("learned", "h", "minimum"),
    [
        ([1, 1, 1], 3, True),
        ([1, 1, 1], 8, True),
        ([1, 1, 0], 2, True),
        ([1, 0, 1], 2, False),
        ([0, 1, 1], 2, False),
        ([1, 1, 0], 3, False),
        ([0, 0, 0], 2, False),
        ([0, 1, 1], 8, False),
    ],
)
def test_two_layer_points_are_what_the_full_hessian_says(learned, h, minimum, rng):
    for split in (None, 0.3):
        problem = ld.factorization(rng.normal(size=(n, m)), scale=0.7, output_scale=1.4)
        model = weights_with(rng, problem, learned, h, split=split)
        point = stationary_point(model, problem)
        least, gradient = hessian_edges(model, problem)
        assert gradient < tolerance("float64", 10) and bool(point.is_stationary)
        assert bool(point.is_minimum) == minimum and bool(point.is_strict_saddle) == (not minimum)
        # Minima have zero eigenvalues: the hidden layer can be mixed at no cost.
        assert relative_error(point.curvature, least) < 1e-10
        assert (point.curvature < -1e-3) == (not minimum)
        excess, best = ld.observables.excess_loss(model, problem), theory.least_excess_loss(problem, h)
        assert (relative_error(excess, best) < tolerance("float64", 10)) == minimum


def test_points_of_any_data_are_classified(rng):
    X = rng.normal(size=(6, 2)) @ rng.normal(size=(2, n))
    problem = ld.LeastSquares(X, rng.normal(size=(6, m)), scale="mean")
    for learned, h, minimum in (([1, 0], 1, True), ([0, 1], 1, False)):
        model = weights_with(rng, problem, learned, h, split=0.2)
        model = ld.TwoLayer(model.U + (np.eye(n) - problem.Phi1 @ problem.Phi1.T) @ rng.normal(size=(n, h)), model.V)
        point = stationary_point(model, problem)
        least, _ = hessian_edges(model, problem)
        assert bool(point.is_stationary) and bool(point.is_minimum) == minimum == (not bool(point.is_strict_saddle))
        # The curvature is that of other coordinates here; its sign is not.
        assert (least < -1e-6) == (point.curvature < -1e-6) == (not minimum)


def test_reduced_networks_are_classified_as_the_full_ones(rng):
    problem = ld.factorization(rng.normal(size=(n, m)))
    for learned, h in (([1, 0, 1], 20), ([1, 1, 1], 20)):
        model = weights_with(rng, problem, learned, h, split=0.3)
        reduced = ld.reduce(model, problem)
        full, small = stationary_point(model, problem), stationary_point(reduced, problem)
        for name in full._fields:
            assert relative_error(getattr(small, name), getattr(full, name)) < tolerance("float64", 10), name
    # A padded core of width 1 has room for one component only, though its arrays have more columns.
    one = weights_with(rng, problem, [1, 0, 0], 1)
    padded = ld.Reduction(ld.TwoLayer(np.pad(one.U, ((0, 0), (0, 3))), np.pad(one.V, ((0, 0), (0, 3)))), 1, 0)
    point = stationary_point(padded, problem)
    assert bool(point.is_minimum) and abs(float(point.curvature)) < tolerance("float64")
    point = stationary_point(ld.Reduction(ld.TwoLayer(padded.U1, padded.V), 4, 0), problem)
    second = jnp.linalg.svd(problem.Y, compute_uv=False)[1]
    assert bool(point.is_strict_saddle) and relative_error(point.curvature, -second) < tolerance("float64")


def test_nearly_flat_saddles_are_still_saddles(rng):
    # A zero first layer and a huge second one: the curvature is e^2/||V||^2, lost in ||V||^2's round-off, but not the saddle.
    problem = ld.factorization(np.diag([2.0, 1.0]))
    model = ld.TwoLayer(np.zeros((2, 1)), np.array([[0.0], [1e6]]))
    point = stationary_point(ld.TwoLayer(model.U, 0 * model.V), problem)
    assert bool(point.is_strict_saddle) and float(point.curvature) == pytest.approx(-2.0)
    assert not bool(stationary_point(model, problem).is_stationary)
    learned = ld.TwoLayer(np.array([[0.0], [1e-6]]), np.array([[0.0], [1e6]]))
    point = stationary_point(learned, problem)
    assert bool(point.is_strict_saddle) and float(point.escape) == pytest.approx(1.0)


# -- one layer and tied layers -------------------------------------------------------------------------------------------


def test_one_layer_has_only_minima(rng):
    X, Y = rng.normal(size=(3, n)), rng.normal(size=(3, m))
    problem = ld.LeastSquares(X, Y)
    outside = np.eye(n) - problem.Phi1 @ problem.Phi1.T
    point = stationary_point(ld.LinearModel(problem.theta_hat + outside @ rng.normal(size=(n, m))), problem)
    assert bool(point.is_stationary) and bool(point.is_minimum) and not bool(point.is_strict_saddle)
    point = stationary_point(ld.LinearModel(problem.theta_hat + 0.1), problem)
    assert not bool(point.is_stationary) and not bool(point.is_minimum)


@pytest.mark.parametrize(
    ("learned", "h", "minimum"),
    [
        ([1, 0, 0, 0], 1, True),
        ([0, 1, 0, 0], 1, False),
        ([1, 1, 0, 0], 2, True),
        ([1, 0, 0, 0], 2, False),
        ([1, 1, 0, 0], 6, True),
        ([0, 1, 0, 0], 6, False),
        ([0, 0, 0, 0], 6, False),
    ],
)
def test_tied_points_are_what_the_full_hessian_says(learned, h, minimum, rng):
    # Two positive and two negative eigenvalues, and a skew part, which moves nothing.
    P, K = np.linalg.qr(rng.normal(size=(n, n)))[0], rng.normal(size=(n, n))
    symmetric = (P * [2.0, 0.7, -0.5, -1.5]) @ P.T
    problem = ld.factorization(symmetric + K - K.T, scale=0.6, output_scale=1.3)
    Theta = theory.stationary_product(problem, np.array(learned, bool), tied=True)
    values, vectors = np.linalg.eigh(np.asarray(Theta))
    root = vectors[:, -2:] * np.sqrt(np.where(values[-2:] > 1e-12, values[-2:], 0))
    model = ld.SymmetricFactors(root[:, -h:] @ np.linalg.qr(rng.normal(size=(h, h)))[0][: root[:, -h:].shape[1]])
    assert relative_error(1.3 * model.product() @ symmetric, 1.69 * model.product() @ model.product()) < 1e-12
    point = stationary_point(model, problem)
    least, gradient = hessian_edges(model, problem)
    assert gradient < tolerance("float64", 10) and bool(point.is_stationary)
    assert bool(point.is_minimum) == minimum == (not bool(point.is_strict_saddle))
    assert relative_error(point.curvature, min(least, 0)) < 1e-10
    excess, best = ld.observables.excess_loss(model, problem), theory.least_excess_loss(problem, h, tied=True)
    assert (relative_error(excess, best) < tolerance("float64", 10)) == minimum


# -- the residual --------------------------------------------------------------------------------------------------------


def test_the_flow_ends_at_a_minimum_and_starts_at_none(rng):
    problem = ld.factorization(rng.normal(size=(n, m)))
    start = ld.TwoLayer(rng.normal(size=(n, 6)), rng.normal(size=(m, 6)))
    (U,), (V,) = integrated(lambda Theta: Theta - problem.Y, start.U, start.V, [60.0], 1e-11)
    end = ld.TwoLayer(U, V)
    begun, ended = stationarity(start, problem), stationarity(end, problem)
    assert 1e-3 < float(begun.residual) <= 1 and not bool(begun.holds)
    assert bool(ended.holds) and float(ended.residual) < 1e-8
    assert bool(stationary_point(end, problem).is_minimum)
    # Tiny weights are slow and yet not near a stationary point in direction; exact zeros are one.
    tiny, zero = (ld.TwoLayer(size * start.U, size * start.V) for size in (1e-12, 0.0))
    assert float(stationarity(tiny, problem).speed) < 1e-10 and not bool(stationarity(tiny, problem).holds)
    assert bool(stationarity(zero, problem).holds) and float(stationarity(zero, problem).residual) == 0
    reduced = ld.reduce(start, problem)
    for name in ("speed", "residual"):
        assert relative_error(getattr(stationarity(reduced, problem), name), getattr(begun, name)) < tolerance(
            "float64"
        )
    assert not bool(stationarity(ld.SymmetricFactors(np.eye(2)), ld.factorization(np.eye(2) + 1)).holds)
    linked = ld.LeastSquares(np.eye(n), np.full((n, m), 0.5), link=jax.nn.sigmoid)
    assert bool(stationarity(ld.TwoLayer(0 * start.U, start.V * 0), linked).holds)
    assert not bool(stationarity(start, linked).holds)


def test_in_float32_the_tolerance_is_its_own(rng):
    problem = ld.factorization(rng.normal(size=(n, m)).astype(np.float32))
    model = weights_with(rng, ld.factorization(np.asarray(problem.Y, np.float64)), [1, 1, 0], 2)
    model = ld.TwoLayer(model.U.astype(jnp.float32), model.V.astype(jnp.float32))
    point = stationary_point(model, problem)
    assert point.curvature.dtype == np.float32 and bool(point.is_minimum)
    assert not bool(theory.stationarity(model, problem, rtol=1e-12).holds)


def test_with_a_penalty_only_plain_stationary_points_on_the_manifold_stand_still(rng):
    problem = ld.factorization(rng.normal(size=(n, m)))
    balanced, mixed = (weights_with(rng, problem, [1, 0, 1], 5, split=split) for split in (None, 0.3))
    regularized = problem.regularized(0.0)
    assert bool(stationarity(balanced, problem).holds) and bool(stationarity(mixed, problem).holds)
    assert bool(stationarity(balanced, regularized).holds) and not bool(stationarity(mixed, regularized).holds)
    assert bool(theory.balance(balanced, problem, 1e-10).holds) and not bool(theory.balance(mixed, problem, 1e-3).holds)
    # The two gradients are orthogonal everywhere, so neither can stop the other.
    model, A = ld.TwoLayer(rng.normal(size=(n, 5)), rng.normal(size=(m, 5))), rng.normal(size=(5, 5))
    both = problem.regularized(A + A.T, 0.3)
    pull = jnp.concatenate(both.imbalance.gradients(model.U, model.V))
    speeds = stationarity(model, problem).speed, stationarity(model, both).speed
    assert relative_error(speeds[1] ** 2, speeds[0] ** 2 + jnp.sum(pull**2)) < tolerance("float64", 10)


# -- losses, products, balance -------------------------------------------------------------------------------------------


def test_least_losses_are_those_of_the_best_approximations(rng):
    X = rng.normal(size=(6, 2)) @ rng.normal(size=(2, n))
    for problem in (
        ld.LeastSquares(X, rng.normal(size=(6, m)), scale="mean"),
        ld.factorization(rng.normal(size=(n, m))),
    ):
        count = min(problem.rank, m)
        best = jax.vmap(lambda h: theory.least_excess_loss(problem, h))(jnp.arange(1, count + 1))  # noqa: B023
        for h in range(1, count + 1):
            flags = np.arange(count) < h
            excess = problem.loss(theory.stationary_product(problem, flags)) - problem.loss_star
            assert relative_error(best[h - 1], excess) < tolerance("float64", 10)
        assert abs(float(best[-1])) < tolerance("float64")
    assert relative_error(theory.stationary_product(problem, np.ones(m, bool)), problem.theta_hat) < tolerance(
        "float64"
    )


def test_balance_is_the_norm_of_the_imbalance(rng, dtype):
    problem = ld.factorization(rng.normal(size=(n, m)).astype(dtype))
    for h in (2, 30):
        model = ld.TwoLayer(rng.normal(size=(n, h)).astype(dtype), rng.normal(size=(m, h)).astype(dtype))
        U, V = np.asarray(model.U, float), np.asarray(model.V, float)
        size = np.linalg.norm(U.T @ U - V.T @ V)
        for state in (model, ld.reduce(model, problem)):
            assert relative_error(theory.balance(state, problem, 1.0).value, size) < tolerance(dtype, 10)
        assert bool(theory.balance(model, problem, 1.01 * size).holds)
        assert not bool(theory.balance(model, problem, 0.99 * size).holds)
    zero = ld.TwoLayer(np.zeros((n, 2)), np.zeros((m, 2)))
    gradient = jax.grad(lambda model: theory.balance(model, problem, 1.0).value)(zero)
    assert np.all(np.asarray(gradient.U) == 0)


def test_derivatives_of_the_numbers_are_finite_and_exact(rng):
    problem, direction = ld.factorization(rng.normal(size=(n, m))), rng.normal(size=(n, 4))
    model = weights_with(rng, problem, [1, 0, 1], 4)

    def value(x):
        moved = ld.TwoLayer(model.U + x * direction, model.V)
        point = theory.stationary_point(moved, problem)
        return point.curvature + point.escape + theory.stationarity(moved, problem).residual

    slope, step, function = float(jax.jit(jax.grad(value))(0.2)), 1e-6, jax.jit(value)
    difference = float(function(0.2 + step) - function(0.2 - step)) / (2 * step)
    # Central difference: eps/step + step^2.
    assert abs(slope) > 1e-3 and abs(slope - difference) < 1e-7 * max(1, abs(slope))
    assert np.isfinite(float(jax.jit(jax.grad(value))(0.0)))


def test_stationary_products_have_derivatives_with_gaps_to_the_others_alone(rng):
    change, learned = jnp.asarray(rng.normal(size=(3, 3))), np.array([True, True, False])
    product = jax.jit(lambda Y: ld.theory.stationary_product(ld.factorization(Y), learned))
    Y, step = jnp.diag(jnp.array([2.0, 2.0, 1.0])), 1e-5
    difference = (product(Y + step * change) - product(Y - step * change)) / (2 * step)
    # A central difference of this step keeps about nine digits.
    assert relative_error(jax.jvp(product, (Y,), (change,))[1], difference) < 1e-8
    every = jax.jvp(lambda Y: ld.theory.stationary_product(ld.factorization(Y), np.ones(3, bool)), (Y,), (change,))[1]
    assert relative_error(every, change) < tolerance("float64")


def test_what_cannot_be_classified_is_refused(rng):
    problem = ld.LeastSquares(rng.normal(size=(5, n)), rng.normal(size=(5, n)))
    tied, two = ld.SymmetricFactors(np.eye(n)), ld.TwoLayer(np.eye(n), np.eye(n))
    with pytest.raises(ValueError, match="matrix factorization of a square target only"):
        ld.theory.stationary_point(tied, problem)
    with pytest.raises(ValueError, match="matrix factorization of a square target only"):
        ld.theory.least_excess_loss(problem, 2, tied=True)
    with pytest.raises(ValueError, match="must be a LeastSquares, but is a Penalised"):
        ld.theory.stationary_point(two, problem.regularized(1.0))
    linked = ld.LeastSquares(np.eye(n), np.eye(n), link=jax.nn.sigmoid)
    with pytest.raises(ValueError, match="link"):
        ld.theory.stationary_point(two, linked)
    with pytest.raises(ValueError, match="have no closed form: leave out `link`"):
        ld.theory.least_excess_loss(linked, 2)
    with pytest.raises(ValueError, match=r"`learned` must have shape \(4,\), a flag a component, but has shape \(3,\)"):
        ld.theory.stationary_product(problem, np.ones(3, bool))
    with pytest.raises(ValueError, match="`h` must be a width of at least 1, but is 0"):
        ld.theory.least_excess_loss(problem, 0)
    with pytest.raises(ValueError, match="`epsilon` must be at least 0, but is -1"):
        ld.theory.balance(two, problem, -1)
    with pytest.raises(ValueError, match=r"must be \(4, 4\), but is \(3, 4\)"):
        ld.theory.stationarity(ld.TwoLayer(np.ones((3, 2)), np.ones((4, 2))), problem)


def test_a_deep_network_of_two_layers_stands_still_as_two_layers_do_and_one_of_one_as_one(rng):
    problem = ld.LeastSquares(rng.normal(size=(7, n)), rng.normal(size=(7, m)))
    model = ld.TwoLayer(rng.normal(size=(n, 5)), rng.normal(size=(m, 5)))
    deep = stationarity(ld.DeepLinear((model.U, model.V.T)), problem)
    for ours, known in zip(deep, stationarity(model, problem), strict=True):
        assert relative_error(ours, known) < tolerance("float64")
    one = stationarity(ld.DeepLinear((model.product(),)), problem)
    for ours, known in zip(one, stationarity(ld.LinearModel(model.product()), problem), strict=True):
        assert relative_error(ours, known) < tolerance("float64")
    still = ld.DeepLinear((problem.theta_hat, np.eye(m), np.eye(m)))
    assert bool(stationarity(still, problem).holds)
