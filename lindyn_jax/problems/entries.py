"""Matrix completion entry by entry: what batches of it are."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .base import Draw, SampledProblem, check_index, take, times_weights


class Entries(SampledProblem):
    """`L(Theta) = (q/2) sum_k w_k (y_k - Theta_{i_k j_k})^2`: the loss of a `MatrixCompletion` as a sum over observed entries.

    **Args:** `places`, i and j, whole numbers of shape (K,); `y`, shape (K,); `weights`, shape (K,), or `None` for ones;
    `scale`, q; `shape`, (n, m).
    """

    i: Int[Array, " K"]
    j: Int[Array, " K"]
    y: Float[Array, " K"]
    weights: Float[Array, " K"] | None
    scale: Float[Array, ""]
    num_inputs: int = eqx.field(static=True)
    num_outputs: int = eqx.field(static=True)

    def __init__(
        self,
        places: tuple[Int[Array, " K"], Int[Array, " K"]],
        y: Float[Array, " K"],
        weights: Float[Array, " K"] | None,
        scale: Float[Array, ""],
        shape: tuple[int, int],
    ):
        (self.i, self.j), (self.num_inputs, self.num_outputs) = places, shape
        self.y, self.weights, self.scale = y, weights, scale

    @property
    def dtype(self):
        return self.y.dtype

    @property
    def num_samples(self) -> int:
        """K, the number of observed entries."""
        return self.y.shape[0]

    def loss(self, Theta: Float[Array, "n m"]) -> Float[Array, ""]:
        squares = self._errors(Theta) ** 2
        return self.scale / 2 * jnp.sum(squares if self.weights is None else self.weights * squares)

    def loss_gradient(self, Theta: Float[Array, "n m"]) -> Float[Array, "n m"]:
        return self.weighted_gradient(Theta, jnp.ones_like(self.y))

    def weighted_gradient(self, Theta: Float[Array, "n m"], a: Float[Array, " K"]) -> Float[Array, "n m"]:
        errors = self.scale * a * self._errors(Theta)
        errors = errors if self.weights is None else self.weights * errors
        return jnp.zeros_like(Theta).at[self.i, self.j].add(errors)

    def rows(self, index: Int[Array, " B"]) -> "Entries":
        index = check_index(jnp.asarray(index), self.num_samples)
        some = jax.tree.map(lambda leaf: take(leaf, index), (self.y, self.weights))
        # NaN is in the targets; whole numbers have none.
        places = self.i[index], self.j[index]
        where = lambda problem: (problem.i, problem.j, problem.y, problem.weights, problem.scale)  # noqa: E731
        new = (*places, *some, self.scale * (self.num_samples / index.size))
        return eqx.tree_at(where, self, new, is_leaf=lambda leaf: leaf is None)

    def weighed(self, a: Float[Array, " K"]) -> "Entries":
        return times_weights(self, a)

    def noisy(self, draw: Draw) -> "Entries":
        return eqx.tree_at(lambda problem: problem.y, self, self.y + draw(self.y.shape, self.dtype))

    def _errors(self, Theta: Float[Array, "n m"]) -> Float[Array, " K"]:
        return Theta[self.i, self.j] - self.y
