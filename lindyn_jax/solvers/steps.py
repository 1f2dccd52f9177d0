"""What one step depends on, under least squares and under any other loss: the state before it, the data, and its length."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..problems import AbstractProblem


class Step(NamedTuple):
    """What a step depends on: the state before it, the data, and tau = h q."""

    U: Float[Array, "r k"]
    V: Float[Array, "m k"]
    s: Float[Array, " r"]
    Y: Float[Array, "r m"]
    tau: Float[Array, ""]

    def error(self, U: Array, V: Array) -> Array:
        """E at a state, or at several."""
        return self.Y - self.s[:, None] * (U @ jnp.swapaxes(V, -1, -2))

    def force(self, U: Array, V: Array) -> tuple[Array, Array]:
        """h times the velocity at a state, or at several."""
        SE = self.s[:, None] * self.error(U, V)
        return self.tau * (SE @ V), self.tau * (jnp.swapaxes(SE, -1, -2) @ U)


class Leaves(eqx.Module):
    """A problem as transformations of JAX take it: its arrays, and all else static."""

    arrays: list[Any]
    rest: tuple[Any, ...] = eqx.field(static=True)

    def __init__(self, problem: AbstractProblem):
        leaves, structure = jax.tree.flatten(problem)
        self.arrays = [leaf if eqx.is_array(leaf) else None for leaf in leaves]
        self.rest = (structure, *(None if eqx.is_array(leaf) else leaf for leaf in leaves))

    def whole(self) -> AbstractProblem:
        structure, *others = self.rest
        pairs = zip(self.arrays, others, strict=True)
        return structure.unflatten([other if array is None else array for array, other in pairs])


class LossStep(NamedTuple):
    """What a step depends on: the state before it, the loss, and tau = h."""

    U: Float[Array, "r k"]
    V: Float[Array, "m k"]
    loss: Leaves
    tau: Float[Array, ""]

    @property
    def s(self) -> Float[Array, " r"]:
        """Impulses act on Z as they are."""
        return jnp.ones(self.U.shape[0], self.U.dtype)

    def error(self, U: Array, V: Array) -> Array:
        """-G at a state, or at several."""
        gradient = self.loss.whole().loss_gradient
        Theta = U @ jnp.swapaxes(V, -1, -2)
        return -(gradient(Theta) if Theta.ndim == 2 else jax.vmap(gradient)(Theta))

    def force(self, U: Array, V: Array) -> tuple[Array, Array]:
        """h times the velocity at a state, or at several."""
        B = self.error(U, V)
        return self.tau * (B @ V), self.tau * (jnp.swapaxes(B, -1, -2) @ U)

    def seen(self, bU: Array, bV: Array) -> Array:
        """H applied to how a change of the weights changes Theta."""
        problem = self.loss.whole()
        return problem.hessian_vector(self.U @ self.V.T, bU @ self.V.T + self.U @ bV.T)


AnyStep = Step | LossStep
