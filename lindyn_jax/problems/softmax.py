"""Softmax regression: one of several classes for every sample."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from .. import _checks
from .._public import public
from .classification import Classification
from .output import LossScale
from .samples import refuse_entries


class Softmax(Classification):
    r"""Cross-entropy of classes, `L = q sum_i w_i (log sum_j e^{o_ij} - o_{i,y_i})` with logits `o = c X Theta`.

    **Args:**

    - `X`: inputs, shape (N, n), or `None` for the identity.
    - `labels`: the classes, whole numbers from 0 to m - 1, shape (N,), or one-hot, shape (N, m).
    - `num_classes`: m, by default that of the labels given, the largest plus one; must be given for traced ones of shape (N,).
    - `weights`: w, one number of at least 0 for each sample, by default 1.
    - `scale`, `output_scale`, `rank`, `rank_rtol`: as for `OutputProblem`; `scale="mean"` divides by the sum of the weights.

    **Raises:** `ValueError` for labels out of range, not whole, not one-hot or all the same, and as `OutputProblem` does.

    **Notes:** with `z_i = log sum_{j != y_i} e^{o_ij - o_{i,y_i}}` the loss of a sample is `log(1 + e^{z_i})`: losses and
    gradients keep their relative precision at logits of any size. `predict` gives the probabilities of the classes.

    Example:

        >>> X = jnp.array([[1.0, 0.0], [0.0, 1.0]])
        >>> problem = ld.Softmax(X, jnp.array([0, 2]))
        >>> print(problem.loss(jnp.zeros((2, 3))), problem.predict(jnp.zeros((2, 3)))[0])  # 2 log 3
        2.197 [0.3333 0.3333 0.3333]
        >>> print(problem.loss_gradient(jnp.zeros((2, 3))))
        [[-0.6667 0.3333 0.3333]
         [ 0.3333 0.3333 -0.6667]]
    """

    @public
    def __init__(
        self,
        X: Float[ArrayLike, "N n"] | None,
        labels: Real[ArrayLike, " N"] | Real[ArrayLike, "N m"] | Bool[ArrayLike, "N m"],
        *,
        num_classes: int | None = None,
        scale: LossScale | Float[ArrayLike, ""] | int = 1.0,
        output_scale: Float[ArrayLike, ""] | int = 1.0,
        weights: Float[ArrayLike, " N"] | None = None,
        rank: int | None = None,
        rank_rtol: float | None = None,
    ):
        Y = _one_hot(labels, num_classes)
        self._read_samples(X, Y, weights, scale, output_scale, rank, rank_rtol, name="labels", whole=True)

    def sample_losses(self, outputs: Float[Array, "N m"], Y: Float[Array, "N m"]) -> Float[Array, " N"]:
        return jax.nn.softplus(jax.nn.logsumexp(_behind(outputs, Y), axis=1))

    def sample_gradients(self, outputs: Float[Array, "N m"], Y: Float[Array, "N m"]) -> Float[Array, "N m"]:
        # Not softmax(o) - y, which is 0 where the right class is all but certain.
        behind = _behind(outputs, Y)
        wrong = jax.nn.sigmoid(jax.nn.logsumexp(behind, axis=1, keepdims=True))
        return wrong * (jax.nn.softmax(behind, axis=1) - Y)

    def hastened_gradients(
        self, outputs: Float[Array, "N m"], Y: Float[Array, "N m"], log_factor: Float[Array, ""]
    ) -> Float[Array, "N m"]:
        behind = _behind(outputs, Y)
        wrong = jnp.exp(log_factor + jax.nn.log_sigmoid(jax.nn.logsumexp(behind, axis=1, keepdims=True)))
        return wrong * (jax.nn.softmax(behind, axis=1) - Y)

    def pulls(self, gradients: Float[Array, "N m"], Y: Float[Array, "N m"]) -> Float[Array, " N"]:
        return -jnp.sum(Y * gradients, axis=1)

    def separations(self) -> list[Array]:
        # One row for each sample and each class that is not its own: x_i^T (theta_own - theta_other) >= 1.
        inputs = jnp.eye(self.num_inputs, dtype=self.dtype) if self.X is None else self.X
        (N, m), others = self.Y.shape, jnp.eye(self.num_outputs, dtype=self.dtype)
        ahead = self.Y[:, None, :] - others
        rows = jnp.einsum("in,icj->icnj", inputs, ahead)[self.Y == 0]
        return [rows.reshape(N * (m - 1), -1)]

    def response(self, outputs: Float[Array, "N m"]) -> Float[Array, "N m"]:
        """The probabilities of the classes."""
        return jax.nn.softmax(outputs, axis=1)

    def margins(self, outputs: Float[Array, "N m"], Y: Float[Array, "N m"]) -> Float[Array, " N"]:
        """By how much the logit of the right class is above the next."""
        return -jnp.max(_behind(outputs, Y), axis=1)


def _behind(outputs: Float[Array, "N m"], Y: Float[Array, "N m"]) -> Float[Array, "N m"]:
    """By how much each logit is above that of the right class, -infinity for that one itself."""
    return jnp.where(Y > 0, -jnp.inf, outputs - jnp.sum(Y * outputs, axis=1, keepdims=True))


def _one_hot(labels, num_classes: int | None) -> Float[Array, "N m"]:
    given = _checks.as_float(labels, "labels")
    if given.ndim not in (1, 2) or 0 in given.shape:
        raise ValueError(
            f"Argument `labels` must have shape (N,), or (N, m) for one-hot labels, but has shape {given.shape}."
        )
    _checks.check_finite(given, "labels")
    if given.ndim == 1:
        refuse_entries(lambda y: (y < 0) | (y != np.round(y)), given, "labels", "made of whole numbers of at least 0")
        if num_classes is None:
            if _checks.is_traced(given):
                raise ValueError("Argument `num_classes` must be given for labels that are traced.")
            num_classes = int(np.max(np.asarray(given))) + 1
        refuse_entries(lambda y: y >= num_classes, given, "labels", f"below {num_classes}, which is `num_classes`")
        one_hot = (given[:, None] == jnp.arange(num_classes)).astype(given.dtype)
    else:
        if num_classes not in (None, given.shape[1]):
            raise ValueError(
                f"Argument `num_classes` must be {given.shape[1]} for one-hot labels of shape {given.shape}, "
                f"but is {num_classes}."
            )
        one_hot = given
        if not _checks.is_traced(given):
            values = np.asarray(given)
            bad = np.flatnonzero(np.any((values != 0) & (values != 1), axis=1) | (np.sum(values, axis=1) != 1))
            if len(bad):
                raise ValueError(
                    f"Argument `labels` must have a single 1 in every row and be 0 elsewhere, but row {bad[0]} is not so."
                )
    if not _checks.is_traced(one_hot) and np.all(np.asarray(one_hot == one_hot[:1])):
        raise ValueError(
            f"Argument `labels` must have samples of two classes or more, but all are of class {int(jnp.argmax(one_hot[0]))}."
        )
    return one_hot
