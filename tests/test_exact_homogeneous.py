"""Homogeneous imbalance in closed form against reference values, the integrated flows, limits, rates and derivatives."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Compiled, load_cases, relative_error, tolerance
from scipy.integrate import solve_ivp

import lindyn_jax as ld

exact = Compiled(ld.exact)

CASES = {name: case for name, case in load_cases("t21").items() if case["formula"] == "prop5_eq30"}


def stacked(model, problem):
    R = jnp.concatenate([model.U, model.V])
    return R @ R.T


def integrated(Y, U0, V0, lambda0, ts, adjoint=None, speed=1.0, rtol=1e-11):
    """P(speed * t) of the regularized flow (of the plain one if lambda0 is None), by a solver of order 8.

    The speed scales both the loss and the penalty.
    """
    problem = ld.factorization(Y, scale=speed)
    return ld.gradient_flow(
        ld.TwoLayer(U0, V0),
        problem if lambda0 is None else problem.regularized(lambda0, weight=speed / 8),
        ts,
        observables={"P": stacked},
        solver="dopri8",
        rtol=rtol,
        atol=1e-2 * rtol,
        adjoint=adjoint,
        reduce=False,
    ).observables["P"]


def by_scipy(Y, U0, V0, lambda0, ts):
    """P of the regularized flow (of the plain one if lambda0 is None) by SciPy, which knows nothing of the library."""
    n, h = U0.shape

    def velocity(t, y):
        U, V = y[: n * h].reshape(n, h), y[n * h :].reshape(-1, h)
        E = Y - U @ V.T
        # The penalty is an eighth of its square.
        D = np.zeros((h, h)) if lambda0 is None else (U.T @ U - V.T @ V - lambda0 * np.eye(h)) / 2
        return np.concatenate([(E @ V - U @ D).ravel(), (E.T @ U + V @ D).ravel()])

    start = np.concatenate([U0.ravel(), V0.ravel()])
    path = solve_ivp(velocity, (0, ts[-1]), start, "DOP853", t_eval=ts, rtol=1e-11, atol=1e-13).y.T
    R = path.reshape(len(ts), -1, h)
    return R @ np.swapaxes(R, 1, 2)


def on_manifold(rng, n, h, V0, lambda0):
    """U0 with U0^T U0 = V0^T V0 + lambda0 I."""
    w, Q = np.linalg.eigh(V0.T @ V0 + lambda0 * np.eye(h))
    return np.linalg.qr(rng.normal(size=(n, h)))[0] @ np.diag(np.sqrt(w)) @ Q.T


@pytest.mark.parametrize("name", CASES)
def test_reference_values(name, dtype):
    case = CASES[name]
    # The file calls our n, m its m, n.
    Y, R0 = np.asarray(case["inputs"]["Sigma"], dtype), np.asarray(case["inputs"]["R0"], dtype)
    n = Y.shape[0]
    P = jax.jit(exact.homogeneous)(
        Y, R0[:n], R0[n:], dtype.type(case["inputs"]["lambda0"]), np.asarray(case["times"], dtype)
    )
    assert P.dtype == dtype
    for value, expected in zip(P, case["expected"]["RRT"], strict=True):
        assert relative_error(value, expected) <= tolerance(dtype)


# One start and one level each, at the same times.
closed_forms = jax.jit(jax.vmap(ld.exact.homogeneous, (0, 0, 0, 0, None)))


@pytest.mark.parametrize(("n", "m", "h"), [(3, 3, 4), (2, 4, 7), (4, 2, 2)])
def test_random_instances_agree_with_the_integrated_regularized_flow(n, m, h, rng):
    Y, U0, V0 = rng.normal(size=(8, n, m)), rng.normal(size=(8, n, h)), rng.normal(size=(8, m, h))
    Y[3] = np.eye(n, m)
    Y[4, :, 0] = 0
    Y[5] = 0
    U0[6], V0[6] = 1e-3 * U0[6], 1e-3 * V0[6]
    U0[7, :, 1:], V0[7, :, 1:] = 0, 0
    lambda0 = np.array([1.5, -1.5, 0.0, 0.7, -0.3, 0.4, 2.0, 0.0])
    ts = np.array([0.0, 0.1, 1.0, 4.0])
    closed = closed_forms(Y, U0, V0, lambda0, ts)
    for i in range(8):
        R0 = np.concatenate([U0[i], V0[i]])
        assert relative_error(closed[i, 0], R0 @ R0.T) <= tolerance("float64")
        assert relative_error(closed[i], by_scipy(Y[i], U0[i], V0[i], lambda0[i], ts)) <= 1e-9


def test_on_the_manifold_it_is_the_plain_flow(rng):
    n, m, h, lambda0 = 4, 2, 2, np.linspace(0.3, 1.5, 8)
    Y, V0 = rng.normal(size=(8, n, m)), rng.normal(size=(8, m, h))
    U0 = np.array([on_manifold(rng, n, h, V, level) for V, level in zip(V0, lambda0, strict=True)])
    assert bool(exact.homogeneous_condition(U0[0], V0[0], lambda0[0]).applies)
    assert not exact.homogeneous_condition(U0[0], V0[0], lambda0[0] + 1e-9).applies
    ts = np.array([0.0, 0.5, 1.0, 3.0])
    closed = closed_forms(Y, U0, V0, lambda0, ts)
    for i in range(8):
        assert relative_error(closed[i], by_scipy(Y[i], U0[i], V0[i], None, ts)) <= 1e-9


def test_blocks_are_those_of_the_whole(rng):
    n, m, h = 2, 3, 4
    Y, U0, V0, ts = rng.normal(size=(n, m)), rng.normal(size=(n, h)), rng.normal(size=(m, h)), np.array([2.0, 0.5])
    blocks = ld.exact.homogeneous, ld.exact.homogeneous_product, ld.exact.homogeneous_grams
    P, product, grams = jax.jit(lambda l: [block(Y, U0, V0, l, ts) for block in blocks])(-0.5)
    assert relative_error(product, P[:, :n, n:]) <= tolerance("float64")
    assert relative_error(grams.U, P[:, :n, :n]) <= tolerance("float64")
    assert relative_error(grams.V, P[:, n:, n:]) <= tolerance("float64")


def test_derivatives_agree_with_differences_and_with_the_integrator(rng):
    n, m, h = 2, 3, 3
    Y, U0, V0 = rng.normal(size=(4, n, m)), rng.normal(size=(4, n, h)), rng.normal(size=(4, m, h))
    # Generic; lambda0 = 0 with repeated singular values; rank-deficient start; zero target.
    Y[1] = np.eye(n, m)
    U0[2, :, 1:], V0[2, :, 1:] = 0, 0
    Y[3] = 0
    lambda0 = np.array([1.1, 0.0, -0.6, 0.0])
    dY, dU0, dV0, dlambda0, dt = rng.normal(size=(n, m)), rng.normal(size=(n, h)), rng.normal(size=(m, h)), 0.8, 0.5
    ts = np.array([0.0, 0.4, 2.0])

    def along(solve, Y, U0, V0, lambda0):
        return lambda e: solve(Y + e * dY, U0 + e * dU0, V0 + e * dV0, lambda0 + e * dlambda0, 1 + e * dt)

    def closed_form(*args):
        return exact.homogeneous(*args[:4], ts * args[4])

    # The derivative with respect to time through the loss scale: that of a save time is only that of an interpolation.
    def by_integrator(*args):
        return integrated(*args[:4], ts, diffrax.ForwardMode(), args[4])

    def tangents(solve):
        return jax.jit(jax.vmap(lambda *start: jax.jvp(along(solve, *start), (0.0,), (1.0,))[1]))(Y, U0, V0, lambda0)

    shifted = jax.jit(jax.vmap(lambda e, *start: along(closed_form, *start)(e), (None, 0, 0, 0, 0)))
    step = 2e-6
    differences = (shifted(step, Y, U0, V0, lambda0) - shifted(-step, Y, U0, V0, lambda0)) / (2 * step)
    forward, expected = tangents(closed_form), tangents(by_integrator)
    weights = rng.normal(size=(3, n + m, n + m))
    pulled = jax.jit(jax.vmap(lambda *start: jax.vjp(exact.homogeneous, *start, ts)[1](jnp.asarray(weights))))
    pulled = pulled(Y, U0, V0, lambda0)
    for i in range(4):
        assert relative_error(forward[i], differences[i]) <= 1e-6
        assert relative_error(forward[i], expected[i]) <= 1e-7
        steps = (dY, dU0, dV0, dlambda0, ts * dt)
        backward = sum(np.sum(cotangent[i] * tangent) for cotangent, tangent in zip(pulled, steps, strict=True))
        assert abs(backward - np.sum(weights * forward[i])) <= tolerance("float64", 10) * max(1, abs(backward))


def test_second_derivative_in_lambda0_is_that_of_differences(rng):
    Y, U0, V0 = rng.normal(size=(2, 3)), rng.normal(size=(2, 2)), rng.normal(size=(3, 2))
    Y[1] = 0

    def value(lambda0):
        return jnp.sum(jnp.sin(exact.homogeneous(Y, U0, V0, lambda0, np.array([0.5, 3.0]))))

    first, step = jax.jit(jax.grad(value)), 1e-5
    second = jax.jit(jax.grad(jax.grad(value)))
    for at in (0.0, 0.7):
        assert abs(second(at) - (first(at + step) - first(at - step)) / (2 * step)) <= 1e-7 * max(1, abs(second(at)))


@pytest.mark.parametrize(("n", "m"), [(2, 2), (2, 3), (3, 2)])
@pytest.mark.parametrize("by", ["closed form", pytest.param("integration", marks=pytest.mark.slow)])
def test_measured_rates_are_the_stated_ones(n, m, by, rng):
    # mu_min = 3 |lambda0| keeps the terms that follow the leading ones as far behind as they can be.
    h, lambda0, mu_min = n + m, np.array([2.0, -2.0]), 6.0
    sigma = np.array([14.0, np.sqrt(mu_min**2 - 4) / 2])
    Y = np.linalg.qr(rng.normal(size=(n, 2)))[0] @ np.diag(sigma) @ np.linalg.qr(rng.normal(size=(m, 2)))[0].T
    R0 = 2 * np.eye(h) + rng.normal(size=(h, h)) / 2  # all coefficients of the same size
    U0, V0 = R0[:n], R0[n:]
    expected = {"gram": mu_min if n == m else 2.0, "product": mu_min if n == m else 1 + mu_min / 2}
    spans = {"gram": (10.0, 13.0), "product": (10.0, 13.0) if n == m else (18.0, 22.0)}
    times = {key: np.array([0.0, *spans[key]]) / rate for key, rate in expected.items()}
    ts = np.unique(np.concatenate([times["gram"], times["product"]]))[1:]

    # Every time is the end of a run of its own: between steps Dopri8 interpolates, which costs digits.
    def at_the_end(l, t):
        return integrated(Y, U0, V0, l, jnp.stack([0 * t, t]), rtol=1e-12)[-1]

    path = {
        "closed form": lambda l: exact.homogeneous(Y, U0, V0, l, ts),
        "integration": jax.jit(lambda l: jax.vmap(lambda t: at_the_end(l, t))(ts)),
    }[by]
    for l in lambda0:
        P = np.asarray(path(l))
        limit, rates = exact.homogeneous_limit(Y, U0, V0, l), exact.homogeneous_rates(Y, U0, V0, l)
        assert bool(limit.applies)
        assert relative_error(limit.value[:n, n:], Y) <= tolerance("float64")
        for key, rate in expected.items():
            stated = getattr(rates, key)
            assert bool(stated.applies) and abs(stated.value / rate - 1) <= 1e-12
            block = (slice(None), slice(None)) if key == "gram" else (slice(0, n), slice(n, None))
            at = np.searchsorted(ts, times[key][1:])
            first, second = (np.linalg.norm((P[k] - limit.value)[block]) for k in at)
            measured = np.log(first / second) / (times[key][2] - times[key][1])
            assert abs(measured / rate - 1) <= 1e-3, (key, l, measured, rate)


def test_on_the_manifold_everything_moves_at_the_products_rate(rng):
    n, m, lambda0 = 4, 2, 1.3
    Y, V0 = rng.normal(size=(n, m)), rng.normal(size=(m, n))
    U0 = on_manifold(rng, n, n, V0, lambda0)
    limit, rates = exact.homogeneous_limit(Y, U0, V0, lambda0), exact.homogeneous_rates(Y, U0, V0, lambda0)
    assert rates.gram.value == rates.product.value > lambda0
    ts = np.array([14.0, 18.0]) / float(rates.gram.value)
    first, second = (np.linalg.norm(P - limit.value) for P in exact.homogeneous(Y, U0, V0, lambda0, ts))
    assert abs(np.log(first / second) / (ts[1] - ts[0]) / rates.gram.value - 1) <= 1e-3
    # A nearby start off the manifold has the slow component.
    assert abs(exact.homogeneous_rates(Y, U0 + 1e-3, V0, lambda0).gram.value - lambda0) <= 1e-12


def test_balanced_nonsquare_gram_tends_to_its_limit_like_one_over_t(rng):
    Y, U0, V0 = rng.normal(size=(4, 2)), rng.normal(size=(4, 4)), rng.normal(size=(2, 4))
    rates = exact.homogeneous_rates(Y, U0, V0, 0.0)
    assert abs(rates.gram.value) <= 1e-14 and bool(rates.gram.applies)
    assert abs(rates.product.value / np.linalg.svd(Y, compute_uv=False)[-1] - 1) <= 1e-12
    limit = exact.homogeneous_limit(Y, U0, V0, 0.0).value
    t = 1e5
    left = exact.homogeneous(Y, U0, V0, 0.0, np.array([t, t]))[0] - limit
    np.testing.assert_allclose(np.linalg.eigvalsh(left)[-2:] * t, 1, rtol=1e-3)


@pytest.mark.parametrize(("n", "m"), [(3, 3), (2, 5), (5, 2)])
@pytest.mark.parametrize("lambda0", [1.7, -1.7, 0.0])
def test_eigenvalues_have_their_multiplicities(n, m, lambda0, rng):
    Y = rng.normal(size=(n, m))
    A = np.block([[lambda0 / 2 * np.eye(n), Y], [Y.T, -lambda0 / 2 * np.eye(m)]])
    values = exact.homogeneous_eigenvalues(Y, lambda0)
    assert relative_error(values, np.linalg.eigvalsh(A)[::-1]) <= tolerance("float64")
    extra = np.sign(n - m) * lambda0 / 2
    if n != m:
        assert np.sum(np.abs(values - extra) < 1e-14) == abs(n - m)


def test_too_narrow_a_network_misses_the_target_and_says_so(rng):
    Y = rng.normal(size=(3, 3))
    U0, V0 = rng.normal(size=(3, 2)), rng.normal(size=(3, 2))
    limit = exact.homogeneous_limit(Y, U0, V0, 1.0)
    assert not limit.applies
    assert relative_error(exact.homogeneous(Y, U0, V0, 1.0, np.array([1e5]))[0], limit.value) <= tolerance("float64")


@pytest.mark.parametrize(("n", "m", "lambda0"), [(4, 2, 0.5), (2, 5, -1.3)])
def test_limit_of_narrow_and_deficient_starts_has_the_derivative_of_late_times(n, m, lambda0, rng):
    """Of the |n - m| directions with eigenvalue |lambda0|/2 these starts reach one, and which one moves with everything."""
    h, t = min(n, m) + 1, np.array([1e3])
    Y, dY = rng.normal(size=(2, n, m))
    R0, dR0 = rng.normal(size=(2, n + m, h + 1))
    narrow, deficient, dependent = R0.copy(), R0.copy(), R0.copy()
    narrow[:, h], deficient[:, h], dependent[:, h] = 0, 0, R0[:, 0]
    moves = {
        "narrow": (narrow, np.where(narrow == 0, 0, dR0), True),
        "dependent columns that stay": (dependent, 0 * dR0, True),
        "one column more": (deficient, dR0, False),
        "dependent columns that move": (dependent, dR0, False),
    }

    @jax.jit
    def both(R0, dR0):
        def along(function):
            at, by = (Y, R0[:n], R0[n:], jnp.asarray(lambda0)), (dY, dR0[:n], dR0[n:], jnp.asarray(0.7))
            return jax.jvp(function, at, by)

        limit = along(lambda *start: ld.exact.homogeneous_limit(*start).value)
        return limit, along(lambda *start: ld.exact.homogeneous(*start, t)[0])

    for name, (start, dstart, known) in moves.items():
        (limit, dlimit), (late, dlate) = both(start, dstart)
        assert relative_error(limit, late) <= tolerance("float64", 10), name
        if known:
            assert relative_error(dlimit, dlate) <= tolerance("float64", t[0]), name
        else:
            assert np.all(np.isnan(dlimit)), name


def test_rates_have_a_derivative_unless_an_eigenvalue_that_matters_splits(rng):
    # The eigenvalue lambda0/2 that a target of 4 x 2 repeats stays repeated, that of equal singular values does not.
    left, right = np.linalg.qr(rng.normal(size=(4, 4)))[0][:, :2], np.linalg.qr(rng.normal(size=(2, 2)))[0]
    U0, V0 = rng.normal(size=(4, 6)), rng.normal(size=(2, 6))
    dY, step = rng.normal(size=(4, 2)), 1e-6

    def rates(Y, lambda0):
        gram, product = exact.homogeneous_rates(Y, U0, V0, lambda0)
        return jnp.stack([gram.value, product.value])

    along = jax.jit(lambda Y, l: jax.jvp(rates, (Y, l), (dY, 1.0)))
    back = jax.jit(jax.jacrev(rates, (0, 1)))
    for sigma, known in (((2.0, 0.7), (True, True)), ((0.7, 0.7), (True, False))):
        Y, lambda0 = left @ np.diag(sigma) @ right, 0.5
        differences = (along(Y + step * dY, lambda0 + step)[0] - along(Y - step * dY, lambda0 - step)[0]) / (2 * step)
        value, forward = along(Y, lambda0)
        assert relative_error(value, [0.5, (0.5 + np.hypot(2 * 0.7, 0.5)) / 2]) <= tolerance("float64")
        by_Y, by_lambda0 = back(Y, lambda0)
        paired = np.sum(by_Y * dY, axis=(1, 2)) + by_lambda0
        for i in range(2):
            if known[i]:
                assert abs(forward[i] - differences[i]) <= 1e-6 and abs(paired[i] - forward[i]) <= tolerance("float64")
            else:
                assert np.isnan(forward[i]) and np.isnan(paired[i])


def test_realisable_widths_are_those_of_the_ranks():
    for n, m, h, lambda0, expected in (
        (3, 2, 3, 1.0, True),
        (3, 2, 4, 1.0, False),
        (3, 2, 3, -1.0, False),
        (3, 2, 2, -1.0, True),
        (3, 2, 100, 0.0, True),
    ):
        assert bool(exact.homogeneous_realisable(n, m, h, lambda0)) == expected


def test_imbalance_levels_and_padded_widths_share_one_compiled_batch(rng):
    Y, ts = rng.normal(size=(2, 3)), np.array([0.5, 2.0])
    R0, widths = rng.normal(size=(5, 6)), (2, 4, 4)
    padded = np.stack([np.where(np.arange(6) < h, R0, 0) for h in widths])
    lambda0 = np.array([-1.0, 0.0, 1.0])
    batch = jax.vmap(lambda R, l: exact.homogeneous(Y, R[:2], R[2:], l, ts))(padded, lambda0)
    for i, h in enumerate(widths):
        alone = exact.homogeneous(Y, R0[:2, :h], R0[2:, :h], lambda0[i], ts)
        assert relative_error(batch[i], alone) <= tolerance("float64")


def test_bad_input_is_refused():
    Y, U0, V0, ts = np.ones((2, 3)), np.ones((2, 4)), np.ones((3, 4)), np.array([1.0])
    with pytest.raises(ValueError, match=r"`U0` must have 2 rows for a target of shape \(2, 3\)"):
        ld.exact.homogeneous_factors.__wrapped__(Y, V0, V0, 1.0, ts)
    with pytest.raises(ValueError, match="must have the same width, but have 4 and 3"):
        ld.exact.homogeneous_factors.__wrapped__(Y, U0, V0[:, :3], 1.0, ts)
    with pytest.raises(ValueError, match="`lambda0` must be a number"):
        ld.exact.homogeneous_factors.__wrapped__(Y, U0, V0, np.ones(2), ts)
    with pytest.raises(ValueError, match="`Y` must be finite"):
        ld.exact.homogeneous(Y * np.inf, U0, V0, 1.0, ts)
