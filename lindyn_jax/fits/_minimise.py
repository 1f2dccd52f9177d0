"""Minimisers of optimistix, step by step, so that their path is seen."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Bool, Float, Int, PyTree


class Descent(NamedTuple):
    """**Fields:** the `last` point; the `best` one seen, and its value, `least`; `history`, shape (steps + 1,), the value before
    every step and at the end; `count`; `done`, by tolerance.
    """

    last: PyTree
    best: PyTree
    least: Float[Array, ""]
    history: Float[Array, " K"]
    count: Int[Array, ""]
    done: Bool[Array, ""]


def descend(
    minimiser: optx.AbstractMinimiser, function: Callable[[PyTree], Array], start: PyTree, steps: int, dtype
) -> Descent:
    """Runs a minimiser on a function of one argument until it terminates or has taken all steps."""

    def with_value(point, _):
        value = function(point)
        return value, value

    number, tags = jax.ShapeDtypeStruct((), dtype), frozenset()
    state = minimiser.init(with_value, start, None, {}, number, number, tags)
    arrays, rest = eqx.partition(state, eqx.is_array)

    def terminates(point, arrays):
        return minimiser.terminate(with_value, point, None, {}, eqx.combine(arrays, rest), tags)[0]

    def body(carry):
        point, arrays, seen, history, count = carry
        # What a step reports is the value where it last looked, which need not be its point: asked for here.
        value = function(point)
        seen = better(point, value, seen)
        point, state, _ = minimiser.step(with_value, point, None, {}, eqx.combine(arrays, rest), tags)
        return point, eqx.filter(state, eqx.is_array), seen, history.at[count].set(value), count + 1

    def better(point, value, seen):
        return jax.tree.map(lambda new, old: jnp.where(value < seen[1], new, old), (point, value), seen)

    def goes_on(carry):
        point, arrays, *_, count = carry
        return ~terminates(point, arrays) & (count < steps)

    history = jnp.full(steps + 1, jnp.inf, dtype)
    seen = (start, jnp.asarray(jnp.inf, dtype))
    point, arrays, seen, history, count = jax.lax.while_loop(
        goes_on, body, (start, arrays, seen, history, jnp.zeros((), jnp.int32))
    )
    state = eqx.combine(arrays, rest)
    done = terminates(point, arrays)
    last, _, _ = minimiser.postprocess(
        with_value, point, jnp.zeros((), dtype), None, {}, state, tags, optx.RESULTS.successful
    )
    value = function(last)
    best, least = better(last, value, seen)
    return Descent(last, best, least, history.at[count].set(value), count, done)
