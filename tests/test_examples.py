"""Every public function and class has an example in its docstring, which prints what it says it prints.

An example is a block of `>>>` lines, indented by four spaces, below a line `Example:`. `jax`, `jnp`, `np`, `optax` and `ld` are
imported, numbers are 64-bit ones. A printed number is compared in as many digits as are written.
"""

import doctest
import importlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from _pytest.doctest import _get_checker

import lindyn_jax as ld

FAMILIES = ("", "data", "exact", "figures", "fits", "init", "observables", "plots", "reduction", "studies", "theory")
NAMESPACE = {"jax": jax, "jnp": jnp, "np": np, "optax": optax, "ld": ld}
NUMBER = doctest.register_optionflag("NUMBER")


def public():
    """Name after `ld.` -> function or class, each once, under its shortest name."""
    found, seen = {}, set()
    for family in FAMILIES:
        module = importlib.import_module(f"lindyn_jax.{family}".rstrip("."))
        for name in getattr(module, "__all__", None) or own(module):
            value = getattr(module, name)
            if callable(value) and id(value) not in seen:
                seen.add(id(value))
                found[f"{family}.{name}".lstrip(".")] = value
    return found


def own(module):
    """Names of the functions and classes that a module without `__all__` defines itself."""
    mine = {name: value for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__}
    return [name for name, value in mine.items() if name[0] != "_" and (inspect.isclass(value) or callable(value))]


PUBLIC = public()


def has_example(value):
    return ">>>" in (value.__doc__ or "")


def test_every_public_name_has_an_example():
    assert len(PUBLIC) > 300
    assert not [name for name, value in PUBLIC.items() if not has_example(value)]


# Those that compile a program of any size or draw a figure, which tests of their own do as well.
LONGER = {
    "AbstractModel", "Branched", "CustomProblem", "data.autoencoder", "data.Dataset", "data.gaussian",
    "data.in_context", "data.Matrix", "Descent", "Diagonal", "DiagonalDifference", "direction", "Direction",
    "exact.aligned_step", "exact.decayed", "exact.decayed_limit", "exact.deep_mode", "exact.deep_mode_time",
    "exact.diagonal_limit", "exact.homogeneous", "exact.homogeneous_factors", "exact.homogeneous_limit",
    "exact.homogeneous_product", "exact.homogeneous_rates", "exact.Limit", "exact.Mode", "exact.Neuron", "exact.neuron",
    "exact.riccati", "exact.riccati_factors", "exact.riccati_general", "exact.riccati_limit", "exact.riccati_rate",
    "exact.spectral", "exact.spectral_product", "exact.symmetric", "exact.symmetric_converges",
    "exact.symmetric_entry_rates", "figures.Made", "figures.make", "figures.make_all", "find_subspaces", "fit",
    "fit_lambda0", "flow_to_limit", "FullBatch", "GeneralLoss", "init.AbstractGaussianStart", "init.Balanced",
    "init.deep_gaussian", "init.DeepBalanced", "init.DeepGaussian", "init.Gaussian", "init.gaussian",
    "init.gaussian_core", "init.GaussianWithImbalance", "init.Imbalance", "init.invariant", "init.Invariant",
    "LabelNoise", "lambda0_objective", "lambda0_path", "Lambda0Fit", "lift", "limit", "LinearModel", "masked",
    "MatrixCompletion", "Minibatch", "Momentum", "observables.gradient_noise", "observables.hessian_spectrum",
    "observables.hessian_top", "observables.imbalance_drift", "observables.noise_covariance", "Online", "open_figure",
    "open_reductions", "open_sweep", "Passage", "Penalised", "plain_descent", "plots.animate", "plots.losses",
    "plots.modes", "plots.path_singular_values", "plots.save", "polar_descent", "reduction.prepare", "run_ensemble",
    "sequence", "Softmax", "stable_step", "stochastic_flow", "studies.audit", "studies.Tasks", "Study", "SweepStore",
    "SymmetricFactors", "TaskSequence", "Teacher", "theory.aligned_layers", "theory.batch_stable_step",
    "theory.commuting_measurements", "theory.coupling_bound", "theory.descent_step_limit",
    "theory.deterministic_equivalent", "theory.Drift", "theory.g19_corollary1", "theory.g19_theorem2",
    "theory.g19_theorem3", "theory.growing_modes", "theory.hessian_sharpness", "theory.label_noise_distance",
    "theory.lemma11_events", "theory.Lemma11Events", "theory.line_search", "theory.loss_bound", "theory.max_margin",
    "theory.min_nuclear_norm", "theory.sample_distance", "theory.small_start_bound", "theory.StationaryPoint",
    "theory.tight_start", "theory.Tilt", "Trajectory", "WideLimit",
}  # fmt: skip
RUN = [
    pytest.param(name, marks=pytest.mark.slow) if name in LONGER else name
    for name, value in PUBLIC.items()
    if has_example(value)
]


@pytest.mark.parametrize("name", RUN)
def test_the_example_prints_what_it_says(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    test = doctest.DocTestParser().get_doctest(PUBLIC[name].__doc__, dict(NAMESPACE), name, None, None)
    assert any(example.want for example in test.examples), "prints nothing"
    said = []
    flags = NUMBER | doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    doctest.DocTestRunner(checker=_get_checker(), optionflags=flags, verbose=False).run(test, out=said.append)
    assert not said, "".join(said)
