"""Solvers of this package for diffrax: a structured implicit one for stiff data and an explicit one on the group O(r, m)."""

from .control import NormController, RelativeController, grown_roundoff, growth_reach, lost_on_the_way
from .group import imbalance, project, pseudo_orthogonal
from .integrate import Solution, integrate
from .lie import LieRK4, group_reach
from .radau import ImpulseRadau, dense_jacobian, impulse_reach, internal_tolerance
from .roots import ScaledChord
from .roundoff import is_lost, largest_singular_value, norm
from .stages import is_dense

__all__ = [
    "ImpulseRadau",
    "LieRK4",
    "NormController",
    "RelativeController",
    "ScaledChord",
    "Solution",
    "dense_jacobian",
    "group_reach",
    "grown_roundoff",
    "growth_reach",
    "imbalance",
    "impulse_reach",
    "integrate",
    "internal_tolerance",
    "is_dense",
    "is_lost",
    "largest_singular_value",
    "lost_on_the_way",
    "norm",
    "project",
    "pseudo_orthogonal",
]
