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

    @abstractmethod
    def hastened_gradients(
        self, outputs: Float[Array, "N m"], Y: Float[Array, "N m"], log_factor: Float[Array, ""]
    ) -> Float[Array, "N m"]:
        """`e^log_factor` times `sample_gradients`, where the factor alone overflows and the gradients alone vanish."""

    @abstractmethod
    def pulls(self, gradients: Float[Array, "N m"], Y: Float[Array, "N m"]) -> Float[Array, " N"]:
        """Minus the derivative of each sample's loss in its margin, summed over its answers, from `sample_gradients`."""

    @abstractmethod
    def separations(self) -> list[Array]:
        """Matrices A, some Theta with `A theta >= 1` for each of which is what separable data have."""

    def hastened(self, Theta: Float[Array, "n m"], log_factor: Float[Array, ""]) -> Float[Array, "N m"]:
        """`e^log_factor` times the gradient in the outputs, with the weights of the samples and q."""
        gradients = self.hastened_gradients(self.outputs(Theta), self.Y, log_factor)
        return gradients * (self.scale if self.weights is None else self.scale * self.weights[:, None])

    def accuracy(self, Theta: Float[Array, "n m"]) -> Float[Array, ""]:
        """The share of samples, by their weights, whose margin is positive; NaN if Theta is not finite."""
        margins = self.margins(self.outputs(Theta), self.Y)
        return self.average(jnp.where(jnp.isnan(margins), margins, margins > 0))

    def margin(self, Theta: Float[Array, "n m"]) -> Float[Array, ""]:
        """The least margin of a sample, of those with a weight."""
        margins = self.margins(self.outputs(Theta), self.Y)
        return jnp.min(margins if self.weights is None else jnp.where(self.weights > 0, margins, jnp.inf))
