"""Logistic regression: two classes, or several answers of yes or no."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from .. import _checks
from .._public import public
from .classification import Classification
from .output import LossScale
from .samples import as_column, refuse_entries


class Logistic(Classification):
    r"""Logistic regression, `L = q sum_i w_i sum_j (log(1 + e^{o_ij}) - y_ij o_ij)` with logits `o = c X Theta`.

    **Args:**

    - `X`: inputs, shape (N, n), or `None` for the identity.
    - `y`: labels 0 and 1, shape (N,), or (N, m) for m answers.
    - `weights`: w, one number of at least 0 for each sample, by default 1.
    - `scale`, `output_scale`, `rank`, `rank_rtol`: as for `OutputProblem`; `scale="mean"` divides by the sum of the weights.

    **Raises:** `ValueError` for labels that are not 0 or 1 or all the same, and as `OutputProblem` does.

    **Notes:** losses and gradients keep their relative precision at logits of any size, however small they become. `predict`
    gives probabilities of 1. On separable data the loss has no minimum: Theta grows without end, along the max-margin direction.

    **Source:** Ji and Telgarsky (2019).

    Example:

        >>> X = jnp.array([[1.0, 0.0], [0.0, 1.0]])
        >>> problem = ld.Logistic(X, jnp.array([1, 0]))
        >>> print(problem.loss(jnp.zeros((2, 1))))  # 2 log 2
        1.386
        >>> print(problem.loss_gradient(jnp.zeros((2, 1))).T)
        [[-0.5 0.5]]
        >>> print(problem.predict(jnp.array([[2.0], [0.0]])).T)  # 1/(1 + e^-2), and 1/2
        [[0.8808 0.5 ]]
    """

    @public
    def __init__(
        self,
        X: Float[ArrayLike, "N n"] | None,
        y: Real[ArrayLike, " N"] | Real[ArrayLike, "N m"] | Bool[ArrayLike, " N"] | Bool[ArrayLike, "N m"],
        *,
        scale: LossScale | Float[ArrayLike, ""] | int = 1.0,
        output_scale: Float[ArrayLike, ""] | int = 1.0,
        weights: Float[ArrayLike, " N"] | None = None,
        rank: int | None = None,
        rank_rtol: float | None = None,
    ):
        Y = as_column(y, "y")
        refuse_entries(lambda y: (y != 0) & (y != 1), Y, "y", "made of the labels 0 and 1")
        # In NumPy: inside of jit even operations on labels that are known are traced.
        if not _checks.is_traced(Y) and np.any(alike := np.all(np.asarray(Y)[:1] == np.asarray(Y), axis=0)):
            column = int(np.argmax(alike))
            raise ValueError(
                f"Argument `y` must have both classes, 0 and 1, but is {float(Y[0, column]):g} everywhere in column {column}."
            )
        self._read_samples(X, Y, weights, scale, output_scale, rank, rank_rtol, name="y", whole=True)

    def sample_losses(self, outputs: Float[Array, "N m"], Y: Float[Array, "N m"]) -> Float[Array, " N"]:
        return jnp.sum(jax.nn.softplus((1 - 2 * Y) * outputs), axis=1)

    def sample_gradients(self, outputs: Float[Array, "N m"], Y: Float[Array, "N m"]) -> Float[Array, "N m"]:
        # Not sigmoid(o) - y, which is 0 where the right answer is all but certain.
        sign = 1 - 2 * Y
        return sign * jax.nn.sigmoid(sign * outputs)

    def hastened_gradients(
        self, outputs: Float[Array, "N m"], Y: Float[Array, "N m"], log_factor: Float[Array, ""]
    ) -> Float[Array, "N m"]:
        sign = 1 - 2 * Y
        return sign * jnp.exp(log_factor + jax.nn.log_sigmoid(sign * outputs))

    def pulls(self, gradients: Float[Array, "N m"], Y: Float[Array, "N m"]) -> Float[Array, " N"]:
        return jnp.sum((1 - 2 * Y) * gradients, axis=1)

    def separations(self) -> list[Array]:
        inputs = jnp.eye(self.num_inputs, dtype=self.dtype) if self.X is None else self.X
        return [(2 * y - 1)[:, None] * inputs for y in self.Y.T]

    def response(self, outputs: Float[Array, "N m"]) -> Float[Array, "N m"]:
        """The probabilities of 1."""
        return jax.nn.sigmoid(outputs)

    def margins(self, outputs: Float[Array, "N m"], Y: Float[Array, "N m"]) -> Float[Array, " N"]:
        """`(2 y - 1) o`, of the worst of m answers."""
        return jnp.min((2 * Y - 1) * outputs, axis=1)
