"""Networks under first-order flows other than gradient flow: with momentum, and with polar velocities."""

import itertools
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .. import _checks
from .._polar import polar
from .._public import public
from ..problems import AbstractProblem, Penalised
from .base import AbstractChain, AbstractModel
from .reduction import Reduction


class AbstractFlow(AbstractModel):
    """A network whose weights move otherwise than down the gradient; observables are those of the `network`.

    The network may be any that moves by the gradient of the loss, a `Reduction` or a core drawn at any width too.
    """

    network: eqx.AbstractVar[AbstractModel]

    @property
    def observed(self) -> AbstractModel:
        return self.network.observed

    @property
    def is_reduced(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.network.is_reduced

    @property
    def is_gradient_flow(self) -> bool:
        return False

    def product(self) -> Float[Array, "n m"]:
        return self.network.product()

    def reduced_product(self, problem: AbstractProblem) -> Float[Array, "r m"]:
        return self.network.reduced_product(problem)

    def full_product(self, problem: AbstractProblem) -> Float[Array, "n m"]:
        return self.network.full_product(problem)

    def moving_layers(self, problem: AbstractProblem) -> tuple[Float[Array, "_ _"], ...] | None:
        return self.network.moving_layers(problem)

    def sizes(self, problem: AbstractProblem) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
        return self.network.sizes(problem)

    def check_data(self, problem: AbstractProblem) -> None:
        self.network.check_data(problem)

    def check_penalty(self, penalty: Penalised) -> None:
        if penalty.weight_decay is not None:
            super().check_penalty(penalty)
        self.network.check_penalty(penalty)

    def to_state(self) -> AbstractModel:
        raise ValueError(
            f"A {type(self).__name__} moves by a flow and takes no steps: descend the network itself, with an optimizer such "
            "as `optax.sgd(0.01, momentum=0.9)` or `ld.polar_descent(0.01)`."
        )


class Momentum(AbstractFlow):
    r"""A network under the momentum flow, `eps Z'' + Z' = -grad L(Z)` for all weights Z.

    It is integrated as `Z' = (W - Z)/eps`, `W' = -grad L(Z)` with the leading point `W = Z + eps Z'`. As eps -> 0 it becomes the
    gradient flow. The energy `L + (eps/2) ||Z'||^2` falls at the rate `||Z'||^2`. For every hidden layer, with the weights Z
    before and behind it stacked, the angular momentum `M = Z^T Z' - Z'^T Z` decays as `M(t) = e^{-t/eps} M(0)`, exactly. The
    imbalance D is not conserved: `eps D'' + D' = 2 eps (U'^T U' - V'^T V')`, and so for the two layers of any depth.

    **Args:**

    - `network`: the weights at time 0, any network that moves by the gradient of a loss.
    - `epsilon`: eps > 0, a time; may be traced, one for each trajectory of a batch.
    - `speed`: Z' at time 0, a network of the same kind and shapes (that of the core, for a reduced network); at rest by default.

    **Raises:** `ValueError` for an epsilon that is not positive, a speed of other kind or shapes, or a network with a flow of its
    own, such as `WideLimit`.

    **Notes:** pass it to `gradient_flow` in the place of a network; the result's `final` has the network at the end, with its
    speed, from where the flow may be continued. From rest it is reduced as the network is, since W begins in the span of Z.
    From a given speed the full size is moved. Explicit solvers need steps of the order of eps.

    **Source:** the heavy-ball equation; the laws of M and D are this package's own.

    Example:

        >>> problem = ld.factorization(jnp.diag(jnp.array([2.0, 1.0])))
        >>> start = ld.TwoLayer(0.1 * jnp.eye(2), 0.1 * jnp.eye(2))
        >>> flow = ld.gradient_flow(ld.Momentum(start, epsilon=0.5), problem, [0.0, 30.0])
        >>> print(jnp.diag(flow.final.network.product()))
        [2. 1.]
    """

    network: AbstractModel
    lead: AbstractModel
    epsilon: Float[Array, ""]
    at_rest: bool = eqx.field(static=True)

    @public
    def __init__(self, network: AbstractModel, epsilon: Float[ArrayLike, ""], speed: AbstractModel | None = None):
        _refuse_own_flow(network, "momentum flow")
        _checks.check_positive(epsilon, "epsilon")
        core = _core(network)
        self.network, self.at_rest = network, speed is None
        self.epsilon = jnp.asarray(epsilon, jnp.result_type(*jax.tree.leaves(core)))
        self.lead = core
        if speed is not None:
            kinds = [(type(one), [leaf.shape for leaf in jax.tree.leaves(one)]) for one in (speed, core)]
            if kinds[0] != kinds[1]:
                raise ValueError(
                    f"Argument `speed` must be a {kinds[1][0].__name__} with leaves of shapes {kinds[1][1]}, as what moves, but "
                    f"is a {kinds[0][0].__name__} with {kinds[0][1]}."
                )
            self.lead = jax.tree.map(lambda z, v: z + self.epsilon * v, core, speed)

    @property
    def speed(self) -> AbstractModel:
        """Z', as a network of the kind of what moves."""
        return jax.tree.map(lambda w, z: (w - z) / self.epsilon, self.lead, _core(self.network))

    @property
    def kinetic_energy(self) -> Float[Array, ""]:
        """`(eps/2) ||Z'||_F^2`."""
        return self.epsilon / 2 * sum(jnp.sum(v**2) for v in jax.tree.leaves(self.speed))

    def angular_momenta(self) -> tuple[Float[Array, "_ _"], ...]:
        """`M = W_l^T W_l' - W_l'^T W_l + W_{l+1} W_{l+1}'^T - W_{l+1}' W_{l+1}^T` for every hidden layer, d_l x d_l.

        They decay as `e^{-t/eps}`. Of a wide network ask for those of its reduction, which are as large as its core.

        **Raises:** `ValueError` for a network that is no chain of layers.
        """
        return self._of_pairs(lambda W, dW, A, dA: W.T @ dW - dW.T @ W + A @ dA.T - dA @ A.T)

    def imbalance_forces(self) -> tuple[Float[Array, "_ _"], ...]:
        """`2 (W_l'^T W_l' - W_{l+1}' W_{l+1}'^T)` for every hidden layer: what drives `D'' + D'/eps`, instead of 0.

        **Raises:** as `angular_momenta`.
        """
        return self._of_pairs(lambda W, dW, A, dA: 2 * (dW.T @ dW - dA @ dA.T))

    def _of_pairs(self, form) -> tuple[Float[Array, "_ _"], ...]:
        _refuse_unchained(self.network, "The network")
        core, speed = cast(Any, _core(self.network)), cast(Any, self.speed)
        pairs = list(zip(core.layers, speed.layers, strict=True))
        return tuple(form(*a, *b) for a, b in itertools.pairwise(pairs))

    def moving(self) -> "Momentum":
        return self._with(jax.tree.map(lambda _: False, self), self.network.moving(), self.lead.moving())

    def velocity(self, problem: AbstractProblem) -> "Momentum":
        core, small = self.network.parts(problem)
        rest = jax.tree.map(jnp.zeros_like, self)
        return self._with(rest, rest.network.with_core(self.speed), core.velocity(small))

    def is_reducible(self, problem: AbstractProblem) -> bool:
        return self.at_rest and self.network.is_reducible(problem)

    def parts(self, problem: AbstractProblem) -> "tuple[Momentum, AbstractProblem]":
        core, small = self.network.parts(problem)
        return self._with(self, core, self.lead), small

    def with_core(self, core: Any, remainder: Float[Array, ""] | None = None) -> "Momentum":
        return self._with(self, self.network.with_core(core.network), core.lead)

    def lift(self) -> "Momentum":
        """The flow of the full-size network, of a reduced one."""
        reduced = _as_reduction(self.network)
        return self._with(self, reduced.lift(), reduced.with_core(self.lead).lift())

    def saddle(self, problem: AbstractProblem) -> str | None:
        return self.network.saddle(problem) if self.at_rest else None

    def fastest_rate(self, problem: AbstractProblem) -> Float[Array, ""] | None:
        fastest = self.network.fastest_rate(problem)
        return None if fastest is None else fastest + 1 / self.epsilon

    @staticmethod
    def _with(whole: "Momentum", network: AbstractModel, lead: AbstractModel) -> "Momentum":
        return eqx.tree_at(lambda tree: (tree.network, tree.lead), whole, (network, lead))


class Polar(AbstractFlow):
    r"""A chain of layers under the polar (spectral) flow: each moves by the polar factor of its descent direction.

    `W_l' = polar(-dL/dW_l)`, where `polar(A) = A (A^T A + delta^2 I)^{-1/2}` has the singular vectors of A and the values
    `s/sqrt(s^2 + delta^2)`, with 0 for s = 0. For delta = 0 all directions are learned at speed 1, whatever their size: from a
    spectral start u0 mode i is learned at `sqrt(sigma_i) - u0`, the weakest first (`exact.polar_modes`).

    **Args:** `network`, a `TwoLayer`, `SymmetricFactors` or `DeepLinear`, or a `Reduction` of one; `smoothing`, delta >= 0, in
    the units of the layers' gradients; may be traced.

    **Raises:** `ValueError` for another network, or a negative smoothing.

    **Notes:** pass it to `gradient_flow` in the place of a network. With delta = 0 the velocity jumps where a mode has been
    learned, which no solver steps over: the run then ends at its step limit. A small delta, below the gradients that matter,
    lets it go on, at rates of the order of 1/delta (`solver="kvaerno5"` for very small ones). A polar factor is a matrix
    times A, so the reduction is exact.

    **Source:** the continuous limit of orthogonalized updates (Muon: Jordan et al. 2024) without momentum.

    Example:

        >>> problem = ld.factorization(jnp.diag(jnp.array([2.0, 1.0])))
        >>> start = ld.Polar(ld.TwoLayer(0.1 * jnp.eye(2), 0.1 * jnp.eye(2)))
        >>> print(jnp.diag(start.network.velocity(problem).U))  # gradient flow: u (sigma - u^2)
        [0.199 0.099]
        >>> print(jnp.diag(start.velocity(problem).network.U))  # polar flow: all modes at speed 1
        [1. 1.]
    """

    network: AbstractModel
    smoothing: Float[Array, ""]

    @public
    def __init__(self, network: AbstractModel, smoothing: Float[ArrayLike, ""] | int = 0.0):
        _refuse_own_flow(network, "polar flow")
        _refuse_unchained(network, "Argument `network` of the polar flow")
        smoothing = _checks.as_float(smoothing, "smoothing")
        if smoothing.ndim or (not _checks.is_traced(smoothing) and not 0 <= float(smoothing) < float("inf")):
            raise ValueError(f"Argument `smoothing` must be a finite number of at least 0, but is {smoothing}.")
        self.network = network
        self.smoothing = smoothing.astype(jnp.result_type(*jax.tree.leaves(_core(network))))

    def moving(self) -> "Polar":
        return self._with(jax.tree.map(lambda _: False, self), self.network.moving())

    def velocity(self, problem: AbstractProblem) -> "Polar":
        core, small = self.network.parts(problem)
        turned = jax.tree.map(lambda A: polar(A, self.smoothing), core.velocity(small))
        rest = jax.tree.map(jnp.zeros_like, self)
        return self._with(rest, rest.network.with_core(turned))

    def is_reducible(self, problem: AbstractProblem) -> bool:
        return self.network.is_reducible(problem)

    def parts(self, problem: AbstractProblem) -> "tuple[Polar, AbstractProblem]":
        core, small = self.network.parts(problem)
        return self._with(self, core), small

    def with_core(self, core: Any, remainder: Float[Array, ""] | None = None) -> "Polar":
        return self._with(self, self.network.with_core(core.network))

    def lift(self) -> "Polar":
        """The flow of the full-size network, of a reduced one."""
        return self._with(self, _as_reduction(self.network).lift())

    def saddle(self, problem: AbstractProblem) -> str | None:
        return self.network.saddle(problem)

    def fastest_rate(self, problem: AbstractProblem) -> None:
        return None

    @staticmethod
    def _with(whole: "Polar", network: AbstractModel) -> "Polar":
        return eqx.tree_at(lambda tree: tree.network, whole, network)


def _core(network: AbstractModel) -> AbstractModel:
    """What moves of a network, reduced or not."""
    return cast(Any, network).core if network.is_reduced else network


def _refuse_unchained(network: AbstractModel, what: str) -> None:
    if not isinstance(_core(network), AbstractChain):
        raise ValueError(f"{what} must be a chain of layers, but is a {type(network).__name__}.")


def _as_reduction(network: AbstractModel) -> Reduction:
    if not network.is_reduced:
        raise ValueError(
            f"Only a flow of a reduced network can be lifted, but this is one of a {type(network).__name__}."
        )
    return cast(Reduction, network)


def _refuse_own_flow(network: AbstractModel, flow: str) -> None:
    if not network.is_gradient_flow:
        raise ValueError(
            f"The {flow} moves networks by the gradient of the loss, but a {type(network).__name__} has a flow of its own."
        )
