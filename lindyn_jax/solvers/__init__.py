"""Solvers of this package for diffrax: a structured implicit one for stiff data and an explicit one on the group O(r, m)."""

from .control import NormController, largest_singular_value
from .lie import LieRK4
from .radau import (
    ImpulseRadau,
    dense_jacobian,
    imbalance,
    internal_tolerance,
    is_dense,
    project,
    pseudo_orthogonal,
)

__all__ = [
    "ImpulseRadau",
    "LieRK4",
    "NormController",
    "dense_jacobian",
    "imbalance",
    "internal_tolerance",
    "is_dense",
    "largest_singular_value",
    "project",
    "pseudo_orthogonal",
]
