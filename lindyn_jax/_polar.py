"""Polar factors, with derivatives at repeated and zero singular values."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._linalg import round_off
from ._roots import sylvester


def polar(A: Float[Array, "n m"], smoothing: Float[Array, ""] | float = 0.0) -> Float[Array, "n m"]:
    """`(A A^T + delta^2 I)^{-1/2} A`: the singular vectors of A with the values `s/sqrt(s^2 + delta^2)`, and 0 for s = 0.

    Nothing larger than A is formed. The derivative solves the Sylvester equation of the root on the smaller side, which knows no
    gaps between singular values; for delta = 0 it does not exist at a singular A, and what is returned leaves the null
    space alone.
    """
    if A.shape[0] > A.shape[1]:
        return _wide(A.T, jnp.asarray(smoothing, A.dtype)).T
    return _wide(A, jnp.asarray(smoothing, A.dtype))


def _decomposed(A: Array, smoothing: Array) -> tuple[Array, Array, Array, Array, Array]:
    """P, s, Q^T, the root's eigenvalues, and which of them are more than round-off."""
    P, s, QT = jnp.linalg.svd(A, full_matrices=False)
    root = jnp.hypot(s, smoothing)
    return P, s, QT, root, root > round_off(A) * s[0]


@jax.custom_jvp
def _wide(A: Float[Array, "n m"], smoothing: Float[Array, ""]) -> Float[Array, "n m"]:
    P, s, QT, root, is_there = _decomposed(A, smoothing)
    return (P * jnp.where(is_there, s / jnp.where(is_there, root, 1), 0)) @ QT


@_wide.defjvp
def _wide_jvp(primals, tangents):
    (A, smoothing), (dA, dsmoothing) = primals, tangents
    F = _wide(A, smoothing)
    P, _, _, root, is_there = jax.lax.stop_gradient(_decomposed(A, smoothing))
    R = (P * root) @ P.T
    half = dA @ A.T
    dR = sylvester(R, half + half.T + 2 * smoothing * dsmoothing * jnp.eye(len(R), dtype=R.dtype))
    inverse = (P * jnp.where(is_there, 1 / jnp.where(is_there, root, 1), 0)) @ P.T
    return F, inverse @ (dA - dR @ F)
