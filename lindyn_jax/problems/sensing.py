"""Matrices of which some inner products are known."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from .. import _checks
from .._public import public
from .base import Draw, SampledProblem, check_index, take, times_weights
from .output import LossScale, loss_scale, mark, rank_of
from .samples import read_weights


class Dense(eqx.Module):
    """All A_k, shape (K, n, m)."""

    A: Float[Array, "K n m"]

    @property
    def sizes(self) -> tuple[int, int]:
        """n and m."""
        return self.A.shape[1], self.A.shape[2]

    def measure(self, Theta: Float[Array, "n m"]) -> Float[Array, " K"]:
        """<A_k, Theta> for all k."""
        return self.A.reshape(self.A.shape[0], -1) @ Theta.ravel()

    def adjoint(self, weights: Float[Array, " K"]) -> Float[Array, "n m"]:
        """The sum of weights_k A_k."""
        return (weights @ self.A.reshape(len(weights), -1)).reshape(self.A.shape[1:])

    def turned(self, Phi1: Float[Array, "n r"]) -> "Dense":
        """Phi1^T A_k."""
        return Dense(jnp.einsum("knm,nr->krm", self.A, Phi1))

    @property
    def T(self) -> "Dense":
        """All A_k^T."""
        return Dense(jnp.swapaxes(self.A, 1, 2))

    def columns(self) -> Float[np.ndarray, "n _"]:
        """Those of all A_k."""
        return np.moveaxis(np.asarray(self.A, np.float64), 1, 0).reshape(self.A.shape[1], -1)


class RankOne(eqx.Module):
    """The vectors a_k and b_k of A_k = a_k b_k^T, which are never formed."""

    a: Float[Array, "K n"]
    b: Float[Array, "K m"]

    @property
    def sizes(self) -> tuple[int, int]:
        return self.a.shape[1], self.b.shape[1]

    def measure(self, Theta: Float[Array, "n m"]) -> Float[Array, " K"]:
        return jnp.sum((self.a @ Theta) * self.b, axis=1)

    def adjoint(self, weights: Float[Array, " K"]) -> Float[Array, "n m"]:
        return self.a.T @ (weights[:, None] * self.b)

    def turned(self, Phi1: Float[Array, "n r"]) -> "RankOne":
        return RankOne(self.a @ Phi1, self.b)

    @property
    def T(self) -> "RankOne":
        return RankOne(self.b, self.a)

    def columns(self) -> Float[np.ndarray, "n _"]:
        return np.asarray(self.a, np.float64).T


class MatrixSensing(SampledProblem):
    r"""Matrix sensing, `L(Theta) = (q/2) sum_k w_k (<A_k, Theta> - y_k)^2`.

    Only `Phi1^T Theta Psi1` enters, where the columns of all A_k span the range of Phi1 and their rows that of Psi1: the other
    rows of the first layer and columns of the last one get no gradient and are left out of what is moved.

    **Args:**

    - `A`: the measurements, shape (K, n, m), or a pair (a, b) of shapes (K, n) and (K, m) for `A_k = a_k b_k^T`, which are never
        formed. A traced A is not restricted.
    - `y`: what was measured, shape (K,).
    - `scale`: q, a positive number or the name of one: `"sum"` is 1, `"mean"` is 1/K (1 over the sum of the weights),
        `"averaged"` twice that. May be traced.
    - `weights`: w, shape (K,), numbers of at least 0, by default 1.

    **Raises:** `ValueError` for shapes that do not fit each other, numbers that are not finite, or A = 0.

    **Source:** Gunasekar et al. (2017).

    Example:

        >>> a, b = jnp.eye(2), jnp.array([[1.0, 1.0], [0.0, 2.0]])
        >>> problem = ld.MatrixSensing((a, b), jnp.array([3.0, 4.0]))
        >>> Theta = jnp.array([[1.0, 2.0], [0.0, 1.0]])
        >>> print(problem.predict(Theta), problem.loss(Theta))  # a_k^T Theta b_k, and (2 - 4)^2/2
        [3. 2.] 2.0
    """

    is_linear_in_targets: ClassVar[bool] = True

    A: Dense | RankOne
    y: Float[Array, " K"]
    weights: Float[Array, " K"] | None
    scale: Float[Array, ""]
    Phi1: Float[Array, "n r"] | None
    inputs_mark: Float[Array, " r"] | None
    # Phi1^T A_k, or `None` for A itself.
    design: Dense | RankOne | None
    Psi1: Float[Array, "m s"] | None
    # Phi1^T A_k Psi1, or `None` where Psi1 is everything.
    inner: Dense | RankOne | None

    @public
    def __init__(
        self,
        A: Float[ArrayLike, "K n m"] | tuple[Float[ArrayLike, "K n"], Float[ArrayLike, "K m"]],
        y: Float[ArrayLike, " K"],
        *,
        scale: LossScale | Float[ArrayLike, ""] | int = 1.0,
        weights: Float[ArrayLike, " K"] | None = None,
    ):
        measured, y = _read(A), _checks.as_float(y, "y")
        leaves = jax.tree.leaves(measured)
        if y.shape != leaves[0].shape[:1]:
            raise ValueError(
                f"Argument `y` must have shape ({leaves[0].shape[0]},), one number for each A_k, but has shape {y.shape}."
            )
        _checks.check_finite(y, "y")
        dtype = jnp.result_type(*leaves, y)
        self.A, self.y = jax.tree.map(lambda leaf: leaf.astype(dtype), measured), y.astype(dtype)
        weights = read_weights(weights, y.shape)
        self.weights = None if weights is None else weights.astype(dtype)
        self.scale = loss_scale(scale, y.shape[0] if weights is None else jnp.sum(weights)).astype(dtype)
        self.Phi1 = _column_space(self.A)
        self.inputs_mark = None if self.Phi1 is None else mark(self.Phi1)
        self.design = None if self.Phi1 is None else self.A.turned(self.Phi1)
        self.Psi1 = _column_space(self.A.T)
        seen = self.A if self.design is None else self.design
        self.inner = None if self.Psi1 is None else seen.T.turned(self.Psi1).T

    @property
    def num_inputs(self) -> int:
        """n."""
        return self.A.sizes[0]

    @property
    def num_outputs(self) -> int:
        """m."""
        return self.A.sizes[1]

    @property
    def dtype(self):
        return self.y.dtype

    @property
    def frame(self) -> Float[Array, "n r"] | None:
        """Phi1, an orthonormal basis of the span of the columns of all A_k; `None` where that is everything."""
        return self.Phi1

    @property
    def coordinates(self) -> Float[Array, " r"] | None:
        return self.inputs_mark

    def restrict(self) -> "tuple[MatrixSensing, Float[Array, 'n r'] | None]":
        if self.Phi1 is None:
            return self, None
        where = lambda problem: (problem.A, problem.Phi1, problem.inputs_mark, problem.design)  # noqa: E731
        small = eqx.tree_at(where, self, (self.design, None, None, None), is_leaf=lambda leaf: leaf is None)
        return small, self.Phi1

    def restrict_outputs(self) -> "tuple[MatrixSensing, Float[Array, 'm s'] | None]":
        if self.Psi1 is None:
            return self, None
        # Known beforehand for the restricted problem, which is the one that is moved on.
        inner = self.inner if self.Phi1 is None else self.A.T.turned(self.Psi1).T
        where = lambda problem: (problem.A, problem.design, problem.Psi1, problem.inner)  # noqa: E731
        design = None if self.Phi1 is None else self.inner
        return eqx.tree_at(where, self, (inner, design, None, None), is_leaf=lambda leaf: leaf is None), self.Psi1

    def predict(self, Theta: Float[Array, "n m"]) -> Float[Array, " K"]:
        """<A_k, Theta> for all k."""
        return self.A.measure(Theta)

    def loss(self, Theta: Float[Array, "n m"]) -> Float[Array, ""]:
        squares = (self.predict(Theta) - self.y) ** 2
        return self.scale / 2 * jnp.sum(squares if self.weights is None else self.weights * squares)

    def loss_gradient(self, Theta: Float[Array, "n m"]) -> Float[Array, "n m"]:
        error = self.scale * (self.predict(Theta) - self.y)
        return self.A.adjoint(error if self.weights is None else self.weights * error)

    def reduced_loss(self, Theta1: Float[Array, "r m"]) -> Float[Array, ""]:
        """L as a function of Theta1 = Phi1^T Theta, on which alone it depends."""
        return self.restrict()[0].loss(Theta1)

    # -- samples -------------------------------------------------------------------------------------------------------

    @property
    def num_samples(self) -> int:
        """K, the number of measurements."""
        return self.y.shape[0]

    def rows(self, index: Int[Array, " B"]) -> "MatrixSensing":
        index = check_index(jnp.asarray(index), self.num_samples)
        where = lambda problem: (  # noqa: E731
            problem.A,
            problem.y,
            problem.weights,
            problem.design,
            problem.inner,
            problem.scale,
        )
        some = jax.tree.map(lambda leaf: take(leaf, index), where(self)[:-1])
        new = (*some, self.scale * (self.num_samples / index.size))
        return eqx.tree_at(where, self, new, is_leaf=lambda leaf: leaf is None)

    def noisy(self, draw: Draw) -> "MatrixSensing":
        return eqx.tree_at(lambda problem: problem.y, self, self.y + draw(self.y.shape, self.dtype))

    def weighted_gradient(self, Theta: Float[Array, "n m"], a: Float[Array, " K"]) -> Float[Array, "n m"]:
        return self.weighed(a).loss_gradient(Theta)

    def weighed(self, a: Float[Array, " K"]) -> "MatrixSensing":
        return times_weights(self, a)


def _column_space(A: Dense | RankOne) -> Float[Array, "n r"] | None:
    """Phi1, an orthonormal basis of the span of the columns of all A_k; `None` where that is everything, or A is traced."""
    leaf = jax.tree.leaves(A)[0]
    if _checks.is_traced(leaf):
        return None
    columns = A.columns()
    if columns.shape[1] > columns.shape[0]:
        columns = np.transpose(np.linalg.qr(columns.T, mode="r"))
    Phi, s, _ = np.linalg.svd(columns, full_matrices=False)
    r = rank_of(jnp.asarray(columns, leaf.dtype), jnp.asarray(s))
    return None if r == columns.shape[0] else jnp.asarray(Phi[:, :r], leaf.dtype)


def _read(A) -> Dense | RankOne:
    if isinstance(A, tuple) and len(A) == 2:
        a, b = (_checks.as_matrix(part, f"A[{i}]", f"(K, {'nm'[i]})") for i, part in enumerate(A))
        if a.shape[0] != b.shape[0]:
            raise ValueError(
                "Argument `A` must be a pair of as many vectors a_k as b_k, shapes (K, n) and (K, m), but has shapes "
                f"{a.shape} and {b.shape}."
            )
        leaves = (a, b)
    else:
        leaves = (_checks.as_float(A, "A"),)
        if leaves[0].ndim != 3 or 0 in leaves[0].shape:
            raise ValueError(
                "Argument `A` must have shape (K, n, m), or be a pair (a, b) of shapes (K, n) and (K, m), but has shape "
                f"{leaves[0].shape}."
            )
    for leaf in leaves:
        _checks.check_finite(leaf, "A")
        if not _checks.is_traced(leaf) and not np.any(np.asarray(leaf)):
            raise ValueError("Argument `A` is zero: nothing was measured.")
    return RankOne(*leaves) if len(leaves) == 2 else Dense(*leaves)
