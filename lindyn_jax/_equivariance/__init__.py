"""Which optimizers commute with the reduction, read off their own program.

A reduced layer W stands for `P W R^T + rest` with orthonormal frames P and R and a rest that no gradient sees. An optimizer
commutes with that if all it does to gradients and weights is to add them, scale them by numbers, multiply matrices whose inner
frames are the same, and take numbers from them that frames do not change: inner products and norms. `obstacle` traces
`init` and `update` at both sizes, walks through the two programs side by side (`walk`), asks for every operation what comes
out of what goes in (`rules`, `numbers`, on the kinds of `values`), and says what else it found, such as a square root of single
entries. Nothing is tried out: branches that are taken at step 1000 are walked through like all others, so optimizers that act
late are known; what is not understood is an obstacle.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from .._checks import as_tuple, is_name, is_traced
from .values import Obstacle, Value, join
from .walk import Walk, settle


def obstacle(optimizer: optax.GradientTransformation, full: Any, small: Any, frames: Any) -> str | None:
    """Why an optimizer does not commute with the reduction, or `None` if it does.

    **Args:** `full` and `small`, the weights at full and at reduced size, as trees of one structure of which only shapes and
    dtypes count; `frames`, a tree of the same structure whose leaves are pairs that name the frames of each layer.
    """
    return _obstacle(optimizer, jax.tree.structure(full), _sizes(full), _sizes(small), tuple(frames))


def refuse_unrunnable(optimizer: optax.GradientTransformation, weights: Any) -> None:
    """Refuses an optimizer that cannot make a step of these weights, or whose state does not keep its form.

    **Raises:** `ValueError`.
    """
    try:
        _programs(optimizer, jax.tree.structure(weights), _sizes(weights))
    except Obstacle as error:
        raise ValueError(f"Argument `optimizer` cannot be used: {error}.") from error


def extra_arguments(optimizer: optax.GradientTransformation, available: dict[str, Any]) -> dict[str, Any]:
    """Those arguments beyond gradients, state and weights that `optimizer.update` takes, such as the loss for line searches."""
    parameters = inspect.signature(optimizer.update).parameters.values()
    takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    # Line searches refuse what they do not know: only what optax itself passes around goes to those that take anything.
    names = {p.name for p in parameters} | ({"value", "grad", "value_fn"} if takes_all else set())
    return {name: value for name, value in available.items() if name in names}


def _sizes(weights: Any) -> tuple[jax.ShapeDtypeStruct, ...]:
    return tuple(jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in jax.tree.leaves(weights))


class _Traced(Exception):
    """A result for an optimizer with traced hyperparameters, which must not be kept."""


def _kept(function: Callable) -> Callable:
    """Remembers results, but for those that are raised as `_Traced`."""
    cached = functools.lru_cache(maxsize=128)(function)

    @functools.wraps(function)
    def call(*args):
        try:
            return cached(*args)
        except _Traced as result:
            return result.args[0]

    return call


def _is_traced(programs: tuple) -> bool:
    return is_traced(*(const for program in programs for const in program.consts))


@_kept
def _obstacle(optimizer, treedef, full, small, frames) -> str | None:
    found, programs = None, []
    try:
        programs += [_programs(optimizer, treedef, leaves) for leaves in (full, small)]
        _walk_optimizer(programs, frames)
    except Obstacle as error:
        found = str(error)
    except (KeyError, ValueError, IndexError, AttributeError, TypeError) as error:
        found = f"its program cannot be read, {type(error).__name__}: {_first_line(error)}"
    # An optimizer that failed to be traced is tried again, as it may fail for what it was traced with.
    if not programs or any(map(_is_traced, programs)):
        raise _Traced(found)
    return found


@_kept
def _programs(optimizer, treedef, leaves) -> tuple:
    """The programs of `init` and `update`, on flat lists of arrays."""

    def squares(weights):
        # Any loss that frames do not change stands for the true one, which the optimizer only calls and differentiates.
        return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(weights))

    def init(leaves):
        return optimizer.init(jax.tree.unflatten(treedef, leaves))

    def update(gradients, state, leaves):
        gradients, weights = jax.tree.unflatten(treedef, gradients), jax.tree.unflatten(treedef, leaves)
        available = {
            "value": squares(weights),
            "grad": gradients,
            "value_fn": squares,
            "grad_fn": lambda weights, step: jax.grad(squares)(weights),
            "obj_fn": squares,
        }
        return optimizer.update(gradients, state, weights, **extra_arguments(optimizer, available))

    try:
        start, state = jax.make_jaxpr(init, return_shape=True)(leaves)
        step, (_, new) = jax.make_jaxpr(update, return_shape=True)(leaves, state, leaves)
    except Exception as error:
        hint = (
            "; a string is among what it was made of: is that one of its numbers?"
            if _has_words(tuple(optimizer))
            else ""
        )
        raise Obstacle(
            f"a step of it fails on these weights, {type(error).__name__}: {_first_line(error)}{hint}"
        ) from error
    forms = [[(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)] for tree in (state, new)]
    if forms[0] != forms[1] or jax.tree.structure(state) != jax.tree.structure(new):
        raise Obstacle("its state changes form in a step on these weights")
    if _is_traced((start, step)):
        raise _Traced((start, step))
    return start, step


def _has_words(value: Any, depth: int = 10) -> bool:
    """Whether functions close over a string, which may stand in the place of a number."""
    cells = getattr(inspect.unwrap(value), "__closure__", None) if callable(value) else None
    parts = [cell.cell_contents for cell in cells] if cells else as_tuple(value)
    return is_name(value) or (depth > 0 and any(_has_words(part, depth - 1) for part in parts if part is not value))


def _walk_optimizer(programs: list, frames: tuple) -> None:
    """Walks through a start, and through steps until what the state holds is known."""
    walk, (starts, steps) = Walk(), zip(*programs, strict=True)
    gradients = [Value(1, frames=pair, axes=(0, 1)) for pair in frames]
    weights = [gradient.but(is_pure=False) for gradient in gradients]

    def step(state):
        out = walk.closed(steps, [*gradients, *state, *weights])
        for update, gradient in zip(out[: len(frames)], gradients, strict=True):
            join("the updates", update, gradient)
        return out[len(frames) :]

    settle(step, walk.closed(starts, weights), "its state", "what its state holds changes from step to step")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else "without a message"
