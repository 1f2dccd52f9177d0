r"""The largest eigenvalue of a symmetric operator on arrays and its eigenvector, by products alone."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, PyTree

from .._derivatives import last_derivative, unknown
from ._numerics import norm
from ._numerics import quotient as _quotient

_FIRST_ONLY = (
    "A largest eigenvalue that is found by iteration has no second derivative here: "
    "it would need those of the eigenvector."
)


@eqx.filter_jit
def largest_eigenvalue(
    given: PyTree, operator: Callable[[PyTree, Array], Array], shape: tuple[int, ...], rtol: Array, max_steps: int
) -> tuple[Float[Array, ""], Float[Array, ""], Int[Array, ""]]:
    """The largest eigenvalue of `x -> operator(given, x)`, the relative residual, and the steps taken.

    `operator` is a function of its arguments alone, symmetric and linear in x. Differentiable once in `given`, in both modes:
    `dlambda = v^T dT v` holds the eigenvector, to the error of which the value is of second order. The residual is round-off
    and what the iteration left: no derivative of it is known.
    """
    with jax.default_matmul_precision("highest"):
        return _found(given, operator=operator, shape=shape, rtol=jax.lax.stop_gradient(rtol), max_steps=max_steps)


@eqx.filter_custom_jvp
def _found(given, *, operator, shape, rtol, max_steps):
    v, residual, steps = largest_eigenvector(lambda x: operator(given, x), shape, rtol.dtype, rtol, max_steps)
    return jnp.sum(v * operator(given, v)), residual, steps


@_found.def_jvp
def _found_jvp(primals, tangents, *, operator, shape, rtol, max_steps):
    (given,), (change,) = primals, tangents
    given = jax.tree.map(lambda x: last_derivative(x, _FIRST_ONLY) if eqx.is_inexact_array(x) else x, given)
    v, residual, steps = largest_eigenvector(lambda x: operator(given, x), shape, rtol.dtype, rtol, max_steps)
    value, slope = eqx.filter_jvp(lambda given: jnp.sum(v * operator(given, v)), (given,), (change,))
    return (value, residual, steps), (slope, unknown(change, residual), None)


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
