"""What the closed forms share: the form of their answers, checks of their arguments, and functions with finite derivatives."""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from .. import _checks
from .._derivatives import last_derivative  # noqa: F401 (closed forms take it from here)
from .._norms import hypot, least_divisor, ratio  # noqa: F401 (closed forms take them from here)


class Rate(NamedTuple):
    """An asymptotic rate, and whether its hypotheses hold.

    **Fields:** `value`: the distance to the limit falls like `exp(-value t)`; `applies`.

    Example:

        >>> value, applies = ld.exact.aligned_rate(jnp.array([2.0, 0.0]), 1.0)
        >>> print(value, applies)
        [4. 0.] [ True False]
    """

    value: Float[Array, "..."]
    applies: Bool[Array, "..."]


class Limit(NamedTuple):
    """A limit as t goes to infinity, and whether it is the target.

    **Fields:** `value`: the limit of this start, whatever it is; `applies`: whether it is the one that the statement
    promises.

    Example:

        >>> value, applies = ld.exact.aligned_limit(2.0, 4.0)
        >>> float(value), bool(applies)
        (0.5, True)
    """

    value: Float[Array, "..."]
    applies: Bool[Array, "..."]


class Time(NamedTuple):
    """A time at which something happens, and whether it does.

    **Fields:** `value`; `applies`.

    Example:

        >>> value, applies = ld.exact.aligned_jump_time(jnp.array([2.0, 0.0]))
        >>> print(value, applies)
        [0.5 inf] [ True False]
    """

    value: Float[Array, "..."]
    applies: Bool[Array, "..."]


def as_floats(**arguments: Real[ArrayLike, "..."]) -> tuple[Array, ...]:
    """Real arguments as arrays of one floating-point dtype (Python numbers take that of the arrays), finite if known."""
    arrays = {}
    for name, value in arguments.items():
        arrays[name] = _checks.as_float(value, name)
        _checks.check_finite(arrays[name], name)
    # Whole numbers are floats by now, and have no say in the precision.
    deciding = [array for name, array in arrays.items() if not _is_whole(arguments[name])]
    dtype = jnp.result_type(*deciding) if deciding else jnp.result_type(float)
    return tuple(array.astype(dtype) for array in arrays.values())


def _is_whole(value: ArrayLike) -> bool:
    """Whether a number, an array or a nested sequence holds whole numbers only."""
    leaves = jax.tree.leaves(value)
    return not any(map(eqx.is_inexact_array_like, leaves))


def as_times(ts: Real[ArrayLike, "..."], dtype: jnp.dtype) -> Float[Array, " T"]:
    """A vector of times, not negative if known, in the dtype of the solution."""
    (ts,) = as_floats(ts=ts)
    if ts.ndim == 0:
        raise ValueError(
            "Argument `ts` must have shape (T,), but is one number: pass a vector of times, jnp.array([t])."
        )
    check_vector(ts, "ts", "T")
    check_not_negative(ts=ts)
    return ts.astype(dtype)


def check_not_negative(**arguments: Array) -> None:
    """Refuses concrete arrays with a negative entry."""
    for name, value in arguments.items():
        if not _checks.is_traced(value) and np.any(np.asarray(value) < 0):
            raise ValueError(f"Argument `{name}` must not be negative, but is {value}.")


def check_vector(value: Array, name: str, axis: str) -> None:
    """Refuses what is not a vector; `axis` is the letter of its length."""
    if value.ndim != 1:
        raise ValueError(f"Argument `{name}` must have shape ({axis},), but has shape {value.shape}.")


def check_quadratic(problem, name: str) -> None:
    """Refuses problems whose loss is not quadratic in the end-to-end matrix, and"""
    if problem.link is not None:
        raise ValueError(
            f"`{name}` has no closed form for a problem with a link function: integrate it with `gradient_flow`, or leave "
            "out `link`."
        )


def polynomial(coefficients: list[float], x: Array) -> Array:
    """The polynomial with ascending coefficients, by Horner's rule: its derivatives are as accurate as itself."""
    value = jnp.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        value = value * x + c
    return value


def phi1(z: Array) -> Array:
    """`(e^z - 1)/z` for z <= 0, by its power series near zero so that every derivative is as accurate as the value."""
    small = z > -0.5
    series = polynomial([1 / math.factorial(j + 1) for j in range(16)], jnp.where(small, z, 0))
    return jnp.where(small, series, jnp.expm1(z) / jnp.where(small, -1, z))
