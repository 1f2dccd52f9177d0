"""How far the homogeneous solution is from a flow, as a function of lambda0, by quadrature."""

from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .. import exact
from .. import observables as obs
from ..flow import gradient_flow
from ..models import AbstractModel, Reduction, TwoLayer
from ..problems import AbstractProblem, LeastSquares, Penalised
from ._closed import ClosedForm


class Objective(eqx.Module):
    """J as a function of lambda0 alone."""

    problem: LeastSquares
    U1: Float[Array, "r k"]
    V: Float[Array, "m k"]
    closed: ClosedForm | None
    speed: Float[Array, ""]
    ts: Float[Array, " T"]
    path: Float[Array, "T r m"]
    weights: Float[Array, " T"]
    rtol: Float[Array, ""]
    method: str = eqx.field(static=True)
    adjoint: diffrax.AbstractAdjoint = eqx.field(static=True)
    solver: Any = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)

    def __call__(self, lambda0: Float[Array, ""]) -> Float[Array, ""]:
        return ratio(self.predicted(lambda0) - self.path, self.path, self.weights)

    def predicted(self, lambda0: Float[Array, ""]) -> Float[Array, "T r m"]:
        if self.closed is not None:
            return self.closed.product(lambda0, self.speed * self.ts)
        if self.method == "flow":
            regularized = towards(self.problem, lambda0, self.speed)
            policy = {"rtol": self.rtol, "solver": self.solver, "max_steps": self.max_steps}
            return integrate(self.U1, self.V, regularized, self.ts, adjoint=self.adjoint, **policy)[0].product
        return exact.homogeneous_product(self.problem.reduced_theta_hat, self.U1, self.V, lambda0, self.speed * self.ts)

    def derivative(self, lambda0: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """J and dJ/dlambda0, in the mode that the adjoint allows."""
        if self.method == "flow" and not isinstance(self.adjoint, (diffrax.ForwardMode, diffrax.DirectAdjoint)):
            return jax.value_and_grad(self.__call__)(lambda0)
        return jax.jvp(self.__call__, (lambda0,), (jnp.ones_like(lambda0),))


class Motion(NamedTuple):
    """A path of products and its velocity, each of shape (T, r, m)."""

    product: Array
    velocity: Array


def _velocity(model: AbstractModel, problem: AbstractProblem) -> Float[Array, "r m"]:
    change = eqx.filter(model.velocity(problem), eqx.is_inexact_array)
    return eqx.filter_jvp(lambda m: obs.reduced_product(m, problem), (model,), (change,))[1]


def integrate(
    U1: Array, V: Array, problem: AbstractProblem, ts: Array, *, adjoint: diffrax.AbstractAdjoint, **policy: Any
) -> tuple[Motion, Bool[Array, ""]]:
    """A flow at given times, and whether it got there."""
    out = gradient_flow(
        Reduction(TwoLayer(U1, V)),
        problem,
        ts,
        observables={"product": obs.reduced_product, "velocity": _velocity},
        adjoint=adjoint,
        **policy,
    )
    return Motion(**out.observables), out.ok


def towards(problem: LeastSquares, lambda0: Array, speed: Array) -> Penalised:
    """The problem whose flow keeps `Q = lambda0 I`, with the closed form of homogeneous imbalance."""
    return problem.regularized(lambda0, speed / 8)


def ratio(difference: Array, path: Array, weights: Array) -> Float[Array, ""]:
    """Mean square of one path over that of another; 0/0 is 0."""
    above = jnp.sum(weights * jnp.sum(difference**2, axis=(1, 2)))
    below = jnp.sum(weights * jnp.sum(path**2, axis=(1, 2)))
    return above / jnp.where(below > 0, below, 1)


def clenshaw_curtis(nodes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes on [0, 1], weights of the Clenshaw-Curtis rule, and those of the rule on every other node."""

    def weights(n):
        j = np.arange(1, n // 2 + 1)
        b = np.where(2 * j == n, 1, 2) / (4 * j**2 - 1)
        k = np.arange(n + 1)
        c = np.where((k == 0) | (k == n), 1, 2)
        return c / n * (1 - np.cos(2 * np.pi * np.outer(k, j) / n) @ b) / 2

    x = (1 - np.cos(np.pi * np.arange(nodes + 1) / nodes)) / 2
    half = np.zeros(nodes + 1)
    half[::2] = weights(nodes // 2)
    return x, weights(nodes), half
