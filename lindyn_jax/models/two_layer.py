"""Two layers, with weights of their own or tied."""

from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .. import _checks
from .._linalg import signature_spectrum
from .._norms import norm
from .._public import public
from ..problems import AbstractProblem, Penalised
from ..problems.least_squares import is_least_squares
from .base import AbstractChain
from .chains import is_zero, signs


class TwoLayer(AbstractChain):
    """Two layers, `Theta = U V^T` with U of shape (n, h) and V of shape (m, h).

    **Raises:** `ValueError` if the widths of U and V differ.

    **Source:** T21 (11), M22 (2).

    Example:

        >>> problem = ld.factorization(jnp.diag(jnp.array([2.0, 1.0])))
        >>> start = ld.TwoLayer(0.2 * jnp.eye(2), 0.1 * jnp.eye(2))
        >>> print(jnp.diag(start.product()), start.imbalance_spectrum())
        [0.02 0.02] [0.03 0.03]
        >>> end = ld.gradient_flow(start, problem, [0.0, 1.0, 20.0]).final
        >>> print(jnp.diag(end.product()), end.imbalance_spectrum())
        [2. 1.] [0.03 0.03]
    """

    U: Float[Array, "n h"]
    V: Float[Array, "m h"]
    is_gradient_flow: ClassVar[bool] = True
    leaves_inputs: ClassVar[bool] = True

    @public
    def __init__(self, U: Float[ArrayLike, "n h"], V: Float[ArrayLike, "m h"]):
        U, V = _checks.as_matrix(U, "U", "(n, h)"), _checks.as_matrix(V, "V", "(m, h)")
        if U.shape[1] != V.shape[1]:
            turned = [
                f"`{name}.T`"
                for name, fits in (("U", U.shape[0] == V.shape[1]), ("V", V.shape[0] == U.shape[1]))
                if fits
            ]
            turned = turned[:1] or (["`U.T, V.T`"] if U.shape[0] == V.shape[0] else [])
            hint = f": U is W1^T and V is W2 of x -> W2 W1 x, so {turned[0]} would fit." if turned else "."
            raise ValueError(
                f"Arguments `U` (n, h) and `V` (m, h) must have the same width h, but have {U.shape[1]} and {V.shape[1]}{hint}"
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

    def with_layers(self, layers: Sequence[Array]) -> "TwoLayer":
        return type(self)(layers[0], layers[1].T)

    @property
    def frames(self) -> tuple[tuple[str, str], ...]:
        return (("inputs", "hidden"), ("outputs", "hidden"))

    def moving_layers(self, problem: AbstractProblem) -> tuple[Float[Array, "r h"], Float[Array, "h m"]]:
        return problem.to_data(self.U), self.V.T

    def is_reducible(self, problem: AbstractProblem) -> bool:
        return problem.penalty is None or problem.penalty.is_isotropic

    def frozen_rows(self, problem: AbstractProblem) -> tuple[Float[Array, "n h"], Float[Array, ""]]:
        return self.U - problem.from_data(problem.to_data(self.U)), norm(self.U)

    def sizes(self, problem: AbstractProblem) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
        fitting = (problem.num_inputs, problem.num_outputs)
        return "(U rows, V rows)", fitting, (self.U.shape[0], self.V.shape[0])

    def check_penalty(self, penalty: Penalised) -> None:
        if penalty.imbalance is not None:
            penalty.imbalance.check_width(self.width)

    def saddle(self, problem: AbstractProblem) -> str | None:
        if _checks.is_traced(self.U, self.V) or not is_zero(self.V):
            return None
        if is_zero(self.U):
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

    def loss_velocity(self, problem: AbstractProblem) -> "TwoLayer":
        G = problem.loss_gradient(self.product())
        return type(self)(-(G @ self.V), -(G.T @ self.U))

    def imbalance_spectrum(self) -> Float[Array, " k"]:
        """Eigenvalues of `U^T U - V^T V` in descending order, k = min(h, n + m); the other h - k are zero.

        Conserved by the flow. The rate bounds of M22 need `theory.imbalance`, which takes the moving part of U only.
        """
        return signature_spectrum(jnp.concatenate([self.U, self.V]), signs(self.U, self.V))


class SymmetricFactors(AbstractChain):
    """Tied layers, `Theta = U U^T` with U of shape (n, h), for an n x n target.

    For `factorization(Y)` with symmetric Y the product obeys `X' = 2 Y X + 2 X Y - 4 X^2` (times q and powers of the output
    scale, where these are not 1) and tends to the positive semidefinite part of Y, from starts that reach it.

    **Notes:** a target that is not symmetric moves U as its symmetric part does, since only `G + G^T` acts on U, G being the
    gradient of the loss with respect to Theta; the skew part adds a constant to the loss. The closed form needs Y = Y^T.
    The excess loss is relative to the least loss over all Theta, which need not be reached by a product U U^T.
    Problems with a penalty on the imbalance are refused: tied layers have none.

    **Raises:** `ValueError` unless U is a matrix, and with a problem whose target is not square.

    **Source:** T21 section 2, (3) and (5) [needs Y = Y^T there].

    Example:

        >>> Y = jnp.array([[1.0, 2.0], [2.0, 1.0]])  # eigenvalues 3 and -1
        >>> start = ld.SymmetricFactors(jnp.array([[0.2, 0.1], [0.0, 0.1]]))
        >>> flow = ld.gradient_flow(start, ld.factorization(Y), [0.0, 10.0])
        >>> print(flow.final.product())  # the part of Y with positive eigenvalues
        [[1.5 1.5]
         [1.5 1.5]]
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

    @property
    def layers(self) -> tuple[Float[Array, "n h"], Float[Array, "h n"]]:
        """U and U^T."""
        return self.U, self.U.T

    def with_layers(self, layers: Sequence[Array]) -> "SymmetricFactors":
        return type(self)(layers[0])

    @property
    def frames(self) -> tuple[tuple[str, str], ...]:
        return (("inputs", "hidden"),)

    def is_reducible(self, problem: AbstractProblem) -> bool:
        return self.width > self.U.shape[0]

    def sizes(self, problem: AbstractProblem) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
        n, m = problem.num_inputs, problem.num_outputs
        if n != m:
            raise ValueError(
                "The model does not fit the problem: tied layers, U U^T, need a square target, n = m, but the problem has "
                f"n = {n} inputs and m = {m} outputs; use a `TwoLayer`."
            )
        return "(U rows, U rows)", (n, m), (self.U.shape[0], self.U.shape[0])

    def saddle(self, problem: AbstractProblem) -> str | None:
        return "the saddle U = 0" if is_zero(self.U) else None

    @property
    def factors(self) -> tuple[Float[Array, "n h"]]:
        return (self.U,)

    def generator(self, problem: AbstractProblem) -> Float[Array, "n n"]:
        G = problem.loss_gradient(self.product())
        return -(G + G.T)

    def fastest_rate(self, problem: AbstractProblem) -> Float[Array, ""] | None:
        terms, problem = problem.penalty, problem.plain
        if not is_least_squares(problem):
            return None
        s, error = problem.singular_values[0], jnp.sqrt(jnp.sum(problem.error(self.reduced_product(problem)) ** 2))
        fastest = 2 * problem.scale * s * (2 * s * jnp.sum(self.U**2) + error)
        return fastest if terms is None else fastest + terms.fastest_rate(self.layers)

    def loss_velocity(self, problem: AbstractProblem) -> "SymmetricFactors":
        G = problem.loss_gradient(self.product())
        return type(self)(-(G @ self.U + G.T @ self.U))
