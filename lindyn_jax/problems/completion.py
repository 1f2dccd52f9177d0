"""Matrices of which some entries are known."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from .. import _checks
from .._norms import norm
from .._public import public
from .base import AbstractProblem, Draw
from .entries import Entries
from .output import LossScale, loss_scale
from .samples import read_weights, refuse_entries


class MatrixCompletion(AbstractProblem):
    r"""Matrix completion, `L(Theta) = (q/2) sum_ij M_ij w_ij (Y_ij - Theta_ij)^2` with the mask M of observed entries.

    **Args:**

    - `Y`: the matrix, shape (n, m). What it holds where M is 0 does not count, and may be NaN.
    - `mask`: M, shape (n, m), 1 or True where an entry is observed and 0 or False elsewhere; by default where Y is not NaN.
    - `scale`: q, a positive number or the name of one: `"sum"` is 1, `"mean"` is 1 over the number of observed entries (over
        the sum of their weights), `"averaged"` twice that. May be traced.
    - `weights`: w, shape (n, m), numbers of at least 0, by default 1.

    **Raises:** `ValueError` for a mask that is empty, of another shape or not of 0 and 1, for a row or a column without an
    observed entry, which cannot be learned, and for observed entries that are not finite.

    **Notes:** every row and column of Theta gets a gradient, so only the width of networks is reduced.

    **Source:** Gunasekar et al. (2017), Arora et al. (2019).

    Example:

        >>> Y = jnp.array([[1.0, 2.0], [2.0, jnp.nan]])
        >>> problem = ld.MatrixCompletion(Y)
        >>> print(problem.num_samples, problem.loss(jnp.zeros((2, 2))))  # (1 + 4 + 4)/2
        3 4.5
        >>> print(problem.loss(jnp.array([[1.0, 2.0], [2.0, 4.0]])))  # whatever the last entry
        0.0
    """

    is_linear_in_targets: ClassVar[bool] = True

    Y: Float[Array, "n m"]
    mask: Float[Array, "n m"]
    weights: Float[Array, "n m"] | None
    scale: Float[Array, ""]

    @public
    def __init__(
        self,
        Y: Float[ArrayLike, "n m"],
        mask: Real[ArrayLike, "n m"] | Bool[ArrayLike, "n m"] | None = None,
        *,
        scale: LossScale | Float[ArrayLike, ""] | int = 1.0,
        weights: Float[ArrayLike, "n m"] | None = None,
    ):
        Y = _checks.as_matrix(Y, "Y", "(n, m)")
        if mask is None:
            mask = ~jnp.isnan(Y)
        mask = _checks.as_float(mask, "mask").astype(Y.dtype)
        if mask.shape != Y.shape:
            raise ValueError(f"Argument `mask` must have the shape {Y.shape} of `Y`, but has shape {mask.shape}.")
        refuse_entries(lambda M: (M != 0) & (M != 1), mask, "mask", "made of 0 and 1")
        weights = read_weights(weights, Y.shape)
        seen = mask if weights is None else mask * weights
        _refuse_unseen(seen, "mask" if weights is None else "mask` times `weights")
        Y = jnp.where(mask > 0, Y, 0)
        _checks.check_finite(Y, "Y")
        self.Y, self.mask = Y, mask
        self.weights = None if weights is None else weights.astype(Y.dtype)
        self.scale = loss_scale(scale, jnp.sum(seen)).astype(Y.dtype)

    @property
    def num_inputs(self) -> int:
        """n."""
        return self.Y.shape[0]

    @property
    def num_outputs(self) -> int:
        """m."""
        return self.Y.shape[1]

    @property
    def dtype(self):
        return self.Y.dtype

    def predict(self, Theta: Float[Array, "n m"]) -> Float[Array, "n m"]:
        """Theta, the completed matrix."""
        return Theta

    def loss(self, Theta: Float[Array, "n m"]) -> Float[Array, ""]:
        return self.scale / 2 * jnp.sum(self._seen * (Theta - self.Y) ** 2)

    def loss_gradient(self, Theta: Float[Array, "n m"]) -> Float[Array, "n m"]:
        return self.scale * self._seen * (Theta - self.Y)

    @property
    def num_samples(self) -> int:
        """K, the number of observed entries."""
        return self.sampled().num_samples

    def sampled(self) -> Entries:
        """The observed entries as samples, row by row.

        **Raises:** `ValueError` for a mask that is traced: how many entries there are depends on its values.
        """
        if _checks.is_traced(self.mask):
            raise ValueError(
                "The observed entries of a MatrixCompletion are its samples, but its mask is traced: it must be known before "
                "compiling."
            )
        i, j = np.nonzero(np.asarray(self.mask))
        weights = None if self.weights is None else self.weights[i, j]
        places = (jnp.asarray(i, jnp.int32), jnp.asarray(j, jnp.int32))
        return Entries(places, self.Y[i, j], weights, self.scale, (self.num_inputs, self.num_outputs))

    def noisy(self, draw: Draw) -> "MatrixCompletion":
        return eqx.tree_at(lambda problem: problem.Y, self, self.Y + draw(self.Y.shape, self.dtype))

    def test_error(self, Theta: Float[Array, "n m"], truth: Float[ArrayLike, "n m"]) -> Float[Array, ""]:
        """`||Theta - truth||_F / ||truth||_F` over the entries that are not observed, and not NaN in `truth`."""
        truth = jnp.asarray(truth, self.dtype)
        hidden = jnp.logical_not(self.mask.astype(bool) | jnp.isnan(truth))
        error, size = (norm(jnp.where(hidden, A, 0)) for A in (Theta - truth, truth))
        return error / size

    @property
    def _seen(self) -> Float[Array, "n m"]:
        return self.mask if self.weights is None else self.mask * self.weights


def _refuse_unseen(seen: Array, name: str) -> None:
    if _checks.is_traced(seen):
        return
    observed = np.asarray(seen) > 0
    if not observed.any():
        raise ValueError(f"Argument `{name}` must have an observed entry, but is 0 everywhere.")
    for axis, word in ((1, "row"), (0, "column")):
        empty = np.flatnonzero(~observed.any(axis=axis))
        if len(empty):
            raise ValueError(
                f"Argument `{name}` must have an observed entry in every row and column, but {word} {empty[0]} has none and "
                "cannot be learned: leave it out."
            )
