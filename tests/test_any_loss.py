"""Statements that hold for any loss of the product, each under every loss; those that need least squares, which refuse."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import integrated, relative_error
from test_losses import KINDS, m, make, n

import lindyn_jax as ld

theory, h, ts = ld.theory, 8, np.array([0.0, 1e-3, 0.2])
SHORT = ("logistic", "masked")
LOSSES = [pytest.param(kind, marks=() if kind in SHORT else pytest.mark.slow) for kind in KINDS if kind != "sensing"]


@functools.cache
def flow(kind):
    """A problem, states at three times by an independent integration, and the Jacobian-free losses there.

    The frozen rows of the start are orthogonal to the moving ones in the hidden layer, the five dimensions that these have.
    """
    rng = np.random.default_rng(5)
    problem = make(kind, scale=0.05)
    Q, _ = np.linalg.qr(rng.normal(size=(h, h)))
    U, V = (jnp.asarray(rng.normal(size=(size, 5)) @ Q[:, :5].T) for size in (n, m))
    if problem.num_frozen:
        U = problem.from_data(problem.to_data(U))
        outside = jnp.asarray(rng.normal(size=(n, 3)))
        U = U + (outside - problem.from_data(problem.to_data(outside))) @ Q[:, 5:].T
    gradient = jax.jit(lambda Theta: problem.loss_gradient(Theta))
    paths = integrated(lambda Theta: gradient(jnp.asarray(Theta)), U, V, ts)
    return problem, [ld.TwoLayer(*state) for state in zip(*map(jnp.asarray, paths), strict=True)]


def moving(problem, model):
    return np.concatenate([problem.to_data(model.U), model.V])


def D_of(problem, model):
    U1 = np.asarray(problem.to_data(model.U))
    return U1.T @ U1 - np.asarray(model.V).T @ np.asarray(model.V)


def descended(problem, model, eta):
    velocity = model.velocity(problem)
    return jax.tree.map(lambda weight, speed: weight + eta * speed, model, velocity)


def is_conserved(statement):
    def check(problem, states):
        first, last = (jax.tree.leaves(statement(model, problem)) for model in (states[0], states[-1]))
        # And it is a number that weights of another imbalance do not have.
        other = jax.tree.leaves(statement(ld.TwoLayer(states[0].U, 2 * states[0].V), problem))
        for a, b in zip(first, last, strict=True):
            assert relative_error(a, b) < 1e-9
        assert any(relative_error(a, b) > 1e-2 for a, b in zip(first, other, strict=True))

    return check


def has_the_bounds_of_lemma8(problem, states):
    for model in states:
        U1, V = np.asarray(problem.to_data(model.U)), np.asarray(model.V)
        bound = theory.lemma8(model, problem)
        assert 0 <= bound.first <= np.linalg.eigvalsh(U1 @ U1.T)[0] + 1e-12
        assert 0 < bound.second <= np.linalg.eigvalsh(V @ V.T)[0] + 1e-12


def drifts_by_a_step_as_it_says(problem, states):
    model, eta = states[-1], 1e-2
    after = descended(problem, model, eta)
    whole = (A - B for A, B in zip(theory.imbalances(after), theory.imbalances(model), strict=True))
    for A, B in zip(whole, theory.descent_drift(model, problem, eta), strict=True):
        assert np.linalg.norm(B) > 1e-9 and relative_error(A / eta**2, B / eta**2) < 1e-9
    change = (D_of(problem, after) - D_of(problem, model)) / eta**2
    drift = theory.drift_spectrum(model, problem, eta)
    values = np.linalg.eigvalsh(change)
    k = drift.spectrum.shape[0]
    expected = np.sort(values[np.argsort(-np.abs(values))[:k]])[::-1]
    assert relative_error(drift.spectrum / eta**2, expected) < 1e-9
    assert relative_error(drift.norm / eta**2, np.linalg.norm(change)) < 1e-9


def grows_as_it_says(problem, states):
    for model in states:
        Z1, speed = moving(problem, model), moving(problem, model.velocity(problem))
        found = theory.growth_rate(model, problem)
        assert relative_error(found.rate, 2 * np.sum(Z1 * speed)) < 1e-12
        assert abs(found.rate) <= found.bound * (1 + 1e-12)
        assert relative_error(found.bound, 2 * found.gradient_norm * np.sum(Z1**2)) < 1e-12


def travels_as_far_as_it_says(problem, states):
    start, losses = states[0], [problem.loss(model.product()) for model in states]
    for t, model, loss in zip(ts[1:], states[1:], losses[1:], strict=True):
        moved = np.sqrt(sum(np.sum((a - b) ** 2) for a, b in zip(model.layers, start.layers, strict=True)))
        tight, loose = (theory.travel_bound(start, problem, t, least) for least in (loss, loss - 1.0))
        assert bool(tight.applies) and moved <= tight.value * (1 + 1e-7) < loose.value
        # Of a short time it is how far.
        assert t > 1e-3 or tight.value < 1.01 * moved
    assert not bool(theory.travel_bound(start, problem, 1.0, losses[0] + 1.0).applies)


def stays_in_the_invariant_set(problem, states):
    assert all(bool(theory.invariant_set(model, problem, rtol=1e-9).applies) for model in states)
    coupling = theory.coupling(states[-1], problem)
    assert np.linalg.norm(coupling) < 1e-8 and coupling.shape[0] == problem.rank + m
    tilted = ld.TwoLayer(states[0].U + 0.1, states[0].V)
    assert bool(theory.invariant_set(tilted, problem).applies) == (problem.num_frozen == 0)


def has_as_many_laws_as_it_says(problem, states):
    rng, p = np.random.default_rng(0), problem.rank + m
    Z, signs = rng.normal(size=(p, h)), np.r_[np.ones(problem.rank), -np.ones(m)]
    rows = []
    for a, b in zip(*np.triu_indices(h), strict=True):
        K = np.zeros((h, h))
        K[a, b] = K[b, a] = 1
        rows.append((signs[:, None] * Z @ K).ravel())
    assert np.linalg.matrix_rank(np.array(rows)) == theory.num_conservation_laws(problem.rank, m, h)


def rescales_as_it_says(problem, states):
    if not isinstance(problem, ld.OutputProblem):
        with pytest.raises(ValueError, match=r"must be an? OutputProblem, but is a Matrix"):
            theory.ntk_rescaling(states[0], problem, 0.4)
        return
    scaled = theory.ntk_rescaling(states[0], problem, 0.4)
    assert relative_error(scaled.problem.loss(scaled.model.product()), problem.loss(states[0].product())) < 1e-12
    speed, own = scaled.model.velocity(scaled.problem), states[0].velocity(problem)
    assert relative_error(scaled.time_factor * speed.U, h**0.4 * own.U) < 1e-12


ANY_LOSS = {
    "imbalance": is_conserved(theory.imbalance),
    "spectrum_edges": is_conserved(theory.spectrum_edges),
    "moving_spectrum": is_conserved(theory.moving_spectrum),
    "balance": is_conserved(lambda model, problem: theory.balance(model, problem, 1.0).value),
    "imbalances": is_conserved(lambda model, problem: theory.imbalances(model)),
    "lemma8": has_the_bounds_of_lemma8,
    "descent_drift": drifts_by_a_step_as_it_says,
    "growth_rate": grows_as_it_says,
    "travel_bound": travels_as_far_as_it_says,
    "invariant_set": stays_in_the_invariant_set,
    "num_conservation_laws": has_as_many_laws_as_it_says,
    "ntk_rescaling": rescales_as_it_says,
}


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("statement", ANY_LOSS)
def test_statements_of_any_loss_hold_under_it(statement, kind):
    ANY_LOSS[statement](*flow(kind))


NEEDS_LEAST_SQUARES = (
    "convergence_constant",
    "corollary4",
    "corollary5",
    "corollary6",
    "coupling_bound",
    "growth_bound",
    "instantaneous_rate",
    "lemma7",
    "line_search",
    "local_rate",
    "loss_bound",
    "m22_theorem3",
    "margin",
    "rate_bound",
    "rate_spectrum",
    "sharpness",
    "stable_step",
    "stationarity",
    "stationary_point",
    "step_inequality",
    "step_polynomial",
    "theorem12",
    "tightness",
)
MORE = {
    "corollary6": (jnp.ones(1), 0.0),
    "loss_bound": (jnp.ones(1),),
    "m22_theorem3": (jnp.ones(1),),
    "step_inequality": (0.1,),
}


@pytest.mark.parametrize("kind", LOSSES)
def test_statements_on_least_squares_refuse_other_losses_in_one_sentence(kind):
    problem, states = flow(kind)
    for name in NEEDS_LEAST_SQUARES:
        arguments = (states[0], problem, *MORE.get(name, ()))
        if name == "theorem12":
            arguments = (problem, 100.0, 0.5, 0.1)
        with pytest.raises(ValueError, match=r"least squares|LeastSquares") as refusal:
            getattr(theory, name)(*arguments)
        assert type(problem).__name__ in str(refusal.value), name


def test_terms_on_the_weights_are_taken_where_the_state_alone_counts():
    plain, states = flow("logistic")
    problem = ld.Penalised(plain, weight_decay=0.1)
    for name in ("imbalance", "spectrum_edges", "moving_spectrum", "lemma8", "coupling", "invariant_set"):
        found, expected = (getattr(theory, name)(states[0], one) for one in (problem, plain))
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            assert np.array_equal(a, b), name
    for name, more in (
        ("descent_drift", (0.1,)),
        ("drift_spectrum", (0.1,)),
        ("growth_rate", ()),
        ("travel_bound", (1.0,)),
    ):
        with pytest.raises(ValueError, match=r"has weight decay: pass its `plain`"):
            getattr(theory, name)(states[0], problem, *more)
