"""What to look at: pure functions (model, problem) -> array, computed on the device while the state moves.

Solvers take names from `OBSERVABLES` or functions of your own. Each observable says once what it is, by the decorator
`observable`: its symbol, label, units and axis, and what it is defined for. The named ones here work on reduced models as well,
at a cost that does not depend on the width; a function of your own is given the model in your coordinates.
"""

# In the order of the table.
# isort: off
from .losses import (
    distance_to_theta_hat,
    excess_loss,
    frozen_product_norm,
    loss,
    penalty,
    reconstruction_error,
    total_loss,
)
from .products import alignment, effective_rank, mode_strengths, nuclear_norm, singular_values, stable_rank
from .imbalances import imbalance_drift, imbalance_spectrum
from .kernels import kernel_distance, neural_tangent_kernel
from .similarity import input_gram, input_similarity_distance, output_gram, output_similarity_distance
from .classes import accuracy, least_margin
from .curvature import hessian_spectrum, hessian_top
from .noises import gradient_noise, noise_covariance
from .elsewhere import on
from .coordinates import reduced_product
from .registry import OBSERVABLES, attributes, measure, observable, resolve
from .registry import Observables as Observables
# isort: on

__all__ = [
    "OBSERVABLES",
    "accuracy",
    "alignment",
    "attributes",
    "distance_to_theta_hat",
    "effective_rank",
    "excess_loss",
    "frozen_product_norm",
    "gradient_noise",
    "hessian_spectrum",
    "hessian_top",
    "imbalance_drift",
    "imbalance_spectrum",
    "input_gram",
    "input_similarity_distance",
    "kernel_distance",
    "least_margin",
    "loss",
    "measure",
    "mode_strengths",
    "neural_tangent_kernel",
    "noise_covariance",
    "nuclear_norm",
    "observable",
    "on",
    "output_gram",
    "output_similarity_distance",
    "penalty",
    "reconstruction_error",
    "reduced_product",
    "resolve",
    "singular_values",
    "stable_rank",
    "total_loss",
]
