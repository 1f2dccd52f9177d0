"""Which rank a start has, and a factor of it that keeps this rank.

A Riccati flow never changes the rank of its start, but makes anything grow that is there: round-off of columns that are linearly
dependent would end as large as a mode. What counts as round-off is asked of every entry for itself, so that a start with
modes of 1 and 1e-50 keeps both. Most starts are far from such a question, and what tells them is cheap.
"""

from collections.abc import Callable
from functools import reduce

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree


@jax.custom_jvp
def start_factor(Z: Float[Array, "p h"]) -> tuple[Float[Array, "p k"], Float[Array, "h k"]]:
    """`Z = L Q^T`: Q with orthonormal columns, k = min(p, h), and as many columns of L other than zero as Z has rank.

    L is graded: its columns, scaled to one size, are far from dependent. The derivative keeps Q horizontal, `dL = dZ Q`; for
    h <= p this is exact to any order, because Q is a constant rotation. For h > p, `dQ` needs rows that are linearly
    independent, and is NaN where they are not.
    """
    p, h = Z.shape
    if h <= p:
        L, Q = Z, jnp.eye(h, dtype=Z.dtype)
    else:
        Q, R = jnp.linalg.qr(Z.T)
        L = R.T
    (L, Q), _ = unless_good((L, Q), _is_independent(Z if h <= p else Z.T), _by_elimination, Z)
    return L, Q


@start_factor.defjvp
def _start_factor_jvp(primals, tangents):
    (Z,), (dZ,) = primals, tangents
    L, Q = start_factor(Z)
    p, h = Z.shape
    dL = dZ @ Q
    if h <= p:
        return (L, Q), (dL, jnp.zeros_like(Q))
    safe = jnp.where(jnp.all(jnp.any(L != 0, axis=0)), L, jnp.nan)
    return (L, Q), (dL, jnp.linalg.solve(safe, dZ - dL @ Q.T).T)


def unless_good(
    found: PyTree, good: Bool[Array, ""], better: Callable[[PyTree], PyTree], of: PyTree
) -> tuple[PyTree, Bool[Array, ""]]:
    """What was found, or `better(of)`, and whether it was good.

    By a loop of at most one step: unlike a `cond`, it costs nothing in a batch of good ones.
    """

    def step(carry: tuple) -> tuple:
        # What depends on nothing in a loop would be computed before it, needed or not.
        here, good = jax.lax.optimization_barrier((of, carry[1]))
        return better(here), ~good

    return jax.lax.while_loop(lambda carry: ~carry[1], step, (found, good))


def _is_independent(Z: Float[Array, "p h"]) -> Bool[Array, ""]:
    """Whether columns, scaled to one size, are so far from dependent that no rank is to be decided."""
    size = jnp.max(jnp.abs(Z), axis=0)
    Z = Z / jnp.where(size > 0, size, 1)
    Z = Z / jnp.sqrt(jnp.sum(Z**2, axis=0))
    C = jnp.linalg.cholesky(Z.T @ Z, symmetrize_input=False)
    inverse = jax.scipy.linalg.solve_triangular(C, jnp.eye(Z.shape[1], dtype=Z.dtype), lower=True)
    return jnp.sum(inverse**2) <= float(jnp.finfo(Z.dtype).eps) ** (-2 / 3)


def _by_elimination(Z: Array) -> tuple[Float[Array, "p k"], Float[Array, "h k"]]:
    left, right = _eliminate(Z)
    # Rows of `right`, scaled to one size, are far from dependent: reflections keep the digits of each.
    Q, R = jnp.linalg.qr(right.T)
    return left @ R.T, Q


@jax.jit
def _eliminate(Z: Array) -> tuple[Float[Array, "p k"], Float[Array, "k h"]]:
    """`Z = left @ right` by complete pivoting that ends where every entry that remains is round-off; columns and rows after it
    are zero.

    An entry is round-off if it is below 8 eps times the largest number that it comes from.
    """
    p, h = Z.shape
    eps = jnp.finfo(Z.dtype).eps

    def step(s: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
        remains, largest, left, right = carry
        # What is not finite is not round-off.
        remains = jnp.where((jnp.abs(remains) <= 8 * eps * largest) & (largest < jnp.inf), 0, remains)
        best = jnp.argmax(jnp.abs(remains))
        i, j = best // h, best % h
        found = remains[i, j] != 0
        pivot = jnp.where(found, remains[i, j], 1)
        column, row = remains[:, j] / pivot, remains[i]
        largest = inherited(largest, column, row, pivot, i, j)
        taken = (jnp.arange(p) == i)[:, None] | (jnp.arange(h) == j)
        remains = jnp.where(taken, 0, remains - column[:, None] * row)
        return remains, largest, left.at[:, s].set(column), right.at[s].set(row)

    k = min(p, h)
    start = (Z, jnp.abs(Z), jnp.zeros((p, k), Z.dtype), jnp.zeros((k, h), Z.dtype))
    _, _, left, right = jax.lax.fori_loop(0, k, step, start)
    return left, right


def inherited(largest: Array, column: Array, row: Array, pivot: Array, i: Array, j: Array) -> Array:
    """The largest numbers that entries come from once `column * row` is taken off; column and `row / pivot` are multipliers.

    What an entry is computed from brings its own along. A maximum and not a sum: sums of bounds grow like 2^k, errors do not.
    """
    by_row, by_column = jnp.abs(column)[:, None], jnp.abs(row / pivot)
    brought = (by_row * largest[i], largest[:, j][:, None] * by_column, by_row * largest[i, j] * by_column)
    return reduce(jnp.maximum, brought, largest) + by_row * jnp.abs(row)
