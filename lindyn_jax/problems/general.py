"""Any loss of one output and its target."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, ArrayLike, Float

from .._public import public
from ._functions import as_tree, check_number
from .output import LossScale
from .samples import SampleProblem


class GeneralLoss(SampleProblem):
    """Any differentiable loss of one output and its target, summed over the samples.

    **Args:** `X`, `Y` and the options as for `OutputProblem`; `fn`, a function (output (m,), target (m,)) -> number that JAX can
    differentiate; `weights`, w, one number of at least 0 for each sample, by default 1.

    **Raises:** `ValueError` as `OutputProblem` does, or for a function that makes something else of such vectors.

    Example:

        >>> X, Y = jnp.array([[1.0, 0.0], [1.0, 1.0]]), jnp.array([[3.0], [0.5]])
        >>> problem = ld.GeneralLoss(X, Y, lambda output, target: optax.huber_loss(output, target).sum())
        >>> print(problem.loss(jnp.zeros((2, 1))), ld.Huber(X, Y, 1.0).loss(jnp.zeros((2, 1))))
        2.625 2.625
    """

    fn: Any

    @public
    def __init__(
        self,
        X: Float[ArrayLike, "N n"] | None,
        Y: Float[ArrayLike, "N m"],
        fn: Callable,
        *,
        scale: LossScale | Float[ArrayLike, ""] | int = 1.0,
        output_scale: Float[ArrayLike, ""] | int = 1.0,
        weights: Float[ArrayLike, " N"] | None = None,
        rank: int | None = None,
        rank_rtol: float | None = None,
    ):
        self.fn = as_tree(fn)
        self._read_samples(X, Y, weights, scale, output_scale, rank, rank_rtol)
        given = jax.ShapeDtypeStruct((self.num_outputs,), self.dtype)
        check_number(self.fn, "fn", given, 2, "two vectors")

    def sample_losses(self, outputs: Float[Array, "N m"], Y: Float[Array, "N m"]) -> Float[Array, " N"]:
        return jax.vmap(self.fn)(outputs, Y)

    def sample_gradients(self, outputs: Float[Array, "N m"], Y: Float[Array, "N m"]) -> Float[Array, "N m"]:
        return jax.vmap(jax.grad(self.fn))(outputs, Y)
