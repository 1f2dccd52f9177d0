"""What every network is: a point in weight space, with its end-to-end matrix and its velocity under gradient flow."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _checks, _html
from .._norms import norm, total
from .._public import role_of
from ..problems import AbstractProblem, Penalised
from ..problems.least_squares import is_least_squares
from .chains import chain

Model = TypeVar("Model", bound="AbstractModel")


class AbstractModel(eqx.Module):
    """A point in weight space, with its end-to-end matrix and its velocity under gradient flow.

    A network of your own is a subclass with `product`. Flow, descent, ensembles and every observable that is defined for it then
    take it; what asks for layers says so.

    Example:

        >>> class Squares(ld.AbstractModel):
        ...     u: jax.Array
        ...
        ...     def product(self):
        ...         return self.u[:, None] ** 2
        >>> start = Squares(jnp.array([0.1, 0.1]))
        >>> problem = ld.factorization(jnp.array([[2.0], [1.0]]))
        >>> print(ld.gradient_flow(start, problem, [0.0, 10.0]).final.product().T)
        [[2. 1.]]
    """

    # Whether the coordinates are those of a larger network.
    is_reduced: ClassVar[bool] = False
    # Whether what the data do not see of a network's rows stays, so that a core of this kind moves `Phi1^T Theta` alone.
    leaves_inputs: ClassVar[bool] = False

    def _repr_html_(self) -> str:
        return _html.card(type(self).__name__, [], ("array", "type", "size"), _html.arrays_of(self))

    @property
    def is_gradient_flow(self) -> bool:
        """Whether the velocity is known to be minus the gradient of the loss: a class that replaces it has to say so."""
        kind = type(self)
        return kind.velocity is AbstractModel.velocity and kind.loss_velocity is AbstractModel.loss_velocity

    @property
    def observed(self) -> "AbstractModel":
        """The network that observables are asked of."""
        return self

    @abstractmethod
    def product(self) -> Float[Array, "n m"]:
        """The end-to-end matrix Theta; the network computes `x -> Theta^T x`."""

    def velocity(self: Model, problem: AbstractProblem) -> Model:
        """d(weights)/dt under gradient flow, minus the gradient of the problem's loss and terms, as a model of the same kind."""
        velocity: Any = self.loss_velocity(problem)
        if problem.penalty is None:
            return velocity
        self.check_penalty(problem.penalty)
        return problem.penalty.pull(velocity, self)

    def loss_velocity(self, problem: AbstractProblem) -> "AbstractModel":
        """Minus the gradient of the loss alone."""
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

    def velocity_norm(self, problem: AbstractProblem) -> Float[Array, ""]:
        """The norm of the velocity of all weights, those that only weight decay moves among them."""
        return norm(*jax.tree.leaves(eqx.filter(self.velocity(problem), self.moving())))

    # -- the smallest exact form, for kinds that have one; any other is moved as it is ----------------------------------

    def is_reducible(self, problem: AbstractProblem) -> bool:
        """Whether a smaller form can be made inside of jit, whatever the weights are."""
        return False

    def parts(self, problem: AbstractProblem) -> "tuple[AbstractModel, AbstractProblem]":
        """The ordinary network that moves, and the problem that it moves on."""
        return self, problem

    def with_core(self, core: "AbstractModel", remainder: Float[Array, ""] | None = None) -> "AbstractModel":
        """This network with what moves at another place, and what no gradient moves multiplied by a number."""
        return core

    def check_data(self, problem: AbstractProblem) -> None:
        """Refuses a problem in other coordinates than those that this network was made in, with a `ValueError`."""

    def rest_drift(self, i: int) -> Float[Array, ""] | None:
        """How far what is left out of hidden layer i has moved its imbalance; `None` where nothing is."""
        return None

    def to_state(self) -> "AbstractModel":
        """What an optimizer moves."""
        return eqx.filter(self, self.moving())

    def from_state(self, state: "AbstractModel") -> "AbstractModel":
        """The network that a state made by `to_state` stands for."""
        return eqx.combine(state, eqx.filter(self, self.moving(), inverse=True))

    def state_velocity(self, problem: AbstractProblem) -> "AbstractModel":
        """The velocity in the form of `to_state`."""
        return eqx.filter(self.velocity(problem), self.moving())

    # -- what the data do not reach ---------------------------------------------------------------------------------------

    def frozen_product(self, problem: AbstractProblem) -> Float[Array, "f m"] | None:
        """A matrix with the singular values of `Phi2^T Theta`, what the data do not see of Theta; `None` if they see all of it.

        **Raises:** `ValueError` for a reduced network that was made without it.
        """
        if problem.num_frozen == 0:
            return None
        Theta = self.product()
        return Theta - problem.from_data(problem.to_data(Theta))

    def full_product(self, problem: AbstractProblem, key: Any = None) -> Float[Array, "n m"]:
        """Theta in the coordinates of the inputs, of a reduced network too; of one that was drawn with a frame drawn by `key`.

        **Raises:** `ValueError` for a core that was drawn, without a key for the rows that its data do not see.
        """
        return self.product()

    def frozen_rows(self, problem: AbstractProblem) -> tuple[Float[Array, "f k"], Float[Array, ""]]:
        """`U2 = Phi2^T U`, what the data do not move of a first layer, up to a rotation of its rows; and the size of what it was
        made of, whose round-off it carries.
        """
        raise ValueError(f"The frozen part U2 is that of a two-layer model, but the model is a {type(self).__name__}.")

    def scaled(self: Model, factor: Float[Array, ""]) -> Model:
        """This network with all of its weights multiplied by a number."""
        return jax.tree.map(lambda weight, moves: factor * weight if moves else weight, self, self.moving())

    def reduced_product(self, problem: AbstractProblem) -> Float[Array, "r m"]:
        """Phi1^T Theta, the part of the end-to-end matrix that the data see."""
        return problem.to_data(self.product())

    def sizes(self, problem: AbstractProblem) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
        """What of this model has to fit the problem: a name, what it must be, and what it is."""
        fitting = (problem.num_inputs, problem.num_outputs)
        return "the shape of its product", fitting, jax.eval_shape(self.product).shape

    def check_penalty(self, penalty: Penalised) -> None:
        """Refuses terms that this model has no use for: on the imbalance, but for two-layer networks, and any in other flows."""
        own = not self.is_gradient_flow or type(self).velocity is not AbstractModel.velocity
        if own and penalty.weight_decay is not None:
            raise ValueError(
                f"Weight decay is defined for gradient flows, but a {type(self).__name__} has a velocity of its own: build the "
                "problem without it."
            )
        if penalty.imbalance is not None:
            raise ValueError(
                "The problem's penalty on the imbalance is defined for two-layer models, but the model is a "
                f"{type(self).__name__}: build the problem without `regularized`."
            )

    def squared_norm(self, problem: AbstractProblem) -> Float[Array, ""]:
        """`||weights||^2`, of all that moves and of what the problem does not see."""
        return total(jnp.sum(leaf**2) for leaf in jax.tree.leaves(eqx.filter(self, self.moving())))

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

        `q s_1^2 sum_l prod_{i != l} ||W_i||^2 + q s_1 ||E|| sum_{l < k} prod_{i != l, k} ||W_i||`, and what terms on the weights
        add.
        """
        layers, terms, problem = self.moving_layers(problem), problem.penalty, problem.plain
        if layers is None or not is_least_squares(problem):
            return None
        norms, depth, s = [jnp.sqrt(jnp.sum(W**2)) for W in layers], range(len(layers)), problem.singular_values[0]
        error = jnp.sqrt(jnp.sum(problem.error(chain(layers)) ** 2))
        skip = lambda *out: math.prod(x for i, x in enumerate(norms) if i not in out)  # noqa: E731
        pairs = sum(skip(i, j) for i in depth for j in depth if i < j)
        fastest = problem.scale * s * (s * sum(skip(i) ** 2 for i in depth) + error * pairs)
        return fastest if terms is None else fastest + terms.fastest_rate(layers)

    def __check_init__(self):
        # The reduction and the implicit methods know the kinds of this package by their formulas.
        for base in type(self).__mro__[1:]:
            if (
                base.__module__.startswith(__name__.rpartition(".")[0])
                and not base.__name__.startswith("Abstract")
                and issubclass(base, AbstractModel)
            ):
                _checks.refuse_overrides(type(self), base)


role_of.register(AbstractModel, lambda model: "model")


class AbstractChain(AbstractModel):
    """A network whose product is that of its layers, which are all that moves: it may be the core of a `Reduction`.

    **Fields:** `layers`, the matrices W1, ..., WL, U and V^T for two of them; `frames`, for each matrix of weights what its rows
    and its columns belong to: axes of one name are turned alike.
    """

    layers: eqx.AbstractVar[tuple[Array, ...]]
    frames: eqx.AbstractVar[tuple[tuple[str | int, str | int], ...]]

    @abstractmethod
    def with_layers(self, layers: Sequence[Array]) -> "AbstractChain":
        """The network of other layers, as `layers` has them."""

    @abstractmethod
    def loss_velocity(self, problem: AbstractProblem) -> "AbstractChain":
        """Minus the gradient of the problem's loss in the layers."""


def refuse_matrix_penalty(problem: AbstractProblem) -> None:
    """Refuses a penalty whose target is a matrix, where only rotation-invariant ones make sense."""
    if problem.penalty is not None and not problem.penalty.is_isotropic:
        raise ValueError(
            "The width reduction is not exact for a penalty whose Lambda is a matrix, which singles out directions of the "
            "hidden layer: give Lambda as a number, or move a `TwoLayer` in full size (the solvers do so by themselves)."
        )
