"""Learning dynamics of overparametrized linear networks: exact, batched and differentiable."""

from . import init, observables, reduction, theory
from .descent import gradient_descent, plain_descent, stable_step
from .ensemble import masked, run_ensemble
from .flow import gradient_flow
from .models import AbstractModel, Frozen, LinearModel, ReducedTwoLayer, SymmetricFactors, TwoLayer
from .problem import LeastSquares, factorization
from .reduction import Basis, lift, reduce
from .store import SweepStore, open_sweep
from .trajectory import RESULTS, Trajectory

__version__ = "0.1.0"

__all__ = [
    "RESULTS",
    "AbstractModel",
    "Basis",
    "Frozen",
    "LeastSquares",
    "LinearModel",
    "ReducedTwoLayer",
    "SweepStore",
    "SymmetricFactors",
    "Trajectory",
    "TwoLayer",
    "factorization",
    "gradient_descent",
    "gradient_flow",
    "init",
    "lift",
    "masked",
    "observables",
    "open_sweep",
    "plain_descent",
    "reduce",
    "reduction",
    "run_ensemble",
    "stable_step",
    "theory",
]
