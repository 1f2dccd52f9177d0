"""Starts of two layers with a given product and a given imbalance."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .. import _checks
from .._linalg import round_off
from .._norms import hypot, norm, ratio
from .._norms import root as root_of
from .._public import public
from .._svd import complement, remainder, thin_svd
from ..models import TwoLayer
from ..problems import LeastSquares
from ._parts import Key, frame, size_of, theta_of


@public
def balanced(problem: LeastSquares, Theta: Float[ArrayLike, "n m"], h: int, *, key: Key | None = None) -> TwoLayer:
    """A start with the given product and no imbalance: `U1^T U1 = V^T V` and `U V^T = Theta`.

    With the thin SVD `Phi1^T Theta = P C T^T`: `U1 = P C^{1/2} O^T`, `V = T C^{1/2} O^T` and `O^T O = I`.

    **Args:** `Theta`, shape (n, m), of any rank; `h`, at least the rank of `Phi1^T Theta`, and min(r, m) where Theta is
    traced; `key` draws O (identity columns without one).

    **Raises:** `ValueError` for too small an h or a wrong shape.

    **Notes:** it is U1, not U, that is balanced with V. Rows of Theta outside the range of X are reproduced as far as their
    row space lies in that of `Phi1^T Theta`, the rest of them being projected out. Singular values below `8 sqrt(min(n, m))`
    times the machine epsilon of ||Theta||_F count as zero.

    **Source:** M22 section 5.2, with O where the printed V has a transpose too few.
    """
    Theta, h = theta_of(problem, Theta), size_of(h, "h")
    P, (root, inverse), TT = balanced_factors(problem, Theta, "h", h, 2)
    O = frame(h, root.shape[0], key, problem.dtype)
    V = TT.T @ root.T @ O.T
    outside = Theta - problem.from_data(problem.to_data(Theta))
    U = problem.from_data(P @ root @ O.T) + outside @ TT.T @ inverse @ O.T
    return TwoLayer(U, V)


@public
def with_imbalance(
    problem: LeastSquares,
    Theta: Float[ArrayLike, "n m"],
    positive: Float[ArrayLike, " r"],
    negative: Float[ArrayLike, " m"],
    h: int,
    *,
    key: Key | None = None,
) -> TwoLayer:
    """A start with prescribed imbalance and product.

    `D = U1^T U1 - V^T V` has the eigenvalues `positive` and `-negative`, and `U1 V^T = Phi1^T Theta`.

    Each singular value sigma of the product shares one pair of columns with one positive d1 and one negative -d2: in that
    pair `u u^T - v v^T = diag(d1, -d2)` and `u . v = sigma`. Values without a partner get a column of their own.

    **Args:** `Theta`, shape (n, m), only `Phi1^T Theta` being used; `positive`, shape (r,), and `negative`, shape (m,), both
    nonnegative and paired in order with the singular values, which descend; `h >= r + m`; `key` rotates the columns.

    **Raises:** `ValueError` for wrong lengths, negative entries or h < r + m.

    **Notes:** derivatives with respect to Theta need singular values that differ; the singular vectors of equal ones are held.

    **Source:** M22 Appendix C (the two-by-two block).
    """
    Theta, h = theta_of(problem, Theta), size_of(h, "h")
    r, m = problem.rank, problem.num_outputs
    positive, negative = _checks.as_float(positive, "positive"), _checks.as_float(negative, "negative")
    for name, value, size in (("positive", positive, r), ("negative", negative, m)):
        if value.shape != (size,):
            raise ValueError(f"Argument `{name}` must have shape ({size},), but has shape {value.shape}.")
        if not _checks.is_traced(value) and not bool(jnp.all(value >= 0)):
            raise ValueError(f"Argument `{name}` must have no negative entry; its sign is understood.")
    if h < r + m:
        raise ValueError(f"Argument `h` must be at least r + m = {r + m} for a prescribed imbalance, but is {h}.")
    P, sigma, TT = thin_svd(problem.to_data(Theta))
    P, T = jnp.concatenate([P, complement(P)], axis=1), jnp.concatenate([TT.T, complement(TT.T)], axis=1)
    k = min(r, m)
    d1, d2 = positive[:k], negative[:k]
    u_plus, u_minus, v_plus, v_minus = _imbalance_block(d1, d2, sigma)
    # Columns: the r positive ones first, then the m negative ones.
    U_plus = jnp.diag(jnp.concatenate([u_plus, root_of(positive[k:])]))
    V_minus = jnp.diag(jnp.concatenate([v_minus, root_of(negative[k:])]))
    U_minus = jnp.zeros((r, m), sigma.dtype).at[jnp.arange(k), jnp.arange(k)].set(u_minus)
    V_plus = jnp.zeros((m, r), sigma.dtype).at[jnp.arange(k), jnp.arange(k)].set(v_plus)
    O = frame(h, r + m, key, problem.dtype)
    U1 = P @ jnp.concatenate([U_plus, U_minus], axis=1) @ O.T
    V = T @ jnp.concatenate([V_plus, V_minus], axis=1) @ O.T
    return TwoLayer(problem.from_data(U1), V)


def balanced_factors(
    problem: LeastSquares, Theta: Array, name: str, h: int | None, depth: int
) -> tuple[Array, tuple[Array, Array], Array]:
    """P, (C^{1/L}, C^{1/L - 1}) and T^T of the thin SVD `Phi1^T Theta = P C T^T`, as many components as the width h holds.

    The powers are matrices: diagonal, but not so their derivatives at repeated singular values, where the frames do not turn.
    """
    seen = problem.to_data(Theta)
    P, C, TT = thin_svd(seen)
    # What the projection leaves of components that are not there: the root of its inverse would be of order 1e7.
    cutoff = round_off(Theta) * jax.lax.stop_gradient(norm(Theta))
    positive = ~(cutoff >= C)  # NaN is no component that is not there
    count = C.shape[0]
    if h is not None and h < count:
        if _checks.is_traced(C) or bool(positive[h]):
            least = (
                f"min(r, m) = {count}" if _checks.is_traced(C) else f"the rank {int(jnp.sum(positive))} of its product"
            )
            raise ValueError(f"Argument `{name}` must be at least {least} for a balanced start, but is {h}.")
        P, C, TT, positive = P[:, :h], C[:h], TT[:h], positive[:h]
    # With derivative zero where there is no component.
    safe, there = jnp.where(positive, C, 1), positive[:, None] & positive
    off = jnp.where(there, remainder(seen, P, TT), 0)
    root, inverse = (
        jnp.diag(jnp.where(positive, safe**power, 0)) + ratio(off, safe) * (power * safe**power)
        for power in (1 / depth, 1 / depth - 1)
    )
    return P, (root, inverse), TT


def _imbalance_block(d1: Array, d2: Array, sigma: Array) -> tuple[Array, Array, Array, Array]:
    """(u_1, u_2, v_1, v_2) with `u u^T - v v^T = diag(d1, -d2)` and `u . v = sigma`, for each entry."""
    total = d1 + d2
    # No square is formed, here or in the derivatives: that of 1e-160 is 0.
    root = hypot(total, 2 * sigma)
    none = root == 0
    shared = jnp.where(none, 0.0, 2 * sigma * ratio(sigma, jnp.where(none, 1.0, root + total)))
    empty = total == 0
    part1 = jnp.where(empty, 1.0, ratio(d1, jnp.where(empty, 1.0, total)))
    part2 = jnp.where(empty, 0.0, ratio(d2, jnp.where(empty, 1.0, total)))
    u_plus, u_minus = root_of(d1 + part1 * shared), root_of(part2 * shared)
    v_plus, v_minus = root_of(part1 * shared), root_of(d2 + part2 * shared)
    return u_plus, u_minus, v_plus, v_minus
