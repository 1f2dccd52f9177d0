r"""When is the overparametrised flow faster than one layer? (T21's earlier version, Table 2; matrix factorization, q = c = 1.)

One layer converges at the rate 1 whatever the target. Two layers converge at `mu = sqrt(4 sigma^2 + lambda^2)` mode by mode,
tied layers at `4 |sigma|`: large targets and large imbalance accelerate, small balanced ones slow down.
"""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from .._finite import elementwise, of_finite_numbers
from .._public import public
from .._statement import Statement
from ..exact import mode_rate, spectral_rate
from ..exact._common import as_floats, check_not_negative
from .scalar_descent import linear_descent_step_rate, tied_descent_rate


@public
@elementwise
def mode_acceleration(
    sigma: Real[ArrayLike, "..."], u0: Real[ArrayLike, "..."], v0: Real[ArrayLike, "..."]
) -> Statement:
    """One mode of two layers against one layer: faster if and only if `mu = sqrt(4 sigma^2 + lambda^2) > 1`.

    Hypothesis: lambda != 0 or sigma x0 > 0.

    **Args:** as for `exact.mode`: target and weights at the start, shapes that broadcast together.

    **Returns:** a `Statement` on the asymptotic `rate`; `linear_rate`, of one layer; `faster`, whether the first is the
    larger.

    **Raises:** `ValueError` for infinite or NaN arguments where they are known.

    **Source:** Table 2 of T21's earlier version; T21 (23) against (4).

    Example:

        >>> found = ld.theory.mode_acceleration(0.3, np.array([0.1, 1.0]), 0.1)
        >>> found.rate.tolist(), found.faster.tolist()
        ([0.6, 1.158], [False, True])
    """
    return _against_one_layer(*mode_rate(sigma, u0, v0))


@public
@of_finite_numbers
def spectral_acceleration(
    sigma: Real[ArrayLike, " k"], u0: Real[ArrayLike, " k"], v0: Real[ArrayLike, " k"]
) -> Statement:
    """All modes of two layers against one layer: faster if and only if the slowest mode has mu > 1.

    Hypothesis, for every mode: lambda != 0 or sigma x0 > 0.

    **Args:** as for `exact.spectral`.

    **Returns:** as `mode_acceleration`, for the slowest mode.

    **Raises:** as `exact.spectral`.

    **Source:** Table 2 of T21's earlier version; T21 (23) against (4).

    Example:

        >>> sigma, u0 = np.array([2.0, 0.3]), np.array([0.1, 0.1])
        >>> balanced = ld.theory.spectral_acceleration(sigma, u0, u0)
        >>> imbalanced = ld.theory.spectral_acceleration(sigma, u0, np.array([0.1, 1.0]))
        >>> float(balanced.rate), float(imbalanced.rate), bool(imbalanced.faster)
        (0.6, 1.158, True)
    """
    return _against_one_layer(*spectral_rate(sigma, u0, v0))


@public
@elementwise
def tied_acceleration(sigma: Real[ArrayLike, "..."], x0: Real[ArrayLike, "..."]) -> Statement:
    """Tied layers against one layer, one component: faster if and only if `4 |sigma| > 1`.

    Hypothesis: sigma != 0 and x0 > 0.

    **Args:** `sigma`, an eigenvalue of the target, of any sign; `x0`, the component at the start, at least 0.

    **Returns:** as `mode_acceleration`.

    **Raises:** `ValueError` for a negative x0, and infinite or NaN arguments, where they are known.

    **Notes:** for sigma < 0 tied layers tend to 0, the nearest product they can make, and one layer to sigma.

    **Source:** T21 Proposition 2 against (4).

    Example:

        >>> found = ld.theory.tied_acceleration(np.array([-1.0, 0.2]), 0.01)
        >>> found.rate.tolist(), found.faster.tolist()
        ([4.0, 0.8], [True, False])
    """
    sigma, x0 = jnp.broadcast_arrays(*as_floats(sigma=sigma, x0=x0))
    check_not_negative(x0=x0)
    return _against_one_layer(4 * jnp.abs(sigma), (sigma != 0) & (x0 > 0))


@public
@elementwise
def least_imbalance(sigma: Real[ArrayLike, "..."]) -> Float[Array, "..."]:
    """The |lambda| above which a mode of two layers is faster than one layer: `sqrt([1 - 4 sigma^2]_+)`.

    **Args:** `sigma`, target of the mode.

    **Returns:** the threshold, 0 for |sigma| > 1/2, where every imbalance accelerates, zero included.

    **Raises:** as `mode_acceleration`.

    **Source:** Table 2 of T21's earlier version.

    Example:

        >>> ld.theory.least_imbalance(np.array([0.0, 0.3, 0.6])).tolist()
        [1.0, 0.8, 0.0]
    """
    (sigma,) = as_floats(sigma=sigma)
    size = jnp.abs(sigma)
    slow = size < 0.5
    size = jnp.where(slow, size, 0)
    return jnp.where(slow, jnp.sqrt((1 - 2 * size) * (1 + 2 * size)), 0)


@public
@elementwise
def tied_descent_acceleration(sigma: Real[ArrayLike, "..."], eta: Real[ArrayLike, "..."]) -> Statement:
    """Tied layers against one layer under descent with the same step: faster iff `|factor| < |1 - eta|`.

    For sigma > 1/4 that is `eta < 2/(4 sigma + 1)`: at the larger steps that are still stable the order turns round.
    Hypotheses: those of `tied_descent_rate` and of one layer, `0 < eta < 2`.

    **Args:** `sigma`, target; `eta`, step size.

    **Returns:** as `mode_acceleration`, rates being in units of time (1/eta steps).

    **Raises:** as `mode_acceleration`.

    **Source:** T21 section 5.

    Example:

        >>> found = ld.theory.tied_descent_acceleration(1.0, np.array([0.1, 0.45]))
        >>> found.rate.tolist(), found.linear_rate.tolist()
        ([5.108, 0.4959], [1.054, 1.329])
        >>> found.faster.tolist()
        [True, False]
    """
    tied = tied_descent_rate(sigma, eta)
    one = linear_descent_step_rate(jnp.ones_like(tied.factor), eta)
    faster = jnp.abs(tied.factor) < jnp.abs(one.factor)
    return Statement(tied.rate, tied.applies & one.applies, name="rate", linear_rate=one.rate, faster=faster)


def _against_one_layer(rate: Array, applies: Array) -> Statement:
    return Statement(rate, applies, name="rate", linear_rate=jnp.ones_like(rate), faster=rate > 1)
