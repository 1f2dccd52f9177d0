"""Where the Riccati flow goes and how fast, for any start: the bookkeeping that its limits and rates share.

As t grows, `e^{tA} U0` turns towards the eigenvectors of the largest eigenvalues that it can reach: eliminating the rows of
`Phi^T U0` from the largest eigenvalue down, the rows that bring in something new are the *pivots*. A pivot of positive
eigenvalue a is where P converges to 2a/g; the others decay. For a generic start of rank rho the pivots are the first rho.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from .._finite import of_finite_numbers
from .._linalg import round_off, row_factor
from .._public import public
from ._common import Limit, Rate, last_derivative
from .riccati import check_riccati, merge_eigenvalues


class Reach(NamedTuple):
    """How a start lies in the eigenbasis of A.

    **Fields:** `a`, eigenvalues in ascending order, equal ones made equal; `Phi`, eigenvectors; `pivots`, which of them the
    start reaches; `projector`, on the reached part of every eigenspace, in the eigenbasis.
    """

    a: Float[Array, " p"]
    Phi: Float[Array, "p p"]
    pivots: Bool[Array, " p"]
    projector: Float[Array, "p p"]


@jax.jit
def reach(A: Float[Array, "p p"], U0: Float[Array, "p h"]) -> Reach:
    """The pivots of `U0` with respect to A; what is below `8 sqrt(min(p, h)) eps ||U0||_F` counts as round-off.

    Eigenvalues carry their derivative with respect to A; the rest are constants.
    """
    constant = jax.lax.stop_gradient(A)
    if U0.shape[1] > U0.shape[0]:
        U0, _ = row_factor(U0)
    a, Phi = jnp.linalg.eigh(constant)
    a = merge_eigenvalues(a)
    B: Array = Phi.T @ jax.lax.stop_gradient(U0)
    p, k = B.shape
    cutoff = round_off(B) * jnp.linalg.norm(B)

    def step(i: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        free, echelon, pivots = carry
        i = p - 1 - i
        row: Array = free @ (free @ B[i])
        size: Array = jnp.linalg.norm(row)
        new = size > cutoff
        row = jnp.where(new, row / jnp.where(new, size, 1), 0)
        return free - jnp.outer(row, row), echelon.at[:, i].set(B @ row), pivots.at[i].set(new)

    start = (jnp.eye(k, dtype=B.dtype), jnp.zeros((p, p), B.dtype), jnp.zeros(p, bool))
    end: tuple[Array, Array, Array] = jax.lax.fori_loop(0, p, step, start)
    _, echelon, pivots = end
    # Column i vanishes in the rows above the eigenspace of its pivot; its part there belongs to the reached subspace.
    within = jnp.where(a[:, None] == a[None, :], echelon, 0)
    left = jnp.where(jnp.arange(p) < jnp.sum(pivots), jnp.linalg.svd(within)[0], 0)
    moving = a + jnp.diagonal(Phi.T @ (A - constant) @ Phi)
    return Reach(moving, Phi, pivots, left @ left.T)


@jax.jit
def entry_rates(a: Float[Array, " p"], pivots: Bool[Array, " p"]) -> Float[Array, "p p"]:
    """Rates at which the entries of `Phi^T P Phi` approach their limits, for a start with these pivots in general position.

    `|a_i| + |a_j|` between pivots; the columns of the other eigenvectors follow the pivots' at the differences of the
    eigenvalues. An entry that stays where it is has an infinite rate.
    """
    size = jnp.abs(a)
    both = size[:, None] + size[None, :]
    # Row i of the graph over pivot j: decays at a_j - a_i, times P_jj itself, which decays if a_j < 0.
    behind = pivots[None, :] & ~pivots[:, None] & (a[:, None] < a[None, :])
    one = jnp.where(behind, 2 * size[None, :] - jnp.where(a > 0, a, -a)[None, :] - a[:, None], jnp.inf)
    graph = jnp.where(behind, a[None, :] - a[:, None], jnp.inf)
    decay = jnp.where(a < 0, -2 * a, 0)
    neither = jnp.min(graph[:, None, :] + graph[None, :, :] + decay, axis=2)
    return jnp.where(pivots[:, None], jnp.where(pivots[None, :], both, one.T), jnp.where(pivots[None, :], one, neither))


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

    **Returns:** a `Limit`: the limit of this start, shape (p, p), and whether it is `(2/g) A_+`. Whether a direction is
    reached is decided at `8 sqrt(min(p, h)) eps` relative to the norm of the start.

    **Raises:** `ValueError` as `riccati` does.

    **Notes:** has an exact first derivative with respect to A and g where there is one, also at repeated eigenvalues (half the
    jump at a zero eigenvalue, where A_+ has a kink); a second one is refused. The start does not move the limit.

    **Source:** T21 Proposition 2, with the condition that its proof needs; the limit of other starts is this package's.
    """
    A, U0 = check_riccati(A, g, U0)
    return _limit(A, jnp.asarray(g, A.dtype), U0)


@jax.jit
def _limit(A: Array, g: Array, U0: Array) -> Limit:
    reached: Reach = jax.lax.stop_gradient(reach(A, U0))
    a, Phi, pivots, projector = reached
    root = jnp.sqrt(jnp.maximum(a, 0))
    value = root[:, None] * projector * root[None, :]
    # The derivative of the spectral function a -> a_+ [reached]: divided differences, so no gap is ever divided by zero.
    same = a[:, None] == a[None, :]
    part = jnp.sum(same & pivots, axis=1).astype(a.dtype) / jnp.sum(same, axis=1).astype(a.dtype)
    values = part * jnp.maximum(a, 0)
    slope = part * jnp.heaviside(a, 0.5)
    gap = jnp.where(same, 1, a[:, None] - a[None, :])
    differences = jnp.where(same, slope[:, None], (values[:, None] - values[None, :]) / gap)
    moved = Phi.T @ (once(A) - jax.lax.stop_gradient(A)) @ Phi
    limit = 2 / g * Phi @ (value + differences * moved) @ Phi.T
    return Limit(limit, jnp.all(pivots | (a <= 0)))


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

    **Source:** T21 Proposition 2; the gap rate from the graph of the moving subspace.
    """
    A, U0 = check_riccati(A, g, U0)
    a, _, pivots, _ = reach(A, U0)
    return Rate(jnp.min(entry_rates(a, pivots)), is_generic(a, pivots))


@jax.custom_jvp
def once(x: Array) -> Array:
    """The identity; what depends on it linearly may be differentiated once, and refuses to be differentiated twice."""
    return x


@once.defjvp
def _once_jvp(primals, tangents):
    message = "This limit has an exact first derivative, but no second one."
    return once(primals[0]), tangents[0] * (1 + 0 * last_derivative(primals[0], message))
