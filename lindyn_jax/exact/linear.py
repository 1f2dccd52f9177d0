r"""One layer, flow and descent, for data of any rank.

The error of Theta in the right singular vectors of X decays mode by mode, and what lies outside the rows of X never moves:

    Theta(t) = (I - Phi1 Phi1^T) Theta0 + Phi1 (e^{-q t S^2} Phi1^T Theta0 + (I - e^{-q t S^2}) S^{-1} Ytil).

Descent has `(I - eta q S^2)^t` in place of the exponential. S includes the output scale of the problem.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Real

from .. import _checks
from .._public import public
from ..problems import LeastSquares
from ._common import Limit, Rate, as_times, check_quadratic


@public
def linear(problem: LeastSquares, Theta0: Real[ArrayLike, "n m"], ts: Real[ArrayLike, " T"]) -> Float[Array, "T n m"]:
    r"""Gradient flow of one layer.

    `Theta(t) = Theta_hat + e^{-q t c^2 X^T X}(Theta0 - Theta_hat)`.

    **Args:**

    - `problem`: without a link and without a penalty.
    - `Theta0`: the start, shape (n, m).
    - `ts`: times, shape (T,), at least 0.

    **Returns:** Theta, shape (T, n, m).

    **Raises:** `ValueError` for a link, a penalty, a wrong shape, or times that are negative, infinite or NaN.

    **Notes:** the part of Theta0 outside the rows of X stays for ever. Derivatives in time, targets and start exist
    everywhere; those in X need distinct singular values.

    **Source:** T21 section 2, G19 section 3.1, with the null space.

    Example:

        >>> problem = ld.LeastSquares(jnp.diag(jnp.array([1.0, 2.0])), jnp.eye(2))
        >>> Theta = ld.exact.linear(problem, jnp.zeros((2, 2)), jnp.array([0.5, 20.0]))
        >>> print(jnp.diagonal(Theta, axis1=1, axis2=2).round(4))
        [[0.3935 0.4323]
         [1.     0.5   ]]
        >>> float(1 - jnp.exp(-0.5)), float((1 - jnp.exp(-2.0)) / 2)
        (0.3935, 0.4323)
    """
    Theta0 = _start(problem, Theta0, "linear")
    return _flow(problem, Theta0, as_times(ts, problem.dtype))


@public
def linear_limit(problem: LeastSquares, Theta0: Real[ArrayLike, "n m"]) -> Limit:
    """Limit of `linear`, and of `linear_descent` when it converges: `Theta_hat + (I - Phi1 Phi1^T) Theta0`.

    It needs no hypothesis for the flow; `linear_descent_rate` has the one of descent.

    **Args:** as for `linear`.

    **Returns:** a `Limit`, of shape (n, m).

    **Raises:** as `linear`.

    **Source:** T21 section 2.

    Example:

        >>> problem = ld.LeastSquares(jnp.array([[1.0, 2.0]]), jnp.array([[2.0]]))
        >>> limit = ld.exact.linear_limit(problem, jnp.array([[1.0], [0.0]])).value
        >>> print(limit.round(4).ravel(), (problem.X @ limit).round(4))
        [1.2 0.4] [[2.]]
    """
    Theta0 = _start(problem, Theta0, "linear_limit")
    return Limit(_limit(problem, Theta0), jnp.asarray(True))


@public
def linear_rate(problem: LeastSquares) -> Rate:
    """Rate of `linear`: `q lambda_r`, that of the slowest direction which the data reach. It needs no hypothesis.

    **Args:** `problem`, without a link and without a penalty.

    **Returns:** a `Rate`.

    **Raises:** `ValueError` for a link or a penalty.

    **Source:** T21 section 2.

    Example:

        >>> problem = ld.LeastSquares(jnp.diag(jnp.array([1.0, 2.0])), jnp.eye(2))
        >>> float(ld.exact.linear_rate(problem).value)
        1.0
    """
    check_quadratic(problem, "linear_rate")
    return Rate(problem.scale * problem.singular_values[-1] ** 2, jnp.asarray(True))


@public
def linear_descent(
    problem: LeastSquares,
    Theta0: Real[ArrayLike, "n m"],
    eta: Real[ArrayLike, ""],
    steps: Int[ArrayLike, " T"],
) -> Float[Array, "T n m"]:
    r"""Gradient descent of one layer, at any steps.

    `Theta_t = Theta_hat + (I - eta q c^2 X^T X)^t (Theta0 - Theta_hat)`.

    **Args:**

    - `problem`, `Theta0`: as for `linear`.
    - `eta`: step size; may be traced.
    - `steps`: step numbers, shape (T,), whole and at least 0.

    **Returns:** Theta, shape (T, n, m).

    **Raises:** `ValueError` as `linear`, and for steps that are not whole or negative.

    **Notes:** it converges if and only if `0 < eta q lambda_1 < 2` (or there is nothing to learn); beyond, the powers
    saturate at about 1e150 in float64 and 1e18 in float32 instead of overflowing.

    **Source:** G19 (21), whose printed order of the factors is wrong.

    Example:

        >>> problem = ld.LeastSquares(jnp.diag(jnp.array([1.0, 2.0])), jnp.eye(2))
        >>> Theta = ld.exact.linear_descent(problem, jnp.zeros((2, 2)), 0.1, np.array([5, 500]))
        >>> print(jnp.diagonal(Theta, axis1=1, axis2=2).round(4))
        [[0.4095 0.4611]
         [1.     0.5   ]]
        >>> 1 - 0.9**5, (1 - 0.6**5) / 2
        (0.4095, 0.4611)
    """
    Theta0 = _start(problem, Theta0, "linear_descent")
    known = not _checks.is_traced(steps)
    numbers: Any = np.asarray(steps) if known else steps
    if numbers.ndim != 1 or not jnp.issubdtype(numbers.dtype, jnp.integer):
        raise ValueError(
            f"Argument `steps` must be a vector of whole step numbers, shape (T,), but is {numbers.dtype}{numbers.shape}."
        )
    if known and np.any(numbers < 0):
        raise ValueError(f"Argument `steps` must not be negative, but is {numbers}.")
    eta = _checks.as_float(eta, "eta").astype(problem.dtype)
    # Step numbers that do not fit the default integer type keep their size as floats, and their parity.
    most = np.iinfo(jax.dtypes.canonicalize_dtype(np.int64)).max
    whole, count = numbers, _checks.as_float(numbers, "steps").astype(problem.dtype)
    if known:
        whole = jnp.asarray(np.where(numbers > most, most - 1 + numbers % 2, numbers).astype(np.int64))
    return _descent(problem, Theta0, eta, whole, count)


@public
def linear_descent_rate(problem: LeastSquares, eta: Real[ArrayLike, ""]) -> Rate:
    """Rate a step of `linear_descent`, `-log max_i |1 - eta q lambda_i|`, and whether it converges.

    Hypothesis: `0 < eta q lambda_1 < 2`.

    **Args:** `problem`, without a link and without a penalty; `eta`, step size.

    **Returns:** a `Rate`, whose time is the number of steps; infinite if one step solves the problem.

    **Raises:** `ValueError` for a link or a penalty.

    **Notes:** `applies` compares numbers: within a rounding error of the bound 2 it says nothing.

    **Source:** G19 (21), T21 section 5.

    Example:

        >>> problem = ld.LeastSquares(jnp.diag(jnp.array([1.0, 2.0])), jnp.eye(2))
        >>> for eta in (0.1, 0.6):
        ...     rate = ld.exact.linear_descent_rate(problem, eta)
        ...     print(rate.value.round(4), rate.applies)
        0.1054 True
        -0.3365 False
    """
    check_quadratic(problem, "linear_descent_rate")
    eta = _checks.as_float(eta, "eta").astype(problem.dtype)
    decrease = eta * problem.scale * problem.singular_values**2
    # log|1 - d| through log1p on either side, for the digits of slow directions; the slowest is the first or the last.
    ends = jnp.stack([decrease[0], decrease[-1]])
    right = ends > 1
    offset = jnp.where(right, ends - 2, -ends)
    solved = offset == -1
    logs = jnp.where(solved, -jnp.inf, jnp.log1p(jnp.where(solved, 0, offset)))
    return Rate(-jnp.max(logs), (decrease[0] > 0) & (decrease[0] < 2))


def _start(problem: LeastSquares, Theta0: ArrayLike, name: str) -> Array:
    """Theta0 in the dtype of the problem, once both are checked."""
    check_quadratic(problem, name)
    Theta0 = _checks.as_matrix(Theta0, "Theta0", "(n, m)")
    shape = (problem.num_inputs, problem.num_outputs)
    if Theta0.shape != shape:
        raise ValueError(f"Argument `Theta0` must have shape {shape} for this problem, but has shape {Theta0.shape}.")
    _checks.check_finite(Theta0, "Theta0")
    return Theta0.astype(problem.dtype)


@jax.jit
def _flow(problem: LeastSquares, Theta0: Array, ts: Array) -> Array:
    exponent = problem.scale * problem.singular_values**2 * ts[:, None]
    return _assemble(problem, Theta0, jnp.exp(-exponent), -jnp.expm1(-exponent))


@jax.jit
def _limit(problem: LeastSquares, Theta0: Array) -> Array:
    none = jnp.zeros((1, problem.rank), problem.dtype)
    return _assemble(problem, Theta0, none, none + 1)[0]


@jax.jit
def _descent(problem: LeastSquares, Theta0: Array, eta: Array, whole: Array, count: Array) -> Array:
    """`count` is the number of steps; `whole`, an integer, the same or one of its parity, as large as an integer can be."""
    decrease = eta * problem.scale * problem.singular_values**2
    steps = whole[:, None], count[:, None]
    return _assemble(problem, Theta0, _power(decrease, *steps), _learned(decrease, *steps))


def _assemble(problem: LeastSquares, Theta0: Array, kept: Array, learned: Array) -> Array:
    """Theta, shape (T, n, m), from the shares of the start and of the solution in each direction, both (T, r)."""
    moving = problem.to_data(Theta0)
    rows = kept[:, :, None] * moving + learned[:, :, None] * problem.reduced_theta_hat
    Theta = rows if problem.Phi1 is None else problem.Phi1 @ rows
    # Without this test, round-off of the start would stay for ever where the data reach everything.
    return Theta + (Theta0 - problem.from_data(moving)) if problem.num_frozen else Theta


def _power(d: Array, whole: Array, t: Array) -> Array:
    """`(1 - d)^t` for whole t >= 0, to full accuracy near d = 0 and d = 2, saturating where it would overflow."""
    d, whole, t = jnp.broadcast_arrays(d, whole, t)
    low, high = d < 0.5, d > 1.5
    near = jnp.exp(jnp.where(low | high, _exponent(d, t, low, high), 0))
    sign = jnp.where(high & (whole % 2 == 1), -1, 1)
    # A power of an integer: its derivative is right at d = 1 as well.
    middle = jax.lax.pow(jnp.where(low | high, 1, 1 - d), whole)
    return jnp.where(low | high, sign * near, middle)


def _learned(d: Array, whole: Array, t: Array) -> Array:
    """`1 - (1 - d)^t`, without cancellation for small d."""
    d, t = jnp.broadcast_arrays(d, t)
    low = d < 0.5
    return jnp.where(low, -jnp.expm1(_exponent(d, t, low, False)), 1 - _power(d, whole, t))


def _exponent(d: Array, t: Array, low: Array, high: Array | bool) -> Array:
    """`t log|1 - d|` where d is low (near 0) or high (near 2 and above), below the logarithm of what the dtype holds."""
    offset = jnp.where(low, -d, jnp.where(high, d - 2, 0))
    return jnp.minimum(t * jnp.log1p(offset), 0.49 * math.log(jnp.finfo(d.dtype).max))
