"""The models: Equinox modules whose leaves are the weights and which are themselves the state of flow and descent.

Each knows its end-to-end matrix and its velocity under gradient flow; descent uses minus the velocity as the gradient.
"""

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from . import _checks
from ._linalg import signature_spectrum
from .problem import LeastSquares


class AbstractModel(eqx.Module):
    """A point in weight space, with its end-to-end matrix and its velocity under gradient flow."""

    @abstractmethod
    def product(self) -> Float[Array, "n m"]:
        """The end-to-end matrix Theta; the network computes `x -> Theta^T x`."""

    @abstractmethod
    def velocity(self, problem: LeastSquares) -> "AbstractModel":
        """d(weights)/dt under gradient flow, minus the gradient of the problem's loss, as a model of the same kind."""


class LinearModel(AbstractModel):
    """One layer, `Theta` of shape (n, m).

    **Source:** T21 section 2, G19 section 3.1.
    """

    Theta: Float[Array, "n m"]

    def __init__(self, Theta: Float[ArrayLike, "n m"]):
        self.Theta = _checks.as_matrix(Theta, "Theta", "(n, m)")

    def product(self) -> Float[Array, "n m"]:
        return self.Theta

    def velocity(self, problem: LeastSquares) -> "LinearModel":
        refuse_penalty(self, problem)
        return type(self)(-problem.loss_gradient(self.Theta))


class SymmetricFactors(AbstractModel):
    """Tied layers, `Theta = U U^T` with U of shape (n, h), for an n x n target.

    For `factorization(Y)` with symmetric Y the product obeys `X' = 2 Y X + 2 X Y - 4 X^2` (times q and powers of the output
    scale, where these are not 1) and tends to the positive semidefinite part of Y, from starts that reach it.

    **Notes:** a target that is not symmetric moves U as its symmetric part does, since only `G + G^T` acts on U, G being the
    gradient of the loss with respect to Theta; the skew part adds a constant to the loss. The closed form needs Y = Y^T.
    The excess loss is relative to the least loss over all Theta, which need not be reached by a product U U^T.
    Problems with a penalty on the imbalance are refused: tied layers have none.

    **Source:** T21 section 3 [needs Y = Y^T there].
    """

    U: Float[Array, "n h"]

    def __init__(self, U: Float[ArrayLike, "n h"]):
        self.U = _checks.as_matrix(U, "U", "(n, h)")

    @property
    def width(self) -> int:
        """h."""
        return self.U.shape[1]

    def product(self) -> Float[Array, "n n"]:
        return self.U @ self.U.T

    def velocity(self, problem: LeastSquares) -> "SymmetricFactors":
        refuse_penalty(self, problem)
        G = problem.loss_gradient(self.product())
        return type(self)(-(G @ self.U + G.T @ self.U))


class TwoLayer(AbstractModel):
    """Two layers, `Theta = U V^T` with U of shape (n, h) and V of shape (m, h).

    **Raises:** `ValueError` if the widths of U and V differ.

    **Source:** T21 (1), M22 section 2.
    """

    U: Float[Array, "n h"]
    V: Float[Array, "m h"]

    def __init__(self, U: Float[ArrayLike, "n h"], V: Float[ArrayLike, "m h"]):
        U, V = _checks.as_matrix(U, "U", "(n, h)"), _checks.as_matrix(V, "V", "(m, h)")
        if U.shape[1] != V.shape[1]:
            raise ValueError(
                f"Arguments `U` (n, h) and `V` (m, h) must have the same width h, but have {U.shape[1]} and {V.shape[1]}."
            )
        dtype = jnp.result_type(U, V)
        self.U, self.V = U.astype(dtype), V.astype(dtype)

    @property
    def width(self) -> int:
        """h."""
        return self.U.shape[1]

    def product(self) -> Float[Array, "n m"]:
        return self.U @ self.V.T

    def velocity(self, problem: LeastSquares) -> "TwoLayer":
        G = problem.loss_gradient(self.product())
        U_velocity, V_velocity = -(G @ self.V), -(G.T @ self.U)
        if problem.regularization is not None:
            pull_U1, pull_V = problem.regularization.gradients(problem.to_data(self.U), self.V)
            U_velocity, V_velocity = U_velocity - problem.from_data(pull_U1), V_velocity - pull_V
        return type(self)(U_velocity, V_velocity)

    def imbalance_spectrum(self) -> Float[Array, " k"]:
        """Eigenvalues of `U^T U - V^T V` in descending order, k = min(h, n + m); the other h - k are zero.

        Conserved by the flow. The rate bounds of M22 need `theory.imbalance`, which takes the moving part of U only.
        """
        return signature_spectrum(jnp.concatenate([self.U, self.V]), _signs(self.U, self.V))


class Frozen(eqx.Module):
    """What is left of U2, the part of the first layer that the data do not reach, after the reduction.

    **Fields:**

    - `core`: shape (f, k): `U2 Q = O core` with some orthonormal O, so that `U2 V^T` and `core V^T` have the same singular
        values.
    - `norm`: `||U2||_F` at the start, the part outside the columns of Q included.
    - `factor`: U2(t) = factor U2(0): 1 unless an optimizer decays weights.
    """

    core: Float[Array, "f k"]
    norm: Float[Array, ""]
    factor: Float[Array, ""]


class ReducedTwoLayer(AbstractModel):
    """A two-layer network of any width in its smallest exact form.

    With `[U1; V] = [U1_reduced; V_reduced] Q^T` and orthonormal Q, the k = min(h, r + m) columns kept here move exactly as
    the full network does; products, singular values and the imbalance spectrum are the full network's own.

    **Fields:** `U1`, shape (r, k), the moving rows of the first layer; `V`, shape (m, k); `width`, h, a number and not a
    shape; `num_frozen`, n - r, likewise; `frozen`, what is known of the n - r rows that do not move, or `None`.

    **Source:** the reduction is exact for every dynamics that multiplies [U1; V] by a matrix from the left.
    """

    U1: Float[Array, "r k"]
    V: Float[Array, "m k"]
    width: Float[Array, ""]
    num_frozen: Float[Array, ""]
    frozen: Frozen | None

    def __init__(
        self,
        U1: Float[ArrayLike, "r k"],
        V: Float[ArrayLike, "m k"],
        width: Float[ArrayLike, ""] | Int[ArrayLike, ""],
        num_frozen: Float[ArrayLike, ""] | Int[ArrayLike, ""],
        frozen: Frozen | None = None,
    ):
        U1, V = _checks.as_matrix(U1, "U1", "(r, k)"), _checks.as_matrix(V, "V", "(m, k)")
        if U1.shape[1] != V.shape[1]:
            raise ValueError(
                f"Arguments `U1` (r, k) and `V` (m, k) must have the same k, but have {U1.shape[1]} and {V.shape[1]}."
            )
        dtype = jnp.result_type(U1, V)
        self.U1, self.V = U1.astype(dtype), V.astype(dtype)
        self.width, self.num_frozen = jnp.asarray(width, dtype), jnp.asarray(num_frozen, dtype)
        self.frozen = frozen

    def product(self) -> Float[Array, "r m"]:
        """U1 V^T = Phi1^T Theta, the part of the end-to-end matrix that the data see."""
        return self.U1 @ self.V.T

    def velocity(self, problem: LeastSquares) -> "ReducedTwoLayer":
        G = problem.reduced_loss_gradient(self.product())
        frozen = self.frozen
        if frozen is not None:
            frozen = Frozen(jnp.zeros_like(frozen.core), jnp.zeros_like(frozen.norm), jnp.zeros_like(frozen.factor))
        zero = jnp.zeros_like(self.width)
        U1_velocity, V_velocity = -(G @ self.V), -(G.T @ self.U1)
        if problem.regularization is not None:
            refuse_matrix_penalty(problem)
            pull_U1, pull_V = problem.regularization.gradients(self.U1, self.V)
            U1_velocity, V_velocity = U1_velocity - pull_U1, V_velocity - pull_V
        return type(self)(U1_velocity, V_velocity, zero, zero, frozen)

    def frozen_product(self) -> Float[Array, "f m"]:
        """`core V^T` times the decay factor: the singular values of `Phi2^T Theta = U2 V^T`.

        **Raises:** `ValueError` when the reduced model was made without its frozen part.
        """
        if self.frozen is None:
            raise ValueError(
                "This ReducedTwoLayer does not know the frozen part U2 of its first layer: make it with "
                "`init.gaussian_core` or `reduce`, or pass `frozen=`."
            )
        return self.frozen.factor * (self.frozen.core @ self.V.T)


def _signs(U: Array, V: Array) -> Float[Array, " p"]:
    return jnp.concatenate([jnp.ones(U.shape[0], U.dtype), -jnp.ones(V.shape[0], V.dtype)])


def refuse_matrix_penalty(problem: LeastSquares) -> None:
    """Refuses a penalty whose target is a matrix, where only rotation-invariant ones make sense."""
    if problem.regularization is not None and not problem.regularization.is_isotropic:
        raise ValueError(
            "The width reduction is not exact for a penalty whose Lambda is a matrix, which singles out directions of the "
            "hidden layer: give Lambda as a number, or move a `TwoLayer` in full size (the solvers do so by themselves)."
        )


def refuse_penalty(model: AbstractModel, problem: LeastSquares) -> None:
    """Refuses a penalty on the imbalance for a model that has none."""
    if problem.regularization is not None:
        raise ValueError(
            "The problem's penalty on the imbalance is defined for two-layer models, but the model is a "
            f"{type(model).__name__}: build the problem without `regularized`."
        )
