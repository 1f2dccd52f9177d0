"""Statements on the rate as observables, which solvers and studies know by the names of these functions."""

from ..observables import observable
from ..observables.coordinates import two_layers
from ..problems import LeastSquares
from . import bounds, convergence, rates
from .imbalance import imbalance

KINDS = (LeastSquares, two_layers)
RATE = {"panel": "rate and its bounds", "log": True, "kinds": KINDS, "reduced": True}
LEVEL = {"panel": "imbalance", "kinds": KINDS, "reduced": True}


@observable(
    symbol="instantaneous rate",
    label="-L'/(L - L*), the instantaneous rate",
    source="M22 App. C",
    **RATE | {"kinds": LeastSquares},
)
def rate(model, problem):
    return rates.instantaneous_rate(model, problem)


@observable(symbol="Proposition 1", label="lower bound on the rate", source="M22 Prop. 1", **RATE)
def rate_bound(model, problem):
    return bounds.rate_bound(model, problem).value


@observable(
    symbol="Lemma 7", label="lower bound on the rate by the layers' least eigenvalues", source="M22 Lemma 7", **RATE
)
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


@observable(symbol=r"$\Delta_+$", label="Delta+", **LEVEL)
def imbalance_plus(model, problem):
    return imbalance(model, problem).plus


@observable(symbol=r"$\Delta_-$", label="Delta-", **LEVEL)
def imbalance_minus(model, problem):
    return imbalance(model, problem).minus


@observable(symbol=r"$\Delta$", label="Delta, the level of imbalance", **LEVEL)
def imbalance_level(model, problem):
    return imbalance(model, problem).level
