"""The reduction is exact, comes back, and knows the optimizers for which it is not."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import load_cases, relative_error, tolerance

import lindyn_jax as ld

N, n, m = 5, 14, 2
SGD = optax.sgd(0.01)
PLAIN = {
    "descent": SGD,
    "heavy ball": optax.sgd(0.01, momentum=0.9),
    "Nesterov": optax.sgd(0.01, momentum=0.9, nesterov=True),
    "weight decay": optax.chain(optax.add_decayed_weights(0.3), optax.sgd(0.01)),
    "decay and clipping": optax.chain(optax.add_decayed_weights(0.3), optax.clip_by_global_norm(0.5), optax.sgd(0.05)),
}


def scaled(factor):
    return optax.GradientTransformation(
        lambda params: optax.EmptyState(),
        lambda updates, state, params=None: (jax.tree.map(lambda g: -factor * g, updates), state),
    )


def elementwise(function):
    return optax.GradientTransformation(
        lambda params: optax.EmptyState(),
        lambda updates, state, params=None: (jax.tree.map(lambda g: -0.1 * function(g), updates), state),
    )


EXACT = {
    **PLAIN,
    "global norm": optax.chain(optax.clip_by_global_norm(1.0), SGD),
    "schedule": optax.sgd(optax.cosine_decay_schedule(0.1, 10)),
    "lars": optax.lars(0.1),
    "custom constant": scaled(0.1),
    "MultiSteps": optax.MultiSteps(SGD, 2).gradient_transformation(),
}
REFUSED = {
    "adam": optax.adam(0.01),
    "rmsprop": optax.rmsprop(0.01),
    "sign_sgd": optax.sign_sgd(0.01),
    "clip": optax.chain(optax.clip(1.0), SGD),
    "block rms": optax.chain(optax.clip_by_block_rms(1.0), SGD),
    "adagrad": optax.adagrad(0.01),
    "lion": optax.lion(0.01),
    "tanh": elementwise(jnp.tanh),
    "noise": optax.noisy_sgd(0.01, key=jax.random.key(0)),
}


@pytest.fixture
def problem(rng):
    return ld.LeastSquares(rng.normal(size=(N, n)), rng.normal(size=(N, m)))


def start_of(rng, h):
    return ld.TwoLayer(rng.normal(size=(n, h)) / np.sqrt(h), rng.normal(size=(m, h)) / np.sqrt(h))


# -- exactness -----------------------------------------------------------------------------------------------------------


# Every optimizer at one width, and that which does most at the narrowest and the widest.
WIDTHS = [
    pytest.param(name, h, marks=() if h == 40 or name == "decay and clipping" else pytest.mark.slow)
    for name in PLAIN
    for h in (2, 40, 500)
]


@pytest.mark.parametrize(("name", "h"), WIDTHS)
def test_descent_is_the_same_at_reduced_and_full_size(name, h, problem, rng):
    start = start_of(rng, h)
    small, full = (
        ld.gradient_descent(
            start,
            problem,
            50,
            optimizer=PLAIN[name],
            reduce=reduce,
            observables=("loss", "frozen_product_norm", "singular_values", "distance_to_theta_hat"),
        )
        for reduce in (True, False)
    )
    # Rows and norm of what moves are compared with the weights' own size.
    assert relative_error(small.final.product(), full.final.product()) < tolerance("float64")
    assert relative_error(small.final.U, full.final.U) < tolerance("float64")
    assert relative_error(small.final.V, full.final.V) < tolerance("float64")
    for observable in full.observables:
        assert relative_error(small.observables[observable], full.observables[observable]) < tolerance("float64", 10)
    assert relative_error(full.final.product(), start.product()) > 1e-3


def test_flow_is_the_same_at_reduced_and_full_size(problem, rng):
    start = start_of(rng, 40)
    small, full = (
        ld.gradient_flow(start, problem, np.array([0.1, 0.5]), rtol=1e-12, atol=1e-14, reduce=reduce, keep_models=True)
        for reduce in (True, False)
    )
    # Two integrations with different error norms agree as their tolerances do.
    for name in ("U", "V"):
        assert relative_error(getattr(small.models, name), getattr(full.models, name)) < 1e-10
    assert relative_error(small.final.product(), full.final.product()) < 1e-10


def test_frozen_rows_stay_and_decay_exactly(problem, rng):
    start = start_of(rng, 40)
    decayed = ld.gradient_descent(start, problem, 50, optimizer=PLAIN["weight decay"]).final
    Phi1 = np.asarray(problem.Phi1)
    frozen = lambda U: np.asarray(U) - Phi1 @ (Phi1.T @ np.asarray(U))  # noqa: E731
    assert relative_error(frozen(decayed.U), (1 - 0.01 * 0.3) ** 50 * frozen(start.U)) < tolerance("float64")
    plain = ld.gradient_descent(start, problem, 50, optimizer=SGD).final
    assert relative_error(frozen(plain.U), frozen(start.U)) < tolerance("float64")


@pytest.mark.parametrize("h", [2, 7, 40])
def test_lift_undoes_reduce(h, problem, rng):
    start = start_of(rng, h)
    reduced = ld.reduce(start, problem)
    k = min(h, problem.rank + m)
    assert reduced.U1.shape == (problem.rank, k) and reduced.V.shape == (m, k)
    assert float(reduced.width) == h and float(reduced.num_frozen) == n - problem.rank
    back = ld.lift(reduced)
    assert relative_error(back.U, start.U) < tolerance("float64")
    assert relative_error(back.V, start.V) < tolerance("float64")


@pytest.mark.parametrize("h", [2, 40])
def test_reduced_observables_are_those_of_the_full_network(h, problem, rng):
    start = start_of(rng, h)
    observed = {
        name: function
        for name, function in ld.observables.OBSERVABLES.items()
        if not function.facts.needs_start and function.facts.refusal(start, problem) is None
    }
    values = eqx.filter_jit(lambda model: {name: function(model, problem) for name, function in observed.items()})
    full = values(start)
    for name, value in values(ld.reduce(start, problem)).items():
        assert relative_error(value, full[name]) < tolerance("float64", 10), name


def test_the_identity_design_reduces_the_width_alone(rng):
    problem = ld.factorization(rng.normal(size=(3, m)))
    start = ld.TwoLayer(rng.normal(size=(3, 30)), rng.normal(size=(m, 30)))
    reduced = ld.reduce(start, problem)
    assert (
        reduced.bases.Phi1 is None
        and reduced.bases.rest == (None, None)
        and reduced.frozen is None
        and reduced.V.shape == (m, 5)
    )
    assert relative_error(ld.lift(reduced).U, start.U) < tolerance("float64")


def test_reference_spectrum_survives_the_reduction():
    case = load_cases("m22")["spectrum_LtJL"]
    Z, r = np.array(case["inputs"]["Z0"]), case["inputs"]["r"]
    problem = ld.factorization(np.ones((r, 1)))
    start = ld.TwoLayer(Z[:r], Z[r:])
    expected = case["expected"]["eig_LtJL"]
    for model in (start, ld.reduce(start, problem)):
        spectrum = ld.observables.imbalance_spectrum(model, problem)
        assert relative_error(spectrum, expected) < tolerance("float64")


# -- optimizers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REFUSED)
def test_optimizers_that_look_at_entries_are_refused(name, problem, rng):
    start = start_of(rng, 40)
    with pytest.raises(ValueError, match=r"not exact for this optimizer .* Pass `reduce=False`"):
        ld.gradient_descent(start, problem, 3, optimizer=REFUSED[name])
    reduced = ld.reduce(start, problem)
    with pytest.raises(ValueError, match="has no full size to run at"):
        ld.gradient_descent(reduced, problem, 3, optimizer=REFUSED[name])


def test_adam_runs_at_full_size(problem, rng):
    start = start_of(rng, 8)
    optimizer = optax.adam(0.05)
    final = ld.gradient_descent(start, problem, 10, optimizer=optimizer, reduce=False).final
    params = (start.U, start.V)

    def loss(params):
        return problem.loss(params[0] @ params[1].T)

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for _ in range(10):
        params, state = step(params, state)
    # Adam divides by the square root of second moments: round-off in small entries grows.
    assert relative_error(final.U, params[0]) < tolerance("float64", 1e3)


def test_traced_hyperparameters_run_where_exact_and_are_refused_where_not(problem, rng):
    start = start_of(rng, 8)

    def final(make):
        return eqx.filter_jit(lambda rate: ld.gradient_descent(start, problem, 5, optimizer=make(rate)).final.product())

    expected = ld.gradient_descent(start, problem, 5, optimizer=SGD).final.product()
    assert relative_error(final(optax.sgd)(jnp.asarray(0.01)), expected) < tolerance("float64")
    with pytest.raises(ValueError, match="reduce=False"):
        final(optax.adam)(jnp.asarray(0.01))


# -- derivatives ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_derivatives_pass_through_the_reduction_and_equal_those_without_it(mode, problem, rng):
    start, direction = start_of(rng, 12), start_of(rng, 12)

    def value(size, reduce):
        moved = ld.TwoLayer(start.U + size * direction.U, start.V + size * direction.V)
        options = {"observables": ("loss", "frozen_product_norm"), "differentiate": mode}
        out = ld.gradient_descent(moved, problem, 20, optimizer=SGD, reduce=reduce, **options)
        return out.final_observables["loss"] + out.final_observables["frozen_product_norm"]

    def both(size, reduce):
        if mode == "forward":
            return jax.jvp(lambda size: value(size, reduce), (size,), (1.0,))
        return jax.value_and_grad(lambda size: value(size, reduce))(size)

    step = 1e-6
    values, slopes = jax.jit(jax.vmap(lambda size: both(size, True)))(jnp.asarray([-step, 0.0, step]))
    # Central difference: eps/step + step^2, about 1e-9.
    difference = float(values[2] - values[0]) / (2 * step)
    assert abs(difference - slopes[1]) < 1e-7 * abs(difference)
    if mode == "reverse":
        assert relative_error(slopes[1], jax.jit(lambda: both(0.0, False))()[1]) < tolerance("float64", 100)


def test_derivatives_at_balanced_starts_need_the_full_size(problem, rng):
    Theta = rng.normal(size=(n, m))
    start = ld.init.balanced(problem, Theta, 12, key=jax.random.key(0))
    direction = start_of(rng, 12)

    def value(size, reduce):
        moved = ld.TwoLayer(start.U + size * direction.U, start.V + size * direction.V)
        out = ld.gradient_descent(moved, problem, 10, optimizer=SGD, reduce=reduce)
        return out.final_observables["loss"] + jnp.sum(jnp.sin(out.final.V))

    with pytest.raises(ValueError, match="pass `reduce=False`"):
        jax.grad(lambda size: value(size, True))(jnp.asarray(0.0))
    assert np.isnan(jax.jit(jax.grad(lambda size: value(size, True)))(jnp.asarray(0.0)))
    slope = float(jax.jit(jax.grad(lambda size: value(size, False)))(0.0))
    step, function = 1e-6, jax.jit(lambda size: value(size, False))
    difference = (float(function(step)) - float(function(-step))) / (2 * step)
    assert abs(difference - slope) < 1e-7 * abs(difference)


def test_dependent_rows_are_seen_where_the_data_leave_out_outputs(rng):
    A = rng.normal(size=(6, n, m))
    A[:, :, 1:] = 0
    sensing = ld.MatrixSensing(A, rng.normal(size=6))
    start = start_of(rng, 12)
    assert ld.reduce(start, sensing).core.V.shape[0] == 1

    def value(size, V):
        moved = ld.TwoLayer(start.U + size, jnp.asarray(V) + size)
        out = ld.gradient_descent(moved, sensing, 3, optimizer=SGD, observables=(), differentiate="forward")
        return jnp.sum(out.final.V)

    slope = lambda V: jax.jvp(lambda size: value(size, V), (0.0,), (1.0,))[1]  # noqa: E731
    assert np.isfinite(slope(start.V))
    with pytest.raises(ValueError, match="pass `reduce=False`"):
        slope(np.broadcast_to(start.V[0], start.V.shape))


# -- refusals ------------------------------------------------------------------------------------------------------------


def test_a_reduced_network_is_refused_on_other_data_of_the_same_rank(problem, rng):
    other = ld.LeastSquares(rng.normal(size=problem.X.shape), problem.Y)
    again = ld.LeastSquares(problem.X * (1 + 1e-9), problem.Y + 1, scale="mean").regularized(0.5)
    for reduced in (
        ld.reduce(start_of(rng, 12), problem),
        ld.init.gaussian_core(problem, 1e9, std=0.1, key=jax.random.key(0)),
    ):
        for act in (
            lambda start: ld.observables.loss(start, other),
            lambda start: ld.gradient_flow(start, other, [1.0]),
            lambda start: ld.limit(start, other),
            lambda start: ld.theory.imbalance(start, other),
        ):
            with pytest.raises(ValueError, match="reduced to the coordinates of other data of the same rank"):
                act(reduced)
        # Other targets, scales and penalties leave the coordinates as they are.
        assert np.isfinite(ld.observables.total_loss(reduced, again))


def test_what_does_not_fit_is_refused(problem, rng):
    start = start_of(rng, 12)
    reduced = ld.reduce(start, problem)
    with pytest.raises(ValueError, match="does not fit the problem"):
        ld.reduce(ld.TwoLayer(np.ones((n + 1, 3)), np.ones((m, 3))), problem)
    other = ld.reduce(start_of(rng, 3), problem)
    with pytest.raises(ValueError, match=r"`core` has layers of shapes .* but the reduction is one to"):
        ld.lift(other, reduced.core)
    bare = ld.Reduction(ld.TwoLayer(reduced.U1, reduced.V), 12, n - N)
    with pytest.raises(ValueError, match="has no full size to go back to"):
        ld.lift(bare)
    with pytest.raises(ValueError, match="does not know the frozen part"):
        bare.frozen_product(problem)
