r"""One neuron, `beta = a w` with w of n weights and a of one: the two-layer flow of width 1 for one output, at any time.

`w' = a (target - a w)`, `a' = w^T (target - a w)` keep `|w|^2 - a^2`, which is an imbalance of one number. Every start of width 1
has it homogeneous, so that R = (w, a) obeys the Riccati flow of `homogeneous` with

    R(t) = e^{tA} R0/sqrt(1 + R0^T K R0),   A = [[lambda/2 I, target], [target^T, -lambda/2]],   lambda = |w0|^2 - a0^2,

and `R(t)^T R0 > 0`, since e^{tA} is positive definite: that is its sign.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from .._public import public
from ._common import as_floats, as_times, check_vector
from .homogeneous import check_homogeneous
from .riccati import checked_factors


class Neuron(NamedTuple):
    """The weights of a neuron. **Fields:** `w`, shape (T, n); `a`, shape (T,). **Property:** `beta = a w`.

    Example:

        >>> path = ld.exact.neuron(jnp.array([1.0, 1.0]), jnp.array([-0.7, 0.0]), 0.9, jnp.array([1.0, 10.0]))
        >>> print((jnp.sum(path.w**2, axis=1) - path.a**2).round(4), 0.7**2 - 0.9**2)
        [-0.32 -0.32] -0.32
    """

    w: Float[Array, "T n"]
    a: Float[Array, " T"]

    @property
    def beta(self) -> Float[Array, "T n"]:
        """The linear map, a w."""
        return self.a[:, None] * self.w


@public
def neuron(
    target: Real[ArrayLike, " n"], w0: Real[ArrayLike, "..."], a0: Real[ArrayLike, "..."], ts: Real[ArrayLike, " T"]
) -> Neuron:
    """One hidden neuron under the gradient flow of `|target - a w|^2/2`, at any time, from any start.

    **Args:** `target`, shape (n,), the least-squares solution for whitened inputs, X^T X = I; `w0`, shape (n,), and `a0`, a
    number, the start; `ts`: times, shape (T,), at least 0 and in any order.

    **Returns:** a `Neuron`: w(t), a(t) and beta(t).

    **Raises:** `ValueError` for shapes that do not fit, entries that are not finite, or negative times.

    **Notes:** `|w|^2 - a^2` decides how it learns: far below 0 the readout is large, w moves nearly linearly and the tangent
    kernel `a^2 I + w w^T` stays; far above 0 w hardly turns at first, and the kernel turns late; near 0 both move together. Where
    a changes its sign its flow passes near the saddle; a start within round-off of the stable manifold ends on either side of
    it. Accuracy and derivatives are those of `riccati`.

    **Source:** the model of Kunin et al. (2024), whose delta is `a^2 - |w|^2`; T21 Proposition 5 with h = 1.

    Example:

        >>> path = ld.exact.neuron(jnp.array([1.0, 1.0]), jnp.array([-0.7, 0.0]), 0.9, jnp.array([1.0, 10.0]))
        >>> print(path.beta.round(3))
        [[0.137 0.468]
         [1.    1.   ]]
    """
    target, w0, a0 = as_floats(target=target, w0=w0, a0=a0)
    check_vector(target, "target", "n")
    check_vector(w0, "w0", "n")
    if w0.shape != target.shape:
        raise ValueError(f"Argument `w0` must have shape {target.shape}, as the target, but has shape {w0.shape}.")
    if a0.ndim:
        raise ValueError(f"Argument `a0` must be a number, but has shape {a0.shape}: use `jax.vmap`.")
    A, R0 = check_homogeneous(target[:, None], w0[:, None], a0[None, None], w0 @ w0 - a0**2)
    R = checked_factors(A, jnp.ones((), A.dtype), R0, as_times(ts, A.dtype), n=len(target))[:, :, 0]
    R = jnp.where(R @ R0 < 0, -R, R)
    return Neuron(R[:, :-1], R[:, -1])
