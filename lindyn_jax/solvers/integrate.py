"""The loop over the steps of a diffrax solver, without checks at run time and in a small program.

`diffrax.diffeqsolve` asks at run time whether its times increase, each time a call from the program back into Python. Such a call
keeps a program from the persistent cache and turns a sentence into an internal error; here times are in order by construction.
What is not used (jumps, dense output, saving of steps) is left out, which halves the time to compile a flow. Steps, results and
what is observed are those of `diffeqsolve`, to the last bit.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import diffrax
import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# By how many units in the last place a step may miss the end.
_CLOSE = 100


class Solution(NamedTuple):
    """How an integration went.

    **Fields:** `time` and `y`, its end; `observed`, at each of the times of observation, infinite where it did not get to;
    `result`; `num_steps`, `num_accepted`; `controller_state`, at the end.
    """

    time: Float[Array, ""]
    y: Any
    observed: Any
    result: diffrax.RESULTS
    num_steps: Int[Array, ""]
    num_accepted: Int[Array, ""]
    controller_state: Any


class _Carry(NamedTuple):
    y: Any
    before: Array
    after: Array
    solver_state: Any
    controller_state: Any
    result: Any
    num_steps: Any
    num_accepted: Any
    index: Any
    observed: Any


def integrate(
    terms: diffrax.AbstractTerm,
    solver: diffrax.AbstractSolver,
    t1: Float[Array, ""],
    y0: Any,
    args: Any,
    *,
    t0: Float[Array, ""] | None = None,
    controller: Any,
    first: Float[Array, ""] | None,
    max_steps: int,
    adjoint: diffrax.AbstractAdjoint,
    observe: tuple[Float[Array, " T"], Callable] | None = None,
    reached: Callable | None = None,
) -> Solution:
    """A solution from t0, by default 0, to t1 >= t0.

    **Args:** `terms`, as diffrax has them; `controller` and its `first` step, `None` for one that it chooses; `adjoint`, how
    derivatives pass through; `observe`, increasing times between t0 and t1 and what to observe at them, `seen(t, y, args)`;
    `reached(t, y, args)`, whether to end there.
    """
    t0 = jnp.zeros_like(t1) if t0 is None else t0
    loop = _loop_of(adjoint)
    if loop is None:
        return _by_diffrax(terms, solver, t0, t1, y0, args, controller, first, max_steps, adjoint, observe, reached)
    kind, checkpoints = loop
    if kind != "checkpointed" and getattr(solver, "scan_kind", "none") is None:
        # Stages in a loop that has a derivative in forward mode.
        solver = eqx.tree_at(lambda s: s.scan_kind, solver, kind, is_leaf=lambda x: x is None)
    controller = controller.wrap(1)
    order = solver.error_order(terms)
    y0 = jax.tree.map(lambda y: jnp.asarray(y, jnp.result_type(y, t1)), y0)
    after, controller_state = controller.init(terms, t0, t1, y0, first, args, solver.func, order)
    after = jnp.minimum(after, t1)
    close = t1 * (1 - jnp.sign(t1) * _CLOSE * jnp.finfo(t1.dtype).epsneg)
    ts: Array = jnp.zeros((0,), t1.dtype) if observe is None else observe[0]
    seen: Any = None if observe is None else observe[1]
    empty = lambda leaf: jnp.full((len(ts), *leaf.shape), jnp.inf, leaf.dtype)  # noqa: E731
    observed = None if seen is None else jax.tree.map(empty, eqx.filter_eval_shape(seen, t0, y0, args))
    okay, ended = diffrax.RESULTS.successful, diffrax.RESULTS.event_occurred
    result = okay if reached is None else diffrax.RESULTS.where(reached(t0, y0, args), ended, okay)

    def goes_on(carry: _Carry):
        return (carry.before < t1) & diffrax.is_successful(carry.result)

    def step(carry: _Carry) -> _Carry:
        y, error, dense, solver_state, result = solver.step(
            terms, carry.before, carry.after, carry.y, args, carry.solver_state, False
        )
        # Beyond where the velocity is defined.
        error = jax.tree.map(lambda e: jnp.where(jnp.isnan(e), jnp.inf, e), error)
        keep, before, after, _, controller_state, stuck = controller.adapt_step_size(
            carry.before, carry.after, carry.y, y, args, error, order, carry.controller_state
        )
        before = jnp.minimum(before, t1)
        last = jnp.where(keep, t1, before + 0.5 * (t1 - before))
        after = cast(Array, jnp.where(after > close, last, after))
        y, solver_state = jax.tree.map(
            lambda new, old: jnp.where(keep, new, old), (y, solver_state), (carry.y, carry.solver_state)
        )
        result = diffrax.RESULTS.where(keep, result, okay)
        result = diffrax.RESULTS.where(diffrax.is_okay(carry.result), result, carry.result)
        result = diffrax.RESULTS.where(diffrax.is_okay(result), stuck, result)
        index, observed = carry.index, carry.observed
        if seen is not None:
            between = solver.interpolation_cls(t0=carry.before, t1=carry.after, **dense)

            def due(pair):
                return keep & (ts[pair[0]] <= carry.after) & (pair[0] < len(ts))

            def look(pair):
                i, observed = pair
                values = cast(Callable, seen)(ts[i], between.evaluate(ts[i]), args)
                return i + 1, jax.tree.map(lambda one, all: all.at[i].set(one), values, observed)

            # Checkpoints for all of them: none is looked at twice.
            index, observed = eqxi.while_loop(
                due, look, (index, observed), max_steps=len(ts), buffers=_saved, kind=kind, checkpoints=len(ts)
            )
        if reached is not None:
            result = diffrax.RESULTS.where(reached(before, y, args), ended, result)
        counts = carry.num_steps + 1, carry.num_accepted + jnp.where(keep, 1, 0)
        return _Carry(y, before, after, solver_state, controller_state, result, *counts, index, observed)

    solver_state = solver.init(terms, t0, after, y0, args)
    start = _Carry(y0, t0, after, solver_state, controller_state, result, 0, 0, 0, observed)
    end: _Carry = eqxi.while_loop(
        goes_on, step, start, max_steps=max_steps, buffers=lambda c: c.observed, kind=kind, checkpoints=checkpoints
    )
    observed = end.observed
    if seen is not None:
        # Over no time at all no step is made, and all is seen at once.
        at_once = lambda: jax.tree.map(lambda all, one: jnp.broadcast_to(one, all.shape), observed, seen(t0, y0, args))  # noqa: E731
        observed = jax.lax.cond(t0 == t1, at_once, lambda: observed)
    result = diffrax.RESULTS.where(goes_on(end), diffrax.RESULTS.max_steps_reached, end.result)
    return Solution(end.before, end.y, observed, result, end.num_steps, end.num_accepted, end.controller_state)


def _saved(pair):
    return pair[1]


def _loop_of(adjoint: diffrax.AbstractAdjoint) -> tuple[Any, int | None] | None:
    """The kind of loop that an adjoint differentiates, and its checkpoints; `None` for one that has equations of its own."""
    known = {
        diffrax.RecursiveCheckpointAdjoint: "checkpointed",
        diffrax.ForwardMode: "lax",
        diffrax.DirectAdjoint: "bounded",
    }
    kind = known.get(type(adjoint))
    return None if kind is None else (kind, getattr(adjoint, "checkpoints", None))


def _by_diffrax(terms, solver, t0, t1, y0, args, controller, first, max_steps, adjoint, observe, reached) -> Solution:
    """The same by `diffeqsolve`, for adjoints that integrate by themselves."""
    last, saveat = diffrax.SubSaveAt(t1=True), partial(diffrax.SaveAt, controller_state=True)
    solution = diffrax.diffeqsolve(
        terms,
        solver,
        t0=t0,
        t1=t1,
        dt0=first,
        y0=y0,
        args=args,
        saveat=saveat(subs=last if observe is None else (last, diffrax.SubSaveAt(ts=observe[0], fn=observe[1]))),
        stepsize_controller=controller,
        event=None if reached is None else diffrax.Event(lambda t, y, args, **_: reached(t, y, args)),
        max_steps=max_steps,
        adjoint=adjoint,
        throw=False,
    )
    times: Any = solution.ts
    ys, observed = cast(Any, solution.ys), None
    if observe is not None:
        (times, _), (ys, observed) = times, ys
    time, y = jax.tree.map(lambda leaf: leaf[-1], (times, ys))
    counts = solution.stats["num_steps"], solution.stats["num_accepted_steps"]
    return Solution(time, y, observed, solution.result, *counts, solution.controller_state)
