"""Studies: each is a trial function, its default grid, its summary and its figure."""

from . import completion, fit_lambda0, lemma11, theorem12
from .audit import Audit, audit
from .simulate import Simulate, simulate
from .tasks import Tasks

__all__ = ["Audit", "Simulate", "Tasks", "audit", "completion", "fit_lambda0", "lemma11", "simulate", "theorem12"]
