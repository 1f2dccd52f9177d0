"""Modes, reduced-rank regression, plateaus and tied autoencoders, each against an independent computation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Compiled, load_cases, relative_error, tolerance

import lindyn_jax as ld
from lindyn_jax import data

exact, theory = Compiled(ld.exact), Compiled(ld.theory)

CASES = load_cases("g19")


def orthogonal(rng, n):
    return np.linalg.qr(rng.normal(size=(n, n)))[0]


def commuting(rng, sigma, lam, n=6, m=4):
    """A problem whose modes decouple, with n > r: the lam beyond those of the modes belong to inputs without a target."""
    Phi, Psi = orthogonal(rng, n)[:, : len(lam)], orthogonal(rng, m)[:, : len(sigma)]
    Sigma_x = (Phi * lam) @ Phi.T
    Sigma_xy = (Phi[:, : len(sigma)] * sigma) @ Psi.T
    return ld.theory.covariance_problem(Sigma_x, Sigma_xy), Phi, Psi


# -- modes -----------------------------------------------------------------------------------------------------------------


def test_modes_are_the_singular_vectors_of_the_correlation(rng, dtype):
    X, Y = rng.normal(size=(40, 6)).astype(dtype), rng.normal(size=(40, 3)).astype(dtype)
    problem = ld.LeastSquares(X, Y, scale="mean", output_scale=1.5)
    modes = theory.data_modes(problem)
    Sigma_x, Sigma_xy = 1.5**2 * X.T @ X / 40, 1.5 * X.T @ Y / 40
    Phi, Psi = np.asarray(modes.Phi), np.asarray(modes.Psi)
    assert relative_error((Phi * modes.sigma) @ Psi.T, Sigma_xy) < tolerance(dtype, 10)
    assert relative_error(Phi.T @ Phi, np.eye(3)) < tolerance(dtype, 10)
    assert relative_error(modes.lam, np.diag(Phi.T @ Sigma_x @ Phi)) < tolerance(dtype, 10)
    # Without the coupling the modes decouple, and the coupling is all that is in the way.
    seen = np.asarray(problem.Phi1.T @ modes.Phi)
    rest = np.asarray(problem.Phi1.T) @ Sigma_x @ np.asarray(problem.Phi1) - np.asarray(modes.coupling)
    assert relative_error(rest @ seen, seen * np.asarray(modes.lam)) < tolerance(dtype, 10)
    assert relative_error(seen.T @ np.asarray(modes.coupling) @ seen * np.eye(3), np.zeros((3, 3))) < tolerance(
        dtype, 10
    )
    assert not bool(modes.applies) and modes.sigma.dtype == dtype
    assert theory.learning_order(problem, 5.0).half_time.dtype == dtype


def test_coupling_has_the_norm_of_table_1():
    dataset = data.load("iris")
    coupling = theory.data_modes(ld.LeastSquares(dataset.X, dataset.Y, scale="mean")).coupling
    found = data.commutation(dataset.X, dataset.Y)
    size = np.linalg.norm(dataset.X.T @ dataset.X / 150)
    # Only one direction is left over, and ties to it count in both.
    assert abs(np.linalg.norm(coupling) / size / found.delta_xy - 1) < 1e-8


def test_autoencoders_and_whitened_inputs_decouple_and_other_data_do_not(rng):
    iris = data.load("iris", centre=True)
    white = np.linalg.qr(iris.X)[0]
    for X, Y, decouples in ((iris.X, iris.X, True), (white, iris.Y, True), (iris.X, iris.Y, False)):
        problem = ld.LeastSquares(X, Y, scale="mean")
        modes = theory.data_modes(problem)
        assert bool(modes.applies) == decouples
        if decouples:
            learned = np.asarray(modes.sigma) > 1e-9
            assert bool(jnp.all(theory.corollary2_condition(modes.sigma[learned], modes.lam[learned])))


def test_order_and_times_of_a_decoupled_problem_are_those_of_its_components(rng):
    sigma, lam = np.array([0.9, 0.5, 0.2, 0.0]), np.array([0.6, 1.1, 0.3, 0.7, 2.0])
    problem, _, _ = commuting(rng, sigma, lam)
    order = theory.learning_order(problem, 3.0)
    assert bool(order.applies)
    assert relative_error(order.sigma, sigma) < 1e-12 and relative_error(order.lam[:3], lam[:3]) < 1e-12
    assert relative_error(order.height[:3], sigma[:3] / lam[:3]) < 1e-12
    assert relative_error(order.jump_time[:3], 1 / sigma[:3]) < 1e-12 and order.jump_time[3] == np.inf
    assert relative_error(order.half_time[:3], exact.aligned_half_time(sigma[:3], lam[:3], 3.0).value) < 1e-12
    assert order.half_time[3] == np.inf and order.height[3] == 0
    assert not bool(theory.learning_order(problem, 0.0).applies)
    # Two that jump together have no order.
    equal, _, _ = commuting(rng, np.array([0.75, 0.75]), np.array([0.6, 0.6]))
    assert relative_error(theory.learning_order(equal, 3.0).sigma[:2], [0.75, 0.75]) < 1e-12


# -- reduced-rank regression -----------------------------------------------------------------------------------------------


def alternating(X, Y, k, rng, sweeps=3000):
    """The best fit of rank k by alternating least squares, from a random start."""
    B, fit = rng.normal(size=(Y.shape[1], k)), np.linalg.pinv(X) @ Y
    for _ in range(sweeps):
        A = np.linalg.solve(B.T @ B, B.T @ fit.T).T
        before, B = B, np.linalg.lstsq(X @ A, Y, rcond=None)[0].T
        if np.linalg.norm(B - before) < 1e-13 * np.linalg.norm(B):
            break
    return A @ B.T


@pytest.mark.parametrize("shape", [(30, 6, 4), (5, 8, 4)], ids=["tall", "wide"])
def test_reduced_rank_regression_is_the_best_fit_that_alternating_least_squares_finds(shape, rng):
    N, n, m = shape
    X, Y = rng.normal(size=(N, n)), rng.normal(size=(N, m)) @ np.diag([3, 2, 1, 0.3])
    problem = ld.LeastSquares(X, Y, scale="mean")
    for k in range(1, 5):
        found = theory.reduced_rank_regression(problem, jnp.asarray(k))
        value = np.asarray(found.value)
        expected = alternating(X, Y, k, rng)
        assert bool(found.applies) and np.linalg.matrix_rank(value) == k
        # Of the same loss, and, as both have no part outside the range of the data, the same matrix.
        assert relative_error(value, expected) < 1e-8
        loss, least = (np.sum((X @ Theta - Y) ** 2) / 2 / N for Theta in (expected, np.linalg.pinv(X) @ Y))
        assert abs(found.excess_loss - (loss - least)) < 1e-10
        assert relative_error(np.linalg.pinv(X) @ (X @ value), value) < 1e-12
    all_of_it, nothing = (theory.reduced_rank_regression(problem, jnp.asarray(k)).value for k in (4, 0))
    assert relative_error(all_of_it, problem.theta_hat) < 1e-12 and not np.any(nothing)


def test_reduced_rank_regression_is_the_formula_of_corollary_2(rng, dtype):
    X, Y = rng.normal(size=(30, 5)).astype(dtype), rng.normal(size=(30, 3)).astype(dtype)
    Sigma_x, Sigma_xy = X.T @ X / 30, X.T @ Y / 30
    Psi = np.linalg.eigh(Sigma_xy.T @ np.linalg.pinv(Sigma_x) @ Sigma_xy)[1][:, ::-1]
    problem = ld.LeastSquares(X, Y, scale="mean")
    for k in (1, 2):
        expected = np.linalg.pinv(Sigma_x) @ Sigma_xy @ Psi[:, :k] @ Psi[:, :k].T
        found = theory.reduced_rank_regression(problem, jnp.asarray(k))
        assert found.value.dtype == dtype
        assert relative_error(found.value, expected) < tolerance(dtype, 30)
        by_covariance = theory.reduced_rank_from_covariances(Sigma_x, Sigma_xy, jnp.asarray(k), rank=5)
        # Squares the condition number of the data, about 10 here.
        assert relative_error(by_covariance.value, expected) < tolerance(dtype, 100)
        assert abs(by_covariance.excess_loss - found.excess_loss) < tolerance(dtype, 30)


def test_singular_covariances_leave_the_part_without_data_at_zero(rng):
    A = rng.normal(size=(6, 3))
    Sigma_x, Sigma_xy = A @ A.T, A @ rng.normal(size=(3, 4))
    for k in (1, 2, 3):
        value = np.asarray(theory.reduced_rank_from_covariances(Sigma_x, Sigma_xy, jnp.asarray(k), rank=3).value)
        assert relative_error(A @ np.linalg.pinv(A) @ value, value) < 1e-12
    assert relative_error(value, np.linalg.pinv(Sigma_x) @ Sigma_xy) < 1e-10


def test_rank_may_be_traced_and_derivatives_need_only_the_gap_behind_it(rng):
    X, U, V = (
        rng.normal(size=(9, 4)),
        np.linalg.qr(rng.normal(size=(4, 4)))[0],
        np.linalg.qr(rng.normal(size=(3, 3)))[0],
    )
    # Two equal singular values, and a gap behind them.
    Y = np.linalg.qr(X)[0] @ (U[:, :3] * [2.0, 2.0, 0.5]) @ V.T
    direction = rng.normal(size=Y.shape)

    def value(t, k):
        problem = ld.LeastSquares(X, Y + t * direction, rank=4)
        return theory.reduced_rank_regression(problem, k).value

    ks = jnp.arange(4)
    stacked = jax.jit(jax.vmap(lambda k: value(0.0, k)))(ks)
    for k in range(4):
        known = theory.reduced_rank_regression(ld.LeastSquares(X, Y, rank=4), jnp.asarray(k))
        assert relative_error(stacked[k], known.value) < 1e-12
    sloped = jax.jit(jax.jacfwd(value))
    slope, ends = sloped(0.0, 2), [jax.jit(value)(t, 2) for t in (1e-6, -1e-6)]
    assert relative_error(slope, (ends[0] - ends[1]) / 2e-6) < 1e-7
    reverse = jax.jit(jax.grad(lambda t, k: jnp.sum(value(t, k) ** 2)))(0.0, 2)
    assert abs(reverse - 2 * jnp.sum(slope * stacked[2])) < 1e-9
    # Behind the first of two equal ones there is no gap: not the only best fit, and no NaN.
    found = theory.reduced_rank_regression(ld.LeastSquares(X, Y), 1)
    assert abs(found.excess_loss - (2.0**2 + 0.5**2) / 2) < 1e-10
    assert bool(jnp.all(jnp.isfinite(sloped(0.0, 1))))


# -- plateaus --------------------------------------------------------------------------------------------------------------


def test_the_condition_of_corollary_2_is_that_of_every_single_rank(rng):
    for _ in range(50):
        sigma, lam = np.sort(rng.uniform(0.1, 2, 5))[::-1], rng.uniform(0.1, 2, 5)
        expected = [bool(exact.plateau(sigma, lam, k).applies) for k in range(1, 6)]
        assert np.array_equal(theory.corollary2_condition(sigma, lam), expected)


def test_plateaus_are_best_fits_exactly_where_the_condition_holds(rng):
    sigma = np.array([2.0, 1.2, 0.9, 0.3])
    for lam in ([1.0, 0.5, 0.4, 0.3], [8.0, 0.5, 0.4, 2.0], [2.0, 2.0, 0.1, 0.1]):
        problem, _, _ = commuting(rng, sigma, np.array([*lam, 0.7]))
        condition = theory.corollary2_condition(sigma, np.array(lam))
        for k in range(5):
            plateau = theory.corollary2(problem, jnp.asarray(k))
            best = theory.reduced_rank_regression(problem, jnp.asarray(k))
            same = relative_error(plateau.value, best.value) < 1e-9
            assert bool(plateau.applies) == same == (k == 0 or bool(condition[k - 1]))
            assert plateau.excess_loss >= plateau.best - 1e-12 and abs(plateau.best - best.excess_loss) < 1e-12
    # Modes that do not decouple have no plateaus of this form.
    assert not bool(theory.corollary2(ld.LeastSquares(rng.normal(size=(9, 4)), rng.normal(size=(9, 3))), 1).applies)


def test_the_counterexample_to_corollary_2_agrees_with_the_reference():
    inputs, expected = CASES["cor2_counterexample"]["inputs"], CASES["cor2_counterexample"]["expected"]
    problem = ld.theory.covariance_problem(np.diag(inputs["lam"]), np.diag(inputs["sigma"]))
    plateau = theory.corollary2(problem, 1)
    assert not bool(plateau.applies)
    assert relative_error(plateau.value, np.diag([0.25, 0])) < 1e-12
    best = theory.reduced_rank_regression(problem, 1)
    assert relative_error(best.value, expected["W_rrr1"]) < 1e-12
    least = -0.5 * np.sum(np.array(inputs["sigma"]) ** 2 / np.array(inputs["lam"]))
    assert abs(best.excess_loss - (expected["objective_rrr"] - least)) < 1e-12
    # The reference is the flow from a start that has not quite vanished.
    assert abs(plateau.excess_loss - (expected["objective_flow"] - least)) < 2e-3


def test_theorem_2_and_corollary_1_agree_with_the_reference(rng):
    inputs, expected = CASES["thm2_cor1_rescaled"]["inputs"], CASES["thm2_cor1_rescaled"]["expected"]
    sigma, lam = np.array(inputs["sigma"]), np.array(inputs["lam"])
    order = np.argsort(-sigma)
    problem, _, _ = commuting(rng, sigma[order], lam[order], n=len(sigma) + 1, m=len(sigma))
    ts = np.array(inputs["t"], float)
    norms = theory.g19_corollary1(problem, ts)
    assert bool(norms.applies)
    assert relative_error(norms.squared_frobenius, expected["fro2_limit"]) < 1e-11
    assert relative_error(norms.nuclear, expected["nuclear_limit"]) < 1e-11
    limit = theory.g19_theorem2(problem, ts)
    assert limit.value.shape == (len(ts), problem.num_inputs, problem.num_outputs)
    assert relative_error(np.sum(np.asarray(limit.value) ** 2, axis=(1, 2)), norms.squared_frobenius) < 1e-11
    late = theory.g19_theorem2(problem, np.array([1e3])).value[0]
    assert relative_error(late, problem.theta_hat) < 1e-10
    # The flow from a small start, at the same rescaled times, is close to it away from the jumps.
    d = 200.0
    start = ld.init.aligned(problem, np.full(len(sigma), d), len(sigma))
    layers = theory.aligned_layers(start, problem, d * ts)
    product = np.einsum("tnh,tmh->tnm", layers.value.U, layers.value.V)
    away = np.min(np.abs(ts[:, None] * sigma - 1), axis=1) > 0.05
    assert np.sum(away) >= 1 and relative_error(product[away], np.asarray(limit.value)[away]) < 1e-6


# -- principal components --------------------------------------------------------------------------------------------------


def test_reduced_rank_regression_of_an_autoencoder_is_its_principal_projector(rng):
    X = data.load("wine", centre=True).X
    problem = ld.LeastSquares(X, X, scale="mean")
    components = np.linalg.svd(X, full_matrices=False)[2]
    projector, regression = jax.jit(theory.principal_projector), jax.jit(theory.reduced_rank_regression)
    for k in (0, 1, 4, 13):
        P = components[:k].T @ components[:k]
        found, best = projector(problem, k), regression(problem, k)
        assert bool(found.applies)
        assert relative_error(found.value, P) < 1e-10 and relative_error(best.value, P) < 1e-9
        assert abs(found.excess_loss / max(best.excess_loss, 1e-30) - 1) < 1e-9 or k == 13
    plateau = theory.corollary2(problem, 4)
    assert bool(plateau.applies) and relative_error(plateau.value, components[:4].T @ components[:4]) < 1e-9


def test_tied_starts_are_recognised_by_their_commutator(rng):
    X = rng.normal(size=(30, 4)) * [3, 2, 1, 0.5]
    problem = ld.LeastSquares(X, X, scale="mean")
    eye = np.exp(-2.0) * np.eye(4, 6)
    assert bool(theory.tied_autoencoder(ld.TwoLayer(eye, eye), problem).applies)
    O = orthogonal(rng, 6)
    assert bool(theory.tied_autoencoder(ld.TwoLayer(eye @ O, eye @ O), problem).applies)
    U = rng.normal(size=(4, 6))
    turned = theory.tied_autoencoder(ld.TwoLayer(U, U), problem)
    Sigma_x, M = X.T @ X / 30, U @ U.T
    size = 2 * np.linalg.norm(Sigma_x) * np.linalg.norm(M)
    assert not bool(turned.applies) and turned.difference == 0
    assert abs(turned.commutator - np.linalg.norm(Sigma_x @ M - M @ Sigma_x) / size) < 1e-12
    other = theory.tied_autoencoder(ld.TwoLayer(eye, 2 * eye), problem)
    assert not bool(other.applies) and abs(other.difference - 1 / 3) < 1e-12
    # Rank-deficient inputs: what ties their range to the rest counts as well.
    flat = X[:3]
    thin = ld.LeastSquares(flat, flat)
    found = theory.tied_autoencoder(ld.SymmetricFactors(U), thin)
    Sigma_x = flat.T @ flat
    size = 2 * np.linalg.norm(Sigma_x) * np.linalg.norm(M)
    assert abs(found.commutator - np.linalg.norm(Sigma_x @ M - M @ Sigma_x) / size) < 1e-12
    assert not bool(theory.tied_autoencoder(ld.TwoLayer(eye, eye), ld.LeastSquares(X, X[::-1])).applies)


def test_repeated_modes_have_finite_derivatives(rng):
    change, ts = rng.normal(size=(3, 3)), np.array([0.5, 2.0])

    @jax.jit
    def everything(Y):
        problem = ld.factorization(Y)
        norms = theory.g19_corollary1(problem, ts)
        return (
            norms.nuclear,
            norms.squared_frobenius,
            theory.g19_theorem2(problem, ts).value,
            theory.corollary2(problem, 1).excess_loss,
            theory.perturbation_bound(problem, 1.0, ts).value,
        )

    nuclear, squared, *others = jax.jvp(everything, (jnp.eye(3),), (change,))[1]
    # Before and behind the jump: sums over all modes need no gaps.
    assert relative_error(nuclear, [0, np.trace(change)]) < 1e-12
    assert relative_error(squared, [0, 2 * np.trace(change)]) < 1e-12
    assert all(np.all(np.isfinite(x)) for x in others)


def test_wrong_arguments_are_refused(rng):
    problem = ld.LeastSquares(rng.normal(size=(9, 4)), rng.normal(size=(9, 3)))
    with pytest.raises(ValueError, match="`k` must lie between 0 and 3, the largest rank there is, but is 4"):
        ld.theory.reduced_rank_regression(problem, 4)
    linked = ld.LeastSquares(rng.normal(size=(9, 4)), rng.normal(size=(9, 3)), link=jnp.tanh)
    with pytest.raises(ValueError, match="`data_modes` is about least squares"):
        ld.theory.data_modes(linked)
    with pytest.raises(ValueError, match="must have the same n, but have shapes"):
        ld.theory.covariance_problem(np.ones((3, 3))[:2], np.ones((3, 2)))
    with pytest.raises(ValueError, match="must have a rank from 1 to n = 3, but has rank 0"):
        ld.theory.covariance_problem(-np.eye(3), np.ones((3, 2)))
    with pytest.raises(ValueError, match="`sigma` must descend"):
        ld.theory.corollary2_condition(np.array([1.0, 2.0]), np.ones(2))
    with pytest.raises(ValueError, match="must be a TwoLayer or a SymmetricFactors"):
        ld.theory.tied_autoencoder(ld.LinearModel(np.eye(4)), problem)
    with pytest.raises(ValueError, match="An autoencoder has inputs X and targets"):
        ld.theory.tied_autoencoder(ld.SymmetricFactors(np.eye(4)), problem)


def test_the_projector_of_a_matrix_that_is_not_finite_ends_as_nan():
    for entry in (jnp.nan, jnp.inf, -jnp.inf):
        A = jnp.eye(3).at[0, 1].set(entry)
        assert jnp.all(jnp.isnan(ld.theory.top_projector(A, jnp.asarray(1))))
