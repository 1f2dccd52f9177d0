"""The end-to-end matrix: what the data see of it, its singular values, and its components along the modes of the data."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._norms import norm, quotient
from .._public import public
from .._svd import thin_svd
from ..models import AbstractModel
from ..problems import AbstractProblem, LeastSquares
from .coordinates import reduced_product
from .registry import observable


@observable(
    label="singular values of Theta, descending", symbol=r"$\sigma_i(\Theta)$", panel="singular values", reduced=True
)
@public
def singular_values(model: AbstractModel, problem: AbstractProblem) -> Float[Array, " k"]:
    """Singular values of Theta, descending; of Phi1^T Theta for a reduced model without its frozen part.

    **Returns:** shape (k,), k = min(n, m), or min(r, m) for a reduced model without its frozen part.

    Example:

        >>> problem, model = ld.factorization(jnp.eye(2)), ld.LinearModel(jnp.array([[2.0, 1.0], [1.0, 2.0]]))
        >>> print(ld.observables.singular_values(model, problem).round(4))
        [3. 1.]
    """
    known = model.is_reduced and getattr(model, "frozen", None) is not None
    outside = model.frozen_product(problem) if known else None
    if outside is not None:
        stacked = jnp.concatenate([model.product(), outside])
        most = min(problem.num_inputs, problem.num_outputs)
        return jnp.linalg.svd(stacked, compute_uv=False)[:most]
    return jnp.linalg.svd(model.product(), compute_uv=False)


@observable(
    label="sum of the singular values of Theta",
    symbol=r"$\|\Theta\|_*$",
    panel="nuclear norm and effective rank",
    reduced=True,
)
@public
def nuclear_norm(model: AbstractModel, problem: AbstractProblem) -> Float[Array, ""]:
    """Sum of the singular values of Theta.

    Example:

        >>> problem = ld.factorization(jnp.eye(2))
        >>> float(ld.observables.nuclear_norm(ld.LinearModel(jnp.diag(jnp.array([2.0, -1.0]))), problem))
        3.0
    """
    return jnp.sum(singular_values(model, problem))


@observable(
    label="exponential of the entropy of Theta's singular values",
    symbol="effective rank",
    panel="nuclear norm and effective rank",
    reduced=True,
)
@public
def effective_rank(model: AbstractModel, problem: AbstractProblem) -> Float[Array, ""]:
    """`exp(-sum p_i log p_i)` with `p_i = sigma_i/sum sigma_j`: k for k equal singular values of Theta; 0 for Theta = 0.

    **Source:** Roy and Vetterli (2007).

    Example:

        >>> problem = ld.factorization(jnp.eye(2))
        >>> float(ld.observables.effective_rank(ld.LinearModel(jnp.eye(2)), problem))
        2.0
        >>> float(ld.observables.effective_rank(ld.LinearModel(jnp.diag(jnp.array([1.0, 0.1]))), problem))
        1.356
    """
    sigma = singular_values(model, problem)
    total = jnp.sum(sigma)
    p = quotient(sigma, total)
    absent = p == 0
    entropy = -jnp.sum(jnp.where(absent, 0, p * jnp.log(jnp.where(absent, 1, p))))
    return jnp.where(total == 0, 0, jnp.exp(entropy))


@observable(
    label="squared Frobenius over squared spectral norm of Theta",
    symbol="stable rank",
    panel="nuclear norm and effective rank",
    reduced=True,
)
@public
def stable_rank(model: AbstractModel, problem: AbstractProblem) -> Float[Array, ""]:
    """`||Theta||_F^2/sigma_1^2`: between 1 and the rank, k for k equal singular values; 0 for Theta = 0.

    **Source:** Rudelson and Vershynin (2007).

    Example:

        >>> problem = ld.factorization(jnp.eye(2))
        >>> float(ld.observables.stable_rank(ld.LinearModel(jnp.diag(jnp.array([2.0, 1.0]))), problem))
        1.25
    """
    sigma = singular_values(model, problem)
    return jnp.sum(quotient(sigma, sigma[0]) ** 2)


@observable(
    label="phi_i^T Theta psi_i along the modes of X^T Y",
    symbol=r"$\phi_i^T \Theta \psi_i$",
    panel="modes of $X^T Y$",
    kinds=LeastSquares,
    penalised=True,
    source="G19 section 3.1",
    reduced=True,
)
@public
def mode_strengths(model: AbstractModel, problem: AbstractProblem) -> Float[Array, " p"]:
    """Components of Theta along the modes of the data, `phi_i^T Theta psi_i`, with `X^T Y = Phi diag(sigma) Psi^T`.

    p = min(r, m) of them, in descending order of sigma; from an aligned start the w_i of G19.

    **Returns:** shape (p,).

    **Raises:** `ValueError` for a problem that is not least squares.

    **Source:** G19 section 3.1.

    Example:

        >>> problem = ld.factorization(jnp.array([[2.0, 1.0], [1.0, 2.0]]))
        >>> print(ld.observables.mode_strengths(ld.LinearModel(0.5 * problem.Y), problem).round(4))
        [1.5 0.5]
    """
    return _along_modes(model, problem)


@observable(
    label="share of Theta along the modes of X^T Y",
    symbol="alignment",
    panel="share along the modes of $X^T Y$",
    kinds=LeastSquares,
    penalised=True,
    reduced=True,
)
@public
def alignment(model: AbstractModel, problem: AbstractProblem) -> Float[Array, ""]:
    """Share of Phi1^T Theta that lies along the modes of the data, `sum_i (phi_i^T Theta psi_i)^2/||Phi1^T Theta||_F^2`.

    1 where the modes have decoupled, 1/max(r, m) on average for a random Theta; 0 for Theta = 0.

    **Raises:** `ValueError` for a problem that is not least squares.

    **Source:** this package's own; modes decouple as in G19 section 3.1.

    Example:

        >>> problem = ld.factorization(jnp.diag(jnp.array([2.0, 1.0])))
        >>> float(ld.observables.alignment(ld.LinearModel(jnp.eye(2)), problem))
        1.0
        >>> float(ld.observables.alignment(ld.LinearModel(jnp.ones((2, 2))), problem))
        0.5
    """
    return quotient(norm(_along_modes(model, problem)), norm(reduced_product(model, problem))) ** 2


def _along_modes(model: AbstractModel, problem: AbstractProblem) -> Float[Array, " p"]:
    data: Any = problem.plain
    P, _, QT = thin_svd(data.singular_values[:, None] * data.Ytil)
    return jnp.einsum("rp,rm,pm->p", P, reduced_product(model, problem), QT)
