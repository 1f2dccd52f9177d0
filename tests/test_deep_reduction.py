"""Deep networks move on their invariant subspaces exactly as in full size; where there are none, that is said."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import relative_error, tolerance

import lindyn_jax as ld

N, n, r, m, h = 8, 5, 3, 3, 40
OBSERVABLES = ("excess_loss", "imbalance_drift", "frozen_product_norm")
DECAY = optax.chain(
    optax.add_decayed_weights(0.3), optax.clip_by_global_norm(0.5), optax.sgd(0.05, momentum=0.9, nesterov=True)
)


@pytest.fixture
def problem(rng):
    X = rng.normal(size=(N, n))
    X[:, r:] = X[:, : n - r]  # two directions of the inputs are frozen
    return ld.LeastSquares(X, rng.normal(size=(N, m)), scale="mean")


def start_of(kind, depth, problem, rng, width=h):
    key, hidden = jax.random.key(int(rng.integers(2**31))), (width,) * (depth - 1)
    if kind == "balanced":
        return ld.init.deep_balanced(problem, rng.normal(size=(n, m)), hidden, key=key), m
    if kind == "orthogonal":
        sizes = (n, *hidden, m)
        start = ld.init.deep_orthogonal(sizes, std=width**-0.5, gain=0.7, key=key)
        return start, problem.rank + m
    small = ld.init.deep_gaussian((n, *(m,) * (depth - 1), m), std=0.6, key=key)
    return ld.init.deep_core(small, hidden, key=key), m


def gap(a, b):
    return max(relative_error(x, y) for x, y in zip(a.layers, b.layers, strict=True))


@pytest.mark.parametrize(
    ("kind", "depth"),
    [
        ("balanced", 4),
        ("orthogonal", 3),
        ("core", 4),
        ("core", 3),
        ("balanced", 3),
        ("orthogonal", 4),
    ],
)
def test_descent_and_flow_are_the_same_at_reduced_and_full_size(kind, depth, problem, rng):
    start, size = start_of(kind, depth, problem, rng)
    reduced = ld.reduce(start, problem)
    assert [S.shape for S in reduced.bases.hidden] == [(h, size)] * (depth - 1)
    assert reduced.layers[0].shape == (problem.rank, size) and reduced.layers[-1].shape == (size, m)
    assert gap(ld.lift(reduced), start) < tolerance("float64")
    optimizer = DECAY if depth == 3 else ld.plain_descent(0.05)
    runs = [
        ld.gradient_descent(start, problem, 60, optimizer=optimizer, reduce=reduce, observables=OBSERVABLES)
        for reduce in (True, False)
    ]
    pairs = [runs]
    if depth == 4 or kind == "orthogonal":
        flows = [
            # Different error norms choose different steps: the tolerance is what makes the two comparable.
            ld.gradient_flow(
                start,
                problem,
                np.array([0.5]),
                solver="tsit5",
                rtol=1e-13,
                atol=1e-15,
                reduce=reduce,
                observables=OBSERVABLES,
            )
            for reduce in (True, False)
        ]
        pairs.append(flows)
        assert float(flows[0].observables["imbalance_drift"][-1]) < tolerance("float64")
    for small, full in pairs:
        assert isinstance(small.final, ld.DeepLinear)
        assert gap(small.final, full.final) < tolerance("float64")
        assert gap(full.final, start) > 1e-2
        for name in OBSERVABLES:
            assert relative_error(small.observables[name], full.observables[name]) < tolerance("float64"), name
    assert float(runs[0].observables["imbalance_drift"][-1]) > 1e-3


@pytest.mark.parametrize("depth", [3, 4])
def test_gaussian_middle_layers_are_refused_and_moved_at_full_size(depth, problem, rng):
    start = ld.init.deep_gaussian((n, *(h,) * (depth - 1), m), key=jax.random.key(0))
    sizes = ", ".join([str(h)] * (depth - 1))
    with pytest.raises(
        ValueError, match=rf"smallest invariant subspaces have sizes \({sizes}\) in hidden layers of widths"
    ):
        ld.reduce(start, problem)
    # Nothing is refused here, even Adam: the full network is what moves.
    if depth == 3:
        moved = [
            ld.gradient_descent(start, problem, 2, optimizer=optax.adam(0.01), reduce=r).final for r in (True, False)
        ]
        assert gap(*moved) == 0


def test_two_layers_reduce_to_the_size_that_they_have_as_such(problem, rng):
    U, V = rng.normal(size=(n, 40)), rng.normal(size=(m, 40))
    reduced = ld.reduce(ld.DeepLinear((U, V.T)), problem)
    assert reduced.bases.hidden[0].shape == (40, problem.rank + m)
    two = ld.reduce(ld.TwoLayer(U, V), problem)
    assert relative_error(reduced.product(), two.product()) < tolerance("float64")
    for name in ("loss", "singular_values", "distance_to_theta_hat", "frozen_product_norm"):
        function = ld.observables.OBSERVABLES[name]
        assert relative_error(function(reduced, problem), function(two, problem)) < tolerance("float64", 10)


def test_the_reduced_velocity_is_the_full_one_in_its_coordinates(problem, rng):
    start, _ = start_of("orthogonal", 4, problem, rng, 30)
    reduced = ld.reduce(start, problem)
    core, small = reduced.parts(problem)
    core_velocity, velocity = jax.jit(lambda: (core.velocity(small), start.velocity(problem)))()
    moved = reduced.with_core(jax.tree.map(np.add, core, core_velocity))
    expected = ld.DeepLinear([np.add(W, V) for W, V in zip(start.layers, velocity.layers, strict=True)])
    assert gap(ld.lift(moved), expected) < tolerance("float64")


def test_rank_decisions_follow_the_tolerance(problem, rng):
    start, size = start_of("balanced", 3, problem, rng, 30)
    shaken = ld.DeepLinear([W + 1e-9 * rng.normal(size=W.shape) for W in start.layers])
    assert ld.find_subspaces(shaken, problem)[0].shape[1] > size
    assert [S.shape[1] for S in ld.find_subspaces(shaken, problem, rtol=1e-7)] == [size] * 2
    single = ld.DeepLinear([np.asarray(W, np.float32) for W in start.layers])
    problem32 = ld.LeastSquares(np.asarray(problem.X, np.float32), np.asarray(problem.Y, np.float32), rank=r)
    assert [S.shape[1] for S in ld.find_subspaces(single, problem32)] == [size] * 2


def test_inside_jit_the_full_size_or_given_subspaces_are_used(problem, rng):
    start, _ = start_of("orthogonal", 3, problem, rng, 30)
    bases = ld.find_subspaces(start, problem)
    descend = {"optimizer": ld.plain_descent(0.1), "observables": ("loss",), "differentiate": "forward"}

    @jax.jit
    def full(scale):
        scaled = ld.DeepLinear([scale * W for W in start.layers])
        return ld.gradient_descent(scaled, problem, 20, **descend).final_observables["loss"]

    @jax.jit
    def small(scale):
        scaled = ld.DeepLinear([scale * W for W in start.layers])
        reduced = ld.reduce(scaled, problem, subspaces=bases)
        return ld.gradient_descent(reduced, problem, 20, **descend).final_observables["loss"]

    assert relative_error(full(1.0), small(1.0)) < tolerance("float64")
    with pytest.raises(ValueError, match="found from concrete weights, but these are traced"):
        jax.jit(lambda scale: ld.reduce(ld.DeepLinear([scale * W for W in start.layers]), problem).product())(1.0)
    other = ld.init.deep_orthogonal((n, 30, 30, m), std=1.0, key=jax.random.key(5))
    with pytest.raises(ValueError, match="not invariant under this network"):
        ld.reduce(other, problem, subspaces=bases)
    assert np.all(np.isnan(jax.jit(lambda other: ld.reduce(other, problem, subspaces=bases).product())(other)))


def test_optimizers_that_look_at_entries_are_refused_on_reduced_deep_networks(problem, rng):
    start, _ = start_of("balanced", 3, problem, rng, 30)
    with pytest.raises(ValueError, match=r"not exact for this optimizer .* Pass `reduce=False`"):
        ld.gradient_descent(start, problem, 3, optimizer=optax.adam(0.01))


def test_what_does_not_belong_together_is_refused(problem, rng):
    start, _ = start_of("balanced", 3, problem, rng, 30)
    reduced = ld.reduce(start, problem)
    other = ld.reduce(start_of("orthogonal", 3, problem, rng, 30)[0], problem)
    with pytest.raises(ValueError, match=r"`core` has layers of shapes .* but the reduction is one to"):
        ld.lift(reduced, other.core)
    with pytest.raises(ValueError, match=r"must have bases of \(30, 30\) rows, but they have \(29, 30\)"):
        ld.reduce(start, problem, subspaces=(reduced.bases.hidden[0][:29], reduced.bases.hidden[1]))
    square = ld.factorization(np.eye(3))
    whole = ld.reduce(ld.init.deep_balanced(square, np.eye(3), (8, 8)), square)
    assert whole.frozen_product(square) is None
    assert jnp.all(ld.observables.frozen_product_norm(whole, square) == 0)


@pytest.mark.parametrize("move", [False, True], ids=["found", "moved"])
def test_a_small_mode_of_single_precision_is_no_round_off(move, rng):
    frames = [np.linalg.qr(rng.normal(size=(30, 2)))[0] for _ in range(2)]
    ends = np.diag([1.0, 1e-4])
    layers = (ends @ frames[0].T, frames[0] @ frames[1].T, frames[1] @ ends)
    start = ld.DeepLinear([W.astype(np.float32) for W in layers])
    problem = ld.factorization(np.diag([1.0, 2.0]).astype(np.float32))
    assert [S.shape[1] for S in ld.find_subspaces(start, problem)] == [2, 2]
    if not move:
        return
    # A second mode that is dropped leaves a loss of 2.
    out = ld.gradient_flow(start, problem, np.array([20.0], np.float32), solver="tsit5")
    assert float(out.observables["loss"][-1]) < 1e-6
