"""The matrix Riccati flow in general, `P' = A P + P A^T - P R P + Q`, at any time.

The map from P(0) to P(t) is `P(0) -> K + F^T P(0) (I + G P(0))^{-1} F`. One short step of it is read off a matrix exponential,
and squaring the map doubles the time: with R, Q and P(0) positive semidefinite everything that is inverted is the identity plus
a product of two positive semidefinite matrices.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from .. import _checks
from .._linalg import round_off
from .._public import public
from ._common import as_times
from .riccati import check_symmetric

# Enough to go from one unit of the equation's own time to the largest number.
_DOUBLINGS = 64


@public
def riccati_general(
    A: Real[ArrayLike, "p p"],
    R: Real[ArrayLike, "p p"],
    Q: Real[ArrayLike, "p p"],
    P0: Real[ArrayLike, "p p"],
    ts: Real[ArrayLike, " T"],
) -> Float[Array, "T p p"]:
    r"""Solution of a general matrix Riccati flow `P' = A P + P A^T - P R P + Q`, `P(0) = P0`.

    Hypothesis: R, Q and P0 are symmetric and positive semidefinite; then the solution exists for all time. In terms of
    any symmetric Pbar with `A Pbar + Pbar A^T - Pbar R Pbar + Q = 0`, `Atil = A - Pbar R` and `Ahat = A^T - R Pbar = Atil^T`,
    it is `P(t) = X2 X1^{-1}` with

        X1 = e^{-t Ahat} + J (P0 - Pbar),    X2 = Pbar X1 + e^{t Atil} (P0 - Pbar),
        J = int_0^t e^{-(t-s) Ahat} R e^{s Atil} ds.

    **Args:**

    - `A`: shape (p, p), any.
    - `R`, `Q`, `P0`: shape (p, p), symmetric, positive semidefinite to round-off.
    - `ts`: times, shape (T,), at least 0 and in any order.

    **Returns:** P(t), shape (T, p, p).

    **Raises:** `ValueError` for shapes that do not fit, entries that are not finite, matrices that are not symmetric, negative
    times, an R, Q or P0 with a negative eigenvalue, and, where Q leaves a growing direction of A alone, as Q = 0 does,
    times with e^{2 t a} beyond the largest number, where all these are known; traced ones of the last two kinds give NaN.

    **Notes:** no Pbar is needed. `riccati` is the case A = A^T, R = g I, Q = 0, and keeps more digits of what decays and of
    derivatives at late times, and the rank of its start: round-off of a P0 that lacks rank grows here as a start does, and
    shows once `eps e^{2 t a}` is not small.

    **Source:** Lemma 6 in Appendix A of the earlier version of T21, (23) to (27), after Sasagawa (1982). The printed (27) has
    Atil where Ahat is meant in the first line (e^{-t Atil}, e^{-(t-s) Atil}), and e^{t Ahat} where e^{t Atil} is in the second.

    Example:

        >>> A = jnp.array([[0.0, 1.0], [0.0, 0.0]])
        >>> R, Q = jnp.diag(jnp.array([1.0, 0.0])), jnp.diag(jnp.array([0.0, 1.0]))
        >>> print(ld.exact.riccati_general(A, R, Q, jnp.eye(2), jnp.array([0.0, 30.0]))[1].round(4))
        [[1.4142 1.    ]
         [1.     1.4142]]
    """
    A = _checks.as_matrix(A, "A", "(p, p)")
    _checks.check_finite(A, "A")
    matrices = {"R": check_symmetric(R, "R"), "Q": check_symmetric(Q, "Q"), "P0": check_symmetric(P0, "P0")}
    for name, matrix in {"A": A, **matrices}.items():
        if matrix.shape != (A.shape[0],) * 2:
            raise ValueError(
                f"Argument `{name}` must have shape ({A.shape[0]}, {A.shape[0]}), but has shape {matrix.shape}."
            )
    for name, matrix in matrices.items():
        if not _checks.is_traced(matrix) and not bool(_is_positive(matrix)):
            raise ValueError(f"Argument `{name}` must be positive semidefinite, but has a negative eigenvalue.")
    dtype = jnp.result_type(A, *matrices.values())
    ts = as_times(ts, dtype)
    P = _solve(A.astype(dtype), *(matrix.astype(dtype) for matrix in matrices.values()), ts)
    if not _checks.is_traced(P) and not np.all(np.isfinite(P)):
        first = float(np.min(np.asarray(ts)[~np.all(np.isfinite(P), axis=(1, 2))]))
        raise ValueError(
            f"Argument `ts` must hold times at which what grows under A and is left alone by Q can be represented, but holds "
            f"{first:g}, where e^(2 t a) is beyond the largest number: pass earlier times, or use `riccati` for a symmetric A, "
            "R = g I and Q = 0."
        )
    return P


def _is_positive(matrix: Array) -> Array:
    """No eigenvalue is below zero by more than round-off."""
    a = jnp.linalg.eigvalsh(jax.lax.stop_gradient(matrix))
    return a[0] >= -round_off(matrix) * jnp.max(jnp.abs(a))


@jax.jit
def _solve(A: Array, R: Array, Q: Array, P0: Array, ts: Array) -> Array:
    applies = _is_positive(R) & _is_positive(Q) & _is_positive(P0)
    P = jax.vmap(_at, in_axes=(None,) * 4 + (0,))(A, R, Q, P0, ts)
    return jnp.where(applies, P, jnp.nan)


def _at(A: Array, R: Array, Q: Array, P0: Array, t: Array) -> Array:
    p, eye = A.shape[0], jnp.eye(A.shape[0], dtype=A.dtype)
    size_A, size_R, size_Q = (jax.lax.stop_gradient(jnp.max(jnp.abs(X))) for X in (A, R, Q))
    time = jax.lax.stop_gradient(jnp.where(t > 0, t, 1))
    # P in units of c, in which R and Q are of one size.
    safe_R, safe_Q = jnp.where(size_R > 0, size_R, 1), jnp.where(size_Q > 0, size_Q, 1)
    alone = jnp.where(size_R > 0, 1 / time / safe_R, jnp.where(size_Q > 0, time * safe_Q, 1))
    c = jnp.where((size_R > 0) & (size_Q > 0), jnp.sqrt(safe_Q) / jnp.sqrt(safe_R), alone)
    R, Q, P0 = c * R, Q / c, P0 / c
    speed = p * (size_A + c * size_R + size_Q / c)
    count = jnp.ceil(jnp.maximum(jnp.log2(jnp.where(speed > 0, speed, 1)) + jnp.log2(time), 0))
    step = t * jnp.exp2(-count)

    transition = jax.scipy.linalg.expm(step * jnp.block([[-A.T, R], [Q, A]]))
    F = jnp.linalg.inv(transition[:p, :p])
    X12, K = transition[:p, p:], transition[p:, :p] @ F

    def double(flow: tuple[Array, Array, Array], i: Array) -> tuple[tuple[Array, Array, Array], None]:
        # Where no more is doubled, zeros: what is thrown away must not overflow.
        F, G, K = (jnp.where(i < count, X, 0) for X in flow)
        inner = jnp.linalg.solve(eye + G @ K, jnp.concatenate([F, G], axis=1))
        doubled = F @ inner[:, :p], G + F @ inner[:, p:] @ F.T, K + F.T @ K @ inner[:, :p]
        return jax.tree.map(lambda new, old: jnp.where(i < count, new, old), doubled, flow), None

    (F, G, K), _ = jax.lax.scan(double, (F, F @ X12, K), jnp.arange(_DOUBLINGS, dtype=A.dtype))
    P = K + F.T @ P0 @ jnp.linalg.solve(eye + G @ P0, F)
    return c * (P + P.T) / 2
