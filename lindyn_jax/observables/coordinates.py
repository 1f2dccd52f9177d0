"""Models in the coordinates of the data, where they are reduced and where they are not."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._public import public
from ..models import AbstractModel, DeepLinear, ReducedDeepLinear, ReducedTwoLayer, TwoLayer
from ..problems import AbstractProblem

REDUCED = (ReducedTwoLayer, ReducedDeepLinear)


@public
def reduced_product(model: AbstractModel, problem: AbstractProblem) -> Float[Array, "r m"]:
    """Phi1^T Theta, the part of the end-to-end matrix that the data see."""
    return model.reduced_product(problem)


def two_layers(model: AbstractModel, problem: AbstractProblem) -> bool:
    """networks of two layers"""
    layers = model.moving_layers(problem)
    return layers is not None and len(layers) == 2


def moving(model, problem: AbstractProblem) -> tuple[Float[Array, "r k"], Float[Array, "m k"]]:
    """U1 = Phi1^T U and V of a network of two layers."""
    if not two_layers(model, problem):
        raise ValueError(f"The imbalance is defined for two-layer models, but the model is a {type(model).__name__}.")
    U1, Vt = model.moving_layers(problem)
    return U1, Vt.T


def as_network(model: AbstractModel, problem: AbstractProblem) -> tuple[AbstractModel, AbstractProblem]:
    """A reduced network as what it is, an ordinary one on the problem in the data's coordinates; any other as it is."""
    if not isinstance(model, REDUCED):
        return model, problem
    layers = model.moving_layers(problem)
    network = TwoLayer(layers[0], layers[1].T) if isinstance(model, ReducedTwoLayer) else DeepLinear(layers)
    return network, problem.restrict()[0]


def has_frozen(model: ReducedTwoLayer | ReducedDeepLinear, problem: AbstractProblem) -> bool:
    return model.frozen is not None or problem.num_frozen > 0


def zero(A: Array, dtype) -> Array:
    """0, or NaN if some entry of A is NaN."""
    return jnp.where(jnp.any(jnp.isnan(A)), jnp.nan, jnp.zeros((), dtype))
