"""Minimisers of optimistix, step by step, so that their path is seen."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Bool, Float, Int, PyTree


class Descent(NamedTuple):
    """**Fields:** the last `point`; `history`, shape (steps + 1,), the value before every step; `count`; `done`, by tolerance."""

    point: PyTree
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
        point, arrays, history, count = carry
        point, state, value = minimiser.step(with_value, point, None, {}, eqx.combine(arrays, rest), tags)
        return point, eqx.filter(state, eqx.is_array), history.at[count].set(value), count + 1

    def goes_on(carry):
        point, arrays, _, count = carry
        return ~terminates(point, arrays) & (count < steps)

    history = jnp.full(steps + 1, jnp.inf, dtype)
    point, arrays, history, count = jax.lax.while_loop(
        goes_on, body, (start, arrays, history, jnp.zeros((), jnp.int32))
    )
    state = eqx.combine(arrays, rest)
    done = terminates(point, arrays)
    last, _, _ = minimiser.postprocess(
        with_value, point, jnp.zeros((), dtype), None, {}, state, tags, optx.RESULTS.successful
    )
    return Descent(last, history, count, done)
