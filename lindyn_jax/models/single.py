"""One matrix: a single layer, and the product of two Gaussian ones in the limit of infinite width."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .. import _checks
from .._public import public
from .._roots import gram_roots
from ..problems import AbstractProblem
from .base import AbstractModel


class LinearModel(AbstractModel):
    """One layer, `Theta` of shape (n, m).

    **Raises:** `ValueError` for another shape.

    **Source:** T21 section 2, G19 section 3.1.

    Example:

        >>> problem = ld.factorization(jnp.diag(jnp.array([2.0, 1.0])))
        >>> start = ld.LinearModel(jnp.zeros((2, 2)))
        >>> print(jnp.diag(start.velocity(problem).product()))
        [2. 1.]
        >>> print(jnp.diag(ld.gradient_flow(start, problem, [0.0, 1.0]).final.product()))  # (1 - 1/e) Y
        [1.264 0.6321]
    """

    Theta: Float[Array, "n m"]
    is_gradient_flow: ClassVar[bool] = True

    @public
    def __init__(self, Theta: Float[ArrayLike, "n m"]):
        self.Theta = _checks.as_matrix(Theta, "Theta", "(n, m)")

    def product(self) -> Float[Array, "n m"]:
        return self.Theta

    def moving_layers(self, problem: AbstractProblem) -> tuple[Float[Array, "r m"]]:
        return (problem.to_data(self.Theta),)

    def sizes(self, problem: AbstractProblem) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
        return "the shape of Theta", (problem.num_inputs, problem.num_outputs), self.Theta.shape

    def loss_velocity(self, problem: AbstractProblem) -> "LinearModel":
        return type(self)(-problem.loss_gradient(self.Theta))


class WideLimit(AbstractModel):
    r"""The product of two Gaussian layers in the limit of infinite width: a preconditioned flow of its own.

    `Theta' = -sqrt(Theta Theta^T + c^2 I) G - G sqrt(Theta^T Theta + c^2 I)` with G = dL/dTheta. A start with independent entries
    N(0, s^2) has `c = s^2 h`; for N(0, s_U^2) and N(0, s_V^2) it is `c = (s_U^2 + s_V^2) h/2`. At c = 0 it is the flow of a
    balanced start.

    **Args:** `Theta`, shape (n, m), the product, zero in the limit itself; `level`, c >= 0, which does not move and may be
    traced.

    **Raises:** `ValueError` for a wrong shape or a negative level.

    **Notes:** the velocity is not minus the gradient of the loss; descent takes Euler steps of it. Networks of width h stay
    within a distance of the order h^{-1/2}. Derivatives hold at repeated singular values and, for c > 0, at zero ones.
    Problems with terms on the weights are refused.

    **Source:** TAJ24 (the mixed dynamics); the form for unequal layers is this package's own.

    Example:

        >>> problem = ld.factorization(jnp.diag(jnp.array([2.0, 1.0])))
        >>> start = ld.WideLimit(jnp.zeros((2, 2)), level=1.0)
        >>> print(jnp.diag(ld.gradient_flow(start, problem, [0.0, 0.5]).final.product()))
        [1.476 0.6619]
        >>> print(ld.exact.mode(jnp.array([2.0, 1.0]), 2**0.5, 0.0, 0.5).x)  # modes with u0^2 - v0^2 = 2 c
        [1.476 0.6619]
    """

    Theta: Float[Array, "n m"]
    level: Float[Array, ""]
    growth_factor = 2.0

    @public
    def __init__(self, Theta: Float[ArrayLike, "n m"], level: Float[ArrayLike, ""] | int):
        self.Theta, level = _checks.as_matrix(Theta, "Theta", "(n, m)"), _checks.as_float(level, "level")
        if level.ndim or (not _checks.is_traced(level) and not 0 <= float(level) < float("inf")):
            raise ValueError(f"Argument `level` must be a finite number of at least 0, but is {level}.")
        self.level = level.astype(self.Theta.dtype)

    def product(self) -> Float[Array, "n m"]:
        return self.Theta

    def moving(self) -> "WideLimit":
        return eqx.tree_at(lambda tree: tree.level, super().moving(), False)

    def sizes(self, problem: AbstractProblem) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
        return "the shape of Theta", (problem.num_inputs, problem.num_outputs), self.Theta.shape

    def loss_velocity(self, problem: AbstractProblem) -> "WideLimit":
        G = problem.loss_gradient(self.Theta)
        rows, columns = gram_roots(self.Theta, self.level)
        return type(self)(-(rows @ G + G @ columns), jnp.zeros_like(self.level))
