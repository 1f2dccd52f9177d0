"""The rows that dominate a matrix whose rows have sizes from 1 to e^{1e6}, and the basis in which they are the identity.

Only the column space of [I; K^{1/2} B] matters to a Riccati solution. k of its rows are chosen that dominate, made the identity,
and every other row is then of order one. The basis depends on time through that choice alone, so it is carried from time to
time and changed where rows have outgrown it: by factorizations of whole matrices where the result is certainly accurate, and
else by Gauss-Jordan elimination, entry by entry, which also tells round-off from what is small.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ._couplings import nothing
from ._start import inherited, unless_good

# A basis is kept while its entries, scaled, are below the first, and what round-off makes of them is below eps times the second.
_LARGEST, _NOISE = 10.0, 1e3


class Dominant(NamedTuple):
    """The choice of rows of [I; B], q = k + p.

    **Fields:** `basis`, `[I; B] [I; B]_J^{-1}`; `rows`, J, the row in which each of its columns is the identity; `noise`, the
    size of the numbers that its entries are computed from.
    """

    basis: Float[Array, "q k"]
    rows: Int[Array, " k"]
    noise: Float[Array, "q k"]


def first(B: Array, scale: Array) -> Dominant:
    """Before time begins the identity dominates; `scale` is the size of the numbers that B is computed from."""
    k = B.shape[1]
    eye = jnp.eye(k, dtype=B.dtype)
    return Dominant(jnp.concatenate([eye, B]), jnp.arange(k), jnp.concatenate([eye, scale]))


def follow(state: Dominant, B: Array, scale: Array, logs: Float[Array, "2 q"]) -> tuple[Dominant, Float[Array, "q k"]]:
    """The choice of rows, and the basis scaled, once row i counts `e^{logs[0, i] + logs[1, i]}` times."""

    # All that these take goes through the loops of `unless_good`: what does not would be computed before them, needed or not.
    def eliminated(given: tuple) -> tuple:
        return _measured(eliminate(*given), given[2])[0]

    def chosen(given: tuple) -> tuple:
        return unless_good(*_measured(_select(*given), given[2]), eliminated, given)[0]

    return unless_good(*_measured(state, logs), chosen, (B, scale, logs))[0]


def _measured(state: Dominant, logs: Array) -> tuple[tuple[Dominant, Float[Array, "q k"]], Bool[Array, ""]]:
    """The basis scaled, and whether it is bounded and accurate. (Its identity is, whatever it was computed from.)"""
    shift = shifts(logs, state.rows)
    scaled = scale_by(state.basis, shift)
    good = (jnp.abs(scaled) <= _LARGEST) & (scale_by(state.noise, shift) <= _NOISE)
    return (state, scaled), jnp.all(good | _chosen(state)[:, None])


def _chosen(state: Dominant) -> Bool[Array, " q"]:
    return jnp.zeros(state.basis.shape[0], bool).at[state.rows].set(True)


def _select(B: Array, scale: Array, logs: Array) -> Dominant:
    """Rows by partial pivoting on the scaled ones, all at once, and the basis by solving with them.

    Gaps between the scales are cut where their product would overflow: a wrong choice is seen by its size.
    """
    p, k = B.shape
    eye = jnp.eye(k, dtype=B.dtype)
    N = jnp.concatenate([eye, B])
    order = jnp.argsort(-(logs[0] + logs[1]))
    gaps = -jnp.diff(logs[0, order]) - jnp.diff(logs[1, order])
    most = 0.8 * float(np.log(jnp.finfo(B.dtype).max)) / (k + p)
    weights = jnp.exp(-jnp.cumsum(jnp.concatenate([jnp.zeros(1, B.dtype), jnp.clip(gaps, 0, most)])))
    _, _, places = jax.lax.linalg.lu(weights[:, None] * N[order])
    rows = order[jnp.sort(places[:k])]
    # Columns in the order of their scales: partial pivoting of the transpose does not see the scales.
    basis = jnp.linalg.solve(N[rows].T, N.T).T
    basis = basis.at[rows].set(eye)
    return Dominant(basis, rows, jnp.concatenate([eye, scale]) @ jnp.abs(basis[:k]))


def eliminate(B: Array, scale: Array, logs: Array) -> Dominant:
    """Rows and basis by Gauss-Jordan elimination of columns with complete pivoting on the scaled entries: the reference.

    Entries below 8 eps of the largest number that they come from, which is carried along as in `start_factor`, are round-off and
    would grow: zero.
    """
    p, k = B.shape
    row_numbers, columns = jnp.arange(k + p), jnp.arange(k)
    log_scale = logs[0] + logs[1]
    eps, most = jnp.finfo(B.dtype).eps, float(jnp.finfo(B.dtype).max) ** 0.3

    def step(_: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
        G, largest, rows, free_row, free_column = carry
        size = jnp.abs(G)
        score = jnp.where(size > 0, log_scale[:, None] + jnp.log(jnp.where(size > 0, size, 1)), -jnp.inf)
        score = jnp.where(free_row[:, None] & free_column[None, :], score, -jnp.inf)
        best = jnp.argmax(score)
        i, j = best // k, best % k
        at_i, at_j = row_numbers == i, columns == j
        column = G[:, j] / G[i, j]
        others = jnp.where(at_j, 0, G[i])
        largest = inherited(largest, column, others, G[i, j], i, j) / jnp.where(at_j, jnp.abs(G[i, j]), 1)
        largest = jnp.where(at_i[:, None], at_j.astype(G.dtype), jnp.minimum(largest, most))
        G = jnp.where(at_j, column[:, None], G - column[:, None] * others)
        G = jnp.where((jnp.abs(G) <= 8 * eps * largest) & (largest < most), 0, G)
        G = jnp.where(at_i[:, None], at_j.astype(G.dtype), G)
        return G, largest, jnp.where(at_j, i, rows), free_row & ~at_i, free_column & ~at_j

    start = first(B, scale)
    carry = (start.basis, start.noise, start.rows, jnp.ones(k + p, bool), jnp.ones(k, bool))
    G, largest, rows, _, _ = jax.lax.fori_loop(0, k, step, carry)
    return Dominant(G, rows, largest)


# -- what is differentiated ----------------------------------------------------------------------------------------------


@jax.custom_jvp
def basis_of(B: Array, state: Dominant) -> Float[Array, "q k"]:
    """The basis as a function of B; its first k rows are [I; B]_J^{-1}, so the derivative needs nothing but itself."""
    return state.basis + nothing(B, state.rows)


@basis_of.defjvp
def _basis_of_jvp(primals, tangents):
    B, state = primals
    k = B.shape[1]
    value = basis_of(B, state)
    dN = jnp.concatenate([jnp.zeros((k, k), B.dtype), tangents[0]])
    # The pivot rows are the identity and stay it. Forward mode finds the zero by cancellation; what reverse mode brings there
    # is scaled by up to e^{t (a_j - a_i)}, and must not be left to cancel.
    moving = ~_chosen(state)[:, None]
    return value, jnp.where(moving, dN - value @ dN[state.rows], 0) @ value[:k]


def shifts(logs: Float[Array, "2 q"], rows: Int[Array, " k"]) -> Float[Array, "q k"]:
    """Logarithms of the scales of all rows over those of the chosen ones: differences of each part before they are added."""
    apart = logs[:, :, None] - logs[:, None, rows]
    return apart[0] + apart[1]


@jax.custom_jvp
def scale_by(G: Array, shift: Array) -> Array:
    """`G e^shift`, bounded by the choice of the rows, in two halves because e^shift alone may overflow."""
    half = jnp.exp(jnp.minimum(shift / 2, 0.99 * np.log(jnp.finfo(G.dtype).max)))
    return (G * half) * half


@scale_by.defjvp
def _scale_by_jvp(primals, tangents):
    G, shift = primals
    # A start that misses a growing direction depends on it by e^shift: saturate instead of overflowing into NaN.
    most = 0.3 * np.log(jnp.finfo(G.dtype).max)
    return scale_by(G, shift), tangents[0] * jnp.exp(jnp.minimum(shift, most))
