"""What is left to learn beside a matrix that stays: the problem of a network that is added to it."""

import functools
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, ArrayLike, Float

from .. import _checks
from .._public import public
from .base import AbstractProblem
from .custom import CustomProblem
from .least_squares import LeastSquares


@public
def residual(problem: AbstractProblem, base: Float[ArrayLike, "n m"]) -> AbstractProblem:
    """The problem `Theta -> L(base + Theta)`: that of an adapter of low rank, of any width, reduced as every network is.

    Of least squares it is least squares with the targets `Y - c X base`, in the same coordinates; of any other loss it is one of
    all n inputs.

    **Args:** `problem`, without terms on the weights (put `Penalised` around what is returned); `base`, shape (n, m).

    **Raises:** `ValueError` for a matrix of another shape, entries that are not finite, or terms on the weights.

    **Notes:** `gradient_flow(init.gaussian_core(left, 1e9, std=(1e-5, 0), key=key), left, ts)` with `left = residual(problem,
    W0)` is `LoRA` of width 1e9; the loss on other data is `observables.on(residual(test, W0), "loss")`.

    Example:

        >>> W0 = jnp.diag(jnp.array([2.0, 0.0]))
        >>> problem = ld.factorization(jnp.diag(jnp.array([2.0, 1.0])))
        >>> left = ld.residual(problem, W0)
        >>> print(left.loss(jnp.zeros((2, 2))), problem.loss(W0))
        0.5 0.5
        >>> print(left.theta_hat)
        [[0. 0.]
         [0. 1.]]
    """
    problem.refuse_terms("residual")
    base = _checks.as_matrix(base, "base", "(n, m)")
    expected = (problem.num_inputs, problem.num_outputs)
    if base.shape != expected:
        raise ValueError(f"Argument `base` must have shape {expected} for this problem, but has shape {base.shape}.")
    _checks.check_finite(base, "base")
    return _residual(problem, base.astype(problem.dtype))


@functools.singledispatch
def _residual(problem: Any, base: Float[Array, "n m"]) -> AbstractProblem:
    moved = jax.tree_util.Partial(_moved_loss, problem, base)
    return CustomProblem(moved, problem.num_inputs, problem.num_outputs)


@_residual.register
def _(problem: LeastSquares, base: Float[Array, "n m"]) -> AbstractProblem:
    if problem.link is not None:
        return _residual.dispatch(object)(problem, base)
    there = base if problem.X is None else problem.X @ base
    # What no Theta reaches of the targets is not reached by the base either.
    return eqx.tree_at(
        lambda tree: (tree.Y, tree.Ytil),
        problem,
        (
            problem.Y - problem.output_scale * there,
            problem.Ytil - problem.singular_values[:, None] * problem.to_data(base),
        ),
    )


def _moved_loss(problem: AbstractProblem, base: Array, Theta: Array) -> Array:
    return problem.loss(base + Theta)
