"""Which optimizers commute with the reduction."""

import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from .._equivariance import obstacle
from .._public import public
from ..models import AbstractModel, Reduction
from ..problems import AbstractProblem
from .forms import reduced_form


@public
def require_exact(
    optimizer: optax.GradientTransformation,
    model: AbstractModel,
    problem: AbstractProblem,
    moved: AbstractModel | None = None,
) -> None:
    """Refuses an optimizer that does not commute with the reduction of this model, or for which that cannot be shown.

    The program of the optimizer is read, whatever its hyperparameters are and at whatever step they act; it is not tried out.

    **Args:** `model`, the start at full size, or a reduced one; `moved`, for a `DeepLinear` its reduced form.

    **Raises:** `ValueError` that says what stands in the way.

    Example:

        >>> problem, model = ld.factorization(jnp.eye(2)), ld.TwoLayer(jnp.eye(2, 8), jnp.eye(2, 8))
        >>> ld.reduction.require_exact(optax.sgd(0.1, momentum=0.9), model, problem)
        >>> ld.reduction.require_exact(optax.adam(0.1), model, problem)
        Traceback (most recent call last):
            ...
        ValueError: The width reduction is not exact for this optimizer as far as can be shown (...
    """
    form: Any = model if moved is None else moved
    if not form.is_reduced:
        form = eqx.filter_eval_shape(reduced_form, form, problem, None)
    for full, small, frames in _forms(model, problem, form):
        reason = obstacle(optimizer, full, small, frames)
        if reason is None:
            continue
        message = (
            f"The width reduction is not exact for this optimizer as far as can be shown ({reason}): it has to commute with "
            "rotations of the weights at every step. Pass `reduce=False` to run it at full size."
        )
        if model.is_reduced:
            message += " A core drawn at a given width has no full size to run at: start from `init.gaussian` instead."
        raise ValueError(message)


def _forms(model: AbstractModel, problem: AbstractProblem, moved: Reduction) -> list[tuple[Any, Any, list]]:
    """Shapes of the weights at full and at reduced size, and the frames between them; two guesses where there is no full size."""
    small = eqx.filter_eval_shape(lambda moved: moved.to_state(), moved)
    frames = list(small.frames)
    if not model.is_reduced:
        shapes = [[leaf.shape for leaf in jax.tree.leaves(one)] for one in (model, small)]
        # Where it is the same, what is moved is the network itself.
        return [] if problem.frame is None and shapes[0] == shapes[1] else [(model, small, frames)]

    def guess(moved: Reduction, factor: int) -> AbstractModel:
        state = moved.to_state()
        rows = [W.shape[0] for W in state.layers]
        first = rows[0] + 2 * int(any(moved.rest))
        last = state.layers[-1].shape[1] + 2 * int(moved.outputs is not None)
        sizes = [first, *(factor * k + 5 for k in rows[1:]), last]
        return state.with_layers([jnp.zeros(pair, state.layers[0].dtype) for pair in itertools.pairwise(sizes)])

    return [(eqx.filter_eval_shape(guess, moved, factor), small, frames) for factor in (1, 16)]
