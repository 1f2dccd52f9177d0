"""Tied layers, `X = U U^T`: the flow `X' = 2 Y X + 2 X Y - 4 X^2` of a symmetric target, at any time.

This is the Riccati flow with A = 2Y and g = 4. Y may be indefinite and singular, U0 of any width and rank.
"""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from .. import _checks
from .._finite import of_finite_numbers
from .._public import public
from ._common import Limit, Rate, as_floats, as_times, check_not_negative, phi1, ratio
from .asymptotics import entry_rates, reach, riccati_limit, riccati_rate
from .riccati import check_riccati, check_symmetric, checked_factors


@public
def symmetric(
    Y: Real[ArrayLike, "n n"], U0: Real[ArrayLike, "n h"], ts: Real[ArrayLike, " T"]
) -> Float[Array, "T n n"]:
    """End-to-end matrix of tied layers along the gradient flow of `(1/2) ||Y - U U^T||_F^2`.

    `X(t) = e^{2tY} U0 (I + 4 U0^T K U0)^{-1} U0^T e^{2tY}` with `K = (e^{4tY} - I)/(4Y)`, evaluated so that nothing
    overflows.

    **Args:**

    - `Y`: the target, shape (n, n), symmetric; may be indefinite or singular.
    - `U0`: the start, shape (n, h), any width and rank.
    - `ts`: times, shape (T,), at least 0 and in any order.

    **Returns:** X(t), shape (T, n, n). Use `symmetric_factors` for a U with X = U U^T.

    **Raises:** `ValueError` for a Y that is not square and symmetric, shapes that do not fit, or negative times.

    **Notes:** accuracy and derivatives are those of `riccati`.

    **Source:** T21 Proposition 1, (8), with K defined for singular Y as well [needs Y = Y^T].

    Example:

        >>> Y, U0 = jnp.array([[0.0, 1.0], [1.0, 0.0]]), 0.1 * jnp.eye(2)
        >>> print(ld.exact.symmetric(Y, U0, jnp.array([0.0, 10.0]))[1].round(3))
        [[0.5 0.5]
         [0.5 0.5]]
    """
    L = symmetric_factors(Y, U0, ts)
    return L @ jnp.swapaxes(L, 1, 2)


@public
def symmetric_factors(
    Y: Real[ArrayLike, "n n"], U0: Real[ArrayLike, "n h"], ts: Real[ArrayLike, " T"]
) -> Float[Array, "T n k"]:
    """Factors L with `X(t) = L L^T`, shape (T, n, k), k = min(n, h); each fixed up to a rotation of its columns.

    **Args:**, **Raises:**, **Source:** as for `symmetric`.

    Example:

        >>> Y, U0 = jnp.array([[0.0, 1.0], [1.0, 0.0]]), 0.1 * jnp.eye(2)
        >>> L = ld.exact.symmetric_factors(Y, U0, jnp.array([0.0, 10.0]))[1]
        >>> print((L @ L.T).round(3))
        [[0.5 0.5]
         [0.5 0.5]]
    """
    A, U0 = _check(Y, U0)
    return checked_factors(A, jnp.asarray(4, A.dtype), U0, as_times(ts, A.dtype))


@public
@of_finite_numbers
def symmetric_limit(Y: Real[ArrayLike, "n n"], U0: Real[ArrayLike, "n h"]) -> Limit:
    """Limit of the flow of tied layers as t goes to infinity.

    The positive semidefinite part Y_+ of the target, if `symmetric_converges`. From any other start the limit is Y_+ on the
    part of its eigenvectors that the start reaches: from a generic start of rank rho, the rho largest positive eigenvalues.

    **Args:** `Y`, shape (n, n), symmetric; `U0`, shape (n, h).

    **Returns:** a `Limit`: X(inf), shape (n, n), and whether it is Y_+. Notes on derivatives: `riccati_limit`.

    **Raises:** `ValueError` as `symmetric`.

    **Source:** T21 Proposition 2 with the corrected condition.

    Example:

        >>> Y = jnp.array([[2.0, 1.0], [1.0, 2.0]])
        >>> for U0 in (0.1 * jnp.eye(2), jnp.diag(jnp.array([1.0, 0.0]))):
        ...     limit = ld.exact.symmetric_limit(Y, U0)
        ...     print(limit.value.round(3), limit.applies)
        [[2. 1.]
         [1. 2.]] True
        [[1.5 1.5]
         [1.5 1.5]] False
    """
    A, U0 = _check(Y, U0)
    return riccati_limit(A, 4, U0)


@public
@of_finite_numbers
def symmetric_converges(Y: Real[ArrayLike, "n n"], U0: Real[ArrayLike, "n h"]) -> Bool[Array, ""]:
    """Whether the flow of tied layers tends to the positive semidefinite part of the target.

    It does if and only if `X0 = U0 U0^T` is positive definite on the span of Y's positive eigenvectors; for an invertible Y
    this is that `I + |Y|^{-1} (X0 - Y_+)` is nonsingular.

    **Args:** `Y`, shape (n, n), symmetric; `U0`, shape (n, h).

    **Returns:** a flag.

    **Raises:** `ValueError` as `symmetric`.

    **Notes:** what is round-off is decided as in `riccati_limit`.

    **Source:** T21 Proposition 2 [the earlier version's `I + |Y| (X0 - Y_+)` is wrong, as sigma = 2, x0 = 1.5 shows].

    Example:

        >>> Y = jnp.array([[0.0, 1.0], [1.0, 0.0]])
        >>> starts = (jnp.ones((2, 2)), jnp.array([[1.0, -1.0], [-1.0, 1.0]]))
        >>> [bool(ld.exact.symmetric_converges(Y, U0)) for U0 in starts]
        [True, False]
    """
    return symmetric_limit(Y, U0).applies


@public
@of_finite_numbers
def symmetric_rate(Y: Real[ArrayLike, "n n"], U0: Real[ArrayLike, "n h"]) -> Rate:
    """Asymptotic rate of the flow of tied layers: `||X(t) - X(inf)||` falls like `exp(-rate t)`.

    From a start of full rank `4 min |sigma_i|`, sigma the eigenvalues of Y; from a generic start of rank rho the least of
    that over the first rho and of the gap `2 (sigma_rho - sigma_{rho+1})` (if sigma_rho > 0).

    **Args:** `Y`, shape (n, n), symmetric; `U0`, shape (n, h).

    **Returns:** a `Rate`, with `applies` for a generic start. Zero: the kernel of Y is reached and decays like 1/(4t).

    **Raises:** `ValueError` as `symmetric`.

    **Source:** T21 Proposition 2; the gap rate is this package's.

    Example:

        >>> Y, U0 = jnp.array([[2.0, 1.0], [1.0, 2.0]]), 0.1 * jnp.eye(2)
        >>> float(ld.exact.symmetric_rate(Y, U0).value)
        4.0
    """
    A, U0 = _check(Y, U0)
    return riccati_rate(A, 4, U0)


@public
@of_finite_numbers
def symmetric_entry_rates(Y: Real[ArrayLike, "n n"], U0: Real[ArrayLike, "n h"]) -> Rate:
    """Asymptotic rate of every entry of `Phi^T X(t) Phi`, in the eigenbasis of `Y = Phi diag(sigma) Phi^T`.

    `2 (|sigma_i| + |sigma_j|)` for a start of full rank. Others approach at the gaps to what they do not reach, too.

    **Args:** `Y`, shape (n, n), symmetric; `U0`, shape (n, h).

    **Returns:** a `Rate` with values of shape (n, n), eigenvalues in ascending order as `jnp.linalg.eigh` gives them, and
    `applies` for X0 of full rank. Of other starts the value has the rates of a generic one of the same pivots; an entry that
    stays where it is has an infinite rate. Derivatives at repeated eigenvalues are NaN, as those of `riccati_rate`.

    **Raises:** `ValueError` as `symmetric`.

    **Source:** linearisation of T21 (5) at its limit.

    Example:

        >>> Y, U0 = jnp.array([[2.0, 1.0], [1.0, 2.0]]), 0.1 * jnp.eye(2)
        >>> print(ld.exact.symmetric_entry_rates(Y, U0).value.round(3))
        [[ 4.  8.]
         [ 8. 12.]]
    """
    A, U0 = _check(Y, U0)
    a, _, _, pivots, *_ = reach(A, U0)
    return Rate(entry_rates(a, pivots), jnp.all(pivots))


@public
def symmetric_mode(
    sigma: Real[ArrayLike, "..."], x0: Real[ArrayLike, "..."], t: Real[ArrayLike, "..."]
) -> Float[Array, "..."]:
    """One eigenvalue of tied layers whose start commutes with the target: `x' = 4 x (sigma - x)`.

    `x(t) = sigma x0 / (x0 + (sigma - x0) e^{-4 t sigma})`, and `x0/(1 + 4 x0 t)` at sigma = 0, to full relative accuracy.

    **Args:** `sigma`, the eigenvalue of Y, of any sign; `x0` and `t`, at least 0; arrays broadcast.

    **Returns:** x, in the shape that they broadcast to.

    **Raises:** `ValueError` for negative x0 or t.

    **Source:** T21 Corollary 1, (9).

    Example:

        >>> float(ld.exact.symmetric_mode(1.0, 0.01, 1.0))
        0.3555
        >>> float(1 / (1 + 99 * jnp.exp(-4.0)))
        0.3555
        >>> float(ld.exact.symmetric_mode(0.0, 1.0, 1.0))
        0.2
    """
    sigma, x0, t = as_floats(sigma=sigma, x0=x0, t=t)
    check_not_negative(x0=x0, t=t)
    z = 4 * t * sigma
    # x = x0 / (e^{-z} + 4 t x0 phi1(-z)), multiplied by e^z where that is small: nothing grows, every term is nonnegative.
    rising = z >= 0
    down = jnp.where(rising, -z, z)
    decay, source = jnp.exp(down), 4 * t * x0 * phi1(down)
    denominator = jnp.where(rising, decay, 1) + source
    # Zero stays zero for ever, but grows infinitely fast beside it: a saturated derivative instead of 0/0.
    denominator = jnp.where(denominator > 0, denominator, jnp.sqrt(jnp.finfo(z.dtype).tiny))
    return ratio(x0 * jnp.where(rising, 1, decay), denominator)


def _check(Y: ArrayLike, U0: ArrayLike) -> tuple[Array, Array]:
    """A = 2Y and U0, checked under the names that the caller used."""
    Y, U0 = check_symmetric(Y, "Y"), _checks.as_matrix(U0, "U0", "(n, h)")
    if Y.shape[0] != U0.shape[0]:
        raise ValueError(
            f"Arguments `Y` (n, n) and `U0` (n, h) must have the same number of rows, but have {Y.shape[0]} and {U0.shape[0]}."
        )
    return check_riccati(2 * Y, 4, U0)
