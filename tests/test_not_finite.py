"""No verdict comes out of NaN: numbers stay NaN, flags are false, and infinity gives no finite nonsense."""

import inspect
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lindyn_jax as ld
from lindyn_jax import observables as obs
from lindyn_jax import trajectory
from lindyn_jax._norms import norm, quotient, root
from lindyn_jax.exact._common import hypot

RNG = np.random.default_rng(7)
PROBLEM = ld.LeastSquares(RNG.normal(size=(4, 5)), RNG.normal(size=(4, 2)))
SQUARE = ld.factorization(np.eye(3))
MODELS = {
    "two": ld.TwoLayer(RNG.normal(size=(5, 8)), RNG.normal(size=(2, 8))),
    "deep": ld.DeepLinear([RNG.normal(size=s) for s in ((5, 4), (4, 3), (3, 2))]),
    "linear": ld.LinearModel(RNG.normal(size=(5, 2))),
    "tied": ld.SymmetricFactors(RNG.normal(size=(3, 3))),
    "wide": ld.WideLimit(RNG.normal(size=(5, 2)), 1.0),
}
# The parts of a network, which may be finite one by one.
PARTS = ("coupling", "moving_layers", "ntk_rescaling", "rate_operator", "adversarial_target")
NUMBERS = {
    "std": 0.1,
    "size": 2,
    "t0": 0.0,
    "eta": 0.01,
    "alpha": 0.5,
    "delta": 0.1,
    "epsilon": 1.0,
    "ts": jnp.array([0.5, 1.0]),
}


def _parameters(function):
    return [name for name, p in inspect.signature(function).parameters.items() if p.default is inspect.Parameter.empty]


def _functions(module):
    functions = {name: getattr(module, name) for name in module.__all__}
    return {name: f for name, f in functions.items() if inspect.isfunction(f)}


STATEMENTS = [
    name
    for name, f in _functions(ld.theory).items()
    if _parameters(f)[:2] == ["model", "problem"] and name not in PARTS
]


# Programs that take long to compile, for a claim that others make of the same numbers.
LONG = (
    "batch_stable_step",
    "hessian_sharpness",
    "deep_mode",
    "homogeneous_rates",
    "riccati_rate",
    "symmetric_rate",
    "symmetric_entry_rates",
    "symmetric_converges",
)


def _spoil(model, value):
    leaves, tree = jax.tree.flatten(model)
    return jax.tree.unflatten(tree, [leaves[0].at[0, 0].set(value), *leaves[1:]])


def _claims(answer):
    """What an answer says in spite of NaN: true flags and finite numbers."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(answer)]
    return [a for a in leaves if (a.any() if a.dtype == bool else a.dtype.kind == "f" and np.isfinite(a).any())]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in STATEMENTS]
)
def test_statements_say_nothing_of_a_network_that_is_not_finite(name, value):
    function = getattr(ld.theory, name)
    arguments = [NUMBERS[parameter] for parameter in _parameters(function)[2:]]
    kinds = (
        MODELS
        if name in ("stationarity", "stationary_point")
        else ("tied",)
        if name == "tied_autoencoder"
        else ("two",)
    )
    for kind in kinds:
        problem = SQUARE if kind == "tied" else PROBLEM
        if name == "tied_autoencoder":
            problem = ld.LeastSquares(np.eye(3), np.eye(3))
        if name == "stationary_point" and kind in ("deep", "wide"):
            continue
        assert not _claims(eqx.filter_jit(function)(_spoil(MODELS[kind], value), problem, *arguments)), kind


AT_END = [partial(ld.stable_step, at=at) for at in ("solution", "state")]


def test_one_layer_and_the_hessian_say_nothing_of_nan_either():
    # The Hessian of one layer does not see its weights at all.
    spoiled = _spoil(MODELS["linear"], np.nan)
    for function in (ld.theory.sharpness, ld.theory.hessian_sharpness, *AT_END):
        assert not _claims(function(spoiled, PROBLEM))


@pytest.mark.parametrize("name", obs.OBSERVABLES)
def test_observables_of_a_diverged_network_are_nan(name):
    function = obs.OBSERVABLES[name]
    for kind, model in MODELS.items():
        problem = SQUARE if kind == "tied" else PROBLEM
        start = (model,) if function.facts.needs_start else ()
        if function.facts.refusal(model, problem) is not None:
            continue
        assert not _claims(function(_spoil(model, np.nan), problem, *start)), kind


def test_a_diverged_descent_measures_nan_and_not_zero():
    problem = ld.factorization(np.diag([3.0, 2.0]))
    start = ld.TwoLayer(np.eye(2), np.eye(2))
    names = ("loss", "imbalance_drift", "distance_to_theta_hat", "frozen_product_norm", "reconstruction_error")
    run = ld.gradient_descent(start, problem, 12, optimizer=ld.plain_descent(5.0), observables=names)
    assert run.result == trajectory.DIVERGED
    assert all(not jnp.isfinite(value) for value in run.final_observables.values())


def test_norms_roots_and_quotients_keep_nan_and_infinity():
    for value in (np.nan, np.inf):
        A = jnp.array([1.0, value])
        outcomes = norm(A), norm(jnp.zeros(2), A), root(A[1]), hypot(A[0], A[1]), quotient(A[1], A[0])
        assert all(np.array_equal(x, value, equal_nan=True) for x in outcomes)
    assert norm(jnp.zeros(3)) == root(jnp.zeros(())) == quotient(jnp.ones(()), jnp.zeros(())) == 0
    assert jnp.all(jax.grad(norm)(jnp.zeros(3)) == 0)
    for scale in (1e-200, 1e200):
        np.testing.assert_allclose(norm(scale * jnp.array([3.0, 4.0])), 5 * scale, rtol=1e-15)


VECTORS = {"sigma": [1.5, 0.7], "lam": [0.9, 0.8], "u0": [0.2, 0.3], "v0": [0.1, 0.2]}
VECTORS |= {"positive": [1.0, 0.5], "negative": [1.0, 0.4]}
SCALARS = {
    "sigma": 1.2,
    "u0": 0.3,
    "v0": 0.2,
    "x0": 0.4,
    "lam": 0.8,
    "d": 2.0,
    "eta": 0.1,
    "x": 0.3,
    "w": 0.3,
    "w0": 0.2,
}
SCALARS |= {"steps": 3.0, "curvature": 1.1, "u": 0.3, "v": 0.4, "y": 1.0, "s0": 0.2, "t": 0.7}
SCALARS |= {"sigma_i": 1.0, "sigma_j": 0.5, "lam_i": 1.0, "lam_j": 0.7, "lambda0": 0.4, "g": 1.0}
MATRICES = {"A": np.array([[1.0, 0.3], [0.3, -0.5]]), "Y": np.array([[1.0, 0.3], [0.3, -0.5]])}
MATRICES |= {"U0": np.array([[0.3, 0.2, 0.1], [0.1, -0.4, 0.2]]), "V0": np.array([[0.2, 0.2, -0.1], [0.3, 0.1, 0.5]])}
WITH_VECTORS = ("spectral", "plateau", "reduced", "separation", "jump", "jumps", "corollary2", "tight", "polar")


def _verdicts():
    for module in (ld.exact, ld.theory):
        for name, function in _functions(module).items():
            parameters = _parameters(function)
            numbers = SCALARS | (VECTORS if name.split("_")[0] in WITH_VECTORS else {}) | MATRICES
            static = {
                parameter: {"k": 1, "depth": 3}[parameter] for parameter in parameters if parameter in ("k", "depth")
            }
            known = {parameter: jnp.asarray(numbers[parameter]) for parameter in parameters if parameter in numbers}
            if set(known) | set(static) == set(parameters) and name != "top_projector":
                yield pytest.param(function, known, static, id=name, marks=pytest.mark.slow if name in LONG else ())


# A time of infinity is the limit, and numbers alone claim nothing that NaN would not show.
AT_INFINITY = ("aligned", "deep_mode", "mode", "symmetric_mode")


@pytest.mark.parametrize("function, known, static", list(_verdicts()))
def test_closed_forms_and_statements_on_numbers_say_nothing_of_nan(function, known, static):
    compiled = jax.jit(lambda numbers: function(**numbers, **static))
    assert _claims(compiled(known))
    for name, number in known.items():
        for value in (np.nan, np.inf):
            if value == np.inf and function.__name__ in AT_INFINITY:
                continue
            spoiled = number.at[(0,) * number.ndim].set(value)
            answer = compiled(known | {name: spoiled})
            # Entries that the spoiled one has no part in may keep their values.
            flags = [np.all(leaf) for leaf in jax.tree.leaves(answer) if leaf.dtype == bool]
            whole = [np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(answer) if leaf.dtype.kind == "f"]
            assert not any(flags) and not any(whole), (name, value)


def test_starts_with_a_product_of_nan_are_nan():
    for make in (
        lambda Theta: ld.init.balanced(PROBLEM, Theta, 6),
        lambda Theta: ld.init.with_imbalance(PROBLEM, Theta, jnp.ones(4), jnp.ones(2), 6),
    ):
        start = jax.jit(make)(MODELS["linear"].Theta.at[0, 0].set(jnp.nan))
        assert bool(jnp.any(jnp.isnan(start.U))) and bool(jnp.any(jnp.isnan(start.V)))
