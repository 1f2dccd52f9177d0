"""What losses of classes share: margins, and how many samples are classified rightly."""

from abc import abstractmethod

import jax.numpy as jnp
from jaxtyping import Array, Float

from .base import AbstractProblem, Draw
from .samples import SampleProblem


class Classification(SampleProblem):
    """A loss of logits c X Theta and classes, by the margin of every sample: positive where its own class is the likeliest."""

    @abstractmethod
    def margins(self, outputs: Float[Array, "N m"], Y: Float[Array, "N m"]) -> Float[Array, " N"]:
        """By how much the logits are on the right side, of every sample."""

    def noisy(self, draw: Draw) -> AbstractProblem:  # pyright: ignore[reportIncompatibleMethodOverride]
        return AbstractProblem.noisy(self, draw)

    def accuracy(self, Theta: Float[Array, "n m"]) -> Float[Array, ""]:
        """The share of samples, by their weights, whose margin is positive; NaN if Theta is not finite."""
        margins = self.margins(self.outputs(Theta), self.Y)
        return self.average(jnp.where(jnp.isnan(margins), margins, margins > 0))

    def margin(self, Theta: Float[Array, "n m"]) -> Float[Array, ""]:
        """The least margin of a sample, of those with a weight."""
        margins = self.margins(self.outputs(Theta), self.Y)
        return jnp.min(margins if self.weights is None else jnp.where(self.weights > 0, margins, jnp.inf))
