r"""The leading eigenvector of a symmetric operator on arrays, by products alone."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from ._numerics import norm
from ._numerics import quotient as _quotient


def largest_eigenvector(
    operator: Callable[[Array], Array], shape: tuple[int, ...], dtype, rtol: Float[ArrayLike, ""], max_steps: int
) -> tuple[Array, Float[Array, ""], Int[Array, ""]]:
    """A unit array on which a symmetric operator has its largest eigenvalue, the relative residual, and the steps taken.

    Each step maximises the Rayleigh quotient over the iterate, its residual and the previous direction.
    """
    tiny = jnp.finfo(dtype).tiny

    def unit(x):
        return _quotient(x, norm(x))

    def quotient(x, Tx):
        value = jnp.sum(x * Tx)
        rest = Tx - value * x
        # An operator that is zero has converged.
        return rest, _quotient(norm(rest), jnp.maximum(jnp.abs(value), tiny))

    def beside(extra, basis):
        """What an array has outside of an orthonormal list, with unit length; zero if that is almost nothing."""
        extra = unit(extra)
        for _ in range(2):  # the second pass removes the round-off of the first
            for y in basis:
                extra = extra - jnp.sum(y * extra) * y
            extra = jnp.where(jnp.sum(extra**2) > jnp.finfo(dtype).eps, unit(extra), 0)
        return extra

    def body(carry):
        x, Tx, direction, _, steps = carry
        rest, _ = quotient(x, Tx)
        basis = [x]
        for extra in (rest, direction):
            basis.append(beside(extra, basis))
        images = [Tx, *(operator(y) for y in basis[1:])]
        small = jnp.stack([jnp.stack([jnp.sum(a * b) for b in images]) for a in basis])
        # A direction that was dropped must not win against negative eigenvalues.
        present = jnp.stack([jnp.sum(y * y) for y in basis]) > 0.5
        floor = -jnp.sum(jnp.abs(small)) - 1
        small = (small + small.T) / 2 + jnp.diag(jnp.where(present, 0, floor))
        a, b, c = jnp.linalg.eigh(small)[1][:, -1]
        direction = b * basis[1] + c * basis[2]
        length = jnp.sqrt(jnp.sum((a * x + direction) ** 2))
        x, Tx = (a * x + direction) / length, (a * Tx + b * images[1] + c * images[2]) / length
        return x, Tx, direction, quotient(x, Tx)[1], steps + 2

    x = unit(jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype))
    Tx = operator(x)
    start = (x, Tx, jnp.zeros_like(x), quotient(x, Tx)[1], jnp.ones((), jnp.int32))
    x, _, _, _, steps = jax.lax.while_loop(lambda carry: (carry[3] > rtol) & (carry[4] < max_steps), body, start)
    # From the operator itself: the images carried along gather round-off.
    return x, quotient(x, operator(x))[1], steps
