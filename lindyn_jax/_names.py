"""All public names of the package: what `lindyn_jax` imports when the first of them is asked for."""

import importlib
from typing import TYPE_CHECKING

from . import data, exact, init, observables, reduction, studies, theory
from .descent import gradient_descent, plain_descent
from .diffusion import stochastic_flow
from .directions import Direction, direction
from .ensemble import SweepStore, masked, open_reductions, open_sweep, run_ensemble
from .fits import Fit, Lambda0Fit, fit, fit_lambda0, lambda0_objective, lambda0_path
from .flow import gradient_flow
from .gauge import Gauge, find_gauge, from_gauge, to_gauge
from .limits import flow_to_limit, limit
from .models import (
    AbstractModel,
    Branched,
    DeepLinear,
    Diagonal,
    DiagonalDifference,
    LinearModel,
    LoRA,
    Momentum,
    Polar,
    Reduction,
    SymmetricFactors,
    TwoLayer,
    WideLimit,
    gated_inputs,
)
from .noise import FullBatch, LabelNoise, Minibatch, Online, Teacher
from .optimizers import Descent, polar_descent
from .problems import (
    AbstractProblem,
    CustomProblem,
    GeneralLoss,
    Huber,
    ImbalancePenalty,
    LeastSquares,
    Logistic,
    MatrixCompletion,
    MatrixSensing,
    OutputProblem,
    Penalised,
    Poisson,
    Softmax,
    factorization,
    residual,
)
from .reduction import find_subspaces, lift, reduce
from .studies.study import Study
from .tasks import Passage, TaskSequence, sequence
from .theory import stable_step
from .trajectory import RESULTS, Trajectory

if TYPE_CHECKING:
    # What `__getattr__` imports.
    from . import cli as cli
    from . import figures, plots
    from .figures import open_figure

__all__ = [
    "RESULTS",
    "AbstractModel",
    "AbstractProblem",
    "Branched",
    "CustomProblem",
    "DeepLinear",
    "Descent",
    "Diagonal",
    "DiagonalDifference",
    "Direction",
    "Fit",
    "FullBatch",
    "Gauge",
    "GeneralLoss",
    "Huber",
    "ImbalancePenalty",
    "LabelNoise",
    "Lambda0Fit",
    "LeastSquares",
    "LinearModel",
    "LoRA",
    "Logistic",
    "MatrixCompletion",
    "MatrixSensing",
    "Minibatch",
    "Momentum",
    "Online",
    "OutputProblem",
    "Passage",
    "Penalised",
    "Poisson",
    "Polar",
    "Reduction",
    "Softmax",
    "Study",
    "SweepStore",
    "SymmetricFactors",
    "TaskSequence",
    "Teacher",
    "Trajectory",
    "TwoLayer",
    "WideLimit",
    "data",
    "direction",
    "exact",
    "factorization",
    "figures",
    "find_gauge",
    "find_subspaces",
    "fit",
    "fit_lambda0",
    "flow_to_limit",
    "from_gauge",
    "gated_inputs",
    "gradient_descent",
    "gradient_flow",
    "init",
    "lambda0_objective",
    "lambda0_path",
    "lift",
    "limit",
    "masked",
    "observables",
    "open_figure",
    "open_reductions",
    "open_sweep",
    "plain_descent",
    "plots",
    "polar_descent",
    "reduce",
    "reduction",
    "residual",
    "run_ensemble",
    "sequence",
    "stable_step",
    "stochastic_flow",
    "studies",
    "theory",
    "to_gauge",
]


def __getattr__(name: str):
    # Drawing and commands are imported when they are first asked for: a simulation needs neither.
    if name in ("plots", "figures", "cli"):
        return importlib.import_module(f"{__package__}.{name}")
    if name == "open_figure":
        return importlib.import_module(f"{__package__}.figures").open_figure
    raise AttributeError(f"module {__package__!r} has no attribute {name!r}")
