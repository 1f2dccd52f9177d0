r"""Autoencoders: principal components, and whether layers that start equal stay so (G19 section 3.1)."""

import math

import jax.numpy as jnp
from jaxtyping import ArrayLike, Int

from .._finite import of_finite_state
from .._linalg import round_off
from .._public import public
from .._statement import Statement
from ..models import (
    SymmetricFactors,
    TwoLayer,
)
from ..problems import LeastSquares
from ._numerics import norm, quotient
from .regression import rank_number


@public
@of_finite_state
def principal_projector(problem: LeastSquares, k: Int[ArrayLike, ""]) -> Statement:
    """The projector onto the top k principal components of the inputs, `Phi_k Phi_k^T`.

    It is the reduced-rank regression of an autoencoder, `Y = c X`.

    **Args:** `problem`, whose inputs alone count, not centred here; `k`, from 0 to r, may be traced.

    **Returns:** as `reduced_rank_regression`, shape (n, n); `excess_loss` is `(q/2) c^2 sum_{i > k} s_i^2` with the s_i of X.

    **Raises:** `ValueError` for a concrete k out of range.

    **Source:** G19 section 3.1, (14).

    Example:

        >>> X = np.diag([3.0, 2.0, 1.0])
        >>> found = ld.theory.principal_projector(ld.LeastSquares(X, X), 1)
        >>> jnp.diag(found.value).tolist(), float(found.excess_loss)
        ([1.0, 0.0, 0.0], 2.5)
    """
    r = problem.rank
    k = rank_number(k, r)
    inside = jnp.arange(r) < k
    Phi1 = jnp.eye(r, dtype=problem.dtype) if problem.Phi1 is None else problem.Phi1
    s = problem.singular_values
    kept, lost = jnp.min(jnp.where(inside, s, jnp.inf)), jnp.max(jnp.where(inside, 0, s))
    excess_loss = problem.scale / 2 * jnp.sum(jnp.where(inside, 0, s) ** 2)
    return Statement((Phi1 * inside) @ Phi1.T, kept > lost, excess_loss=excess_loss)


@public
@of_finite_state
def tied_autoencoder(
    model: TwoLayer | SymmetricFactors, problem: LeastSquares, *, rtol: float | None = None
) -> Statement:
    r"""Whether a linear autoencoder whose layers start equal keeps them equal, and so learns principal components by tying.

    From U(0) = V(0) the two-layer flow keeps U = V if and only if `U U^T` commutes with Sigma_x, as `e^{-d} I` does: then
    `U' = q X^T X (I - U U^T) U`, every plateau is the projector onto the top principal components, and the flow is that of tied
    layers at half their speed. Hypotheses: Y = c X, U = V, and the commutator vanishes.

    **Args:** `model`, a `TwoLayer`, or a `SymmetricFactors`, which is tied for ever; `problem`; `rtol`, up to which differences
    relative to the weights count as zero, by default `800 sqrt(min(n, h))` times the machine epsilon.

    **Returns:** a `Statement` on the `commutator`, `||[Sigma_x, U U^T]||_F/(2 ||Sigma_x||_F ||U U^T||_F)`, and `difference`,
    `||U - V||_F/(||U||_F + ||V||_F)`.

    **Raises:** `ValueError` for another kind of model, or an autoencoder with n != m.

    **Notes:** at rank n commuting starts that are no multiple of I learn the components in an order of their own.

    **Source:** G19 section 3.1, (14), with the hypothesis that it needs.

    Example:

        >>> problem, U = ld.LeastSquares(np.diag([2.0, 1.0]), np.diag([2.0, 1.0])), np.array([[0.1, 0.1], [0.0, 0.1]])
        >>> bool(ld.theory.tied_autoencoder(ld.TwoLayer(0.1 * np.eye(2), 0.1 * np.eye(2)), problem).applies)
        True
        >>> float(ld.theory.tied_autoencoder(ld.TwoLayer(U, U), problem).commutator)
        0.1945
    """
    # Tied layers have no second one of their own.
    U, V = model.U, getattr(model, "V", model.U)
    if problem.X is None or problem.num_inputs != problem.num_outputs or U.shape != V.shape:
        raise ValueError(
            "An autoencoder has inputs X and targets Y = c X of the same size, and layers of the same shape: build the "
            "problem as `LeastSquares(X, X)`."
        )
    if rtol is None:
        rtol = 100 * round_off(U)
    s, seen = problem.singular_values**2, problem.to_data(U)
    # [Sigma_x, M] has the entries (s_i - s_j) M_ij on the range of X, and s_i times the rows that tie it to the rest.
    inside = (s[:, None] - s[None, :]) * (seen @ seen.T)
    outside = s[:, None] * (seen @ (U - problem.from_data(seen)).T)
    commutator = quotient(norm(inside, math.sqrt(2) * outside), 2 * norm(s) * norm(U.T @ U))
    difference = quotient(norm(U - V), norm(U) + norm(V))
    same = norm(problem.Y - problem.output_scale * problem.X) <= rtol * norm(problem.Y)
    applies = same & (difference <= rtol) & (commutator <= rtol)
    return Statement(commutator, applies, name="commutator", difference=difference)
