"""Starts of two layers with a given product and a given imbalance."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

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
def balanced(
    problem: LeastSquares,
    Theta: Float[ArrayLike, "n m"],
    h: int,
    *,
    lambda0: Real[ArrayLike, ""] = 0.0,
    key: Key | None = None,
) -> TwoLayer:
    """A start with the given product and a homogeneous imbalance: `U1^T U1 - V^T V = lambda0 I` and `U V^T = Theta`.

    With the SVD `Phi1^T Theta = P diag(s) T^T`: `U1 = P diag(u) O^T`, `V = T diag(v) O^T`, `O^T O = I` and
    `u, v = ((sqrt(lambda0^2 + 4 s^2) +- lambda0)/2)^{1/2}`, both `s^{1/2}` without imbalance.

    **Args:** `Theta`, shape (n, m), of any rank; `h`, at least the rank of `Phi1^T Theta`, and min(r, m) where Theta is
    traced; `lambda0`, a number of any sign, by default none: other ones need h <= r if positive and h <= m if negative, since
    every one of the h hidden directions has that imbalance; `key` draws O (identity columns without one).

    **Raises:** `ValueError` for too small an h, one that is too large for lambda0, or a wrong shape. Where lambda0 is traced
    and h too large for it, the weights are NaN.

    **Notes:** it is U1, not U, that is balanced with V. Rows of Theta outside the range of X are reproduced as far as their
    row space lies in that of V, the rest of them being projected out. Singular values below `8 sqrt(min(n, m))`
    times the machine epsilon of ||Theta||_F count as zero, and derivatives keep them so. For `factorization(Y)` and a width that
    lambda0 allows, `exact.homogeneous_product` has the flow from it at any time.

    **Source:** M22 section 5.2, with O where the printed V has a transpose too few; with imbalance, T21 Proposition 5 (the
    start that it is about, for any shape).

    Example:

        >>> Theta = jnp.array([[2.0, 1.0], [1.0, 2.0]])
        >>> start = ld.init.balanced(ld.factorization(Theta), Theta, 2, lambda0=0.5)
        >>> print(start.product().round(4))
        [[2. 1.]
         [1. 2.]]
        >>> print(jnp.linalg.eigvalsh(start.U.T @ start.U - start.V.T @ start.V).round(4))
        [0.5 0.5]
    """
    Theta, h = theta_of(problem, Theta), size_of(h, "h")
    r, m = problem.rank, problem.num_outputs
    lambda0 = _level(lambda0, r, m, h, problem.dtype)
    P, C, TT, positive, off = balanced_modes(problem, Theta, "h", h)
    count, known = C.shape[0], not _checks.is_traced(lambda0)
    k = count if known and not lambda0 else min(h, max(r, m))
    s = jnp.where(positive, C, 0)
    width = hypot(lambda0, 2 * s)
    large = root_of((width + jnp.abs(lambda0)) / 2)
    small = ratio(s, jnp.where(large > 0, large, 1))
    u, v = (jnp.where(lambda0 >= 0, *pair) for pair in ((large, small), (small, large)))
    O = frame(h, k, key, problem.dtype)

    def layer(directions: Array, mine: Array, other: Array, off: Array, level: Array) -> Array:
        # Diagonal in the modes, but not so the derivative at repeated singular values, where the frames do not turn.
        weights = directions @ (jnp.diag(mine) + off * ratio(other, jnp.where(width > 0, width, 1)))
        # Of more hidden directions than modes each has weights in one layer alone.
        more = min(k, directions.shape[0]) - count
        if more > 0:
            alone = root_of(jnp.maximum(level, 0)) * complement(directions)[:, :more]
            weights = jnp.concatenate([weights, alone], axis=1)
        return jnp.pad(weights, ((0, 0), (0, k - weights.shape[1])))

    U1, V = layer(P, u, v, off, lambda0), layer(TT.T, v, u, off.T, -lambda0)
    allowed = (lambda0 == 0) | (h <= jnp.where(lambda0 > 0, r, m))
    U = problem.from_data(U1)
    if problem.num_frozen > 0:
        # Once more outside: where V has small columns, round-off is large by now.
        U = U + _outside(problem, _outside(problem, Theta) @ _dual(V))
    return TwoLayer(*(jnp.where(allowed, W @ O.T, jnp.nan) for W in (U, V)))


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

    Example:

        >>> Theta = jnp.array([[2.0, 1.0], [1.0, 2.0]])
        >>> positive, negative = jnp.array([3.0, 2.0]), jnp.array([1.0, 1.0])
        >>> start = ld.init.with_imbalance(ld.factorization(Theta), Theta, positive, negative, 4)
        >>> print(start.product().round(4))
        [[2. 1.]
         [1. 2.]]
        >>> print(start.imbalance_spectrum().round(4))
        [ 3.  2. -1. -1.]
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


def balanced_modes(
    problem: LeastSquares, Theta: Array, name: str, h: int | None
) -> tuple[Array, Array, Array, Array, Array]:
    """P, C and T^T of the thin SVD `Phi1^T Theta = P C T^T`, as many components as the width h holds; which of them are there;
    and zero with the derivative of what `P^T Theta T` has off its diagonal.
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
    off = jnp.where(positive[:, None] & positive, remainder(seen, P, TT), 0)
    return P, C, TT, positive, off


def balanced_factors(
    problem: LeastSquares, Theta: Array, name: str, h: int | None, depth: int
) -> tuple[Array, tuple[Array, Array], Array]:
    """P, (C^{1/L}, C^{1/L - 1}) and T^T of `balanced_modes`.

    The powers are matrices: diagonal, but not so their derivatives at repeated singular values, where the frames do not turn.
    """
    P, C, TT, positive, off = balanced_modes(problem, Theta, name, h)
    safe = jnp.where(positive, C, 1)
    root, inverse = (
        jnp.diag(jnp.where(positive, safe**power, 0)) + ratio(off, safe) * (power * safe**power)
        for power in (1 / depth, 1 / depth - 1)
    )
    return P, (root, inverse), TT


def _outside(problem: LeastSquares, rows: Float[Array, "n k"]) -> Float[Array, "n k"]:
    """What of rows lies outside the range of the data."""
    return rows - problem.from_data(problem.to_data(rows))


def _level(lambda0: ArrayLike, r: int, m: int, h: int, dtype) -> Array:
    """lambda0 as an array, refused where it is known and no start of this width has it."""
    level = _checks.as_float(lambda0, "lambda0")
    if level.ndim:
        raise ValueError(f"Argument `lambda0` must be a number, but has shape {level.shape}: use `jax.vmap`.")
    _checks.check_finite(level, "lambda0")
    if not _checks.is_traced(level) and level:
        most, words = (r, "positive, and h at most the rank of X, r") if level > 0 else (m, "negative, and h at most m")
        if h > most:
            raise ValueError(
                f"Argument `h` must be at most {most} for `lambda0` = {float(level):g}: U1^T U1 - V^T V = lambda0 I is possible "
                f"with lambda0 {words}, but h is {h}."
            )
    return level.astype(dtype)


def _dual(V: Float[Array, "m k"]) -> Float[Array, "m k"]:
    """W with `W V^T` the projection onto the range of V, whose columns are orthogonal; zero in those that are zero."""
    size = jnp.max(jnp.abs(jax.lax.stop_gradient(V)), axis=0)
    there = size > 0
    unit = V / jnp.where(there, size, 1)
    gram = jnp.where(there[:, None] & there, unit.T @ unit, jnp.eye(V.shape[1], dtype=V.dtype))
    return jnp.linalg.solve(gram, unit.T).T / jnp.where(there, size, 1)


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
