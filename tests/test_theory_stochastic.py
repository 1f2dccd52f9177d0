"""Statements on noise: exact means over all batches, Monte Carlo within four standard errors, and their limits."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import Compiled, relative_error
from scipy import optimize

import lindyn_jax as ld

KEY = jax.random.key(5)
theory = Compiled(ld.theory)


def setting(N=5, n=3, m=2, h=4, rank=None, seed=0, **options):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, n)) if rank is None else rng.normal(size=(N, rank)) @ rng.normal(size=(rank, n))
    problem = ld.LeastSquares(X, rng.normal(size=(N, m)), **options)
    return problem, ld.TwoLayer(rng.normal(size=(n, h)) / 2, rng.normal(size=(m, h)) / 2)


def imbalance(model, problem):
    U1, V = theory.moving_layers(model, problem)
    return U1.T @ U1 - V.T @ V


def assert_mean(draws, expected, errors=4.0):
    """The mean of draws (trials first) is what is expected, to so many standard errors of each entry."""
    error = np.std(draws, axis=0) / np.sqrt(len(draws))
    np.testing.assert_array_less(np.abs(np.mean(draws, axis=0) - expected), errors * error)
    # What is tested is not itself within the errors.
    assert np.max(np.abs(expected)) > 10 * np.max(error)


def one_step_drifts(model, problem, eta, make, trials=20_000):
    """D+ - D of one step for many keys."""

    def drift(key):
        out = ld.gradient_descent(model, problem, 1, optimizer=optax.sgd(eta), noise=make(key), observables=())
        return imbalance(out.final, problem) - imbalance(model, problem)

    return np.asarray(jax.jit(jax.vmap(drift))(jax.random.split(KEY, trials)))


BY_DRAWS = pytest.mark.parametrize("by_draws", [False, pytest.param(True, marks=pytest.mark.slow)])


# -- batches -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["least squares", "identity", "sigmoid", "logistic"])
def test_drift_of_batches_is_the_mean_over_all_of_them(kind):
    problem, model = setting(rank=2, scale=0.7, output_scale=1.3)
    if kind == "identity":
        problem = ld.factorization(problem.Y[:3])
    elif kind == "sigmoid":
        problem = ld.LeastSquares(problem.X, problem.Y, link="sigmoid")
    elif kind == "logistic":
        labels = np.arange(10).reshape(5, 2) % 3 > 0
        problem = ld.Logistic(problem.X, labels, weights=np.arange(1.0, 6), scale="mean")
    U1, V = theory.moving_layers(model, problem)
    N, small = problem.num_samples, problem.sampled()

    @jax.jit
    @jax.vmap
    def change(index):
        G = small.rows(index).restrict()[0].loss_gradient(U1 @ V.T)
        GU, GV = 0.1 * G @ V, 0.1 * G.T @ U1
        return GU.T @ GU - GV.T @ GV

    for replace, batches in (
        (False, itertools.combinations(range(N), 2)),
        (True, itertools.product(range(N), repeat=2)),
    ):
        mean = np.mean(change(np.array(list(batches))), axis=0)
        assert relative_error(theory.batch_drift(model, problem, 0.1, 2, replace=replace), mean) < 1e-13
    if kind == "least squares":
        full = theory.batch_drift(model, problem, 0.1, N)
        spectrum = np.linalg.eigvalsh(full)[::-1]
        assert relative_error(spectrum, theory.drift_spectrum(model, problem, 0.1).spectrum) < 1e-13


def test_drift_of_batches_of_a_reduced_run():
    problem, model = setting(h=9)
    drifts = one_step_drifts(model, problem, 0.1, lambda key: ld.Minibatch(1, key=key))
    assert_mean(drifts, theory.batch_drift(model, problem, 0.1, 1))


@BY_DRAWS
def test_drift_of_fresh_gaussian_inputs(by_draws):
    rng = np.random.default_rng(3)
    A, (_, model) = rng.normal(size=(3, 2)), setting()
    U, V = model.U, model.V
    R, eta = np.asarray(A - U @ V.T), 0.1
    U, V = np.asarray(U), np.asarray(V)
    # The formula for Sigma = I, one input at a time.
    expected = eta**2 * (5 * V.T @ R.T @ R @ V - np.sum(R**2) * U.T @ U - 2 * U.T @ R @ R.T @ U)
    identity = ld.factorization(A)
    assert relative_error(theory.online_drift(model, identity, eta), expected) < 1e-14
    # Any covariance, several at a time, q and c.
    problem, model = setting(scale=0.6)
    teacher = ld.Teacher.of(problem, 3)
    if by_draws:
        drifts = one_step_drifts(model, problem, eta, lambda key: ld.Online(teacher, key=key), 40_000)
        assert_mean(drifts, theory.online_drift(model, problem, eta, 3))
    scaled = ld.LeastSquares(problem.X / 2, problem.Y, scale=0.6, output_scale=2.0)
    assert (
        relative_error(theory.online_drift(model, scaled, eta, 3), theory.online_drift(model, problem, eta, 3)) < 1e-13
    )


# -- label noise -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["tall", "deficient", "identity"])
def test_drift_of_label_noise(which):
    problem, model = {
        "tall": lambda: setting(scale=0.5, output_scale=1.5),
        "deficient": lambda: setting(rank=2, m=4),
        "identity": lambda: (ld.factorization(np.arange(6.0).reshape(3, 2) / 5), setting()[1]),
    }[which]()
    eta, std = 0.1, 0.7
    expected = theory.label_noise_drift(model, problem, eta, std)
    drifts = one_step_drifts(model, problem, eta, lambda key: ld.LabelNoise(std, key=key))
    assert_mean(drifts, expected)

    # What noise adds is eta times the velocity of D down the gradient of (eta q delta^2/4) tr H.
    def added(model):
        return theory.label_noise_loss(model, problem, eta, std).value - ld.observables.loss(model, problem)

    pull, (U1, V) = jax.jit(jax.grad(added))(model), theory.moving_layers(model, problem)
    half = U1.T @ problem.to_data(pull.U) - V.T @ pull.V
    plain = theory.label_noise_drift(model, problem, eta, 0.0)
    assert relative_error(expected - plain, -eta * (half + half.T)) < 1e-13


def test_trace_of_the_hessian():
    problem, model = setting(rank=2, m=4, scale=0.5, output_scale=1.5)
    flat, unravel = jax.flatten_util.ravel_pytree(model)
    H = jax.jit(jax.hessian(lambda flat: ld.observables.loss(unravel(flat), problem)))(flat)
    noisy = jax.jit(theory.label_noise_loss)
    said = noisy(model, problem, 0.1, 0.5)
    assert relative_error(said.trace, jnp.trace(H)) < 1e-12
    loss = ld.observables.loss(model, problem)
    assert relative_error(said.value, loss + 0.1 * 0.5 * 0.25 / 4 * jnp.trace(H)) < 1e-12
    assert bool(noisy(model, problem, 1e-3, 0.5).applies) and not noisy(model, problem, 10.0, 0.5).applies


def test_least_trace_is_reached_where_the_layers_are_balanced():
    problem, model = setting(rank=2, m=4, h=6)
    said = theory.label_noise_loss(model, problem, 0.1, 0.5)
    # m U1^T S^2 U1 = ||S||^2 V^T V: from the singular vectors of S Theta1.
    U1, V = theory.moving_layers(model, problem)
    s = np.asarray(problem.singular_values)[:, None]
    W, sigma, ZT = np.linalg.svd(s * np.asarray(U1 @ V.T), full_matrices=False)
    ratio = (np.sum(s**2) / 4) ** 0.25
    U1b, Vb = W * np.sqrt(sigma) * ratio / s, ZT.T * np.sqrt(sigma) / ratio
    balanced = ld.TwoLayer(problem.from_data(jnp.asarray(U1b)), Vb)
    again = theory.label_noise_loss(balanced, problem, 0.1, 0.5)
    assert relative_error(again.least_trace, said.least_trace) < 1e-12
    assert relative_error(again.trace, said.least_trace) < 1e-12 and said.trace > 1.2 * said.least_trace
    # There noise no longer moves D.
    moved = theory.label_noise_drift(balanced, problem, 0.1, 2.0) - theory.label_noise_drift(
        balanced, problem, 0.1, 0.0
    )
    assert np.max(np.abs(moved)) < 1e-13


def noisy_path(start, problem, eta, std, steps, trials, measure):
    """What is measured at the end of noisy descent, for many keys at once."""

    def run(key):
        out = ld.gradient_descent(
            start, problem, steps, optimizer=optax.sgd(eta), noise=ld.LabelNoise(std, key=key), observables=()
        )
        return measure(out.final)

    return np.asarray(jax.jit(jax.vmap(run))(jax.random.split(KEY, trials)))


def test_label_noise_makes_the_imbalance_decay():
    start = ld.TwoLayer(np.diag([1.5, 1.2]), np.diag([0.5, 0.4]))
    problem = ld.factorization(start.product())
    D0, ratios, errors = imbalance(start, problem), [], []
    # Rates beside the law's: to first order in the step they differ, and the difference halves with it.
    for eta, steps in ((0.04, 50), (0.02, 200)):
        law = theory.label_noise_decay(problem, eta, 1.0, steps)
        left = noisy_path(
            start, problem, eta, 1.0, steps, 10_000, lambda m: jnp.sum(D0 * imbalance(m, problem)) / jnp.sum(D0**2)
        )
        assert bool(law.applies)
        ratios.append(np.log(np.mean(left)) / np.log(float(law.value)))
        errors.append(np.std(left) / np.sqrt(len(left)) / np.mean(left) / abs(np.log(float(law.value))))
    assert ratios[0] - 1 > 4 * errors[0]
    assert abs(2 * ratios[1] - ratios[0] - 1) < 4 * np.hypot(2 * errors[1], errors[0]) + 0.04**2 * 10
    assert not theory.label_noise_decay(ld.factorization(np.ones((3, 2))), 0.1, 1.0, 3).applies


@BY_DRAWS
def test_label_noise_on_batches_takes_the_more_imbalance_the_smaller_they_are(by_draws):
    # At a solution of two layers with r = m, all singular values 1, and more samples than directions.
    rng = np.random.default_rng(1)
    W, U, V = np.linalg.qr(rng.normal(size=(6, 2)))[0], np.diag([1.5, 1.2]), np.diag([0.5, 0.4])
    problem, start = ld.LeastSquares(W, W @ U @ V.T), ld.TwoLayer(U, V)
    noise = lambda key: ld.Minibatch(2, key=key) + ld.LabelNoise(1.0, key=key)  # noqa: E731
    # Of one step: the law's rate times N/B, on what label noise moves.
    expected = 3 * theory.label_noise_drift(start, problem, 0.01, 1.0)
    if by_draws:
        assert_mean(one_step_drifts(start, problem, 0.01, noise), expected)
    law = theory.label_noise_decay(problem, 0.01, 1.0, 1.0, size=2)
    assert relative_error(expected, (law.value - 1) * imbalance(start, problem)) < 1e-3 and bool(law.applies)
    whole = theory.label_noise_decay(problem, 0.01, 1.0, 3.0)
    assert relative_error(law.value, whole.value) < 1e-14
    # Where networks are: at first that of the flow, in the end that of balanced layers.
    X = np.linalg.qr(rng.normal(size=(7, 2)))[0].T
    seen = ld.LeastSquares(X, np.diag([2.0, 0.5]))
    widths = np.array([1e2, 1e6])
    first, last = (theory.label_noise_distance(seen, widths, 0.35, kept) for kept in (1.0, 0.0))
    assert relative_error(first.rms, theory.sharp_distance(seen, widths, 0.35).rms) < 1e-13
    assert relative_error(last.rms, np.sqrt(5 * 2.5) * widths**-0.35) < 1e-13 and bool(np.all(last.applies))
    assert not theory.label_noise_distance(problem_of_unequal(), 1e3, 0.5).applies


@BY_DRAWS
def test_label_noise_shrinks_the_product_as_a_nuclear_norm_does(by_draws):
    # At balanced layers; the mean of Theta is where the loss with what noise adds is least, to first order in the step.
    sigma, eta, std = np.array([1.0, 0.6]), 0.02, 1.0
    problem, start = ld.factorization(np.diag(sigma)), ld.TwoLayer(np.diag(sigma**0.5), np.diag(sigma**0.5))
    t = eta * std**2 * 2 / 2
    if by_draws:
        ends = noisy_path(start, problem, eta, std, 200, 5_000, lambda m: jnp.diagonal(m.product()))
        most = 4 * np.std(ends, axis=0) / np.sqrt(len(ends)) + 5 * t**2
        assert np.all(np.abs(np.mean(ends, axis=0) - (sigma - t)) < most) and np.all(most < t / 2)
    # Wide networks are then as near as that says, and less is lost where imbalance is left.
    X = np.linalg.qr(np.random.default_rng(1).normal(size=(7, 2)))[0].T
    seen, h = ld.LeastSquares(X, np.diag(sigma)), 1e6
    last = theory.label_noise_distance(seen, h, 0.5, 0.0, shrinkage=t).rms
    assert relative_error(last, np.sqrt(5 * np.sum(sigma - t) / h)) < 1e-13
    assert theory.label_noise_distance(seen, h, 0.5, 0.0, shrinkage=2.0).rms == 0
    half = theory.label_noise_distance(seen, h, 0.5, 0.5, shrinkage=t).rms
    trace = float(half) ** 2 * h / 5
    root = np.array([optimize.brentq(lambda x, s=s: x + t * x / np.hypot(0.5, x) - s, 0, s) for s in sigma])
    assert relative_error(trace, np.sum(np.hypot(0.5, root))) < 1e-13


def problem_of_unequal():
    return ld.LeastSquares(np.eye(2, 5) * np.array([[2.0], [1.0]]), np.ones((2, 2)))


# -- mean square -------------------------------------------------------------------------------------------------------


def moments(hessians, eta):
    """The matrix that moves E[w w^T], from all Hessians of batches."""
    return np.mean([np.kron(A, A) for A in np.eye(hessians.shape[1]) - eta * hessians], axis=0)


@pytest.mark.parametrize("replace", [False, True])
def test_mean_square_step_of_one_layer_is_where_second_moments_stay(replace):
    problem, _ = setting(N=5, n=3, scale=0.4, output_scale=1.5)
    model, X = ld.LinearModel(np.zeros((3, 2))), 1.5 * np.asarray(problem.X)
    batches = itertools.product(range(5), repeat=2) if replace else itertools.combinations(range(5), 2)
    hessians = np.array([0.4 * 5 / 2 * X[list(B)].T @ X[list(B)] for B in batches])
    said = theory.batch_stable_step(model, problem, 2, replace=replace)
    assert bool(said.applies) and bool(said.converged)
    radius = lambda eta: np.max(np.abs(np.linalg.eigvals(moments(hessians, eta))))  # noqa: E731
    assert abs(radius(float(said.value)) - 1) < 1e-10
    assert radius(0.97 * float(said.value)) < 1 < radius(1.03 * float(said.value))
    assert (
        said.value
        < theory.batch_stable_step(model, problem, 4, replace=replace).value
        < 2 / theory.sharpness(model, problem).value
    )


def test_second_moments_of_descent_stay_at_the_stable_step():
    problem, _ = setting(N=5, n=3, m=1, scale=0.4)
    problem, X = ld.LeastSquares(problem.X, problem.X @ np.ones((3, 1)), scale=0.4), np.asarray(problem.X)
    eta = float(theory.batch_stable_step(ld.LinearModel(np.zeros((3, 1))), problem, 2).value)
    hessians = np.array([2.0 * 0.5 * X[list(B)].T @ X[list(B)] for B in itertools.combinations(range(5), 2)])
    values, vectors = np.linalg.eig(moments(hessians, eta))
    C = np.real(vectors[:, np.argmax(np.real(values))]).reshape(3, 3)
    C, trials = C / np.trace(C), 40_000
    start = np.random.default_rng(8).normal(size=(trials, 3)) @ np.linalg.cholesky(C).T

    def end(w, key):
        noise, step = ld.Minibatch(2, key=key), ld.plain_descent(eta)
        out = ld.gradient_descent(
            ld.LinearModel(1 + w[:, None]), problem, 3, optimizer=step, noise=noise, observables=()
        )
        return jnp.outer(out.final.Theta[:, 0] - 1, out.final.Theta[:, 0] - 1)

    assert_mean(np.asarray(jax.jit(jax.vmap(end))(start, jax.random.split(KEY, trials))), C)


def test_mean_square_step_of_two_layers_is_that_of_all_weights():
    rng = np.random.default_rng(2)
    model = ld.TwoLayer(rng.normal(size=(2, 3)), rng.normal(size=(2, 3)))
    X = rng.normal(size=(4, 2))
    problem = ld.LeastSquares(X, X @ model.product(), scale="mean")
    flat, unravel = jax.flatten_util.ravel_pytree(model)
    batches = jnp.asarray(list(itertools.combinations(range(4), 2)))
    samples = problem.sampled()
    loss = lambda flat, index: samples.rows(index).loss(unravel(flat).product())  # noqa: E731
    hessians = np.asarray(jax.jit(jax.vmap(jax.hessian(loss), (None, 0)))(flat, batches))
    said = theory.batch_stable_step(model, problem, 2)
    assert bool(said.applies) and bool(said.converged)
    # Directions of the weights that do not move the product keep 1.
    radius = lambda eta: np.max(np.abs(np.linalg.eigvals(moments(hessians, eta))))  # noqa: E731
    assert radius(0.99 * float(said.value)) < 1 + 1e-10 and radius(1.01 * float(said.value)) > 1 + 1e-4
    whole = theory.batch_stable_step(model, problem, 4)
    assert relative_error(whole.value, ld.stable_step(model, problem, 1.0, at="solution")) < 1e-7
    off = ld.TwoLayer(model.U, 2 * model.V)
    assert not theory.batch_stable_step(off, problem, 2).applies


def test_mean_square_step_of_gaussian_inputs():
    problem, _ = setting(N=6, n=3, m=1, scale=0.5)
    single = ld.LeastSquares(np.ones((1, 1)), np.ones((1, 1)))
    one = ld.LinearModel(np.zeros((1, 1)))
    assert relative_error(theory.batch_stable_step(one, single, 1, inputs="gaussian").value, 2 / 3) < 1e-14
    model = ld.LinearModel(np.zeros((3, 1)))
    eta = float(theory.batch_stable_step(model, problem, 2, inputs="gaussian").value)
    # From the second moment that stays as it is, a step leads back to it.
    mu = 0.5 * np.asarray(problem.singular_values) ** 2
    C = mu**0 / (2 - eta * mu * 1.5)
    rng = np.random.default_rng(4)
    w = np.sqrt(C) * rng.normal(size=(200_000, 3))
    x = np.sqrt(mu) * rng.normal(size=(2, 200_000, 3))
    moved = w - eta * np.mean(np.sum(x * w, axis=2, keepdims=True) * x, axis=0)
    assert_mean(moved**2, C)
    many = theory.batch_stable_step(model, problem, 10**9, inputs="gaussian").value
    assert relative_error(many * theory.sharpness(model, problem).value, 2) < 1e-7


@pytest.mark.parametrize("inputs", ["samples", "gaussian"])
def test_mean_square_step_has_a_derivative(inputs):
    problem, model = setting(N=6, n=3, m=2, h=3)

    def value(x):
        scaled = ld.TwoLayer(model.U * x[0], model.V.at[0].multiply(x[1]))
        return theory.batch_stable_step(scaled, problem, 2, inputs=inputs).value

    at, step = jnp.asarray([1.1, 0.9]), 1e-5
    both = jax.jit(jax.value_and_grad(value))
    gradient = both(at)[1]
    for i, unit in enumerate(jnp.eye(2)):
        central = (both(at + step * unit)[0] - both(at - step * unit)[0]) / (2 * step)
        assert abs(float(gradient[i] - central)) < 1e-6 * abs(float(central))


def test_statements_refuse_what_they_do_not_know():
    (problem, model), theory = setting(), ld.theory
    cases = [
        ("`size` must be at most the number of samples, 5", lambda: theory.batch_drift(model, problem, 0.1, 6)),
        ("`size` must be a whole number of at least 1", lambda: theory.online_drift(model, problem, 0.1, 0)),
        ("not known to be a sum", lambda: theory.batch_drift(model, ld.CustomProblem(jnp.sum, 3, 2), 0.1, 2)),
        (
            "must be one of inputs and outputs",
            lambda: theory.batch_drift(model, ld.MatrixCompletion(np.ones((3, 2))), 0.1, 2),
        ),
        ("network of two layers", lambda: theory.label_noise_drift(ld.LinearModel(np.ones((3, 2))), problem, 0.1, 0.1)),
        (
            "is for one or two layers, but the model has 3",
            lambda: theory.batch_stable_step(ld.DeepLinear((np.ones((3, 2)), np.eye(2), np.eye(2))), problem, 2),
        ),
        ("but is a Penalised", lambda: theory.label_noise_loss(model, problem.regularized(1.0), 0.1, 0.1)),
        ("but is a Penalised", lambda: theory.batch_stable_step(model, problem.regularized(1.0), 2)),
    ]
    for match, call in cases:
        with pytest.raises(ValueError, match=match):
            call()


# Three hundred million steps of a trial each.
LONG = (pytest.mark.slow, pytest.mark.timeout(3000))
# Decay times of the imbalance, over the variance of the labels.
TIME = 2.56
GENERAL = np.array([[1.0, 0.3, 0.0], [0.0, 0.8, 0.2], [0.1, 0.0, 1.1]])


@pytest.mark.parametrize(
    ("X", "trials", "etas"),
    [
        (None, 1000, (0.08, 0.04)),
        pytest.param(None, 10_000, (0.04, 0.02, 0.01), marks=LONG),
        pytest.param(GENERAL, 10_000, (0.04, 0.02, 0.01), marks=LONG),
    ],
    ids=["I", "I, many", "X, many"],
)
def test_label_noise_ends_where_the_trace_is_least(X, trials, etas):
    start = ld.TwoLayer(np.array([[1.5, 0], [0, 1.2], [0, 0]]), np.diag([0.5, 0.4]))
    product = start.product()
    problem, above = ld.factorization(product) if X is None else ld.LeastSquares(X, X @ product), []

    def ratio(model):
        said = theory.label_noise_loss(model, problem, 0.1, 1.0)
        return said.trace / said.least_trace

    # For X = I m ||U||^2 + n ||V||^2 over 2 sqrt(nm) ||Theta||_*: one but for fluctuations, of first order in the step.
    for eta in etas:
        ends = noisy_path(start, problem, eta, 1.0, round(TIME / eta**2), trials, ratio)
        above.append((np.mean(ends) - 1, np.std(ends) / np.sqrt(len(ends))))
    print(above, ratio(start))
    assert ratio(start) > 1.4 and all(
        abs(mean - 0.125 * eta) < 0.125 * eta + 4 * error for eta, (mean, error) in zip(etas, above, strict=True)
    )
    if len(etas) == 3:
        # And nothing is left of it in the limit of small steps: steps of one, two and four times the least.
        weights = np.array([1, -6, 8]) / 3
        assert abs(weights @ np.array(above)[:, 0]) < 4 * np.linalg.norm(weights * np.array(above)[:, 1])
