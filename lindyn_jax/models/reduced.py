"""Networks in their smallest exact form."""

from collections.abc import Sequence
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from .. import _checks
from .._public import public
from ..problems import AbstractProblem, ImbalancePenalty
from .base import AbstractModel, refuse_matrix, refuse_matrix_penalty, refuse_penalty
from .chains import chain, chain_gradients, check_layers, is_zero, two_zeros


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
    is_reduced: ClassVar[bool] = True
    is_gradient_flow: ClassVar[bool] = True

    @public
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

    def moving(self) -> "ReducedTwoLayer":
        still = jax.tree.map(lambda _: False, self)
        return eqx.tree_at(lambda tree: (tree.U1, tree.V), still, (True, True))

    def moving_layers(self, problem: AbstractProblem) -> tuple[Float[Array, "r k"], Float[Array, "k m"]]:
        return self.U1, self.V.T

    def reduced_product(self, problem: AbstractProblem) -> Float[Array, "r m"]:
        return self.product()

    def sizes(self, problem: AbstractProblem) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
        return "(U1 rows, V rows)", (problem.rank, problem.num_outputs), (self.U1.shape[0], self.V.shape[0])

    def check_penalty(self, penalty: ImbalancePenalty) -> None:
        refuse_matrix(penalty)

    def saddle(self, problem: AbstractProblem) -> str | None:
        return "the saddle U = 0, V = 0" if is_zero(self.U1, self.V) else None

    @property
    def factors(self) -> tuple[Float[Array, "r k"], Float[Array, "m k"]]:
        return self.U1, self.V

    def generator(self, problem: AbstractProblem) -> Float[Array, "r m"]:
        return -problem.reduced_loss_gradient(self.product())

    def velocity(self, problem: AbstractProblem) -> "ReducedTwoLayer":
        G = problem.reduced_loss_gradient(self.product())
        frozen = self.frozen
        if frozen is not None:
            frozen = Frozen(jnp.zeros_like(frozen.core), jnp.zeros_like(frozen.norm), jnp.zeros_like(frozen.factor))
        zero = jnp.zeros_like(self.width)
        U1_velocity, V_velocity = -(G @ self.V), -(G.T @ self.U1)
        if problem.penalty is not None:
            refuse_matrix_penalty(problem)
            pull_U1, pull_V = problem.penalty.gradients(self.U1, self.V)
            U1_velocity, V_velocity = U1_velocity - pull_U1, V_velocity - pull_V
        return type(self)(U1_velocity, V_velocity, zero, zero, frozen)

    def frozen_product(self) -> Float[Array, "f m"]:
        """`core V^T` times the decay factor: the singular values of `Phi2^T Theta = U2 V^T`.

        **Raises:** `ValueError` when the reduced model was made without its frozen part.
        """
        return self._known().factor * (self._known().core @ self.V.T)

    def frozen_rows(self, problem: AbstractProblem) -> tuple[Float[Array, "f k"], Float[Array, ""]]:
        return self._known().factor * self._known().core, self._known().factor * self._known().norm

    def scaled(self, factor: Float[Array, ""]) -> "ReducedTwoLayer":
        where = lambda tree: [tree.U1, tree.V, *([] if tree.frozen is None else [tree.frozen.core, tree.frozen.norm])]  # noqa: E731
        return eqx.tree_at(where, self, [factor * weight for weight in where(self)])

    def _known(self) -> Frozen:
        if self.frozen is None:
            raise ValueError(
                "This ReducedTwoLayer does not know the frozen part U2 of its first layer: make it with "
                "`init.gaussian_core` or `reduce`, or pass `frozen=`."
            )
        return self.frozen


class Remainder(eqx.Module):
    """What the reduction of a deep network leaves out of one layer, `W_l = S_{l-1} core_l S_l^T + rest_l`.

    **Fields:**

    - `norm`: `||rest_l||_F` at the start.
    - `factor`: `rest_l(t) = factor rest_l(0)`: 1 unless an optimizer decays weights.
    - `gram`: `(||A||^2, ||B||^2, <A, B>)` for the imbalance behind this layer, with `A = rest_l^T rest_l` and
        `B = rest_{l+1} rest_{l+1}^T`; zeros for the last layer. The rest of the first layer is frozen and does not count here.
    """

    norm: Float[Array, ""]
    factor: Float[Array, ""]
    gram: Float[Array, "3"]


class ReducedDeepLinear(AbstractModel):
    """A deep linear network in its smallest exact form, made by `reduce`.

    With orthonormal bases `S_l` of subspaces that all layers respect, `core_l = S_{l-1}^T W_l S_l` moves exactly as the full
    network does (`S_0 = Phi1`, `S_L = I`), and the rest of each layer stays. Products and losses are the full network's own.

    **Fields:** `layers`, the cores, the first of shape (r, k_1) and the last of shape (k_{L-1}, m); `frozen`, `Phi2^T W1 S_1` up
    to a rotation of its rows, or `None` for n = r; `rest`, a `Remainder` for each layer.

    **Source:** the gradients of `DeepLinear`, whose columns and rows lie in these subspaces.
    """

    layers: tuple[Float[Array, "_ _"], ...]
    frozen: Float[Array, "f k"] | None
    rest: tuple[Remainder, ...]
    is_reduced: ClassVar[bool] = True
    is_gradient_flow: ClassVar[bool] = True

    @public
    def __init__(
        self,
        layers: Sequence[Float[ArrayLike, "_ _"]],
        frozen: Float[Array, "f k"] | None,
        rest: Sequence[Remainder],
    ):
        self.layers, self.frozen, self.rest = check_layers(layers), frozen, tuple(rest)

    @property
    def depth(self) -> int:
        """L."""
        return len(self.layers)

    def product(self) -> Float[Array, "r m"]:
        """core_1 ... core_L = Phi1^T Theta, the part of the end-to-end matrix that the data see."""
        return chain(self.layers)

    def moving(self) -> "ReducedDeepLinear":
        still = jax.tree.map(lambda _: False, self)
        return eqx.tree_at(lambda tree: tree.layers, still, (True,) * self.depth)

    def moving_layers(self, problem: AbstractProblem) -> tuple[Float[Array, "_ _"], ...]:
        return self.layers

    def reduced_product(self, problem: AbstractProblem) -> Float[Array, "r m"]:
        return self.product()

    def sizes(self, problem: AbstractProblem) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
        given = (self.layers[0].shape[0], self.layers[-1].shape[1])
        return "(core_1 rows, core_L columns)", (problem.rank, problem.num_outputs), given

    def saddle(self, problem: AbstractProblem) -> str | None:
        return two_zeros(self.layers)

    def velocity(self, problem: AbstractProblem) -> "ReducedDeepLinear":
        refuse_penalty(self, problem)
        G = problem.reduced_loss_gradient(self.product())
        still = jax.tree.map(jnp.zeros_like, (self.frozen, self.rest))
        return type(self)(tuple(-g for g in chain_gradients(self.layers, G)), *still)

    def frozen_product(self) -> Float[Array, "f m"]:
        """A matrix with the singular values of `Phi2^T Theta`.

        **Raises:** `ValueError` when the data reach all inputs.
        """
        if self.frozen is None:
            raise ValueError("This ReducedDeepLinear has no frozen part: the data reach all of its inputs.")
        return self.rest[0].factor * chain((self.frozen, *self.layers[1:]))
