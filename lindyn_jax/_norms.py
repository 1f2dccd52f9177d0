"""Norms, roots and quotients that are 0 at 0 and nowhere else: NaN stays NaN, and small and large numbers keep their digits.

Guards ask whether a number **is** zero. One that asks whether it is positive takes NaN for zero, and a norm of zero is the
perfect verdict: at rest, balanced, solved.
"""

import functools
import math
import operator
from collections.abc import Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def norm(*arrays: Float[Array, "..."]) -> Float[Array, ""]:
    """Frobenius norm of all entries together, with derivative zero at zero; squares neither overflow nor underflow."""
    return _norm(arrays)


@jax.jit
def _norm(arrays: tuple[Array, ...]) -> Array:
    size = jax.lax.stop_gradient(jnp.max(jnp.stack([jnp.max(jnp.abs(A), initial=0) for A in arrays])))
    usual = (size > 0) & (size < jnp.inf)
    scale = jnp.where(usual, size, 1)
    square = sum(jnp.sum((A / scale) ** 2) for A in arrays)
    # A largest entry of 0, infinity or NaN is the norm itself.
    return jnp.where(usual, scale * jnp.sqrt(jnp.where(usual, square, 1)), size)


def root(square: Float[Array, "..."]) -> Float[Array, "..."]:
    """Square root of what is at least 0 up to round-off, with derivative zero at zero."""
    absent = square <= 0
    return jnp.where(absent, 0, jnp.sqrt(jnp.where(absent, 1, square)))


def quotient(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    """a / b, and 0 where b is 0."""
    absent = b == 0
    return jnp.where(absent, 0, a / jnp.where(absent, 1, b))


def total(terms: Iterable[Array]) -> Array:
    """The sum of one array or more, which is an array."""
    return functools.reduce(operator.add, terms)


def all_finite(tree: Any) -> Bool[Array, ""]:
    """Whether every floating-point number in a tree is finite."""
    leaves = jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))
    return _are_finite(leaves) if leaves else jnp.asarray(True)


@jax.jit
def _are_finite(leaves: list[Array]) -> Bool[Array, ""]:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def least_divisor(dtype: jnp.dtype) -> float:
    """The number down to which `1/x` and its derivative `1/x^2` do not overflow."""
    return math.sqrt(float(jnp.finfo(dtype).tiny))


@jax.custom_jvp
def ratio(a: Array, b: Array) -> Array:
    """`a / b`, whose derivative never squares b: `1/b^2` overflows at b = 1e-160, `da/b` does not."""
    return a / b


@ratio.defjvp
def _ratio_jvp(primals, tangents):
    (a, b), (da, db) = primals, tangents
    value = ratio(a, b)
    return value, ratio(da - value * db, b)


@jax.custom_jvp
def hypot(a: Array, b: Array) -> Array:
    """`sqrt(a^2 + b^2)` without overflow of the squares; every derivative is zero at a = b = 0."""
    size = jnp.maximum(jnp.abs(a), jnp.abs(b))
    usual = (size > 0) & (size < jnp.inf)
    scale = jnp.where(usual, size, 1)
    # 0, infinity and NaN are what the larger of the two is.
    return jnp.where(usual, scale * jnp.sqrt((a / scale) ** 2 + (b / scale) ** 2), size)


@hypot.defjvp
def _hypot_jvp(primals, tangents):
    h = hypot(*primals)
    # The direction's own derivative is of order 1/h: where that would overflow, the direction is held.
    moving, positive = h > least_divisor(h.dtype), h > 0
    divisor = jnp.where(moving, h, 1)
    held = jax.lax.stop_gradient(jnp.where(positive, h, 1))
    directions = (jnp.where(moving, x / divisor, jax.lax.stop_gradient(x) / held) for x in primals)
    return h, total(direction * dx for direction, dx in zip(directions, tangents, strict=True))
