"""Diagonal networks: every entry of Theta has two weights of its own.

The simplest overparametrized networks in which a small start is a choice of sparse solutions. Their limit under least squares
is known in closed form up to a convex problem of r numbers: `exact.diagonal_limit`.
"""

from abc import abstractmethod
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .. import _checks
from .._public import public
from ..problems import AbstractProblem
from .base import AbstractModel
from .chains import is_zero

Weights = Float[Array, "n"] | Float[Array, "n m"]


class AbstractDiagonal(AbstractModel):
    """A network whose entries of Theta have two weights each. **Fields:** `u`, `v`, shape (n, m), or (n,) for m = 1."""

    u: Weights
    v: Weights
    is_gradient_flow: ClassVar[bool] = True

    @public
    def __init__(
        self, u: Float[ArrayLike, "n"] | Float[ArrayLike, "n m"], v: Float[ArrayLike, "n"] | Float[ArrayLike, "n m"]
    ):
        self.u, self.v = _pair(u, v)

    @property
    @abstractmethod
    def entries(self) -> Weights:
        """Theta in the shape of the weights."""

    @property
    @abstractmethod
    def conserved(self) -> Weights:
        """What the gradient flow of any loss of Theta conserves, a number for each entry."""

    def product(self) -> Float[Array, "n m"]:
        return self.entries.reshape(self.entries.shape[0], -1)

    def saddle(self, problem: AbstractProblem) -> str | None:
        if _checks.is_traced(self.u, self.v) or not (is_zero(self.u) and is_zero(self.v)):
            return None
        return "the saddle u = 0, v = 0"


class Diagonal(AbstractDiagonal):
    """A diagonal network `Theta = u * v`, entry by entry.

    Under the gradient flow of any loss `u^2 - v^2` stays what it is. From v = 0 and `u^2 = 2 a^2` the flow of least squares
    tends to the solution with `arcsinh(Theta/a^2)` in the row space of X, from small a the one of least l1 norm, from large a
    of least l2 norm: `exact.diagonal_limit`.

    **Args:** `u`, `v`, shape (n,) for one output, or (n, m).

    **Raises:** `ValueError` for other shapes, or two that differ.

    **Source:** Woodworth et al. (2020), whose network is the one of `DiagonalDifference`; this form is its rotation by 45
    degrees.

    Example:

        >>> X = jnp.array([[1.0, 2.0]])
        >>> problem = ld.LeastSquares(X, jnp.array([[2.0]]))
        >>> start = ld.Diagonal(jnp.full(2, 0.01), jnp.zeros(2))
        >>> flow = ld.gradient_flow(start, problem, [0.0, 20.0])
        >>> print(flow.final.product().T)  # nearly the solution of least l1 norm, (0, 1)
        [[0.004994 0.9975]]
    """

    @property
    def entries(self) -> Weights:
        return self.u * self.v

    @property
    def conserved(self) -> Weights:
        """`u^2 - v^2`."""
        return (self.u - self.v) * (self.u + self.v)


class DiagonalDifference(AbstractDiagonal):
    """A diagonal network `Theta = u^2 - v^2`, entry by entry.

    Under the gradient flow of any loss `u v` stays what it is. It is `Diagonal(u + v, u - v)` in other coordinates of the
    weights, in which the flow is twice as fast.

    **Args:**, **Raises:** as for `Diagonal`.

    **Source:** Woodworth et al. (2020).

    Example:

        >>> start = ld.DiagonalDifference(jnp.array([0.3, 0.2]), jnp.array([0.1, 0.2]))
        >>> print(start.product().T, ld.Diagonal(start.u + start.v, start.u - start.v).product().T)
        [[0.08 0. ]] [[0.08 0. ]]
        >>> velocity = start.velocity(ld.factorization(jnp.array([[2.0], [1.0]])))
        >>> print(velocity.u, velocity.v)  # u'v + u v' = 0
        [1.152 0.4 ] [-0.384 -0.4 ]
    """

    @property
    def entries(self) -> Weights:
        return (self.u - self.v) * (self.u + self.v)

    @property
    def conserved(self) -> Weights:
        """`u v`."""
        return self.u * self.v


def _pair(u: ArrayLike, v: ArrayLike) -> tuple[Array, Array]:
    u, v = _checks.as_float(u, "u"), _checks.as_float(v, "v")
    for name, value in (("u", u), ("v", v)):
        if value.ndim not in (1, 2) or 0 in value.shape:
            raise ValueError(f"Argument `{name}` must have shape (n,) or (n, m), but has shape {value.shape}.")
    if u.shape != v.shape:
        raise ValueError(f"Arguments `u` and `v` must have the same shape, but have {u.shape} and {v.shape}.")
    dtype = jnp.result_type(u, v)
    return u.astype(dtype), v.astype(dtype)
