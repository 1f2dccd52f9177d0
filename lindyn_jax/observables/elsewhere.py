"""Observables on other data than those a network is trained on."""

from collections.abc import Callable

import equinox as eqx
from jaxtyping import Array

from .. import _checks
from .._public import public
from ..models import AbstractModel, LinearModel
from ..problems import AbstractProblem
from .registry import OBSERVABLES


class Elsewhere(eqx.Module):
    """A function (model, problem) -> array that looks at another problem, whose arrays are arguments of compiled programs."""

    problem: AbstractProblem
    name: str = eqx.field(static=True)

    def __call__(self, model: AbstractModel, problem: AbstractProblem) -> Array:
        return OBSERVABLES[self.name](LinearModel(model.full_product(problem)), self.problem)


@public
def on(problem: AbstractProblem, name: str) -> Callable:
    """An observable of Theta on other data, such as the loss of a test: `observables={"test_loss": on(test, "loss")}`.

    **Args:** `problem`, with the sizes n and m of the one that is trained on; `name`, of an observable that end-to-end matrices
    have.

    **Returns:** a function (model, problem) -> array for the `observables` of solvers.

    **Raises:** `ValueError` for a name that is unknown, or of an observable that looks at the start; and where it is used, for
    networks of other sizes, or drawn without the rows that their own data do not see.
    """
    _checks.check_choice(name, "name", tuple(OBSERVABLES))
    if OBSERVABLES[name].facts.needs_start:
        raise ValueError(f"Argument `name` must be of an observable that does not look at the start, but is {name!r}.")
    return Elsewhere(problem, name)
