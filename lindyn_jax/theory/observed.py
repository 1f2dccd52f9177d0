"""Statements on the rate as observables, which solvers and studies know by the names of these functions."""

import functools

from ..observables import observable
from ..observables.coordinates import two_layers
from ..problems import LeastSquares
from . import bounds, convergence, rates
from .imbalance import imbalance

KINDS = (LeastSquares, two_layers)
of_rate = functools.partial(observable, panel="rate and its bounds", log=True, kinds=KINDS, reduced=True)
of_level = functools.partial(observable, panel="imbalance", kinds=KINDS, reduced=True)


@of_rate(
    symbol="instantaneous rate",
    label="-L'/(L - L*), the instantaneous rate",
    source="M22 App. C",
    kinds=LeastSquares,
)
def rate(model, problem):
    return rates.instantaneous_rate(model, problem)


@of_rate(symbol="Proposition 1", label="lower bound on the rate", source="M22 Prop. 1")
def rate_bound(model, problem):
    return bounds.rate_bound(model, problem).value


@of_rate(symbol="Lemma 7", label="lower bound on the rate by the layers' least eigenvalues", source="M22 Lemma 7")
def lemma7(model, problem):
    return bounds.lemma7(model, problem).value


@observable(
    symbol=r"$\sigma_{\min}(\tilde Y) - \|E\|_F$",
    label="sigma_min(Ytil) - ||E||_F",
    panel="margin",
    kinds=KINDS,
    reduced=True,
    source="M22 Cor. 5",
)
def margin(model, problem):
    return convergence.margin(model, problem)


@of_level(symbol=r"$\Delta_+$", label="Delta+")
def imbalance_plus(model, problem):
    return imbalance(model, problem).plus


@of_level(symbol=r"$\Delta_-$", label="Delta-")
def imbalance_minus(model, problem):
    return imbalance(model, problem).minus


@of_level(symbol=r"$\Delta$", label="Delta, the level of imbalance")
def imbalance_level(model, problem):
    return imbalance(model, problem).level
