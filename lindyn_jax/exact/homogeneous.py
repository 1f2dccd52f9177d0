"""Two layers of homogeneous imbalance: `Q = U^T U - V^T V = lambda0 I`, at any time, for any shape and sign.

With R = [U; V], the product `P = R R^T` holds everything that rotations of the hidden layer leave alone,

    P = [[U U^T, U V^T], [V U^T, V V^T]],

and along the regularized flow, the gradient flow of `(1/2) ||Y - U V^T||^2 + (1/8) ||Q - lambda0 I||^2`, it solves the
Riccati equation `P' = A P + P A - P^2` with `A = [[lambda0/2 I, Y], [Y^T, -lambda0/2 I]]` from any start. Where the start has
Q = lambda0 I, the penalty vanishes for all time and this is the plain gradient flow.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from .. import _checks
from .._finite import of_finite_numbers
from .._linalg import round_off, signature_spectrum
from .._public import public
from ._common import Limit, Rate, as_times, hypot
from .asymptotics import entry_rates, is_generic, least, limit_from, reach
from .riccati import checked_factors

Number = Real[ArrayLike, ""]


class Grams(NamedTuple):
    """The Gram matrices of the rows: **Fields:** `U`, U U^T, shape (T, n, n); `V`, V V^T, shape (T, m, m)."""

    U: Float[Array, "T n n"]
    V: Float[Array, "T m m"]


class HomogeneousRates(NamedTuple):
    """Asymptotic rates: **Fields:** `gram`, of P as a whole, and `product`, of `Theta = U V^T` alone."""

    gram: Rate
    product: Rate


class Condition(NamedTuple):
    """How far a start is from homogeneous imbalance, and whether it has it.

    **Fields:** `value`: `||Q - lambda0 I||_F` relative to `||U||_F^2 + ||V||_F^2 + |lambda0| sqrt(h)`; `applies`: it is zero to
    round-off.
    """

    value: Float[Array, ""]
    applies: Bool[Array, ""]


@public
def homogeneous(
    Y: Real[ArrayLike, "n m"],
    U0: Real[ArrayLike, "n h"],
    V0: Real[ArrayLike, "m h"],
    lambda0: Number,
    ts: Real[ArrayLike, " T"],
) -> Float[Array, "T p p"]:
    """`P(t) = R R^T`, R = [U; V], along the flow regularized towards `Q = lambda0 I`; the plain flow where Q(0) is that.

    **Args:**

    - `Y`: the target, shape (n, m) (matrix factorization, loss scale 1).
    - `U0`, `V0`: the start, shapes (n, h) and (m, h), any width and rank.
    - `lambda0`: the imbalance, a number of any sign.
    - `ts`: times, shape (T,), at least 0 and in any order.

    **Returns:** P(t), shape (T, n + m, n + m). See `homogeneous_product` and `homogeneous_grams` for its blocks.

    **Raises:** `ValueError` for shapes that do not fit, entries that are not finite, or negative times.

    **Notes:** from a start off Q = lambda0 I this is the flow of `factorization(Y).regularized(lambda0)`, and not the plain
    one: `homogeneous_condition` tells. Accuracy and derivatives are those of `riccati`.

    **Source:** T21 Proposition 5, (30).

    Example:

        >>> Y, U0, V0 = jnp.array([[2.0, 1.0], [1.0, 2.0]]), jnp.eye(2), jnp.zeros((2, 2))
        >>> P = ld.exact.homogeneous(Y, U0, V0, 1.0, jnp.array([0.0, 10.0]))
        >>> print(P[1, :2, 2:].round(3))
        [[2. 1.]
         [1. 2.]]
        >>> print(P.trace(axis1=1, axis2=2).round(3))
        [2.    8.319]
    """
    L = homogeneous_factors(Y, U0, V0, lambda0, ts)
    return L @ jnp.swapaxes(L, 1, 2)


@public
def homogeneous_factors(
    Y: Real[ArrayLike, "n m"],
    U0: Real[ArrayLike, "n h"],
    V0: Real[ArrayLike, "m h"],
    lambda0: Number,
    ts: Real[ArrayLike, " T"],
) -> Float[Array, "T p k"]:
    """Factors L = [U; V] with `P(t) = L L^T`, shape (T, n + m, k), k = min(n + m, h); each up to a rotation of its columns.

    **Args:**, **Raises:**, **Source:** as for `homogeneous`.

    Example:

        >>> Y, U0, V0 = jnp.array([[2.0, 1.0], [1.0, 2.0]]), jnp.eye(2), jnp.zeros((2, 2))
        >>> L = ld.exact.homogeneous_factors(Y, U0, V0, 1.0, jnp.array([0.0, 10.0]))[1]
        >>> print((L[:2] @ L[2:].T).round(3))
        [[2. 1.]
         [1. 2.]]
    """
    A, R0 = check_homogeneous(Y, U0, V0, lambda0)
    return checked_factors(A, jnp.ones((), A.dtype), R0, as_times(ts, A.dtype), n=jnp.shape(Y)[0])


@public
def homogeneous_product(
    Y: Real[ArrayLike, "n m"],
    U0: Real[ArrayLike, "n h"],
    V0: Real[ArrayLike, "m h"],
    lambda0: Number,
    ts: Real[ArrayLike, " T"],
) -> Float[Array, "T n m"]:
    """`Theta(t) = U V^T`, shape (T, n, m): the off-diagonal block of `homogeneous`, which has the arguments and the notes.

    Example:

        >>> Y, U0, V0 = jnp.array([[2.0, 1.0], [1.0, 2.0]]), jnp.eye(2), jnp.zeros((2, 2))
        >>> print(ld.exact.homogeneous_product(Y, U0, V0, 1.0, jnp.array([0.0, 0.5]))[1].round(4))
        [[1.2097 0.7813]
         [0.7813 1.2097]]
        >>> flow = ld.gradient_flow(ld.TwoLayer(U0, V0), ld.factorization(Y), [0.0, 0.5])
        >>> print(flow.final.product().round(4))
        [[1.2097 0.7813]
         [0.7813 1.2097]]
    """
    L = homogeneous_factors(Y, U0, V0, lambda0, ts)
    n = jnp.shape(Y)[0]
    return L[:, :n] @ jnp.swapaxes(L[:, n:], 1, 2)


@public
def homogeneous_grams(
    Y: Real[ArrayLike, "n m"],
    U0: Real[ArrayLike, "n h"],
    V0: Real[ArrayLike, "m h"],
    lambda0: Number,
    ts: Real[ArrayLike, " T"],
) -> Grams:
    """`U U^T` and `V V^T` along the flow: the diagonal blocks of `homogeneous`, which has the arguments and the notes.

    **Returns:** `Grams`: `U`, shape (T, n, n), and `V`, shape (T, m, m).

    Example:

        >>> Y, U0, V0 = jnp.array([[2.0, 1.0], [1.0, 2.0]]), jnp.eye(2), jnp.zeros((2, 2))
        >>> grams = ld.exact.homogeneous_grams(Y, U0, V0, 1.0, jnp.array([0.0, 10.0]))
        >>> print(jnp.linalg.eigvalsh(grams.U[1]).round(3), jnp.linalg.eigvalsh(grams.V[1]).round(3))
        [1.618 3.541] [0.618 2.541]
    """
    L = homogeneous_factors(Y, U0, V0, lambda0, ts)
    n = jnp.shape(Y)[0]
    U, V = L[:, :n], L[:, n:]
    return Grams(U @ jnp.swapaxes(U, 1, 2), V @ jnp.swapaxes(V, 1, 2))


@public
@of_finite_numbers
def homogeneous_limit(
    Y: Real[ArrayLike, "n m"], U0: Real[ArrayLike, "n h"], V0: Real[ArrayLike, "m h"], lambda0: Number
) -> Limit:
    """Limit of P as t goes to infinity: `2 A_+`, twice the positive semidefinite part of A, from starts that reach it.

    Its off-diagonal block is then Y. That needs `h >=` the number of positive eigenvalues of A: n for lambda0 > 0, m for
    lambda0 < 0, the rank of Y for lambda0 = 0; almost every start of such a width has it.

    **Args:** as for `homogeneous`.

    **Returns:** a `Limit`: P(inf), shape (n + m, n + m), of this start, and whether it is `2 A_+`.

    **Raises:** `ValueError` as `homogeneous`.

    **Notes:** derivatives are those of `riccati_limit`, and known as well where a start reaches a part of the eigenvalue
    `|lambda0|/2` that non-square targets repeat, if Y has full rank: it stays repeated.

    **Source:** T21 Proposition 5.

    Example:

        >>> Y, U0, V0 = jnp.array([[2.0, 1.0], [1.0, 2.0]]), jnp.eye(2), jnp.zeros((2, 2))
        >>> limit = ld.exact.homogeneous_limit(Y, U0, V0, 1.0)
        >>> print(limit.value[:2, 2:].round(3), limit.applies)
        [[2. 1.]
         [1. 2.]] True
    """
    A, R0 = check_homogeneous(Y, U0, V0, lambda0)
    return limit_from(A, jnp.ones((), A.dtype), R0, *_kept(Y, lambda0, A.dtype))


@public
@of_finite_numbers
def homogeneous_rates(
    Y: Real[ArrayLike, "n m"], U0: Real[ArrayLike, "n h"], V0: Real[ArrayLike, "m h"], lambda0: Number
) -> HomogeneousRates:
    """Asymptotic rates of P and of the product: the distances to the limits fall like `exp(-rate t)`.

    With `mu_min` the least of `sqrt(4 sigma_i^2 + lambda0^2)` over the min(n, m) singular values of Y, from a start of full
    rank n + m: both have `mu_min` if n = m; otherwise P has `|lambda0|` and the product `(|lambda0| + mu_min)/2`, because
    the slowest entries lie in one diagonal block of P. At lambda0 = 0 the P of a non-square target tends to its limit
    like 1/t (rate zero), and the product at `sigma_min`.

    **Args:** as for `homogeneous`.

    **Returns:** two `Rate`s, for a start of any rank; `applies` if the start reaches the largest eigenvalues that its rank
    allows, so that no coefficient is known to vanish.

    **Raises:** `ValueError` as `homogeneous`.

    **Notes:** from a start with Q = lambda0 I the slow diagonal block is absent (there `N^T U` moves with the product, for N
    orthogonal to the columns of Y), and P has the product's rate; such starts are recognised. Derivatives are those of
    `riccati_rate`; the eigenvalue `|lambda0|/2` that non-square targets of full rank repeat does not split.

    **Source:** T21 Proposition 5, for square Y; corrected for the others.

    Example:

        >>> Y, U0, V0 = jnp.array([[2.0, 1.0], [1.0, 2.0]]), jnp.eye(2), jnp.zeros((2, 2))
        >>> float(ld.exact.homogeneous_rates(Y, U0, V0, 1.0).product.value)
        2.236
        >>> float(jnp.sqrt(4 * 1.0**2 + 1.0**2))
        2.236
    """
    A, R0 = check_homogeneous(Y, U0, V0, lambda0)
    a, _, Phi, pivots, *_ = reach(A, R0, *_kept(Y, lambda0, A.dtype))
    rates: Array = entry_rates(a, pivots)
    n = jnp.shape(Y)[0]
    # Pairs of eigenvectors that lie in the same block of rows leave the product alone.
    # A part below the root of round-off moves the rates by round-off.
    in_U, in_V = (jnp.sum(block**2, axis=0) > 16 * jnp.finfo(A.dtype).eps for block in (Phi[:n], Phi[n:]))
    seen = (in_U[:, None] & in_V[None, :]) | (in_V[:, None] & in_U[None, :])
    on_manifold = homogeneous_condition(U0, V0, lambda0).applies
    generic = is_generic(a, pivots)
    return HomogeneousRates(
        Rate(least(jnp.where(seen | ~on_manifold, rates, jnp.inf).ravel()), generic),
        Rate(least(jnp.where(seen, rates, jnp.inf).ravel()), generic),
    )


@public
def homogeneous_eigenvalues(Y: Real[ArrayLike, "n m"], lambda0: Number) -> Float[Array, " p"]:
    """Eigenvalues of `A = [[lambda0/2 I, Y], [Y^T, -lambda0/2 I]]` in descending order, shape (n + m,).

    `+-sqrt(4 sigma_i^2 + lambda0^2)/2` for the min(n, m) singular values of Y, then lambda0/2, n - m times if n > m, or
    -lambda0/2, m - n times if m > n.

    **Args:** `Y`, shape (n, m); `lambda0`, a number.

    **Returns:** shape (n + m,).

    **Raises:** `ValueError` for entries that are not finite.

    **Source:** T21 Proposition 5 and its proof, with the multiplicities of non-square targets.

    Example:

        >>> Y = jnp.array([[2.0, 1.0], [1.0, 2.0]])
        >>> print(ld.exact.homogeneous_eigenvalues(Y, 1.0).round(3))
        [ 3.041  1.118 -1.118 -3.041]
        >>> print((jnp.sqrt(4 * jnp.array([3.0, 1.0]) ** 2 + 1.0) / 2).round(3))
        [3.041 1.118]
    """
    Y, lambda0 = _target(Y, lambda0)
    n, m = Y.shape
    half = hypot(2 * jnp.linalg.svd(Y, compute_uv=False), lambda0) / 2
    extra = jnp.full(abs(n - m), jnp.sign(n - m) * lambda0 / 2, Y.dtype)
    return jnp.sort(jnp.concatenate([half, -half, extra]), descending=True)


@public
@of_finite_numbers
def homogeneous_condition(U0: Real[ArrayLike, "n h"], V0: Real[ArrayLike, "m h"], lambda0: Number) -> Condition:
    """Whether a start has homogeneous imbalance, `U0^T U0 - V0^T V0 = lambda0 I`, so that the closed form is the plain flow.

    **Args:** `U0`, shape (n, h), `V0`, shape (m, h), `lambda0`, a number.

    **Returns:** a `Condition`; nothing of size h x h is formed once h > n + m, where it holds for lambda0 = 0 only.

    **Raises:** `ValueError` for widths that differ.

    **Source:** T21 Proposition 5.

    Example:

        >>> U0, V0 = jnp.eye(2), jnp.zeros((2, 2))
        >>> [bool(ld.exact.homogeneous_condition(U0, V0, lambda0).applies) for lambda0 in (1.0, 0.5)]
        [True, False]
    """
    U0, V0, lambda0 = _factors(U0, V0, lambda0)
    h = U0.shape[1]
    signs = jnp.concatenate([jnp.ones(U0.shape[0], U0.dtype), -jnp.ones(V0.shape[0], U0.dtype)])
    rows = jnp.concatenate([U0, V0])
    spectrum = signature_spectrum(rows, signs)
    distance = jnp.sqrt(jnp.sum((spectrum - lambda0) ** 2) + (h - spectrum.shape[0]) * lambda0**2)
    size = jnp.sum(U0**2) + jnp.sum(V0**2) + jnp.abs(lambda0) * jnp.sqrt(1.0 * h)
    none = size == 0
    value = jnp.where(none, 0, distance / jnp.where(none, 1, size)).astype(U0.dtype)
    return Condition(value, value <= round_off(rows))


@public
def homogeneous_realisable(n: int, m: int, h: int, lambda0: Number) -> Bool[Array, ""]:
    """Whether some U (n x h) and V (m x h) have `U^T U - V^T V = lambda0 I`: h <= n if lambda0 > 0, h <= m if lambda0 < 0.

    **Args:** `n`, `m`, `h`, sizes; `lambda0`, a number, which may be traced; zero is realisable for every size.

    **Returns:** a flag.

    **Raises:** `ValueError` for sizes that are not whole.

    **Source:** the rank of U^T U >= lambda0 I; T21 has it for m = n = h only.

    Example:

        >>> [bool(ld.exact.homogeneous_realisable(3, 2, 3, lambda0)) for lambda0 in (1.0, 0.0, -1.0)]
        [True, True, False]
    """
    lambda0 = _checks.as_float(lambda0, "lambda0")
    return jnp.where(lambda0 > 0, h <= n, jnp.where(lambda0 < 0, h <= m, lambda0 == 0))


def _target(Y: ArrayLike, lambda0: ArrayLike) -> tuple[Array, Array]:
    Y = _checks.as_matrix(Y, "Y", "(n, m)")
    _checks.check_finite(Y, "Y")
    lambda0 = _checks.as_float(lambda0, "lambda0")
    if lambda0.ndim:
        raise ValueError(f"Argument `lambda0` must be a number, but has shape {lambda0.shape}: use `jax.vmap`.")
    _checks.check_finite(lambda0, "lambda0")
    return Y, lambda0.astype(Y.dtype)


def _factors(U0: ArrayLike, V0: ArrayLike, lambda0: ArrayLike) -> tuple[Array, Array, Array]:
    U0, V0 = _checks.as_matrix(U0, "U0", "(n, h)"), _checks.as_matrix(V0, "V0", "(m, h)")
    if U0.shape[1] != V0.shape[1]:
        raise ValueError(
            f"Arguments `U0` (n, h) and `V0` (m, h) must have the same width, but have {U0.shape[1]} and {V0.shape[1]}."
        )
    dtype = jnp.result_type(U0, V0)
    return U0.astype(dtype), V0.astype(dtype), _checks.as_float(lambda0, "lambda0").astype(dtype)


def _kept(Y: ArrayLike, lambda0: ArrayLike, dtype: jnp.dtype) -> tuple[Array, int]:
    """The eigenvalue of A that non-square targets repeat, whatever they are, and how often."""
    n, m = jnp.shape(Y)
    return jnp.sign(n - m) * jnp.asarray(lambda0, dtype) / 2, abs(n - m)


def check_homogeneous(Y: ArrayLike, U0: ArrayLike, V0: ArrayLike, lambda0: ArrayLike) -> tuple[Array, Array]:
    """A and R0 = [U0; V0]."""
    (Y, lambda0), (U0, V0, _) = _target(Y, lambda0), _factors(U0, V0, lambda0)
    for name, factor, size in (("U0", U0, Y.shape[0]), ("V0", V0, Y.shape[1])):
        if factor.shape[0] != size:
            raise ValueError(
                f"Argument `{name}` must have {size} rows for a target of shape {Y.shape}, but has shape {factor.shape}."
            )
        _checks.check_finite(factor, name)
    R0 = jnp.concatenate([U0, V0])
    dtype = jnp.result_type(Y, R0)
    n, m = Y.shape
    level = lambda0.astype(dtype) / 2
    A = jnp.block([[level * jnp.eye(n, dtype=dtype), Y], [Y.T, -level * jnp.eye(m, dtype=dtype)]])
    return A.astype(dtype), R0.astype(dtype)
