"""How classification goes: the share of samples that are right, and by how much the worst is."""

from typing import Any

from jaxtyping import Array, Float

from .._public import public
from ..models import AbstractModel
from ..problems import AbstractProblem, Logistic, Softmax
from .coordinates import reduced_product
from .registry import observable

KINDS = (Logistic, Softmax)


@observable(
    label="share of samples classified rightly",
    symbol="accuracy",
    panel="accuracy",
    kinds=KINDS,
    penalised=True,
    reduced=True,
)
@public
def accuracy(model: AbstractModel, problem: AbstractProblem) -> Float[Array, ""]:
    """The share of samples, by their weights, whose own class has the largest logit.

    **Returns:** a number from 0 to 1.

    **Raises:** `ValueError` for a problem that is neither `Logistic` nor `Softmax`.

    Example:

        >>> problem = ld.Softmax(jnp.eye(2), jnp.array([0, 1]))
        >>> float(ld.observables.accuracy(ld.LinearModel(jnp.eye(2)), problem))
        1.0
        >>> float(ld.observables.accuracy(ld.LinearModel(jnp.diag(jnp.array([1.0, -1.0]))), problem))
        0.5
    """
    small: Any = problem.plain.restrict()[0]
    return small.accuracy(reduced_product(model, problem))


@observable(
    label="least margin of a sample", symbol="least margin", panel="margin", kinds=KINDS, penalised=True, reduced=True
)
@public
def least_margin(model: AbstractModel, problem: AbstractProblem) -> Float[Array, ""]:
    """By how much the logit of its own class is above the next, where that is least; negative where a sample is wrong.

    **Raises:** `ValueError` for a problem that is neither `Logistic` nor `Softmax`.

    Example:

        >>> problem = ld.Softmax(jnp.eye(2), jnp.array([0, 1]))
        >>> float(ld.observables.least_margin(ld.LinearModel(3.0 * jnp.eye(2)), problem))
        3.0
        >>> float(ld.observables.least_margin(ld.LinearModel(jnp.diag(jnp.array([1.0, -1.0]))), problem))
        -1.0
    """
    small: Any = problem.plain.restrict()[0]
    return small.margin(reduced_product(model, problem))
