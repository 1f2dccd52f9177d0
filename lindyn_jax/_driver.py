"""What flow, limit and descent share: the way into the reduced form and back, and what is observed on it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Int

from . import observables as obs
from .models import AbstractModel
from .problems import AbstractProblem
from .reduction import is_reducible
from .reduction.forms import reduced_form
from .trajectory import DIVERGED, Trajectory, failed_to_inf

Observe = Callable[[AbstractModel, AbstractProblem], tuple[dict[str, Array], Any]]


class Run(NamedTuple):
    """How a way of moving a start went: times, what `observe` made at them, the last state, a result code and statistics."""

    ts: Array
    observed: tuple[dict[str, Array], Any]
    final: AbstractModel
    result: Int[Array, ""]
    stats: dict[str, Array]


def run(
    model: AbstractModel,
    problem: AbstractProblem,
    functions: dict[str, Callable],
    advance: Callable[[AbstractModel, Observe], Run],
    *,
    reduce: bool,
    lifted: bool = False,
    keep_models: bool = False,
) -> Trajectory:
    """Moves a start in its smallest exact form by `advance`, and tells what was seen in the user's own form.

    **Args:** `model`, the start, which is `lifted` again if `prepare` has reduced it; `advance(start, observe)`, where `start` is
    what has to be moved and `observe(state, problem)` gives the observables of a state and, if asked for, the state itself.
    """
    with jax.default_matmul_precision("highest"):
        start, back = model, lifted
        if reduce and is_reducible(model, problem):
            start, back = reduced_form(model, problem, None), True

        def to_user(state):
            return state.lift() if back else state

        def observe(state, problem):
            with jax.default_matmul_precision("highest"):
                values = obs.measure(functions, state, problem, start, to_user)
                return values, (to_user(state) if keep_models else None)

        moved = advance(start, observe)
        values, models = moved.observed
        known = moved.result != DIVERGED
        final_values = jax.tree.map(lambda value: failed_to_inf(known, value), observe(moved.final, problem)[0])
        return Trajectory(moved.ts, values, to_user(moved.final), final_values, moved.result, moved.stats, models)
