"""Regression that outliers do not carry away."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .. import _checks
from .._public import public
from .output import LossScale
from .samples import SampleProblem


class Huber(SampleProblem):
    r"""Huber's loss of the errors `e = c X Theta - Y`: `e^2/2` up to delta, `delta (|e| - delta/2)` beyond.

    `L = q sum_i w_i sum_j huber(e_ij)`.

    **Args:**

    - `X`: inputs, shape (N, n), or `None` for the identity; `Y`: targets, shape (N, m).
    - `delta`: the error at which squares end, a positive number that may be traced.
    - `weights`: w, one number of at least 0 for each sample, by default 1.
    - `scale`, `output_scale`, `rank`, `rank_rtol`: as for `OutputProblem`; `scale="mean"` divides by the sum of the weights.

    **Raises:** `ValueError` for a delta that is not positive, and as `OutputProblem` does.

    **Notes:** the second derivative jumps where errors pass delta, and so do explicit solvers' error estimates.

    **Source:** Huber (1964).

    Example:

        >>> X, Y = jnp.array([[1.0, 0.0], [1.0, 1.0]]), jnp.array([[3.0], [0.5]])
        >>> problem = ld.Huber(X, Y, 1.0)
        >>> print(problem.loss(jnp.zeros((2, 1))))  # 1 (3 - 1/2) + 0.5^2/2
        2.625
        >>> print(problem.loss_gradient(jnp.zeros((2, 1))).T)
        [[-1.5 -0.5]]
    """

    delta: Float[Array, ""]

    @public
    def __init__(
        self,
        X: Float[ArrayLike, "N n"] | None,
        Y: Float[ArrayLike, "N m"],
        delta: Float[ArrayLike, ""] | int,
        *,
        scale: LossScale | Float[ArrayLike, ""] | int = 1.0,
        output_scale: Float[ArrayLike, ""] | int = 1.0,
        weights: Float[ArrayLike, " N"] | None = None,
        rank: int | None = None,
        rank_rtol: float | None = None,
    ):
        _checks.check_positive(delta, "delta")
        self._read_samples(X, Y, weights, scale, output_scale, rank, rank_rtol)
        self.delta = jnp.asarray(delta, self.dtype)

    def sample_losses(self, outputs: Float[Array, "N m"], Y: Float[Array, "N m"]) -> Float[Array, " N"]:
        size = jnp.abs(outputs - Y)
        inside = jnp.minimum(size, self.delta)
        return jnp.sum(inside**2 / 2 + self.delta * (size - inside), axis=1)

    def sample_gradients(self, outputs: Float[Array, "N m"], Y: Float[Array, "N m"]) -> Float[Array, "N m"]:
        return jnp.clip(outputs - Y, -self.delta, self.delta)

    def outliers(self, Theta: Float[Array, "n m"]) -> Float[Array, ""]:
        """The share of errors beyond delta, by the weights of their samples."""
        return self.average(jnp.mean(jnp.abs(self.outputs(Theta) - self.Y) > self.delta, axis=1))
