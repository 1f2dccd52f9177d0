"""Least squares sample by sample, in the coordinates of all samples: what batches of it are."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .output import OutputProblem
from .samples import SampleProblem


class Squares(SampleProblem):
    """`L(Theta) = (q/2) sum_i ||y_i - link(c Theta^T x_i)||^2`: the loss of a `LeastSquares`, with its samples kept apart.

    A `LeastSquares` knows its data by `W^T Y` and the singular values, which are those of all samples together.

    **Args:** `problem`, the least squares, and its `link`.
    """

    link: Callable[[Array], Array] | None = eqx.field(static=True)

    def __init__(self, problem: OutputProblem, link: Callable[[Array], Array] | None):
        X, Phi1 = problem.X, problem.Phi1
        self.X, self.Y, self.scale, self.output_scale = X, problem.Y, problem.scale, problem.output_scale
        self.Phi1, self.inputs_mark = Phi1, problem.inputs_mark
        self.data_singular_values = problem.data_singular_values
        self.design = None if X is None or Phi1 is None else jnp.matmul(X, Phi1, precision="highest")
        self.weights, self.link = None, link

    def sample_losses(self, outputs: Float[Array, "N m"], Y: Float[Array, "N m"]) -> Float[Array, " N"]:
        return jnp.sum((Y - self.response(outputs)) ** 2, axis=1) / 2

    def sample_gradients(self, outputs: Float[Array, "N m"], Y: Float[Array, "N m"]) -> Float[Array, "N m"]:
        if self.link is None:
            return outputs - Y
        value, pullback = jax.vjp(self.link, outputs)
        return pullback(value - Y)[0]

    def response(self, outputs: Float[Array, "N m"]) -> Float[Array, "N m"]:
        return outputs if self.link is None else self.link(outputs)
