"""Square roots of Gram matrices, with derivatives at repeated and zero singular values."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._linalg import round_off
from ._norms import quotient


@jax.custom_jvp
def gram_roots(Theta: Float[Array, "n m"], level: Float[Array, ""]) -> tuple[Float[Array, "n n"], Float[Array, "m m"]]:
    """`(Theta Theta^T + c^2 I)^{1/2}` and `(Theta^T Theta + c^2 I)^{1/2}` for a number c >= 0.

    From the singular values of Theta, whose squares are never formed: small ones keep their digits. The derivative solves the
    Sylvester equation `R dR + dR R = d(R^2)`, which knows no gaps between singular values. At c = 0 and a Theta of low rank
    the root has no derivative; what is returned there leaves the null space alone.
    """
    left, s, rightT = jnp.linalg.svd(Theta, full_matrices=False)
    total = jnp.hypot(s, level) + level
    # sqrt(s^2 + c^2) - c without cancellation.
    above = s * quotient(s, total)

    def root(size: int, vectors: Array) -> Array:
        return level * jnp.eye(size, dtype=Theta.dtype) + (vectors * above) @ vectors.T

    return root(Theta.shape[0], left), root(Theta.shape[1], rightT.T)


@gram_roots.defjvp
def _gram_roots_jvp(primals, tangents):
    (Theta, level), (dTheta, dlevel) = primals, tangents
    roots = gram_roots(Theta, level)

    def change(root: Array, half: Array) -> Array:
        right = half + half.T + 2 * level * dlevel * jnp.eye(half.shape[0], dtype=Theta.dtype)
        return sylvester(root, right)

    return roots, (change(roots[0], dTheta @ Theta.T), change(roots[1], dTheta.T @ Theta))


def sylvester(R: Float[Array, "n n"], C: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The X of `R X + X R = C` for a symmetric, positive semidefinite R; zero between null vectors of R.

    Derivatives are those of the equation: the eigenvectors that solve it are never differentiated.
    """

    def solve(_, right):
        w, Q = jnp.linalg.eigh(jax.lax.stop_gradient(R))
        gap = w[:, None] + w[None, :]
        solvable = gap > round_off(R) * w[-1]
        return Q @ jnp.where(solvable, Q.T @ right @ Q / jnp.where(solvable, gap, 1), 0) @ Q.T

    return jax.lax.custom_linear_solve(lambda X: R @ X + X @ R, C, solve, solve, symmetric=True)
