"""The least losses that a width allows, and the stationary products: the target with components left out."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from .. import _checks
from .._finite import of_finite_state
from .._public import public
from ..problems import LeastSquares
from .regression import right_projector


@public
@of_finite_state
def least_excess_loss(
    problem: LeastSquares, h: Float[ArrayLike, ""] | Int[ArrayLike, ""] | int, *, tied: bool = False
) -> Float[Array, ""]:
    r"""The least L - L* of a network of width h: what is left of the target after its best h components.

    `(q/2) sum_{i > h} sigma_i(Ytil)^2`; for tied layers with X = I and the symmetric part of Y,
    `(q/2) (||(Y - Y^T)/2||^2 + sum of sigma_i^2 over all but the h largest positive eigenvalues)`.

    **Args:** `problem`, without a link; `h`, the width, which may be traced; `tied`, for `SymmetricFactors`.

    **Returns:** a number of at least 0; zero for two layers with h >= min(r, m).

    **Raises:** `ValueError` for a link, a width below 1, or tied layers on data other than X = I or a target that is not square.

    **Notes:** at every data: the loss is that of factorizing Ytil once the first layer is written as S U1.

    **Source:** Eckart and Young; T21 (6), (7).

    Example:

        >>> problem = ld.factorization(np.diag([2.0, 1.0]))
        >>> [float(ld.theory.least_excess_loss(problem, h)) for h in (1, 2)]
        [0.5, 0.0]
    """
    refuse_link(problem)
    if not _checks.is_traced(h) and not np.all(np.asarray(h) >= 1):
        raise ValueError(f"Argument `h` must be a width of at least 1, but is {h}.")
    if tied:
        symmetric = tied_target(problem)
        values = jnp.linalg.eigvalsh(symmetric)[::-1]
        held = (jnp.arange(values.shape[0]) < h) & (values > 0)
        rest = jnp.sum((problem.Y - symmetric) ** 2)
    else:
        values = jnp.linalg.svd(problem.Ytil, compute_uv=False)
        held, rest = jnp.arange(values.shape[0]) < h, 0
    return problem.scale / 2 * (rest + jnp.sum(jnp.where(held, 0, values) ** 2))


@public
def stationary_product(
    problem: LeastSquares, learned: Bool[ArrayLike, " c"], *, tied: bool = False
) -> Float[Array, "n m"]:
    r"""The stationary end-to-end matrix with chosen components of the target learned and the others at zero.

    `Theta = Phi1 S^{-1} sum_i learned_i sigma_i p_i q_i^T` with `Ytil = sum_i sigma_i p_i q_i^T`; for tied layers with X = I the
    same over the eigenvectors of the symmetric part of Y, where only positive eigenvalues can be learned.

    **Args:**

    - `problem`: without a link.
    - `learned`: shape (min(r, m),), or (n,) for tied layers: a flag a component, in descending order.
    - `tied`: for `SymmetricFactors`.

    **Returns:** Theta, shape (n, m). `init.balanced` makes weights with it; flags on negative eigenvalues count as off.

    **Raises:** `ValueError` for a link, another number of flags, or tied layers on data other than X = I.

    **Notes:** with all flags on it is Theta_hat (tied: the positive semidefinite part). Among as many components as the width
    allows, the largest ones are the minimum and every other choice belongs to strict saddles. Weights with this
    product are stationary if the missing components annihilate them, as they do balanced weights. Derivatives need gaps
    between components with the flag and those without (tied: between any two).

    **Source:** T21 (6), (7).

    Example:

        >>> problem = ld.factorization(np.diag([2.0, 1.0]))
        >>> ld.theory.stationary_product(problem, np.array([False, True])).tolist()
        [[0.0, 0.0], [0.0, 1.0]]
    """
    refuse_link(problem)
    learned = jnp.asarray(learned, bool)
    if tied:
        values, P = jnp.linalg.eigh(tied_target(problem))
        values, P, Q = jnp.maximum(values[::-1], 0), P[:, ::-1], P[:, ::-1].T
    else:
        values = jnp.linalg.svd(problem.Ytil, compute_uv=False)
    if learned.shape != values.shape:
        raise ValueError(
            f"Argument `learned` must have shape {values.shape}, a flag a component, but has shape {learned.shape}."
        )
    held = (P * jnp.where(learned, values, 0)) @ Q if tied else problem.Ytil @ right_projector(problem.Ytil, learned)
    return problem.from_data(held / problem.singular_values[:, None])


def refuse_link(problem: LeastSquares) -> None:
    """Refuses a problem whose least loss is not known."""
    if problem.link is not None:
        raise ValueError(
            "The stationary points of a problem with a link function have no closed form: leave out `link`."
        )


def tied_target(problem: LeastSquares) -> Array:
    """The symmetric part of Y, on which alone tied layers act."""
    if problem.link is not None or problem.X is not None or problem.num_inputs != problem.num_outputs:
        raise ValueError(
            "For tied layers this is known for matrix factorization of a square target only: use `factorization(Y)` with Y of "
            "shape (n, n)."
        )
    return (problem.Y + problem.Y.T) / 2
