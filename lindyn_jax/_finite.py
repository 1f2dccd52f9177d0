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
from jaxtyping import Array, Bool

from ._norms import all_finite
from .problems import LeastSquares

P = ParamSpec("P")
R = TypeVar("R")


def of_finite_state(statement: Callable[P, R]) -> Callable[P, R]:
    """A statement on a model, a problem and single numbers; arrays of times and widths may hold infinity."""
    return _guarded(statement, _is_finite_state)


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
    if not eqx.is_array(leaf):
        return leaf
    if leaf.dtype == bool:
        return leaf & known
    return jnp.where(known, leaf, jnp.nan) if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf


@functools.singledispatch
def _is_finite(value: Any) -> Bool[Array, "..."]:
    value = jnp.asarray(value)
    return jnp.isfinite(value) if jnp.issubdtype(value.dtype, jnp.inexact) else jnp.ones(value.shape, bool)


for kind in (type(None), str, int):
    _is_finite.register(kind, lambda value: jnp.asarray(True))


@_is_finite.register
def _(value: eqx.Module) -> Bool[Array, ""]:
    return all_finite(value)


@_is_finite.register
def _(value: LeastSquares) -> Bool[Array, ""]:
    if not eqx.is_array(value.Y):
        # Only its sizes are known, and numbers that follow from them.
        return jnp.asarray(True)
    # The factors of the data and not the data: N may be large, and they have lost no NaN.
    return all_finite((value.Ytil, value.singular_values, value.scale, value.residual))


@functools.singledispatch
def _is_finite_state(value: Any) -> Bool[Array, ""]:
    """Whether a model or problem is finite, and whether what else is a single number is not NaN."""
    single = eqx.is_inexact_array_like(value) and jnp.ndim(value) == 0
    return ~jnp.isnan(jnp.asarray(value)) if single else jnp.asarray(True)


_is_finite_state.register(eqx.Module, _is_finite)
