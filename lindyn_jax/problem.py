"""`problems.least_squares`, under its old name."""

from .problems import LeastSquares, factorization

__all__ = ["LeastSquares", "factorization"]
