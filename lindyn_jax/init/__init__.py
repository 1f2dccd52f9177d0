"""Starts: where in weight space a trajectory begins.

Functions return weights; starts as objects (`Gaussian`, `Balanced`, ...) are drawn for a problem where they are needed.
`gaussian_core` is the one to use for Monte Carlo: it draws the reduced form of a Gaussian start of any width directly, at a
cost that does not depend on the width, so that the width is a number that can be mapped over.
"""

from .abstract import AbstractGaussianStart, AbstractStart
from .deep import (
    deep_aligned,
    deep_balanced,
    deep_core,
    deep_gaussian,
    deep_isometric,
    deep_orthogonal,
    deep_residual,
)
from .designed import balanced, with_imbalance
from .full_starts import (
    Aligned,
    DeepAligned,
    DeepBalanced,
    DeepGaussian,
    DeepIsometric,
    DeepOrthogonal,
    DeepResidual,
    FromFunction,
    GaussianWithImbalance,
    Invariant,
)
from .gaussians import gaussian, gaussian_core, gaussian_with_imbalance, invariant, warn_of_lost_digits
from .modes import aligned, spectral
from .scalings import SCALINGS, Scaling, scaling
from .starts import Balanced, Gaussian, Imbalance, Scaled, Spectral

__all__ = [
    "SCALINGS",
    "AbstractGaussianStart",
    "AbstractStart",
    "Aligned",
    "Balanced",
    "DeepAligned",
    "DeepBalanced",
    "DeepGaussian",
    "DeepIsometric",
    "DeepOrthogonal",
    "DeepResidual",
    "FromFunction",
    "Gaussian",
    "GaussianWithImbalance",
    "Imbalance",
    "Invariant",
    "Scaled",
    "Scaling",
    "Spectral",
    "aligned",
    "balanced",
    "deep_aligned",
    "deep_balanced",
    "deep_core",
    "deep_gaussian",
    "deep_isometric",
    "deep_orthogonal",
    "deep_residual",
    "gaussian",
    "gaussian_core",
    "gaussian_with_imbalance",
    "invariant",
    "scaling",
    "spectral",
    "warn_of_lost_digits",
    "with_imbalance",
]
