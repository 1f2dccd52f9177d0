"""What the closed forms share: the form of their answers, checks of their arguments, and functions with finite derivatives."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from .. import _checks


class Rate(NamedTuple):
    """An asymptotic rate, and whether its hypotheses hold.

    **Fields:** `value`: the distance to the limit falls like `exp(-value t)`; `applies`.
    """

    value: Float[Array, "..."]
    applies: Bool[Array, "..."]


class Limit(NamedTuple):
    """A limit as t goes to infinity, and whether it is the target.

    **Fields:** `value`: the limit of this start, whatever it is; `applies`: whether it is the one that the statement
    promises.
    """

    value: Float[Array, "..."]
    applies: Bool[Array, "..."]


class Time(NamedTuple):
    """A time at which something happens, and whether it does.

    **Fields:** `value`; `applies`.
    """

    value: Float[Array, "..."]
    applies: Bool[Array, "..."]


def as_floats(**arguments: Real[ArrayLike, "..."]) -> tuple[Array, ...]:
    """Real arguments as arrays of one floating-point dtype (Python numbers take that of the arrays), finite if known."""
    arrays = {}
    for name, value in arguments.items():
        try:
            # A Python integer may not fit the default integer type, but has a place among floats.
            arrays[name] = jnp.asarray(float(value) if type(value) is int else value)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"Argument `{name}` must be an array of numbers, but is {type(value).__name__}."
            ) from error
        if jnp.issubdtype(arrays[name].dtype, jnp.complexfloating):
            raise ValueError(f"Argument `{name}` must be real, but has dtype {arrays[name].dtype}.")
        _checks.check_finite(arrays[name], name)
    dtype = jnp.result_type(*arrays.values())
    if not jnp.issubdtype(dtype, jnp.floating):
        dtype = jnp.result_type(float)
    return tuple(array.astype(dtype) for array in arrays.values())


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
    """Refuses problems whose loss is not quadratic in the end-to-end matrix, and those with a penalty on the layers."""
    if problem.link is not None:
        raise ValueError(
            f"`{name}` has no closed form for a problem with a link function: integrate it with `gradient_flow`, or leave "
            "out `link`."
        )
    if problem.regularization is not None:
        raise ValueError(
            f"`{name}` has no closed form for a problem with a penalty on the imbalance: build the problem without "
            "`regularized`."
        )


def least_divisor(dtype: jnp.dtype) -> float:
    """The number down to which `1/x` and its derivative `1/x^2` do not overflow."""
    return math.sqrt(float(jnp.finfo(dtype).tiny))


@jax.custom_jvp
def ratio(a: Array, b: Array) -> Array:
    """`a / b`, whose derivative never squares b: `1/b^2` overflows at b = 1e-160, `da/b` does not."""
    return a / b


@ratio.defjvp
def _ratio_jvp(primals, tangents):
    (a, b), (da, db) = primals, tangents
    value = ratio(a, b)
    return value, ratio(da - value * db, b)


@jax.custom_jvp
def hypot(a: Array, b: Array) -> Array:
    """`sqrt(a^2 + b^2)` without overflow of the squares; every derivative is zero at a = b = 0."""
    size = jnp.maximum(jnp.abs(a), jnp.abs(b))
    usual = (size > 0) & (size < jnp.inf)
    scale = jnp.where(usual, size, 1)
    # 0, infinity and NaN are what the larger of the two is.
    return jnp.where(usual, scale * jnp.sqrt((a / scale) ** 2 + (b / scale) ** 2), size)


@hypot.defjvp
def _hypot_jvp(primals, tangents):
    h = hypot(*primals)
    # The direction's own derivative is of order 1/h: where that would overflow, the direction is held.
    moving, positive = h > least_divisor(h.dtype), h > 0
    divisor = jnp.where(moving, h, 1)
    held = jax.lax.stop_gradient(jnp.where(positive, h, 1))
    directions = (jnp.where(moving, x / divisor, jax.lax.stop_gradient(x) / held) for x in primals)
    return h, sum(direction * dx for direction, dx in zip(directions, tangents, strict=True))


def polynomial(coefficients: list[float], x: Array) -> Array:
    """The polynomial with ascending coefficients, by Horner's rule: its derivatives are as accurate as itself."""
    value = jnp.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        value = value * x + c
    return value


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def last_derivative(x: Array, message: str) -> Array:
    """The identity, which refuses to be differentiated: a further derivative would be incomplete, and must not be silent."""
    return x


@last_derivative.defjvp
def _last_derivative_jvp(message, primals, tangents):
    raise NotImplementedError(message)
