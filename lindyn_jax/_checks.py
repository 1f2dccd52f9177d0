"""Checks of what users pass in: one sentence each, saying what was asked, what was given and what to do."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def is_traced(*values: Any) -> bool:
    """Whether any value has no concrete number behind it (inside jit, vmap or grad)."""
    return any(isinstance(value, jax.core.Tracer) for value in values)


def as_matrix(value: Any, name: str, shape: str) -> jax.Array:
    """`value` as a two-dimensional floating-point array; `shape` names its axes in the error."""
    array = as_float(value, name)
    if array.ndim != 2:
        hint = f"; for a single column pass `{name}[:, None]`" if array.ndim == 1 else ""
        raise ValueError(f"Argument `{name}` must have shape {shape}, but has shape {array.shape}{hint}.")
    if 0 in array.shape:
        raise ValueError(f"Argument `{name}` must have shape {shape} with no empty axis, but has shape {array.shape}.")
    return array


def as_float(value: Any, name: str) -> jax.Array:
    """`value` as a real floating-point array: integers and booleans become the default float type."""
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Argument `{name}` must be an array of numbers, but is {type(value).__name__}.") from error
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise ValueError(f"Argument `{name}` must be real, but has dtype {array.dtype}.")
    if not jnp.issubdtype(array.dtype, jnp.floating):
        array = array.astype(jnp.result_type(float))
    return array


def check_finite(array: Any, name: str) -> None:
    """Refuses NaN and infinity in a concrete array and says where the first one is."""
    if is_traced(array):
        return
    bad = np.argwhere(~np.isfinite(np.asarray(array)))
    if len(bad):
        where = tuple(int(i) for i in bad[0])
        raise ValueError(
            f"Argument `{name}` must be finite, but {len(bad)} of its entries are not; the first is at index {where}."
        )


def check_positive(value: Any, name: str) -> None:
    """Refuses a concrete number that is not positive and finite."""
    if is_traced(value):
        return
    number = np.asarray(value)
    if not np.all(np.isfinite(number) & (number > 0)):
        raise ValueError(f"Argument `{name}` must be a positive number, but is {value}.")


def check_choice(value: Any, name: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"Argument `{name}` must be one of {', '.join(map(repr, choices))}, but is {value!r}.")


def check_tolerance(value: float, name: str, dtype: Any) -> None:
    """Refuses a tolerance below what the dtype resolves: the solver would spend steps and gain nothing."""
    check_positive(value, name)
    least = 8 * float(jnp.finfo(dtype).eps)
    if not is_traced(value) and float(value) < least:
        hint = (
            "" if dtype == jnp.float64 else ", or turn on 64-bit mode with `jax.config.update('jax_enable_x64', True)`"
        )
        raise ValueError(
            f"Argument `{name}` is {float(value):g}, which {jnp.dtype(dtype).name} cannot resolve: "
            f"pass at least {least:.1e}{hint}."
        )
