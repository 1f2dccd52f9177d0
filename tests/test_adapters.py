"""Adapters, branches and merged linear attention: each is moved as the network that it is, written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import relative_error
from jaxtyping import TypeCheckError

import lindyn_jax as ld

DRAWS = np.random.default_rng(3)
X, Y = DRAWS.normal(size=(4, 5)), DRAWS.normal(size=(4, 2))
BASE, U, V = DRAWS.normal(size=(5, 2)), 0.3 * DRAWS.normal(size=(5, 9)), 0.3 * DRAWS.normal(size=(2, 9))
PROBLEM = ld.LeastSquares(X, Y, scale="mean", output_scale=1.5)
ADAPTER = ld.LoRA(BASE, U, V)
TIMES = np.array([0.3, 2.0])


def steps(loss, weights, eta, count):
    """Plain descent by automatic differentiation of a function of the weights."""
    move = lambda _, weights: jax.tree.map(lambda w, g: w - eta * g, weights, jax.grad(loss)(weights))  # noqa: E731
    return jax.tree.map(np.asarray, jax.jit(lambda weights: jax.lax.fori_loop(0, count, move, weights))(weights))


# -- adapters --------------------------------------------------------------------------------------------------------------


def test_adapters_move_as_networks_on_what_the_base_leaves():
    left = ld.residual(PROBLEM, BASE)
    assert isinstance(left, ld.LeastSquares) and left.rank == PROBLEM.rank
    Theta = jnp.asarray(DRAWS.normal(size=(5, 2)))
    assert relative_error(left.loss(Theta), PROBLEM.loss(BASE + Theta)) < 1e-13
    assert relative_error(left.reduced_loss(left.to_data(Theta)), left.loss(Theta)) < 1e-13
    assert (
        relative_error(left.theta_hat, PROBLEM.theta_hat - PROBLEM.from_data(PROBLEM.to_data(jnp.asarray(BASE))))
        < 1e-12
    )
    options = {"rtol": 1e-11, "solver": "tsit5"}
    whole = ld.gradient_flow(ADAPTER, PROBLEM, TIMES, observables=("loss", "effective_rank"), **options)
    part = ld.gradient_flow(ld.TwoLayer(U, V), left, TIMES, **options)
    assert relative_error(whole.observables["loss"], part.observables["loss"]) < 1e-9
    assert relative_error(whole.final.product(), BASE + part.final.product()) < 1e-9
    assert np.array_equal(whole.final.base, BASE)
    narrow = ADAPTER.narrow()
    assert narrow.U.shape == (5, 7) and relative_error(narrow.product(), ADAPTER.product()) < 1e-13
    # Of the whole product, not of the adapter.
    sigma = np.linalg.svd(whole.final.product(), compute_uv=False)
    p = sigma / sigma.sum()
    assert relative_error(whole.final_observables["effective_rank"], np.exp(-np.sum(p * np.log(p)))) < 1e-10


def test_adapters_take_the_steps_of_their_weights_and_their_kernel_has_no_base():
    def loss(weights):
        U, V = weights
        return jnp.sum((Y - 1.5 * X @ (BASE + U @ V.T)) ** 2) / 8

    moved = steps(loss, (jnp.asarray(U), jnp.asarray(V)), 0.05, 40)
    path = ld.gradient_descent(ADAPTER, PROBLEM, 40, optimizer=ld.plain_descent(0.05))
    assert relative_error(path.final.U, moved[0]) < 1e-12 and relative_error(path.final.V, moved[1]) < 1e-12
    turned = ld.observables.kernel_distance(path.final, PROBLEM, ADAPTER)
    alone = ld.observables.kernel_distance(path.final.adapter, PROBLEM, ADAPTER.adapter)
    assert alone > 1e-3 and relative_error(turned, alone) < 1e-9


def other_loss(kind):
    labels = (Y[:, :1] > 0).astype(float)
    problem = ld.Logistic(X, labels[:, 0]) if kind == "logistic" else ld.LeastSquares(X, labels, link="sigmoid")
    return problem, ld.residual(problem, BASE[:, :1])


@pytest.mark.parametrize("kind", ["logistic", "link"])
def test_what_is_left_of_any_loss_has_its_values_and_gradients(kind):
    problem, left = other_loss(kind)

    @jax.jit
    def both(Theta):
        return [(loss.loss(at), loss.loss_gradient(at)) for loss, at in ((problem, BASE[:, :1] + Theta), (left, Theta))]

    (loss, gradient), (left_loss, left_gradient) = both(jnp.asarray(DRAWS.normal(size=(5, 1))))
    assert relative_error(left_loss, loss) < 1e-13 and relative_error(left_gradient, gradient) < 1e-13


@pytest.mark.parametrize("kind", ["logistic", "link"])
def test_what_is_left_of_any_loss(kind):
    problem, left = other_loss(kind)
    paths = [
        ld.gradient_flow(model, loss, TIMES, rtol=1e-10, solver="tsit5")
        for model, loss in ((ld.LoRA(BASE[:, :1], U, V[:1]), problem), (ld.TwoLayer(U, V[:1]), left))
    ]
    assert relative_error(paths[0].observables["loss"], paths[1].observables["loss"]) < 1e-8


@pytest.mark.parametrize("move", [False, True], ids=["begin", "move"])
def test_adapters_of_any_width_begin_at_the_base(move):
    left, test = ld.residual(PROBLEM, BASE), ld.LeastSquares(np.eye(5), np.ones((5, 2)))
    key = jax.random.key(1)
    core = ld.init.gaussian_core(left, 1e9, std=(1e-5, 0), key=key)
    elsewhere = ld.observables.on(ld.residual(test, BASE), "loss", key=key)
    observables = {"loss": ld.observables.loss, "test": elsewhere}
    begin = jax.jit(lambda: (ld.observables.loss(core, left), elsewhere(core, left)))()
    for value, problem in zip(begin, (PROBLEM, test), strict=True):
        assert relative_error(value, problem.loss(jnp.asarray(BASE))) < 1e-12
    if not move:
        return
    path = ld.gradient_flow(core, left, [0.0, 50.0], observables=observables, solver="tsit5")
    assert relative_error(path.observables["loss"][0], PROBLEM.loss(jnp.asarray(BASE))) < 1e-12
    assert relative_error(path.observables["test"][0], test.loss(jnp.asarray(BASE))) < 1e-12
    assert path.observables["loss"][1] < 1e-3 * path.observables["loss"][0]


# -- branches --------------------------------------------------------------------------------------------------------------


GATES = (DRAWS.normal(size=(7, 3)) > -0.3).astype(float)
INPUTS, TARGETS = DRAWS.normal(size=(7, 4)), DRAWS.normal(size=(7, 2))
LAYERS = [(0.5 * DRAWS.normal(size=(4, h)), 0.5 * DRAWS.normal(size=(2, h))) for h in (3, 8, 12)]
GATED = ld.LeastSquares(ld.gated_inputs(INPUTS, GATES == 1), TARGETS)


@pytest.mark.parametrize("outputs", [1.0, 0.0])
def test_branches_take_the_steps_of_a_gated_network(outputs):
    def loss(weights):
        # Sample by sample: the sum of the open branches.
        out = sum(g[:, None] * (INPUTS @ U @ V.T) for g, (U, V) in zip(GATES.T, weights, strict=True))
        return jnp.sum((TARGETS - out) ** 2) / 2

    weights = [(jnp.asarray(U), outputs * jnp.asarray(V)) for U, V in LAYERS]
    model = ld.Branched([ld.TwoLayer(*pair) for pair in weights])
    assert relative_error(GATED.loss(model.product()), loss(weights)) < 1e-13
    assert relative_error(model.narrow().product(), model.product()) < 1e-13
    moved = steps(loss, weights, 0.01, 30)
    path = ld.gradient_descent(model, GATED, 30, optimizer=ld.plain_descent(0.01))
    for branch, (U, V) in zip(path.final.branches, moved, strict=True):
        assert relative_error(branch.U, U) < 1e-12 and relative_error(branch.V, V) < 1e-12


def test_branches_are_narrowed_exactly_and_keep_their_imbalances():
    model = ld.Branched([ld.TwoLayer(*pair) for pair in LAYERS])
    narrow = model.narrow()
    assert [branch.width for branch in narrow.branches] == [3, 6, 6]
    paths = [ld.gradient_flow(one, GATED, TIMES, rtol=1e-11, solver="tsit5") for one in (model, narrow)]
    assert relative_error(paths[0].observables["loss"], paths[1].observables["loss"]) < 1e-9
    assert relative_error(paths[0].final.product(), paths[1].final.product()) < 1e-9
    for after, before in zip(paths[0].final.branches, model.branches, strict=True):
        assert (
            relative_error(after.U.T @ after.U - after.V.T @ after.V, before.U.T @ before.U - before.V.T @ before.V)
            < 1e-8
        )


# -- merged linear attention -----------------------------------------------------------------------------------------------

DIM, LENGTH, HEADS = 4, 31, 8


def test_heads_of_linear_attention_are_hidden_neurons():
    draws = np.random.default_rng(5)
    context, query, w = draws.normal(size=(6, 5, 3)), draws.normal(size=(6, 3)), draws.normal(size=(6, 3))
    answers = np.sum(w * query, axis=1)
    tokens = np.concatenate([context, np.einsum("sld,sd->sl", context, w)[:, :, None]], axis=2)
    last = np.concatenate([query, np.zeros((6, 1))], axis=1)
    W, v = 0.2 * draws.normal(size=(HEADS, 3, 3)), 0.2 * draws.normal(size=HEADS)

    def loss(weights):
        W, v = weights
        # Keys and queries merged act on x alone, values on y alone; the last token asks, and is among the keys with y = 0.
        every = jnp.concatenate([tokens, last[:, None]], axis=1)
        scores = jnp.einsum("sld,hde,se->shl", every[:, :, :3], W, query)
        out = jnp.einsum("shl,h,sl->s", scores, v, every[:, :, 3]) / 5
        return jnp.mean((answers - out) ** 2) / 2

    b = np.einsum("sld,sl->sd", context, tokens[:, :, 3]) / 5
    problem = ld.LeastSquares((b[:, :, None] * query[:, None]).reshape(6, 9), answers[:, None], scale="mean")
    moved = steps(loss, (jnp.asarray(W), jnp.asarray(v)), 0.02, 50)
    model = ld.TwoLayer(W.reshape(HEADS, 9).T, v[None])
    path = ld.gradient_descent(model, problem, 50, optimizer=ld.plain_descent(0.02))
    assert relative_error(path.final.U.T.reshape(HEADS, 3, 3), moved[0]) < 1e-11
    assert relative_error(path.final.V[0], moved[1]) < 1e-11


def test_moments_of_sequences_are_those_of_many():
    values = np.array([0.5, 0.3, 0.2])
    known = ld.theory.in_context_covariances(np.diag(values), 6)
    drawn = ld.data.in_context(dim=3, length=6, samples=50_000, eigenvalues=values, seed=2)
    for exact, products in (
        (known.Sigma_x, drawn.X[:, :, None] * drawn.X[:, None, :]),
        (known.Sigma_xy, drawn.X[:, :, None] * drawn.Y[:, None, :]),
        (known.Sigma_y, drawn.Y[:, :, None] * drawn.Y[:, None, :]),
    ):
        error = np.std(products, axis=0) / np.sqrt(len(products))
        assert np.max(np.abs(np.mean(products, axis=0) - exact) / error) < 4.5


def test_loss_of_attention_stays_and_drops_once_when_the_law_says():
    known = ld.theory.in_context_covariances(np.eye(DIM) / DIM, LENGTH)
    problem = ld.theory.covariance_problem(known.Sigma_x, known.Sigma_xy)
    start = ld.init.gaussian(DIM**2, 1, HEADS, std=1e-3, key=jax.random.key(4))
    law = ld.theory.growing_modes(start, problem)
    assert bool(law.applies)
    # One mode: sigma = |C^2|, of features whose variance is c^3 (1 + (1 + d)/N).
    np.testing.assert_allclose(law.sigma, DIM**-1.5, rtol=1e-12)
    np.testing.assert_allclose(law.lam, DIM**-3 * (1 + (1 + DIM) / LENGTH), rtol=1e-12)
    half = float(law.half_time[0])
    path = ld.gradient_flow(start, problem, half * np.array([0.0, 0.6, 1.0, 1.4]), rtol=1e-9, solver="tsit5")
    left = np.asarray(path.observables["loss"] / path.observables["loss"][0])
    # A quarter of the excess is left where Theta is half learned.
    assert left[1] > 0.95 and abs(left[2] - 0.25) < 0.03 and left[3] < 0.01
    # The share of the whole loss that no weights learn.
    least = 1 - float(path.observables["loss"][0] / (known.Sigma_y[0, 0] / 2))
    np.testing.assert_allclose(least, (1 + DIM) / (LENGTH + 1 + DIM), rtol=1e-5)


def test_wrong_parts_are_refused():
    # Checks of shapes, which tests run in, come before the sentence.
    with pytest.raises(TypeCheckError, match="base"):
        ld.LoRA(BASE.T, U, V)
    with pytest.raises(ValueError, match=r"`base` must have shape \(5, 2\) for this problem"):
        ld.residual(PROBLEM, BASE.T)
    with pytest.raises(ValueError, match="the saddle U = 0, V = 0"):
        ld.gradient_flow(ld.LoRA(BASE, 0 * U, 0 * V), PROBLEM, [1.0])
    with pytest.raises(ValueError, match="must have the same number of outputs, but they have"):
        ld.Branched([ld.TwoLayer(U, V), ld.TwoLayer(U, V[:1])])
    with pytest.raises(TypeCheckError, match="gates"):
        ld.gated_inputs(INPUTS, GATES[:2])
    # The second branch is open to no sample, and has weights.
    shut = ld.LeastSquares(ld.gated_inputs(INPUTS, GATES[:, :2] * [1, 0]), TARGETS)
    branches = [ld.TwoLayer(factor * U, 0 * V) for factor, (U, V) in zip((0, 1), LAYERS, strict=False)]
    with pytest.raises(ValueError, match="the saddle of all branches"):
        ld.gradient_flow(ld.Branched(branches), shut, [1.0])
    with pytest.raises(ld.data.DataError, match="must be 3 positive numbers"):
        ld.data.in_context(dim=3, eigenvalues=np.ones(2))
