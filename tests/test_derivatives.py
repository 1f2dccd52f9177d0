"""Derivatives at hard values and of simulations, and equivariance under units; the table of all is in test_public_derivatives."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lindyn_jax as ld
from lindyn_jax import _linalg, _roots, _svd, exact, init, observables, theory
from lindyn_jax.models import TwoLayer


def draw(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=shape)) for shape in shapes]


def modes(forward, reverse, arguments, tangents, step=1e-5):
    """The derivative of `sum sin(f)` along the tangents by a function for either mode, and by a central difference."""
    number = lambda f: lambda *xs: sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(f(*xs)))  # noqa: E731

    @jax.jit
    def along(arguments, tangents):
        return jax.jvp(number(forward), arguments, tangents)

    @jax.jit
    def back(arguments, tangents):
        gradients = jax.grad(number(reverse), tuple(range(len(arguments))))(*arguments)
        return sum(jnp.sum(g * d) for g, d in zip(gradients, tangents, strict=True))

    arguments, tangents = tuple(map(jnp.asarray, arguments)), tuple(map(jnp.asarray, tangents))
    move = lambda s: tuple(x + s * step * d for x, d in zip(arguments, tangents, strict=True))  # noqa: E731
    (above, _), (below, _) = (along(move(s), tangents) for s in (1, -1))
    found = along(arguments, tangents)[1], back(arguments, tangents), (above - below) / (2 * step)
    return tuple(map(float, found))


# -- the Riccati family: one compilation, many starts and times ----------------------------------------------------------------


@jax.jit
def gradients(Y, U, V, level, t, tangents):
    """The five partial derivatives of one number along tangents, forward and reverse."""
    arguments = (Y, U, V, level, t)
    f = lambda *xs: jnp.sum(jnp.sin(exact.homogeneous(*xs[:4], xs[4][None])))  # noqa: E731
    # By one pass forward.
    value, linear = jax.linearize(f, *arguments)
    gradient = jax.linear_transpose(linear, *arguments)(jnp.ones_like(value))
    reverse = jnp.stack([jnp.sum(g * d) for g, d in zip(gradient, tangents, strict=True)])
    pick = lambda i: tuple(jnp.where(i == j, d, 0) for j, d in enumerate(tangents))  # noqa: E731
    return jax.lax.map(lambda i: linear(*pick(i)), jnp.arange(5)), reverse


STARTS = {
    "plain": lambda Y, U, V, level: (Y, U, V, level),
    "zero level": lambda Y, U, V, level: (Y, U, V, 0 * level),
    "deficient": lambda Y, U, V, level: (Y, np.vstack([U[0], 2 * U[0], U[2:]]), np.vstack([V[0], V[0]]), level),
    "tiny": lambda Y, U, V, level: (Y, 1e-9 * U, 1e-9 * V, level),
    "singular Y": lambda Y, U, V, level: (np.outer(Y[:, 0], Y[0]), U, V, 0 * level),
    "repeated": lambda Y, U, V, level: (2 * np.eye(*Y.shape), U, V, level),
}


@pytest.mark.parametrize("h", [3, 7])
def test_homogeneous_has_one_derivative_in_both_modes_at_any_time(h):
    for seed, (name, change) in enumerate(STARTS.items()):
        shapes = (4, 2), (4, h), (2, h), ()
        Y, U, V, level, *tangents = map(np.asarray, draw(*shapes, *shapes, (), seed=seed))
        for t in (0.0, 0.3, 8.0, 50.0, 500.0, 1e6):
            forward, reverse = map(np.asarray, gradients(*change(Y, U, V, level), np.asarray(t), tuple(tangents)))
            scale = np.max(np.abs(forward[:4]))
            np.testing.assert_allclose(
                reverse[:4], forward[:4], rtol=0, atol=3e-15 * max(t, 100) * scale, err_msg=f"{name} {t}"
            )
            np.testing.assert_allclose(reverse[4], forward[4], rtol=1e-9, atol=1e-11, err_msg=f"{name} {t}")


def test_the_gradient_of_a_narrow_start_at_a_late_time_is_that_of_1500_digits():
    r = np.random.default_rng(3)
    r.normal(size=(4, 7))
    Y, U, V = r.normal(size=(4, 2)), r.normal(size=(4, 3)), r.normal(size=(2, 3))
    ones = tuple(map(np.ones_like, (Y, U, V, 0.0, 0.0)))
    # By the program of the test before: shapes and types are the same.
    slope = lambda level, t: gradients(Y, U, V, np.asarray(level), np.asarray(t), ones)[1][3]  # noqa: E731
    np.testing.assert_allclose(slope(0.5, 500.0), 0.464982, atol=1e-6)
    np.testing.assert_allclose(slope(0.0, 50.0), 0.84516, atol=1e-5)


# -- everything else ------------------------------------------------------------------------------------------------------------

Y3, S3 = draw((3, 2), (3, 3), seed=1)
S3 = S3 + S3.T
DATA = ld.LeastSquares(*draw((5, 3), (5, 2), seed=2))
WEIGHTS = lambda model: (model.U, model.V)  # noqa: E731
VECTORS = draw((2,), (2,), (2,), seed=3)
TIMES = jnp.asarray([0.4, 3.0])


# At values that the table of all public functions does not take.
TABLE = {
    "riccati": (lambda A, g, U, t: (lambda L: L @ L.T)(exact.riccati(A + A.T, g**2, U, t)), (S3, 1.3, Y3, 0.7)),
    "symmetric": (lambda Y, U, t: exact.symmetric(Y + Y.T, U, t), (jnp.diag(jnp.array([1.0, 0, -1])), Y3, TIMES)),
    "symmetric_mode": (exact.symmetric_mode, (0.7, 0.2, 1.5)),
    "mode": (lambda *x: exact.mode(*x).x, (1.2, 0.3, -0.2, 2.0)),
    "spectral": (exact.spectral, (*VECTORS, TIMES)),
    "spectral_product": (lambda Y, u, v, t: exact.spectral_product(Y, u, v, 3, t), (Y3, *VECTORS[:2], TIMES)),
    "aligned": (exact.aligned, (1.1, 0.6, 2.0, 1.7)),
    "linear": (lambda T, t: exact.linear(DATA, T, t), (Y3, TIMES)),
    "linear_descent": (lambda T, e: exact.linear_descent(DATA, T, e, jnp.arange(3)), (Y3, 0.05)),
    "deep_mode": (lambda *x: exact.deep_mode(*x, 3), (1.1, 0.6, 0.3, 0.8)),
    "deep_mode_time": (lambda *x: exact.deep_mode_time(*x, 3), (1.1, 0.6, 0.3, 0.9)),
    "homogeneous_limit": (lambda Y, U, V, x: exact.homogeneous_limit(Y, U, V, x).value, (Y3, S3, Y3.T @ S3, 0.3)),
    "init.spectral": (lambda Y, u, v: WEIGHTS(init.spectral(Y, u, v, 3)), (Y3, *VECTORS[:2])),
    "init.balanced": (lambda T: WEIGHTS(init.balanced(DATA, T, 3)), (Y3,)),
    "init.with_imbalance": (
        lambda T, p, q: WEIGHTS(init.with_imbalance(DATA, T, p**2, q**2, 5)),
        (Y3, jnp.asarray([0.7, 0.3, 1.0]), VECTORS[0]),
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_forward_reverse_and_central_difference_agree(name):
    f, arguments = TABLE[name]
    tangents = draw(*(jnp.shape(x) for x in arguments), seed=4)
    forward, reverse, central = modes(f, f, arguments, tangents)
    assert abs(forward) > 1e-6
    np.testing.assert_allclose(reverse, forward, rtol=1e-10)
    np.testing.assert_allclose(central, forward, rtol=1e-6)


# -- simulations: either mode has an adjoint of its own --------------------------------------------------------------------------

U3, V3, W3 = draw((3, 3), (2, 3), (3, 3), seed=11)
ADJOINTS = diffrax.ForwardMode(), diffrax.RecursiveCheckpointAdjoint()


def flowed(layers=2):
    def run(adjoint):
        def f(Y, U, V, t):
            model = TwoLayer(U, V) if layers == 2 else ld.DeepLinear((U, W3, V.T))
            times = jnp.stack([t / 2, t])
            return ld.gradient_flow(model, ld.factorization(Y), times, solver="tsit5", adjoint=adjoint).observables

        return f

    return tuple(map(run, ADJOINTS))


def limited(adjoint):
    return lambda Y, U, V: ld.limit(TwoLayer(U, V), ld.factorization(Y), rtol=1e-10, adjoint=adjoint).V


def descended(mode):
    def f(Y, U, V, step):
        optimizer = optax.sgd(step, 0.9)
        out = ld.gradient_descent(TwoLayer(U, V), ld.factorization(Y), 43, optimizer=optimizer, differentiate=mode)
        return out.observables["loss"], out.final.V

    return f


SIMULATED = {
    "flow": (flowed(), (Y3, U3, V3, 0.8), 1e-4),
    "deep flow": (flowed(3), (Y3, U3, V3, 0.8), 1e-4),
    "limit": (tuple(map(limited, ADJOINTS)), (Y3, U3, V3), 1e-4),
    "descent": (tuple(map(descended, ("forward", "reverse"))), (Y3, U3, V3, 0.03), 1e-6),
}


def test_the_flow_has_the_derivative_of_its_differences():
    """In reverse; forward mode is held where tied layers move."""
    f, arguments, step = flowed()[1], *SIMULATED["flow"][1:]
    arguments = tuple(map(jnp.asarray, arguments))
    tangents = draw(*(x.shape for x in arguments), seed=4)
    program = jax.jit(jax.value_and_grad(lambda *xs: jnp.sum(jnp.sin(f(*xs)["loss"])), range(4)))
    at = lambda s: program(*(x + s * step * d for x, d in zip(arguments, tangents, strict=True)))  # noqa: E731
    slope = sum(float(np.sum(g * d)) for g, d in zip(at(0)[1], tangents, strict=True))
    assert abs(slope) > 1e-3
    np.testing.assert_allclose((at(1)[0] - at(-1)[0]) / (2 * step), slope, rtol=1e-5)


@pytest.mark.parametrize("name", SIMULATED)
def test_simulations_have_one_derivative_in_both_modes_and_by_differences(name, monkeypatch):
    # Reverse mode of descent computes again what it does not keep.
    monkeypatch.setattr(ld.descent, "KEPT_BYTES", 0)
    functions, arguments, step = SIMULATED[name]
    tangents = draw(*(jnp.shape(x) for x in arguments), seed=4)
    forward, reverse, central = modes(*functions, arguments, tangents, step)
    assert abs(forward) > 1e-3
    # Both go through the same steps; where these end up differs from the truth by their tolerance.
    np.testing.assert_allclose(reverse, forward, rtol=1e-9)
    np.testing.assert_allclose(central, forward, rtol=1e-5)


@pytest.mark.parametrize("dtype, scales", [(np.float64, (1e-160, 1e-30, 1e30, 1e150)), (np.float32, (1e-18, 1e18))])
def test_derivatives_of_starts_hold_in_any_units(dtype, scales):
    problem = ld.LeastSquares(*(x.astype(dtype) for x in draw((5, 3), (5, 2), seed=2)))
    Theta, dTheta = (x.astype(dtype) for x in draw((3, 2), (3, 2), seed=5))
    ones = jnp.ones(3, dtype)
    starts = {
        "spectral": lambda T, a: WEIGHTS(init.spectral(T, ones[:2], ones[:2], 3)),
        "balanced": lambda T, a: WEIGHTS(init.balanced(problem, T, 3)),
        "with_imbalance": lambda T, a: WEIGHTS(init.with_imbalance(problem, T, a * ones, a * ones[:2] / 2, 5)),
    }
    for name, start in starts.items():
        power = 0.0 if name == "spectral" else 0.5

        @jax.jit
        def derivative(a, start=start, power=power):
            unit = a**power
            f = lambda T: sum(jnp.sum(jnp.sin(W / unit)) for W in start(T, a))  # noqa: E731
            return jax.jvp(f, (a * Theta,), (a * dTheta,))[1], jnp.sum(jax.grad(f)(a * Theta) * (a * dTheta))

        expected = derivative(jnp.asarray(1, dtype))
        rtol = 1e-9 if dtype == np.float64 else 1e-3
        for a in scales:
            np.testing.assert_allclose(derivative(jnp.asarray(a, dtype)), expected, rtol=rtol, err_msg=f"{name} {a}")


def test_modes_of_equal_singular_values_have_finite_derivatives():
    U, V = draw((3, 3), (2, 3), seed=6)

    def both(y):
        model, problem = TwoLayer(U, V), ld.factorization(y * jnp.eye(3, 2))
        return jnp.stack(
            [jnp.sum(getattr(observables, name)(model, problem)) for name in ("mode_strengths", "alignment")]
        )

    # A target that grows keeps its modes.
    slopes = jax.jit(lambda y: (jax.jacfwd(both)(y), jax.jacrev(both)(y)))(1.0)
    assert not np.any(slopes)


# -- units -------------------------------------------------------------------------------------------------------------------

square = lambda L: L @ jnp.swapaxes(L, -1, -2)  # noqa: E731
# Function, arguments at scale 1, the powers of a that they take, and that of the result.
UNITS = {
    "homogeneous": (exact.homogeneous, (Y3, S3, Y3.T, 0.4, TIMES), (1, 0.5, 0.5, 1, -1), 1),
    "homogeneous_limit": (lambda *x: exact.homogeneous_limit(*x).value, (Y3, S3, Y3.T, 0.4), (1, 0.5, 0.5, 1), 1),
    "homogeneous_rates": (lambda *x: exact.homogeneous_rates(*x).gram.value, (Y3, S3, Y3.T, 0.4), (1, 0.5, 0.5, 1), 1),
    "homogeneous_eigenvalues": (exact.homogeneous_eigenvalues, (Y3, 0.4), (1, 1), 1),
    "riccati": (lambda A, U, t: square(exact.riccati((A + A.T) / 2, 2.0, U, t)), (S3, Y3, 3.0), (1, 0.5, -1), 1),
    "symmetric": (lambda Y, U, t: exact.symmetric((Y + Y.T) / 2, U, t), (S3, Y3, TIMES), (1, 0.5, -1), 1),
    "symmetric_limit": (lambda Y, U: exact.symmetric_limit((Y + Y.T) / 2, U).value, (S3, Y3), (1, 0.5), 1),
    "symmetric_mode": (exact.symmetric_mode, (0.7, 0.2, 1.5), (1, 1, -1), 1),
    "mode": (lambda *x: exact.mode(*x).x, (1.2, 0.3, -0.2, 2.0), (1, 0.5, 0.5, -1), 1),
    "mode_limit": (lambda *x: exact.mode_limit(*x).value.x, (1.2, 0.3, -0.2), (1, 0.5, 0.5), 1),
    "mode_rate": (lambda *x: exact.mode_rate(*x).value, (1.2, 0.3, -0.2), (1, 0.5, 0.5), 1),
    "spectral": (exact.spectral, (*VECTORS, TIMES), (1, 0.5, 0.5, -1), 1),
    "spectral_product": (
        lambda Y, u, v, t: exact.spectral_product(Y, u, v, 3, t),
        (Y3, *VECTORS[:2], TIMES),
        (1, 0.5, 0.5, -1),
        1,
    ),
    "aligned": (exact.aligned, (1.1, 0.6, 2.0, 1.7), (1, 1, 0, -1), 0),
    "aligned_half_time": (lambda *x: exact.aligned_half_time(*x).value, (1.1, 0.6, 2.0), (1, 1, 0), -1),
    "deep_mode": (lambda *x: exact.deep_mode(*x, 3), (1.1, 0.6, 0.3, 0.8), (1, 0, 1, -4 / 3), 1),
    "deep_mode, faster": (lambda *x: exact.deep_mode(*x, 4), (1.1, 0.6, 0.3, 0.8), (1, 1, 0, -1), 0),
    "deep_mode_time": (lambda *x: exact.deep_mode_time(*x, 3), (1.1, 0.6, 0.3, 0.9), (1, 0, 1, 1), -4 / 3),
    "deep_mode_limit": (lambda *x: exact.deep_mode_limit(*x).value, (1.1, 0.6, 0.3), (1, 0, 1), 1),
    "deep_mode_rate": (lambda *x: exact.deep_mode_rate(*x, 3).value, (1.1, 0.6), (1, 0), 4 / 3),
    "linear": (lambda Y, T, t: exact.linear(ld.factorization(Y), T, t), (Y3, Y3 + 1, TIMES), (1, 1, 0), 1),
    "linear_descent": (
        lambda Y, T, e: exact.linear_descent(ld.factorization(Y), T, e, jnp.arange(3)),
        (Y3, Y3 + 1, 0.1),
        (1, 1, 0),
        1,
    ),
}


@pytest.mark.parametrize("name", UNITS)
def test_closed_forms_and_their_derivatives_are_equivariant_under_units(name):
    f, arguments, powers, power = UNITS[name]
    tangents = draw(*(jnp.shape(x) for x in arguments), seed=7)
    for dtype, scales, rtol in ((np.float64, (1e-30, 1e30), 1e-10), (np.float32, (1e-10, 1e10), 1e-3)):

        @jax.jit
        def at(arguments, tangents, unit):
            # Both modes of the sum of sines, by one pass forward.
            value, linear = jax.linearize(lambda *x: f(*x) / unit, *arguments)
            weights = jnp.cos(value)
            pulled = zip(jax.linear_transpose(linear, *arguments)(weights), tangents, strict=True)
            return value, jnp.sum(weights * linear(*tangents)), sum(jnp.sum(x * d) for x, d in pulled)

        def scaled(a, at=at, dtype=dtype):
            change = lambda xs: tuple(jnp.asarray(a**p * np.asarray(x), dtype) for x, p in zip(xs, powers, strict=True))  # noqa: E731
            return at(change(arguments), change(tangents), jnp.asarray(a**power, dtype))

        expected = scaled(1.0)
        assert np.isclose(expected[1], expected[2], rtol=rtol)
        for a in scales:
            for value, wanted in zip(scaled(a), expected, strict=True):
                np.testing.assert_allclose(value, wanted, rtol=rtol, atol=rtol * np.max(np.abs(wanted)), err_msg=f"{a}")


# -- large sizes in single precision: round-off does not grow with them ----------------------------------------------------------


def single(x):
    return np.asarray(x, np.float32)


def frame(A):
    return np.linalg.qr(np.asarray(A))[0]


def test_close_singular_values_of_long_matrices_are_told_apart_in_single_precision():
    P, dA = map(np.asarray, draw((5000, 2), (5000, 2), seed=8))
    P, turn = frame(P), frame(draw((2, 2), seed=9)[0])
    A, dA = P * [1.0, 0.999] @ turn, dA / 100
    change = jax.jit(lambda A, dA: jax.jvp(lambda A: _svd.thin_svd(A)[2], (A,), (dA,))[1])
    expected = change(A, dA)
    assert np.max(np.abs(expected)) > 1
    np.testing.assert_allclose(change(single(A), single(dA)), expected, rtol=1e-2)
    wide = np.concatenate([turn @ np.diag([1e-3, 1.4e-3]) @ P.T, np.ones((1, 5000)) / 70])
    along = dA.T[[0, 1, 0]]
    change = jax.jit(lambda A, dA: jax.jvp(_svd.least_left_vector, (A,), (dA,))[1])
    expected, found = change(wide, along), change(single(wide), single(along))
    np.testing.assert_allclose(found, expected, atol=1e-2 * np.max(np.abs(expected)))


def test_the_spectral_product_of_a_long_target_turns_with_close_modes_in_single_precision():
    P, dY = draw((4000, 2), (4000, 2), seed=10)
    Y = jnp.linalg.qr(P)[0] * jnp.asarray([1.0, 0.999])
    f = lambda Y, u: exact.spectral_product(Y, u, u, 2, jnp.asarray([1.0], Y.dtype))  # noqa: E731
    u = jnp.asarray([0.5, 0.2])
    expected = jax.jvp(lambda Y: f(Y, u), (Y,), (dY,))[1]
    found = jax.jvp(lambda Y: f(Y, single(u)), (single(Y),), (single(dY),))[1]
    np.testing.assert_allclose(found, expected, atol=1e-2 * jnp.max(jnp.abs(expected)))


def test_small_directions_of_wide_starts_count_in_single_precision():
    p = 300
    sizes = np.ones(p)
    sizes[-1] = 3e-3
    reached = jax.jit(exact.riccati_limit)(single(np.eye(p)), 1.0, single(np.diag(sizes)))
    assert bool(reached.applies)
    np.testing.assert_allclose(reached.value, 2 * np.eye(p), atol=1e-4)
    # An imbalance of 2e-4 is one.
    U, condition = np.ones((400, 1)), jax.jit(exact.homogeneous_condition)
    assert not bool(condition(single(U), single(1.0002 * U), 0.0).applies)
    assert bool(condition(single(U), single(-U), 0.0).applies)
    rows = np.eye(p, p + 1) * sizes[:, None] / 20
    change = jax.jit(lambda Z, dZ: jax.jvp(lambda Z: _linalg.row_factor(Z)[1], (Z,), (dZ,))[1])
    dQ = change(single(rows), single(np.eye(p, p + 1, 1) * (sizes < 1)[:, None]))
    np.testing.assert_allclose(np.max(np.abs(dQ)), 20 / 3e-3, rtol=1e-3)
    root = single(np.diag(sizes / 50))
    np.testing.assert_allclose(np.diagonal(jax.jit(_roots.sylvester)(root, root)), 0.5, rtol=1e-4)


def test_small_modes_of_long_matrices_are_there_in_single_precision():
    n = 20_000
    P, T = frame(draw((n, 2), seed=12)[0]), frame(draw((2, 2), seed=13)[0])
    Theta = single(P * [1.0, 1e-3] @ T)
    problem = ld.factorization(Theta)
    product = jax.jit(lambda Theta: init.balanced(problem, Theta, 2).product())
    np.testing.assert_allclose(product(Theta), Theta, atol=1e-6)


def test_aligned_layers_of_many_inputs_keep_small_modes_and_their_verdict_in_single_precision():
    P = frame(draw((20_000, 2), seed=12)[0])
    # A mode that starts at 1e-3 of the largest grows, layers that differ by 1% are not aligned.
    problem = ld.LeastSquares(single(P.T), single(np.diag([2.0, 1.0])), rank=2)
    U, V = single(P * [1.0, 1e-3]), single(np.diag([1.0, 1e-3]))
    aligned = jax.jit(theory.aligned_layers)
    moved = aligned(TwoLayer(U, V), problem, single([3.0]))
    expected = exact.aligned(jnp.asarray([2.0, 1.0]), 1.0, jnp.asarray([0.0, np.log(1e3)]), 3.0)
    assert bool(moved.applies)
    product = single(P.T) @ np.asarray(moved.value.U[0]) @ np.asarray(moved.value.V[0]).T
    np.testing.assert_allclose(np.diagonal(product), expected, rtol=1e-3)
    assert not bool(aligned(TwoLayer(U, single(1.01 * V)), problem, single([3.0])).applies)


def test_verdicts_on_data_of_many_inputs_do_not_loosen_in_single_precision():
    n = 5000
    P = frame(draw((n, 2), seed=14)[0])
    X, turn = P * [2.0, 1.0], frame(draw((2, 2), seed=15)[0])
    modes, autoencoder = jax.jit(theory.data_modes), jax.jit(theory.tied_autoencoder)
    coupled = ld.LeastSquares(single(X.T), single(turn * [2.0, 1.0]), rank=2)
    assert not bool(modes(coupled).applies)
    decoupled = ld.LeastSquares(single(X.T), single(np.diag([2.0, 1.0])), rank=2)
    assert bool(modes(decoupled).applies)
    tied = ld.LeastSquares(single(X.T), single(X.T), rank=2)
    for U, commutes in ((P, True), (P @ [[1.0, 0.0], [0.5, 0.7]], False)):
        assert bool(autoencoder(ld.SymmetricFactors(single(U)), tied).applies) == commutes


def test_ranks_of_large_covariances_keep_small_eigenvalues_in_single_precision():
    values = np.ones(400)
    values[-1] = 3e-5
    assert theory.covariance_problem(single(np.diag(values)), single(np.ones((400, 1)))).rank == 400


def test_projectors_of_wide_matrices_tell_close_values_apart_in_single_precision():
    (dA,) = draw((2, 500), seed=16)
    A = jnp.linalg.qr(dA.T)[0].T * jnp.asarray([[1.0], [0.9999]])
    change = 1e-4 * A[::-1]
    f = lambda A: theory.regression.right_projector(A, jnp.asarray([True, False]))  # noqa: E731
    expected = jax.jvp(f, (A,), (change,))[1]
    assert jnp.max(jnp.abs(expected)) > 1e-3
    found = jax.jvp(f, (jnp.asarray(single(A)),), (jnp.asarray(single(change)),))[1]
    np.testing.assert_allclose(found, expected, atol=1e-2 * jnp.max(jnp.abs(expected)))
