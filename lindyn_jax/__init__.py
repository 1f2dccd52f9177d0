"""Learning dynamics of overparametrized linear networks: exact, batched and differentiable."""

from . import exact, theory
from .models import AbstractModel, Frozen, LinearModel, ReducedTwoLayer, SymmetricFactors, TwoLayer
from .problem import LeastSquares, factorization

__version__ = "0.1.0"

__all__ = [
    "AbstractModel",
    "Frozen",
    "LeastSquares",
    "LinearModel",
    "ReducedTwoLayer",
    "SymmetricFactors",
    "TwoLayer",
    "exact",
    "factorization",
    "theory",
]
