r"""Two balanced layers with weight decay, at any time: the Riccati equation with A moved down by the decay.

With R = [U; V] and `U^T U = V^T V`, the gradient flow of `(1/2) ||Y - U V^T||^2 + (beta/2) (||U||^2 + ||V||^2)` makes
`P = R R^T` obey `P' = A P + P A - P^2`, `A = [[0, Y], [Y^T, 0]] - beta I`. Decay keeps balanced layers balanced.
"""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from .. import _checks
from .._finite import of_finite_numbers
from .._public import public
from ._common import Limit, as_times, check_not_negative
from .asymptotics import limit_from
from .homogeneous import Number, check_homogeneous
from .riccati import checked_factors


@public
def decayed(
    Y: Real[ArrayLike, "n m"],
    U0: Real[ArrayLike, "n h"],
    V0: Real[ArrayLike, "m h"],
    weight_decay: Number,
    ts: Real[ArrayLike, " T"],
) -> Float[Array, "T n m"]:
    """`Theta(t) = U V^T` along the flow with weight decay, from a balanced start.

    **Args:**

    - `Y`: the target, shape (n, m) (matrix factorization, loss scale 1).
    - `U0`, `V0`: the start, shapes (n, h) and (m, h), any width and rank, with `U0^T U0 = V0^T V0`:
        `homogeneous_condition(U0, V0, 0.0)` tells whether it is.
    - `weight_decay`: beta >= 0, the rate at which weights decay without a gradient.
    - `ts`: times, shape (T,), at least 0 and in any order.

    **Returns:** Theta(t), shape (T, n, m).

    **Raises:** `ValueError` for shapes that do not fit, entries that are not finite, negative times or a negative decay.

    **Notes:** from a start that is not balanced this is the flow with the further term `(1/8) ||U^T U - V^T V||^2`, and not the
    plain one. Accuracy and derivatives are those of `riccati`.

    **Source:** this package's own; without decay T21 Proposition 5 at lambda0 = 0.

    Example:

        >>> Y, U0 = jnp.array([[2.0, 1.0], [1.0, 2.0]]), 0.1 * jnp.eye(2)
        >>> Theta = ld.exact.decayed(Y, U0, U0, 0.5, jnp.array([0.0, 30.0]))
        >>> print(Theta[1].round(3), jnp.linalg.svd(Theta[1], compute_uv=False).round(3))
        [[1.5 1. ]
         [1.  1.5]] [2.5 0.5]
    """
    A, R0 = _check(Y, U0, V0, weight_decay)
    n = jnp.shape(Y)[0]
    L = checked_factors(A, jnp.ones((), A.dtype), R0, as_times(ts, A.dtype), n=n)
    return L[:, :n] @ jnp.swapaxes(L[:, n:], 1, 2)


@public
@of_finite_numbers
def decayed_limit(
    Y: Real[ArrayLike, "n m"], U0: Real[ArrayLike, "n h"], V0: Real[ArrayLike, "m h"], weight_decay: Number
) -> Limit:
    """Limit of the product as t goes to infinity: the singular values of Y less the decay, `(sigma_i - beta)_+`.

    **Args:** as for `decayed`.

    **Returns:** a `Limit`: Theta(inf), shape (n, m), of this start, and whether all modes above the decay are reached.

    **Raises:** `ValueError` as `decayed`.

    **Notes:** derivatives are those of `riccati_limit`.

    **Source:** this package's own; it is the minimum of `(1/2) ||Y - Theta||^2 + beta ||Theta||_*`.

    Example:

        >>> Y, U0 = jnp.array([[2.0, 1.0], [1.0, 2.0]]), 0.1 * jnp.eye(2)
        >>> limit = ld.exact.decayed_limit(Y, U0, U0, 1.5)
        >>> print(limit.value.round(3))
        [[0.75 0.75]
         [0.75 0.75]]
    """
    A, R0 = _check(Y, U0, V0, weight_decay)
    limit = limit_from(A, jnp.ones((), A.dtype), R0, jnp.zeros((), A.dtype), 0)
    n = jnp.shape(Y)[0]
    return Limit(limit.value[:n, n:], limit.applies)


def _check(Y, U0, V0, weight_decay) -> tuple[Array, Array]:
    A, R0 = check_homogeneous(Y, U0, V0, 0.0)
    beta = _checks.as_float(weight_decay, "weight_decay").astype(A.dtype)
    _checks.check_finite(beta, "weight_decay")
    check_not_negative(weight_decay=beta)
    return A - beta * jnp.eye(len(A), dtype=A.dtype), R0
