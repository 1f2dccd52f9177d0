"""Problems: differentiable losses of the end-to-end matrix, with the coordinates in which it moves.

Solvers, networks and observables ask for an `AbstractProblem` and nothing more; what needs the quadratic structure (the
implicit solver, limits, closed forms, bounds) asks for `LeastSquares` and refuses the others.
"""

from .base import AbstractProblem
from .custom import CustomProblem
from .least_squares import LeastSquares, factorization
from .output import GeneralLoss, OutputProblem
from .penalty import ImbalancePenalty

__all__ = [
    "AbstractProblem",
    "CustomProblem",
    "GeneralLoss",
    "ImbalancePenalty",
    "LeastSquares",
    "OutputProblem",
    "factorization",
]
