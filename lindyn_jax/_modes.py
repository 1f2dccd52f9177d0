"""The modes of the data, `q c X^T Y = Phi diag(sigma) Psi^T`, completed where the targets say nothing: modes with sigma = 0."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._linalg import round_off
from ._svd import complement, thin_svd
from .problems import LeastSquares


def correlation_modes(problem: LeastSquares) -> tuple[Float[Array, "r p"], Float[Array, " p"], Float[Array, "p m"]]:
    """`(P, sigma, Psi^T)` in the data's coordinates, Phi = Phi1 P.

    The singular vectors of sigma = 0 are any basis, in which Sigma_x need not be diagonal although it leaves their span alone.
    Here they are the eigenvectors of what Sigma_x does in that span, in descending order: those that a flow keeps apart.
    """
    s = problem.singular_values
    P, sigma, PsiT = thin_svd(problem.scale * s[:, None] * problem.Ytil)
    learned = sigma > mode_round_off(problem) * sigma[0]
    known = P * learned
    inside = jnp.eye(s.shape[0], dtype=s.dtype) - known @ known.T
    vectors: Array = jnp.linalg.eigh(jax.lax.stop_gradient(inside @ ((s / s[0]) ** 2 * inside).T))[1][:, ::-1]
    rest = vectors[:, jnp.maximum(jnp.arange(sigma.shape[0]) - jnp.sum(learned), 0)]
    return jnp.where(learned, P, rest - known @ (known.T @ rest)), sigma, PsiT


def mode_directions(problem: LeastSquares, k: int) -> tuple[Float[Array, "n k"], Float[Array, "m k"]]:
    """Phi and Psi of k modes; those beyond min(r, m) lie outside the range of the data."""
    P, _, PsiT = correlation_modes(problem)
    Phi, Psi = problem.from_data(P), PsiT.T
    if k > P.shape[1]:
        Phi, Psi = (jnp.concatenate([A, complement(A)], axis=1) for A in (Phi, Psi))
    return Phi[:, :k], Psi[:, :k]


def mode_round_off(problem: LeastSquares) -> float:
    """A singular value up to this part of the largest is of round-off."""
    return 2 * round_off(problem.Ytil)
