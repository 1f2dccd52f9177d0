"""Fits: parameters of trajectories that make them what is wanted, by gradients through them."""

from .general import FIT_RESULTS, Fit, fit
from .lambda0 import LAMBDA0_RESULTS, Lambda0Fit, fit_lambda0, lambda0_objective, lambda0_path

__all__ = [
    "FIT_RESULTS",
    "LAMBDA0_RESULTS",
    "Fit",
    "Lambda0Fit",
    "fit",
    "fit_lambda0",
    "lambda0_objective",
    "lambda0_path",
]
