"""Singular vectors with derivatives at repeated and zero singular values, where the textbook ones are 0/0."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._linalg import round_off


@jax.custom_jvp
def thin_svd(A: Float[Array, "n m"]) -> tuple[Float[Array, "n k"], Float[Array, " k"], Float[Array, "k m"]]:
    """The thin SVD `A = P diag(s) Q^T`, as (P, s, Q^T).

    The derivative does not turn singular vectors into one another whose values agree to round-off, nor those of zero into
    what is outside of them. What then remains of dA is the derivative of `remainder`.
    """
    return tuple(jnp.linalg.svd(A, full_matrices=False))


@thin_svd.defjvp
def _thin_svd_jvp(primals: tuple[Array, ...], tangents: tuple[Array, ...]):
    (A,), (dA,) = primals, tangents
    P, s, QT = thin_svd(A)
    M = P.T @ dA @ QT.T
    cutoff = jax.lax.stop_gradient(round_off(A) * s[0])
    gap, total = s[None, :] - s[:, None], s[None, :] + s[:, None]
    apart = jnp.abs(gap) > cutoff
    # Divided twice: the product of gap and sum is zero for values of 1e-160.
    gap, total = jnp.where(apart, gap, 1), jnp.where(apart, total, 1)
    right, left = s[None, :] / total, s[:, None] / total
    present = s > cutoff
    outside = jnp.where(present, 1 / jnp.where(present, s, 1), 0)
    dP = P @ jnp.where(apart, (right * M + left * M.T) / gap, 0) + (dA @ QT.T - P @ M) * outside
    dQT = jnp.where(apart, (left * M + right * M.T) / gap, 0).T @ QT + outside[:, None] * (P.T @ dA - M @ QT)
    return (P, s, QT), (dP, jnp.diagonal(M), dQT)


def remainder(A: Float[Array, "n m"], P: Float[Array, "n k"], QT: Float[Array, "k m"]) -> Float[Array, "k k"]:
    """Zero, with the derivative of `P^T A Q` off its diagonal: what `thin_svd` does not rotate away at repeated values."""
    M = P.T @ A @ QT.T
    M = jnp.where(jnp.eye(M.shape[0], dtype=bool), 0, M)
    return M - jax.lax.stop_gradient(M)


def complement(P: Float[Array, "n k"]) -> Float[Array, "n l"]:
    """Orthonormal columns beside those of P, l = n - k; the derivative turns them no more than P's turning requires."""
    k = P.shape[1]
    full = jnp.linalg.qr(jax.lax.stop_gradient(P), mode="complete")[0]
    rest = jax.lax.stop_gradient(full[:, k:])
    return rest - P @ (P.T @ rest)


@jax.custom_jvp
def least_left_vector(A: Float[Array, "n m"]) -> Float[Array, " n"]:
    """The left singular vector of the least singular value, of n of them; held towards those of the same value."""
    return jnp.linalg.svd(A, full_matrices=True)[0][:, -1]


@least_left_vector.defjvp
def _least_left_vector_jvp(primals: tuple[Array, ...], tangents: tuple[Array, ...]):
    (A,), (dA,) = primals, tangents
    P, values, _ = jnp.linalg.svd(A, full_matrices=True)
    s = jnp.concatenate([values, jnp.zeros(A.shape[0] - values.shape[0], A.dtype)])
    v = P[:, -1]
    turn = P.T @ (dA @ (A.T @ v) + A @ (dA.T @ v))
    apart = s - s[-1] > round_off(A) * s[0]
    gap = (s - s[-1]) * (s + s[-1])
    return v, -P @ jnp.where(apart, turn / jnp.where(apart, gap, 1), 0)
