"""Optimizers of which the width reduction is exact, and whose numbers are data."""

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float

from . import _checks
from ._polar import polar
from ._public import public
from .descent import EquivariantTransformation, as_step

# Coefficients of the quintic that drives all singular values towards 1 fast, and no nearer than about 0.3.
QUINTIC = (3.4445, -4.7750, 2.0315)


@public
def Descent(
    step_size: Float[ArrayLike, ""] | Callable[[Array], Any],
    momentum: Float[ArrayLike, ""] | int | None = None,
    *,
    nesterov: bool = False,
    weight_decay: Float[ArrayLike, ""] | int | None = None,
) -> EquivariantTransformation:
    """Gradient descent whose numbers are data: with others of them nothing is compiled again.

    `G' = G + weight_decay W`, `M+ = momentum M + G'` and `W+ = W - eta M+`, or of `G' + momentum M+` with `nesterov`: what
    `optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(step_size, momentum, nesterov))` does, number by number.

    **Args:** `step_size`, eta, positive, or a function of the number of the step, counted from 0, such as one of optax's
    schedules (as a `jax.tree_util.Partial` or a module its constants are data too); `momentum`, in [0, 1), and `weight_decay`,
    by default none. All may be traced, one for each trajectory of a batch.

    **Raises:** `ValueError` for a step that is not positive, a momentum outside [0, 1) or a weight decay that is negative.

    **Notes:** known to commute with the reduction: all that it does to gradients is to scale and to add them.

    **Source:** G19 (5); Polyak 1964 for momentum.

    Example:

        >>> problem = ld.factorization(jnp.diag(jnp.array([2.0, 1.0])))
        >>> start = ld.TwoLayer(0.1 * jnp.eye(2), 0.1 * jnp.eye(2))
        >>> path = ld.gradient_descent(start, problem, 20, optimizer=ld.Descent(0.1, momentum=0.5))
        >>> print(path.observables["loss"])  # without momentum 0.235 at the end
        [2.470e+00 8.291e-05]
    """
    if momentum is not None:
        _check_momentum(momentum)
    if weight_decay is not None:
        _checks.check_not_negative(weight_decay, "weight_decay")
    if nesterov and momentum is None:
        raise ValueError("Argument `nesterov` looks ahead along a momentum, but there is none: pass `momentum`.")
    eta = step_size if callable(step_size) else as_step(step_size)
    rest = (None if number is None else jnp.asarray(number) for number in (momentum, weight_decay))
    start: Any = _counted if momentum is None else _counted_and_zeros
    return EquivariantTransformation(start, jax.tree_util.Partial(_descend, eta, *rest, nesterov=bool(nesterov)))


def _counted(params) -> tuple[Array, None]:
    return jnp.zeros((), jnp.int32), None


def _counted_and_zeros(params) -> tuple[Array, Any]:
    return jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params)


def _descend(eta, momentum, weight_decay, updates, state, params=None, *, nesterov):
    step, trace = state
    size: Any = eta(step) if callable(eta) else eta
    if weight_decay is not None:
        updates = jax.tree.map(lambda g, W: g + jnp.asarray(weight_decay, g.dtype) * W, updates, params)
    if momentum is not None:
        add = lambda m, g: jnp.asarray(momentum, g.dtype) * m + g  # noqa: E731
        trace = jax.tree.map(add, trace, updates)
        updates = jax.tree.map(add, trace, updates) if nesterov else trace
    return jax.tree.map(lambda g: jnp.asarray(-size, g.dtype) * g, updates), (step + 1, trace)


def _check_momentum(momentum) -> None:
    if not _checks.is_traced(momentum) and not 0 <= np.asarray(momentum) < 1:
        raise ValueError(f"Argument `momentum` must lie in [0, 1), but is {momentum}.")


@public
def polar_descent(
    step_size: Float[ArrayLike, ""],
    momentum: Float[ArrayLike, ""] | int = 0.0,
    *,
    nesterov: bool = False,
    newton_schulz: int | None = None,
) -> EquivariantTransformation:
    """Spectral descent: every layer moves by `-step_size` times the polar factor of its gradients' running sum.

    `M+ = momentum M + G` and `W+ = W - eta polar(M+)`, or of `G + momentum M+` with `nesterov`. The polar factor has the singular
    vectors of its argument and singular values 1 (0 for zero ones).

    **Args:** `step_size`, eta, and `momentum`, in [0, 1), both of which may be traced; `newton_schulz`, a number of steps of the
    quintic iteration that Muon uses in the place of an SVD, from `M/||M||_F`: singular values then lie between about 0.7 and
    1.2, and small ones below.

    **Raises:** `ValueError` for a step that is not positive, a momentum outside [0, 1), a number of steps below 1, or, when
    used, weights that are no matrices.

    **Notes:** known to commute with the reduction: no factor depends on the shapes of the layers, as Muon's `sqrt(rows/columns)`
    does, for which `optax.contrib.muon` needs `reduce=False`.

    **Source:** Jordan et al. 2024 (Muon).

    Example:

        >>> problem = ld.factorization(jnp.diag(jnp.array([2.0, 1.0])))
        >>> start = ld.TwoLayer(0.1 * jnp.eye(2), 0.1 * jnp.eye(2))
        >>> path = ld.gradient_descent(start, problem, 8, optimizer=ld.polar_descent(0.1))
        >>> print(jnp.diag(path.final.product()))  # (0.1 + 8 * 0.1)^2 for both modes
        [0.81 0.81]
    """
    _check_momentum(momentum)
    if newton_schulz is not None and (operator.index(newton_schulz) < 1):
        raise ValueError(f"Argument `newton_schulz` must be at least 1 step, but is {newton_schulz}.")
    numbers = as_step(step_size), jnp.asarray(momentum)
    update = jax.tree_util.Partial(_update, *numbers, nesterov=bool(nesterov), steps=newton_schulz)
    return EquivariantTransformation(_zeros, update)


def _zeros(params) -> optax.TraceState:
    if any(jnp.ndim(W) != 2 for W in jax.tree.leaves(params)):
        raise ValueError("`polar_descent` moves matrices, but some of the weights are none.")
    return optax.TraceState(jax.tree.map(jnp.zeros_like, params))


def _update(step_size, momentum, updates, state, params=None, *, nesterov, steps):
    total = jax.tree.map(lambda m, g: jnp.asarray(momentum, g.dtype) * m + g, state.trace, updates)
    ahead = jax.tree.map(lambda m, g: jnp.asarray(momentum, g.dtype) * m + g, total, updates) if nesterov else total
    turned = jax.tree.map(polar if steps is None else lambda A: _newton_schulz(A, steps), ahead)
    return jax.tree.map(lambda A: jnp.asarray(-step_size, A.dtype) * A, turned), optax.TraceState(total)


def _newton_schulz(A: Float[Array, "n m"], steps: int) -> Float[Array, "n m"]:
    """Some steps of `X+ = a X + b (X X^T) X + c (X X^T)^2 X` from `A/||A||_F`, with Gram matrices of the smaller side."""
    if A.shape[0] > A.shape[1]:
        return _newton_schulz(A.T, steps).T
    a, b, c = QUINTIC
    largest = jnp.max(jnp.abs(A))
    A = A / jnp.where(largest > 0, largest, 1)
    size = jnp.sqrt(jnp.sum(A**2))

    def step(X, _):
        gram = X @ X.T
        return a * X + (b * gram + c * gram @ gram) @ X, None

    return jax.lax.scan(step, A / jnp.where(size > 0, size, 1), None, length=steps)[0]
