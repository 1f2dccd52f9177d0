"""Starts: where in weight space a trajectory begins.

Functions return weights; starts as objects (`Gaussian`, `Balanced`, ...) are drawn for a problem where they are needed.
`gaussian_core` is the one to use for Monte Carlo: it draws the reduced form of a Gaussian start of any width directly, at a
cost that does not depend on the width, so that the width is a number that can be mapped over.
"""

from .deep import deep_aligned, deep_balanced, deep_core, deep_gaussian, deep_orthogonal
from .designed import balanced, with_imbalance
from .gaussians import gaussian, gaussian_core, gaussian_with_imbalance, invariant, warn_of_lost_digits
from .modes import aligned, spectral
from .starts import (
    AbstractGaussianStart,
    AbstractStart,
    Aligned,
    Balanced,
    DeepAligned,
    DeepBalanced,
    DeepGaussian,
    DeepOrthogonal,
    FromFunction,
    Gaussian,
    GaussianWithImbalance,
    Imbalance,
    Invariant,
    Spectral,
)

__all__ = [
    "AbstractGaussianStart",
    "AbstractStart",
    "Aligned",
    "Balanced",
    "DeepAligned",
    "DeepBalanced",
    "DeepGaussian",
    "DeepOrthogonal",
    "FromFunction",
    "Gaussian",
    "GaussianWithImbalance",
    "Imbalance",
    "Invariant",
    "Spectral",
    "aligned",
    "balanced",
    "deep_aligned",
    "deep_balanced",
    "deep_core",
    "deep_gaussian",
    "deep_orthogonal",
    "gaussian",
    "gaussian_core",
    "gaussian_with_imbalance",
    "invariant",
    "spectral",
    "warn_of_lost_digits",
    "with_imbalance",
]
