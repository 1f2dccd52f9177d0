"""The penalty on the imbalance: its gradient, the Riccati equation it brings about, what it keeps and what it refuses."""

import inspect

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import load_cases, relative_error, tolerance
from scipy.linalg import expm

import lindyn_jax as ld

N, n, m, h = 4, 5, 2, 6
TIMES = np.array([0.1, 0.6])
FINE = {"rtol": 1e-12, "atol": 1e-14}
CASES = load_cases("t21")


@pytest.fixture
def problem(rng):
    """Data of rank 4 < n, with a loss scale and an output scale."""
    return ld.LeastSquares(rng.normal(size=(N, n)), rng.normal(size=(N, m)), scale="mean", output_scale=0.7)


def start_of(rng, width=h, inputs=n, dtype=np.float64):
    return ld.TwoLayer(
        (0.6 * rng.normal(size=(inputs, width))).astype(dtype), (0.6 * rng.normal(size=(m, width))).astype(dtype)
    )


def symmetric(rng, size=h):
    A = rng.normal(size=(size, size))
    return A + A.T


def imbalance_of(model, problem):
    """D at size h x h, as it is written."""
    U1, V = np.asarray(problem.to_data(model.U)), np.asarray(model.V)
    return U1.T @ U1 - V.T @ V


def dense_total(model, problem, Lambda, weight):
    """The penalized loss from the definitions, at size h x h."""
    U1 = problem.to_data(model.U)
    target = Lambda * jnp.eye(model.V.shape[1], dtype=model.V.dtype) if jnp.ndim(Lambda) == 0 else Lambda
    return problem.loss(model.product()) + weight * jnp.sum((U1.T @ U1 - model.V.T @ model.V - target) ** 2)


# -- the term ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["number", "matrix"])
@pytest.mark.parametrize("width", [3, 6, 9])
def test_the_velocity_is_minus_the_gradient_of_loss_and_penalty(kind, width, dtype, rng):
    # Widths below the rows of a layer, between, and above r + m: the three ways in which the gradient is computed.
    X, Y = rng.normal(size=(N, n)).astype(dtype), rng.normal(size=(N, m)).astype(dtype)
    plain = ld.LeastSquares(X, Y, scale="mean", output_scale=0.7)
    Lambda, weight = (1.3 if kind == "number" else symmetric(rng, width)), 0.3
    problem, start = plain.regularized(Lambda, weight), start_of(rng, width, dtype=dtype)
    Lambda = jnp.asarray(Lambda, dtype)

    @jax.jit
    def both(start):
        total, gradient = jax.value_and_grad(dense_total)(start, plain, Lambda, weight)
        observed = ld.observables.total_loss(start, problem), ld.observables.loss(start, problem)
        return start.velocity(problem), gradient, observed, (total, plain.loss(start.product()))

    velocity, gradient, observed, expected = both(start)
    for got, wanted in zip(jax.tree.leaves(velocity), jax.tree.leaves(gradient), strict=True):
        assert got.dtype == dtype
        assert relative_error(got, -wanted) < tolerance(dtype, 10)
    assert relative_error(np.array(observed), np.array(expected)) < tolerance(dtype, 10)


@pytest.mark.parametrize("width", [3, 6, 40])
def test_the_reduced_form_moves_and_weighs_as_the_full_network(width, problem, rng):
    regularized, start = problem.regularized(-0.8, 0.2), start_of(rng, width)
    reduced = ld.reduce(start, regularized)
    small, full = reduced.velocity(regularized), start.velocity(regularized)
    Q = reduced.bases.hidden[0]
    columns = np.eye(width) if Q is None else np.asarray(Q)
    assert relative_error(small.V @ columns.T, full.V) < tolerance("float64", 10)
    assert relative_error(reduced.bases.Phi1 @ small.U1 @ columns.T, full.U) < tolerance("float64", 10)
    expected = 0.2 * np.sum((imbalance_of(start, problem) + 0.8 * np.eye(width)) ** 2)
    for model in (start, reduced):
        assert relative_error(ld.observables.penalty(model, regularized), expected) < tolerance("float64", 10)


def test_the_penalty_counts_the_width_and_not_the_columns(problem, rng):
    regularized = problem.regularized(0.9)
    start = start_of(rng, 3)
    core = ld.reduce(start, regularized)
    padded = ld.Reduction(ld.TwoLayer(np.pad(core.U1, ((0, 0), (0, 2))), np.pad(core.V, ((0, 0), (0, 2)))), 3, 1)
    expected = ld.observables.penalty(start, regularized)
    assert relative_error(ld.observables.penalty(padded, regularized), expected) < tolerance("float64")
    assert np.all(np.asarray(padded.velocity(regularized).V)[:, 3:] == 0)
    # A million directions more without weights: each is 0.9 away from its target.
    wide = ld.Reduction(ld.TwoLayer(core.U1, core.V), 1_000_003, 1)
    assert relative_error(ld.observables.penalty(wide, regularized), expected + 1e6 * 0.81 / 8) < tolerance("float64")


def test_a_problem_has_no_penalty_until_it_is_given_one(problem, rng):
    assert problem.penalty is None and problem.plain is problem
    start = start_of(rng)
    assert float(ld.observables.penalty(start, problem)) == 0
    both = problem.regularized(2.0).plain.regularized(symmetric(rng), 0.4)
    assert both.plain is problem and both.penalty is both and both.weight_decay is None
    assert not both.imbalance.is_isotropic and float(both.imbalance.weight) == 0.4
    assert problem.regularized(1).imbalance.is_isotropic
    small = ld.factorization(np.ones((2, 3), np.float32)).regularized(1.0)
    assert small.imbalance.Lambda.dtype == small.imbalance.weight.dtype == np.float32


def test_the_penalty_does_not_change_how_fast_the_loss_falls(problem, rng):
    for Lambda in (1.7, symmetric(rng)):
        regularized, start = problem.regularized(Lambda, 2.0), start_of(rng)
        _, fall = jax.jvp(lambda model: problem.loss(model.product()), (start,), (start.velocity(regularized),))
        excess = ld.observables.excess_loss(start, problem)
        rate = ld.theory.instantaneous_rate(start, problem)
        assert relative_error(-fall / excess, rate) < tolerance("float64", 10)


# -- reference values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["flow12_2x3_k4", "reg26_LambdaEqQ0"])
def test_reference_integrations_are_reproduced(name, dtype):
    case = CASES[name]
    inputs, expected = case["inputs"], case["expected"]
    Y, U, V = (np.array(inputs[key], dtype) for key in ("Y", "U0", "V0"))
    problem = ld.factorization(Y)
    if inputs["Lambda"] is not None:
        problem = problem.regularized(np.array(inputs["Lambda"], dtype))
    options = FINE if dtype == np.float64 else {"rtol": 2e-6, "atol": 1e-7}
    start = ld.TwoLayer(U, V)
    out = ld.gradient_flow(start, problem, np.array(case["times"], dtype), keep_models=True, **options)
    # The integrator's tolerance a step, over some tens of steps.
    limit = 1e-10 if dtype == np.float64 else 1e-4
    assert out.models.U.dtype == dtype
    assert relative_error(out.models.U, expected["U"]) < limit
    assert relative_error(out.models.V, expected["V"]) < limit
    assert relative_error(out.models.U @ jnp.swapaxes(out.models.V, 1, 2), expected["X"]) < limit
    imbalances = [imbalance_of(ld.TwoLayer(*pair), problem) for pair in zip(out.models.U, out.models.V, strict=True)]
    assert relative_error(imbalances, expected["Q"]) < limit


# -- the Riccati equation ------------------------------------------------------------------------------------------------


def riccati(A, g, P0, t):
    """P' = A P + P A - g P^2 as the quotient of a linear system of twice the size."""
    size = len(A)
    system = np.block([[-A, g * np.eye(size)], [np.zeros((size, size)), A]])
    solution = expm(t * system) @ np.concatenate([np.eye(size), P0])
    return solution[size:] @ np.linalg.inv(solution[:size])


def test_the_gram_matrix_solves_a_riccati_equation_at_the_one_weight(rng):
    Y, start = rng.normal(size=(3, m)), start_of(rng, inputs=3)
    R0 = np.concatenate([start.U, start.V])

    @jax.jit
    @jax.vmap
    def gram(q, c, level, weight):
        problem = ld.factorization(Y, scale=q, output_scale=c).regularized(level, weight)
        models = ld.gradient_flow(start, problem, TIMES, keep_models=True, rtol=1e-11, atol=1e-13).models
        R = jnp.concatenate([models.U, models.V], axis=1)
        return R @ jnp.swapaxes(R, 1, 2)

    settings = [(q, c, level) for q, c in ((1.0, 1.0), (0.4, 1.5)) for level in (1.2, 0.0, -2.0)]
    q, c, level = jnp.array(settings).T
    at_the_weight, elsewhere = gram(q, c, level, q * c**2 / 8), gram(q, c, level, q * c**2 / 4)
    for (q, c, level), value, other in zip(settings, at_the_weight, elsewhere, strict=True):
        A = q * np.block([[c**2 * level / 2 * np.eye(3), c * Y], [c * Y.T, -(c**2) * level / 2 * np.eye(m)]])
        expected = np.stack([riccati(A, q * c**2, R0 @ R0.T, t) for t in TIMES])
        # Closed form against the integrator at 1e-11.
        assert relative_error(value, expected) < 1e-9
        assert relative_error(other, expected) > 1e-3


@pytest.mark.parametrize("kind", ["number", "matrix"])
def test_the_imbalance_moves_by_the_identity_of_the_paper(kind, problem, rng):
    Lambda = 0.7 if kind == "number" else symmetric(rng)
    start = start_of(rng)
    U1, V = problem.to_data(start.U), start.V
    M = imbalance_of(start, problem) - (Lambda * np.eye(h) if kind == "number" else Lambda)
    G = U1.T @ U1 + V.T @ V
    for weight in (1 / 8, 0.5):
        regularized = problem.regularized(Lambda, weight)

        def imbalance(model):
            U1 = problem.to_data(model.U)
            return U1.T @ U1 - model.V.T @ model.V

        _, moved = jax.jvp(imbalance, (start,), (start.velocity(regularized),))
        assert relative_error(moved, -8 * weight * (M @ G + G @ M) / 2) < tolerance("float64", 10)
        stated = regularized.imbalance.imbalance_velocity(U1, V)
        assert relative_error(stated, moved) < tolerance("float64", 10)


def test_on_the_manifold_the_flow_is_the_plain_one_for_every_weight(problem, rng):
    start = start_of(rng)
    D = imbalance_of(start, problem)
    plain = ld.gradient_flow(start, problem, TIMES, keep_models=True, **FINE)

    @jax.jit
    def at(weight, shift):
        regularized = problem.regularized(D + shift * jnp.eye(h), weight)
        return ld.gradient_flow(start, regularized, TIMES, keep_models=True, observables=("imbalance_drift",), **FINE)

    for weight in (0.05, 1 / 8, 3.0):
        out = at(weight, 0.0)
        # Two integrations at 1e-12 a step.
        assert relative_error(out.models.U, plain.models.U) < 1e-10
        assert relative_error(out.models.V, plain.models.V) < 1e-10
        assert float(jnp.max(out.observables["imbalance_drift"])) < 1e-10
    off = at(3.0, 0.5)
    assert relative_error(off.models.U, plain.models.U) > 1e-2
    assert float(jnp.max(off.observables["imbalance_drift"])) > 1e-2


def test_the_imbalance_is_driven_to_its_target_where_that_can_be_reached(rng):
    Y, start = rng.normal(size=(3, m)), start_of(rng, 2, 3)

    @jax.jit
    def end(level):
        problem = ld.factorization(Y).regularized(level)
        out = ld.gradient_flow(start, problem, np.array([60.0]), observables=("penalty",))
        return out.final_observables["penalty"], ld.observables.imbalance_spectrum(out.final, problem)

    # h <= n for a positive level, h <= m for a negative one.
    for level in (1.5, -1.5):
        penalty, spectrum = end(level)
        assert relative_error(spectrum, [level, level]) < 1e-8
        assert float(penalty) < 1e-16


# -- solvers -------------------------------------------------------------------------------------------------------------


def test_the_flow_is_the_same_at_reduced_and_full_size(problem, rng):
    regularized, start = problem.regularized(1.1, 0.2), start_of(rng, 40)
    small, full = (
        ld.gradient_flow(start, regularized, TIMES, reduce=reduce, observables=("penalty",), rtol=1e-11, atol=1e-13)
        for reduce in (True, False)
    )
    assert relative_error(small.final.U, full.final.U) < 1e-10
    assert relative_error(small.observables["penalty"], full.observables["penalty"]) < 1e-10


def test_a_matrix_target_is_moved_in_full_size_without_being_asked(problem, rng):
    regularized, start = problem.regularized(symmetric(rng, 9), 0.05), start_of(rng, 9)
    assert ld.reduction.is_reducible(start, problem) and not ld.reduction.is_reducible(start, regularized)
    # Adam, which the reduction refuses, runs: nothing is reduced.
    out = ld.gradient_descent(start, regularized, 20, optimizer=optax.adam(0.01), observables=("total_loss",))
    assert float(out.observables["total_loss"][-1]) < float(out.observables["total_loss"][0])


@pytest.mark.parametrize(("kind", "width"), [("number", 40), ("matrix", 6)])
def test_a_descent_step_follows_loss_and_penalty(kind, width, problem, rng):
    # The first is moved in its reduced form.
    Lambda = jnp.asarray(0.4 if kind == "number" else symmetric(rng, width))
    regularized, start = problem.regularized(Lambda, 0.1), start_of(rng, width)
    gradient = jax.jit(jax.grad(dense_total))(start, problem, Lambda, 0.1)
    out = ld.gradient_descent(start, regularized, 1, optimizer=ld.plain_descent(0.001), observables=("total_loss",))
    assert relative_error(out.final.U, start.U - 0.001 * gradient.U) < tolerance("float64", 10)
    assert relative_error(out.final.V, start.V - 0.001 * gradient.V) < tolerance("float64", 10)
    before, after = (dense_total(model, problem, Lambda, 0.1) for model in (start, out.final))
    assert relative_error(out.observables["total_loss"], np.array([before, after])) < tolerance("float64", 10)
    assert after < before


def final_product(start, problem, Lambda, **options):
    regularized = problem.regularized(Lambda, 0.2)
    return ld.gradient_flow(start, regularized, np.array([0.4]), rtol=1e-11, atol=1e-13, **options).final.product()


@pytest.mark.parametrize("kind", ["number", "matrix"])
def test_targets_form_a_batch_and_derivatives_with_respect_to_them_are_exact(kind, problem, rng):
    start, A, B = start_of(rng), symmetric(rng), symmetric(rng)
    target = (lambda x: x) if kind == "number" else (lambda x: A + x * B)

    def value(x, **options):
        product = final_product(start, problem, target(x), **options)
        return jnp.sum(jnp.sin(product)), product

    def reverse(x):
        (number, product), slope = jax.value_and_grad(value, has_aux=True)(x)
        return number, product, slope

    def forward(x):
        number, slope, product = jax.jvp(lambda x: value(x, adjoint=diffrax.ForwardMode()), (x,), (1.0,), has_aux=True)
        return number, product, slope

    at, step = 0.3, 1e-5
    xs = jnp.array([-2.0, at - step, at, at + step])
    values, products, slopes = jax.jit(jax.vmap(reverse if kind == "number" else forward))(xs)
    difference = float(values[3] - values[1]) / (2 * step)
    # The integrator's 1e-11 over the step, and step^2.
    assert abs(slopes[2]) > 1e-3 and abs(slopes[2] - difference) < 1e-6 * max(1, abs(difference))
    assert relative_error(products[0], products[2]) > 1e-2


# -- refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((np.ones(3),), r"number or a symmetric matrix .* has shape \(3,\); .* `jnp.diag\(a\)`"),
        ((np.ones((2, 3)),), r"has shape \(2, 3\)"),
        ((np.array([[0.0, 1.0], [0.0, 0.0]]),), r"must be symmetric, .* pass `\(Lambda \+ Lambda.T\) / 2`"),
        ((np.nan,), "`Lambda` must be finite"),
        ((1.0, -0.1), "`weight` must be a finite number of at least 0, but is -0.1"),
        ((1.0, np.inf), "`weight` must be a finite number"),
        ((1.0, np.ones(2)), r"`weight` must be a number, but has shape \(2,\)"),
    ],
)
def test_bad_penalties_are_refused(arguments, match):
    kind = ld.ImbalancePenalty
    with pytest.raises(ValueError, match=match):
        inspect.unwrap(kind.__init__)(object.__new__(kind), *arguments)


def test_models_that_have_no_such_penalty_are_refused(problem, rng):
    regularized, matrix = problem.regularized(1.0), problem.regularized(symmetric(rng))
    linear = ld.LinearModel(np.ones((n, m)))
    for act in (
        lambda: ld.gradient_flow(linear, regularized, np.array([1.0])),
        lambda: ld.gradient_descent(linear, regularized, 3, optimizer=ld.plain_descent(0.1)),
        lambda: linear.velocity(regularized),
        lambda: ld.observables.penalty(linear, regularized),
    ):
        with pytest.raises(ValueError, match="two-layer models, but the model is a LinearModel"):
            act()
    tied, square = ld.SymmetricFactors(np.eye(3)), ld.factorization(np.eye(3)).regularized(1.0)
    with pytest.raises(ValueError, match="but the model is a SymmetricFactors"):
        ld.gradient_flow(tied, square, np.array([1.0]))
    core = ld.reduce(start_of(rng), problem)
    for act in (
        lambda: ld.reduce(start_of(rng), matrix),
        lambda: ld.gradient_flow(core, matrix, np.array([1.0])),
        lambda: core.velocity(matrix),
        lambda: ld.observables.penalty(core, matrix),
    ):
        with pytest.raises(ValueError, match="not exact for a penalty whose Lambda is a matrix"):
            act()
    with pytest.raises(
        ValueError, match=r"Lambda of shape \(6, 6\), but the model has width 7: pass one of shape \(7, 7\)"
    ):
        ld.gradient_flow(start_of(rng, 7), matrix, np.array([1.0]))
    with pytest.raises(ValueError, match="about the loss alone, but the problem has a penalty on the imbalance"):
        ld.stable_step(start_of(rng), regularized)


def test_statements_on_paths_of_the_plain_flow_are_refused(problem, rng):
    regularized, start = problem.regularized(1.0), start_of(rng)
    theory = ld.theory
    for act in (
        lambda: theory.loss_bound(start, regularized, jnp.array(TIMES)),
        lambda: theory.corollary4(start, regularized),
        lambda: theory.corollary5(start, regularized),
        lambda: theory.corollary6(start, regularized, jnp.array(TIMES), 0.0),
        lambda: theory.local_rate(start, regularized),
        lambda: theory.growth_bound(start, regularized),
        lambda: theory.coupling_bound(start, regularized),
        lambda: theory.theorem12(regularized, 100.0, 0.5, 0.1),
        lambda: theory.sharp_distance(regularized, 100.0, 0.5),
        lambda: theory.ntk_rescaling(start, regularized, 0.5),
    ):
        kind = "must be an? (LeastSquares|OutputProblem), but is a Penalised"
        with pytest.raises(ValueError, match=kind + "|pass its `plain`"):
            act()


def test_a_penalized_problem_passes_through_transformations(problem):
    regularized = problem.regularized(1.0)
    leaves, tree = jax.tree.flatten(regularized)
    again = jax.tree.unflatten(tree, leaves)
    assert float(again.imbalance.Lambda) == 1.0
    batch = eqx.filter_vmap(lambda level: problem.regularized(level))(jnp.arange(3.0))
    assert batch.imbalance.Lambda.shape == (3,)
