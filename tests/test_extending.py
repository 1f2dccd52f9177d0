"""A stranger's own loss and network: what runs with them, what is the same by another way, and what refuses them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import relative_error

import lindyn_jax as ld

n, m, h, N = 4, 3, 9, 12


class Masked(ld.AbstractProblem):
    Y: jax.Array
    mask: jax.Array

    @property
    def num_inputs(self):
        return self.Y.shape[0]

    @property
    def num_outputs(self):
        return self.Y.shape[1]

    def loss(self, Theta):
        return jnp.sum(self.mask * (self.Y - Theta) ** 2) / 2


class Diagonal(ld.AbstractModel):
    u: jax.Array
    v: jax.Array

    def product(self):
        return (self.u * self.v)[:, None]


class PseudoHuber(ld.OutputProblem):
    def output_loss(self, outputs, Y):
        return jnp.sum(jnp.sqrt(1 + (outputs - Y) ** 2) - 1)


def squares(outputs, Y):
    return jnp.sum((outputs - Y) ** 2) / 2


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(7)
    mask = rng.permutation(np.arange(n * m) < 8).reshape(n, m)
    # Six inputs of rank four: two directions that no sample has.
    X = rng.normal(size=(N, n)) @ rng.normal(size=(n, n + 2))
    return rng.normal(size=(n, m)), mask.astype(float), X, rng.normal(size=(N, m)), rng.normal(size=(N, 1))


@pytest.fixture(scope="module")
def start():
    return ld.init.gaussian(n, m, h, std=0.4, key=jax.random.key(1))


def test_a_masked_loss_at_a_long_horizon_gives_the_masked_solution(data, start):
    Y, mask, *_ = data
    problem = Masked(jnp.asarray(Y), jnp.asarray(mask))
    product = lambda model, _: model.product()  # noqa: E731
    end = ld.gradient_flow(start, problem, [1.0, 1e5], observables={"Theta": product, "drift": "imbalance_drift"})
    assert bool(end.ok) and bool(end.stats["implicit"])
    Theta = np.asarray(end.final.product())
    assert np.max(np.abs(mask * (Y - Theta))) < 1e-9
    # And not the solution of all entries.
    assert np.max(np.abs(Y - Theta)) > 0.1
    assert float(end.observables["drift"][-1]) < 1e-6
    # The same path by descent with small steps from a program of one line.
    U, V = np.asarray(start.U), np.asarray(start.V)
    for _ in range(4000):
        G = mask * (U @ V.T - Y)
        U, V = U - G @ V / 4000, V - G.T @ U / 4000
    assert relative_error(end.observables["Theta"][0], U @ V.T) < 1e-3


def test_a_function_and_a_class_are_one_problem(data, start):
    Y, mask, *_ = data
    written = Masked(jnp.asarray(Y), jnp.asarray(mask))
    function = jax.tree_util.Partial(lambda Y, mask, Theta: jnp.sum(mask * (Y - Theta) ** 2) / 2, Y, mask)
    custom = ld.CustomProblem(function, n, m)
    paths = [
        ld.gradient_descent(start, p, 40, optimizer=optax.sgd(0.1), save_at=[0, 20, 40]) for p in (written, custom)
    ]
    np.testing.assert_array_equal(paths[0].observables["loss"], paths[1].observables["loss"])
    G = custom.loss_gradient(start.product())
    assert relative_error(G, mask * (np.asarray(start.product()) - Y)) < 1e-14


@pytest.mark.parametrize("kind", ["given", "drawn"])
def test_losses_of_outputs_are_reduced_exactly(data, kind):
    _, _, X, Y, _ = data
    own, plain = ld.GeneralLoss(X, Y, squares, scale="mean"), ld.LeastSquares(X, Y, scale="mean")
    assert (own.rank, own.num_frozen) == (plain.rank, plain.num_frozen) == (n, 2)
    if kind == "given":
        start = ld.init.gaussian(n + 2, m, 30, std=0.3, key=jax.random.key(2))
    else:
        start = ld.init.gaussian_core(own, 1e9, alpha=0.6, key=jax.random.key(2))
    ends = [
        ld.gradient_descent(start, problem, 30, optimizer=optax.sgd(1e-3, momentum=0.5), reduce=reduce)
        for problem, reduce in ((own, True), (plain, True), *(((own, False),) if kind == "given" else ()))
    ]
    for end in ends[1:]:
        assert relative_error(end.observables["loss"], ends[0].observables["loss"]) < 1e-11
        assert relative_error(end.final.V, ends[0].final.V) < 1e-11


def test_restricted_problems_have_the_gradient_and_up_to_a_number_the_loss(data):
    _, _, X, Y, _ = data
    rng = np.random.default_rng(3)
    one, two = jnp.asarray(rng.normal(size=(2, n, m)))
    for problem in (ld.LeastSquares(X, Y, output_scale=0.7), PseudoHuber(X, Y), ld.LeastSquares(X, Y, link="tanh")):
        small, Phi1 = problem.restrict()
        assert small.num_inputs == problem.rank == n and small.restrict()[1] is None

        @jax.jit
        def both(one, two, problem=problem, small=small, Phi1=Phi1):
            lifted, change = problem.loss_gradient(Phi1 @ one), problem.loss(Phi1 @ one) - problem.loss(Phi1 @ two)
            full = Phi1.T @ lifted, Phi1.T @ lifted, change, problem.loss(Phi1 @ one)
            gradients = small.loss_gradient(one), problem.reduced_loss_gradient(one)
            return full, (*gradients, small.loss(one) - small.loss(two), problem.reduced_loss(one))

        for full, restricted in zip(*both(one, two), strict=True):
            assert relative_error(restricted, full) < 1e-12
    # A reduced network is an ordinary network on the restricted problem, to the last bit.
    problem = ld.LeastSquares(X, Y)
    core = ld.init.gaussian_core(problem, 50.0, std=0.3, key=jax.random.key(0))
    for name in ("rate_bound", "margin", "instantaneous_rate"):
        values = [
            getattr(ld.theory, name)(model, own)
            for model, own in ((core, problem), (ld.TwoLayer(core.U1, core.V), problem.restrict()[0]))
        ]
        assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.array_equal(a, b)), *values)), name


def test_an_own_network_moves_by_the_gradient_of_its_weights(data):
    _, _, X, _, y = data
    problem = ld.LeastSquares(X, y, scale="mean")
    rng = np.random.default_rng(5)
    start = Diagonal(*jnp.asarray(rng.normal(size=(2, n + 2))))
    G = np.asarray(problem.loss_gradient(start.product()))[:, 0]
    velocity = start.velocity(problem)
    assert relative_error(velocity.u, -G * np.asarray(start.v)) < 1e-14
    assert relative_error(velocity.v, -G * np.asarray(start.u)) < 1e-14
    options = {"observables": "excess_loss", "keep_models": True, "solver": "tsit5"}
    flow = ld.gradient_flow(start, problem, [0.5, 2.0], **options)
    # The flow conserves u^2 - v^2, entry by entry.
    (u, v), (u0, v0) = (map(np.asarray, (model.u, model.v)) for model in (flow.models, start))
    assert np.max(np.abs((u**2 - v**2) - (u0**2 - v0**2))) < 1e-7
    assert float(flow.observables["excess_loss"][1]) < float(flow.observables["excess_loss"][0])

    def end(scale):
        scaled = jax.tree.map(lambda w: scale * w, start)
        options = {"observables": (), "differentiate": "forward"}
        descent = ld.gradient_descent(scaled, problem, 5, optimizer=optax.adam(1e-2), **options)
        assert isinstance(descent.final, Diagonal)
        return problem.loss(descent.final.product())

    step = 1e-6
    both = jax.jit(jax.vmap(lambda scale: jax.jvp(end, (scale,), (1.0,))))
    values, slopes = map(np.asarray, both(1 + step * jnp.array([0, 1, -1])))
    assert relative_error(slopes[0], (values[1] - values[2]) / (2 * step)) < 1e-6


def test_an_own_chain_of_three_layers_is_one_of_ours():
    class Chain(ld.AbstractModel):
        A: jax.Array
        B: jax.Array
        C: jax.Array

        def product(self):
            return self.A @ self.B @ self.C

        def moving_layers(self, problem):
            return problem.to_data(self.A), self.B, self.C

    rng = np.random.default_rng(2)
    layers, problem = tuple(jnp.asarray(rng.normal(size=(3, 2, 2)))), ld.factorization(rng.normal(size=(2, 2)))
    own, ours = (
        ld.gradient_flow(model, problem, [5.0], solver="tsit5").final
        for model in (Chain(*layers), ld.DeepLinear(layers))
    )
    assert relative_error(own.product(), ours.product()) < 1e-7


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda start, own: ld.gradient_flow(start, own, [1.0], stop=0.1), "least loss, which a Masked does not know"),
        (lambda start, own: ld.direction(start, own), "that of a classification, .* but the problem is a Masked"),
        (lambda start, own: ld.observables.excess_loss(start, own), "`excess_loss` is defined for least squares"),
        (
            lambda start, own: ld.gradient_flow(start, own, [1.0], observables="mode_strengths"),
            "defined for problems of kind LeastSquares",
        ),
        (lambda start, own: ld.theory.rate_bound(start, own), "must be a LeastSquares, but is a Masked"),
        (lambda start, own: ld.theory.corollary4(start, own), "must be a LeastSquares, but is a Masked"),
        (lambda start, own: ld.CustomProblem(lambda Theta: Theta, 2, 2), "must make a real number of a matrix"),
        (lambda start, own: ld.CustomProblem(lambda Theta: Theta @ np.ones(7), 2, 2), "but fails for one: "),
        (lambda start, own: ld.GeneralLoss(None, np.eye(2), lambda a, b: a - b), "`fn` must make a real number"),
        (
            lambda start, own: ld.observables.imbalance_spectrum(Diagonal(jnp.ones(n), jnp.ones(n)), own),
            "The imbalance is defined for two-layer models, but the model is a Diagonal",
        ),
        (
            lambda start, own: Diagonal(jnp.ones(2), jnp.ones(2)).velocity(
                ld.factorization(np.ones((2, 1))).regularized(1.0)
            ),
            "penalty on the imbalance is defined for two-layer models, but the model is a Diagonal",
        ),
        (
            lambda start, own: ld.gradient_flow(Diagonal(jnp.ones(2), jnp.ones(2)), own, [1.0]),
            "the shape of its product must be \\(4, 3\\), but is \\(2, 1\\)",
        ),
    ],
)
def test_what_is_not_known_is_refused_in_a_sentence(data, start, ask, message):
    Y, mask, *_ = data
    with pytest.raises(ValueError, match=message):
        ask(start, Masked(jnp.asarray(Y), jnp.asarray(mask)))
