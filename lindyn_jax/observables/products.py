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
    """Singular values of Theta, descending; of Phi1^T Theta for a reduced model without its frozen part."""
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
    """Sum of the singular values of Theta."""
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
    """
    P, _, QT = _data_modes(problem.plain)
    return jnp.einsum("rp,rm,pm->p", P, reduced_product(model, problem), QT)


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
    """
    return quotient(norm(mode_strengths(model, problem)), norm(reduced_product(model, problem))) ** 2


def _data_modes(problem: Any) -> tuple[Float[Array, "r p"], Float[Array, " p"], Float[Array, "p m"]]:
    return thin_svd(problem.singular_values[:, None] * problem.Ytil)
