"""Problems: differentiable losses of the end-to-end matrix, with the coordinates in which it moves.

Solvers, networks and observables ask for an `AbstractProblem` and nothing more; what needs the quadratic structure (the
implicit solver, limits, closed forms, bounds) asks for `LeastSquares` and refuses the others.
"""

from .base import AbstractProblem
from .completion import MatrixCompletion
from .custom import CustomProblem
from .general import GeneralLoss
from .huber import Huber
from .least_squares import LeastSquares, factorization
from .logistic import Logistic
from .output import OutputProblem
from .penalised import Penalised
from .penalty import ImbalancePenalty
from .poisson import Poisson
from .residual import residual
from .sensing import MatrixSensing
from .softmax import Softmax

__all__ = [
    "AbstractProblem",
    "CustomProblem",
    "GeneralLoss",
    "Huber",
    "ImbalancePenalty",
    "LeastSquares",
    "Logistic",
    "MatrixCompletion",
    "MatrixSensing",
    "OutputProblem",
    "Penalised",
    "Poisson",
    "Softmax",
    "factorization",
    "residual",
]
