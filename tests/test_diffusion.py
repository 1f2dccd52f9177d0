"""The stochastic flow: its covariance, its paths at both sizes, its order, and that descent tends to it."""

import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import relative_error, tolerance
from test_noise import data

import lindyn_jax as ld
from lindyn_jax.diffusion import _diffusion

KEY = jax.random.key(2)


def problems():
    X, Y, U, V = data(4)
    return {
        "least squares": ld.LeastSquares(X[:6], Y[:6], scale=0.7),
        "logistic": ld.Logistic(X[:6], (Y[:6] > 0).astype(float), scale=0.7, weights=np.arange(1.0, 7)),
        "completion": ld.MatrixCompletion(np.where(Y[:6] > -1, Y[:6], np.nan)[:, :2], scale=0.7),
    }, ld.TwoLayer(U, V)


@pytest.mark.parametrize("kind", ["least squares", "logistic", "completion"])
@pytest.mark.parametrize("replace", [False, True])
def test_covariance_of_the_noise_is_that_of_the_batches(kind, replace):
    made, start = problems()
    problem, N = made[kind], made[kind].num_samples
    start = ld.TwoLayer(start.U, start.V[: problem.num_outputs])
    Theta = start.product()
    diffusion = _diffusion(ld.Minibatch(2, replace=replace), problem)
    M = np.asarray(jax.jit(jax.vmap(lambda dw: diffusion.gradient(start, problem, Theta, (dw,)).ravel()))(np.eye(N)))
    batches = itertools.product(range(N), repeat=2) if replace else itertools.combinations(range(N), 2)
    rows = jax.jit(jax.vmap(lambda index: problem.rows(index).loss_gradient(Theta).ravel()))
    G = np.asarray(rows(np.array(list(batches))))
    G = G - np.mean(G, axis=0)
    assert relative_error(M.T @ M, G.T @ G / len(G)) < 1e-13


def test_covariance_of_labels_in_batches():
    problem, start = problems()[0]["least squares"], problems()[1]
    Theta = start.product()
    diffusion = _diffusion((ld.Minibatch(2), ld.LabelNoise(0.3)), problem)
    (_, shape) = diffusion.shapes
    zero = jnp.zeros(6)
    push = lambda dB: diffusion.gradient(start, problem, Theta, (zero, dB.reshape(shape))).ravel()  # noqa: E731
    M = np.asarray(jax.jit(jax.vmap(push))(np.eye(np.prod(shape))))
    # Each of the labels of a batch counts N/B times, B/N of the steps.
    gram = np.asarray(problem.X).T @ np.asarray(problem.X)
    assert relative_error(M.T @ M, 0.7**2 * 0.3**2 * 3 * np.kron(gram, np.eye(3))) < 1e-13


@pytest.mark.parametrize(
    "noise",
    [pytest.param(ld.Minibatch(2), marks=pytest.mark.slow), (ld.Minibatch(3, replace=True), ld.LabelNoise(0.4))],
    ids=["batch", "both"],
)
def test_paths_are_the_same_at_both_sizes(noise):
    X, Y, U, V = data(20)
    problem = ld.LeastSquares(X, Y, scale="mean")
    options = {
        "noise": noise,
        "step_size": 0.05,
        "key": KEY,
        "observables": {"Theta": lambda model, _: model.product()},
    }
    start = ld.TwoLayer(U, V)
    small, full = (
        ld.stochastic_flow(start, problem, [0.0, 0.5, 1.0], reduce=reduce, **options) for reduce in (True, False)
    )
    assert bool(small.ok) and int(small.stats["num_steps"]) == 80
    assert relative_error(small.final.U, full.final.U) < tolerance("float64")
    other = ld.stochastic_flow(start, problem, [0.0, 0.5, 1.0], **options | {"key": jax.random.key(3)})
    assert relative_error(small.final.U, other.final.U) > 1e-3


def test_without_noise_it_is_euler_on_the_flow():
    X, Y, U, V = data(4)
    problem, start = ld.LeastSquares(X, Y, scale="mean"), ld.TwoLayer(U, V)
    out = ld.stochastic_flow(start, problem, [1.0], noise=ld.Minibatch(12), step_size=0.1, key=KEY, substeps=2)
    for _ in range(20):
        G = X.T @ (X @ U @ V.T - Y) / len(X)
        U, V = U - 0.05 * G @ V, V - 0.05 * G.T @ U
    assert relative_error(out.final.U, U) < tolerance("float64")


def test_pathwise_derivatives_are_central_differences():
    X, Y, U, V = data(4)
    problem = ld.LeastSquares(X, Y, scale="mean")

    def loss(numbers):
        size, std = numbers
        noise = (ld.Minibatch(2), ld.LabelNoise(std))
        start, options = ld.TwoLayer(size * U, V), {"step_size": 0.1, "key": KEY, "substeps": 1, "max_steps": 16}
        return ld.stochastic_flow(start, problem, [0.5, 1.0], noise=noise, **options).final_observables["loss"]

    at, step = jnp.asarray([1.0, 0.3]), 1e-6
    both = jax.jit(jax.value_and_grad(loss))
    gradient = both(at)[1]
    for i, unit in enumerate(jnp.eye(2)):
        central = (both(at + step * unit)[0] - both(at - step * unit)[0]) / (2 * step)
        assert abs(float(gradient[i] - central)) < 1e-7 * max(1.0, abs(float(central)))
    assert np.all(np.abs(gradient) > 1e-3)


# -- orders ------------------------------------------------------------------------------------------------------------


def scalar():
    x, y = np.array([[0.5], [1.0], [1.5], [2.0]]), np.array([[1.5], [-0.5], [2.5], [1.0]])
    return ld.LeastSquares(x, y, scale="mean"), ld.TwoLayer(np.array([[1.2]]), np.array([[0.4]]))


def strong_error(drift, slope, constant, start, coarse, fine):
    """E[(x - y)^2] at time 1 of Euler-Maruyama in so many and in more steps, on `dx = -drift x dt + (slope x + constant) dW`."""
    h, parts = 1 / fine, fine // coarse
    # Where the coarse step began, the coarse path on its way, and the fine one.
    A = np.array([[1, 0, 0], [-drift * h, 1, 0], [0, 0, 1 - drift * h]])
    B, d = np.array([[slope, 0, 0], [slope, 0, 0], [0, 0, slope]]), constant * np.ones(3)
    B[0], d[0] = 0, 0
    mean, square = start * np.ones(3), start**2 * np.ones((3, 3))
    for k in range(fine):
        if k % parts == 0:
            begin = np.array([[0, 1, 0], [0, 1, 0], [0, 0, 1]])
            mean, square = begin @ mean, begin @ square @ begin.T
        cross = np.outer(B @ mean, d)
        spread = B @ square @ B.T + cross + cross.T + np.outer(d, d)
        mean, square = A @ mean, A @ square @ A.T + h * spread
    return square[1, 1] - 2 * square[1, 2] + square[2, 2]


@pytest.mark.parametrize(
    ("noise", "order"),
    [(ld.Minibatch(1, replace=True), 0.5), pytest.param(ld.LabelNoise(1.0), 1.0, marks=pytest.mark.slow)],
    ids=["batches", "labels"],
)
def test_strong_errors_are_those_of_euler_maruyama_whose_order_is_one_half_or_one(noise, order):
    # Samples that are all fitted: batches move the error w by `dw = -a w dt + b w dW`, labels by a constant.
    x, trials, coarse, fine = np.array([[0.4], [1.2]]), 20_000, 4, 16
    problem, a = ld.LeastSquares(x, 2 * x, scale="mean"), float(np.mean(x**2))
    start, begin = ld.LinearModel(np.array([[1.0]])), -1.0
    if order == 0.5:
        # Of two samples the gradients differ by `(x_1^2 - x_2^2) w`: half of it either way, with equal chances.
        a, slope, constant = a, float(np.diff(x[:, 0] ** 2)[0]) / 2, 0.0
    else:
        slope, constant = 0.0, float(np.sqrt(a / 2))

    def end(key, substeps):
        options = {"step_size": 1.0, "key": key, "substeps": substeps, "observables": (), "max_steps": 32}
        return ld.stochastic_flow(start, problem, [1.0], noise=noise, **options).final.Theta[0, 0]

    # Paths of the same Brownian motion.
    keys = jax.random.split(KEY, trials)
    ends = [np.asarray(jax.jit(jax.vmap(lambda key, k=k: end(key, k)))(keys)) for k in (coarse, fine)]
    squares = (ends[1] - ends[0]) ** 2
    expected, error = strong_error(a, slope, constant, begin, coarse, fine), squares.std() / trials**0.5
    print(squares.mean(), expected, error)
    assert abs(squares.mean() - expected) < 4 * error and error < 0.03 * expected
    # And these have that order, by then to a hundredth; while the drift counts it is above one half.
    errors = [strong_error(a, slope, constant, begin, k, 4 * k) for k in (4, 256, 1024)]
    slopes = -np.diff(np.log(errors)) / 2 / np.log([64, 4])
    assert abs(slopes[1] - order) < 0.01 and (slopes[0] > slopes[1] or order == 1)


def plane():
    rng = np.random.default_rng(6)
    X = rng.normal(size=(6, 2))
    return ld.LeastSquares(X, X @ np.array([[1.0], [-0.5]]) + rng.normal(size=(6, 1)) / 2, scale="mean")


def linear_moments(eta, substeps, time=1.0):
    """Mean and covariance of two weights under Euler-Maruyama, exactly; with one step for each of descent, those of descent."""
    x, y = np.asarray(plane().X), np.asarray(plane().Y).ravel()
    H, b, dt, mean = x.T @ x / len(x), x.T @ y / len(x), eta / substeps, np.array([0.3, 0.2])
    square = np.outer(mean, mean)
    for _ in range(round(time / dt)):
        squares = np.einsum("ij,jk,ik->i", x, square, x) - 2 * y * (x @ mean) + y**2
        both = H @ square @ H - H @ np.outer(mean, b) - np.outer(b, mean) @ H + np.outer(b, b)
        spread = (x.T * squares) @ x / len(x) - both
        cross = square @ H - np.outer(mean, b)
        square = square - dt * (cross + cross.T) + dt**2 * both + eta * dt * spread
        mean = mean - dt * (H @ mean - b)
    return mean, square - np.outer(mean, mean)


def test_mean_and_covariance_of_descent_are_those_of_the_flow_to_their_orders():
    problem, start, trials = plane(), ld.LinearModel(np.array([[0.3], [0.2]])), 30_000
    # One step for each of descent has its moments; many have those of the flow.
    pairs = [zip(linear_moments(eta, 1), linear_moments(eta, 128), strict=True) for eta in (0.05, 0.025, 0.0125)]
    errors = [[np.linalg.norm(a - b) for a, b in pair] for pair in pairs]
    slopes = np.diff(np.log2(errors), axis=0)
    print(errors, slopes)
    np.testing.assert_allclose(slopes[-1], [-1, -2], atol=0.15)

    def descent(key):
        noise = ld.Minibatch(1, key=key)
        out = ld.gradient_descent(start, problem, 10, optimizer=optax.sgd(0.1), noise=noise, observables=())
        return out.final.Theta[:, 0]

    def flow(key):
        options = {"step_size": 0.1, "key": key, "substeps": 2, "observables": (), "max_steps": 64}
        return ld.stochastic_flow(start, problem, [1.0], noise=ld.Minibatch(1), **options).final.Theta[:, 0]

    for run, substeps in ((descent, 1), (flow, 2)):
        ends = np.asarray(jax.jit(jax.vmap(run))(jax.random.split(KEY, trials)))
        mean, covariance = linear_moments(0.1, substeps)
        products = np.einsum("ti,tj->tij", ends - mean, ends - mean)
        error = np.sqrt(np.diag(covariance) / trials)
        assert np.all(np.abs(np.mean(ends, axis=0) - mean) < 4 * error)
        assert np.all(np.abs(np.mean(products, axis=0) - covariance) < 4 * np.std(products, axis=0) / np.sqrt(trials))
        assert np.any(np.abs(linear_moments(0.1, 3 - substeps)[0] - mean) > 4 * error)


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_noise_without_such_a_limit_is_refused():
    X, Y, U, V = data(4)
    problem, start = ld.LeastSquares(X, Y), ld.TwoLayer(U, V)
    unchecked = inspect.unwrap(ld.stochastic_flow)

    def run(noise, problem=problem, ts=(1.0,), **options):
        return unchecked(start, problem, ts, **{"noise": noise, "step_size": 0.1, "key": KEY} | options)

    batch = ld.Minibatch(2)
    logistic = ld.Logistic(X, (Y > 0).astype(float))
    custom = ld.CustomProblem(lambda Theta: jnp.sum(Theta**2), 6, 3)
    cases = [
        ("there is none: use `gradient_flow`", lambda: run(ld.FullBatch())),
        ("those of epochs are not", lambda: run(ld.Minibatch(2, replace="epoch"))),
        ("those of given indices are not", lambda: run(ld.Minibatch(indices=np.zeros((3, 2), int)))),
        ("has a Online", lambda: run(ld.Online(ld.Teacher(U @ V.T), key=KEY))),
        ("not known to be a sum over samples", lambda: run(batch, custom)),
        (
            "linear in the targets, as for least squares, but the problem is a Logistic",
            lambda: run(ld.LabelNoise(0.1), logistic),
        ),
        ("`size` must be at most the number of samples, 12", lambda: run(ld.Minibatch(13))),
        ("`step_size` must be a positive number", lambda: run(batch, step_size=-1.0)),
        ("`substeps` must be at least 1", lambda: run(batch, substeps=0)),
        ("`max_steps` must be at least 1", lambda: run(batch, max_steps=0)),
        ("`ts` must increase strictly", lambda: run(batch, ts=(1.0, 1.0))),
        ("does not fit the problem", lambda: run(batch, ld.LeastSquares(X[:, :3], Y))),
    ]
    for match, call in cases:
        with pytest.raises(ValueError, match=match):
            call()


def test_a_path_without_enough_steps_says_so():
    X, Y, U, V = data(4)
    options = {"noise": ld.Minibatch(2), "step_size": 0.1, "key": KEY, "max_steps": 3}
    out = ld.stochastic_flow(ld.TwoLayer(U, V), ld.LeastSquares(X, Y), [1.0], **options)
    assert int(out.result) == ld.trajectory.STEP_LIMIT
