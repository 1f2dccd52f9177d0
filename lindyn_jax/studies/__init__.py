"""Studies: each is a trial function, its default grid, its summary and its figure."""

from . import fit_lambda0, lemma11, theorem12
from .audit import audit
from .simulate import simulate

__all__ = ["audit", "fit_lambda0", "lemma11", "simulate", "theorem12"]
