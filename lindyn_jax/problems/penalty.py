"""The penalty on the imbalance: the term that turns two-layer gradient flow into T21's regularized flow.

With the weight 1/8 and matrix factorization the product `R R^T` of the stacked weights then solves a Riccati equation with
constant coefficients, whatever the start (T21 Proposition 4), and the imbalance is driven towards the target.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .. import _checks
from .._linalg import row_factor
from .._public import public


class ImbalancePenalty(eqx.Module):
    r"""The term `w ||D - Lambda||_F^2` of a loss, with the imbalance `D = U1^T U1 - V^T V`.

    Its gradients are `4 w U1 (D - Lambda)` for U1 and `-4 w V (D - Lambda)` for V; U2 gets none.

    **Args:**

    - `Lambda`: the target of the imbalance: symmetric, shape (h, h), or a number lambda0 for `lambda0 I`. May be traced; of a
        traced matrix the symmetric part counts.
    - `weight`: w >= 0, by default 1/8. May be traced.

    **Raises:** `ValueError` for a `Lambda` of another shape, not finite or not symmetric, or a negative weight.

    **Notes:** D is made of the rows that the data move, U1 = Phi1^T U. For `factorization` that is all of U, and D is T21's
    `Q = U^T U - V^T V`. With a number for Lambda the term is unchanged by rotations of the hidden layer, so the width can be
    reduced, and nothing of size h x h is formed once h > r + m; a matrix Lambda singles out directions of the hidden layer.

    **Source:** T21 Proposition 4 and (26), where w = 1/8.

    Example:

        >>> term = ld.ImbalancePenalty(1.0)
        >>> problem = ld.Penalised(ld.factorization(jnp.eye(2)), imbalance=term)
        >>> start = ld.TwoLayer(2 * jnp.eye(2), jnp.eye(2))  # D = 3 I
        >>> print(ld.observables.penalty(start, problem))  # (1/8) ||3 I - I||_F^2
        1.0
    """

    Lambda: Float[Array, "h h"] | Float[Array, ""]
    weight: Float[Array, ""]

    @public
    def __init__(
        self,
        Lambda: Float[ArrayLike, "h h"] | Float[ArrayLike, ""] | int,
        weight: Float[ArrayLike, ""] | int = 1 / 8,
    ):
        Lambda, weight = _checks.as_float(Lambda, "Lambda"), _checks.as_float(weight, "weight")
        if Lambda.ndim not in (0, 2) or (Lambda.ndim == 2 and Lambda.shape[0] != Lambda.shape[1]):
            raise ValueError(
                "Argument `Lambda` must be a number or a symmetric matrix of shape (h, h), "
                f"but has shape {Lambda.shape}; for a target of `diag(a)` pass `jnp.diag(a)`."
            )
        if weight.ndim != 0:
            raise ValueError(f"Argument `weight` must be a number, but has shape {weight.shape}.")
        _checks.check_finite(Lambda, "Lambda")
        if not _checks.is_traced(weight) and not 0 <= float(weight) < np.inf:
            raise ValueError(f"Argument `weight` must be a finite number of at least 0, but is {float(weight):g}.")
        if Lambda.ndim == 2:
            if not _checks.is_traced(Lambda):
                skew = float(jnp.max(jnp.abs(Lambda - Lambda.T)))
                if skew > 100 * float(jnp.finfo(Lambda.dtype).eps) * float(jnp.max(jnp.abs(Lambda))):
                    raise ValueError(
                        f"Argument `Lambda` must be symmetric, but differs from its transpose by {skew:.1e}: "
                        "pass `(Lambda + Lambda.T) / 2`."
                    )
            Lambda = (Lambda + Lambda.T) / 2
        dtype = jnp.result_type(Lambda, weight)
        self.Lambda, self.weight = Lambda.astype(dtype), weight.astype(dtype)

    @property
    def is_isotropic(self) -> bool:
        """Whether Lambda is a number, so that the width can be reduced."""
        return self.Lambda.ndim == 0

    def astype(self, dtype) -> "ImbalancePenalty":
        """The same term in another floating-point type."""
        where = lambda penalty: (penalty.Lambda, penalty.weight)  # noqa: E731
        return eqx.tree_at(where, self, (self.Lambda.astype(dtype), self.weight.astype(dtype)))

    def check_width(self, h: int) -> None:
        """Refuses a network whose width is not that of a matrix Lambda."""
        if not self.is_isotropic and self.Lambda.shape[0] != h:
            raise ValueError(
                f"The problem's penalty has a Lambda of shape {self.Lambda.shape}, but the model has width {h}: "
                f"pass one of shape ({h}, {h})."
            )

    def value(
        self, U1: Float[Array, "r k"], V: Float[Array, "m k"], width: Float[ArrayLike, ""] | int | None = None
    ) -> Float[Array, ""]:
        """`w ||D - Lambda||_F^2`.

        **Args:** `U1`, shape (r, k), and `V`, shape (m, k); `width`, h where it is not k, for a number Lambda: the h - k
        directions that the k columns leave out, or beyond h the empty columns of a padded batch, count
        `(h - k) lambda0^2`.

        **Notes:** for k > r + m computed from the triangular factor of [U1; V], in size r + m.
        """
        if not self.is_isotropic:
            self.check_width(V.shape[1])
            return self.weight * jnp.sum((imbalance_matrix(U1, V) - self.Lambda) ** 2)
        width = V.shape[1] if width is None else width
        r, (m, k) = U1.shape[0], V.shape
        if k > r + m:
            L, _ = row_factor(jnp.concatenate([V, U1]))
            V, U1, k = L[:m], L[m:], r + m
        inside = jnp.sum((imbalance_matrix(U1, V) - self.Lambda * jnp.eye(k, dtype=V.dtype)) ** 2)
        return self.weight * (inside + (width - k) * self.Lambda**2)

    def gradients(
        self, U1: Float[Array, "r k"], V: Float[Array, "m k"]
    ) -> tuple[Float[Array, "r k"], Float[Array, "m k"]]:
        """`4 w U1 (D - Lambda)` and `-4 w V (D - Lambda)`, the derivatives with respect to U1 and V."""
        if not self.is_isotropic:
            self.check_width(V.shape[1])
        r, (m, k) = U1.shape[0], V.shape
        if not self.is_isotropic or k <= max(r, m):
            excess = imbalance_matrix(U1, V)
            excess = excess - (self.Lambda * jnp.eye(k, dtype=V.dtype) if self.is_isotropic else self.Lambda)
            return 4 * self.weight * (U1 @ excess), -4 * self.weight * (V @ excess)
        # U1 D = (U1 U1^T) U1 - (U1 V^T) V, and V D likewise: nothing of size k x k.
        product = U1 @ V.T
        U1_excess = (U1 @ U1.T) @ U1 - product @ V - self.Lambda * U1
        V_excess = product.T @ U1 - (V @ V.T) @ V - self.Lambda * V
        return 4 * self.weight * U1_excess, -4 * self.weight * V_excess

    def imbalance_velocity(self, U1: Float[Array, "r k"], V: Float[Array, "m k"]) -> Float[Array, "k k"]:
        """`D' = -4 w ((D - Lambda) G + G (D - Lambda))` with `G = U1^T U1 + V^T V`, the velocity of the imbalance.

        The loss itself does not move D, so this is the whole of it, for any data. The set D = Lambda is invariant.

        **Args:** `U1`, shape (r, k), and `V`, shape (m, k).

        **Notes:** of size k x k by its nature; reduce a wide network first.

        **Source:** T21 Proposition 4, w = 1/8, and its proof.
        """
        if not self.is_isotropic:
            self.check_width(V.shape[1])
        target = self.Lambda * jnp.eye(V.shape[1], dtype=V.dtype) if self.is_isotropic else self.Lambda
        half = (imbalance_matrix(U1, V) - target) @ (U1.T @ U1 + V.T @ V)
        return -4 * self.weight * (half + half.T)

    def fastest_rate(self, U1: Float[Array, "r k"], V: Float[Array, "m k"]) -> Float[Array, ""]:
        """A bound on the norm of the derivative of the gradients: `4 w (3 ||[U1; V]||_F^2 + ||Lambda||)`."""
        size = jnp.sum(U1**2) + jnp.sum(V**2)
        return 4 * self.weight * (3 * size + jnp.sqrt(jnp.sum(self.Lambda**2)))


def imbalance_matrix(U1: Float[Array, "r k"], V: Float[Array, "m k"]) -> Float[Array, "k k"]:
    """`D = U1^T U1 - V^T V`."""
    return U1.T @ U1 - V.T @ V
