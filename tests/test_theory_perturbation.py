"""Modes that do not quite decouple: the closed form against the perturbed flow, and tilts of plateaus."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Compiled, load_cases, relative_error

import lindyn_jax as ld

exact, theory = Compiled(ld.exact), Compiled(ld.theory)

SIGMA, LAM = np.array([2.0, 1.0, 0.5, 0.2]), np.array([1.5, 0.6, 0.2, 0.4])


@pytest.fixture(scope="module")
def perturbed():
    """Flows from one aligned start for several eps: distances from the closed form at several times, and the bound."""
    rng = np.random.default_rng(0)
    Phi, Psi = (np.linalg.qr(rng.normal(size=(4, 4)))[0] for _ in range(2))
    B = rng.normal(size=(4, 4))
    B = B + B.T - 2 * np.diag(np.diag(B))
    B /= np.linalg.norm(B, ord=2)
    ts = np.linspace(0.0, 8.0, 9)

    def one(eps):
        problem = ld.theory.covariance_problem(Phi @ (jnp.diag(LAM) + eps * B) @ Phi.T, (Phi * SIGMA) @ Psi.T, rank=4)
        start = ld.init.aligned(problem, jnp.full(4, 3.0), 5)
        flow = ld.gradient_flow(
            start,
            problem,
            ts,
            keep_models=True,
            observables=(),
            rtol=1e-11,
            atol=1e-14,
            solver="tsit5",
            reduce=False,
        )
        layers = theory.aligned_layers(start, problem, ts)
        distance = jnp.sqrt(
            jnp.sum((flow.models.U - layers.value.U) ** 2, axis=(1, 2))
            + jnp.sum((flow.models.V - layers.value.V) ** 2, axis=(1, 2))
        )
        return distance, layers.applies, theory.perturbation_bound(problem, 3.0, ts), theory.data_modes(problem)

    eps = np.array([0.0, 1e-5, 1e-4, 1e-3, 1e-2])
    return eps, *jax.jit(jax.vmap(one))(eps)


def test_without_perturbation_the_layers_are_the_closed_form(perturbed):
    _, distance, aligned, _, modes = perturbed
    assert bool(jnp.all(aligned)) and bool(modes.applies[0]) and not np.any(modes.applies[2:])
    # The integrator's tolerance.
    assert np.max(distance[0]) < 1e-8


def test_perturbed_layers_stay_within_eps_times_an_exponential(perturbed):
    eps, distance, _, bound, _ = perturbed
    distance, value = np.asarray(distance), np.asarray(bound.value)
    assert relative_error(bound.eps[1:] / eps[1:], np.ones(4)) < 1e-9
    assert relative_error(bound.rate, np.full(5, 2.0)) < 1e-9
    used = np.asarray(bound.applies[1:])
    # It says something while it is small: for longer, the smaller eps is.
    assert np.sum(used[0, 1:]) >= 3 and np.sum(used[2, 1:]) >= 1
    assert np.all(np.diff(np.sum(used, axis=1)) <= 0)
    assert np.all(distance[1:, 1:] <= value[1:, 1:])
    # Proportional to eps, at every time: the statement's shape.
    ratio = distance[1:, 1:] / eps[1:, None]
    assert np.max(np.abs(ratio[:3] / ratio[0] - 1)) < 3e-3 and np.max(np.abs(ratio[3] / ratio[0] - 1)) < 0.03
    # Modes in the order of Corollary 2: behind the jumps the distance stops growing.
    assert np.max(ratio) < 10
    assert np.max(distance[:, 0]) < 1e-15 and np.all(value[:, 0] == 0)


def test_any_problem_has_a_decoupled_one_beside_it(rng):
    X, Y = rng.normal(size=(9, 5)), rng.normal(size=(9, 3))
    problem = ld.LeastSquares(X, Y, scale="mean", output_scale=1.3)
    modes = theory.data_modes(problem)
    beside = theory.decoupled_problem(problem)
    again = theory.data_modes(beside)
    assert not bool(modes.applies) and bool(again.applies)
    assert relative_error(again.sigma, modes.sigma) < 1e-12 and relative_error(again.lam, modes.lam) < 1e-12
    Sigma_x = [c**2 * q * np.asarray(p.X).T @ np.asarray(p.X) for p, q, c in ((problem, 1 / 9, 1.3), (beside, 1, 1))]
    Phi1 = np.asarray(problem.Phi1)
    assert relative_error(Sigma_x[0] - Sigma_x[1], Phi1 @ np.asarray(modes.coupling) @ Phi1.T) < 1e-12
    # Decoupled already: nothing changes.
    assert relative_error(theory.decoupled_problem(beside).theta_hat, beside.theta_hat) < 1e-11


def test_starts_that_are_not_aligned_are_told(rng):
    problem = theory.decoupled_problem(ld.LeastSquares(rng.normal(size=(9, 5)), rng.normal(size=(9, 3))))
    start = ld.init.aligned(problem, np.array([1.0, 2.0, 3.0]), 4, key=jax.random.key(0))
    ts = np.array([0.0, 1.0])
    layers = theory.aligned_layers(start, problem, ts)
    assert bool(layers.applies)
    assert relative_error(layers.value.U[0], start.U) < 1e-14 and relative_error(layers.value.V[0], start.V) < 1e-14
    for other in (ld.TwoLayer(start.U, 1.1 * start.V), ld.init.gaussian(5, 3, 4, std=0.1, key=jax.random.key(1))):
        assert not bool(theory.aligned_layers(other, problem, ts).applies)


# -- tilts -----------------------------------------------------------------------------------------------------------------


def test_tilt_rates_are_the_eigenvalues_of_the_stated_matrices(rng):
    tilts, condition_of, matrix_of = map(
        jax.jit, (theory.plateau_tilt, theory.corollary2_condition, theory.tilt_matrix)
    )
    for _ in range(20):
        sigma, lam = np.sort(rng.uniform(0, 2, 4))[::-1], rng.uniform(0.1, 2, 4)
        for k in range(5):
            tilt = tilts(sigma, lam, k)
            rates = np.asarray(tilt.rates)
            gains = sigma**2 / lam
            for i in range(4):
                for j in range(4):
                    if i < k <= j:
                        matrix = matrix_of(sigma[i], lam[i], sigma[j], lam[j])
                        expected = [[-lam[j] * sigma[i] / lam[i], sigma[j]], [sigma[j], -sigma[i]]]
                        assert relative_error(matrix, expected) < 1e-14
                        assert abs(rates[i, j] - np.linalg.eigvalsh(np.array(expected))[-1]) < 1e-12
                        assert (rates[i, j] > 0) == (gains[j] > gains[i])
                    else:
                        assert rates[i, j] == -np.inf
            assert tilt.rate == rates.max()
            # Unstable exactly where Corollary 2 fails.
            condition = True if k == 0 else bool(condition_of(sigma, lam)[k - 1])
            assert bool(tilt.unstable) != condition


def test_modes_that_gain_the_same_count_as_ordered_in_spite_of_round_off():
    """sigma^2/lambda is .1 twice, and its two values differ in the last digit."""
    sigma, lam = np.array([0.3, 0.1]), np.array([0.9, 0.1])
    assert bool(theory.corollary2_condition(sigma, lam)[0])
    assert bool(exact.plateau(sigma, lam, 1).applies)
    assert not bool(theory.plateau_tilt(sigma, lam, 1).unstable)
    # A difference beyond round-off counts.
    lam = np.array([0.9 * (1 + 1e-13), 0.1])
    assert not bool(theory.corollary2_condition(sigma, lam)[0])
    assert not bool(exact.plateau(sigma, lam, 1).applies)
    assert bool(theory.plateau_tilt(sigma, lam, 1).unstable)


def test_without_targets_the_bound_is_zero_and_without_all_modes_the_closed_form_applies():
    ts = np.array([0.0, 1.0, 5.0])
    bound = theory.perturbation_bound(ld.factorization(np.zeros((2, 2))), 1.0, ts)
    assert np.all(np.asarray(bound.value) == 0) and bool(jnp.all(bound.applies))
    # One hidden unit: the mode without a start stays where it is.
    problem = ld.factorization(np.diag([2.0, 1.0]))
    start = ld.init.aligned(problem, np.array([1.5]), 1)
    layers = theory.aligned_layers(start, problem, ts)
    assert bool(layers.applies)
    w = exact.aligned(2.0, 1.0, 1.5, ts)
    expected = np.zeros((3, 2, 2))
    expected[:, 0, 0] = w
    assert relative_error(np.einsum("tnh,tmh->tnm", layers.value.U, layers.value.V), expected) < 1e-13
    # A row in one layer alone moves.
    half = ld.TwoLayer(start.U + jnp.array([[0.0], [0.1]]), start.V)
    assert not bool(theory.aligned_layers(half, problem, ts).applies)


def test_tilts_of_the_counterexample_grow_at_their_rate():
    inputs = load_cases("g19")["cor2_counterexample"]["inputs"]
    sigma, lam = np.array(inputs["sigma"]), np.array(inputs["lam"])
    tilt = theory.plateau_tilt(sigma, lam, 1)
    assert bool(tilt.unstable) and abs(tilt.rate - 0.308) < 5e-4
    # The root of x^2 + 2.125 x - .75.
    assert abs(tilt.rate - (-2.125 + np.sqrt(2.125**2 + 3)) / 2) < 1e-14


def test_the_flow_tilts_away_from_a_plateau_at_the_stated_rate():
    """One hidden unit, at a plateau of one mode, with a small weight on the other."""
    cases = np.array(
        [[2.0, 8.0, 1.0, 0.5], [2.0, 4.0, 1.5, 1.0], [1.0, 1.0, 0.9, 0.2], [1.0, 0.5, 0.5, 1.0], [2.0, 1.0, 1.9, 1.1]]
    )
    ts = np.array([0.0, 6.0, 9.0, 400.0])

    def one(case):
        first, lam_1, second, lam_2 = case
        sigma, lam = jnp.stack([first, second]), jnp.stack([lam_1, lam_2])
        root = jnp.sqrt(lam)
        problem = ld.LeastSquares(jnp.diag(root), jnp.diag(sigma / root), rank=2)
        height = jnp.sqrt(first / lam_1)
        start = ld.TwoLayer(jnp.stack([height, 1e-7])[:, None], jnp.stack([height, 1e-7])[:, None])
        flow = ld.gradient_flow(
            start, problem, ts, keep_models=True, rtol=1e-9, atol=1e-16, solver="tsit5", reduce=False
        )
        rate = jnp.linalg.eigvalsh(theory.tilt_matrix(first, lam_1, second, lam_2))[-1]
        grown = jnp.log(flow.models.U[2, 1, 0] / flow.models.U[1, 1, 0]) / (ts[2] - ts[1])
        return rate, grown, flow.models.U[-1] @ flow.models.V[-1].T

    rate, grown, end = jax.jit(jax.vmap(one))(cases)
    assert np.max(np.abs(grown - rate)) < 2e-3
    assert np.array_equal(np.asarray(rate) > 0, [True, True, True, False, False])
    # In the end the flow of one unit is at the best fit of rank 1: the second mode where the plateau is unstable.
    for (first, lam_1, second, lam_2), unstable, Theta in zip(
        cases, np.asarray(rate) > 0, np.asarray(end), strict=True
    ):
        expected = np.diag([0, second / lam_2] if unstable else [first / lam_1, 0])
        assert relative_error(Theta, expected) < 1e-6


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="`lam_i` must be a positive number"):
        ld.theory.tilt_matrix(1.0, 0.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="`k` must lie between 0 and 2"):
        ld.theory.plateau_tilt(np.ones(2), np.ones(2), 3)
    problem = ld.factorization(np.eye(2))
    with pytest.raises(ValueError, match="`ts` must not be negative"):
        ld.theory.perturbation_bound(problem, 1.0, np.array([-1.0]))


@pytest.mark.parametrize("integrate", [False, True], ids=["closed form", "integrated"])
def test_modes_without_a_target_fall_as_the_second_branch_says(integrate, rng):
    n, m, h = 5, 3, 4
    Phi, Psi = (np.linalg.qr(rng.normal(size=(size, size)))[0] for size in (n, m))
    lam = np.array([2.0, 1.3, 0.9, 0.4, 0.2])
    problem = ld.theory.covariance_problem((Phi * lam) @ Phi.T, 1.5 * np.outer(Phi[:, 1], Psi[:, 0]))
    modes = theory.data_modes(problem)
    # The mode of the target, and beside it the directions in which Sigma_x is diagonal, although nothing in Sigma_xy names them.
    np.testing.assert_allclose(modes.lam, [1.3, 2.0, 0.9], rtol=1e-12)
    d, ts = np.array([1.5, 0.3, 0.1]), jnp.array([0.5, 2.0, 10.0])
    start = ld.init.aligned(problem, d, h, key=jax.random.key(0))
    layers = theory.aligned_layers(start, problem, ts)
    assert layers.applies
    U, V = map(np.asarray, (layers.value.U, layers.value.V))
    if integrate:
        flow = ld.gradient_flow(start, problem, ts, keep_models=True, rtol=1e-11, solver="tsit5", reduce=False)
        assert relative_error(U, flow.models.U) < 1e-9 and relative_error(V, flow.models.V) < 1e-9
    strengths = np.einsum("np,tnh,tmh,mp->tp", modes.Phi, U, V, modes.Psi)
    falling = np.exp(-2 * d[1:]) / (1 + 2 * np.exp(-2 * d[1:]) * lam[[0, 2]] * np.asarray(ts)[:, None])
    assert relative_error(strengths[:, 1:], falling) < 1e-12
