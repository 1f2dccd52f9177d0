"""Every public function: forward mode = reverse mode = central difference in all its real arguments, or a stated reason.

The arguments are those of the valid calls in `fuzzing` at each of its settings: a narrow, wide or deficient start, data, and
times that are then multiplied by 1e6. A problem is a function of its data, so that the singular vectors are differentiated
with it. Weights that lack rank move while they keep it: where the rank grows, limits and rates jump.
"""

import functools
import inspect
from typing import Any, NamedTuple

import equinox as eqx
import fuzzing
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lindyn_jax as ld

# Why a public function has no row. Prefixes end in a full stop.
NO_ROW = {
    "data.": "reads or draws data before anything is traced",
    "studies.": "a whole sweep of trials",
    "figures.": "names and plain dictionaries",
    "SweepStore": "a folder",
    "open_figure": "reads a file",
    "open_reductions": "reads a file",
    "open_sweep": "reads a file",
    "masked": "a dataset of stored trials",
    "run_ensemble": "trials are stored and not differentiated",
    "observables.attributes": "names alone",
    "observables.observable": "a decorator",
    "observables.resolve": "names alone",
    "exact.homogeneous_realisable": "a flag",
    "exact.symmetric_converges": "a flag",
    "theory.corollary2_condition": "a flag",
    "theory.jumps_are_separate": "a flag",
    "theory.num_conservation_laws": "a whole number",
    "theory.num_deep_conservation_laws": "a whole number",
    "theory.tightness": "flags and whole numbers",
    "theory.max_margin": "of a problem alone, whose parts move together: test_implicit_bias",
    "observables.accuracy": "a share of counts",
    "theory.sample_distance": "draws by rejection: the derivative is that of the quantile, not of a draw at a fixed key",
    "reduction.is_reducible": "a flag",
    "reduction.check_fits": "raises or does nothing",
    "reduction.require_exact": "raises or does nothing",
    "init.warn_of_lost_digits": "warns or does nothing",
    "CustomProblem": "holds a function alone",
    "Online": "holds a function alone",
    "sequence": "tasks as they are: what goes through them is differentiated in test_tasks",
    "Minibatch": "whole numbers",
    "FullBatch": "holds nothing",
    "stochastic_flow": "either mode has an adjoint of its own: test_diffusion",
    "find_subspaces": "refuses traced weights, tested in test_deep_reduction",
    "fit": "ends at a minimum of the user's: its own derivatives are those of `simulate`",
    "gradient_flow": "either mode has an adjoint of its own: test_derivatives",
    "gradient_descent": "either mode has a loop of its own: test_derivatives",
    "limit": "either mode has an adjoint of its own: test_derivatives",
    "direction": "either mode has an adjoint of its own: test_directions",
    "flow_to_limit": "forward mode alone, as `gradient_flow` is",
    "fit_lambda0": "test_fit_lambda0",
    "lambda0_objective": "test_fit_lambda0",
    "lambda0_path": "test_fit_lambda0",
    "find_gauge": "frames up to signs and rotations; `to_gauge` and `from_gauge` are differentiated in it",
    "reduce": "bases up to rotations, with a check at run time: test_reduction",
}


# Observables of a network and where it began.
CHANGES = (
    "imbalance_drift", "kernel_distance", "input_similarity_distance", "output_similarity_distance", "measure",
)  # fmt: skip


def given(fuzzing):
    """Arguments other than those of the valid calls: in general position, or with a rank that is stated."""
    n, m, draws = fuzzing.n, fuzzing.m, np.random.default_rng(5 + fuzzing.seed)
    wide = ld.TwoLayer(draws.normal(size=(n, n + m + 2)), draws.normal(size=(m, n + m + 2)))
    other = {"start": wide, "model": ld.TwoLayer(wide.U + 1, wide.V[::-1])}
    few = ld.LeastSquares(fuzzing.X[: n - 1], fuzzing.Y[: n - 1])
    bounds = ("convergence_constant", "corollary4", "corollary5", "corollary6", "loss_bound", "growth_bound")
    covariance = {"rank": 3, "Sigma_x": np.diag([3.0, 2.0, 1.0]) + 0.5}
    penalized = {"problem": ld.Penalised(fuzzing.PROBLEM, weight_decay=0.2, imbalance=ld.ImbalancePenalty(0.5))}
    return {
        **{name: {"rank": n} for name in ("LeastSquares", "GeneralLoss", "Huber", "Logistic", "Poisson")},
        "Softmax": {"rank": n, "num_classes": 3},
        "theory.covariance_problem": covariance,
        "theory.reduced_rank_from_covariances": covariance,
        "theory.top_projector": {"A": fuzzing.X, "k": jnp.asarray(1)},
        "init.deep_gaussian": {"std": 0.1},
        "init.deep_isometric": {"gain": 0.7},
        "init.scaling": {"n": 3.0, "h": 10.0, "m": 2.0},
        "init.gaussian_with_imbalance": {"imbalance": 0.0},
        **{f"observables.{name}": other for name in CHANGES},
        **{f"observables.{name}": penalized for name in ("penalty", "total_loss")},
        "observables.frozen_product_norm": {"problem": few},
        "theory.coupling": {"problem": few},
        "theory.invariant_set": {"problem": few},
        "exact.aligned_step": {"t": 0.7},
        "theory.descent_step_limit": {"t": 40.0},
        "theory.least_imbalance": {"sigma": np.array([0.3, 0.2])},
        "theory.least_excess_loss": {"h": 1},
        **{f"theory.{name}": {"model": wide} for name in bounds},
        "theory.coupling_bound": {"model": wide, "problem": few},
    }


# Concrete alone, by their own sentence.
HELD = {
    "init.gaussian_with_imbalance": ("imbalance",),
    "observables.least_margin": ("problem",),
    "Logistic": ("y",),
    "Softmax": ("labels",),
    "Poisson": ("counts",),
}
gram = lambda A: A @ jnp.swapaxes(A, -1, -2)  # noqa: E731
covariances = lambda problem: (problem.X.T @ problem.X, problem.X.T @ problem.Y)  # noqa: E731


def seen(model):
    """What the product and the imbalance determine: not the frame of the larger layer off the product."""
    small, large = sorted((model.U, model.V), key=len)
    return model.product(), gram(small), jnp.sum(large**2)


# What of the answer is determined: factors are so up to a rotation, the residual of an iteration has no derivative.
PART = {
    "exact.homogeneous_factors": gram,
    "exact.symmetric_factors": gram,
    "exact.riccati_factors": gram,
    "init.with_imbalance": seen,
    "theory.tight_start": seen,
    "theory.decoupled_problem": covariances,
    "theory.covariance_problem": covariances,
    "theory.sharpness": lambda found: (found.value, found.deviation),
    "theory.hessian_sharpness": lambda found: found.value,
    "observables.hessian_top": lambda found: found[:3],
    "theory.batch_stable_step": lambda found: found.value,
    "theory.min_nuclear_norm": lambda found: found.value,
}
# By these fields data are told apart: they are no numbers to compute with, and have no derivative.
MARKS = ("inputs_mark", "coordinates")
NOT_LATE = {"theory.perturbation_bound": "grows exponentially, and is infinite"}


class Data(NamedTuple):
    """What a problem is built from."""

    X: Any
    Y: Any
    scale: Any
    output_scale: Any


def is_problem(value):
    return isinstance(value, ld.LeastSquares)


def opened(value):
    if is_problem(value):
        return Data(value.X, value.Y, value.scale, value.output_scale)
    return jnp.asarray(value) if isinstance(value, (float, np.floating, np.ndarray)) else value


def built(data, rank):
    return ld.LeastSquares(data.X, data.Y, scale=data.scale, output_scale=data.output_scale, rank=rank)


def in_numbers(name, function, arguments, given):
    """A function of the real numbers among the arguments, and these."""
    needed = {
        k
        for k, p in inspect.signature(function).parameters.items()
        if p.default is p.empty or k in fuzzing.OWN.get(name, {})
    }
    arguments = arguments | given
    moving = {k: v for k, v in arguments.items() if k in needed | set(given) and k not in HELD.get(name, ())}
    held = {k: v for k, v in arguments.items() if k not in moving}
    ranks = [v.rank for v in jax.tree.leaves(moving, is_leaf=is_problem) if is_problem(v)]
    numbers, rest = eqx.partition(jax.tree.map(opened, moving, is_leaf=is_problem), eqx.is_inexact_array)

    def f(numbers):
        known = iter(ranks)
        close = lambda v: built(v, next(known)) if isinstance(v, Data) else v  # noqa: E731
        closed = jax.tree.map(close, eqx.combine(numbers, rest), is_leaf=lambda v: isinstance(v, Data))
        answer = eqx.filter(PART.get(name, lambda x: x)(function(**closed, **held)), eqx.is_inexact_array)
        is_mark = lambda path: bool(path) and getattr(path[-1], "name", "") in MARKS  # noqa: E731
        return jax.tree_util.tree_map_with_path(lambda path, leaf: None if is_mark(path) else leaf, answer)

    return f, numbers


def both_modes(f):
    """One program: the value, its change along a tangent, and the two pairings of it with random cotangents."""
    dot = lambda a, b: sum((jnp.sum(x * y) for x, y in zip(a, b, strict=True)), jnp.zeros(()))  # noqa: E731

    @jax.jit
    def along(x, dx):
        value, linear = jax.linearize(f, x)
        change = linear(dx)
        leaves, tree = jax.tree.flatten(change)
        draws = np.random.default_rng(3)
        weights = [jnp.asarray(draws.normal(size=leaf.shape), leaf.dtype) for leaf in leaves]
        # Events that never occur have no derivative to be weighed.
        finite = [jnp.isfinite(leaf) for leaf in jax.tree.leaves(value)]
        weights = [jnp.where(there, w, 0) for w, there in zip(weights, finite, strict=True)]
        (pulled,) = jax.linear_transpose(linear, x)(jax.tree.unflatten(tree, weights))
        kept = [jnp.where(there, leaf, 0) for leaf, there in zip(leaves, finite, strict=True)]
        # Columns of zeros stay so: where they move, limits jump.
        pulled = jax.tree.map(lambda leaf, d: jnp.where(d == 0, 0, leaf), pulled, dx)
        back = dot(jax.tree.leaves(pulled), jax.tree.leaves(dx))
        return value, change, back, dot(weights, kept), dot(map(jnp.abs, weights), map(jnp.abs, kept))

    return along


@functools.cache
def calls(setting):
    """Function, arguments and those of them that are others than in the valid calls, by name."""
    module = fuzzing.at(setting)
    others = given(module)
    return {name: (function, arguments, others.get(name, {})) for name, function, arguments in module.calls()}


def is_no_row(name):
    return any(name == no or (no[-1] == "." and name.startswith(no)) for no in NO_ROW)


ROWS = [name for name, _, _ in fuzzing.calls() if not is_no_row(name)]
# The most delicate derivatives: these always run at another setting, where outputs outnumber inputs.
DELICATE = {
    "exact.homogeneous",
    "exact.homogeneous_limit",
    "exact.riccati_rate",
    "theory.sharpness",
    "theory.rate_bound",
}
# Closed forms that are a line on those of another row, which run always: `homogeneous`, its limit, `riccati_rate` and `mode`.
OF_ANOTHER = {
    "exact.decayed", "exact.decayed_limit", "exact.homogeneous_factors", "exact.homogeneous_grams", "exact.homogeneous_product",
    "exact.homogeneous_rates", "exact.riccati", "exact.riccati_factors", "exact.riccati_limit", "exact.neuron", "exact.symmetric",
    "exact.symmetric_factors", "exact.symmetric_limit", "exact.symmetric_rate", "exact.spectral", "exact.deep_mode_time",
}  # fmt: skip
# Statements with a rule of differentiation, a loop or a factorization of their own. JAX composes those of the others.
OF_THEIR_OWN = {
    f"theory.{name}"
    for name in (
        "aligned_layers",
        "batch_stable_step",
        "hessian_sharpness",
        "line_search",
        "min_nuclear_norm",
        "tight_start",
    )
}
# Observables, starts and problems: those that are more than sums and products of what has a row.
MORE = {
    "init.gaussian_core", "init.invariant", "init.with_imbalance", "observables.alignment", "observables.effective_rank",
    "observables.hessian_top", "observables.kernel_distance", "observables.mode_strengths", "observables.nuclear_norm",
    "LeastSquares", "Softmax", "stable_step",
}  # fmt: skip
# Tests of their own hold these derivatives.
HELD_ELSEWHERE = {"exact.deep_mode", "theory.line_search"}


def runs_always(setting, name):
    if name in DELICATE:
        return setting == "more outputs"
    own = name in OF_THEIR_OWN | MORE or (name.startswith("exact.") and name not in OF_ANOTHER)
    return setting == "narrow" and own and name not in HELD_ELSEWHERE


# What has no derivative, or is not defined, at a setting.
NOT_AT = {
    **{
        ("deficient", f"theory.{name}"): "zero as long as the start lacks rank"
        for name in ("lemma7", "lemma8", "lemma11_events", "rate_bound")
    },
    **{
        ("deficient", name): "depends on the frame of singular values that are zero, and so equal"
        for name in ("init.with_imbalance", "theory.tight_start", "theory.adversarial_target")
    },
    ("deficient", "observables.effective_rank"): "one as long as the rank is",
    ("deficient", "theory.growth_bound"): "infinite here, and so is its derivative",
}
CASES = [
    pytest.param(
        setting,
        name,
        id=f"{setting}-{name}",
        marks=() if runs_always(setting, name) else pytest.mark.slow,
    )
    for setting in fuzzing.SETTINGS
    for name in ROWS
    if (setting, name) not in NOT_AT
]


def test_every_public_function_has_a_row_or_a_reason():
    assert len(ROWS) > 150
    names = calls("narrow")
    assert not [no for no in NO_ROW if not any(name == no or name.startswith(no) for name in names)]
    assert set(given(fuzzing)) | set(PART) | set(HELD) | set(NOT_LATE) <= set(ROWS)
    assert {name for _, name in NOT_AT} | DELICATE | OF_THEIR_OWN | OF_ANOTHER | MORE | HELD_ELSEWHERE <= set(ROWS)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("setting", "name"), CASES)
def test_forward_reverse_and_central_difference_agree(setting, name):
    f, x = in_numbers(name, *calls(setting)[name])
    draws, step = np.random.default_rng(17), 1e-6

    def direction(leaf):
        lacks = leaf.ndim == 2 and leaf.size and np.linalg.matrix_rank(leaf) < min(leaf.shape)
        move = draws.normal(size=(len(leaf),) * 2) @ leaf if lacks else draws.normal(size=leaf.shape)
        return jnp.asarray(move, leaf.dtype)

    dx = jax.tree.map(direction, x)
    # The first of the times is zero, and stays so.
    dx |= {key: dx[key] * x[key] for key in ("t", "ts", "t0") if key in x}
    along = both_modes(f)
    for late in (1.0, 1e6):
        if late > 1 and (name in NOT_LATE or not {"t", "ts"} & set(x)):
            continue
        at = {key: leaf * late if key in ("t", "ts") else leaf for key, leaf in x.items()}
        value, change, back, forth, size = along(at, dx)
        # Round-off of late times is that of the exponent; of what does not change it is that of the value.
        still = 3e-16 * sum(
            float(jnp.sum(jnp.abs(leaf))) for leaf in jax.tree.leaves(value) if jnp.all(jnp.isfinite(leaf))
        )
        assert abs(back - forth) <= 3e-15 * max(late, 1e4) * size + 10 * still, late
        above, below = (along(jax.tree.map(lambda a, d, s=s: a + s * step * d, at, dx), dx)[0] for s in (1, -1))
        most = 0.0
        for leaf, d, up, down in zip(*map(jax.tree.leaves, (value, change, above, below)), strict=True):
            leaf, d, up, down = (np.asarray(array)[np.isfinite(leaf)] for array in (leaf, d, up, down))
            scale = np.max(np.abs(d), initial=0)
            most = max(most, scale)
            # Differences have lost the digits of the value itself.
            lost = 1e-15 * np.max(np.abs(leaf), initial=0) / step
            np.testing.assert_allclose(
                d, (up - down) / (2 * step), rtol=0, atol=2e-6 * scale + 4 * lost, err_msg=f"{late}"
            )
        assert 0 < most < np.inf, most
