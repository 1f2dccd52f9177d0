"""Derivatives that are written by hand: of what has two ways to be computed, and of what has none.

A rule of `jax.custom_jvp` is transposed for reverse mode. Loops that end by themselves cannot be, but have a reverse mode of
their own; and a derivative that is not known must be NaN where it is asked for, without spoiling those beside it.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ._norms import total


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def last_derivative(x: Array, message: str) -> Array:
    """The identity, which refuses to be differentiated: a further derivative would be incomplete, and must not be silent."""
    return x


@last_derivative.defjvp
def _last_derivative_jvp(message, primals, tangents):
    raise NotImplementedError(message)


def two_way(forward: Callable, backward: Callable, tangent: PyTree, like: PyTree) -> PyTree:
    """`forward(tangent)`, a linear map to a tree of arrays like `like`, with `backward` as its transpose.

    The two are the triangular system `y - forward(t) = 0`, `t = tangent`: `custom_linear_solve` is what JAX has for linear maps
    that are transposed by hand, and it never looks at the matrix unless a second derivative is taken.
    """
    # A transposed system wants each of its right sides to depend on the tangent, and be it as zero does.
    zero = total(jnp.sum(0 * leaf) for leaf in jax.tree.leaves(tangent))
    tangent = jax.tree.map(lambda leaf: leaf + zero.astype(leaf.dtype), tangent)
    nothing = jax.tree.map(lambda leaf: jnp.zeros_like(leaf) + zero.astype(leaf.dtype), like)
    add = lambda a, b: jax.tree.map(jnp.add, a, b)  # noqa: E731

    def solve(_, right):
        t, y = right
        return t, add(y, forward(t))

    def transposed(_, right):
        t, y = right
        return add(t, backward(y)), y

    return jax.lax.custom_linear_solve(lambda pair: pair, (tangent, nothing), solve, transposed)[1]


def unknown(tangent: PyTree, like: PyTree) -> PyTree:
    """A derivative that is not known: NaN wherever it is asked for, and 0 along a tangent, or for a cotangent, of zero."""

    def spread(asked, shape):
        moved = jnp.any(jnp.stack([jnp.any(leaf != 0) for leaf in jax.tree.leaves(asked)]))
        return jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.where(moved, jnp.nan, 0)), shape)

    return two_way(lambda t: spread(t, like), lambda y: spread(y, tangent), tangent, like)
