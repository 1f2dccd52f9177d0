"""Learning dynamics of overparametrized linear networks: exact, batched and differentiable."""

from . import exact, init, observables, reduction, studies, theory
from .descent import gradient_descent, plain_descent, stable_step
from .ensemble import masked, run_ensemble
from .flow import gradient_flow
from .gauge import Gauge, find_gauge, from_gauge, to_gauge
from .limits import flow_to_limit, limit
from .models import AbstractModel, Frozen, LinearModel, ReducedTwoLayer, SymmetricFactors, TwoLayer
from .penalty import ImbalancePenalty
from .problem import LeastSquares, factorization
from .reduction import Basis, lift, reduce
from .store import SweepStore, open_reductions, open_sweep
from .trajectory import RESULTS, Trajectory

__version__ = "0.1.0"

__all__ = [
    "RESULTS",
    "AbstractModel",
    "Basis",
    "Frozen",
    "Gauge",
    "ImbalancePenalty",
    "LeastSquares",
    "LinearModel",
    "ReducedTwoLayer",
    "SweepStore",
    "SymmetricFactors",
    "Trajectory",
    "TwoLayer",
    "exact",
    "factorization",
    "find_gauge",
    "flow_to_limit",
    "from_gauge",
    "gradient_descent",
    "gradient_flow",
    "init",
    "lift",
    "limit",
    "masked",
    "observables",
    "open_reductions",
    "open_sweep",
    "plain_descent",
    "reduce",
    "reduction",
    "run_ensemble",
    "stable_step",
    "studies",
    "theory",
    "to_gauge",
]
