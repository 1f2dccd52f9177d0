"""Where the flow of separable classes goes: against max-margin solutions by quadratic programming, to t = 1e12 and beyond."""

import inspect
from itertools import pairwise

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import relative_error
from scipy.optimize import nnls

import lindyn_jax as ld
from lindyn_jax import trajectory

N, n, h = 6, 3, 6
unchecked = inspect.unwrap(ld.direction)


def data(close=2.2):
    """Samples on both sides: the first three support the largest margin, a sixth is as close as asked for."""
    X = np.array([[1, 1, 0], [1, -0.5, 0.8], [1, -0.5, -1.2], [2.5, 0.5, -0.5], [3, -1, 1], [close, 0.3, 0.9]])
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(n, n)))
    y = np.array([1, 0, 1, 0, 1, 0.0])
    return (2 * y[:, None] - 1) * X @ turn, y


def mixed():
    """Samples that no plane separates."""
    X, y = data()
    return np.vstack([X, X[:2]]), np.append(y, 1 - y[:2])


def least_norm(A):
    """The least w with A w >= 1 (Lawson and Hanson's least distance programming)."""
    E = np.vstack([A.T, np.ones(len(A))])
    weights, _ = nnls(E, np.append(np.zeros(A.shape[1]), 1.0), maxiter=1000)
    residual = E @ weights - np.append(np.zeros(A.shape[1]), 1.0)
    return -residual[:-1] / residual[-1]


def start_of(depth, size=0.05, seed=1):
    """A start of this depth, small."""
    rng = np.random.default_rng(seed)
    widths = (n, *(h,) * (depth - 1), 1)
    layers = [rng.normal(size=shape) for shape in pairwise(widths)]
    scale = size ** (1 / depth)
    return {
        1: lambda: ld.LinearModel(scale * layers[0]),
        2: lambda: ld.TwoLayer(scale * layers[0], scale * layers[1].T),
        3: lambda: ld.DeepLinear(tuple(scale * W for W in layers)),
    }[depth]()


@pytest.fixture(scope="module")
def problem():
    return ld.Logistic(*data(), scale="mean")


@pytest.fixture(scope="module")
def best(problem):
    w = least_norm((2 * np.asarray(problem.Y) - 1) * np.asarray(problem.X))
    return w / np.linalg.norm(w)


def by_support_vectors(problem):
    """The direction of scikit-learn's machine, of samples and their mirror images: these leave no intercept."""
    svm = pytest.importorskip("sklearn.svm", reason="needs the extra `data`")
    X, y = np.asarray(problem.X), np.asarray(problem.Y)[:, 0]
    found = svm.SVC(kernel="linear", C=1e10, tol=1e-10).fit(np.r_[X, -X], np.r_[y, 1 - y]).coef_[0]
    return found / np.linalg.norm(found)


@pytest.mark.parametrize("depth", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
def test_the_angle_to_the_largest_margin_falls_like_one_over_log_t(depth, problem, best):
    ts = np.logspace(2, 12, 6)
    out = ld.gradient_flow(
        start_of(depth),
        problem,
        ts,
        observables={"Theta": lambda model, problem: problem.from_data(model.reduced_product(problem))},
        rtol=1e-7,
    )
    assert bool(out.ok)
    Theta = np.asarray(out.observables["Theta"])[..., 0]
    np.testing.assert_allclose(best, by_support_vectors(problem), atol=1e-6)
    along = Theta @ best
    angles = np.arctan2(np.linalg.norm(Theta - along[:, None] * best, axis=1), along)
    products = angles * np.log(ts)
    print("angle times log t", products)
    assert np.all(np.diff(angles[1:]) < 0) and angles[-1] < angles[1] / 2
    assert np.max(products[1:]) < 1.3 * np.min(products[1:])


@pytest.mark.parametrize("depth", [pytest.param(1, marks=pytest.mark.slow), 2, 3])
def test_the_direction_is_the_largest_margin_to_the_tolerance(depth, problem, best):
    for rtol in (1e-3, 1e-5):
        out = ld.direction(start_of(depth), problem, rtol=rtol)
        assert bool(out.ok) and out.error <= rtol
        found = np.asarray(out.direction)[:, 0]
        print("error", np.linalg.norm(found - best), "estimate", float(out.error), "log t", float(out.log_time))
        assert np.linalg.norm(found - best) < 3 * rtol and relative_error(np.linalg.norm(found), 1.0) < 1e-12
        largest = np.min((2 * np.asarray(problem.Y[:, 0]) - 1) * (np.asarray(problem.X) @ best))
        assert abs(float(out.margin) - largest) < 10 * rtol * largest


def test_classes_go_to_the_largest_margin_of_their_norm():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(10, n))
    problem = ld.Softmax(X, np.argmax(X, axis=1))
    best = least_norm(np.asarray(problem.separations()[0]))
    out = ld.direction(ld.LinearModel(np.zeros((n, n))), problem, rtol=1e-5)
    assert bool(out.ok) and np.linalg.norm(np.ravel(out.direction) - best / np.linalg.norm(best)) < 3e-5
    # Two layers: no direction of nuclear norm one has a larger margin than the spectral norm of any convex combination of
    # what the samples pull with, of which the gradient is one.
    start = ld.init.gaussian(n, n, 12, std=0.05, key=jax.random.key(0))
    two = ld.direction(start, problem, rtol=1e-3)
    D = np.asarray(two.direction)
    pulls = problem.hastened(ld.gradient_flow(start, problem, [1e15]).final.product(), jnp.asarray(0.0))
    bound = np.linalg.norm(X.T @ np.asarray(pulls), 2) / float(jnp.sum(problem.pulls(pulls, problem.Y)))
    reached = float(two.margin) / np.linalg.norm(D, "nuc")
    print("margin over nuclear norm", reached, "at most", bound)
    assert bool(two.ok) and reached <= bound * (1 + 1e-9) and reached > 0.95 * bound
    assert np.linalg.norm(D - np.asarray(out.direction)) > 1e-2


@pytest.mark.slow
def test_too_few_steps_say_so(problem):
    assert int(ld.direction(start_of(2), problem, max_steps=10).result) == trajectory.STEP_LIMIT


def test_no_log_time_is_too_late(problem, best):
    # A sample that is a per cent further than the nearest pulls like t^{-1/100}.
    out = ld.direction(start_of(2), ld.Logistic(*data(close=1.01), scale="mean"), rtol=1e-6)
    assert bool(out.ok) and out.log_time > 709
    assert np.linalg.norm(np.asarray(out.direction)[:, 0] - best) < 3e-6


def test_ends_that_are_not_reached_say_so(problem):
    early = ld.direction(start_of(2), problem, log_time=5.0)
    assert int(early.result) == trajectory.NOT_CONVERGED and relative_error(early.log_time, 5.0) < 1e-14
    X, labels = mixed()

    @jax.jit
    def traced(X):
        problem = ld.Logistic(X, labels, rank=n)
        return ld.direction(ld.LinearModel(jnp.zeros((n, 1))), problem, log_time=5.0, max_steps=1000)

    assert int(traced(X).result) == trajectory.NOT_CONVERGED and np.isinf(traced(X).error)


def test_what_has_no_direction_is_refused(problem):
    X, labels = mixed()
    start = start_of(1)
    for other, message in (
        (ld.Logistic(X, labels), "The data are not separable: no Theta puts every sample on the right side"),
        (ld.Softmax(X, labels), "The data are not separable"),
        (ld.LeastSquares(X, labels[:, None]), "is that of a classification, .* but the problem is a LeastSquares"),
        (ld.Huber(X, labels[:, None], 1.0), "but the problem is a Huber: use `limit`"),
    ):
        with pytest.raises(ValueError, match=message):
            unchecked(start if other.num_outputs == 1 else ld.LinearModel(np.zeros((n, 2))), other)
    for options, message in (({"log_time": 0.0}, "`log_time` must be a positive"), ({"max_steps": 0}, "at least 1")):
        with pytest.raises(ValueError, match=message):
            unchecked(start, problem, **options)


@pytest.mark.slow
def test_a_sample_on_the_wrong_side_does_not_count_where_its_weight_is_zero(problem):
    (X, labels), start = mixed(), start_of(1)
    without = ld.Logistic(X, labels, weights=np.append(np.ones(N), [0.0, 0.0]), scale="mean")
    one, other = (ld.direction(start, one, log_time=5.0).direction for one in (problem, without))
    assert relative_error(one, other) < 1e-9


@pytest.mark.slow
def test_directions_batch_and_have_one_derivative_in_both_modes(problem):
    change = np.random.default_rng(5).normal(size=(N, n))

    def at(x, adjoint=None, log_time=12.0):
        moved = ld.Logistic(problem.X + x * change, problem.Y, scale="mean", rank=n)
        out = ld.direction(start_of(2), moved, rtol=1e-9, log_time=log_time, adjoint=adjoint)
        return jnp.sum(jnp.array([1.0, 2.0, 3.0]) @ out.direction)

    forward = jax.jit(jax.jacfwd(lambda x: at(x, diffrax.ForwardMode())))(0.0)
    reverse = jax.jit(jax.grad(at))(0.0)
    xs = 1e-3 * jnp.array([-2.0, -1.0, 1.0, 2.0])
    values = jax.jit(jax.vmap(at))(xs)
    assert relative_error(values[2], at(xs[2])) < 1e-10
    difference = (8 * (values[2] - values[1]) - (values[3] - values[0])) / (12e-3)
    assert abs(forward - reverse) < 1e-9 * abs(forward) and abs(forward - difference) < 1e-5 * abs(difference)
