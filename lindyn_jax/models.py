"""The models: Equinox modules whose leaves are the weights and which are themselves the state of flow and descent.

Each knows its end-to-end matrix and its velocity under gradient flow; descent uses minus the velocity as the gradient.
"""

import functools
import itertools
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from . import _checks
from ._linalg import signature_spectrum
from ._norms import norm
from ._public import public
from ._roots import gram_roots
from .problems import AbstractProblem, ImbalancePenalty


class AbstractModel(eqx.Module):
    """A point in weight space, with its end-to-end matrix and its velocity under gradient flow.

    A network of your own is a subclass with `product`. Flow, descent, ensembles and every observable that is defined for it then
    take it; what asks for layers says so.

    **Example:**

    ```python
    class Diagonal(ld.AbstractModel):
        u: jax.Array
        v: jax.Array

        def product(self):
            return (self.u * self.v)[:, None]
    ```
    """

    # Whether the coordinates are those of a larger network.
    is_reduced: ClassVar[bool] = False

    @property
    def is_gradient_flow(self) -> bool:
        """Whether the velocity is known to be minus the gradient of the loss: a class that replaces it has to say so."""
        return type(self).velocity is AbstractModel.velocity

    @abstractmethod
    def product(self) -> Float[Array, "n m"]:
        """The end-to-end matrix Theta; the network computes `x -> Theta^T x`."""

    def velocity(self, problem: AbstractProblem) -> "AbstractModel":
        """d(weights)/dt under gradient flow, minus the gradient of the problem's loss, as a model of the same kind."""
        refuse_penalty(self, problem)
        weights, rest = eqx.partition(self, self.moving())
        Theta, pullback = jax.vjp(lambda weights: eqx.combine(weights, rest).product(), weights)
        (gradient,) = pullback(problem.loss_gradient(Theta))
        return eqx.combine(jax.tree.map(jnp.negative, gradient), rest)

    def moving(self) -> "AbstractModel":
        """A tree of the model's shape that is true at the weights that the dynamics moves."""
        return jax.tree.map(eqx.is_inexact_array, self)

    def moving_layers(self, problem: AbstractProblem) -> tuple[Float[Array, "_ _"], ...] | None:
        """The layers W1, ..., WL of a chain, with Phi1^T W1 for W1: what the data move. `None` for what is not a chain."""
        return None

    def frozen_rows(self, problem: AbstractProblem) -> tuple[Float[Array, "f k"], Float[Array, ""]]:
        """`U2 = Phi2^T U`, what the data do not move of a first layer, up to a rotation of its rows; and the size of what it was
        made of, whose round-off it carries.
        """
        raise ValueError(f"The frozen part U2 is that of a two-layer model, but the model is a {type(self).__name__}.")

    def scaled(self, factor: Float[Array, ""]) -> "AbstractModel":
        """This network with all of its weights multiplied by a number."""
        return jax.tree.map(lambda weight, moves: factor * weight if moves else weight, self, self.moving())

    def reduced_product(self, problem: AbstractProblem) -> Float[Array, "r m"]:
        """Phi1^T Theta, the part of the end-to-end matrix that the data see."""
        return problem.to_data(self.product())

    def sizes(self, problem: AbstractProblem) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
        """What of this model has to fit the problem: a name, what it must be, and what it is."""
        fitting = (problem.num_inputs, problem.num_outputs)
        return "the shape of its product", fitting, jax.eval_shape(self.product).shape

    def check_penalty(self, penalty: ImbalancePenalty) -> None:
        """Refuses a penalty that this model has no use for: all of them, but for two-layer networks."""
        raise ValueError(
            "The problem's penalty on the imbalance is defined for two-layer models, but the model is a "
            f"{type(self).__name__}: build the problem without `regularized`."
        )

    def saddle(self, problem: AbstractProblem) -> str | None:
        """In words, the saddle that this concrete start is, which gradients never leave; `None` if it is not known to be one."""
        return None

    # By how much what is small in the weights can grow faster than sigma_1 of the loss's gradient, where that is a number.
    growth_factor = None

    @property
    def factors(self) -> tuple[Float[Array, "_ h"], ...]:
        """The factors U and V, or the tied one, of a network whose weights are moved by one matrix from the left; else none."""
        return ()

    def generator(self, problem: AbstractProblem) -> Float[Array, "_ _"] | None:
        """B, which moves the weights: `U' = B V, V' = B^T U`, or `U' = B U` for tied layers; `None` for other networks."""
        return None

    def fastest_rate(self, problem: AbstractProblem) -> Float[Array, ""] | None:
        r"""A bound on the fastest rate of the flow here, for chains under least squares; `None` where there is none.

        `q s_1^2 sum_l prod_{i != l} ||W_i||^2 + q s_1 ||E|| sum_{l < k} prod_{i != l, k} ||W_i||`, and what a penalty on the
        imbalance adds.
        """
        layers = self.moving_layers(problem)
        if layers is None or not problem.is_quadratic:
            return None
        norms, depth, s = [jnp.sqrt(jnp.sum(W**2)) for W in layers], range(len(layers)), problem.singular_values[0]
        error = jnp.sqrt(jnp.sum(problem.error(chain(layers)) ** 2))
        skip = lambda *out: math.prod(x for i, x in enumerate(norms) if i not in out)  # noqa: E731
        pairs = sum(skip(i, j) for i in depth for j in depth if i < j)
        fastest = problem.scale * s * (s * sum(skip(i) ** 2 for i in depth) + error * pairs)
        if problem.penalty is not None:
            fastest = fastest + problem.penalty.fastest_rate(layers[0], layers[1].T)
        return fastest

    def __check_init__(self):
        # The reduction and the implicit methods know the kinds of this package by their formulas.
        for base in type(self).__mro__[1:]:
            if base.__module__ == __name__ and base is not AbstractModel and issubclass(base, AbstractModel):
                _checks.refuse_overrides(type(self), base)


class LinearModel(AbstractModel):
    """One layer, `Theta` of shape (n, m).

    **Source:** T21 section 2, G19 section 3.1.
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

    def velocity(self, problem: AbstractProblem) -> "LinearModel":
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

    **Source:** T21 section 2, (3) and (5) [needs Y = Y^T there].
    """

    U: Float[Array, "n h"]
    is_gradient_flow: ClassVar[bool] = True

    @public
    def __init__(self, U: Float[ArrayLike, "n h"]):
        self.U = _checks.as_matrix(U, "U", "(n, h)")

    @property
    def width(self) -> int:
        """h."""
        return self.U.shape[1]

    def product(self) -> Float[Array, "n n"]:
        return self.U @ self.U.T

    def sizes(self, problem: AbstractProblem) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
        n, m = problem.num_inputs, problem.num_outputs
        if n != m:
            raise ValueError(
                "The model does not fit the problem: tied layers, U U^T, need a square target, n = m, but the problem has "
                f"n = {n} inputs and m = {m} outputs; use a `TwoLayer`."
            )
        return "(U rows, U rows)", (n, m), (self.U.shape[0], self.U.shape[0])

    def saddle(self, problem: AbstractProblem) -> str | None:
        return "the saddle U = 0" if _is_zero(self.U) else None

    @property
    def factors(self) -> tuple[Float[Array, "n h"]]:
        return (self.U,)

    def generator(self, problem: AbstractProblem) -> Float[Array, "n n"]:
        G = problem.loss_gradient(self.product())
        return -(G + G.T)

    def fastest_rate(self, problem: AbstractProblem) -> Float[Array, ""] | None:
        if not problem.is_quadratic:
            return None
        s, error = problem.singular_values[0], jnp.sqrt(jnp.sum(problem.error(self.reduced_product(problem)) ** 2))
        return 2 * problem.scale * s * (2 * s * jnp.sum(self.U**2) + error)

    def velocity(self, problem: AbstractProblem) -> "SymmetricFactors":
        refuse_penalty(self, problem)
        G = problem.loss_gradient(self.product())
        return type(self)(-(G @ self.U + G.T @ self.U))


class TwoLayer(AbstractModel):
    """Two layers, `Theta = U V^T` with U of shape (n, h) and V of shape (m, h).

    **Raises:** `ValueError` if the widths of U and V differ.

    **Source:** T21 (11), M22 (2).
    """

    U: Float[Array, "n h"]
    V: Float[Array, "m h"]
    is_gradient_flow: ClassVar[bool] = True

    @public
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

    @property
    def layers(self) -> tuple[Float[Array, "n h"], Float[Array, "h m"]]:
        """U and V^T, as `DeepLinear` has them."""
        return self.U, self.V.T

    def moving_layers(self, problem: AbstractProblem) -> tuple[Float[Array, "r h"], Float[Array, "h m"]]:
        return problem.to_data(self.U), self.V.T

    def frozen_rows(self, problem: AbstractProblem) -> tuple[Float[Array, "n h"], Float[Array, ""]]:
        return self.U - problem.from_data(problem.to_data(self.U)), norm(self.U)

    def sizes(self, problem: AbstractProblem) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
        fitting = (problem.num_inputs, problem.num_outputs)
        return "(U rows, V rows)", fitting, (self.U.shape[0], self.V.shape[0])

    def check_penalty(self, penalty: ImbalancePenalty) -> None:
        penalty.check_width(self.width)

    def saddle(self, problem: AbstractProblem) -> str | None:
        if _checks.is_traced(self.U, self.V) or not _is_zero(self.V):
            return None
        if _is_zero(self.U):
            return "the saddle U = 0, V = 0"
        if not _checks.is_traced(*jax.tree.leaves(problem)):
            moving, total = (float(norm(U)) for U in (problem.to_data(self.U), self.U))
            if moving <= 10 * float(jnp.finfo(self.U.dtype).eps) * total:
                return "the saddle Phi1^T U = 0, V = 0 (U lies in directions that no sample has)"
        return None

    @property
    def factors(self) -> tuple[Float[Array, "n h"], Float[Array, "m h"]]:
        return self.U, self.V

    def generator(self, problem: AbstractProblem) -> Float[Array, "n m"]:
        return -problem.loss_gradient(self.product())

    def velocity(self, problem: AbstractProblem) -> "TwoLayer":
        G = problem.loss_gradient(self.product())
        U_velocity, V_velocity = -(G @ self.V), -(G.T @ self.U)
        if problem.penalty is not None:
            pull_U1, pull_V = problem.penalty.gradients(problem.to_data(self.U), self.V)
            U_velocity, V_velocity = U_velocity - problem.from_data(pull_U1), V_velocity - pull_V
        return type(self)(U_velocity, V_velocity)

    def imbalance_spectrum(self) -> Float[Array, " k"]:
        """Eigenvalues of `U^T U - V^T V` in descending order, k = min(h, n + m); the other h - k are zero.

        Conserved by the flow. The rate bounds of M22 need `theory.imbalance`, which takes the moving part of U only.
        """
        return signature_spectrum(jnp.concatenate([self.U, self.V]), _signs(self.U, self.V))


class DeepLinear(AbstractModel):
    r"""A network of any depth, `Theta = W1 W2 ... WL` with `W_l` of shape (d_{l-1}, d_l), `d_0 = n` and `d_L = m`.

    The flow is `W_l' = -(W1 ... W_{l-1})^T G (W_{l+1} ... WL)^T`, with G the gradient of the loss with respect to Theta. It
    conserves every `W_l^T W_l - W_{l+1} W_{l+1}^T`.

    **Args:** `layers`, a sequence of L >= 1 matrices. `DeepLinear((U, V.T))` is the network of `TwoLayer(U, V)`.

    **Raises:** `ValueError` for no layers, or layers whose sizes do not chain.

    **Notes:** products are taken from the narrower end of the network, so a velocity costs about `3 min(n, m)` times the
    number of weights, and nothing larger than the weights is formed. Problems with a penalty on the imbalance are refused.

    **Source:** G19 (2) and (12).
    """

    layers: tuple[Float[Array, "_ _"], ...]
    is_gradient_flow: ClassVar[bool] = True

    @public
    def __init__(self, layers: Sequence[Float[ArrayLike, "_ _"]]):
        self.layers = check_layers(layers)

    @property
    def depth(self) -> int:
        """L."""
        return len(self.layers)

    @property
    def widths(self) -> tuple[int, ...]:
        """The sizes of the hidden layers, d_1 to d_{L-1}."""
        return tuple(W.shape[1] for W in self.layers[:-1])

    def product(self) -> Float[Array, "n m"]:
        return chain(self.layers)

    def moving_layers(self, problem: AbstractProblem) -> tuple[Float[Array, "_ _"], ...]:
        return (problem.to_data(self.layers[0]), *self.layers[1:])

    def sizes(self, problem: AbstractProblem) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
        fitting = (problem.num_inputs, problem.num_outputs)
        return "(W1 rows, WL columns)", fitting, (self.layers[0].shape[0], self.layers[-1].shape[1])

    def saddle(self, problem: AbstractProblem) -> str | None:
        return _two_zeros(self.layers)

    def velocity(self, problem: AbstractProblem) -> "DeepLinear":
        refuse_penalty(self, problem)
        G = problem.loss_gradient(self.product())
        return type(self)(tuple(-g for g in chain_gradients(self.layers, G)))

    def imbalances(self) -> tuple[Float[Array, "_ _"], ...]:
        """`D_l = W_l^T W_l - W_{l+1} W_{l+1}^T` for the L - 1 hidden layers, each of shape (d_l, d_l); the flow conserves them.

        For two layers it is the `U^T U - V^T V` of `TwoLayer`.
        """
        return tuple(W.T @ W - after @ after.T for W, after in pairwise(self.layers))

    def imbalance_spectra(self) -> tuple[Float[Array, " _"], ...]:
        """Eigenvalues of every `D_l` in descending order, `min(d_l, d_{l-1} + d_{l+1})` of them; the others are zero."""
        stacked = ((jnp.concatenate([W, after.T]), _signs(W, after.T)) for W, after in pairwise(self.layers))
        return tuple(signature_spectrum(rows, signs) for rows, signs in stacked)


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
    Problems with a penalty on the imbalance are refused.

    **Source:** TAJ24 (the mixed dynamics); the form for unequal layers is this package's own.
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

    def velocity(self, problem: AbstractProblem) -> "WideLimit":
        refuse_penalty(self, problem)
        G = problem.loss_gradient(self.Theta)
        rows, columns = gram_roots(self.Theta, self.level)
        return type(self)(-(rows @ G + G @ columns), jnp.zeros_like(self.level))


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
        _refuse_matrix(penalty)

    def saddle(self, problem: AbstractProblem) -> str | None:
        return "the saddle U = 0, V = 0" if _is_zero(self.U1, self.V) else None

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
        return _two_zeros(self.layers)

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


def check_layers(layers: Sequence) -> tuple[Array, ...]:
    """The layers of a deep network as matrices of one dtype, after making sure that their sizes chain."""
    if isinstance(layers, (str, Mapping)) or getattr(layers, "ndim", None) in (0, 1, 2) or len(layers) == 0:
        raise ValueError("Argument `layers` must be a sequence of at least one matrix: for a single layer pass `(W,)`.")
    matrices = [_checks.as_matrix(W, f"layers[{i}]", f"(d_{i}, d_{i + 1})") for i, W in enumerate(layers)]
    for i, (W, after) in enumerate(pairwise(matrices)):
        if W.shape[1] != after.shape[0]:
            raise ValueError(
                f"Argument `layers` must chain, (n, h1), (h1, h2), ..., but layers[{i}] has {W.shape[1]} columns "
                f"and layers[{i + 1}] has {after.shape[0]} rows."
            )
    dtype = jnp.result_type(*matrices)
    return tuple(W.astype(dtype) for W in matrices)


def chain(layers: Sequence[Float[Array, "_ _"]]) -> Float[Array, "n m"]:
    """`W1 W2 ... WL`, multiplied from the narrower end."""
    if layers[0].shape[0] <= layers[-1].shape[1]:
        return functools.reduce(jnp.matmul, layers)
    return functools.reduce(lambda behind, W: W @ behind, reversed(layers))


def chain_gradients(layers: Sequence[Float[Array, "_ _"]], G: Float[Array, "n m"]) -> tuple[Float[Array, "_ _"], ...]:
    """`(W1 ... W_{l-1})^T G (W_{l+1} ... WL)^T` for every l: the gradients of a function of the product whose own is G.

    From the side of the n rows or of the m columns, whichever are fewer: each intermediate matrix has that many.
    """
    if G.shape[0] > G.shape[1]:
        turned = chain_gradients([W.T for W in reversed(layers)], G.T)
        return tuple(g.T for g in reversed(turned))
    before = [None, *itertools.accumulate(layers[:-1], jnp.matmul)]
    after = itertools.accumulate(reversed(layers[1:]), lambda E, W: E @ W.T, initial=G)
    pairs = zip(before, reversed(list(after)), strict=True)
    return tuple(E if P is None else P.T @ E for P, E in pairs)


def _signs(U: Array, V: Array) -> Float[Array, " p"]:
    return jnp.concatenate([jnp.ones(U.shape[0], U.dtype), -jnp.ones(V.shape[0], V.dtype)])


def _is_zero(*weights: Array) -> bool:
    """Whether concrete weights are all zero."""
    return not _checks.is_traced(*weights) and not any(np.any(np.asarray(W)) for W in weights)


def _two_zeros(layers: Sequence[Array]) -> str | None:
    zeros = [f"W{i + 1} = 0" for i, W in enumerate(layers) if _is_zero(W)]
    return "a saddle, " + " and ".join(zeros[:2]) if len(zeros) > 1 else None


def refuse_matrix_penalty(problem: AbstractProblem) -> None:
    """Refuses a penalty whose target is a matrix, where only rotation-invariant ones make sense."""
    if problem.penalty is not None:
        _refuse_matrix(problem.penalty)


def _refuse_matrix(penalty: ImbalancePenalty) -> None:
    if not penalty.is_isotropic:
        raise ValueError(
            "The width reduction is not exact for a penalty whose Lambda is a matrix, which singles out directions of the "
            "hidden layer: give Lambda as a number, or move a `TwoLayer` in full size (the solvers do so by themselves)."
        )


def refuse_penalty(model: AbstractModel, problem: AbstractProblem) -> None:
    """Refuses a penalty on the imbalance for a model that has none."""
    if problem.penalty is not None:
        AbstractModel.check_penalty(model, problem.penalty)
