"""Nothing is said of what is not finite: one rule for all statements, closed forms and verdicts.

Comparisons with NaN are false, their negations true, and a maximum with zero or a flag that needs no hypothesis does not see
NaN at all. So the rule is not left to each formula: where the arguments are not finite, numbers are NaN and flags false.
"""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from ._norms import all_finite
from .problems import LeastSquares

P = ParamSpec("P")
R = TypeVar("R")


def of_finite_state(statement: Callable[P, R]) -> Callable[P, R]:
    """A statement on a model, a problem and single numbers; arrays of times and widths may hold infinity."""
    return _guarded(
        statement, lambda value: _is_finite(value) if isinstance(value, eqx.Module) else ~_is_nan_number(value)
    )


def of_finite_numbers(statement: Callable[P, R]) -> Callable[P, R]:
    """A statement on whole arrays."""
    return _guarded(statement, lambda value: jnp.all(_is_finite(value)))


def elementwise(statement: Callable[P, R]) -> Callable[P, R]:
    """A statement on numbers, entry by entry."""
    return _guarded(statement, _is_finite)


def _guarded(statement: Callable[P, R], is_known: Callable[[Any], Bool[Array, "..."]]) -> Callable[P, R]:
    @functools.wraps(statement)
    def said(*args, **kwargs):
        # First the statement itself, which says in its own words what it does not take.
        answer = statement(*args, **kwargs)
        known = jnp.asarray(True)
        for value in (*args, *kwargs.values()):
            known = known & is_known(value)
        return jax.tree.map(lambda leaf: _keep(known, leaf), answer)

    return said


def _keep(known: Bool[Array, "..."], leaf: Any) -> Any:
    if not isinstance(leaf, jax.Array):
        return leaf
    if leaf.dtype == bool:
        return leaf & known
    return jnp.where(known, leaf, jnp.nan) if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf


def _is_finite(value: Any) -> Bool[Array, "..."]:
    if isinstance(value, LeastSquares):
        if isinstance(value.Y, jax.ShapeDtypeStruct):
            # Only its sizes are known, and numbers that follow from them.
            return jnp.asarray(True)
        # The factors of the data and not the data: N may be large, and they have lost no NaN.
        return all_finite((value.Ytil, value.singular_values, value.scale, value.residual))
    if isinstance(value, eqx.Module):
        return all_finite(value)
    if value is None or isinstance(value, (str, int)):
        return jnp.asarray(True)
    value = jnp.asarray(value)
    return jnp.isfinite(value) if jnp.issubdtype(value.dtype, jnp.inexact) else jnp.ones(value.shape, bool)


def _is_nan_number(value: Any) -> Bool[Array, ""]:
    if isinstance(value, (float, np.generic, np.ndarray, jax.Array)) and jnp.ndim(value) == 0:
        return (
            jnp.isnan(jnp.asarray(value))
            if jnp.issubdtype(jnp.asarray(value).dtype, jnp.inexact)
            else jnp.asarray(False)
        )
    return jnp.asarray(False)
