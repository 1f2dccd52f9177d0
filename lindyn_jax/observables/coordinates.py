"""Models in the coordinates of the data, where they are reduced and where they are not."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._public import public
from ..models import AbstractModel
from ..problems import AbstractProblem


@public
def reduced_product(model: AbstractModel, problem: AbstractProblem) -> Float[Array, "r m"]:
    """Phi1^T Theta, the part of the end-to-end matrix that the data see.

    **Returns:** shape (r, m); its rows have the signs of the singular vectors of X. For matrix factorization it is Theta itself.

    Example:

        >>> problem = ld.LeastSquares(jnp.array([[1.0, 2.0]]), jnp.array([[2.0]]))
        >>> seen = ld.observables.reduced_product(ld.LinearModel(jnp.array([[1.0], [1.0]])), problem)
        >>> seen.shape, float(jnp.abs(seen[0, 0])), 3 / 5**0.5
        ((1, 1), 1.342, 1.342)
    """
    return model.reduced_product(problem)


def two_layers(model: AbstractModel, problem: AbstractProblem) -> bool:
    """networks of two layers"""
    layers = model.moving_layers(problem)
    return layers is not None and len(layers) == 2


def chains(model: AbstractModel, problem: AbstractProblem) -> bool:
    """networks with hidden layers"""
    layers = model.moving_layers(problem)
    return layers is not None and len(layers) > 1


def gradient_flows(model: AbstractModel, problem: AbstractProblem) -> bool:
    """networks whose velocity is minus the gradient of the loss"""
    return model.is_gradient_flow


def of_samples(model: AbstractModel, problem: AbstractProblem) -> bool:
    """problems that are sums over samples"""
    return problem.num_samples is not None


def kind_of_chain(model: AbstractModel, problem: AbstractProblem, name: str) -> tuple[Array, ...]:
    """The moving layers of a network with hidden layers, or a refusal."""
    layers = model.moving_layers(problem)
    if layers is None or len(layers) < 2:
        raise ValueError(
            f"`{name}` is defined for networks with hidden layers, but the model is a {type(model).__name__}."
        )
    return layers


def moving(model, problem: AbstractProblem) -> tuple[Float[Array, "r k"], Float[Array, "m k"]]:
    """U1 = Phi1^T U and V of a network of two layers."""
    if not two_layers(model, problem):
        raise ValueError(f"The imbalance is defined for two-layer models, but the model is a {type(model).__name__}.")
    U1, Vt = model.moving_layers(problem)
    return U1, Vt.T


def zero(A: Array, dtype) -> Array:
    """0, or NaN if some entry of A is NaN."""
    return jnp.where(jnp.any(jnp.isnan(A)), jnp.nan, jnp.zeros((), dtype))
