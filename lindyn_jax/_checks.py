"""Checks of what users pass in: one sentence each, saying what was asked, what was given and what to do."""

import difflib
import functools
import numbers
from collections.abc import Sequence
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ._text import ArgumentError

# Of more choices than these the one that is meant comes first.
_FEW = 8


def is_traced(*values: Any) -> bool:
    """Whether any value has no concrete number behind it (inside jit, vmap or grad)."""
    return any(isinstance(value, Tracer) for value in values)


def is_array(value: Any) -> bool:
    """Whether a value is an array of JAX or NumPy, traced ones too."""
    return isinstance(value, (jax.Array, np.ndarray))


def is_name(value: Any) -> TypeGuard[str]:
    """Whether a value is the name of one, where both can be given."""
    return isinstance(value, str)


@functools.singledispatch
def hint_of(value: Any) -> str:
    """What to give in place of a value that is no array; registered by kind."""
    return ""


def as_tuple(value: Any) -> tuple:
    """Several values, or one of them."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def check_count(value: Any, name: str) -> int:
    """A whole number of at least 1."""
    if isinstance(value, bool) or int(value) != value or value < 1:
        raise ArgumentError(name, f"must be a whole number of at least 1, but is {value}.")
    return int(value)


def jax_setting(name: str) -> Any:
    """A setting of JAX as it is in this thread; JAX makes these attributes while it is imported."""
    return getattr(jax.config, name)


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
    """`value` as a real floating-point array of 32 or 64 bits.

    Whole numbers of any size and flags become the default float type, half precision becomes float32, which holds it exactly, and
    foreign byte orders become the machine's. Masked entries and what is no number are refused.
    """
    if not isinstance(value, (jax.Array, float)):
        value = _as_numpy(value, name)
    array = jnp.asarray(value)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise ValueError(f"Argument `{name}` must be real, but has dtype {array.dtype}.")
    if not (jnp.issubdtype(array.dtype, jnp.number) or jnp.issubdtype(array.dtype, jnp.bool_)):
        raise ValueError(f"Argument `{name}` must be an array of numbers, but has dtype {array.dtype}.")
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return array.astype(jnp.result_type(float))
    return array.astype(jnp.float32) if jnp.finfo(array.dtype).bits < 32 else array


def _as_numpy(value: Any, name: str) -> np.ndarray | jax.Array:
    """A value that is no JAX array, as one that JAX takes: by NumPy, since JAX would wrap whole numbers to 32 bits."""
    given = f"has dtype {value.dtype}" if is_array(value) else f"is {type(value).__name__}{hint_of(value)}"
    refusal = f"Argument `{name}` must be an array of numbers, but {given}."
    if np.ma.is_masked(value):
        raise ValueError(f"Argument `{name}` must have no masked entries: fill them or leave out their samples.")
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, jax.errors.JAXTypeError) as error:
        try:
            return jnp.asarray(value)  # sequences that hold traced numbers
        except (TypeError, ValueError, OverflowError):
            raise ValueError(refusal) from error
    if array.dtype == object:  # whole numbers beyond 64 bits, fractions, sequences that hold JAX arrays
        if not all(isinstance(entry, (numbers.Number, np.bool_, jax.Array)) for entry in array.flat):
            raise ValueError(refusal)
        try:
            return array.astype(np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"Argument `{name}` must be an array of numbers in the range of floats.") from error
    if array.dtype.kind in "iub":
        return array.astype(np.float64)
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return array.astype(np.float64)
    if array.dtype.kind == "c":
        raise ValueError(f"Argument `{name}` must be real, but has dtype {array.dtype}.")
    if array.dtype.kind in "USMmO" or array.dtype.names:
        raise ValueError(refusal)
    return array.astype(array.dtype.newbyteorder("="))


def as_dtype(dtype: Any) -> np.dtype:
    """A real floating-point type by its name or class, the default one for `None`."""
    try:
        if not isinstance(dtype, (str, type, np.dtype, type(None))):
            raise TypeError
        found = np.dtype(jnp.result_type(float) if dtype is None else dtype)
        if not jnp.issubdtype(found, jnp.floating):
            raise TypeError
    except TypeError:
        raise ValueError(
            f"Argument `dtype` must be a floating-point type such as `jnp.float32`, or None, but is {dtype!r}."
        ) from None
    return found


def check_finite(array: Any, name: str) -> None:
    """Refuses NaN and infinity in a concrete array and says where the first one is."""
    if is_traced(array):
        return
    bad = np.argwhere(~np.isfinite(np.asarray(array)))
    if len(bad):
        where = tuple(int(i) for i in bad[0])
        verb = "is" if len(bad) == 1 else "are"
        words = f"must be finite, but {len(bad)} of its entries {verb} not; the first is at index {where}."
        raise ArgumentError(name, words)


def check_positive(value: Any, name: str) -> None:
    """Refuses a concrete number that is not positive and finite."""
    if is_traced(value):
        return
    number = np.asarray(value)
    if not np.all(np.isfinite(number) & (number > 0)):
        raise ArgumentError(name, f"must be a positive number, but is {value}.")


@functools.lru_cache(maxsize=256)
def refuse_overrides(kind: type, base: type) -> None:
    """Refuses a class derived from `base` that replaces something which the formulas of this package take for granted.

    Everything that `base` has from this package counts: solvers, closed forms and bounds use its formulas and not the new ones.
    """
    mine = [vars(one) for one in base.__mro__ if one.__module__.split(".")[0] == __package__]
    names = {name for one in mine for name in (*one, *one.get("__annotations__", {})) if not name.startswith("__")}
    names = (names | {"__getattr__", "__getattribute__"}) - {"_abc_impl"}
    for parent in kind.__mro__[: kind.__mro__.index(base)]:
        replaced = sorted(names & {*vars(parent), *vars(parent).get("__annotations__", {})})
        if replaced:
            raise ValueError(
                f"A {base.__name__} with a `{replaced[0]}` of its own, as {parent.__name__} has it, is refused: solvers and "
                f"statements would go on using the formulas of {base.__name__}."
            )


def check_not_negative(value: Any, name: str) -> None:
    """Refuses a concrete number that is negative or not finite."""
    if not is_traced(value) and not np.all(np.isfinite(value) & (np.asarray(value) >= 0)):
        raise ArgumentError(name, f"must be a number of at least 0, but is {value}.")


def check_choice(value: Any, name: str, choices: Sequence[str], hint: str | None = None) -> None:
    """Refuses what is none of the choices, and says which one may be meant, or the `hint` in its place."""
    if value in choices:
        return
    close = difflib.get_close_matches(value.lower(), choices, n=1) if is_name(value) else []
    hint = hint or (f"did you mean {close[0]!r}?" if close else None)
    listed = f"must be one of {', '.join(map(repr, choices))}"
    if hint and len(choices) > _FEW:
        raise ArgumentError(name, f"is {value!r}: {hint} It {listed}.")
    raise ArgumentError(name, f"{listed}, but is {value!r}{f': {hint}' if hint else '.'}")


def check_tolerance(value: Any, name: str, dtype: Any) -> None:
    """Refuses a tolerance below what the dtype resolves: the solver would spend steps and gain nothing."""
    check_positive(value, name)
    least = 8 * float(jnp.finfo(dtype).eps)
    if not is_traced(value) and float(value) < least:
        hint = (
            "" if dtype == jnp.float64 else ", or turn on 64-bit mode with `jax.config.update('jax_enable_x64', True)`"
        )
        words = f"is {float(value):g}, which {jnp.dtype(dtype).name} cannot resolve: pass at least {least:.1e}{hint}."
        raise ArgumentError(name, words)
