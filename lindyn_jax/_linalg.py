"""Small pieces of linear algebra that the reduction and the statements share."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def round_off(A: Float[Array, "n m"]) -> float:
    """What singular values of A that are zero, or gaps between equal ones, are at most, relative to the largest.

    Rounding the entries moves singular values by eps ||A||_F, at most sqrt(min(n, m)) times the largest, however long A is;
    decompositions of up to 100,000 rows added no more (4 sqrt(p) eps between equal eigenvalues was the most that was seen).
    """
    return 8 * math.sqrt(min(A.shape)) * float(jnp.finfo(A.dtype).eps)


@jax.custom_jvp
def row_factor(Z: Float[Array, "p h"]) -> tuple[Float[Array, "p k"], Float[Array, "h k"]]:
    """Thin factorization `Z = L Q^T`: L lower triangular (or trapezoidal), Q with orthonormal columns, k = min(p, h).

    The derivative keeps Q horizontal (`Q^T dQ = 0`), so `dL = dZ Q`: it needs no inverse for anything that depends on L
    alone. For h > p, `dQ` needs L to be invertible. Where it is not, no smooth factorization of this width exists: `dQ` is
    then NaN.
    """
    Q, R = jnp.linalg.qr(Z.T)
    return R.T, Q


@row_factor.defjvp
def _row_factor_jvp(primals, tangents):
    (Z,), (dZ,) = primals, tangents
    factors: tuple[Array, Array] = row_factor(Z)
    L, Q = factors
    p, h = Z.shape
    dL = dZ @ Q
    if h <= p:
        return (L, Q), (dL, jnp.zeros_like(Q))
    outside = dZ - dL @ Q.T
    # On the primal value: transposing a check of the tangent would drop it, and the cotangent with it.
    safe = jnp.where(is_deficient(L), jnp.nan, L)
    dQ = jax.scipy.linalg.solve_triangular(safe, outside, lower=True).T
    return (L, Q), (dL, dQ)


def is_deficient(L: Float[Array, "p p"]) -> Bool[Array, ""]:
    """Whether the rows of `Z = L Q^T`, more columns than rows, are linearly dependent to round-off."""
    magnitude = jnp.abs(jnp.diagonal(L))
    return jnp.min(magnitude) <= round_off(L) * jnp.max(magnitude)


def signature_spectrum(Z: Float[Array, "p h"], signs: Float[Array, " p"]) -> Float[Array, " k"]:
    """Eigenvalues of `Z^T diag(signs) Z` that can differ from zero, in descending order, k = min(p, h).

    Never forms the h x h matrix, nor the Gram matrix of the rows: the rows are sorted by norm, factored as `L Q^T`, and
    the spectrum is that of `L^T diag(signs) L`. Sorting makes that matrix graded from the top, and eigenvalues 1e-12
    times the largest keep nearly all their digits.
    """
    norms = jnp.sum(jax.lax.stop_gradient(Z) ** 2, axis=1)
    order = jnp.argsort(-norms)
    L, _ = row_factor(Z[order])
    return jnp.linalg.eigvalsh(L.T @ (signs[order][:, None] * L))[::-1]
