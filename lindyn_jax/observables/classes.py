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
    """The share of samples, by their weights, whose own class has the largest logit."""
    small: Any = problem.plain.restrict()[0]
    return small.accuracy(reduced_product(model, problem))


@observable(
    label="least margin of a sample", symbol="least margin", panel="margin", kinds=KINDS, penalised=True, reduced=True
)
@public
def least_margin(model: AbstractModel, problem: AbstractProblem) -> Float[Array, ""]:
    """By how much the logit of its own class is above the next, where that is least; negative where a sample is wrong."""
    small: Any = problem.plain.restrict()[0]
    return small.margin(reduced_product(model, problem))
