"""Where a run ends early: at a share of its excess loss, or at a loss."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from . import _checks
from . import observables as obs
from .models import AbstractModel
from .problems import AbstractProblem


class Stop(eqx.Module):
    """The loss at which a run ends: `level`, or that share of what it is at the start above its least value."""

    level: Float[Array, ""]
    is_ratio: bool = eqx.field(static=True)

    def loss(self, model: AbstractModel, problem: AbstractProblem) -> Array:
        """What is compared: the excess loss, which is exact however small it is, or the loss."""
        return obs.excess_loss(model, problem) if self.is_ratio else obs.loss(model, problem)

    def unit(self, start: AbstractModel, problem: AbstractProblem) -> Array:
        """What the level is a multiple of."""
        return obs.excess_loss(start, problem) if self.is_ratio else jnp.ones((), problem.dtype)

    def target(self, start: AbstractModel, problem: AbstractProblem) -> Array:
        """The loss to come down to."""
        return self.level * self.unit(start, problem)


def as_stop(stop, stop_loss, problem: AbstractProblem) -> Stop | None:
    """What the arguments `stop` and `stop_loss` of the solvers ask for.

    **Raises:** `ValueError` for both at once, a ratio outside (0, 1) or without a known least loss, or a loss that is not finite.
    """
    if stop is not None and stop_loss is not None:
        raise ValueError("Only one of the arguments `stop` and `stop_loss` may be given, but both are.")
    if stop_loss is not None:
        _checks.check_finite(stop_loss, "stop_loss")
        return Stop(jnp.asarray(stop_loss, problem.dtype), False)
    if stop is None:
        return None
    problem = problem.plain
    if problem.beyond is not None:
        kind = problem.beyond.removeprefix("is a ").replace("has ", "problem with ")
        raise ValueError(
            f"Argument `stop` needs the least loss, which a {kind} does not know: give the loss to stop at as `stop_loss`."
        )
    if not _checks.is_traced(stop) and not np.all((np.asarray(stop) > 0) & (np.asarray(stop) < 1)):
        raise ValueError(f"Argument `stop` is a ratio of excess losses and must lie in (0, 1), but is {stop}.")
    return Stop(jnp.asarray(stop), True)
