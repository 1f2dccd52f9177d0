"""Deterministic equivalents agree with draws, hold at every time, and have derivatives."""

import itertools
from decimal import Decimal, localcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import load_cases, relative_error, tolerance

import lindyn_jax as ld

CASE = load_cases("workbench")["tied_random_matrix_limit"]
EIGENVALUES, H, VARIANCE = (CASE["inputs"][name] for name in ("eigenvalues", "h", "variance"))
EIGENVALUES, ONE = np.array(EIGENVALUES), np.ones(1)
equivalent = ld.theory.deterministic_equivalent


def test_equivalents_are_those_of_the_reference():
    found = equivalent(EIGENVALUES, H, VARIANCE, np.array([expected["t"] for expected in CASE["expected"]]))
    assert bool(found.applies)
    for i, expected in enumerate(CASE["expected"]):
        for name in ("mu", "diagonal", "trace", "loss"):
            assert relative_error(getattr(found, name)[i], expected[name]) < CASE["rel_or_abs_tol"]


def test_equivalents_agree_with_draws():
    n, h, draws, ts = 300, 120, 20, np.array([0.3, 1.0, 3.0])
    y = np.linspace(-1, 1, n) ** 3
    rng = np.random.default_rng(0)
    found, traces, diagonals = equivalent(y, h, 0.5, ts), [], []
    for _ in range(draws):
        U0 = np.sqrt(0.5 / n) * rng.normal(size=(n, h))
        for_t = []
        for t in ts:
            # The solution of the Riccati equation, by linear algebra alone.
            A = np.where(y == 0, 4 * t, np.expm1(4 * t * y) / np.where(y == 0, 1, y))
            B = np.exp(2 * t * y)[:, None] * U0
            for_t.append(np.sum(B * np.linalg.solve(np.eye(h) + U0.T @ (A[:, None] * U0), B.T).T, axis=1))
        diagonals.append(for_t)
    traces = np.sum(diagonals, axis=2)
    error = np.abs(np.mean(traces, axis=0) - found.trace)
    # What is left of order 1/n, a thousandth of the trace, is seen in hundreds of draws.
    assert np.all(error < 3 * traces.std(axis=0, ddof=1) / np.sqrt(draws))
    spread = np.std(diagonals, axis=0, ddof=1) / np.sqrt(draws)
    assert np.mean(np.abs(np.mean(diagonals, axis=0) - found.diagonal) < 3 * spread) > 0.97
    np.testing.assert_allclose(found.bulk, np.sum(np.asarray(found.diagonal)[:, y <= 0], axis=1), rtol=1e-12)


def test_start_and_end_are_exact():
    y = np.array([2.0, 1.0, 0.5, 0.0, -1.0])
    for h in (1, 2, 3, 5, 40):
        first, last = equivalent(y, h, 0.3, np.array([0.0, 1e6])).diagonal
        np.testing.assert_allclose(first, 0.3 * h / 5, rtol=1e-12)
        # As many modes as the width holds are learned, the largest first.
        np.testing.assert_allclose(last, np.where(np.arange(5) < h, np.maximum(y, 0), 0), atol=1e-5)


@pytest.mark.parametrize("variance", [1e-30, 1e-6, 1.0, 1e8])
def test_equation_holds_at_every_time_and_scale(variance):
    y = np.array([1.5, 0.7, 0.0, -0.4, -2.0, 1e-9])
    n = len(y)
    with localcontext() as context:
        context.prec = 150
        for t, h in itertools.product((1e-8, 0.1, 3.0, 60.0), (1, 3, 4, 20)):
            found = equivalent(y, h, variance, np.array([t]))
            grown = [(4 * Decimal(t) * Decimal(v)).exp() for v in y]
            A = [4 * Decimal(t) if v == 0 else (g - 1) / Decimal(v) for v, g in zip(y, grown, strict=True)]
            mu, s2 = Decimal(float(found.mu[0])), Decimal(variance)

            def gap(mu, A=A, s2=s2, h=h):
                return s2 * (sum(1 / (1 + mu * a) for a in A) / n - (1 - Decimal(h) / n)) - mu

            # The sign changes within a few units of round-off around the number.
            near = Decimal("1e-12")
            assert gap(mu * (1 - near)) > 0 > gap(mu * (1 + near))
            exact = [mu * g / (1 + mu * a) for g, a in zip(grown, A, strict=True)]
            np.testing.assert_allclose(found.diagonal[0], np.array(exact, float), rtol=1e-11, atol=1e-300)


def test_equivalents_in_float32_and_in_batches():
    ts = np.array([0.0, 0.5, 50.0])
    double = equivalent(EIGENVALUES, H, VARIANCE, ts)
    single = equivalent(EIGENVALUES.astype(np.float32), H, VARIANCE, ts.astype(np.float32))
    assert single.diagonal.dtype == np.float32
    assert relative_error(single.diagonal, double.diagonal) < tolerance(np.float32, 100)
    many = jax.vmap(lambda h, s: equivalent(EIGENVALUES, h, s, ts).trace)(
        jnp.array([10.0, 30.0]), jnp.array([0.1, 0.5])
    )
    assert relative_error(many[1], double.trace) < 1e-12


def test_derivatives_are_those_of_differences():
    y, ts = jnp.array([1.0, 0.3, 0.0, -0.5]), jnp.array([0.0, 0.7, 5.0])

    @jax.jit
    def total(x):
        found = equivalent(y * x[0], 2 * x[1], 0.4 * x[2], ts * x[3])
        return jnp.sum(jnp.sin(found.diagonal)) + jnp.sum(found.mu) + jnp.sum(found.loss)

    x, dx, e = jnp.ones(4), np.random.default_rng(3).normal(size=4), 1e-5
    first = jax.jit(jax.grad(total))
    assert relative_error(first(x) @ dx, (total(x + e * dx) - total(x - e * dx)) / (2 * e)) < 1e-8
    second = jax.jit(jax.hessian(total))(x) @ dx
    assert relative_error(second, (first(x + e * dx) - first(x - e * dx)) / (2 * e)) < 1e-7


def test_wrong_numbers_are_refused():
    for match, arguments in {
        "`h` must be a positive number": (EIGENVALUES, 0, 0.5, ONE),
        "`variance` must be a positive number": (EIGENVALUES, 3, -0.5, ONE),
        "`ts` must be a number of at least 0": (EIGENVALUES, 3, 0.5, -ONE),
    }.items():
        with pytest.raises(ValueError, match=match):
            equivalent(*arguments)
