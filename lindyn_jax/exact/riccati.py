"""The matrix Riccati flow without constant term, `P' = A P + P A - g P^2`, at any time and for any symmetric A.

Every matrix solution of this package is this one in disguise: tied layers (A = 2Y, g = 4) and layers of homogeneous
imbalance (A = [[lambda0/2 I, Y], [Y^T, -lambda0/2 I]], g = 1). In the eigenbasis of A the solution reads

    P(t) = E B (I + B^T K B)^{-1} B^T E,    E = e^{t A},    K = g (e^{2 t A} - I)/(2 A),

and is bounded although E and K are not. Three ideas keep it so.

*Scales as logarithms.* Only the column space of [I; K^{1/2} B] matters. Its rows have sizes from 1 to e^{t a_i}; those that
dominate are made the identity, and every other row is then of order one: `_dominant`.

*Right scalings are free.* They cancel from P, so they are constants for the derivative, and what is differentiated is
smooth even at t = 0.

*No eigenvector needs to be differentiated across a small gap*: `_couplings`. First and second derivatives are therefore finite
and exact at repeated and zero eigenvalues.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, ArrayLike, Float, Real

from .. import _checks
from .._linalg import round_off
from .._public import public
from ._common import as_times, check_not_negative, hypot
from ._couplings import couplings, log_kernel, rotating
from ._dominant import Dominant, basis_of, first, follow, scale_by, shifts
from ._start import start_factor


@public
def riccati(
    A: Real[ArrayLike, "p p"],
    g: Real[ArrayLike, ""],
    U0: Real[ArrayLike, "p h"],
    ts: Real[ArrayLike, ""] | Real[ArrayLike, " T"],
) -> Float[Array, "T p p"] | Float[Array, "p k"]:
    r"""Solution of a matrix Riccati flow at any times.

    `P' = A P + P A - g P^2`, `P(0) = U0 U0^T`, solved by
    `P(t) = e^{tA} U0 (I + U0^T K U0)^{-1} U0^T e^{tA}` with `K = g (e^{2tA} - I)/(2A)`.

    **Args:**

    - `A`: shape (p, p), symmetric, of any sign; may be singular and have repeated eigenvalues.
    - `g`: a positive number.
    - `U0`: factor of the start, shape (p, h), any rank and width. What the round-off of its entries, or of their products
        with eigenvectors, leaves undecided between nothing and something is nothing: it would grow as a start does.
    - `ts`: times, shape (T,), at least 0 and in any order; ascending ones are the fastest.

    **Returns:** P(t), shape (T, p, p). For one number in place of `ts` a factor L, shape (p, k), with `P = L L^T`, as
    `riccati_factors` gives them.

    **Raises:** `ValueError` for wrong shapes (of g as well: `jax.vmap` is for many of them), an A that is not symmetric,
    g <= 0 or t < 0 (where these are known before tracing).

    **Notes:** relative error of P about 1e-15 times p in float64 and 1e-6 in float32 for any t, growing as `eps t ||A||`
    where all of P decays. Eigenvalues of A that agree to round-off are taken as equal. First and second derivatives with
    respect to A, U0, g and t are exact in forward and reverse mode, also at repeated and zero eigenvalues, to `eps t ||A||`
    and `eps (t ||A||)^2` relative; third ones are refused. Second ones in U0 with h > p need rows that are linearly
    independent. Directions in which P depends on the start by a factor beyond about 1e90 report a saturated, finite
    derivative. Only the symmetric part of A is seen by the derivative. Entries of `Phi^T U0` below 1e-61 (float32: 2e-13) of
    the largest count as zero. A derivative of A takes memory of order p^3.

    Each time costs a few products of matrices and a Cholesky factorization; a start that misses growing directions, to
    round-off, an elimination of entries besides.

    **Source:** T21 Proposition 1 and its proof (appendix A of the earlier version), with K defined for singular A as well.

    Example:

        >>> A, U0 = jnp.array([[2.0, 1.0], [1.0, 2.0]]), 0.1 * jnp.eye(2)
        >>> P = ld.exact.riccati(A, 2.0, U0, jnp.array([0.5, 10.0]))
        >>> print(jnp.linalg.eigvalsh(P).round(4))
        [[0.0267 0.1888]
         [1.     3.    ]]
        >>> a = jnp.array([1.0, 3.0])
        >>> print((0.01 * a / (0.01 + (a - 0.01) * jnp.exp(-a))).round(4))
        [0.0267 0.1888]
    """
    A, U0 = check_riccati(A, g, U0)
    g = jnp.asarray(g, A.dtype)
    if jnp.ndim(ts) == 0:
        t = _checks.as_float(ts, "t").astype(A.dtype)
        _checks.check_finite(t, "t")
        check_not_negative(t=t)
        return checked_factors(A, g, U0, t[None])[0]
    L = checked_factors(A, g, U0, as_times(ts, A.dtype))
    return L @ jnp.swapaxes(L, 1, 2)


@public
def riccati_factors(
    A: Real[ArrayLike, "p p"], g: Real[ArrayLike, ""], U0: Real[ArrayLike, "p h"], ts: Real[ArrayLike, " T"]
) -> Float[Array, "T p k"]:
    """Factors L with `P(t) = L L^T`, shape (T, p, k), k = min(p, h); each fixed up to a rotation of its columns.

    **Args:**, **Raises:**, **Source:** as for `riccati`.

    Example:

        >>> A, U0 = jnp.array([[2.0, 1.0], [1.0, 2.0]]), 0.1 * jnp.eye(2)
        >>> L = ld.exact.riccati_factors(A, 2.0, U0, jnp.array([0.0, 10.0]))[1]
        >>> print((L @ L.T).round(3))
        [[2. 1.]
         [1. 2.]]
    """
    A, U0 = check_riccati(A, g, U0)
    return checked_factors(A, jnp.asarray(g, A.dtype), U0, as_times(ts, A.dtype))


def check_riccati(A: ArrayLike, g: ArrayLike, U0: ArrayLike) -> tuple[Array, Array]:
    """A and U0 as arrays of one dtype, once the static mistakes are excluded."""
    A, U0 = check_symmetric(A, "A"), _checks.as_matrix(U0, "U0", "(p, h)")
    if A.shape[0] != U0.shape[0]:
        raise ValueError(
            f"Arguments `A` (p, p) and `U0` (p, h) must have the same number of rows, but have {A.shape[0]} and "
            f"{U0.shape[0]}."
        )
    _checks.check_finite(U0, "U0")
    _check_number(g, "g")
    _checks.check_positive(g, "g")
    dtype = jnp.result_type(A, U0)
    return A.astype(dtype), U0.astype(dtype)


def _check_number(value: ArrayLike, name: str) -> None:
    shape = jnp.shape(value)
    if shape != ():
        raise ValueError(
            f"Argument `{name}` must be a number, but has shape {shape}: use jax.vmap for several at once."
        )


def check_symmetric(A: ArrayLike, name: str) -> Array:
    """A square matrix, symmetric to round-off if its values are known, made symmetric to the last bit."""
    A = _checks.as_matrix(A, name, "(p, p)")
    if A.shape[0] != A.shape[1]:
        raise ValueError(f"Argument `{name}` must be square, but has shape {A.shape}.")
    if not _checks.is_traced(A):
        _checks.check_finite(A, name)
        values = np.asarray(A)
        gap = np.max(np.abs(values - values.T))
        if gap > 100 * float(jnp.finfo(A.dtype).eps) * np.max(np.abs(values)):
            raise ValueError(
                f"Argument `{name}` must be symmetric, but differs from its transpose by {gap:.1e}: "
                f"pass ({name} + {name}.T) / 2 if that is what you mean."
            )
    return (A + A.T) / 2


def merge_eigenvalues(a: Float[Array, " p"]) -> Float[Array, " p"]:
    """Ascending eigenvalues with those equal to round-off made equal, and those zero to round-off made zero.

    A split of 1e-16 between equal eigenvalues would grow to a spurious factor e^{t 1e-16} between their directions.
    """
    cutoff = 8 * a.shape[0] ** 0.5 * jnp.finfo(a.dtype).eps * jnp.max(jnp.abs(a))
    group = jnp.cumsum(jnp.concatenate([jnp.zeros(1, a.dtype), (jnp.diff(a) > cutoff).astype(a.dtype)]))
    same = (group[:, None] == group[None, :]).astype(a.dtype)
    # The least entry plus a mean difference: a group of one keeps its value to the last bit.
    least = jnp.min(jnp.where(same > 0, a[None, :], jnp.inf), axis=1)
    mean = least + jnp.sum(same * (a[None, :] - least[:, None]), axis=1) / jnp.sum(same, axis=1)
    return jnp.where(jnp.abs(mean) <= cutoff, 0, mean)


@partial(jax.jit, static_argnames="n")
def checked_factors(
    A: Float[Array, "p p"],
    g: Float[Array, ""],
    U0: Float[Array, "p h"],
    ts: Float[Array, " T"],
    *,
    n: int | None = None,
) -> Float[Array, "T p k"]:
    """`riccati_factors` of checked arguments; with `n` where A is `[[alpha I, Y], [Y^T, beta I]]`, Y of n rows."""
    U0, _ = start_factor(U0)
    known = jax.lax.stop_gradient(A)
    a, Phi = jax.lax.stop_gradient(jnp.linalg.eigh(known) if n is None else _block_eigenbasis(known, n))
    return _factors(A, merge_eigenvalues(a), Phi, g, U0, ts)


def _block_eigenbasis(A: Float[Array, "p p"], n: int) -> tuple[Float[Array, " p"], Float[Array, "p p"]]:
    """Ascending eigenvalues and eigenvectors of `[[alpha I, Y], [Y^T, beta I]]`, by the singular values of Y, half its size.

    A pair of singular vectors (u, v) spans two eigenvectors, (cos u, sin v) and (-sin u, cos v), with eigenvalues
    `(alpha + beta)/2 +- ((alpha - beta)^2/4 + s^2)^{1/2}`; those of a side that is longer are its own.
    """
    P, s, QT = jnp.linalg.svd(A[:n, n:])
    m, k = A.shape[0] - n, s.shape[0]
    mean, level = (A[0, 0] + A[-1, -1]) / 2, (A[0, 0] - A[-1, -1]) / 2
    size = hypot(s, level)
    # The larger of cosine and sine first, and the other from it, without a difference; equal where both vanish.
    larger = jnp.sqrt((1 + jnp.abs(level) / jnp.where(size > 0, size, 1)) / 2)
    smaller = jnp.where(size > 0, s / jnp.where(size > 0, 2 * size * larger, 1), larger)
    cos, sin = jnp.where(level >= 0, larger, smaller), jnp.where(level >= 0, smaller, larger)
    u, v = P[:, :k], QT[:k].T
    own = jnp.pad(P[:, k:], ((0, m), (0, 0))) if n > m else jnp.pad(QT[k:].T, ((n, 0), (0, 0)))
    below, above = jnp.concatenate([-sin * u, cos * v]), jnp.concatenate([cos * u, sin * v])[:, ::-1]
    a = jnp.concatenate([mean - size, jnp.full(own.shape[1], A[0, 0] if n > m else A[-1, -1]), (mean + size)[::-1]])
    return a, jnp.concatenate([below, own, above], axis=1)


@jax.custom_jvp
def _factors(A: Array, a: Array, Phi: Array, g: Array, U0: Array, ts: Array) -> Float[Array, "T p k"]:
    """The value, in as many products as it takes: the eigenbasis diagonalises A, and nothing of what is zero is computed."""
    B, scale = in_eigenbasis(Phi, U0)
    B = _without_specks(B)

    def at(state: Dominant, t: Array) -> tuple[Dominant, Float[Array, "k p"]]:
        x = t * a
        m, r, log_ratio = _log_scales(x, g, t, B)
        state, scaled = follow(state, B, scale, _of_all_rows(m, r, B))
        return state, _solved(scaled, t * g * jnp.exp(log_ratio), jnp.exp(x - m - r)[:, None] * scaled[B.shape[1] :])

    _, in_basis = jax.lax.scan(at, first(B, scale), ts)
    return jnp.einsum("ij,tkj->tik", Phi, in_basis)


@partial(_factors.defjvp, symbolic_zeros=True)
def _factors_jvp(primals, tangents):
    moving = [i for i, tangent in enumerate(tangents) if type(tangent) is not SymbolicZero]

    def along(*moved: Array) -> Array:
        arguments = list(primals)
        for i, argument in zip(moving, moved, strict=True):
            arguments[i] = argument
        return _differentiable(*arguments)

    return jax.jvp(along, [primals[i] for i in moving], [tangents[i] for i in moving])


def _differentiable(A: Array, a: Array, Phi: Array, g: Array, U0: Array, ts: Array) -> Float[Array, "T p k"]:
    """`_factors` as a function that can be differentiated twice, at each time with the rows that it takes."""
    constant = jax.lax.stop_gradient
    B, scale = in_eigenbasis(Phi, constant(U0))
    B = _without_specks(B)

    def choose(state: Dominant, t: Array) -> tuple[Dominant, Dominant]:
        m, r, _ = _log_scales(t * a, constant(g), t, B)
        state, _ = follow(state, B, scale, _of_all_rows(m, r, B))
        return state, state

    _, states = jax.lax.scan(choose, first(B, scale), constant(ts))
    return jax.vmap(_factor, in_axes=(None,) * 5 + (0, 0))(A, a, Phi, g, U0, ts, states)


def _factor(A: Array, a: Array, Phi: Array, g: Array, U0: Array, t: Array, state: Dominant) -> Float[Array, "p k"]:
    constant = jax.lax.stop_gradient
    far = jnp.abs(constant(t) * (a[:, None] - a[None, :])) > 1
    Phi = rotating(Phi, A, a, far)
    rotated = Phi.T @ A @ Phi
    # x and R: value a t and 0, derivative that of t times the diagonal and the off-diagonal part of Phi^T A Phi.
    R = t * jnp.where(jnp.eye(a.shape[0], dtype=bool), 0, rotated - constant(rotated))
    x = t * (a + jnp.diagonal(rotated - constant(rotated)))
    B, _ = in_eigenbasis(Phi, U0)
    B = _without_specks(B)
    k = B.shape[1]
    m, r, _ = constant(_log_scales(constant(x), constant(g), constant(t), constant(B)))
    M, offdiagonal = couplings(R, x, m, r, far)
    scaled = scale_by(basis_of(B + M @ B, state), shifts(_of_all_rows(m, r, B), state.rows))
    low = scaled[k:]
    ratio = t * g * jnp.exp(log_kernel(x, m) - 2 * r)
    return Phi @ _solved(scaled, ratio, jnp.exp(x - m - r)[:, None] * low + offdiagonal @ low).T


def _log_scales(x: Array, g: Array, t: Array, B: Array) -> tuple[Array, Array, Array]:
    """m and r with `log K = 2 (m + r)`, and `log K/(g t) - 2 (m + r)`.

    m holds what grows with time, so that exponents are differences of small numbers. r is bounded below where K is tiny.
    """
    m = jnp.maximum(x, 0)
    kernel = log_kernel(x, m)
    least = -30 - jnp.log1p(jnp.max(jnp.abs(B)))
    r = (jnp.log(g * jnp.where(t > 0, t, 1)) + kernel) / 2
    r = jnp.where(t > 0, jnp.maximum(r, least), least)
    return m, r, kernel - 2 * r


def _of_all_rows(m: Array, r: Array, B: Array) -> Float[Array, "2 q"]:
    return jnp.concatenate([jnp.zeros((2, B.shape[1]), m.dtype), jnp.stack([m, r])], axis=1)


def _solved(scaled: Array, ratio: Array, unnormalised: Array) -> Float[Array, "k p"]:
    """The factor in the eigenbasis, transposed: rows of the scaled basis count `ratio` times below the first k."""
    k = scaled.shape[1]
    weights = jnp.concatenate([jnp.ones(k, scaled.dtype), ratio])
    C = jnp.linalg.cholesky(scaled.T @ (weights[:, None] * scaled), symmetrize_input=False)
    return jax.scipy.linalg.solve_triangular(C, unnormalised.T, lower=True)


def in_eigenbasis(Phi: Array, Z: Array) -> tuple[Float[Array, "p k"], Float[Array, "p k"]]:
    """`Phi^T Z`, with entries that are round-off made zero and their derivative kept, and the size of what was summed up."""
    constant = jax.lax.stop_gradient
    B, scale = Phi.T @ Z, jnp.abs(constant(Phi)).T @ jnp.abs(constant(Z))
    return jnp.where(jnp.abs(constant(B)) <= round_off(B) * scale, B - constant(B), B), scale


def _without_specks(B: Array) -> Array:
    """B with entries far below round-off (1e-61 times the largest; 2e-13 in float32) made zero, with their derivative kept.

    Directions in which a start is 1e-200 and which grow by e^{1e6} would overflow on the way to a finite result: elimination
    multiplies a few such ratios.
    """
    size, finfo = jnp.abs(jax.lax.stop_gradient(B)), jnp.finfo(B.dtype)
    least = float(finfo.tiny) ** (0.2 if finfo.bits == 64 else 1 / 3)
    speck = size < least * jnp.maximum(jnp.max(size), float(finfo.tiny) ** 0.6)
    return jnp.where(speck, B - jax.lax.stop_gradient(B), B)
