"""Terms on the weights around a problem of any kind: weight decay, and the penalty on the imbalance."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from .. import _checks
from .._public import public
from .base import AbstractProblem, Draw
from .penalty import ImbalancePenalty


class Penalised(AbstractProblem):
    r"""A problem of any kind with terms on the weights, `L(Theta) + (beta/2) ||weights||^2 + w ||D - Lambda||_F^2`.

    Flow and descent follow all of it. What is about the data goes on meaning L alone: `loss` and `excess_loss`, and so `stop` and
    `stop_loss` of the solvers; `observables.penalty` and `observables.total_loss` give the rest.

    **Args:**

    - `problem`: the data's problem, without terms of its own.
    - `weight_decay`: beta >= 0, for all weights that the dynamics moves, those that the data do not see too. May be traced.
    - `imbalance`: an `ImbalancePenalty`, for networks of two layers.

    **Raises:** `ValueError` for a decay that is negative or not finite, for no term at all, or a problem that has terms already.

    **Notes:** weight decay commutes with the reduction of the width, and the imbalance of neighbouring layers decays under the
    flow of any loss, `D(t) = e^{-2 beta t} D(0)`. What knows the loss alone refuses the type: closed forms, limits, bounds, the
    implicit solver and the one on the group. The closed form for `factorization(Y)` is `exact.decayed` from a balanced start, and
    from any with `imbalance=ImbalancePenalty(0.0)`.

    **Source:** T21 Proposition 4 and (26) for the imbalance; the decay of D is this package's own.

    Example:

        >>> Y = jnp.diag(jnp.array([2.0, 1.0]))
        >>> problem = ld.Penalised(ld.factorization(Y), weight_decay=0.5)
        >>> start = ld.TwoLayer(0.1 * jnp.eye(2), 0.1 * jnp.eye(2))
        >>> flow = ld.gradient_flow(start, problem, [0.0, 50.0])
        >>> print(jnp.diag(flow.final.product()))  # the decay is taken off the singular values
        [1.5 0.5]
        >>> print(ld.observables.total_loss(flow.final, problem))  # 2 (0.5^2)/2 + 0.5 (1.5 + 0.5)
        1.25
    """

    problem: AbstractProblem
    weight_decay: Float[Array, ""] | None
    imbalance: ImbalancePenalty | None

    @public
    def __init__(
        self,
        problem: AbstractProblem,
        *,
        weight_decay: Float[ArrayLike, ""] | int | None = None,
        imbalance: ImbalancePenalty | None = None,
    ):
        if problem.penalty is not None:
            raise ValueError("Argument `problem` has terms on the weights already: give all of them at once.")
        if weight_decay is None and imbalance is None:
            raise ValueError("Give a term on the weights, `weight_decay` or `imbalance`.")
        if weight_decay is not None:
            weight_decay = _checks.as_float(weight_decay, "weight_decay").astype(problem.dtype)
            if weight_decay.ndim != 0:
                raise ValueError(f"Argument `weight_decay` must be a number, but has shape {weight_decay.shape}.")
            if not _checks.is_traced(weight_decay) and not 0 <= float(weight_decay) < np.inf:
                raise ValueError(
                    f"Argument `weight_decay` must be a finite number of at least 0, but is {float(weight_decay):g}."
                )
        self.problem, self.weight_decay = problem, weight_decay
        self.imbalance = None if imbalance is None else imbalance.astype(problem.dtype)

    # -- the data's problem --------------------------------------------------------------------------------------------

    @property
    def plain(self) -> AbstractProblem:
        return self.problem

    @property
    def num_inputs(self) -> int:
        return self.problem.num_inputs

    @property
    def num_outputs(self) -> int:
        return self.problem.num_outputs

    @property
    def rank(self) -> int:
        return self.problem.rank

    @property
    def dtype(self):
        return self.problem.dtype

    @property
    def singular_values(self) -> Float[Array, " r"]:
        return self.problem.singular_values

    @property
    def frame(self) -> Float[Array, "n r"] | None:
        return self.problem.frame

    @property
    def coordinates(self) -> Float[Array, " r"] | None:
        return self.problem.coordinates

    def restrict(self) -> "tuple[Penalised, Float[Array, 'n r'] | None]":
        small, frame = self.problem.restrict()
        return self._around(small), frame

    def restrict_outputs(self) -> "tuple[Penalised, Float[Array, 'm s'] | None]":
        if self.imbalance is not None:
            # It pulls at all outputs.
            return self, None
        small, frame = self.problem.restrict_outputs()
        return self._around(small), frame

    @property
    def num_samples(self) -> int | None:
        return self.problem.num_samples

    def sampled(self) -> "Penalised":  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._around(self.problem.sampled())

    def rows(self, index: Int[Array, " B"]) -> "Penalised":
        """That of some samples, with the same terms on the weights."""
        return self._around(self.problem.rows(index))

    def weighed(self, a: Float[Array, " N"]) -> "Penalised":
        """That in which sample i counts a_i times, with the same terms on the weights."""
        data: Any = self.problem
        return self._around(data.weighed(a))

    def fresh(self, X: Float[Array, "B n"], Y: Float[Array, "B m"]) -> "Penalised":
        """That of other samples of a problem of inputs and outputs, with the same terms on the weights."""
        data: Any = self.problem
        return self._around(data.fresh(X, Y))

    def noisy(self, draw: Draw) -> "Penalised":
        return self._around(self.problem.noisy(draw))

    def _around(self, problem: AbstractProblem) -> "Penalised":
        return eqx.tree_at(lambda tree: tree.problem, self, problem)

    def loss(self, Theta: Float[Array, "n m"]) -> Float[Array, ""]:
        """L(Theta), the data's loss alone."""
        return self.problem.loss(Theta)

    def loss_gradient(self, Theta: Float[Array, "n m"]) -> Float[Array, "n m"]:
        return self.problem.loss_gradient(Theta)

    def reduced_loss(self, Theta1: Float[Array, "r m"]) -> Float[Array, ""]:
        return self.problem.reduced_loss(Theta1)

    def refuse_link(self, name: str) -> None:
        """Refuses this problem, for `name`, which is about the loss alone."""
        raise ValueError(
            f"`{name}` is about the loss alone, but the problem {self.beyond}: pass its `plain`, the problem without."
        )

    # -- the terms -----------------------------------------------------------------------------------------------------

    @property
    def penalty(self) -> "Penalised":
        return self

    @property
    def beyond(self) -> str:
        names = (("weight decay", self.weight_decay), ("a penalty on the imbalance", self.imbalance))
        return "has " + " and ".join(name for name, term in names if term is not None)

    @property
    def is_isotropic(self) -> bool:
        """Whether no direction of the hidden layer is singled out, so that the width can be reduced."""
        return self.imbalance is None or self.imbalance.is_isotropic

    def value(self, model: Any) -> Float[Array, ""]:
        """The terms of a network that may have them."""
        total = jnp.zeros((), self.dtype)
        if self.weight_decay is not None:
            total = total + self.weight_decay / 2 * model.squared_norm(self)
        if self.imbalance is not None:
            U1, VT = model.moving_layers(self)
            total = total + self.imbalance.value(U1, VT.T, getattr(model, "width", None))
        return total

    def pull(self, velocity: Any, model: Any) -> Any:
        """A velocity of all weights, less the gradient of the terms."""
        if self.weight_decay is not None:
            decay = self.weight_decay
            less = lambda moved, weight, moves: moved - decay * weight if moves else moved  # noqa: E731
            velocity = jax.tree.map(less, velocity, model, model.moving())
        if self.imbalance is not None:
            U1, VT = model.moving_layers(self)
            pull_U1, pull_V = self.imbalance.gradients(U1, VT.T)
            first, second = velocity.layers
            velocity = velocity.with_layers((first - self.from_data(pull_U1), second - pull_V.T))
        return velocity

    def remainder(self, t: Float[Array, ""]) -> Float[Array, ""] | None:
        """What is left after a time of weights that no gradient of the loss moves, `e^{-beta t}`; `None` for all of them."""
        return None if self.weight_decay is None else jnp.exp(-self.weight_decay * t)

    def fastest_rate(self, layers: tuple[Array, ...]) -> Float[Array, ""]:
        """A bound on the norm of the derivative of the terms' gradient."""
        rate = jnp.zeros((), self.dtype) if self.weight_decay is None else self.weight_decay
        return rate if self.imbalance is None else rate + self.imbalance.fastest_rate(layers[0], layers[1].T)
