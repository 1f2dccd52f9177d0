"""Link functions: gradients, paths against plain programs, the conserved imbalance, T21 Figure 3, and what has no meaning."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import relative_error, tolerance

import lindyn_jax as ld
from lindyn_jax.problems import least_squares

N, n, m, h = 30, 6, 3, 20
LINKS = {
    "sigmoid": (jax.nn.sigmoid, lambda z: 1 / (1 + np.exp(-z))),
    "tanh": (jnp.tanh, np.tanh),
    "softplus": (jax.nn.softplus, lambda z: np.log1p(np.exp(z))),
}


def data_of(rng, link="sigmoid"):
    X = rng.normal(size=(N, n))
    X[:, 4:] = X[:, :2]  # rank 4: two directions of the inputs are frozen
    return X, LINKS[link][1](X @ rng.normal(size=(n, m)))


@pytest.mark.parametrize("link", LINKS)
def test_gradients_agree_with_finite_differences_and_with_a_plain_program(link, rng):
    X, Y = data_of(rng, link)
    function, plain = LINKS[link]
    q, c = 1 / N, 0.8
    problem = ld.LeastSquares(X, Y, scale="mean", output_scale=c, link=function)
    two = ld.TwoLayer(rng.normal(size=(n, h)) / 3, rng.normal(size=(m, h)) / 3)
    deep = ld.DeepLinear([rng.normal(size=shape) / 2 for shape in ((n, 5), (5, 4), (4, m))])
    single = ld.LinearModel(rng.normal(size=(n, m)))

    def loss(weights, outputs):
        return q / 2 * np.sum((Y - plain(c * X @ outputs(*weights))) ** 2)

    for model, outputs in (
        (single, lambda Theta: Theta),
        (two, lambda U, V: U @ V.T),
        (deep, lambda A, B, C: A @ B @ C),
    ):
        weights = [np.asarray(W) for W in jax.tree.leaves(model)]
        assert relative_error(problem.loss(model.product()), loss(weights, outputs)) < tolerance("float64")
        directions = [rng.normal(size=W.shape) for W in weights]
        ahead, behind = ([W + s * 1e-5 * D for W, D in zip(weights, directions, strict=True)] for s in (1, -1))
        slope = (loss(ahead, outputs) - loss(behind, outputs)) / 2e-5
        velocity = jax.tree.leaves(model.velocity(problem))
        along = -sum(np.sum(np.asarray(v) * D) for v, D in zip(velocity, directions, strict=True))
        # Central difference: step^2, and round-off over the step, both about 1e-10.
        assert abs(slope - along) < 1e-7 * max(1, abs(slope))


@pytest.mark.parametrize("reduce", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_descent_agrees_with_a_plain_program_at_full_size(reduce, rng):
    X, Y = data_of(rng)
    U, V = rng.normal(size=(n, h)) / 4, rng.normal(size=(m, h)) / 4
    problem, eta, steps = ld.LeastSquares(X, Y, scale="mean", link="sigmoid"), 0.5, 50
    start = ld.TwoLayer(U, V)
    run = ld.gradient_descent(start, problem, steps, optimizer=ld.plain_descent(eta), reduce=reduce)
    Theta = U @ V.T
    for _ in range(steps):
        P = 1 / (1 + np.exp(-X @ U @ V.T))
        G = X.T @ ((P - Y) * P * (1 - P)) / N
        U, V = U - eta * G @ V, V - eta * G.T @ U
        P = 1 / (1 + np.exp(-X @ Theta))
        Theta = Theta - eta * X.T @ ((P - Y) * P * (1 - P)) / N
    assert relative_error(run.final.U, U) < tolerance("float64")
    assert relative_error(run.final.V, V) < tolerance("float64")
    single = ld.gradient_descent(ld.LinearModel(start.product()), problem, steps, optimizer=ld.plain_descent(eta))
    assert relative_error(single.final.Theta, Theta) < tolerance("float64")
    # The reduced problem sees X only through X Phi1, of shape (N, r).
    assert problem.design.shape == (N, 4)
    assert relative_error(problem.design, X @ np.asarray(problem.Phi1)) < tolerance("float64")


def test_flow_conserves_the_imbalances_at_any_depth_and_descent_changes_them_exactly(rng):
    X, Y = data_of(rng)
    problem = ld.LeastSquares(X, Y, scale="mean", link="sigmoid")
    start = ld.init.deep_gaussian((n, 5, 4, m), std=0.6, key=jax.random.key(0))
    out = ld.gradient_flow(start, problem, np.array([5.0]), solver="tsit5", observables=("loss", "imbalance_drift"))
    assert isinstance(out.final, ld.DeepLinear)
    # The default tolerance is 1e-9 a step.
    assert float(out.observables["imbalance_drift"][0]) < 1e-8
    assert float(out.observables["loss"][0]) < 0.5 * float(problem.loss(start.product()))
    stepped = ld.gradient_descent(start, problem, 1, optimizer=ld.plain_descent(0.7)).final
    drift = ld.theory.descent_drift(start, problem, 0.7)
    for after, before, change in zip(stepped.imbalances(), start.imbalances(), drift, strict=True):
        assert float(jnp.linalg.norm(after - before - change)) < tolerance("float64")


@pytest.mark.parametrize("imbalance", [0, 4.6])
def test_sigmoid_networks_learn_as_in_figure_3_with_a_drift_of_first_order(imbalance, rng):
    # T21 Figure 3 in corrected shapes: U and V are d x h.
    samples, d, width = 300, 10, 60
    X = rng.normal(size=(samples, d))
    Y = 1 / (1 + np.exp(-X @ rng.normal(size=(d, d))))
    problem = ld.LeastSquares(X, Y, scale="mean", link="sigmoid")
    start = ld.init.gaussian_with_imbalance(d, width, std=0.1, imbalance=imbalance, key=jax.random.key(1))
    D = start.U.T @ start.U - start.V.T @ start.V
    assert abs(float(jnp.linalg.norm(D)) - imbalance) < tolerance("float64", 10)

    @jax.jit
    def run(eta):
        # Every one of them sees times 10 and 20.
        out = ld.gradient_descent(
            start,
            problem,
            160,
            optimizer=ld.plain_descent(eta),
            save_at=np.array([20, 40, 80, 160]),
            observables=("loss", "imbalance_drift"),
        )
        return out.observables["loss"], out.observables["imbalance_drift"]

    (coarse, drift1), (middle, drift2), (fine, drift4) = (run(eta) for eta in (0.5, 0.25, 0.125))
    drifts = [float(drift1[1]), float(drift2[2]), float(drift4[3])]
    # O(eta) over a fixed time: halving the step halves the drift, up to the next order.
    assert abs(drifts[0] / drifts[1] - 2) < 0.1 and abs(drifts[1] / drifts[2] - 2) < 0.05
    assert drifts[2] > 1e-3
    losses = [float(coarse[1]), float(middle[2]), float(fine[3])]
    flow = ld.gradient_flow(start, problem, [20.0], observables=("loss", "imbalance_drift"), solver="tsit5", rtol=1e-10)
    assert float(flow.observables["imbalance_drift"][0]) < 1e-9  # ten times the tolerance of the integration
    errors = [abs(loss - float(flow.observables["loss"][0])) for loss in losses]
    assert errors[0] > errors[1] > errors[2] and errors[2] < 1e-2 * losses[2]
    single = ld.gradient_descent(ld.LinearModel(start.product()), problem, 40, optimizer=ld.plain_descent(0.5))
    # Two layers are the faster here, the more so with an imbalance.
    assert losses[0] < float(single.observables["loss"][-1]) * (0.5 if imbalance else 0.8)


def test_names_of_links_are_their_functions(rng):
    X, Y = data_of(rng)
    Theta = jnp.asarray(rng.normal(size=(n, m)))
    assert ld.LeastSquares(X, Y, link="identity").link is None
    for name in ("sigmoid", "tanh"):
        named, given = (ld.LeastSquares(X, Y, link=link) for link in (name, LINKS[name][0]))
        assert float(named.loss(Theta)) == float(given.loss(Theta))
    with pytest.raises(
        ValueError, match="an elementwise function or one of 'identity', 'sigmoid', 'tanh', but is 'cubic'"
    ):
        ld.LeastSquares(X, Y, link="cubic")
    with pytest.raises(ValueError, match="`link` must be an elementwise function, but makes"):
        ld.LeastSquares(X, Y, link=jnp.sum)
    with pytest.raises(ValueError, match="`imbalance` must be a known number of at least 0, but is -1"):
        ld.init.gaussian_with_imbalance(3, 4, std=0.1, imbalance=-1.0, key=jax.random.key(0))


def test_what_needs_least_squares_is_refused(rng):
    X, Y = data_of(rng)
    problem, two = ld.LeastSquares(X, Y, link="sigmoid"), ld.TwoLayer(np.ones((n, h)), np.ones((m, h)))
    deep, ts, theory = ld.DeepLinear((two.U, two.V.T)), np.ones(1), ld.theory
    match = "link"
    for ask in (
        *(
            lambda name=name: ld.observables.OBSERVABLES[name](two, problem)
            for name in ("excess_loss", "reconstruction_error", "distance_to_theta_hat")
        ),
        lambda: problem.loss_star,
        lambda: problem.theta_hat,
        lambda: ld.gradient_flow(two, problem, ts, stop=0.1),
        lambda: ld.gradient_flow(deep, problem, ts, stop=0.1),
        lambda: ld.gradient_descent(two, problem, 1, optimizer=optax.sgd(0.1), stop=0.1),
        lambda: ld.stable_step(two, problem),
        lambda: ld.find_gauge(two, problem),
        lambda: ld.exact.linear(problem, two.product(), ts),
        lambda: theory.instantaneous_rate(two, problem),
        lambda: theory.rate_spectrum(two, problem),
        lambda: theory.rate_bound(two, problem),
        lambda: theory.loss_bound(two, problem, jnp.ones(1)),
        lambda: theory.lemma7(two, problem),
        lambda: theory.corollary4(two, problem),
        lambda: theory.tightness(two, problem),
        lambda: theory.theorem12(problem, 100, 0.5, 0.1),
        lambda: theory.sharpness(deep, problem),
    ):
        with pytest.raises(ValueError, match=match):
            ask()
    # What is about the weights alone goes on.
    assert np.isfinite(float(theory.imbalance(two, problem).plus))


def test_an_annotation_would_refuse_other_things_first():
    link = inspect.unwrap(least_squares._named_link)
    with pytest.raises(ValueError, match=r"`link` must be an elementwise function or one of .*, but is 3"):
        link(3)
