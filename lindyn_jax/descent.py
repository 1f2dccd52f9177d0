"""Gradient descent by any optax transformation, in one compiled loop."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from . import _checks, trajectory
from . import observables as obs
from ._driver import Run, run
from ._equivariance import extra_arguments, refuse_unrunnable
from ._keyed import compiled, keyed
from ._public import public
from ._stop import as_stop
from .flow import all_finite, check_finite_start, check_not_saddle
from .noise import AbstractNoise, prepare_noise
from .problems import AbstractProblem
from .reduction import check_fits, check_kinds, is_reducible, prepare, require_exact
from .trajectory import M, Trajectory, failed_to_inf

CHECK_EVERY = 8
# Bytes of the states on the way that reverse mode may keep for each member of a batch. What it does not keep it computes again.
KEPT_BYTES = 2**22


@public
def gradient_descent(
    model: M,
    problem: AbstractProblem,
    steps: int,
    *,
    optimizer: optax.GradientTransformation,
    noise: AbstractNoise | Sequence[AbstractNoise] | None = None,
    save_at: Int[ArrayLike, " T"] | Sequence[int] | None = None,
    observables: obs.Observables = ("loss",),
    stop: Float[ArrayLike, ""] | None = None,
    stop_loss: Float[ArrayLike, ""] | int | None = None,
    stop_gradient_norm: Float[ArrayLike, ""] | int | None = None,
    reduce: bool = True,
    keep_models: bool = False,
    differentiate: str = "reverse",
) -> Trajectory[M]:
    """Discrete gradient descent: `weights += update(gradient of L)`, `steps` times at most.

    **Args:**

    - `model`: the start, any model of this package whose sizes fit the problem.
    - `steps`: the number of steps, a static number.
    - `optimizer`: an optax transformation, such as `optax.sgd(0.01)`; its hyperparameters may be traced.
    - `noise`: `Minibatch`, `LabelNoise`, `Online`, or one that acts on the samples and one on the targets as a tuple or a
        sum; by default, or with `FullBatch()`, all samples as they are. Observables and stops are about the whole problem.
    - `save_at`: step numbers at which to observe, shape (T,), increasing, from 0 to `steps`; by default 0 and `steps`.
    - `observables`, `keep_models`: as in `gradient_flow`.
    - `stop`: end once `(L - L*)/(L(0) - L*) <= stop`, tested at every eighth step, whatever `save_at` is; a number in (0, 1),
        may be traced.
    - `stop_loss`: end once `L <= stop_loss`, tested likewise, for a problem of any kind; may be traced.
    - `stop_gradient_norm`: end once the norm of the gradient in all weights is at most this, likewise.
    - `reduce`: move a `TwoLayer`, or a `SymmetricFactors` wider than n, in its smallest exact form. Refused for optimizers
        for which that is not exact. With a penalty whose Lambda is a matrix there is none: the full size is moved.
    - `differentiate`: `"reverse"` for `jax.grad` (bounded memory by checkpointing) or `"forward"` for `jax.jvp`.

    **Returns:** a `Trajectory` whose `ts` are step numbers. Whether the weights have diverged is tested when `stop` is: then
    `final_time` is the step of that test, and slots from the first one on that is not finite hold infinity.

    **Raises:** `ValueError` for sizes that do not fit, bad step numbers, a stop outside (0, 1), a start with all weights
    zero, an optimizer that cannot make a step of these weights (such as `lookahead`, which wants pairs of them), or, unless
    `reduce=False`, one that treats entries one by one at some step (Adam, RMSprop, sign, elementwise clipping, noise), whose
    numbers depend on the sizes of the weights (Muon), or that is not understood.

    **Notes:** loss and gradients are those of the full network, so that step sizes are too. Under plain descent the
    imbalance obeys `D+ = D + eta^2 (G_U1^T G_U1 - G_V^T G_V)` exactly. Steps are stable at the end of training for
    `eta < 2 / sharpness`; see `theory.stable_step`.

    **Source:** G19 (5), M22 section 5.2.

    Example:

        >>> problem = ld.factorization(jnp.diag(jnp.array([2.0, 1.0])))
        >>> start = ld.TwoLayer(0.1 * jnp.eye(2), 0.1 * jnp.eye(2))
        >>> path = ld.gradient_descent(start, problem, 20, optimizer=optax.sgd(0.1))
        >>> print(path.ts, path.observables["loss"])
        [ 0 20] [2.470 0.2350]
    """
    save_at = _check(model, problem, steps, optimizer, save_at)
    ending = as_stop(stop, stop_loss, stop_gradient_norm, problem)
    _checks.check_choice(differentiate, "differentiate", ("reverse", "forward"))
    moved = prepare(model, problem, reduce)
    reduced = moved.is_reduced or (reduce and is_reducible(moved, problem))
    optimizer = jax.tree.map(keyed, optimizer)
    if not isinstance(optimizer, EquivariantTransformation):
        refuse_unrunnable(optimizer, model.to_state())
        if reduced:
            require_exact(optimizer, model, problem, moved)
    prepared = prepare_noise(noise, problem, int(steps), reduced)
    functions = obs.resolve(observables)
    return _descend(
        moved,
        problem,
        save_at,
        ending,
        int(steps),
        optimizer,
        prepared,
        functions,
        bool(reduce),
        moved is not model,
        bool(keep_models),
        differentiate == "reverse",
        bool(save_at[-1] == steps),
        # The most steps that end at every number that is observed: one loop is then all, and is compiled once.
        math.gcd(CHECK_EVERY, int(steps), *save_at.tolist()),
    )


class EquivariantTransformation(optax.GradientTransformation):
    """An optax transformation known to commute with the reduction, which is then not tried out."""


@public
def plain_descent(step_size: Float[ArrayLike, ""]) -> EquivariantTransformation:
    """Plain gradient descent, `optax.sgd(step_size)`, known to commute with the reduction; another step size compiles nothing.

    **Args:** `step_size`, eta, positive; may be traced, one for each trajectory of a batch.

    **Returns:** an optimizer for `gradient_descent`.

    **Raises:** `ValueError` for a step that is not positive, where it is known.

    **Source:** G19 (5).

    Example:

        >>> problem = ld.factorization(jnp.diag(jnp.array([2.0, 1.0])))
        >>> start = ld.TwoLayer(0.1 * jnp.eye(2), 0.1 * jnp.eye(2))
        >>> for step_size in (0.1, 0.2):  # compiled once
        ...     path = ld.gradient_descent(start, problem, 20, optimizer=ld.plain_descent(step_size))
        ...     print(path.observables["loss"])
        [2.470 0.2350]
        [2.470e+00 2.847e-04]
    """
    return EquivariantTransformation(_no_state, jax.tree_util.Partial(_plain_update, as_step(step_size)))


def as_step(step_size: Any) -> Array:
    """A step size as an array; what is known not to be positive would go uphill or nowhere."""
    step = _checks.as_float(step_size, "step_size")
    _checks.check_positive(step_size, "step_size")
    return step


# Functions with names, and the step size as data: such a transformation can be pickled, and another step compiles nothing.
def _no_state(params) -> optax.EmptyState:
    return optax.EmptyState()


def _plain_update(step_size, updates, state, params=None):
    return jax.tree.map(lambda g: jnp.asarray(-step_size, g.dtype) * g, updates), state


class _Carry(NamedTuple):
    weights: Any
    optimizer_state: optax.OptState
    noise_state: Any
    step: Int[Array, ""]
    halted: Bool[Array, ""]


@compiled
def _descend(
    model,
    problem,
    save_at,
    stop,
    steps,
    optimizer,
    noise,
    functions,
    reduce,
    lifted,
    keep_models,
    reverse,
    whole,
    at_once,
) -> Trajectory:
    kind = "checkpointed" if reverse else "lax"

    def move(start, observe):
        weights, unpack = start.to_state(), start.from_state

        measured = obs.loss if stop is None else stop.measure
        target = -jnp.inf if stop is None else stop.target(start, problem)

        def watch(weights):
            return measured(unpack(weights), problem)

        def check(weights):
            # Without a stop it only tells whether the run has diverged. The loss of all samples costs more than steps on
            # batches do.
            return watch(weights) if noise is None or stop is not None else jnp.where(all_finite(weights), 0.0, jnp.inf)

        def step(carry: _Carry, _=None) -> tuple[_Carry, None]:
            now, noise_state = problem, carry.noise_state
            if noise is not None:
                now, noise_state = noise.draw(noise_state, carry.step)

            def gradient(weights):
                return jax.tree.map(jnp.negative, unpack(weights).state_velocity(now))

            def loss(weights):
                return obs.total_loss(unpack(weights), now)

            gradients = gradient(carry.weights)
            available = {
                "value": loss(carry.weights),
                "grad": gradients,
                "value_fn": loss,
                "grad_fn": lambda weights, _: gradient(weights),
                "obj_fn": loss,
            }
            extra = extra_arguments(optimizer, available)
            updates, optimizer_state = optimizer.update(gradients, carry.optimizer_state, carry.weights, **extra)
            weights = optax.apply_updates(carry.weights, updates)
            return _Carry(weights, optimizer_state, noise_state, carry.step + 1, carry.halted), None

        def test(carry: _Carry) -> _Carry:
            now = check(carry.weights)
            return carry._replace(halted=(now <= target) | ~jnp.isfinite(now))

        def some(carry: _Carry) -> _Carry:
            carry, _ = jax.lax.scan(step, carry, None, length=at_once)
            if at_once == CHECK_EVERY:
                return test(carry)
            # Tests are at multiples of CHECK_EVERY alone: where a run ends does not depend on where it is observed.
            return jax.lax.cond(carry.step % CHECK_EVERY == 0, test, lambda carry: carry, carry)

        def advance(carry: _Carry, until: Int[Array, ""]):
            carry = eqxi.while_loop(
                lambda carry: ~carry.halted & (carry.step < until),
                some,
                carry,
                max_steps=most,
                kind=kind,
                checkpoints=_num_kept(carry, stretches.shape[0], most),
            )
            seen = observe(unpack(carry.weights), problem)
            # Between two tests the weights may have left the numbers, and what is observed of them then is nothing.
            reached = (carry.step >= until) & jnp.isfinite(check(carry.weights))
            return carry, jax.tree.map(lambda value: failed_to_inf(reached, value), seen)

        most = steps // at_once
        kept = None if noise is None else noise.start()
        carry = test(_Carry(weights, optimizer.init(weights), kept, jnp.zeros((), jnp.int32), jnp.zeros((), bool)))
        # The last stretch is one of those between observations: a program of its own takes as long again to compile.
        stretches = save_at if whole else jnp.append(save_at, steps)
        carry, seen = jax.lax.scan(advance, carry, stretches)
        seen = jax.tree.map(lambda value: value[: save_at.shape[0]], seen)
        now = watch(carry.weights)
        result = jnp.where(carry.step >= steps, trajectory.FINISHED, trajectory.STEP_LIMIT)
        if stop is not None:
            result = jnp.where(now <= target, trajectory.STOPPED, result)
        result = jnp.where(jnp.isfinite(now) & all_finite(carry.weights), result, trajectory.DIVERGED)
        stats = {"final_time": carry.step.astype(jnp.result_type(float)), "num_steps": carry.step}
        return Run(save_at, seen, unpack(carry.weights), result.astype(jnp.int32), stats)

    return run(model, problem, functions, move, reduce=reduce, lifted=lifted, keep_models=keep_models)


def _num_kept(state: Any, loops: int, chunks: int) -> int:
    """How many states reverse mode keeps of each loop over chunks: all that fit, enough to compute none more than twice."""
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    return max(math.isqrt(2 * chunks) + 1, min(chunks, KEPT_BYTES // (size * loops)))


def _check(model, problem, steps, optimizer, save_at) -> Int[np.ndarray, " T"]:
    check_kinds(model, problem)
    if not isinstance(optimizer, optax.GradientTransformation):
        name, uncalled = getattr(optimizer, "__name__", ""), callable(optimizer)
        given = f"the function `{name}`: call it, as in `{name}(0.01)`" if uncalled else repr(optimizer)
        raise ValueError(
            f"Argument `optimizer` must be an optax transformation such as `optax.sgd(0.01)`, but is {given}."
        )
    check_fits(model, problem)
    check_not_saddle(model, problem)
    check_finite_start(model, problem)
    if _checks.is_traced(steps) or int(steps) != steps or steps < 1:
        raise ValueError(f"Argument `steps` must be a static whole number of at least 1, but is {steps}.")
    if steps >= 2**31:
        raise ValueError(f"Argument `steps` must be below 2^31, beyond which steps are not counted, but is {steps}.")
    if save_at is None:
        save_at = np.array([0, int(steps)])
    if _checks.is_traced(save_at):
        raise ValueError("Argument `save_at` must be known before compiling, but is traced.")
    numbers = np.asarray(save_at)
    if numbers.ndim != 1 or numbers.size == 0 or not np.issubdtype(numbers.dtype, np.integer):
        raise ValueError("Argument `save_at` must be a vector of whole step numbers, shape (T,) with T >= 1.")
    if numbers[0] < 0 or numbers[-1] > steps or np.any(np.diff(numbers) <= 0):
        raise ValueError(f"Argument `save_at` must increase strictly between 0 and steps = {steps}.")
    return numbers.astype(np.int32)
