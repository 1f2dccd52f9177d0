"""The problem: loss, its scales, and the coordinates of the data."""

import inspect
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import relative_error, tolerance

import lindyn_jax as ld
from lindyn_jax import _checks

N, n, m = 5, 7, 3


@pytest.fixture
def data(rng):
    return rng.normal(size=(N, n)), rng.normal(size=(N, m)), rng.normal(size=(n, m))


@pytest.mark.parametrize(("scale", "q"), [("sum", 1.0), ("mean", 1 / N), ("averaged", 2 / N), (0.3, 0.3), (2, 2.0)])
def test_loss_has_the_scale_asked_for(scale, q, data):
    X, Y, Theta = data
    problem = ld.LeastSquares(X, Y, scale=scale)
    expected = q / 2 * np.sum((Y - X @ Theta) ** 2)
    assert relative_error(problem.loss(jnp.asarray(Theta)), expected) < tolerance("float64")


@pytest.mark.parametrize("link", [None, jax.nn.sigmoid])
@pytest.mark.parametrize("tall", [False, True])
def test_gradients_agree_with_automatic_ones(link, tall, data, rng):
    X, Y, Theta = data
    if tall:
        X, Y = rng.normal(size=(2 * n, n)), rng.normal(size=(2 * n, m))
    problem, Theta = ld.LeastSquares(X, Y, scale="mean", output_scale=0.6, link=link), jnp.asarray(Theta)
    gradient = problem.loss_gradient(Theta)
    assert relative_error(gradient, jax.grad(problem.loss)(Theta)) < tolerance("float64")
    Theta1 = problem.to_data(Theta)
    reduced = problem.reduced_loss_gradient(Theta1)
    assert relative_error(reduced, jax.grad(problem.reduced_loss)(Theta1)) < tolerance("float64")
    # The loss sees nothing but Phi1^T Theta, and its gradient lies in the range of Phi1.
    assert relative_error(problem.reduced_loss(Theta1), problem.loss(Theta)) < tolerance("float64")
    assert relative_error(problem.from_data(reduced), gradient) < tolerance("float64")


@pytest.mark.parametrize("tall", [False, True])
def test_minimum_and_excess_agree_with_the_pseudoinverse(tall, data, rng, dtype):
    X, Y, Theta = data
    if tall:
        X, Y = rng.normal(size=(3 * n, n)), rng.normal(size=(3 * n, m))
    problem = ld.LeastSquares(X.astype(dtype), Y.astype(dtype), output_scale=0.5)
    assert problem.dtype == dtype
    theta_hat = np.linalg.pinv(0.5 * X) @ Y
    # In float32 the condition number of X multiplies round-off.
    tol = tolerance(dtype, 100)
    assert relative_error(problem.theta_hat, theta_hat) < tol
    least = np.sum((Y - 0.5 * X @ theta_hat) ** 2) / 2
    assert relative_error(problem.loss_star, least) < tol
    Theta = jnp.asarray(Theta.astype(dtype))
    excess = np.sum((Y - 0.5 * X @ np.asarray(Theta)) ** 2) / 2 - least
    assert relative_error(problem.excess_loss(problem.to_data(Theta)), excess) < tol
    s = np.linalg.svd(0.5 * X, compute_uv=False)
    assert relative_error(problem.singular_values, s) < tol
    assert relative_error(problem.condition, (s[0] / s[-1]) ** 2) < tol


def test_rank_counts_what_is_above_the_tolerance(data, rng):
    _, Y, _ = data
    P, Q = np.linalg.qr(rng.normal(size=(N, 3)))[0], np.linalg.qr(rng.normal(size=(n, 3)))[0]
    X = P @ np.diag([2.0, 1.0, 1e-7]) @ Q.T
    problem = ld.LeastSquares(X, Y)
    assert (problem.rank, problem.num_frozen, problem.num_samples, problem.num_inputs, problem.num_outputs) == (
        3,
        n - 3,
        N,
        n,
        m,
    )
    assert ld.LeastSquares(X, Y, rank_rtol=1e-6).rank == 2
    assert ld.LeastSquares(X, Y, rank=2).singular_values.shape == (2,)
    assert relative_error(problem.Phi1.T @ problem.Phi1, np.eye(3)) < tolerance("float64")


def test_factorization_is_least_squares_with_the_identity(rng):
    Y, Theta = rng.normal(size=(4, m)), jnp.asarray(rng.normal(size=(4, m)))
    short, full = (
        make(output_scale=0.3, scale="mean")
        for make in (
            lambda **options: ld.factorization(Y, **options),
            lambda **options: ld.LeastSquares(np.eye(4), Y, **options),
        )
    )
    assert short.X is None and short.rank == full.rank == 4
    for name in ("loss_star", "theta_hat", "singular_values", "condition"):
        assert relative_error(getattr(short, name), getattr(full, name)) < tolerance("float64")
    assert relative_error(short.loss(Theta), full.loss(Theta)) < tolerance("float64")
    assert relative_error(short.loss_gradient(Theta), full.loss_gradient(Theta)) < tolerance("float64")
    assert relative_error(short.predict(Theta), full.predict(Theta)) < tolerance("float64")
    link = ld.LeastSquares(None, Y, link=jnp.tanh)
    assert relative_error(link.reduced_loss(Theta), link.loss(Theta)) < tolerance("float64")


def test_output_scale_is_the_scale_of_the_inputs(data):
    X, Y, Theta = data
    scaled, inputs = ld.LeastSquares(X, Y, output_scale=0.2), ld.LeastSquares(0.2 * X, Y)
    Theta = jnp.asarray(Theta)
    for name in ("loss_star", "theta_hat", "singular_values"):
        assert relative_error(getattr(scaled, name), getattr(inputs, name)) < tolerance("float64")
    assert relative_error(scaled.loss(Theta), inputs.loss(Theta)) < tolerance("float64")
    assert relative_error(scaled.loss_gradient(Theta), inputs.loss_gradient(Theta)) < tolerance("float64")


def test_a_link_leaves_the_minimum_undefined(data):
    X, Y, Theta = data
    problem = ld.LeastSquares(X, Y, link=jax.nn.sigmoid)
    for ask, name in (
        (lambda: problem.loss_star, "loss_star"),
        (lambda: problem.theta_hat, "theta_hat"),
        (lambda: problem.excess_loss(problem.to_data(jnp.asarray(Theta))), "excess_loss"),
    ):
        with pytest.raises(ValueError, match=f"`{name}` is undefined for a problem with a link function"):
            ask()


def test_traced_data_need_a_rank_and_differentiate(data):
    X, Y, _ = data
    with pytest.raises(ValueError, match="The rank of a traced `X` is unknown: pass `rank=`"):
        jax.jit(lambda X: ld.LeastSquares(X, Y).loss_star)(X)

    def norm(scale):
        return jnp.sum(ld.LeastSquares(scale * X, Y, rank=N).theta_hat ** 2)

    expected = np.sum((np.linalg.pinv(X) @ Y) ** 2)
    # Theta_hat is of degree -1 in X.
    assert relative_error(jax.jit(jax.grad(norm))(1.0), -2 * expected) < tolerance("float64", 100)


@pytest.mark.parametrize(
    ("X", "options", "match"),
    [
        (np.zeros((N, n)), {}, "`X` is zero"),
        (np.ones((N, n)), {"scale": 0.0}, r"`scale` must be a positive number, but is 0\.0"),
        (np.ones((N, n)), {"output_scale": -1.0}, "`output_scale` must be a positive number"),
        (np.ones((N, n)), {"rank": 6}, r"between 1 and min\(N, n\) = 5, but is 6"),
        (None, {"rank": 2}, "`rank` must be 5 for X = I, but is 2"),
    ],
)
def test_bad_numbers_are_refused(X, options, match):
    with pytest.raises(ValueError, match=match):
        ld.LeastSquares(X, np.ones((N, m)), **options)


@pytest.mark.parametrize(
    ("X", "Y", "options", "match"),
    [
        (
            np.ones(N),
            np.ones((N, m)),
            {},
            r"`X` must have shape \(N, n\), but has shape \(5,\); .* pass `X\[:, None\]`",
        ),
        (np.ones((N, n)), np.ones(N), {}, r"`Y` must have shape \(N, m\)"),
        (np.ones((N, 0)), np.ones((N, m)), {}, "with no empty axis"),
        (np.ones((N, n)), np.ones((N + 1, m)), {}, "`X` has 5 rows and `Y` has 6"),
        (np.ones((N, n)) * 1j, np.ones((N, m)), {}, "`X` must be real, but has dtype complex128"),
        ("words", np.ones((N, m)), {}, "`X` must be an array of numbers, but is str"),
        (np.full((N, n), "1"), np.ones((N, m)), {}, "`X` must be an array of numbers, but has dtype <U1"),
        (ld.data.load("iris"), np.ones((N, m)), {}, "is Dataset: give its arrays, `data.X, data.Y`"),
        (np.ones((N, n)), np.ones((N, m)), {"link": "softmax"}, "`link` must be an elementwise function"),
    ],
)
def test_bad_arrays_are_refused(X, Y, options, match):
    # Without the run-time check of annotations, which would refuse these first.
    construct = inspect.unwrap(ld.LeastSquares.__init__)
    with pytest.raises(ValueError, match=match):
        construct(object.__new__(ld.LeastSquares), X, Y, **options)


def test_an_unknown_scale_is_refused():
    with pytest.raises(ValueError, match="`scale` must be one of 'sum', 'mean', 'averaged', but is 'total'"):
        inspect.unwrap(ld.problems.output.loss_scale)("total", 3)


def test_the_place_of_a_bad_entry_is_named(data):
    X, Y, _ = data
    X[2, 4] = np.nan
    with pytest.raises(ValueError, match=r"`X` must be finite, but 1 of its entries is not; .* index \(2, 4\)"):
        ld.LeastSquares(X, Y)
    Y[1, 0] = np.inf
    with pytest.raises(ValueError, match=r"`Y` must be finite, but 1 of its entries is not; .* index \(1, 0\)"):
        ld.LeastSquares(X, Y)


def test_whole_numbers_become_floats():
    assert ld._checks.as_float(np.array([1, 2]), "X").dtype == jnp.result_type(float)


# -- what is taken as numbers, and what as a problem -------------------------------------------------------------------


NUMBERS = {
    "whole numbers beyond 32 bits": (np.array([[3_000_000_000], [1]]), [[3e9], [1]]),
    "whole numbers in a list": ([[3_000_000_000], [1]], [[3e9], [1]]),
    "whole numbers beyond 64 bits": ([[10**30], [1]], [[1e30], [1]]),
    "unsigned": (np.array([[2**63], [1]], np.uint64), [[2.0**63], [1]]),
    "foreign byte order": (np.array([[0.5], [2]], ">f8"), [[0.5], [2]]),
    "foreign whole numbers": (np.array([[3_000_000_000], [2]], ">i8"), [[3e9], [2]]),
    "half precision": (np.array([[0.5], [2]], np.float16), [[0.5], [2]]),
    "extended precision": (np.array([[0.5], [2]], np.longdouble), [[0.5], [2]]),
    "flags": (np.array([[True], [False]]), [[1], [0]]),
}


@pytest.mark.parametrize("x64", [True, False])
def test_numbers_of_any_kind_keep_their_value(x64):
    with jax.enable_x64(x64):
        for kind, (given, expected) in NUMBERS.items():
            # The tests' own check of annotations knows fewer kinds of numbers.
            taken = inspect.unwrap(_checks.as_matrix)(given, "Y", "(N, m)")
            small = kind == "half precision" or not x64
            assert taken.dtype == (np.float32 if small else np.float64), kind
            assert np.array_equal(taken, np.asarray(expected, taken.dtype)), kind
        half = ld.LeastSquares(np.eye(2, dtype=np.float16), np.ones((2, 1), np.float16))
        assert half.dtype == np.float32


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.ma.array([[1.0], [2.0]], mask=[[True], [False]]), "must have no masked entries"),
        (np.array([["1"], ["2"]]), "must be an array of numbers"),
        (np.array([[1.0], [None]], object), "must be an array of numbers"),
        (np.array([["2020"], ["2021"]], "datetime64[Y]"), "must be an array of numbers"),
        ([[10**400], [1]], "must be an array of numbers in the range of floats"),
    ],
)
def test_what_holds_no_number_is_refused(value, words):
    with pytest.raises(ValueError, match=f"`Y` {words}"):
        inspect.unwrap(_checks.as_matrix)(value, "Y", "(N, m)")


@pytest.mark.parametrize("name", sorted(name for name in vars(ld.LeastSquares) if not name.startswith("__")))
def test_a_problem_with_another_loss_is_refused(name):
    if name == "_abc_impl":
        return
    X, Y = np.eye(2), np.ones((2, 1))
    mixin = type("Mixin", (), {name: lambda self, *args: 0.0})
    for bases, members in ((ld.LeastSquares,), vars(mixin)), ((mixin, ld.LeastSquares), {}):
        other = type("Other", bases, {key: value for key, value in members.items() if not key.startswith("__")})
        with pytest.raises(ValueError, match=f"LeastSquares with a `{name}` of its own"):
            other(X, Y)


def test_classes_that_add_and_replace_nothing_are_what_they_come_from():
    class Named(ld.LeastSquares):
        """A problem with a name."""

        name = "mine"

    class Wide(ld.TwoLayer):
        """A network."""

    class Other(ld.TwoLayer):
        def velocity(self, problem):
            return self

    problem = Named(np.eye(2), np.ones((2, 1)))
    assert problem.name == "mine" and float(problem.loss_star) == 0
    with pytest.raises(ValueError, match="The model does not fit the problem"):
        ld.gradient_flow(Wide(np.ones((3, 2)), np.ones((1, 2))), problem, [1.0])
    with pytest.raises(ValueError, match="TwoLayer with a `velocity` of its own"):
        Other(np.ones((2, 2)), np.ones((1, 2)))


@pytest.mark.parametrize(
    "link", [lambda Z: Z * jnp.ones((5, 3)), lambda Z: Z * jnp.ones(3), jax.nn.softmax, jnp.sum, lambda Z: Z > 0]
)
def test_links_that_are_not_elementwise_are_refused(link, data):
    X, Y, _ = data
    with pytest.raises(ValueError, match="`link` must be an elementwise function"):
        ld.LeastSquares(X, Y, link=link)


def test_problems_with_a_link_of_this_package_can_be_pickled(data):
    X, Y, _ = data
    for link in ("sigmoid", jax.nn.sigmoid, "tanh", jnp.tanh):
        problem = ld.LeastSquares(X, Y, link=link)
        again = pickle.loads(pickle.dumps(problem))
        assert again.link is problem.link and np.array_equal(again.Ytil, problem.Ytil)


def test_rank_does_not_depend_on_how_many_samples_there_are(rng):
    N = 50_000
    Q, R = np.linalg.qr(rng.normal(size=(N, 9)))[0], np.linalg.qr(rng.normal(size=(9, 9)))[0]
    X = 100 * Q * np.geomspace(16, 1, 9) @ R
    for dtype in (np.float32, np.float64):
        data = X.astype(dtype)
        Y = (data @ rng.normal(size=(9, 2))).astype(dtype)
        problem = ld.LeastSquares(data, Y)
        assert problem.rank == 9
        eps = np.finfo(dtype).eps
        assert float(problem.loss_star) < 1e2 * eps * float(np.sum(Y**2)) / 2
        data[:, 3] = data[:, 5]
        assert ld.LeastSquares(data, Y).rank == 8
