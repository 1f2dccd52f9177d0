"""Regression of counts."""

import jax.numpy as jnp
from jax.scipy.special import xlogy
from jaxtyping import Array, ArrayLike, Float, Real

from .._public import public
from .base import AbstractProblem, Draw
from .output import LossScale
from .samples import SampleProblem, as_column, refuse_entries


class Poisson(SampleProblem):
    r"""Poisson regression, `L = q sum_i w_i sum_j (e^{o_ij} - y_ij o_ij)` with logarithms of rates `o = c X Theta`.

    That is minus the logarithm of the likelihood without `log y!`, which does not depend on Theta.

    **Args:**

    - `X`: inputs, shape (N, n), or `None` for the identity.
    - `counts`: y, numbers of at least 0, shape (N, m), or (N,) for one output.
    - `weights`: w, one number of at least 0 for each sample, by default 1.
    - `scale`, `output_scale`, `rank`, `rank_rtol`: as for `OutputProblem`; `scale="mean"` divides by the sum of the weights.

    **Raises:** `ValueError` for negative counts, and as `OutputProblem` does.

    **Notes:** `predict` gives rates, `e^o`, which overflow where o passes 709 (88 in float32): the loss is infinite there.

    Example:

        >>> X, counts = jnp.eye(2), jnp.array([1.0, 4.0])
        >>> problem = ld.Poisson(X, counts)
        >>> Theta = jnp.log(counts)[:, None]
        >>> print(problem.predict(Theta).T, problem.loss_gradient(jnp.zeros((2, 1))).T)
        [[1. 4.]] [[ 0. -3.]]
        >>> print(problem.loss(Theta))  # 5 - 4 log 4
        -0.5452
    """

    @public
    def __init__(
        self,
        X: Float[ArrayLike, "N n"] | None,
        counts: Real[ArrayLike, " N"] | Real[ArrayLike, "N m"],
        *,
        scale: LossScale | Float[ArrayLike, ""] | int = 1.0,
        output_scale: Float[ArrayLike, ""] | int = 1.0,
        weights: Float[ArrayLike, " N"] | None = None,
        rank: int | None = None,
        rank_rtol: float | None = None,
    ):
        Y = as_column(counts, "counts")
        refuse_entries(lambda y: y < 0, Y, "counts", "made of numbers of at least 0")
        self._read_samples(X, Y, weights, scale, output_scale, rank, rank_rtol, name="counts", whole=True)

    def sample_losses(self, outputs: Float[Array, "N m"], Y: Float[Array, "N m"]) -> Float[Array, " N"]:
        return jnp.sum(jnp.exp(outputs) - Y * outputs, axis=1)

    def sample_gradients(self, outputs: Float[Array, "N m"], Y: Float[Array, "N m"]) -> Float[Array, "N m"]:
        return jnp.exp(outputs) - Y

    def response(self, outputs: Float[Array, "N m"]) -> Float[Array, "N m"]:
        """The rates e^o."""
        return jnp.exp(outputs)

    def noisy(self, draw: Draw) -> AbstractProblem:  # pyright: ignore[reportIncompatibleMethodOverride]
        return AbstractProblem.noisy(self, draw)

    def deviance(self, Theta: Float[Array, "n m"]) -> Float[Array, ""]:
        """`2 sum_j (y log(y/e^o) - y + e^o)` of a sample in the mean: 0 where all counts are predicted."""
        outputs = self.outputs(Theta)
        each = xlogy(self.Y, self.Y) - self.Y * outputs - self.Y + jnp.exp(outputs)
        return 2 * self.average(jnp.sum(each, axis=1))
