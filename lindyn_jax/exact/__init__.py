"""Closed-form solutions, for every shape, sign and time; see each module for its formula and hypotheses."""

from ._common import Limit, Rate, Time
from .aligned import (
    aligned,
    aligned_half_time,
    aligned_jump_time,
    aligned_limit,
    aligned_rate,
    aligned_step,
    plateau,
    reduced_rank,
)
from .asymptotics import riccati_limit, riccati_rate
from .decay import decayed, decayed_limit
from .deep import deep_mode, deep_mode_limit, deep_mode_rate, deep_mode_time
from .diagonal import diagonal_limit
from .general import riccati_general
from .homogeneous import (
    homogeneous,
    homogeneous_condition,
    homogeneous_eigenvalues,
    homogeneous_factors,
    homogeneous_grams,
    homogeneous_limit,
    homogeneous_product,
    homogeneous_rates,
    homogeneous_realisable,
)
from .linear import linear, linear_descent, linear_descent_rate, linear_limit, linear_rate
from .mode import Mode, mode, mode_constant, mode_limit, mode_rate
from .neuron import Neuron, neuron
from .polar import polar_modes, polar_time
from .riccati import riccati, riccati_factors
from .spectral import spectral, spectral_limit, spectral_product, spectral_product_limit, spectral_rate
from .symmetric import (
    symmetric,
    symmetric_converges,
    symmetric_entry_rates,
    symmetric_factors,
    symmetric_limit,
    symmetric_mode,
    symmetric_rate,
)

__all__ = [
    "Limit",
    "Mode",
    "Neuron",
    "Rate",
    "Time",
    "aligned",
    "aligned_half_time",
    "aligned_jump_time",
    "aligned_limit",
    "aligned_rate",
    "aligned_step",
    "decayed",
    "decayed_limit",
    "deep_mode",
    "deep_mode_limit",
    "deep_mode_rate",
    "deep_mode_time",
    "diagonal_limit",
    "homogeneous",
    "homogeneous_condition",
    "homogeneous_eigenvalues",
    "homogeneous_factors",
    "homogeneous_grams",
    "homogeneous_limit",
    "homogeneous_product",
    "homogeneous_rates",
    "homogeneous_realisable",
    "linear",
    "linear_descent",
    "linear_descent_rate",
    "linear_limit",
    "linear_rate",
    "mode",
    "mode_constant",
    "mode_limit",
    "mode_rate",
    "neuron",
    "plateau",
    "polar_modes",
    "polar_time",
    "reduced_rank",
    "riccati",
    "riccati_factors",
    "riccati_general",
    "riccati_limit",
    "riccati_rate",
    "spectral",
    "spectral_limit",
    "spectral_product",
    "spectral_product_limit",
    "spectral_rate",
    "symmetric",
    "symmetric_converges",
    "symmetric_entry_rates",
    "symmetric_factors",
    "symmetric_limit",
    "symmetric_mode",
    "symmetric_rate",
]
