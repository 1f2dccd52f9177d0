"""Where the Riccati flow goes and how fast, for any start: the bookkeeping that its limits and rates share.

As t grows, `e^{tA} U0` turns towards the eigenvectors of the largest eigenvalues that it can reach: eliminating the rows of
`Phi^T U0` from the largest eigenvalue down, the rows that bring in something new are the *pivots*. A pivot of positive
eigenvalue a is where P converges to 2a/g; the others decay. For a generic start of rank rho the pivots are the first rho.

Of a repeated eigenvalue the last pivots may be a part only, the *edge*. Which part is then up to the start and to the other
eigenvectors, and it moves with both; if the eigenvalue splits, it jumps.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from .._derivatives import unknown
from .._finite import of_finite_numbers
from .._linalg import round_off
from .._public import public
from ._common import Limit, Rate, last_derivative
from ._start import start_factor
from .riccati import check_riccati, in_eigenbasis, merge_eigenvalues


class Reach(NamedTuple):
    """How a start lies in the eigenbasis of A.

    **Fields:** `a`, eigenvalues in ascending order, equal ones made equal; `kept`, which of them stay equal wherever A
    moves; `Phi`, eigenvectors; `pivots`, which of them the start reaches; `projector`, on the reached part of every
    eigenspace, in the eigenbasis; `rows`, what the pivots bring in: orthonormal rows, zero for the others;
    `echelon = Phi^T Z rows^T`, triangular between pivots, with Z the columns of `even_columns`.
    """

    a: Float[Array, " p"]
    kept: Bool[Array, " p"]
    Phi: Float[Array, "p p"]
    pivots: Bool[Array, " p"]
    projector: Float[Array, "p p"]
    rows: Float[Array, "p k"]
    echelon: Float[Array, "p p"]


@partial(jax.jit, static_argnames="count")
def reach(A: Float[Array, "p p"], U0: Float[Array, "p h"], level: Real[ArrayLike, ""] = 0, count: int = 0) -> Reach:
    """The pivots of `U0` with respect to A, which is known to keep its eigenvalue `level`, `count` times, wherever it moves.

    A pivot is a vector of the start, of length one, that stands out of round-off. Eigenvalues carry their derivative with
    respect to A, which is NaN for repeated ones that split; the rest are constants.
    """
    constant = jax.lax.stop_gradient(A)
    a, Phi = jnp.linalg.eigh(constant)
    a = merge_eigenvalues(a)
    B, scale = in_eigenbasis(Phi, jax.lax.stop_gradient(even_columns(U0)))
    p, k = B.shape
    cutoff = round_off(B) * jnp.linalg.norm(scale, axis=1)

    def step(i: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        free, rows, pivots = carry
        i = p - 1 - i
        row: Array = free @ (free @ B[i])
        size: Array = jnp.linalg.norm(row)
        new = size > cutoff[i]
        row = jnp.where(new, row / jnp.where(new, size, 1), 0)
        return free - jnp.outer(row, row), rows.at[i].set(row), pivots.at[i].set(new)

    start = (jnp.eye(k, dtype=B.dtype), jnp.zeros((p, k), B.dtype), jnp.zeros(p, bool))
    end: tuple[Array, Array, Array] = jax.lax.fori_loop(0, p, step, start)
    _, rows, pivots = end
    echelon = B @ rows.T
    # Column i vanishes in the rows above the eigenspace of its pivot; its part there belongs to the reached subspace.
    within = jnp.where(a[:, None] == a[None, :], echelon, 0)
    left = jnp.where(jnp.arange(p) < jnp.sum(pivots), jnp.linalg.svd(within)[0], 0)
    size = jnp.sum(a[:, None] == a[None, :], axis=1)
    kept = (size == count) & (jnp.abs(a - jax.lax.stop_gradient(level)) <= round_off(A) * jnp.max(jnp.abs(a)))
    moving = a + jnp.diagonal(Phi.T @ (A - constant) @ Phi)
    moving = jax.vmap(_jumping, (0, None, 0))(jnp.where(kept | (size == 1), moving, a), (A,), (kept | (size == 1),))
    return Reach(moving, kept, Phi, pivots, left @ left.T, rows, echelon)


def even_columns(U0: Float[Array, "p h"]) -> Float[Array, "p k"]:
    """Columns of length one, or zero, with the span of the start: limits depend on nothing else, however small its modes are."""
    factors: tuple[Array, Array] = start_factor(U0)
    L, constant = factors[0], jax.lax.stop_gradient(factors[0])
    largest = jnp.max(jnp.abs(constant), axis=0)
    size: Array = jnp.where(largest > 0, largest, 1)
    length: Array = jnp.linalg.norm(constant / size, axis=0)
    return L / size / jnp.where(largest > 0, length, 1)


@jax.jit
def entry_rates(a: Float[Array, " p"], pivots: Bool[Array, " p"]) -> Float[Array, "p p"]:
    """Rates at which the entries of `Phi^T P Phi` approach their limits, for a start with these pivots in general position.

    `|a_i| + |a_j|` between pivots, or twice the way down to a positive eigenvalue that is not reached; the columns of the others
    follow the pivots' at the differences of the eigenvalues. An entry that stays where it is has an infinite rate. Between
    eigenvectors of two eigenvalues, any of which may be repeated, all entries have the rate of the slowest: they are what some
    rotation makes of one another.
    """
    size = jnp.abs(a)
    # Row i of the graph over pivot j decays at a_j - a_i.
    behind = pivots[None, :] & ~pivots[:, None] & (a[:, None] < a[None, :])
    graph = jnp.where(behind, a[None, :] - a[:, None], jnp.inf)
    positive = jnp.where(a[:, None] > 0, graph, jnp.inf).T
    between = least(
        jnp.stack([size[:, None] + size[None, :], least(positive[:, None, :] + positive[None, :, :])], axis=-1)
    )
    # How fast the entries between pivots vanish themselves; then what the graph makes of them.
    decay = jnp.where(a < 0, -2 * a, 0)
    vanishing = jnp.where(jnp.eye(a.shape[0], dtype=bool), decay, between)
    one = least(graph[:, None, :] + vanishing)
    neither = least(graph[:, None, :] + graph[None, :, :] + decay)
    rates = jnp.where(
        pivots[:, None], jnp.where(pivots[None, :], between, one.T), jnp.where(pivots[None, :], one, neither)
    )
    same = a[:, None] == a[None, :]
    for _ in range(2):
        rates = least(jnp.where(same[None, :, :], rates[:, None, :], jnp.inf)).T
    return rates


def least(x: Float[Array, "... p"]) -> Float[Array, "..."]:
    """The least along the last axis; of several the derivative is the mean, and what is not among them has no say, NaN or not."""
    found = x == jnp.min(jax.lax.stop_gradient(x), axis=-1, keepdims=True)
    return jnp.sum(jnp.where(found, x, 0), axis=-1) / jnp.sum(found, axis=-1).astype(x.dtype)


def is_generic(a: Float[Array, " p"], pivots: Bool[Array, " p"]) -> Bool[Array, ""]:
    """Whether the pivots are the largest eigenvalues, as they are for almost every start of the same rank."""
    return jnp.max(jnp.where(pivots, -jnp.inf, a)) <= jnp.min(jnp.where(pivots, a, jnp.inf))


@public
@of_finite_numbers
def riccati_limit(A: Real[ArrayLike, "p p"], g: Real[ArrayLike, ""], U0: Real[ArrayLike, "p h"]) -> Limit:
    """Limit of the Riccati flow `P' = A P + P A - g P^2` as t goes to infinity.

    `P(inf) = (2/g) A_+`, with A_+ the positive semidefinite part of A, if and only if P(0) is positive definite on the span
    of the eigenvectors of positive eigenvalues. Any other start reaches a part of them only, and the limit is
    `(2/g) A_+` on that part: for a generic start of rank rho, the rho largest eigenvalues.

    **Args:** as for `riccati`.

    **Returns:** a `Limit`: the limit of this start, shape (p, p), and whether it is `(2/g) A_+`. A direction is reached if
    its part of the start is more than round-off, `8 sqrt(min(p, h)) eps`, of the entries that it is computed from: modes of
    starts may be of any size.

    **Raises:** `ValueError` as `riccati` does.

    **Notes:** has an exact first derivative with respect to A, U0 and g where there is one, also at repeated eigenvalues (half
    the jump at a zero eigenvalue, where A_+ has a kink); a second one is refused. The start moves the limit only if it
    reaches a part of a repeated positive eigenvalue. Where the limit jumps, or its kink is not known, the derivative is NaN:
    with respect to A if a part only of a repeated eigenvalue, positive or zero, is reached; with respect to U0 if `applies`
    is false and the columns other than zero are linearly dependent; with respect to both if the start misses a larger
    eigenvalue than it reaches.

    **Source:** T21 Proposition 2, with the condition that its proof needs; the limit of other starts is this package's.

    Example:

        >>> A = jnp.array([[2.0, 1.0], [1.0, 2.0]])
        >>> for U0 in (jnp.eye(2), jnp.diag(jnp.array([1.0, 0.0]))):
        ...     limit = ld.exact.riccati_limit(A, 2.0, U0)
        ...     print(limit.value.round(3), limit.applies)
        [[2. 1.]
         [1. 2.]] True
        [[1.5 1.5]
         [1.5 1.5]] False
    """
    A, U0 = check_riccati(A, g, U0)
    return limit_from(A, jnp.asarray(g, A.dtype), U0, jnp.zeros((), A.dtype), 0)


@partial(jax.jit, static_argnames="count")
def limit_from(A: Array, g: Array, U0: Array, level: Array, count: int) -> Limit:
    """`riccati_limit` of checked arguments; A is known to keep its eigenvalue `level`, `count` times, wherever it moves."""
    reached: Reach = jax.lax.stop_gradient(reach(A, U0, level, count))
    a, kept, Phi, pivots, projector, *_ = reached
    applies = jnp.all(pivots | (a <= 0))
    same = a[:, None] == a[None, :]
    found, size = jnp.sum(same & pivots, axis=1), jnp.sum(same, axis=1)
    edge = (found > 0) & (found < size) & (a >= 0)

    # Pivots stay where they are if they are the largest eigenvalues, and the rank stays as large as it is.
    generic = is_generic(a, pivots)
    A_known = jnp.all(pivots | (a < 0)) | (generic & jnp.all(kept | ~edge))
    columns = jnp.any(jax.lax.stop_gradient(U0) != 0, axis=0)
    U0_known = applies | (generic & columns & (jnp.sum(pivots) == jnp.sum(columns)))
    A, U0 = once(A), once(U0)
    sources = A, U0
    moved, started = (Phi.T @ (x - jax.lax.stop_gradient(x)) for x in (A, even_columns(U0)))
    moved = moved @ Phi

    # The derivative of the spectral function a -> a_+ [all of a is reached]: divided differences, no gap of zero is divided by.
    whole = pivots & ~edge
    values, slope = jnp.where(whole, jnp.maximum(a, 0), 0), jnp.where(whole, jnp.heaviside(a, 0.5), 0)
    gap = jnp.where(same, 1, a[:, None] - a[None, :])
    differences = jnp.where(same, slope[:, None], (values[:, None] - values[None, :]) / gap)
    root = jnp.sqrt(jnp.maximum(a, 0))
    value = root[:, None] * projector * root[None, :]
    part = value + differences * moved + _edge_moves(reached, edge, moved, started)
    return Limit(2 / g * Phi @ _jumping(part, sources, (A_known, U0_known)) @ Phi.T, applies)


def _edge_moves(reached: Reach, edge: Array, moved: Array, started: Array) -> Float[Array, "p p"]:
    """What a repeated eigenvalue that is reached in part adds to the derivative, in the eigenbasis; `reached` is constant.

    The reached vectors x that no larger eigenvalue sees have the graph `echelon T^{-1}` over their pivots, T the pivots'
    rows of the echelon; the span of its part X in the eigenspace moves by `(I - E) dX X^+`, and X^+ is the pivots' rows of E.
    """
    a, _, _, pivots, projector, rows, echelon = reached
    block = edge[:, None] & edge[None, :]
    E = jnp.where(block, projector, 0)
    # The eigenvectors turn between what is larger, the edge and the rest; turns within these do not matter.
    level = jnp.where(edge, 1, jnp.where(pivots, 2, 0))
    apart = (level[:, None] != level[None, :]) & (a[:, None] != a[None, :])
    turn = jnp.where(apart, moved / jnp.where(apart, a[None, :] - a[:, None], 1), 0)

    between = pivots[:, None] & pivots[None, :]
    T = jnp.where(between, echelon, jnp.eye(a.shape[0], dtype=a.dtype))
    over = partial(jax.scipy.linalg.solve_triangular, T, trans=1)
    graph = over(echelon.T).T
    change = started @ rows.T - turn @ echelon
    change = over((change - graph @ jnp.where(between, change, 0)).T).T
    change = jnp.where(block, change, 0)
    tilt = (change - E @ change) @ E

    at = jnp.max(jnp.where(edge, a, 0))
    share = edge.astype(a.dtype) / jnp.maximum(jnp.sum(edge), 1).astype(a.dtype)
    shift = share @ jnp.diagonal(moved)
    return jnp.heaviside(at, 0.5) * shift * E + at * (tilt + tilt.T + turn @ E - E @ turn)


@public
@of_finite_numbers
def riccati_rate(A: Real[ArrayLike, "p p"], g: Real[ArrayLike, ""], U0: Real[ArrayLike, "p h"]) -> Rate:
    """Asymptotic rate of the Riccati flow: `||P(t) - P(inf)||` falls like `exp(-rate t)`.

    The least of `2 |a_i|` over the reached eigenvalues and of `a_j - a_i` between reached positive ones and the others: for a
    start of full rank `2 min |a_i|`; for a generic start of rank rho the gap `a_rho - a_{rho+1}` counts as well.

    **Args:** as for `riccati`.

    **Returns:** a `Rate`; `applies` if the start is generic: it reaches the largest eigenvalues that its rank allows, so that
    no coefficient is known to vanish. Zero means slower than any exponential: P ~ 1/(g t) on the kernel of A that is
    reached. Infinite: P does not move.

    **Raises:** `ValueError` as `riccati` does.

    **Notes:** the derivative with respect to A is that of the eigenvalues; where several rates are the least, the mean of
    theirs, and NaN where a repeated eigenvalue has the least: it splits, and its parts have no derivative.

    **Source:** T21 Proposition 2; the gap rate from the graph of the moving subspace.

    Example:

        >>> A, U0 = jnp.array([[2.0, 1.0], [1.0, 2.0]]), 0.1 * jnp.eye(2)
        >>> float(ld.exact.riccati_rate(A, 2.0, U0).value)
        2.0
    """
    A, U0 = check_riccati(A, g, U0)
    a, _, _, pivots, *_ = reach(A, U0)
    return Rate(least(entry_rates(a, pivots).ravel()), is_generic(a, pivots))


@jax.custom_jvp
def once(x: Array) -> Array:
    """The identity; what depends on it linearly may be differentiated once, and refuses to be differentiated twice."""
    return x


@once.defjvp
def _once_jvp(primals, tangents):
    message = "This limit has an exact first derivative, but no second one."
    return once(primals[0]), tangents[0] * (1 + 0 * last_derivative(primals[0], message))


@jax.custom_jvp
def _jumping(value: Array, sources: tuple[Array, ...], known: tuple[Array, ...]) -> Array:
    """`value`, with derivative NaN along the sources that it is not known to follow smoothly."""
    return value


@_jumping.defjvp
def _jumping_jvp(primals, tangents):
    (value, sources, known), (change, moves, _) = primals, tangents
    unsafe = tuple(jnp.where(safe, 0, move) for safe, move in zip(known, moves, strict=True))
    return _jumping(value, sources, known), change + unknown(unsafe, value)
