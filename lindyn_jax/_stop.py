"""Where a run ends early: at a share of its excess loss, at a loss, or at the norm of the gradient."""

from abc import abstractmethod
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from . import _checks
from . import observables as obs
from .models import AbstractModel
from .problems import AbstractProblem


class AbstractStop(eqx.Module):
    """What a run is watched for: it ends once `measure` has come down to `level`, in units of `unit` at the start."""

    level: Float[Array, ""]
    is_ratio: ClassVar[bool] = False

    @abstractmethod
    def measure(self, model: AbstractModel, problem: AbstractProblem) -> Float[Array, ""]:
        """The number that is compared."""

    def unit(self, start: AbstractModel, problem: AbstractProblem) -> Float[Array, ""]:
        """What the level is a multiple of."""
        return jnp.ones((), problem.dtype)

    def target(self, start: AbstractModel, problem: AbstractProblem) -> Float[Array, ""]:
        """The number to come down to."""
        return self.level * self.unit(start, problem)


class StopRatio(AbstractStop):
    """Ends at a share of the start's excess loss, which is exact however small it is."""

    is_ratio = True

    def measure(self, model: AbstractModel, problem: AbstractProblem) -> Float[Array, ""]:
        return obs.excess_loss(model, problem)

    def unit(self, start: AbstractModel, problem: AbstractProblem) -> Float[Array, ""]:
        return obs.excess_loss(start, problem)


class StopLoss(AbstractStop):
    """Ends at a loss."""

    def measure(self, model: AbstractModel, problem: AbstractProblem) -> Float[Array, ""]:
        return obs.loss(model, problem)


class StopGradient(AbstractStop):
    """Ends at a norm of the velocity of all weights, which is the gradient's."""

    def measure(self, model: AbstractModel, problem: AbstractProblem) -> Float[Array, ""]:
        return model.velocity_norm(problem)


def as_stop(stop, stop_loss, stop_gradient_norm, problem: AbstractProblem) -> AbstractStop | None:
    """What the arguments `stop`, `stop_loss` and `stop_gradient_norm` of the solvers ask for.

    **Raises:** `ValueError` for two at once, a ratio outside (0, 1) or without a known least loss, a loss that is not finite, or
    a norm that is not positive.
    """
    given = {"stop": stop, "stop_loss": stop_loss, "stop_gradient_norm": stop_gradient_norm}
    names = [f"`{name}`" for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise ValueError(f"Only one of the arguments {' and '.join(names)} may be given, but {len(names)} are.")
    if stop_loss is not None:
        _checks.check_finite(stop_loss, "stop_loss")
        return StopLoss(jnp.asarray(stop_loss, problem.dtype))
    if stop_gradient_norm is not None:
        _checks.check_positive(stop_gradient_norm, "stop_gradient_norm")
        return StopGradient(jnp.asarray(stop_gradient_norm, problem.dtype))
    if stop is None:
        return None
    problem = problem.plain
    if problem.beyond is not None:
        kind = problem.beyond.removeprefix("is a ").replace("has ", "problem with ")
        raise ValueError(
            f"Argument `stop` needs the least loss, which a {kind} does not know: give the loss to stop at as `stop_loss`, or "
            "the norm of the gradient as `stop_gradient_norm`."
        )
    if not _checks.is_traced(stop) and not np.all((np.asarray(stop) > 0) & (np.asarray(stop) < 1)):
        raise ValueError(f"Argument `stop` is a ratio of excess losses and must lie in (0, 1), but is {stop}.")
    return StopRatio(jnp.asarray(stop))
