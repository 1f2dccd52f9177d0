"""Spectra of the Hessian, noise of gradients and tangent kernels: against matrices that are formed in full."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import relative_error, tolerance
from jax.flatten_util import ravel_pytree

import lindyn_jax as ld

obs = ld.observables
KEY = jax.random.key(0)
top = eqx.filter_jit(obs.hessian_top)


@eqx.filter_jit
def hessian(model, problem):
    weights, unravel = ravel_pytree(eqx.filter(model, eqx.is_inexact_array))
    return jax.hessian(lambda w: obs.total_loss(unravel(w), problem))(weights)


def dense_hessian(model, problem):
    return np.asarray(hessian(model, problem))


@pytest.fixture
def problem(rng):
    # One direction of the inputs is not seen.
    return ld.LeastSquares(rng.normal(size=(3, 4)), rng.normal(size=(3, 2)), scale="mean")


@pytest.mark.parametrize("kind", ["two", "deep", "decayed"])
def test_hessian_spectra_are_those_of_the_dense_matrix(kind, problem, rng):
    model = ld.TwoLayer(rng.normal(size=(4, 9)), rng.normal(size=(2, 9)))
    if kind == "deep":
        model = ld.DeepLinear([rng.normal(size=shape) for shape in ((4, 5), (5, 3), (3, 2))])
    if kind == "decayed":
        problem = ld.Penalised(problem, weight_decay=0.3)
    expected = np.linalg.eigvalsh(dense_hessian(model, problem))[::-1]
    assert relative_error(eqx.filter_jit(obs.hessian_spectrum)(model, problem), expected) < tolerance("float64")
    assert relative_error(top(model, problem, k=7), expected[:7]) < tolerance("float64")


def test_fewer_steps_than_weights_resolve_the_top_or_say_that_they_do_not(problem, rng):
    model = ld.TwoLayer(rng.normal(size=(4, 60)), rng.normal(size=(2, 60)))
    expected = np.linalg.eigvalsh(dense_hessian(model, problem))[::-1]
    assert relative_error(top(model, problem, k=3, steps=40), expected[:3]) < 1e-10
    few = np.asarray(top(model, problem, k=3, steps=3))
    assert np.isnan(few).any()


@pytest.mark.parametrize("h", [6, 8, 40])
def test_the_top_of_a_reduced_network_is_that_of_the_full_one(problem, rng, h):
    model = ld.TwoLayer(0.3 * rng.normal(size=(4, h)), 0.3 * rng.normal(size=(2, h)))
    expected = np.linalg.eigvalsh(dense_hessian(model, problem))[::-1]
    core = ld.reduce(model, problem)
    assert core.V.shape[1] == 5
    # Far from a solution directions that are not used are among the largest.
    G = np.linalg.svd(problem.loss_gradient(model.product()), compute_uv=False)
    assert np.min(np.abs(expected[:20] - G[0])) < 1e-12 or h == 6
    found = top(core, problem, k=20)
    assert np.max(np.abs(found - expected[:20])) < 1e-12 * expected[0]


def test_the_top_of_a_drawn_core_has_as_many_copies_as_the_width(problem):
    def drawn(h):
        core = ld.init.Gaussian(h, std=1e-3).draw(problem, key=KEY)
        G = problem.restrict()[0].loss_gradient(core.product())
        return obs.hessian_top(core, problem, k=25), jnp.linalg.svd(G, compute_uv=False)

    drawn = jax.jit(drawn)
    found, sigma = map(np.asarray, drawn(8.0))
    # Near the saddle at zero the Hessian is that of the gradient alone: each hidden direction has it once.
    np.testing.assert_allclose(found[:16], np.repeat(sigma, 8), rtol=1e-2)
    assert all(np.sum(np.abs(found / value - 1) < 1e-12) >= 3 for value in sigma)
    found, sigma = map(np.asarray, drawn(1e6))
    assert found[0] > 2 * sigma[0]
    assert np.all(np.abs(found[8:] / sigma[0] - 1) < 1e-12)
    assert np.isnan(drawn(3.0)[0]).all()


def test_a_flow_watches_the_top_and_the_noise(problem, rng):
    start = ld.TwoLayer(rng.normal(size=(4, 12)), rng.normal(size=(2, 12)))
    names = {
        "top": functools.partial(obs.hessian_top, k=3),
        "hessian_top": "hessian_top",
        "gradient_noise": "gradient_noise",
    }
    path = ld.gradient_flow(start, problem, jnp.array([0.0, 1.0]), observables=names, keep_models=True, solver="tsit5")
    for i in (0, 1):
        model = ld.TwoLayer(np.asarray(path.models.U)[i], np.asarray(path.models.V)[i])
        expected = np.linalg.eigvalsh(dense_hessian(model, problem))[::-1]
        assert relative_error(path.observables["hessian_top"][i], expected[:10]) < 1e-9
        assert relative_error(path.observables["top"][i], expected[:3]) < 1e-9
        assert relative_error(path.observables["gradient_noise"][i], obs.gradient_noise(model, problem)) < 1e-9


def test_the_trace_of_the_noise_is_that_of_its_matrix_and_of_gradients_of_samples(problem, rng):
    X, Y = np.asarray(problem.X), np.asarray(problem.Y)
    model = ld.TwoLayer(rng.normal(size=(4, 9)), rng.normal(size=(2, 9)))
    E = X @ np.asarray(model.product()) - Y
    U, V = np.asarray(model.U), np.asarray(model.V)
    one = [
        np.concatenate([(np.outer(x, e) @ V).ravel(), (np.outer(e, x) @ U).ravel()]) for x, e in zip(X, E, strict=True)
    ]
    gradients = float(problem.scale) * len(X) * np.array(one)
    covariance = np.cov(gradients.T, bias=True)
    assert relative_error(obs.noise_covariance(model, problem), covariance) < tolerance("float64")
    for network in (model, ld.reduce(model, problem)):
        assert relative_error(obs.gradient_noise(network, problem), np.trace(covariance)) < tolerance("float64")


@pytest.mark.slow
def test_the_trace_of_the_noise_is_what_steps_of_batches_of_one_differ_by(problem, rng):
    model = ld.TwoLayer(rng.normal(size=(4, 9)), rng.normal(size=(2, 9)))
    steps = [
        ld.gradient_descent(
            model,
            problem,
            1,
            optimizer=ld.plain_descent(0.1),
            noise=ld.Minibatch(indices=np.array([[i]])),
            keep_models=True,
        ).final
        for i in range(3)
    ]
    spread = np.array([np.asarray(ravel_pytree(eqx.filter(x, eqx.is_array))[0]) for x in steps]) / 0.1
    assert relative_error(np.sum(np.var(spread, axis=0)), obs.gradient_noise(model, problem)) < 1e-10


def test_the_tangent_kernel_is_that_of_the_jacobian(problem, rng):
    s, Phi = np.asarray(problem.singular_values), np.asarray(problem.frame)
    outputs = lambda model: (s[:, None] * (Phi.T @ model.product())).ravel()  # noqa: E731
    both = jax.jit(lambda model: (jax.jacrev(outputs)(model), obs.neural_tangent_kernel(model, problem)))
    for model in (
        ld.TwoLayer(rng.normal(size=(4, 9)), rng.normal(size=(2, 9))),
        ld.DeepLinear([3 * rng.normal(size=shape) for shape in ((4, 5), (5, 3), (3, 2))]),
        ld.LinearModel(rng.normal(size=(4, 2))),
        ld.Diagonal(rng.normal(size=(4, 2)), rng.normal(size=(4, 2))),
    ):
        jacobian, kernel = both(model)
        rows = np.concatenate([np.asarray(J).reshape(6, -1) for J in jax.tree.leaves(jacobian)], axis=1)
        assert relative_error(kernel, rows @ rows.T) < tolerance("float64")
    # That of the wide limit is the one of wide networks of its level.
    Theta, c = rng.normal(size=(4, 2)), 1.7
    root = lambda A: np.linalg.svd(A)[0] * np.sqrt(np.linalg.svd(A)[1]) @ np.linalg.svd(A)[0].T  # noqa: E731
    left, right = root(Theta @ Theta.T + c**2 * np.eye(4)), root(Theta.T @ Theta + c**2 * np.eye(2))
    expected = np.kron(s[:, None] * (Phi.T @ left @ Phi) * s, np.eye(2)) + np.kron(np.diag(s**2), right)
    assert relative_error(obs.neural_tangent_kernel(ld.WideLimit(Theta, c), problem), expected) < tolerance("float64")


def test_what_has_no_hessian_or_no_samples_is_refused(problem, rng):
    model = ld.TwoLayer(rng.normal(size=(4, 9)), rng.normal(size=(2, 9)))
    deep = ld.init.deep_orthogonal((4, 20, 20, 2), std=0.3, key=KEY)
    drawn = eqx.tree_at(lambda tree: tree.bases, ld.reduce(deep, problem), None)
    for match, call in {
        "`k` must be": lambda: obs.hessian_top(model, problem, k=0),
        "`steps` must be at least k = 10, but is 3": lambda: obs.hessian_top(model, problem, steps=3),
        "but the model is reduced: lift it": lambda: obs.hessian_spectrum(ld.reduce(model, problem), problem),
        "at most 2000 weights, but this one has 6000": lambda: obs.hessian_spectrum(
            ld.TwoLayer(np.ones((4, 1000)), np.ones((2, 1000))), problem
        ),
        "known for two layers, but the model has another depth": lambda: obs.hessian_top(drawn, problem),
        "known without terms on the weights": lambda: obs.hessian_top(
            ld.reduce(model, problem), ld.Penalised(problem, weight_decay=0.1)
        ),
        "A WideLimit has no Hessian": lambda: obs.hessian_top(ld.WideLimit(np.ones((4, 2)), 0.1), problem),
        "A WideLimit has no gradient noise": lambda: obs.gradient_noise(ld.WideLimit(np.ones((4, 2)), 0.1), problem),
        "not known to be a sum over samples": lambda: obs.gradient_noise(
            model, ld.CustomProblem(lambda Theta: jnp.sum(Theta**2), 4, 2)
        ),
    }.items():
        with pytest.raises(ValueError, match=match):
            call()
