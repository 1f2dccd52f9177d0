r"""Reduced-rank regression: the best fits of each rank, from data or from covariances (G19 Corollary 2)."""

import operator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from .. import _checks
from .._finite import of_finite_numbers, of_finite_state
from .._linalg import round_off
from .._modes import mode_round_off
from .._norms import all_finite
from .._public import public
from .._statement import Statement
from ..problems import LeastSquares


@public
@of_finite_state
def reduced_rank_regression(problem: LeastSquares, k: Int[ArrayLike, ""]) -> Statement:
    r"""Reduced-rank regression: the Theta of rank k at most with the least loss, and of these the one of least norm.

    `W^{k*} = X^+ Y Psi_k Psi_k^T` with the top k right singular vectors of Ytil, which are the top eigenvectors of
    `Sigma_xy^T Sigma_x^+ Sigma_xy`. What is lost is `(q/2) sum_{i > k} sigma_i(Ytil)^2`. It is the only one if
    `sigma_k(Ytil) > sigma_{k+1}(Ytil)`.

    **Args:** `problem`; `k`, from 0 to min(r, m), may be traced.

    **Returns:** a `Statement`, shape (n, m), and `excess_loss`, L - L* there; `applies`, whether it is the only one. From k =
    rank of Ytil on it is Theta_hat.

    **Raises:** `ValueError` for a problem with a link, or a concrete k out of range.

    **Notes:** derivatives are those of the projector onto the span of Psi_k: they need a gap behind k and no other, and are
    taken as zero across a gap that is not there.

    **Source:** G19 Corollary 2; the closed form is that of Izenman (1975).

    Example:

        >>> found = ld.theory.reduced_rank_regression(ld.factorization(np.diag([2.0, 1.0])), 1)
        >>> found.value.tolist(), float(found.excess_loss), bool(found.applies)
        ([[2.0, 0.0], [0.0, 0.0]], 0.5, True)
    """
    refuse_link(problem, "reduced_rank_regression")
    k = rank_number(k, min(problem.rank, problem.num_outputs))
    value = problem.from_data(problem.reduced_theta_hat @ top_projector(problem.Ytil, k))
    strength = jax.lax.stop_gradient(jnp.linalg.svd(problem.Ytil, compute_uv=False))
    index = jnp.arange(strength.shape[0])
    kept = jnp.min(jnp.where(index < k, strength, jnp.inf))
    next_one = jnp.max(jnp.where(index < k, -jnp.inf, strength), initial=0.0)
    nothing_left = next_one <= mode_round_off(problem) * strength[0]
    excess_loss = problem.excess_loss(problem.to_data(value))
    return Statement(value, (kept > next_one) | nothing_left, excess_loss=excess_loss)


@public
def reduced_rank_from_covariances(
    Sigma_x: Float[ArrayLike, "n n"],
    Sigma_xy: Float[ArrayLike, "n m"],
    k: Int[ArrayLike, ""],
    *,
    rank: int | None = None,
) -> Statement:
    """Reduced-rank regression from covariances alone, `L(Theta) - L* = (1/2) ||Sigma_x^{1/2} (Theta - Sigma_x^+ Sigma_xy)||_F^2`.

    **Args:** `Sigma_x`, symmetric and positive semidefinite; `Sigma_xy`, whose columns lie in its range; `k`, as in
    `reduced_rank_regression`; `rank` of Sigma_x, by default the number of eigenvalues above `8 sqrt(n)` times the machine
    epsilon times the largest; must be given when it is traced.

    **Returns:** as `reduced_rank_regression`.

    **Raises:** `ValueError` for shapes that do not fit, a Sigma_x without positive eigenvalues, and as above.

    **Source:** as `reduced_rank_regression`.

    Example:

        >>> found = ld.theory.reduced_rank_from_covariances(np.diag([8.0, 0.5]), np.diag([2.0, 1.0]), 1)
        >>> found.value.tolist(), float(found.excess_loss)
        ([[0.0, 0.0], [0.0, 2.0]], 0.25)
    """
    return reduced_rank_regression(covariance_problem(Sigma_x, Sigma_xy, rank=rank), k)


@public
def covariance_problem(
    Sigma_x: Float[ArrayLike, "..."], Sigma_xy: Float[ArrayLike, "..."], *, rank: int | None = None
) -> LeastSquares:
    """A problem with these covariances: `X^T X = Sigma_x`, `X^T Y = Sigma_xy` and q = 1, with r samples and L* = 0.

    Every dynamics sees the data through the covariances alone, so it moves as data of any number of samples would under
    the loss scale 1/N. The part of Sigma_xy outside the range of Sigma_x, which no data have, is left out.

    **Args:** as for `reduced_rank_from_covariances`.

    **Returns:** a `LeastSquares`.

    **Raises:** as `reduced_rank_from_covariances`.

    **Source:** G19 (7).

    Example:

        >>> problem = ld.theory.covariance_problem(np.diag([8.0, 0.5]), np.diag([2.0, 1.0]))
        >>> problem.theta_hat.tolist(), float(problem.loss(problem.theta_hat))
        ([[0.25, 0.0], [0.0, 2.0]], 0.0)
    """
    Sigma_x, Sigma_xy = (
        _checks.as_matrix(Sigma_x, "Sigma_x", "(n, n)"),
        _checks.as_matrix(Sigma_xy, "Sigma_xy", "(n, m)"),
    )
    n = Sigma_x.shape[0]
    if Sigma_x.shape != (n, n) or Sigma_xy.shape[0] != n:
        raise ValueError(
            f"Arguments `Sigma_x` (n, n) and `Sigma_xy` (n, m) must have the same n, but have shapes {Sigma_x.shape} and "
            f"{Sigma_xy.shape}."
        )
    lam, Phi = jnp.linalg.eigh((Sigma_x + Sigma_x.T) / 2)
    lam, Phi = lam[::-1], Phi[:, ::-1]
    if rank is None:
        if _checks.is_traced(lam):
            raise ValueError("The rank of a traced `Sigma_x` is unknown: pass `rank=`.")
        values = np.asarray(lam)
        rank = int(np.sum(values > round_off(Sigma_x) * values[0])) if values[0] > 0 else 0
    if not 1 <= rank <= n:
        raise ValueError(f"Argument `Sigma_x` must have a rank from 1 to n = {n}, but has rank {rank}.")
    root = jnp.sqrt(lam[:rank])
    X, Y = root[:, None] * Phi[:, :rank].T, (Phi[:, :rank].T @ Sigma_xy) / root[:, None]
    return LeastSquares(X, Y, rank=rank)


@public
@of_finite_numbers
def top_projector(A: Float[Array, "r m"], k: Int[ArrayLike, ""]) -> Float[Array, "m m"]:
    """Psi_k Psi_k^T, the projector onto the top k right singular vectors of A.

    **Args:** `A`, shape (r, m); `k`, which may be traced: from min(r, m) on it is the projector onto all of them.

    **Returns:** shape (m, m), symmetric. Its derivative needs a gap behind singular value k, and is taken as zero across one that
    is not there.

    **Raises:** `ValueError` for an A that is no matrix.

    **Source:** Eckart and Young.

    Example:

        >>> ld.theory.top_projector(jnp.diag(jnp.array([2.0, 1.0])), 1).tolist()
        [[1.0, 0.0], [0.0, 0.0]]
    """
    # The SVD of what is not finite need not end.
    return right_projector(jnp.where(all_finite(A), A, 0), jnp.arange(min(A.shape)) < k)


@jax.custom_jvp
def right_projector(A: Float[Array, "r m"], chosen: Bool[Array, " c"]) -> Float[Array, "m m"]:
    """The projector onto the chosen right singular vectors of A, whose derivative needs gaps to the others alone."""
    _, _, PsiT = jnp.linalg.svd(A, full_matrices=False)
    kept = PsiT * chosen[:, None]
    return kept.T @ kept


@right_projector.defjvp
def _right_projector_jvp(primals, tangents):
    (A, chosen), (dA, _) = primals, tangents
    m = A.shape[1]
    _, s, PsiT = jnp.linalg.svd(A, full_matrices=True)
    square = jnp.zeros(m, A.dtype).at[: s.shape[0]].set(s**2)
    inside = jnp.zeros(m, bool).at[: s.shape[0]].set(chosen)
    turn = PsiT @ (A.T @ dA) @ PsiT.T
    turn = turn + turn.T
    gap = square[:, None] - square[None, :]
    across = inside[:, None] & ~inside[None, :] & (jnp.abs(gap) > round_off(A) * square[0])
    half = jnp.where(across, turn / jnp.where(across, gap, 1), 0)
    kept = PsiT * inside[:, None]
    return kept.T @ kept, PsiT.T @ (half + half.T) @ PsiT


def rank_number(k: Int[ArrayLike, ""], most: int) -> Int[Array, ""]:
    if not _checks.is_traced(k):
        number = operator.index(np.asarray(k).item())
        if not 0 <= number <= most:
            raise ValueError(f"Argument `k` must lie between 0 and {most}, the largest rank there is, but is {number}.")
    return jnp.asarray(k)


def refuse_link(problem: LeastSquares, name: str) -> None:
    """Refuses a problem with a link function, for `name`, which is about covariances."""
    if problem.link is not None:
        raise ValueError(f"`{name}` is about least squares, but the problem has a link function: leave out `link`.")
