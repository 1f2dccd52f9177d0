"""Studies: each is a trial function, its default grid, its summary and its figure."""

from . import figures
from .audit import audit
from .simulate import Start, simulate

__all__ = ["Start", "audit", "figures", "simulate"]
