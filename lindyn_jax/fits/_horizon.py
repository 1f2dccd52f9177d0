"""The time at which a flow has come down to a relative error, to the accuracy of the flow."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from .. import methods
from ..flow import _first_step
from ..solvers import RelativeController, growth_reach, integrate


def first_time(start, problem, relative_error, rtol, solver, max_steps) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    """The first time of the relative error, and whether there is one."""
    moving, fixed = eqx.partition(start, start.moving())
    method: Any = methods.as_method(solver)
    if not method.takes_any:
        raise ValueError(f"Argument `solver` must be a solver for any model, but {method.name} is for {method.moves}.")
    _, solver, _ = method.build(rtol, jnp.zeros_like(rtol), None)
    norm = jnp.sum(problem.Ytil**2)
    tiny = jnp.finfo(norm.dtype).tiny

    def velocity(t, y, args):
        with jax.default_matmul_precision("highest"):
            return eqx.filter(eqx.combine(y, fixed).velocity(problem), start.moving())

    def excess(y):
        """log of the squared relative error over that of its end."""
        error = jnp.sum(problem.error(eqx.combine(y, fixed).product()) ** 2)
        return jnp.log(jnp.maximum(error, tiny)) - jnp.log(jnp.maximum(relative_error**2 * norm, tiny))

    infinity = jnp.asarray(jnp.inf, rtol.dtype)
    first_step = _first_step(start, problem, infinity, rtol)
    if first_step is None:
        raise ValueError(f"The fastest rate of a {type(start).__name__} is not known, which sets the first step.")
    policy: dict[str, Any] = {"max_steps": max_steps, "adjoint": diffrax.ForwardMode()}
    coarse = integrate(
        diffrax.ODETerm(velocity),
        solver,
        infinity,
        moving,
        (problem, fixed),
        controller=RelativeController(rtol, reach=growth_reach(solver, rtol)),
        first=first_step,
        reached=lambda t, y, args: excess(y) <= 0,
        **policy,
    )
    behind, end = coarse.time, coarse.y
    reached = (coarse.result == diffrax.RESULTS.event_occurred) & (excess(moving) > 0)

    # From the step that went past the end, back to it with the error in place of the time.
    def per_excess(e, state, args):
        _, y = state
        speed = velocity(0, y, None)
        slope = jax.jvp(excess, (y,), (speed,))[1]
        return jax.tree.map(lambda rate: rate / slope, (jnp.ones_like(e), speed))

    first = jnp.where(reached, excess(end), -1)
    # The state is the time and the weights, in units of their own: a floor that is small beside both.
    floor = 1e-3 * rtol * jax.lax.stop_gradient(jnp.minimum(behind, optax.tree.norm(end)))
    back = integrate(
        diffrax.ODETerm(per_excess),
        solver,
        jnp.where(reached, 0, first),
        (behind, jax.tree.map(lambda last, before: jnp.where(reached, last, before), end, moving)),
        None,
        t0=first,
        controller=diffrax.PIDController(rtol=rtol, atol=floor),
        first=-first / 4,
        **policy,
    )
    reached &= back.result == diffrax.RESULTS.successful
    time: Array = back.y[0]
    T = jax.lax.stop_gradient(jnp.where(reached, time, behind))
    return jnp.where(jnp.isfinite(T) & (T > 0), T, first_step), reached
