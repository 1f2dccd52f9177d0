r"""When the components jump under descent as the start vanishes, and which steps keep the jumps apart (G19 Corollary 3)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Real

from .._finite import elementwise, of_finite_numbers
from .._public import public
from .._statement import Statement
from ..exact._common import as_floats, check_not_negative, check_vector, least_divisor


@public
@elementwise
def jump_steps(sigma: Real[ArrayLike, " p"], eta: Real[ArrayLike, ""]) -> Statement:
    """Steps, in units of d, at which the components jump under descent as d grows: `T_j = 1/log(1 + eta sigma_j)`.

    From `w(0) = e^{-2d}`. Hypotheses: sigma_j > 0 and `0 < eta < 1/(2 sigma_1)`; no gap between the sigma_j is needed.

    **Args:** `sigma`, singular values of Sigma_xy, shape (p,), in any order; `eta`, step size.

    **Returns:** a `Statement`, shape (p,); infinite for sigma_j <= 0.

    **Raises:** `ValueError` for a sigma that is not a vector, and infinite or NaN arguments, where they are known.

    **Source:** G19 Corollary 3, with times that need no condition on gaps.

    Example:

        >>> found = ld.theory.jump_steps(np.array([2.0, 1.0]), 0.1)
        >>> found.value.tolist(), found.applies.tolist()
        ([5.485, 10.49], [True, True])
    """
    sigma, eta = as_floats(sigma=sigma, eta=eta)
    check_vector(sigma, "sigma", "p")
    x = eta * sigma
    moving = x > least_divisor(x.dtype)
    value = jnp.where(moving, 1 / jnp.log1p(jnp.where(moving, x, 1)), jnp.inf)
    return Statement(value, moving & (2 * eta * jnp.max(sigma, initial=0) < 1))


@public
@of_finite_numbers
def jumps_are_separate(sigma: Real[ArrayLike, " p"], eta: Real[ArrayLike, ""]) -> Bool[Array, ""]:
    """Whether the times that G19 prints for the jumps under descent are in order: `log(1 + eta sigma_i) > eta sigma_{i+1}`.

    **Args:** `sigma`, shape (p,), descending; `eta`, step size.

    **Returns:** a boolean. The times of `jump_steps` need no such condition.

    **Raises:** as `jump_steps`.

    **Source:** G19 Corollary 3; the exact form of its condition on gaps.

    Example:

        >>> bool(ld.theory.jumps_are_separate(np.array([2.0, 1.0]), 0.1))
        True
        >>> bool(ld.theory.jumps_are_separate(np.array([2.0, 1.9]), 0.1))
        False
    """
    sigma, eta = as_floats(sigma=sigma, eta=eta)
    check_vector(sigma, "sigma", "p")
    return jnp.all(jnp.log1p(jnp.maximum(eta * sigma[:-1], 0)) > eta * sigma[1:])


@public
@elementwise
def descent_step_limit(
    sigma: Real[ArrayLike, "..."],
    lam: Real[ArrayLike, "..."],
    eta: Real[ArrayLike, "..."],
    t: Real[ArrayLike, "..."],
) -> Statement:
    r"""The limit of a component after `d t` steps of descent as the start e^{-2d} vanishes: a jump at `1/log(1 + eta sigma)`.

    0 before that T and `sigma/lambda` behind it. Hypotheses: sigma > 0, lambda > 0, `0 < eta sigma < 1/2`, and t != T;
    components with sigma = 0 stay at 0.

    **Args:** shapes that broadcast together; `t`, steps in units of d.

    **Returns:** a `Statement` on the limit in d at fixed t.

    **Raises:** as `descent_bounds`.

    **Notes:** at T itself the rounding of `d T` to a step decides, and there is no limit.

    **Source:** G19 Corollary 3, with times that need no condition on gaps.

    Example:

        >>> float(ld.theory.jump_steps(np.array([2.0]), 0.1).value[0])
        5.485
        >>> ld.theory.descent_step_limit(2.0, 4.0, 0.1, np.array([5.0, 6.0])).value.tolist()
        [0.0, 0.5]
    """
    sigma, lam, eta, t = jnp.broadcast_arrays(*as_floats(sigma=sigma, lam=lam, eta=eta, t=t))
    check_not_negative(lam=lam, t=t)
    x = eta * sigma
    moves = (x > 0) & (x < 0.5) & (lam > least_divisor(lam.dtype))
    phase = t * jnp.log1p(jnp.where(moves, x, 0)) - 1
    at = jnp.abs(phase) <= 4 * jnp.finfo(x.dtype).eps
    height = jnp.where(moves, sigma, 0) / jnp.where(moves, lam, 1)
    return Statement(jnp.where(phase > 0, height, 0), (moves & ~at) | (sigma == 0))


@public
@of_finite_numbers
def separation_steps(sigma: Real[ArrayLike, " p"]) -> Statement:
    r"""Largest step sizes for which descent learns the components at `1/(eta sigma_i)`, G19's times, one after another.

    Component i has jumped, at `1/log(1 + eta sigma_i)`, before `1/(eta sigma_{i+1})` as long as
    `log(1 + eta sigma_i) > eta sigma_{i+1}`. `exact` is the root of that; `sufficient` is
    `2 (sigma_i - sigma_{i+1})/sigma_i^2`, from `log(1 + x) > x - x^2/2`.

    **Args:** `sigma`, positive and descending, shape (p,).

    **Returns:** a `Statement` on the step `exact`, shape (p - 1,), and `sufficient`; 0 where two are equal. `applies` where
    sigma_{i+1} > 0; without a next component, or with one 1e77 times smaller (1e9 in float32), the exact one is infinite.

    **Raises:** `ValueError` for a sigma that is not a vector, and infinite or NaN arguments, where they are known.

    **Notes:** `jump_steps` needs no such condition; `eta < 1/(2 sigma_1)` is asked for besides.

    **Source:** G19 Corollary 3 and its condition on gaps.

    Example:

        >>> found = ld.theory.separation_steps(np.array([2.0, 1.0, 0.9]))
        >>> found.exact.tolist(), found.sufficient.tolist()
        ([1.256, 0.2302], [0.5, 0.2])
    """
    (sigma,) = as_floats(sigma=sigma)
    check_vector(sigma, "sigma", "p")
    first, second = sigma[:-1], sigma[1:]
    applies = (second > 0) & (first >= second)
    rho = jnp.where(applies, second / jnp.where(applies, first, 1), 0.5)
    equal, apart = rho >= 1, rho <= least_divisor(rho.dtype) ** 0.5
    rho = jnp.where(equal | apart, 0.5, rho)
    # log(1 + z) = rho z, from above: concave, so Newton's method descends to the root. Its last step carries the derivative.
    z = 2 * (1 - rho) / rho**2

    def newton(z, _):
        return z - (jnp.log1p(z) - rho * z) / (1 / (1 + z) - rho), None

    z, _ = jax.lax.scan(newton, jax.lax.stop_gradient(z), length=40)
    z = jax.lax.stop_gradient(z)
    z, _ = newton(z, None)
    safe = jnp.where(first > 0, first, 1)
    exact = jnp.where(applies & ~apart, jnp.where(equal, 0, z / safe), jnp.where(first > 0, jnp.inf, 0))
    sufficient = jnp.where(first > 0, 2 * jnp.maximum(first - second, 0) / safe**2, 0)
    return Statement(exact, applies, name="exact", sufficient=sufficient)
