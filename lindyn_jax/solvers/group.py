"""The imbalance, and the ways back to it and to the group O(r, m) after a step."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .roundoff import norm


def imbalance(U: Float[Array, "r k"], V: Float[Array, "m k"]) -> Float[Array, "k k"]:
    """D = U1^T U1 - V^T V in the reduced coordinates."""
    return U.T @ U - V.T @ V


@jax.custom_jvp
def _lyapunov(G: Float[Array, "k k"], R: Float[Array, "k k"]) -> Float[Array, "k k"]:
    """C with `C G + G C = R`, for positive semidefinite G; zero where G is."""
    g, Q = jnp.linalg.eigh(G)
    return _lyapunov_solve(g, Q, R)


def _lyapunov_solve(g: Array, Q: Array, R: Array) -> Array:
    sums = jnp.maximum(g[:, None] + g[None, :], 0)
    least = 8 * g.shape[0] ** 0.5 * jnp.finfo(g.dtype).eps * jnp.max(sums)
    inverse = jnp.where(sums > least, 1 / jnp.where(sums > least, sums, 1), 0)
    return Q @ (inverse * (Q.T @ R @ Q)) @ Q.T


@_lyapunov.defjvp
def _lyapunov_jvp(primals, tangents):
    (G, R), (dG, dR) = primals, tangents
    g, Q = jnp.linalg.eigh(G)
    C = _lyapunov_solve(g, Q, R)
    return C, _lyapunov_solve(g, Q, dR - C @ dG - dG @ C)


def pseudo_orthogonal(R: Float[Array, "p p"], r: int) -> tuple[Float[Array, "p p"], Float[Array, ""]]:
    """The member Q of O(r, p - r), `Q^T J Q = J`, that belongs to a nearby R, and the norm of `J R^T J R - I`.

    By the series of `(I + X)^{-1/2}` to second order, X the defect, twice: the third order takes 1e-2 to 1e-6 and to round-off.
    """
    signs = jnp.where(jnp.arange(R.shape[0]) < r, 1.0, -1.0).astype(R.dtype)
    one = jnp.eye(R.shape[0], dtype=R.dtype)

    def defect(Q):
        return signs[:, None] * (Q.T @ (signs[:, None] * Q)) - one

    def nearer(Q, X):
        return Q - Q @ (X / 2 - 3 / 8 * X @ X)

    X = defect(R)
    Q = nearer(R, X)
    return nearer(Q, defect(Q)), jax.lax.stop_gradient(norm(X))


def project(
    U: Float[Array, "r k"], V: Float[Array, "m k"], D: Float[Array, "k k"]
) -> tuple[Float[Array, "r k"], Float[Array, "m k"]]:
    """The nearby factors with imbalance D: `dZ = J Z C`, `C G + G C = D - (U^T U - V^T V)`, `G = Z^T Z`.

    To first order `U V^T` does not change.
    """
    C = _lyapunov(U.T @ U + V.T @ V, D - imbalance(U, V))
    return U + U @ C, V - V @ C
