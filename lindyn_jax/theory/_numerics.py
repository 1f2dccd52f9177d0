"""Norms and singular values whose derivatives stay finite where the textbook ones are 0/0."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._norms import norm, quotient, root
from ..exact._common import hypot

__all__ = ["hypot", "norm", "quotient", "root", "singular_value"]


def singular_value(values: Float[Array, " k"], index: int) -> Float[Array, ""]:
    """sigma_index, counted from 1, of descending singular values; those that a matrix does not have are zero."""
    return values[index - 1] if index <= values.shape[0] else jnp.zeros((), values.dtype)
