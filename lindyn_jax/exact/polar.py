r"""The polar flow from starts that are aligned with the target: all modes are learned at the same speed.

From `U(0) = Phi diag(u0)`, `V(0) = Psi diag(v0)` with `Y = Phi diag(sigma) Psi^T` and X = I the layers keep these singular
vectors, and while a mode is below its target both of its weights grow by 1 in a unit of time: `x_i(t) = (u0_i + t)(v0_i + t)`
until it is sigma_i.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from .. import _checks
from .._public import public
from ._common import as_floats, as_times


@public
def polar_modes(
    sigma: Real[ArrayLike, " k"], u0: Real[ArrayLike, " k"], v0: Real[ArrayLike, " k"], ts: Real[ArrayLike, " T"]
) -> Float[Array, "T k"]:
    """Modes of the end-to-end matrix under the polar flow, from a start that is aligned with the target.

    Hypotheses: X = I, no smoothing, and positive sigma, u0, v0. A mode stays once it is learned. One that begins above its target
    comes down to it at the same speed.

    **Args:** `sigma`, singular values of the target, shape (k,); `u0`, `v0`, the modes' weights, shape (k,); `ts`,
    times of at least 0, shape (T,).

    **Returns:** `x = u v`, shape (T, k).

    **Raises:** `ValueError` for values that are not positive, or shapes that differ.

    **Source:** this package's own; compare `models.Polar`.

    Example:

        >>> sigma, u0 = jnp.array([4.0, 1.0]), jnp.array([0.01, 0.01])
        >>> print(ld.exact.polar_modes(sigma, u0, u0, jnp.array([0.49, 0.99, 3.0])))
        [[0.25 0.25]
         [1.   1.  ]
         [4.   1.  ]]
    """
    sigma, u0, v0 = _positive(sigma, u0, v0)
    end = polar_time(sigma, u0, v0)
    t = jnp.minimum(as_times(ts, sigma.dtype)[:, None], jnp.abs(end)) * jnp.where(end < 0, -1, 1)
    return (u0 + t) * (v0 + t)


@public
def polar_time(
    sigma: Real[ArrayLike, " k"],
    u0: Real[ArrayLike, " k"],
    v0: Real[ArrayLike, " k"],
    share: Real[ArrayLike, ""] = 1.0,
) -> Float[Array, " k"]:
    """When each mode reaches this share of its target under the polar flow: `sqrt(share sigma) - u0` for u0 = v0.

    The strongest mode is the last. Under the gradient flow it is the first, at `ln(sigma/u0^2 - 1)/(2 sigma)` for a half.

    **Args:** as for `polar_modes`; `share`, in (0, 1].

    **Returns:** times, shape (k,); minus the time for a mode that comes down to it from above.

    **Raises:** as `polar_modes`, and for a share outside (0, 1].

    **Source:** this package's own.

    Example:

        >>> sigma, u0 = jnp.array([4.0, 1.0]), jnp.array([0.01, 0.01])
        >>> print(ld.exact.polar_time(sigma, u0, u0))
        [1.99 0.99]
    """
    sigma, u0, v0 = _positive(sigma, u0, v0)
    if not _checks.is_traced(share) and not np.all((np.asarray(share) > 0) & (np.asarray(share) <= 1)):
        raise ValueError(f"Argument `share` must lie in (0, 1], but is {share}.")
    goal = sigma * share
    # The root of (u0 + t)(v0 + t) = goal, without the difference of what may be nearly equal.
    root_goal, root_start = jnp.sqrt(goal), jnp.sqrt(u0) * jnp.sqrt(v0)
    above = (root_goal - root_start) * (root_goal + root_start)
    return 2 * above / (u0 + v0 + jnp.hypot(u0 - v0, 2 * root_goal))


def _positive(sigma, u0, v0) -> tuple[Array, Array, Array]:
    sigma, u0, v0 = as_floats(sigma=sigma, u0=u0, v0=v0)
    for name, value in (("sigma", sigma), ("u0", u0), ("v0", v0)):
        _checks.check_positive(value, name)
    if sigma.ndim != 1 or any(value.shape not in ((), sigma.shape) for value in (u0, v0)):
        raise ValueError(
            f"Arguments `sigma`, `u0` and `v0` must have shape (k,), but have {sigma.shape}, {u0.shape} and {v0.shape}."
        )
    return sigma, u0, v0
