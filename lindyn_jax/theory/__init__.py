"""Statements of the papers as functions of a state, independent of the simulators."""

from .._statement import Statement
from . import observed
from .acceleration import (
    least_imbalance,
    mode_acceleration,
    spectral_acceleration,
    tied_acceleration,
    tied_descent_acceleration,
)
from .autoencoder import principal_projector, tied_autoencoder
from .bounds import lemma7, lemma8, rate_bound
from .commuting import commuting_measurements
from .concentration import Lemma11Events, lemma11, lemma11_events, theorem12
from .conservation import descent_drift, imbalances, num_deep_conservation_laws
from .convergence import (
    convergence_constant,
    corollary4,
    corollary5,
    corollary6,
    local_rate,
    loss_bound,
    m22_theorem3,
    margin,
)
from .distance import (
    ConditionalDistance,
    conditional_distance,
    invariant_set,
    sample_distance,
    sharp_distance,
    wide_gram,
)
from .generalisation import regression_errors
from .growing_modes import growing_modes
from .growth import coupling_bound, growth_bound, growth_rate, travel_bound
from .imbalance import (
    Balance,
    Imbalance,
    SpectrumEdges,
    balance,
    coupling,
    imbalance,
    moving_layers,
    moving_spectrum,
    num_conservation_laws,
    spectrum_edges,
)
from .in_context import InContext, in_context_covariances
from .jumps import descent_step_limit, jump_steps, jumps_are_separate, separation_steps
from .least_losses import least_excess_loss, stationary_product
from .max_margin import max_margin
from .mean_square import batch_stable_step
from .modes import data_modes, g19_corollary1, g19_theorem2, learning_order
from .ntk import NTKRescaling, ntk_rescaling
from .nuclear_norm import min_nuclear_norm
from .one_step import Drift, drift_spectrum, line_search, step_inequality, step_polynomial
from .perturbation import Tilt, aligned_layers, decoupled_problem, perturbation_bound, plateau_tilt, tilt_matrix
from .plateaus import corollary2, corollary2_condition
from .random_matrix import deterministic_equivalent
from .rates import adversarial_target, instantaneous_rate, rate_operator, rate_spectrum, scalar_rate, scalar_rate_bound
from .regression import covariance_problem, reduced_rank_from_covariances, reduced_rank_regression, top_projector
from .scalar_descent import (
    descent_component_rate,
    descent_component_step,
    linear_descent_step_rate,
    tied_descent_rate,
    tied_descent_step,
)
from .sharpness import hessian_sharpness, sharpness
from .small_starts import small_start_bound
from .spectra import lemma_e1, lemma_e2
from .stationary import Stationarity, StationaryPoint, stationarity, stationary_point
from .step_bounds import descent_bounds, g19_theorem3, zero_mode_bounds
from .steps import stable_step
from .stochastic import (
    batch_drift,
    label_noise_decay,
    label_noise_distance,
    label_noise_drift,
    label_noise_loss,
    online_drift,
)
from .tightness import tight_pairing, tight_start, tightness

__all__ = [
    "Balance",
    "ConditionalDistance",
    "Drift",
    "Imbalance",
    "InContext",
    "Lemma11Events",
    "NTKRescaling",
    "SpectrumEdges",
    "Statement",
    "Stationarity",
    "StationaryPoint",
    "Tilt",
    "adversarial_target",
    "aligned_layers",
    "balance",
    "batch_drift",
    "batch_stable_step",
    "commuting_measurements",
    "conditional_distance",
    "convergence_constant",
    "corollary2",
    "corollary2_condition",
    "corollary4",
    "corollary5",
    "corollary6",
    "coupling",
    "coupling_bound",
    "covariance_problem",
    "data_modes",
    "decoupled_problem",
    "descent_bounds",
    "descent_component_rate",
    "descent_component_step",
    "descent_drift",
    "descent_step_limit",
    "deterministic_equivalent",
    "drift_spectrum",
    "g19_corollary1",
    "g19_theorem2",
    "g19_theorem3",
    "growing_modes",
    "growth_bound",
    "growth_rate",
    "hessian_sharpness",
    "imbalance",
    "imbalances",
    "in_context_covariances",
    "instantaneous_rate",
    "invariant_set",
    "jump_steps",
    "jumps_are_separate",
    "label_noise_decay",
    "label_noise_distance",
    "label_noise_drift",
    "label_noise_loss",
    "learning_order",
    "least_excess_loss",
    "least_imbalance",
    "lemma7",
    "lemma8",
    "lemma11",
    "lemma11_events",
    "lemma_e1",
    "lemma_e2",
    "line_search",
    "linear_descent_step_rate",
    "local_rate",
    "loss_bound",
    "m22_theorem3",
    "margin",
    "max_margin",
    "min_nuclear_norm",
    "mode_acceleration",
    "moving_layers",
    "moving_spectrum",
    "ntk_rescaling",
    "num_conservation_laws",
    "num_deep_conservation_laws",
    "observed",
    "online_drift",
    "perturbation_bound",
    "plateau_tilt",
    "principal_projector",
    "rate_bound",
    "rate_operator",
    "rate_spectrum",
    "reduced_rank_from_covariances",
    "reduced_rank_regression",
    "regression_errors",
    "sample_distance",
    "scalar_rate",
    "scalar_rate_bound",
    "separation_steps",
    "sharp_distance",
    "sharpness",
    "small_start_bound",
    "spectral_acceleration",
    "spectrum_edges",
    "stable_step",
    "stationarity",
    "stationary_point",
    "stationary_product",
    "step_inequality",
    "step_polynomial",
    "theorem12",
    "tied_acceleration",
    "tied_autoencoder",
    "tied_descent_acceleration",
    "tied_descent_rate",
    "tied_descent_step",
    "tight_pairing",
    "tight_start",
    "tightness",
    "tilt_matrix",
    "top_projector",
    "travel_bound",
    "wide_gram",
    "zero_mode_bounds",
]
