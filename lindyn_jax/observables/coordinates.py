"""Models in the coordinates of the data, where they are reduced and where they are not."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._public import public
from ..models import AbstractModel, ReducedDeepLinear, ReducedTwoLayer, TwoLayer
from ..problem import LeastSquares

REDUCED = (ReducedTwoLayer, ReducedDeepLinear)


@public
def reduced_product(model: AbstractModel, problem: LeastSquares) -> Float[Array, "r m"]:
    """Phi1^T Theta, the part of the end-to-end matrix that the data see."""
    return model.product() if isinstance(model, REDUCED) else problem.to_data(model.product())


def moving(model, problem: LeastSquares) -> tuple[Float[Array, "r k"], Float[Array, "m k"]]:
    if isinstance(model, ReducedTwoLayer):
        return model.U1, model.V
    if isinstance(model, TwoLayer):
        return problem.to_data(model.U), model.V
    raise ValueError(f"The imbalance is defined for two-layer models, but the model is a {type(model).__name__}.")


def has_frozen(model: ReducedTwoLayer | ReducedDeepLinear, problem: LeastSquares) -> bool:
    return model.frozen is not None or problem.num_frozen > 0


def zero(A: Array, dtype) -> Array:
    """0, or NaN if some entry of A is NaN."""
    return jnp.where(jnp.any(jnp.isnan(A)), jnp.nan, jnp.zeros((), dtype))
