"""Terms on the weights around any problem: what they are, what the dynamics makes of them, and who refuses them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import relative_error, tolerance

import lindyn_jax as ld

N, n, m, BETA = 5, 6, 3, 0.2
TIMES = np.array([0.4, 2.0])
KIND = "must be a LeastSquares, but is a Penalised"
KINDS = ("least-squares", "completion", "softmax", "custom")


class Diagonal(ld.AbstractModel):
    """A network of one's own."""

    u: jax.Array
    v: jax.Array

    def product(self):
        return (self.u * self.v)[:, None] * jnp.ones(m)


def problem_of(kind):
    """A loss of 6 inputs; least squares and softmax see four directions of them."""
    rng = np.random.default_rng(5)
    X, Y = rng.normal(size=(N, 4)) @ rng.normal(size=(4, n)), rng.normal(size=(N, m))
    target = rng.normal(size=(n, m))
    return {
        "least-squares": lambda: ld.LeastSquares(X, Y, scale="mean"),
        "completion": lambda: ld.MatrixCompletion(target, np.add.outer(np.arange(n), np.arange(m)) % 3 > 0),
        "softmax": lambda: ld.Softmax(X, np.arange(N) % m, scale="mean"),
        "custom": lambda: ld.CustomProblem(lambda Theta: jnp.sum(jnp.log(jnp.cosh(Theta - target))), n, m),
    }[kind]()


def network_of(kind, width=12):
    rng = np.random.default_rng(6)
    U, V = 0.5 * rng.normal(size=(n, width)), 0.5 * rng.normal(size=(m, width))
    return {
        "two": lambda: ld.TwoLayer(U, V),
        "deep": lambda: ld.DeepLinear((U[:, :4], 0.5 * rng.normal(size=(4, 5)), V[:, :5].T)),
        "one": lambda: ld.LinearModel(U[:, :m]),
        "own": lambda: Diagonal(jnp.asarray(U[:, 0]), jnp.asarray(U[:, 1])),
    }[kind]()


def total(model, problem, decay, imbalance=None):
    """What is descended, from the definitions."""
    value = problem.loss(model.product()) + decay / 2 * sum(jnp.sum(W**2) for W in jax.tree.leaves(model))
    if imbalance is None:
        return value
    U1 = problem.to_data(model.U)
    D = U1.T @ U1 - model.V.T @ model.V
    return value + imbalance.weight * jnp.sum((D - imbalance.Lambda * jnp.eye(len(D))) ** 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("network", ["two", "deep", "one", "own"])
def test_the_velocity_is_minus_the_gradient_of_loss_and_terms(kind, network):
    problem, model = problem_of(kind), network_of(network)
    imbalance = ld.ImbalancePenalty(0.7, 0.1) if network == "two" else None

    @jax.jit
    def both(model):
        penalised = ld.Penalised(problem, weight_decay=BETA, imbalance=imbalance)
        value, gradient = jax.value_and_grad(total)(model, problem, BETA, imbalance)
        observed = ld.observables.total_loss(model, penalised)
        return model.velocity(penalised), gradient, (observed, value), (ld.observables.loss(model, penalised),)

    velocity, gradient, values, (loss,) = both(model)
    for got, wanted in zip(jax.tree.leaves(velocity), jax.tree.leaves(gradient), strict=True):
        assert relative_error(got, -wanted) < tolerance("float64", 10)
    assert relative_error(*values) < tolerance("float64", 10)
    assert relative_error(loss, problem.loss(model.product())) < tolerance("float64", 10)


def imbalance_of(model, problem):
    """D of a network in the user's own form."""
    U1 = problem.to_data(model.U)
    return U1.T @ U1 - model.V.T @ model.V


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind in ("completion", "softmax") else pytest.mark.slow) for kind in KINDS]
)
def test_under_weight_decay_the_imbalance_decays_by_itself_at_any_size(kind):
    # At the reduced size alone where the rows that the data do not see are none.
    penalised, start = ld.Penalised(problem_of(kind), weight_decay=BETA), network_of("two")
    observables = {"D": imbalance_of, "total": "total_loss", "loss": "loss", "left": "frozen_product_norm"}
    small, *others = (
        ld.gradient_flow(start, penalised, TIMES, observables=observables, rtol=1e-11, reduce=reduce, solver="tsit5")
        for reduce in ((True,) if kind == "completion" else (True, False))
    )
    D = np.asarray(imbalance_of(start, penalised))
    for path in (small, *others):
        assert bool(path.ok)
        assert relative_error(path.observables["D"], np.exp(-2 * BETA * TIMES)[:, None, None] * D) < 1e-9
    if not others:
        return
    (full,) = others
    for name in observables:
        assert relative_error(small.observables[name], full.observables[name]) < 1e-9
    # Rows that the data do not see decay with the others.
    assert relative_error(small.final.U, full.final.U) < 1e-9
    frozen = start.frozen_rows(penalised)[0]
    assert relative_error(small.final.frozen_rows(penalised)[0], np.exp(-BETA * TIMES[-1]) * frozen) < 1e-9


def test_the_decay_of_the_imbalance_is_differentiated():
    problem = problem_of("softmax")
    start = ld.reduce(network_of("two"), problem)

    def trace(beta):
        penalised = ld.Penalised(problem, weight_decay=beta)
        final = ld.gradient_flow(start, penalised, TIMES, rtol=1e-11, solver="dopri8").final
        return jnp.trace(imbalance_of(ld.TwoLayer(final.U1, final.V), ld.factorization(np.eye(4, m))))

    value, slope = jax.jit(jax.value_and_grad(trace))(BETA)
    assert relative_error(slope, -2 * TIMES[-1] * value) < 1e-8
    assert abs(float(value)) > 1e-2


@pytest.mark.parametrize("kind", ["completion", "softmax"])
def test_descent_is_the_same_at_any_size(kind):
    problem, start = problem_of(kind), network_of("two")
    penalised = ld.Penalised(problem, weight_decay=BETA)
    observables = ("total_loss", "loss")
    optimizer = optax.sgd(0.05, momentum=0.9)
    small, full = (
        ld.gradient_descent(start, penalised, 20, optimizer=optimizer, reduce=reduce, observables=observables)
        for reduce in (True, False)
    )
    for got, wanted in zip(jax.tree.leaves(small.final), jax.tree.leaves(full.final), strict=True):
        assert relative_error(got, wanted) < tolerance("float64", 10)
    for name in observables:
        assert relative_error(small.observables[name], full.observables[name]) < tolerance("float64", 10)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["completion", "softmax"])
def test_the_decay_of_weights_of_an_optimizer_is_that_of_plain_descent(kind):
    problem, start = problem_of(kind), network_of("two")
    penalised = ld.Penalised(problem, weight_decay=BETA)
    one = ld.gradient_descent(start, penalised, 1, optimizer=ld.plain_descent(0.1)).final
    other = ld.gradient_descent(
        start, problem, 1, optimizer=optax.chain(optax.add_decayed_weights(BETA), optax.sgd(0.1))
    ).final
    for got, wanted in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert relative_error(got, wanted) < tolerance("float64")


def test_what_the_cores_of_deep_networks_leave_out_decays_with_them():
    # A middle layer with a part that neither end reaches, and rows that the data do not see.
    problem, rng = problem_of("softmax"), np.random.default_rng(3)
    A, B, C, D = (0.7 * rng.normal(size=size) for size in ((n, 2), (2, 2), (2, 2), (2, m)))
    zero = np.zeros((2, 2))
    start = ld.DeepLinear(
        (np.hstack([A, np.zeros((n, 2))]), np.block([[B, zero], [zero, C]]), np.vstack([D, np.zeros((2, m))]))
    )
    penalised = ld.Penalised(problem, weight_decay=BETA)
    reduced = ld.reduce(start, penalised)
    assert [part is None or float(part.norm) == 0 for part in reduced.rest] == [False, False, True]
    small, full = (
        ld.gradient_descent(
            start, penalised, 3, optimizer=ld.plain_descent(0.1), reduce=reduce, observables=("total_loss",)
        )
        for reduce in (True, False)
    )
    for got, wanted in zip(small.final.layers, full.final.layers, strict=True):
        assert relative_error(got, wanted) < tolerance("float64", 10)
    assert relative_error(small.observables["total_loss"], full.observables["total_loss"]) < tolerance("float64", 10)
    # And so in the flow.
    later = reduced.with_core(reduced.core, penalised.remainder(jnp.asarray(2.0))).lift()
    assert relative_error(later.layers[1][2:, 2:], np.exp(-2 * BETA) * C) < tolerance("float64")


def test_weight_decay_ends_at_the_target_less_the_decay():
    # The limit of a balanced start: singular values (sigma - beta)_+, and none is lost to round-off on the long way there.
    Y = np.diag([2.0, 1.0, 0.1])
    problem = ld.factorization(Y)
    penalised, start = ld.Penalised(problem, weight_decay=BETA), ld.init.balanced(problem, np.diag([0.1, 0.2, 0.3]), 3)
    path = ld.gradient_flow(start, penalised, [300.0], observables=("singular_values",), solver="tsit5")
    assert bool(path.ok)
    assert relative_error(path.observables["singular_values"][-1], [1.8, 0.8, 0.0]) < 1e-8


@pytest.mark.parametrize("level", [pytest.param(None, marks=pytest.mark.slow), 0.6])
def test_weight_decay_is_a_riccati_flow(level):
    # From a balanced start, or from any with the penalty of weight 1/8: A less the decay.
    rng = np.random.default_rng(2)
    Y = rng.normal(size=(3, 2))
    problem = ld.factorization(Y)
    start = ld.init.balanced(problem, 0.3 * rng.normal(size=(3, 2)), 4)
    if level is not None:
        start = ld.TwoLayer(rng.normal(size=(3, 4)), rng.normal(size=(2, 4)))
    imbalance = None if level is None else ld.ImbalancePenalty(level)
    penalised = ld.Penalised(problem, weight_decay=BETA, imbalance=imbalance)
    end = ld.gradient_flow(start, penalised, [1.5], rtol=1e-11, solver="tsit5", observables=()).final
    Z0, Z = (np.concatenate([model.U, model.V]) for model in (start, end))
    half = (level or 0.0) / 2
    A = np.block([[(half - BETA) * np.eye(3), Y], [Y.T, (-half - BETA) * np.eye(2)]])
    L = np.asarray(jax.jit(ld.exact.riccati)(A, 1.0, Z0, 1.5))
    assert relative_error(Z @ Z.T, L @ L.T) < 1e-9


def test_the_problem_inside_says_where_a_run_stops_and_is_restricted():
    problem = problem_of("least-squares")
    penalised = ld.Penalised(problem, weight_decay=0.01)
    small, frame = penalised.restrict()
    assert small.plain.num_inputs == 4 == penalised.rank and frame is problem.Phi1 and small.weight_decay == 0.01
    start = network_of("two")
    path = ld.gradient_flow(start, penalised, [1e3], stop=0.5, observables=("excess_loss",), solver="tsit5")
    ratio = path.final_observables["excess_loss"] / ld.observables.excess_loss(start, problem)
    assert int(path.result) == ld.trajectory.STOPPED and 0.4 < float(ratio) <= 0.5


def test_what_knows_the_loss_alone_refuses_terms():
    problem, start, theory = problem_of("least-squares"), network_of("two"), ld.theory
    decaying = ld.Penalised(problem, weight_decay=BETA)
    both = ld.Penalised(problem, weight_decay=BETA, imbalance=ld.ImbalancePenalty(1.0))
    tied = ld.SymmetricFactors(np.eye(3))
    wide = ld.WideLimit(np.ones((n, m)), 1.0)

    class Frozen(Diagonal):
        is_gradient_flow = True

        def velocity(self, problem):
            return jax.tree.map(jnp.zeros_like, self)

    own = Frozen(jnp.ones(n), jnp.ones(n))
    flow = ld.gradient_flow
    for act, match in (
        (lambda: flow(start, decaying, TIMES, solver="radau"), "the problem has weight decay: use 'auto'"),
        (lambda: flow(start, both, TIMES, solver="lie"), "has weight decay and a penalty on the imbalance"),
        (lambda: flow(wide, decaying, TIMES), "a WideLimit has a velocity of its own"),
        (lambda: wide.velocity(decaying), "a WideLimit has a velocity of its own"),
        (lambda: flow(own, decaying, TIMES), "a Frozen has a velocity of its own"),
        (lambda: flow(ld.Momentum(start, 0.1), decaying, TIMES), "a Momentum has a velocity of its own"),
        (lambda: flow(tied, ld.Penalised(ld.factorization(np.eye(3)), imbalance=both.imbalance), TIMES), "two-layer"),
        (lambda: ld.limit(start, decaying), "without a penalty, but the problem has weight decay"),
        (lambda: ld.exact.linear(decaying, np.ones((n, m)), TIMES), KIND),
        (lambda: theory.rate_bound(start, decaying), KIND),
        (lambda: theory.sharpness(start, both), KIND),
        (lambda: theory.descent_drift(start, decaying, 0.1), "conserves the imbalance, but the problem has weight"),
        (lambda: ld.stable_step(start, decaying), "`stable_step` is about the loss alone"),
        (lambda: ld.observables.OBSERVABLES["rate"](start, decaying), "kind LeastSquares, but the problem is of kind"),
        (lambda: theory.stationarity(start, ld.Penalised(problem_of("completion"), weight_decay=1.0)), "a Matrix"),
        (lambda: ld.studies.simulate(decaying), KIND),
        (lambda: ld.Penalised(decaying, weight_decay=1.0), "has terms on the weights already"),
        (lambda: ld.Penalised(problem), "Give a term on the weights"),
        (lambda: ld.Penalised(problem, weight_decay=-1.0), "finite number of at least 0, but is -1"),
        (lambda: ld.Penalised(problem, weight_decay=np.nan), "finite number of at least 0, but is nan"),
        (
            lambda: ld.observables.penalty(ld.Reduction(ld.TwoLayer(start.U[:4], start.V), 12, 2), decaying),
            "does not know the frozen part",
        ),
    ):
        with pytest.raises(ValueError, match=match):
            act()


def stopped():
    """The time and the network at which a flow stops, of a weight decay, reduced or not, with the data."""
    draws = np.random.default_rng(0)
    few = ld.LeastSquares(draws.normal(size=(3, 6)), draws.normal(size=(3, 2)))
    start = ld.TwoLayer(draws.normal(size=(6, 12)), draws.normal(size=(2, 12)))

    def end(beta, reduce=True):
        problem = ld.Penalised(few, weight_decay=beta)
        path = ld.gradient_flow(start, problem, [50.0], stop_gradient_norm=0.2, reduce=reduce, rtol=1e-10)
        return path.stats["final_time"], path.final

    return end, few


def test_a_stop_at_the_norm_of_the_gradient_counts_what_only_the_decay_moves():
    end, few = stopped()
    (reduced, final), (full, _) = end(0.3), end(0.3, False)
    # Both end with the first step below, whose lengths differ.
    velocity = final.velocity(ld.Penalised(few, weight_decay=0.3))
    assert 0.19 < np.sqrt(sum(jnp.sum(W**2) for W in velocity.layers)) <= 0.2
    np.testing.assert_allclose(reduced, full, rtol=2e-2)


@pytest.mark.slow
def test_the_time_of_such_a_stop_has_one_derivative_at_both_sizes():
    end, _ = stopped()
    slopes = [jax.grad(lambda beta, r=r: end(beta, r)[0])(0.3) for r in (True, False)]
    np.testing.assert_allclose(*slopes, rtol=5e-2)
