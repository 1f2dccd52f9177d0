"""Studies: each is a trial function, its default grid, its summary and its figure.

Solvers are imported by the functions that run them: to read a finished study takes half as long without.
"""

from . import completion, fit_lambda0, lemma11, phases, theorem12
from .audit import Audit, audit
from .simulate import Simulate, simulate
from .tasks import Tasks

__all__ = [
    "Audit",
    "Simulate",
    "Tasks",
    "audit",
    "completion",
    "fit_lambda0",
    "lemma11",
    "phases",
    "simulate",
    "theorem12",
]
