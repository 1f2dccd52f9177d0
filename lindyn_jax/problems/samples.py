"""Losses that are a sum over samples, each with a weight of its own."""

from abc import abstractmethod
from typing import TypeVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .. import _checks
from .base import take, times_weights
from .output import OutputProblem

Problem = TypeVar("Problem", bound="SampleProblem")


class SampleProblem(OutputProblem):
    """`L(Theta) = q sum_i w_i l(c x_i^T Theta, y_i)`: with the loss of a sample, its gradient is written out.

    A weight of zero is a sample left out. The scales `"mean"` and `"averaged"` divide by the sum of the weights.
    """

    weights: Float[Array, " N"] | None

    def _read_samples(
        self, X, Y, weights, scale, output_scale, rank, rank_rtol, *, name: str = "Y", whole: bool = False
    ) -> None:
        """Checks and keeps data and weights. Targets that are `whole` numbers have no precision of their own."""
        Y = _checks.as_matrix(Y, name, "(N, m)")
        if whole and X is not None:
            X = _checks.as_matrix(X, "X", "(N, n)")
            Y = Y.astype(X.dtype)
        weights = read_weights(weights, Y.shape[:1])
        total = None if weights is None else jnp.sum(weights)
        W = self._read(X, Y, scale, output_scale, rank, rank_rtol, name=name, total=total)
        self.design = None if W is None else W * self.data_singular_values
        self.weights = None if weights is None else weights.astype(self.dtype)

    @abstractmethod
    def sample_losses(self, outputs: Float[Array, "N m"], Y: Float[Array, "N m"]) -> Float[Array, " N"]:
        """l(output, target) of every sample."""

    @abstractmethod
    def sample_gradients(self, outputs: Float[Array, "N m"], Y: Float[Array, "N m"]) -> Float[Array, "N m"]:
        """dl/d(output) of every sample."""

    def response(self, outputs: Float[Array, "N m"]) -> Float[Array, "N m"]:
        """What the outputs predict of the targets: themselves, where they are no logits."""
        return outputs

    def predict(self, Theta: Float[Array, "n m"]) -> Float[Array, "N m"]:
        """The response to c X Theta: what is predicted of the targets."""
        return self.response(self.outputs(Theta))

    def outputs(self, Theta: Float[Array, "n m"]) -> Float[Array, "N m"]:
        """c X Theta."""
        return self.output_scale * self._times(self.X, Theta)

    def output_loss(self, outputs: Float[Array, "N m"], Y: Float[Array, "N m"]) -> Float[Array, ""]:
        losses = self.sample_losses(outputs, Y)
        return jnp.sum(losses if self.weights is None else self.weights * losses)

    def average(self, values: Float[Array, " N"]) -> Float[Array, ""]:
        """The mean of a number for each sample, by their weights."""
        return jnp.average(values.astype(self.dtype), weights=self.weights)

    def slopes(self, X: Float[Array, "N r"] | None, Theta: Float[Array, "r m"]) -> Float[Array, "N m"]:
        slopes = self.sample_gradients(self.output_scale * self._times(X, Theta), self.Y)
        factor = self.scale * self.output_scale
        return slopes * (factor if self.weights is None else factor * self.weights[:, None])

    def weighed(self: Problem, a: Float[Array, " N"]) -> Problem:
        return times_weights(self, a)

    def _with_samples(self: Problem, X, Y, design, scale, index: Int[Array, " B"] | None) -> Problem:
        weights = None if self.weights is None or index is None else take(self.weights, index)
        where = lambda problem: (problem.X, problem.Y, problem.design, problem.scale, problem.weights)  # noqa: E731
        return eqx.tree_at(where, self, (X, Y, design, scale, weights), is_leaf=lambda leaf: leaf is None)


def read_weights(weights, shape: tuple[int, ...]) -> Array | None:
    """Weights of samples or measurements: of this shape, not negative, and not all zero."""
    if weights is None:
        return None
    weights = _checks.as_float(weights, "weights")
    if weights.shape != shape:
        raise ValueError(f"Argument `weights` must have shape {shape}, but has shape {weights.shape}.")
    _checks.check_finite(weights, "weights")
    if not _checks.is_traced(weights):
        least, most = float(jnp.min(weights)), float(jnp.max(weights))
        if least < 0 or most == 0:
            given = f"has the entry {least:g}" if least < 0 else "has no other"
            raise ValueError(f"Argument `weights` must have entries of at least 0, one of them above 0, but {given}.")
    return weights


def refuse_entries(wrong, array: Array, name: str, expected: str) -> None:
    """Refuses the entries of a concrete array that `wrong`, a function of its values, is true for."""
    if _checks.is_traced(array):
        return
    values = np.asarray(array)
    bad = np.argwhere(wrong(values))
    if len(bad):
        where = tuple(int(i) for i in bad[0])
        raise ValueError(f"Argument `{name}` must be {expected}, but is {values[where]:g} at index {where}.")


def as_column(y, name: str) -> Array:
    """Targets of shape (N, m), those of one output also as (N,)."""
    array = _checks.as_float(y, name)
    if array.ndim == 1:
        array = array[:, None]
    array = _checks.as_matrix(array, name, "(N,) or (N, m)")
    _checks.check_finite(array, name)
    return array
