"""Norms and singular values whose derivatives stay finite where the textbook ones are 0/0."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def norm(A: Float[Array, "..."]) -> Float[Array, ""]:
    """Frobenius norm, with derivative zero at A = 0."""
    square = jnp.sum(A**2)
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1)), 0)


def hypot(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    """Square root of a^2 + b^2 for a, b >= 0: no overflow of the squares, and derivative zero at a = b = 0."""
    larger = jnp.maximum(a, b)
    positive = larger > 0
    safe = jnp.where(positive, larger, 1)
    # The ones under the root keep it away from zero in the branch that is thrown away.
    root = jnp.sqrt(jnp.where(positive, (a / safe) ** 2 + (b / safe) ** 2, 1))
    return jnp.where(positive, safe * root, 0)


def singular_value(values: Float[Array, " k"], index: int) -> Float[Array, ""]:
    """sigma_index, counted from 1, of descending singular values; those that a matrix does not have are zero."""
    return values[index - 1] if index <= values.shape[0] else jnp.zeros((), values.dtype)
