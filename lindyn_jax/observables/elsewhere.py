"""Observables on other data than those a network is trained on."""

from collections.abc import Callable

import equinox as eqx
from jaxtyping import Array, PRNGKeyArray, UInt32

from .._public import public
from ..models import AbstractModel, LinearModel
from ..problems import AbstractProblem
from .registry import OBSERVABLES, named

Key = PRNGKeyArray | UInt32[Array, "2"]


class Elsewhere(eqx.Module):
    """A function (model, problem) -> array that looks at another problem, whose arrays are arguments of compiled programs."""

    problem: AbstractProblem
    name: str = eqx.field(static=True)
    key: Key | None = None

    def __call__(self, model: AbstractModel, problem: AbstractProblem) -> Array:
        return OBSERVABLES[self.name](LinearModel(model.full_product(problem, self.key)), self.problem)


@public
def on(problem: AbstractProblem, name: str, *, key: Key | None = None) -> Callable:
    """An observable of Theta on other data, such as the loss of a test: `observables={"test_loss": on(test, "loss")}`.

    **Args:** `problem`, with the sizes n and m of the one that is trained on; `name`, of an observable that end-to-end matrices
    have; `key`, for a core drawn at a width, draws where in the space of the inputs those rows lie that its own data do not
    see: what is observed then has the law that it has for networks of full size, at a cost without the width.

    **Returns:** a function (model, problem) -> array for the `observables` of solvers.

    **Raises:** `ValueError` for a name that is unknown, or of an observable that looks at the start; and where it is used, for
    networks of other sizes, or drawn and not given a `key` for the rows that their own data do not see.

    **Source:** the frozen part of a Gaussian first layer is independent of the moving one (M22 section 4.2), its frame uniform.

    Example:

        >>> problem, test = ld.factorization(jnp.eye(2)), ld.factorization(jnp.diag(jnp.array([2.0, 1.0])))
        >>> test_loss = ld.observables.on(test, "loss")
        >>> float(test_loss(ld.TwoLayer(jnp.eye(2), jnp.eye(2)), problem))
        0.5
    """
    if vars(named(name, "name"))["facts"].needs_start:
        raise ValueError(f"Argument `name` must be of an observable that does not look at the start, but is {name!r}.")
    return Elsewhere(problem, name, key)
