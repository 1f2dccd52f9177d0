"""Networks made of two-layer parts: a part added to a matrix that stays, and parts that see inputs through gates."""

from collections.abc import Sequence
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float

from .. import _checks
from .._linalg import row_factor
from .._public import public
from ..problems import AbstractProblem
from .base import AbstractModel
from .chains import is_zero
from .two_layer import TwoLayer


class LoRA(AbstractModel):
    """A low-rank adapter, `Theta = base + U V^T`: the base stays, U and V move.

    **Args:** `base`, shape (n, m); `U`, shape (n, h), and `V`, shape (m, h), one of them usually zero.

    **Raises:** `ValueError` for shapes that do not fit together.

    **Notes:** it moves as `TwoLayer(U, V)` on `residual(problem, base)`, which is reduced, and drawn at any width; observables of
    a `LoRA` are those of the whole product. A wide one is moved as it is: `narrow()` first.

    **Source:** Hu et al. (2022).

    Example:

        >>> base = jnp.diag(jnp.array([2.0, 0.0]))
        >>> problem = ld.factorization(jnp.diag(jnp.array([3.0, 1.0])))
        >>> start = ld.LoRA(base, jnp.array([[0.1], [0.2]]), jnp.zeros((2, 1)))
        >>> print(start.product())
        [[2. 0.]
         [0. 0.]]
        >>> print(start.velocity(problem).V.T)  # (Y - base)^T U: towards what the base has not learned
        [[0.1 0.2]]
    """

    base: Float[Array, "n m"]
    U: Float[Array, "n h"]
    V: Float[Array, "m h"]
    is_gradient_flow: ClassVar[bool] = True

    @public
    def __init__(self, base: Float[ArrayLike, "n m"], U: Float[ArrayLike, "n h"], V: Float[ArrayLike, "m h"]):
        adapter, base = TwoLayer(U, V), _checks.as_matrix(base, "base", "(n, m)")
        expected = (adapter.U.shape[0], adapter.V.shape[0])
        if base.shape != expected:
            raise ValueError(f"Argument `base` must have shape {expected}, as U V^T, but has shape {base.shape}.")
        dtype = jnp.result_type(base, adapter.U)
        self.base, self.U, self.V = (W.astype(dtype) for W in (base, adapter.U, adapter.V))

    @property
    def adapter(self) -> TwoLayer:
        """What moves, as a network of its own."""
        return TwoLayer(self.U, self.V)

    def narrow(self) -> "LoRA":
        """The same network with at most n + m columns, turned into the basis that its weights span: exactly, now and later."""
        adapter = _narrowed(self.adapter)
        return type(self)(self.base, adapter.U, adapter.V)

    def product(self) -> Float[Array, "n m"]:
        return self.base + self.U @ self.V.T

    def moving(self) -> "LoRA":
        return eqx.tree_at(lambda tree: tree.base, super().moving(), False)

    def loss_velocity(self, problem: AbstractProblem) -> "LoRA":
        G = problem.loss_gradient(self.product())
        return type(self)(jnp.zeros_like(self.base), -(G @ self.V), -(G.T @ self.U))

    def saddle(self, problem: AbstractProblem) -> str | None:
        if _checks.is_traced(self.U, self.V) or not (is_zero(self.U) and is_zero(self.V)):
            return None
        return "the saddle U = 0, V = 0"


class Branched(AbstractModel):
    """Two-layer branches that see inputs of their own: `Theta = [U_1 V_1^T; ...; U_P V_P^T]`, and outputs are their sum.

    On `gated_inputs(X, gates)` it is a gated network, which is linear in every sample: branch p acts on the samples whose gate p
    is open. On other columns of inputs for each branch it is a network of several pathways.

    **Args:** `branches`, networks of two layers with the same number of outputs.

    **Raises:** `ValueError` for none, networks of other kinds, or different numbers of outputs.

    **Notes:** each branch keeps its imbalance `U_p^T U_p - V_p^T V_p` under the flow of any loss, and its columns beyond n_p + m
    are superfluous: `narrow()` is the same network without them, exactly, now and later.

    **Source:** Saxe, Sodhani and Lewallen (2022), gated deep linear networks of two layers.

    Example:

        >>> X = ld.gated_inputs(jnp.array([[1.0], [2.0]]), jnp.eye(2))  # a branch for each sample
        >>> problem = ld.LeastSquares(X, jnp.array([[2.0], [-2.0]]))
        >>> weights = ((2.0, 1.0), (1.0, -1.0))
        >>> model = ld.Branched([ld.TwoLayer(jnp.array([[u]]), jnp.array([[v]])) for u, v in weights])
        >>> print(model.product().T, (X @ model.product()).T, problem.loss(model.product()))
        [[ 2. -1.]] [[ 2. -2.]] 0.0
    """

    branches: tuple[TwoLayer, ...]
    is_gradient_flow: ClassVar[bool] = True

    @public
    def __init__(self, branches: Sequence[TwoLayer]):
        self.branches = tuple(branches)
        if not self.branches or any(len(getattr(branch, "factors", ())) != 2 for branch in self.branches):
            kinds = ", ".join(type(branch).__name__ for branch in self.branches)
            raise ValueError(f"Argument `branches` must be networks of two layers, one at least, but is ({kinds}).")
        outputs = [branch.V.shape[0] for branch in self.branches]
        if len(set(outputs)) > 1:
            raise ValueError(f"Argument `branches` must have the same number of outputs, but they have {outputs}.")

    def product(self) -> Float[Array, "n m"]:
        return jnp.concatenate([branch.product() for branch in self.branches])

    def loss_velocity(self, problem: AbstractProblem) -> "Branched":
        G, first, moved = problem.loss_gradient(self.product()), 0, []
        for branch in self.branches:
            rows = G[first : first + branch.U.shape[0]]
            first += branch.U.shape[0]
            moved.append(TwoLayer(-(rows @ branch.V), -(rows.T @ branch.U)))
        return type(self)(tuple(moved))

    def narrow(self) -> "Branched":
        """The same network with at most n_p + m columns in branch p, turned into the basis that its weights span."""
        return type(self)(tuple(map(_narrowed, self.branches)))

    def saddle(self, problem: AbstractProblem) -> str | None:
        first, n = 0, sum(len(branch.U) for branch in self.branches)
        for branch in self.branches:
            # A branch by itself is the network in which the others have no weights.
            U = jnp.pad(branch.U, ((first, n - first - len(branch.U)), (0, 0)))
            first += len(branch.U)
            if TwoLayer(U, branch.V).saddle(problem) is None:
                return None
        return "the saddle of all branches"


def _narrowed(network: TwoLayer) -> TwoLayer:
    """Two layers in the basis of the hidden space that their rows span, for which the problem need not be known."""
    m = network.V.shape[0]
    if network.width <= network.U.shape[0] + m:
        return network
    L, _ = row_factor(jnp.concatenate([network.V, network.U]))
    return TwoLayer(L[m:], L[:m])


@public
def gated_inputs(
    X: Float[ArrayLike, "N n"], gates: Float[ArrayLike, "N P"] | Bool[ArrayLike, "N P"]
) -> Float[Array, "N Pn"]:
    """Inputs as the branches of a gated network see them: `[gates_1 * X, ..., gates_P * X]`, shape (N, P n).

    **Args:** `X`, shape (N, n); `gates`, shape (N, P), 1 or True where branch p is open to a sample and 0 or False
    where it is not, or any weight.

    **Raises:** `ValueError` for matrices of other shapes.

    Example:

        >>> X = jnp.array([[1.0], [-2.0]])
        >>> inputs = ld.gated_inputs(X, jnp.concatenate([X > 0, X < 0], axis=1))
        >>> print(jnp.abs(inputs))
        [[1. 0.]
         [0. 2.]]
        >>> print(ld.LeastSquares(inputs, jnp.abs(X)).theta_hat.T)  # |x|, which is linear on either side of 0
        [[ 1. -1.]]
    """
    X, gates = _checks.as_matrix(X, "X", "(N, n)"), _checks.as_matrix(gates, "gates", "(N, P)")
    if gates.shape[0] != X.shape[0]:
        raise ValueError(
            f"Argument `gates` must have a row for each of the {X.shape[0]} samples, but has {gates.shape[0]}."
        )
    return (gates[:, :, None] * X[:, None, :]).reshape(X.shape[0], -1)
