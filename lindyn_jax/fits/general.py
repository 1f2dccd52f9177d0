"""Fits of any smooth parameter of a simulation: start scales, imbalance, step sizes, data.

A trajectory is a differentiable function of what it starts from and how it moves. `fit` puts an optimizer around it, in one
compiled loop, and says how it went.
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix as optx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree, Real

from .. import _checks
from .._equivariance import extra_arguments
from .._keyed import compiled
from .._norms import total
from .._public import public
from ..trajectory import Trajectory
from ._minimise import descend

CONVERGED, STEP_LIMIT, NOT_FINITE, SIMULATION_FAILED = range(4)

FIT_RESULTS = {
    CONVERGED: "converged: the gradient or the updates fell below the tolerance",
    STEP_LIMIT: "step limit: ran out of steps before the tolerance",
    NOT_FINITE: "not finite: the objective or its gradient became infinite or NaN",
    SIMULATION_FAILED: "simulation failed: a trajectory did not finish, so that its loss means nothing",
}


class Fit(eqx.Module):
    """What `fit` returns.

    **Fields:**

    - `parameters`: the best ones seen, of the kind that was passed in.
    - `objective`: theirs; infinite if none was finite.
    - `history`: shape (steps + 1,), the objective before every step; infinite after the last one that was taken.
    - `gradient_norm`: of the last evaluation, over all parameters.
    - `num_steps`: steps taken.
    - `result`: a code of `FIT_RESULTS`.

    Example:

        >>> best = ld.fit(jnp.array(0.0), lambda x: x, lambda x: (x - 2.0) ** 2, optax.sgd(0.25), steps=5)
        >>> print(best.parameters, int(best.num_steps), best.history)
        1.938 5 [4.000e+00 1.000e+00 2.500e-01 6.250e-02 1.562e-02 3.906e-03]
    """

    parameters: PyTree
    objective: Float[Array, ""]
    history: Float[Array, " K"]
    gradient_norm: Float[Array, ""]
    num_steps: Int[Array, ""]
    result: Int[Array, ""]

    @property
    def converged(self) -> Bool[Array, "..."]:
        """Whether the fit ended by its tolerance."""
        return self.result == CONVERGED

    def __repr__(self) -> str:
        if _checks.is_traced(self.result) or np.ndim(self.result):
            return f"Fit of shape {np.shape(self.result)}"
        return (
            f"Fit: {FIT_RESULTS[int(self.result)]}\n  objective {float(self.history[0]):.6g} -> {float(self.objective):.6g} "
            f"in {int(self.num_steps)} steps, gradient {float(self.gradient_norm):.3g}\n  parameters {self.parameters}"
        )


@public
def fit(
    parameters: PyTree,
    simulate: Callable[[PyTree], Any],
    loss: Callable[[Any], Real[Array, ""]],
    optimizer: Any,
    *,
    steps: int = 500,
    gradient_tolerance: float | None = None,
    autodiff: str = "reverse",
) -> Fit:
    r"""Minimises `loss(simulate(parameters))` over the parameters, by gradients through the simulation.

    **Args:**

    - `parameters`: a tree of any kind; its floating-point arrays are fitted, the rest of it is handed on as it is.
    - `simulate`: parameters -> anything, such as a `Trajectory`.
    - `loss`: what `simulate` returned -> a number.
    - `optimizer`: an optax transformation (line searches such as `optax.lbfgs()` too), or a minimiser of optimistix, such as
        `optimistix.BFGS(rtol=1e-8, atol=1e-8)`, which then decides when it is done.
    - `steps`: the largest number of steps.
    - `gradient_tolerance`: an optax fit ends when the gradient's norm is below it; by default 1e-8 in float64, 1e-4 in float32.
    - `autodiff`: `"reverse"`, one pass for any number of parameters, or `"forward"`, one pass a parameter, in a batch: cheaper
        for a few of them, and the only one for simulations with `adjoint=diffrax.ForwardMode()`.

    **Returns:** a `Fit`. A simulation that fails (a `Trajectory` that is not `ok`) or an objective that is not finite ends the
    fit and is its `result`; the best parameters before it are returned.

    **Raises:** `ValueError` for an optimizer of another kind, a loss that is not a number, no parameters, or steps below 1.

    **Notes:** the memory of reverse mode is that of the simulation's adjoint: `gradient_flow` and `gradient_descent` keep
    checkpoints, of the order of the square root of their step budget, and not the path. The fit itself keeps nothing but its
    history, and is not differentiated. Minimisers of optimistix do not work inside `jax.shard_map`. Local minima are found,
    and not the least one: start from several points with `jax.vmap`.

    **Source:** T21 Fig. 2 fits lambda0, for which `fit_lambda0` is the special and global case.

    Example:

        >>> reached = lambda log_u0: ld.exact.mode(1.0, jnp.exp(log_u0), 0.1, 2.0).x  # from v0 = 0.1
        >>> best = ld.fit(jnp.log(0.1), reached, lambda x: (x - 0.9) ** 2, optax.lbfgs(), steps=20)
        >>> print(bool(best.converged), jnp.exp(best.parameters), reached(best.parameters))
        True 0.6219 0.9000
    """
    run = _runner(optimizer)
    _checks.check_choice(autodiff, "autodiff", ("reverse", "forward"))
    if int(steps) != steps or steps < 1:
        raise ValueError(f"Argument `steps` must be a whole number of at least 1, but is {steps}.")
    parameters = jax.tree.map(
        lambda leaf: jnp.asarray(leaf) if isinstance(leaf, (float, np.ndarray, np.floating)) else leaf, parameters
    )
    moving, _ = eqx.partition(parameters, eqx.is_inexact_array)
    leaves = jax.tree.leaves(moving)
    if not leaves:
        raise ValueError("Argument `parameters` holds no floating-point number to fit.")
    dtype = jnp.result_type(*leaves)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        raise ValueError(
            "Argument `parameters` must be real, but holds complex numbers: fit their real and imaginary parts."
        )
    if gradient_tolerance is None:
        gradient_tolerance = 1e-8 if dtype == jnp.float64 else 1e-4
    _checks.check_not_negative(gradient_tolerance, "gradient_tolerance")
    shape = eqx.filter_eval_shape(lambda p: loss(simulate(p)), parameters)
    if getattr(shape, "shape", None) != ():
        raise ValueError(f"Argument `loss` must return a number, but returns {shape}.")
    return _fit(
        parameters, simulate, loss, optimizer, int(steps), jnp.asarray(gradient_tolerance, dtype), run, autodiff
    )


@compiled
def _fit(parameters, simulate, loss, optimizer, steps, gradient_tolerance, run, autodiff) -> Fit:
    moving, fixed = eqx.partition(parameters, eqx.is_inexact_array)
    dtype = gradient_tolerance.dtype

    def objective(moving):
        simulated = simulate(eqx.combine(moving, fixed))
        ok = simulated.ok if isinstance(simulated, Trajectory) else jnp.ones((), bool)
        return jnp.asarray(loss(simulated), dtype), jnp.asarray(ok)

    def value_and_gradient(moving):
        """Objective, whether the simulation succeeded, and the gradient."""
        if autodiff == "reverse":
            (value, ok), gradient = jax.value_and_grad(objective, has_aux=True)(moving)
            return value, ok, gradient
        flat, unravel = ravel_pytree(moving)

        def along(tangent):
            value, slope, ok = jax.jvp(lambda flat: objective(unravel(flat)), (flat,), (tangent,), has_aux=True)
            return value, ok, slope

        value, ok, slopes = jax.vmap(along, out_axes=(None, None, 0))(jnp.eye(flat.size, dtype=flat.dtype))
        return value, ok, unravel(slopes)

    best, least, history, norm, count, result = run(
        moving, objective, value_and_gradient, optimizer, steps, gradient_tolerance
    )
    return Fit(eqx.combine(best, fixed), least, history, norm, count, result)


# The value of a point, and whether its simulation succeeded; and the gradient.
Objective = Callable[[PyTree], tuple[Array, Array]]
WithGradient = Callable[[PyTree], tuple[Array, Array, PyTree]]


class _Carry(eqx.Module):
    moving: PyTree
    state: PyTree
    best: PyTree
    least: Float[Array, ""]
    history: Float[Array, " K"]
    norm: Float[Array, ""]
    step: Int[Array, ""]
    result: Int[Array, ""]


def _run_optax(moving, objective: Objective, value_and_gradient: WithGradient, optimizer, steps, gradient_tolerance):
    dtype = gradient_tolerance.dtype

    def body(carry: _Carry) -> _Carry:
        value, ok, gradient = value_and_gradient(carry.moving)
        norm = optax.tree.norm(gradient).astype(dtype)
        finite = jnp.isfinite(value) & jnp.isfinite(norm)
        valid = finite & ok
        better = valid & (value < carry.least)
        result = jnp.where(norm <= gradient_tolerance, CONVERGED, STEP_LIMIT)
        result = jnp.where(ok, jnp.where(finite, result, NOT_FINITE), SIMULATION_FAILED)
        available = {"value": value, "grad": gradient, "value_fn": lambda moving: objective(moving)[0]}
        extra = extra_arguments(optimizer, available)
        # The last evaluation of all takes no step, and a failed one none either.
        goes_on = (result == STEP_LIMIT) & (carry.step < steps)
        # Optimizers mix precisions, whatever is asked of the user's own functions.
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(gradient, carry.state, carry.moving, **extra)
            moved = optax.apply_updates(carry.moving, updates)
        keep = lambda new, old: jnp.where(goes_on, new, old)  # noqa: E731
        return _Carry(
            jax.tree.map(keep, moved, carry.moving),
            jax.tree.map(keep, state, carry.state),
            jax.tree.map(lambda new, old: jnp.where(better, new, old), carry.moving, carry.best),
            jnp.where(better, value, carry.least),
            carry.history.at[carry.step].set(value),
            norm,
            carry.step + 1,
            result.astype(jnp.int32),
        )

    def goes_on(carry: _Carry):
        return (carry.result == STEP_LIMIT) & (carry.step <= steps)

    infinity = jnp.asarray(jnp.inf, dtype)
    start = _Carry(
        moving,
        optimizer.init(moving),
        moving,
        infinity,
        jnp.full(steps + 1, jnp.inf, dtype),
        infinity,
        jnp.zeros((), jnp.int32),
        jnp.asarray(STEP_LIMIT, jnp.int32),
    )
    end = jax.lax.while_loop(goes_on, body, start)
    return end.best, end.least, end.history, end.norm, end.step - 1, end.result


def _run_optimistix(
    moving, objective: Objective, value_and_gradient: WithGradient, minimiser, steps, gradient_tolerance
):
    """A minimiser of optimistix, step by step, so that its path is seen."""
    dtype = gradient_tolerance.dtype

    @jax.custom_jvp
    def with_gradient(moving: PyTree) -> Array:
        value, ok = objective(moving)
        # Line searches step back from infinity.
        return jnp.where(ok & jnp.isfinite(value), value, jnp.inf)

    @with_gradient.defjvp
    def with_gradient_jvp(primals, tangents):
        value, ok, gradient = value_and_gradient(primals[0])
        pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(tangents[0]), strict=True)
        slope = total(jnp.sum(g * t) for g, t in pairs)
        return jnp.where(ok & jnp.isfinite(value), value, jnp.inf), slope.astype(dtype)

    last, best, least, history, count, done = descend(minimiser, with_gradient, moving, steps, dtype)
    value, ok, gradient = value_and_gradient(last)
    norm = optax.tree.norm(gradient).astype(dtype)
    result = jnp.where(done, CONVERGED, STEP_LIMIT)
    result = jnp.where(ok, jnp.where(jnp.isfinite(value) & jnp.isfinite(norm), result, NOT_FINITE), SIMULATION_FAILED)
    return best, least, history, norm, count, result.astype(jnp.int32)


@functools.singledispatch
def _runner(optimizer: Any) -> Callable:
    """What runs an optimizer."""
    raise ValueError(
        "Argument `optimizer` must be an optax transformation such as `optax.adam(0.1)` or an optimistix minimiser, "
        f"but is {optimizer!r}."
    )


_runner.register(optx.AbstractMinimiser, lambda optimizer: _run_optimistix)
_runner.register(optax.GradientTransformation, lambda optimizer: _run_optax)
