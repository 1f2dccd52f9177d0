"""Networks of any depth."""

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._linalg import signature_spectrum
from .._public import public
from ..problems import AbstractProblem
from .base import AbstractChain
from .chains import chain, chain_gradients, check_layers, signs, two_zeros


class DeepLinear(AbstractChain):
    r"""A network of any depth, `Theta = W1 W2 ... WL` with `W_l` of shape (d_{l-1}, d_l), `d_0 = n` and `d_L = m`.

    The flow is `W_l' = -(W1 ... W_{l-1})^T G (W_{l+1} ... WL)^T`, with G the gradient of the loss with respect to Theta. It
    conserves every `W_l^T W_l - W_{l+1} W_{l+1}^T`.

    **Args:** `layers`, a sequence of L >= 1 matrices. `DeepLinear((U, V.T))` is the network of `TwoLayer(U, V)`.

    **Raises:** `ValueError` for no layers, or layers whose sizes do not chain.

    **Notes:** products are taken from the narrower end of the network, so a velocity costs about `3 min(n, m)` times the
    number of weights, and nothing larger than the weights is formed. Problems with a penalty on the imbalance are refused.

    **Source:** G19 (2) and (12).

    Example:

        >>> problem = ld.factorization(jnp.diag(jnp.array([2.0, 1.0])))
        >>> start = ld.DeepLinear([0.5 * jnp.eye(2)] * 3)
        >>> print(jnp.diag(start.product()))
        [0.125 0.125]
        >>> print(jnp.diag(start.velocity(problem).layers[0]))  # w^2 (sigma - w^3) for both modes
        [0.4688 0.2188]
    """

    layers: tuple[Float[Array, "_ _"], ...]
    is_gradient_flow: ClassVar[bool] = True
    leaves_inputs: ClassVar[bool] = True

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

    def with_layers(self, layers: Sequence[Array]) -> "DeepLinear":
        return type(self)(tuple(layers))

    @property
    def frames(self) -> tuple[tuple[int, int], ...]:
        return tuple((i, i + 1) for i in range(self.depth))

    def moving_layers(self, problem: AbstractProblem) -> tuple[Float[Array, "_ _"], ...]:
        return (problem.to_data(self.layers[0]), *self.layers[1:])

    def sizes(self, problem: AbstractProblem) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
        fitting = (problem.num_inputs, problem.num_outputs)
        return "(W1 rows, WL columns)", fitting, (self.layers[0].shape[0], self.layers[-1].shape[1])

    def saddle(self, problem: AbstractProblem) -> str | None:
        return two_zeros(self.layers)

    def loss_velocity(self, problem: AbstractProblem) -> "DeepLinear":
        G = problem.loss_gradient(self.product())
        return type(self)(tuple(-g for g in chain_gradients(self.layers, G)))

    def imbalances(self) -> tuple[Float[Array, "_ _"], ...]:
        """`D_l = W_l^T W_l - W_{l+1} W_{l+1}^T` for the L - 1 hidden layers, each of shape (d_l, d_l); the flow conserves them.

        For two layers it is the `U^T U - V^T V` of `TwoLayer`.
        """
        return tuple(W.T @ W - after @ after.T for W, after in pairwise(self.layers))

    def imbalance_spectra(self) -> tuple[Float[Array, " _"], ...]:
        """Eigenvalues of every `D_l` in descending order, `min(d_l, d_{l-1} + d_{l+1})` of them; the others are zero."""
        stacked = ((jnp.concatenate([W, after.T]), signs(W, after.T)) for W, after in pairwise(self.layers))
        return tuple(signature_spectrum(rows, signs) for rows, signs in stacked)
