"""Momentum and polar flows: the reference cases, their laws, and the reduction, which stays exact."""

import itertools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import load_cases

import lindyn_jax as ld

CASES = list(load_cases("other_flows").values())
MOMENTUM = [case for case in CASES if case["kind"] == "momentum_flow"]
random = np.random.default_rng(8)
X, Y = random.normal(size=(4, 5)), random.normal(size=(4, 2))
PROBLEM = ld.LeastSquares(X, Y)
NARROW = ld.TwoLayer(0.4 * random.normal(size=(5, 3)), 0.4 * random.normal(size=(2, 3)))
WIDE = ld.TwoLayer(0.1 * random.normal(size=(5, 40)), 0.1 * random.normal(size=(2, 40)))
TS = [0.5, 2.0]


@pytest.mark.parametrize("reduce", [True, False])
@pytest.mark.parametrize("case", MOMENTUM, ids=lambda case: case["name"])
def test_momentum_flow_of_the_reference_values(case, reduce):
    given, tolerance = case["inputs"], case["rel_or_abs_tol"]
    start = ld.Momentum(ld.TwoLayer(np.array(given["U"]), np.array(given["V"])), given["epsilon"])
    problem = ld.factorization(np.array(given["Y"]))
    path = ld.gradient_flow(start, problem, case["times"], rtol=1e-11, keep_models=True, reduce=reduce)
    network = path.models.network
    Theta = jnp.einsum("tih,tjh->tij", network.U, network.V)
    D = jnp.einsum("tih,tik->thk", network.U, network.U) - jnp.einsum("tih,tik->thk", network.V, network.V)
    np.testing.assert_allclose(Theta, case["expected"]["Theta"], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(D, case["expected"]["D"], rtol=tolerance, atol=tolerance)


def test_a_wide_network_under_momentum_is_its_core():
    how = {"rtol": 1e-10, "solver": "tsit5", "observables": ("loss", "imbalance_drift")}
    full, small = (ld.gradient_flow(ld.Momentum(WIDE, 0.3), PROBLEM, TS, **how, reduce=r) for r in (False, True))
    np.testing.assert_allclose(small.final.network.U, full.final.network.U, rtol=0, atol=1e-8)
    np.testing.assert_allclose(small.final.speed.V, full.final.speed.V, rtol=0, atol=1e-8)


def test_a_drawn_core_moves_under_momentum():
    drawn = ld.init.gaussian_core(PROBLEM, 1e9, alpha=0.5, key=jax.random.key(0))
    assert ld.gradient_flow(ld.Momentum(drawn, 0.3), PROBLEM, TS, solver="tsit5").ok


def test_it_goes_on_from_its_speed_and_angular_momenta_decay():
    speed = jax.tree.map(lambda Z: 0.3 * jnp.cos(7 * Z), NARROW)
    start = ld.Momentum(NARROW, 0.4, speed)
    np.testing.assert_allclose(start.speed.U, speed.U, rtol=1e-13)
    how = {"observables": "imbalance_drift", "rtol": 1e-11}
    whole = ld.gradient_flow(start, PROBLEM, [2.0], **how).final
    middle = ld.gradient_flow(start, PROBLEM, [0.7], **how).final
    parts = ld.gradient_flow(middle, PROBLEM, [1.3], **how).final
    np.testing.assert_allclose(parts.network.U, whole.network.U, rtol=0, atol=1e-9)
    (before,), (after,) = start.angular_momenta(), whole.angular_momenta()
    np.testing.assert_allclose(after, np.exp(-2.0 / 0.4) * before, rtol=0, atol=1e-9 * np.max(np.abs(before)))
    # Of a start at rest there is none, but the imbalance moves.
    resting = ld.gradient_flow(ld.Momentum(NARROW, 0.4), PROBLEM, [2.0], **how)
    assert (
        np.max(np.abs(resting.final.angular_momenta()[0])) < 1e-9
        and resting.final_observables["imbalance_drift"] > 1e-3
    )


@pytest.mark.parametrize(
    "network", [NARROW, ld.DeepLinear((NARROW.U, np.eye(3) + 0.1, NARROW.V.T))], ids=["two", "deep"]
)
def test_the_imbalance_is_driven_by_the_speeds_alone(network):
    # eps D'' + D' = eps times the forces, by two derivatives along the flow.
    epsilon = 0.4
    start = ld.Momentum(network, epsilon, jax.tree.map(lambda Z: 0.3 * jnp.cos(7 * Z), network))

    def along(function):
        return lambda state: jax.jvp(function, (state,), (state.velocity(PROBLEM),))[1]

    def imbalances(state):
        layers = state.network.layers
        return [W.T @ W - A @ A.T for W, A in itertools.pairwise(layers)]

    first, second = along(imbalances)(start), along(along(imbalances))(start)
    for D1, D2, force in zip(first, second, start.imbalance_forces(), strict=True):
        np.testing.assert_allclose(epsilon * D2 + D1, epsilon * force, rtol=0, atol=1e-12 * np.max(np.abs(D2)))


def test_energy_falls_by_the_square_of_the_speed():
    start = ld.Momentum(NARROW, 0.4, jax.tree.map(lambda Z: 0.3 * jnp.cos(7 * Z), NARROW))

    def energy(state):
        return ld.observables.loss(state.network, PROBLEM) + state.kinetic_energy

    slope = jax.jvp(energy, (start,), (start.velocity(PROBLEM),))[1]
    np.testing.assert_allclose(slope, -2 * start.kinetic_energy / start.epsilon, rtol=1e-12)


def test_little_inertia_is_the_gradient_flow():
    flow = ld.gradient_flow(NARROW, PROBLEM, [0.5], rtol=1e-10).final.product()

    @jax.jit
    def distance(epsilon):
        path = ld.gradient_flow(ld.Momentum(NARROW, epsilon), PROBLEM, [0.5], rtol=1e-10)
        return jnp.max(jnp.abs(path.final.product() - flow))

    assert 1.8 < distance(2e-3) / distance(1e-3) < 2.2


def test_derivatives_in_the_inertia_agree():
    def loss(epsilon, adjoint=None):
        start = ld.Momentum(WIDE, epsilon)
        return ld.gradient_flow(start, PROBLEM, [1.0], rtol=1e-11, adjoint=adjoint).final_observables["loss"]

    reverse = jax.grad(loss)(0.3)
    forward = jax.jvp(lambda e: loss(e, diffrax.ForwardMode()), (0.3,), (1.0,))[1]
    difference = (loss(0.3 + 1e-4) - loss(0.3 - 1e-4)) / 2e-4
    np.testing.assert_allclose([forward, difference], [reverse, reverse], rtol=1e-6)


SIGMA, START = np.array([4.0, 2.0, 1.0]), 0.01
STARTS = np.full(3, START)


def test_modes_of_the_polar_flow_are_learned_at_the_reference_times():
    case = next(case for case in CASES if case["kind"] == "polar_flow")
    sigma, u0, expected = case["inputs"]["sigma"], case["inputs"]["u0"], case["expected"]
    sigma, u0 = np.array(sigma), np.full(3, u0)
    np.testing.assert_allclose(ld.exact.polar_time(sigma, u0, u0), expected["learned_at"], rtol=1e-12)
    np.testing.assert_allclose(ld.exact.polar_time(sigma, u0, u0, 0.5), expected["half_height"], rtol=1e-12)
    modes = ld.exact.polar_modes(sigma, u0, u0, np.array(expected["learned_at"]))
    np.testing.assert_allclose(jnp.diagonal(modes), sigma, rtol=1e-12)
    # From above, and between the ends.
    modes = ld.exact.polar_modes(*map(np.array, ([4.0, 0.25], [0.3, 1.0], [0.5, 1.0], [0.2, 0.5, 9.0])))
    np.testing.assert_allclose(modes, [[0.35, 0.64], [0.8, 0.25], [4.0, 0.25]], rtol=1e-14)


def aligned_start():
    """A target and a start in its frame, which modes are read off in."""
    turn = [np.linalg.qr(random.normal(size=(k, 3)))[0] for k in (4, 3, 6)]
    problem = ld.factorization(turn[0] @ np.diag(SIGMA) @ turn[1].T)
    start = ld.TwoLayer(START * turn[0] @ turn[2].T, START * turn[1] @ turn[2].T)

    def modes(path):
        network = path.models.network
        return np.einsum("ia,tih,tjh,ja->ta", turn[0], network.U, network.V, turn[1], optimize=True)

    return problem, start, modes


def test_the_polar_flow_is_its_closed_form():
    problem, start, modes = aligned_start()
    exact = ld.exact.polar_modes(SIGMA, STARTS, STARTS, np.array([0.5, 0.9]))
    path = ld.gradient_flow(ld.Polar(start), problem, [0.5, 0.9], keep_models=True)
    np.testing.assert_allclose(modes(path), exact, rtol=1e-8)


def test_the_polar_flow_beyond_the_first_mode_is_approached_by_smoothing():
    problem, start, modes = aligned_start()
    # Beyond the first mode that is learned it is approached by smoothing, and without any the run says that it stuck.
    assert not ld.gradient_flow(ld.Polar(start), problem, [0.5, 1.2], max_steps=3000, keep_models=True).ok
    smooth = ld.gradient_flow(ld.Polar(start, 1e-2), problem, [1.2, 2.2], rtol=1e-5, keep_models=True)
    assert smooth.ok
    np.testing.assert_allclose(
        modes(smooth), ld.exact.polar_modes(SIGMA, STARTS, STARTS, np.array([1.2, 2.2])), atol=5e-2
    )


def test_the_polar_flow_is_the_same_reduced_and_at_full_size():
    full, small = (
        ld.gradient_flow(ld.Polar(WIDE, 1e-2), PROBLEM, [0.3], reduce=r).final.network for r in (False, True)
    )
    np.testing.assert_allclose(small.U, full.U, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("network", "options"),
    [
        (WIDE, {"momentum": 0.9}),
        (WIDE, {"momentum": 0.5, "nesterov": True, "newton_schulz": 5}),
        (ld.DeepLinear((WIDE.U, WIDE.V.T)), {}),
    ],
    ids=["momentum", "newton-schulz", "deep"],
)
def test_polar_descent_is_the_same_reduced_and_at_full_size(network, options):
    optimizer = ld.polar_descent(1e-2, **options)
    full, small = (
        ld.gradient_descent(network, PROBLEM, 20, optimizer=optimizer, reduce=r).final for r in (False, True)
    )
    for a, b in zip(small.layers, full.layers, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)


def test_polar_descent_moves_every_direction_by_its_step():
    problem, eta = ld.factorization(np.diag(SIGMA)), 0.05
    start = ld.TwoLayer(START * np.eye(3), START * np.eye(3))
    end = ld.gradient_descent(start, problem, 10, optimizer=ld.polar_descent(eta)).final
    np.testing.assert_allclose(end.U, (START + 10 * eta) * np.eye(3), atol=1e-12)


def test_newton_schulz_is_that_of_muon():
    from optax.contrib import _muon

    G = jnp.asarray(random.normal(size=(3, 5)))
    mine, _ = ld.polar_descent(1.0, newton_schulz=5).update(G, optax.TraceState(jnp.zeros_like(G)))
    theirs = _muon.orthogonalize_via_newton_schulz(G, jnp.asarray(ld.optimizers.QUINTIC), 5)
    np.testing.assert_allclose(-mine, theirs, rtol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: ld.Momentum(NARROW, 0.0), "`epsilon` must be a positive number"),
        (lambda: ld.Momentum(NARROW, 0.1, WIDE), "`speed` must be a TwoLayer with leaves of shapes"),
        (lambda: ld.Momentum(ld.WideLimit(np.eye(2), 0.1), 0.1), "a WideLimit has a flow of its own"),
        (lambda: ld.Polar(ld.LinearModel(np.eye(2))), "must be a chain of layers, but is a LinearModel"),
        (lambda: ld.Polar(NARROW, -1.0), "`smoothing` must be a finite number of at least 0"),
        (lambda: ld.polar_descent(0.1, momentum=1.0), r"`momentum` must lie in \[0, 1\)"),
        (lambda: ld.polar_descent(0.1, newton_schulz=0), "must be at least 1 step"),
        (lambda: ld.exact.polar_time(-SIGMA, STARTS, STARTS), "`sigma` must be a positive number"),
        (
            lambda: ld.gradient_descent(ld.Momentum(NARROW, 0.1), PROBLEM, 3, optimizer=optax.sgd(0.1)),
            "moves by a flow and takes no steps",
        ),
        (lambda: ld.gradient_flow(ld.Momentum(NARROW, 0.1), PROBLEM, TS, solver="radau"), "the model is a Momentum"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_it_cannot_do_it_says(wrong, says):
    with pytest.raises(ValueError, match=says):
        wrong()
