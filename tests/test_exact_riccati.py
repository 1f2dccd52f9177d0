"""The Riccati flow against values of 4000 digits, its own semigroup, its limit, and finite differences."""

import decimal
import functools
import importlib
from decimal import Decimal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Compiled, load_cases, relative_error, tolerance

import lindyn_jax as ld
from lindyn_jax.exact import _dominant as dominant

riccati = importlib.import_module("lindyn_jax.exact.riccati")
exact = Compiled(ld.exact)


CASES = load_cases("riccati")
HADAMARD = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2


def factor(A, g, U0, t):
    # Numbers of one type: one program.
    g, t = (jnp.asarray(x, jnp.result_type(A)) for x in (g, t))
    return exact.riccati(A, g, U0, t)


def product(A, g, U0, t):
    L = factor(A, g, U0, t)
    return L @ L.T


def value_and_derivatives(A, g, U0, ts, dA, dU0, dt, order):
    """P and its first or its first two derivatives along (dA, dU0, t dt), at every time."""

    def along(path):
        one = jnp.ones_like(dt)
        return lambda e: jax.jvp(path, (e,), (one,))

    def at(t):
        first = along(lambda e: product(A + e * dA, g, U0 + e * dU0, t * (1 + e * dt)))
        if order == 1:
            return first(0 * dt)
        (value, slope), (_, second) = along(first)(0 * dt)
        return value, slope, second

    return jax.vmap(at)(ts)


@pytest.mark.parametrize(
    ("dtype", "wide", "order"),
    [
        (np.dtype("float64"), False, 1),
        (np.dtype("float64"), False, 2),
        (np.dtype("float32"), False, 2),
        (np.dtype("float64"), True, 2),
    ],
    ids=["float64, first", "float64", "float32", "float64, wide"],
)
def test_values_and_two_derivatives_agree_with_4000_digits(dtype, wide, order):
    # Zero columns and repeated times give the cases of one size one shape; starts wider than tall are another program.
    groups = {}
    for case in CASES.values():
        p, h = np.shape(case["inputs"]["U0"])
        if (h > p) == wide:
            groups.setdefault((p, max(p, h)), []).append(case)
    assert groups
    for (_, columns), cases in groups.items():
        stacked = {key: [] for key in ("A", "g", "U0", "ts", "dA", "dU0", "dt")}
        for case in cases:
            for key, values in stacked.items():
                value = np.asarray(case["inputs"][key], dtype)
                if key in ("U0", "dU0"):
                    value = np.pad(value, ((0, 0), (0, columns - value.shape[1])))
                if key == "ts":
                    value = np.pad(value, (0, 5 - value.size), mode="edge")
                values.append(value)
        derivatives = jax.jit(jax.vmap(functools.partial(value_and_derivatives, order=order)))
        results = derivatives(*(np.stack(values) for values in stacked.values()))
        results = jax.tree.map(np.asarray, results)
        for i, case in enumerate(cases):
            stretch = np.maximum(1, np.array(case["inputs"]["ts"]) * np.linalg.norm(case["inputs"]["A"], 2))
            # A power of t ||A|| for each derivative: exponents are differentiated, and t a_i is known to eps t ||A|| only.
            for power, (key, result) in enumerate(zip(("P", "first", "second")[: order + 1], results, strict=True)):
                assert result.dtype == dtype
                for j, factor in enumerate(stretch):
                    error = relative_error(result[i][j], case["expected"][key][j])
                    assert error <= tolerance(dtype, factor**power), (case["name"], key, j, error)


def test_times_in_any_order_give_the_same_solution_and_one_time_its_factor(rng):
    A, U0 = rng.normal(size=(4, 4)), rng.normal(size=(4, 2))
    A, ts = A + A.T, np.array([3.0, 0.0, 1e6, 0.02, 0.3, 0.3])
    L = np.asarray(exact.riccati_factors(A, 1.5, U0, ts))
    assert L.shape == (6, 4, 2)
    for t, at in zip(ts, L @ np.swapaxes(L, 1, 2), strict=True):
        assert relative_error(at, product(A, 1.5, U0, t)) <= tolerance("float64")


def steps_of(A, U0, ts):
    """The solution, with the rows that dominate chosen by elimination at every time, and at which times that is done anyway."""
    a, Phi = jnp.linalg.eigh(A)
    a = riccati.merge_eigenvalues(a)
    B, scale = riccati.in_eigenbasis(Phi, U0)
    g, k = jnp.asarray(1.5, A.dtype), U0.shape[1]

    def at(state, t):
        m, r, log_ratio = riccati._log_scales(t * a, g, t, B)
        logs = jnp.concatenate([jnp.zeros((2, k), A.dtype), jnp.stack([m, r])], axis=1)
        state, _ = dominant.follow(state, B, scale, logs)
        (_, scaled), _ = dominant._measured(dominant.eliminate(B, scale, logs), logs)
        low = jnp.exp(t * a - m - r)[:, None] * scaled[k:]
        L = Phi @ riccati._solved(scaled, t * g * jnp.exp(log_ratio), low).T
        return state, (L @ L.T, ~dominant._measured(state, logs)[1])

    return jax.lax.scan(at, dominant.first(B, scale), ts)[1]


def test_rows_chosen_by_whole_matrices_give_the_solution_of_elimination(rng, dtype):
    draws, p, h = 40, 8, 4
    frames = np.linalg.qr(rng.normal(size=(draws, p, p)))[0]
    a = rng.choice([-1.0, -0.5, 0, 0, 1, 1, 1.5], size=(draws, p))
    a[::2] = rng.normal(size=(draws // 2, p))
    A = np.einsum("bij,bj,bkj->bik", frames, a, frames)
    A, U0 = (A + np.swapaxes(A, 1, 2)) / 2, rng.normal(size=(draws, p, h))
    # A size of its own for every column, and for every row.
    U0[::3] *= 10.0 ** rng.uniform(-6, 0, size=(len(U0[::3]), 1, h))
    U0[1::3] *= 10.0 ** rng.uniform(-4, 0, size=(len(U0[1::3]), p, 1))
    ts = np.array([0, 1e-3, 0.1, 0.5, 1, 2, 5, 20, 100, 1e6], dtype)
    A, U0 = A.astype(dtype), U0.astype(dtype)
    expected, eliminated = jax.jit(jax.vmap(steps_of, (0, 0, None)))(A, U0, ts)
    P = jax.jit(jax.vmap(lambda A, U0: ld.exact.riccati(A, 1.5, U0, ts)))(A, U0)
    P, expected = np.asarray(P), np.asarray(expected)
    # float32 has fewer digits to spare, and takes the safe way more often.
    assert np.mean(eliminated) <= (0.01 if dtype == np.float64 else 0.2)
    for i in range(draws):
        for j, t in enumerate(ts):
            assert relative_error(P[i, j], expected[i, j]) <= tolerance(
                dtype, max(1, 2 * t) if np.all(a[i] <= 0) else 100
            )


def test_a_start_that_misses_a_growing_direction_is_eliminated(rng):
    A, U0 = np.diag([2.0, 1.0, 0.5, -1.0]), rng.normal(size=(4, 2))
    U0[0] = U0[1]
    A[0, 0] = 1.0
    turned = HADAMARD @ A @ HADAMARD, HADAMARD @ U0
    _, eliminated = jax.jit(steps_of)(*turned, np.array([0.1, 100.0]))
    assert list(eliminated) == [False, True]


def test_start_of_any_width_gives_a_factor_of_the_start_at_time_zero(rng):
    A = HADAMARD @ np.diag([1.0, 1, 0, -2]) @ HADAMARD
    for h in (2, 9):
        U0 = rng.normal(size=(4, h))
        L = np.asarray(factor(A, 1.5, U0, 0.0))
        assert L.shape == (4, min(4, h))
        assert relative_error(L @ L.T, U0 @ U0.T) <= tolerance("float64")
    assert relative_error(factor(A, 1.5, np.zeros((4, 2)), 3.0), np.zeros((4, 2))) == 0


def test_flow_for_two_times_is_the_flow_for_their_sum(rng):
    A = HADAMARD @ np.diag([0.5, 0.5, 0, -0.25]) @ HADAMARD
    U0 = rng.normal(size=(4, 2))
    for s, t in ((1e-3, 0.7), (3.0, 40.0), (1e3, 1e6)):
        halfway = factor(A, 2, U0, s)
        assert relative_error(product(A, 2, halfway, t), product(A, 2, U0, s + t)) <= tolerance(
            "float64", max(1, s / 10)
        )


def test_padded_columns_change_nothing(rng):
    A, U0 = np.diag([1.0, 0.5, -1]), rng.normal(size=(3, 2))
    padded = np.concatenate([U0, np.zeros((3, 4))], axis=1)
    assert relative_error(product(A, 1, padded, 2.0), product(A, 1, U0, 2.0)) <= tolerance("float64")


@jax.jit
def late_and_limit(A, U0, t, dA, dU0):
    """P(t) and its limit with their derivatives along (dA, dU0); whether it is the whole positive part; its rate."""

    def limit(A, U0):
        value, applies = exact.riccati_limit(A, 1.5, U0)
        return value, applies

    late = jax.jvp(lambda A, U0: product(A, 1.5, U0, t), (A, U0), (dA, dU0))
    value, tangent, applies = jax.jvp(limit, (A, U0), (dA, dU0), has_aux=True)
    return late, (value, tangent), applies, exact.riccati_rate(A, 1.5, U0)


def test_large_times_reach_the_limit_and_its_derivative(rng):
    dA = rng.normal(size=(4, 4))
    dA = dA + dA.T
    cases = {  # eigenvalues, rank of the start, whether the limit is the whole positive part
        "full": ([1, 1, 0.5, -0.5], 4, True),
        "just enough": ([1, 1, -0.5, -0.5], 2, True),
        "lower rank": ([2, 1, 0.5, -0.5], 2, False),
        "negative": ([-1, -1, -0.5, -0.25], 4, True),
    }
    for name, (a, rank, applies) in cases.items():
        A, U0 = HADAMARD @ np.diag(np.array(a, float)) @ HADAMARD, rng.normal(size=(4, 4))
        U0[:, rank:] = 0
        for t in (100.0, 1e6):
            (value, dvalue), (limit, dlimit), reached, rate = late_and_limit(A, U0, t, dA, 0 * U0)
            assert relative_error(value, limit) <= tolerance("float64"), name
            assert relative_error(dvalue, dlimit) <= tolerance("float64", t), name
        assert bool(reached) == applies
        assert bool(rate.applies)


def test_limit_that_jumps_has_no_derivative_and_one_that_turns_has_that_of_late_times(rng):
    dA, dU0, U0 = rng.normal(size=(3, 4, 4))
    dA, none, second = dA + dA.T, np.zeros((4, 4)), np.arange(4) < 2
    repeated = HADAMARD @ np.diag([2.0, 1, 1, -1]) @ HADAMARD
    (_, late), (_, turned), _, _ = late_and_limit(repeated, U0 * second, 1e3, none, dU0 * second)
    assert np.linalg.norm(turned) > 0.1
    assert relative_error(turned, late) <= tolerance("float64", 1e3)
    # A splits its eigenvalue, and the limit goes to the larger half.
    (_, split), _, _ = late_and_limit(repeated, U0 * second, 1e3, dA, none)[1:]
    assert np.all(np.isnan(split))
    # A start that misses the largest eigenvalue by chance finds it once it or A has moved.
    missed = (U0 - np.outer(HADAMARD[0], HADAMARD[0] @ U0)) * second
    distinct = HADAMARD @ np.diag([2.0, 1, 0.5, -1]) @ HADAMARD
    for directions in ((none, dU0 * second), (dA, none)):
        assert np.all(np.isnan(late_and_limit(distinct, missed, 1e3, *directions)[1][1]))


@pytest.mark.slow
def test_limit_has_one_derivative_in_both_modes_or_none(rng):
    dA, dU0, U0 = rng.normal(size=(3, 4, 4))
    pull = jax.jit(jax.grad(lambda A, U0: jnp.sum(dA * exact.riccati_limit(A, 1.5, U0).value), (0, 1)))
    repeated = HADAMARD @ np.diag([2.0, 1, 1, -1]) @ HADAMARD
    U0, dU0 = U0[:, :2], dU0[:, :2]
    turned = jax.jvp(lambda U0: exact.riccati_limit(repeated, 1.5, U0).value, (U0,), (dU0,))[1]
    pulled_A, pulled_U0 = pull(repeated, U0)
    assert abs(np.sum(pulled_U0 * dU0) - np.sum(dA * turned)) <= tolerance("float64", 100)
    missed = U0 - np.outer(HADAMARD[0], HADAMARD[0] @ U0)
    distinct = HADAMARD @ np.diag([2.0, 1, 0.5, -1]) @ HADAMARD
    assert all(np.all(np.isnan(array)) for array in (pulled_A, *pull(distinct, missed)))


def test_limit_of_a_start_in_special_position_is_the_part_that_it_reaches():
    A = np.diag([2.0, 1.0, 1.0, -1.0])
    U0 = np.pad(np.array([[0.0, 0], [1, 0], [1, 0], [0, 3]]), ((0, 0), (0, 2)))
    (late, _), (limit, _), applies, rate = late_and_limit(A, U0, 200.0, 0 * A, 0 * U0)
    assert not applies and not rate.applies
    expected = np.zeros((4, 4))
    expected[1:3, 1:3] = 1 / 1.5
    assert relative_error(limit, expected) <= tolerance("float64")
    assert relative_error(late, expected) <= tolerance("float64")


@pytest.mark.slow
def test_every_order_of_modes_gives_the_same_second_derivatives(rng):
    A, U0 = np.diag([1.0, 1, 0, -0.5]), rng.normal(size=(4, 2))
    S = rng.normal(size=(4, 4))
    S = S + S.T

    def value(z):
        return jnp.sum(jnp.sin(product(A + z[0] * S, 1.25, U0, z[1])))

    at, step = np.array([0.0, 0.7]), 1e-5
    gradient = jax.jit(jax.grad(value))
    differences = [(gradient(at + step * e) - gradient(at - step * e)) / (2 * step) for e in np.eye(2)]
    for derivative in (jax.jacfwd, jax.jacrev):
        hessian = jax.jit(derivative(derivative(value)))(at)
        # Central differences: h^2 times a third derivative and eps/h, both below 1e-9.
        np.testing.assert_allclose(hessian, differences, rtol=1e-7)
        assert abs(hessian[0, 1] - hessian[1, 0]) <= 1e-12 * abs(hessian[0, 1])


def in_digits(a, B, g, t):
    """P(t) in the eigenbasis of A by its formula, with 400 digits."""
    with decimal.localcontext(prec=400):
        a, B = (np.vectorize(Decimal, otypes=[object])(x) for x in (a, B))
        growth = np.array([(x * t).exp() for x in a])
        kernel = Decimal(g) * np.array([(grown**2 - 1) / (2 * x) for grown, x in zip(growth, a, strict=True)])
        inner, right = B.T @ (kernel[:, None] * B), (growth[:, None] * B).T
        k = len(inner)
        rows = np.concatenate([np.vectorize(Decimal, otypes=[object])(np.eye(k)) + inner, right], axis=1)
        # Gauss-Jordan: positive definite, so that no pivot is zero.
        for i in range(k):
            rows[i] = rows[i] / rows[i, i]
            for j in set(range(k)) - {i}:
                rows[j] = rows[j] - rows[j, i] * rows[i]
        return right.T @ rows[:, k:]


def test_rates_at_repeated_eigenvalues_are_those_of_400_digits(rng):
    cases = [  # eigenvalues, rank of the start
        ([1, 1, 0.5, -0.5], 4),
        ([1, 1, 0.5, -0.5], 1),
        ([2, 1, 1, -0.5], 2),
        ([2, 1, 1, 1], 2),
        ([2, 1, 1, 1], 3),
        ([1, 1, -0.5, -0.5], 3),
        ([-0.5, -0.5, -1, -1.5], 1),
        ([2, -0.5, -0.5, -0.5], 2),
    ]
    rates = jax.jit(lambda Y, U0: (exact.symmetric_rate(Y, U0), exact.symmetric_entry_rates(Y, U0)))
    for a, rank in cases:
        B = rng.integers(1, 9, size=(4, rank)) + np.eye(4, rank) * 5
        a = np.array(a, float)
        Y, U0 = HADAMARD @ np.diag(a / 2) @ HADAMARD, np.zeros((4, 4))
        U0[:, :rank] = HADAMARD @ B
        rate, (entries, of_full_rank) = rates(Y, U0)
        entries = np.asarray(entries)
        assert bool(of_full_rank) == (rank == 4), (a, rank)
        ascending = np.argsort(a)
        P = [in_digits(a[ascending], B[ascending], 4, t) for t in (40, 44, 150)]
        slowest = np.inf
        for x in set(a):
            for y in set(a):
                block = np.ix_(a[ascending] == x, a[ascending] == y)
                left = [np.sum((P[i] - P[2])[block] ** 2) for i in (0, 1)]
                of_block = np.unique(np.round(entries[block], 9))
                assert of_block.size == 1, (a, rank, x, y, of_block)
                if np.isinf(of_block[0]):
                    assert left[0] < 1e-100, (a, rank, x, y)
                    continue
                measured = float((left[0] / left[1]).ln()) / 8
                slowest = min(slowest, measured)
                # The next terms are behind by e^{-20}.
                assert abs(measured / of_block[0] - 1) <= 1e-6, (a, rank, x, y, measured, of_block)
        assert abs(rate.value / slowest - 1) <= 1e-6 and bool(rate.applies)


def test_rates_of_eigenvalues_that_split_have_no_derivative_and_others_have_theirs(rng):
    dA, U0 = rng.normal(size=(4, 4)), rng.normal(size=(4, 4))
    dA = dA + dA.T
    rate = jax.jit(lambda A, U0: exact.riccati_rate(A, 1.0, U0).value)
    both = jax.jit(lambda A, U0: (jax.jvp(lambda A: rate(A, U0), (A,), (dA,))[1], jax.grad(rate)(A, U0)))
    step = 1e-6
    for a, rank, known in (
        ([2, 1, 0.5, -0.25], 4, True),
        # The repeated eigenvalue is not the one that matters.
        ([1, 1, 0.5, -0.25], 4, True),
        ([2, 1, 0.25, 0.25], 4, False),
        ([2, 1, 0.75, 0.75], 2, False),
        ([1, 1, 0.9, -1], 2, False),
    ):
        A, start = HADAMARD @ np.diag(np.array(a, float)) @ HADAMARD, U0 * (np.arange(4) < rank)
        forward, pulled = both(A, start)
        if known:
            differences = (rate(A + step * dA, start) - rate(A - step * dA, start)) / (2 * step)
            assert abs(forward - differences) <= 1e-6 * abs(differences)
            assert abs(np.sum(pulled * dA) - forward) <= tolerance("float64", 10)
        else:
            assert np.isnan(forward) and np.all(np.isnan(pulled)), a


def test_third_derivatives_are_refused_and_not_wrong():
    def value(l):
        return jnp.sum(product(jnp.diag(jnp.array([1.0, 1.0])) + l * jnp.array([[0.0, 1], [1, 0]]), 1, jnp.eye(2), 1.0))

    for derivative in (jax.jacfwd, jax.grad):
        with pytest.raises(NotImplementedError, match="no third ones"):
            jax.eval_shape(derivative(derivative(derivative(value))), 0.0)
    with pytest.raises(NotImplementedError, match="no second one"):
        jax.eval_shape(
            jax.jacfwd(jax.grad(lambda A: jnp.sum(ld.exact.riccati_limit(A, 1, jnp.eye(2)).value))), jnp.eye(2)
        )


@pytest.mark.parametrize("draws", [1000, 10_000])
def test_degenerate_draws_have_finite_values_and_gradients(draws, rng, dtype):
    a = rng.choice([0.0, 0.0, 1.0, 1.0, -1.0, -0.5, 1 + 1e-9, 1e-9, -1e-300, 1e3], size=(draws, 4))
    axes = np.where((np.arange(draws) % 2)[:, None, None] == 0, np.eye(4), HADAMARD)
    A = np.einsum("bij,bj,bkj->bik", axes, a, axes)
    U0 = rng.choice([0.0, 1.0, -1.0, 1e-8, 1e-12, 1e-40, 1e-200, 1e3], size=(draws, 4, 3))
    U0[::3, :, 1] = U0[::3, :, 0]
    ts = rng.choice([0.0, 1e-12, 1e-3, 1.0, 30.0, 1e3, 1e6], size=draws)
    weights = rng.normal(size=(4, 4)).astype(dtype)

    def value(A, g, U0, t):
        return jnp.sum(weights * product(A, g, U0, t))

    everything = jax.jit(jax.vmap(jax.value_and_grad(value, (0, 1, 2, 3)), (0, None, 0, 0)))
    for result in jax.tree.leaves(everything(*(np.asarray(values, dtype) for values in (A, 1.5, U0, ts)))):
        assert result.dtype == dtype
        finite = np.isfinite(np.asarray(result)).reshape(draws, -1).all(axis=1)
        assert finite.all(), f"{np.sum(~finite)} draws, the first at {np.argmin(finite)}"


def test_bad_input_is_refused():
    A, U0 = np.eye(3), np.ones((3, 2))
    with pytest.raises(ValueError, match=r"`A` must be symmetric, but differs from its transpose by 1\.0e\+00"):
        ld.exact.riccati(np.array([[1.0, 1, 0], [0, 1, 0], [0, 0, 1]]), 1, U0, 1.0)
    with pytest.raises(ValueError, match=r"`A` must be square, but has shape \(2, 3\)"):
        ld.exact.riccati.__wrapped__(A[:2], 1, U0, 1.0)
    with pytest.raises(ValueError, match="`g` must be a positive number, but is 0"):
        ld.exact.riccati(A, 0, U0, 1.0)
    with pytest.raises(ValueError, match="`g` must be a positive number, but is -1"):
        ld.exact.riccati(A, -1.0, U0, 1.0)
    with pytest.raises(ValueError, match="same number of rows, but have 3 and 2"):
        ld.exact.riccati.__wrapped__(A, 1, U0[:2], 1.0)
    with pytest.raises(ValueError, match="`t` must not be negative"):
        ld.exact.riccati(A, 1, U0, -1.0)
    with pytest.raises(ValueError, match="`U0` must be finite"):
        ld.exact.riccati(A, 1, U0 * np.nan, 1.0)
    with pytest.raises(ValueError, match=r"`ts` must have shape \(T,\), but has shape \(1, 2\)"):
        ld.exact.riccati.__wrapped__(A, 1, U0, np.array([[0.0, 1.0]]))
    with pytest.raises(ValueError, match=r"`g` must be a number, but has shape \(2,\): use jax.vmap"):
        ld.exact.riccati.__wrapped__(A, np.ones(2), U0, 1.0)
