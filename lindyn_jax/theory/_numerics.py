"""Norms and singular values whose derivatives stay finite where the textbook ones are 0/0."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..exact._common import hypot

__all__ = ["hypot", "norm", "singular_value"]


def norm(A: Float[Array, "..."]) -> Float[Array, ""]:
    """Frobenius norm, with derivative zero at A = 0."""
    square = jnp.sum(A**2)
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1)), 0)


def singular_value(values: Float[Array, " k"], index: int) -> Float[Array, ""]:
    """sigma_index, counted from 1, of descending singular values; those that a matrix does not have are zero."""
    return values[index - 1] if index <= values.shape[0] else jnp.zeros((), values.dtype)
