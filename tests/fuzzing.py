"""Every public function with one small valid call, and everything wrong put into each of its arguments in turn.

Run as a program, without the type checks of the tests: `python tests/fuzzing.py full [NAME ...]` prints what was
accepted or ended in a raw error as lines of JSON, of the functions whose names begin with one of those given; `quick` takes one
value of a wrong kind of each argument, which are refused before anything is compiled, and `solvers` the functions that compile a
program for every answer. The calls are those of the setting "narrow"; `at` makes them at another.
"""

import importlib.util
import inspect
import json
import sys
import time
import types
import warnings
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import quick  # noqa: F401

import lindyn_jax as ld

if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)

FAMILIES = ("", "data", "exact", "init", "observables", "reduction", "studies", "figures", "theory")


class Setting(NamedTuple):
    """What the valid calls are made of: shapes, draws, and the rank of the weights where that is not the full one."""

    n: int
    m: int
    h: int
    seed: int
    rank: int | None = None


SETTINGS = {
    "narrow": Setting(n=4, m=2, h=3, seed=0),
    "more outputs": Setting(n=2, m=4, h=3, seed=1),
    "wide": Setting(n=3, m=4, h=9, seed=2),
    "deficient": Setting(n=4, m=3, h=4, seed=3, rank=1),
}
SETTING = globals().get("SETTING", "narrow")
n, m, h, seed, rank = SETTINGS[SETTING]
RNG = np.random.default_rng(seed)
N = 6
X, Y = RNG.normal(size=(N, n)), RNG.normal(size=(N, m))
U, V = RNG.normal(size=(n, h)), RNG.normal(size=(m, h))
if rank is not None:
    U[:, rank:] = V[:, rank:] = 0
S = RNG.normal(size=(n, n))
S = S + S.T
PROBLEM = ld.LeastSquares(X, Y)
SQUARE = ld.factorization(S)
MODEL = ld.TwoLayer(U, V)
KEY = jax.random.key(0)
CORE = ld.reduce(ld.TwoLayer(np.hstack([U, U, U]), np.hstack([V, -V, V])), PROBLEM)
DEEP = ld.DeepLinear((RNG.normal(size=(n, 9)), RNG.normal(size=(9, 9)), RNG.normal(size=(9, m))))
GAUGE = ld.find_gauge(MODEL, ld.factorization(RNG.normal(size=(n, m))))
LAW = ld.theory.conditional_distance(PROBLEM, V, 10, 0.5)
DATASET = ld.data.gaussian(n=3, samples=5, seed=1)
# A generic orthogonal turn of the inputs and targets at once keeps the modes of these apart.
DECOUPLED = ld.LeastSquares(np.diag([3.0, 2.0]), np.diag([2.0, 1.0]))

FACTORS = ld.factorization(U @ V.T + 1)
MEASURED = ld.MatrixSensing(np.random.default_rng(7 + seed).normal(size=(5, n, m)), np.arange(1.0, 6))
STARTS = {"a": ld.init.Gaussian(4, alpha=0.5)}


def _trial(key, width):
    return {"draw": width * jax.random.normal(key)}


# Valid values by the name of the parameter, where all functions can share them.
COMMON = {
    "problem": PROBLEM, "model": MODEL, "start": MODEL, "X": X, "Y": Y, "U": U, "V": V, "Theta": U @ V.T,
    "ts": np.array([0.0, 0.5, 1.0]), "t": 0.5, "sigma": np.array([2.0, 1.0]), "lam": np.array([1.5, 0.5]),
    "d": 2.0, "h": 10, "alpha": 0.4, "delta": 0.1, "eta": 0.05, "u0": np.array([0.5, 0.3]), "v0": np.array([0.2, 0.4]),
    "x0": 0.3, "s0": 0.1, "s": 0.5, "depth": 3, "lambda0": 0.5, "U0": U, "V0": V, "k": 1, "key": KEY, "w": 0.1, "w0": 0.1,
    "steps": 3, "std": 0.1, "widths": (9, 9), "n": n, "m": m, "r": 2, "epsilon": 0.1,
    "Sigma_x": np.eye(3) + 0.5,
    "Sigma_xy": np.ones((3, 2)) + np.eye(3, 2), "observables": ("loss",), "Theta0": U @ V.T,
    "E": np.ones((n, m)),
    "name": "m22-1", "positive": np.arange(1.0, n + 1)[::-1], "negative": np.arange(1.0, m + 1)[::-1],
    "learned": np.arange(min(n, m)) == 0, "size": 2,
    "sizes": (3, 4, 2), "optimizer": optax.sgd(0.01), "dataset": DATASET, "gauge": GAUGE, "law": LAW, "safety": 0.5,
    "t0": 0.0, "curvature": 1.0, "u": 1.0, "v": 0.5, "y": 1.0, "A": np.ones((3, 3)) + np.eye(3), "g": 1.0,
    "sigma_i": 2.0, "lam_i": 1.0, "sigma_j": 1.0, "lam_j": 0.5, "x": 0.1, "step_size": 0.01, "std_U": 0.1,
}  # fmt: skip
if seed:
    # Other numbers in the same order.
    COMMON |= {
        name: value * RNG.uniform(0.9, 1.1, np.shape(value))
        for name, value in COMMON.items()
        if isinstance(value, float) or (isinstance(value, np.ndarray) and value.ndim < 2 and value.dtype == float)
    }
SYMMETRIC = {"Y": S}
RICCATI = {"A": S}
HOMOGENEOUS = {"Y": U @ V.T + 1}
# Those that compile a program for every answer.
SOLVERS = (
    "direction", "fit", "fit_lambda0", "flow_to_limit", "gradient_descent", "gradient_flow", "lambda0_objective", "lambda0_path",
    "limit", "run_ensemble", "stochastic_flow", "studies.audit", "studies.simulate",
)  # fmt: skip
# What looks wrong and is right: X = I, a link of the user's, parameters of any kind that the user's own functions take.
RIGHT = {
    ("init.warn_of_lost_digits", "dtype", "None"), ("studies.simulate", "start", "a model"),
    ("studies.simulate", "step_size", "a whole number"), ("studies.simulate", "record", "dict"),
    ("run_ensemble", "store", "text"), ("run_ensemble", "progress", "a function"),
    ("reduction.require_exact", "moved", "a model"),
    *(("run_ensemble", name, "dict") for name in ("dims", "attributes", "settings", "reductions")),
    *((name, "X", "None") for name in ("LeastSquares", "GeneralLoss", "Huber", "Logistic", "Poisson", "Softmax")),
    ("fit", "parameters", "a model"), ("LeastSquares", "link", "a function"),
    ("observables.observable", "kinds", "a function"),
    ("fit", "parameters", "a problem"), ("from_gauge", "what", "a problem"), ("to_gauge", "what", "a problem"),
    ("fit", "simulate", "a function"), ("fit", "loss", "a function"), ("open_sweep", "path", "bytes"),
    ("Descent", "step_size", "a function"),
}  # fmt: skip
# Those whose flags depend on kinds and sizes alone, such as which solver was used.
SIZES_ALONE = ("flow_to_limit", "reduction.is_reducible")
# What differs from the common values, by function.
OWN = {
    "LeastSquares": {"scale": 1.0, "output_scale": 1.0, "link": None, "rank": None, "rank_rtol": None},
    "ImbalancePenalty": {"Lambda": 0.5}, "Penalised": {"weight_decay": 0.1, "imbalance": ld.ImbalancePenalty(0.5)},
    "CustomProblem": {"loss": lambda Theta: jnp.sum(Theta**2), "num_inputs": n, "num_outputs": m},
    "GeneralLoss": {"fn": lambda output, target: jnp.sum((output - target) ** 2)},
    "Logistic": {"y": np.array([0.0, 1, 0, 1, 1, 0])}, "Softmax": {"labels": np.array([0.0, 1, 2, 1, 1, 0])},
    "Poisson": {"counts": np.arange(float(N * m)).reshape(N, m)}, "MatrixCompletion": {"mask": np.ones((N, m))},
    "MatrixSensing": {"A": np.arange(30.0).reshape(5, 3, 2), "y": np.arange(5.0)},
    "DeepLinear": {"layers": (np.ones((3, 2)), np.ones((2, 2)))},
    "Reduction": {"core": MODEL, "width": 10, "num_frozen": 0},
    "WideLimit": {"level": 0.1},
    **{name: {"u": np.linspace(0.5, 1, n), "v": np.linspace(0.3, -0.1, n)} for name in ("Diagonal", "DiagonalDifference")},
    "exact.diagonal_limit": {"u0": np.full((n, m), 0.7), "v0": 0.1 * Y[:n]},
    "theory.deterministic_equivalent": {"eigenvalues": np.linspace(-1.0, 2.5, n), "variance": 0.5},
    "theory.regression_errors": {"ratio": 0.6, "signal": 1.0, "start": 0.2, "noise": 0.3},
    "data.hierarchy": {"depth": 2, "branching": 2}, "data.teacher": {"n": 4, "m": 3},
    "data.power_law": {"n": 4, "exponent": 1.0}, "data.spiked": {"n": 4, "spikes": (2.0, 1.0)},
    "sequence": {"tasks": ((FACTORS, 1.0), (FACTORS, 0.5))},
    "Minibatch": {"size": 2}, "Online": {"sampler": lambda key: (X, Y)},
    "stochastic_flow": {"noise": ld.Minibatch(2), "step_size": 0.1},
    "SweepStore": {"path": "store"},
    "direction": {"problem": ld.Logistic(X, X @ (U @ V.T) > 0), "max_steps": 64, "log_time": 3.0},
    "fit": {"parameters": jnp.ones(2), "simulate": lambda x: x, "loss": lambda x: jnp.sum(x**2), "steps": 3},
    "fit_lambda0": {"problem": FACTORS, "nodes": 8, "grid": 8},
    "flow_to_limit": {"max_steps": 64},
    "from_gauge": {"what": ld.TwoLayer(U[:, : n + m], V[:, : n + m])}, "to_gauge": {"what": MODEL},
    "limit": {"max_steps": 64},
    "lift": {"reduced": CORE},
    "data.load": {"spec": "gaussian", "targets": None, "samples": 20}, "data.load_matrix": {"spec": "iris", "samples": 20},
    "data.gaussian": {"n": 3, "samples": 5},
    "data.low_rank": {"n": 6, "samples": 5},
    "exact.symmetric_mode": {"sigma": 1.0}, "exact.polar_time": {"share": 0.5},
    **{f"exact.decayed{name}": {"Y": U @ V.T + 1, "weight_decay": 0.3} for name in ("", "_limit")},
    "Momentum": {"network": MODEL, "speed": MODEL}, "Polar": {"network": MODEL, "smoothing": 0.1},
    "polar_descent": {"momentum": 0.5},
    "exact.linear_descent": {"steps": np.array([0, 3])},
    **{f"exact.{name}": SYMMETRIC for name in (
        "symmetric", "symmetric_converges", "symmetric_entry_rates", "symmetric_factors", "symmetric_limit", "symmetric_rate"
    )},
    **{f"exact.riccati{name}": RICCATI for name in ("", "_factors", "_limit", "_rate")},
    "exact.riccati_general": {**dict.fromkeys(("A", "R", "Q", "P0"), np.eye(3)), "ts": np.array([0.0, 1.0])},
    **{f"exact.homogeneous{name}": HOMOGENEOUS for name in ("", "_factors", "_grams", "_limit", "_product", "_rates")},
    "init.gaussian": {"std": 0.1}, "init.gaussian_core": {"std": 0.1}, "init.invariant": {"std": 0.1},
    "LoRA": {"base": U @ V.T + 1, "U": U, "V": V}, "Branched": {"branches": (MODEL, MODEL)},
    "gated_inputs": {"gates": X[:, :2]}, "residual": {"base": U @ V.T + 1}, "data.in_context": {"samples": 20},
    "theory.in_context_covariances": {"covariance": np.eye(2) + 0.3, "length": 4},
    "exact.neuron": {"target": U[:, 0], "w0": U[:, 0] + V[0, 0], "a0": 0.4},
    "exact.spectral_product": {"h": 3}, "exact.spectral_product_limit": {"h": 3},
    "init.spectral": {"h": 3}, "init.aligned": {"d": np.array([2.0, 3.0]), "h": 4}, "init.deep_aligned": {"d": np.array([2.0])},
    "init.deep_core": {"model": ld.DeepLinear((np.ones((3, 2)), np.ones((2, 2)))), "widths": (4,)},
    "init.deep_orthogonal": {"sizes": (3, 4, 4, 2)}, "init.scaling": {"name": "mup"},
    "init.gaussian_with_imbalance": {"d": 3, "imbalance": 1.0},
    "init.warn_of_lost_digits": {"dtype": np.float64},
    "observables.measure": {"observables": {"drift": ld.observables.imbalance_drift}, "to_user": lambda model: model},
    "reduction.prepare": {"reduce": True},
    "reduction.require_exact": {"moved": None},
    "reduce": {"model": ld.TwoLayer(np.hstack([U, U, U]), np.hstack([V, -V, V]))},
    "theory.jump_steps": {"sigma": np.array([2.0, 1.0])},
    "theory.aligned_layers": {"problem": DECOUPLED, "model": ld.init.aligned(DECOUPLED, np.array([2.0, 2.0]), 2)},
    "theory.stationary_product": {"learned": COMMON["learned"]},
    "theory.lemma_e2": {"A": np.eye(2, 3) + 1, "B": np.eye(3, 2) + 1},
    **{f"theory.{name}": {"problem": MEASURED} for name in (
        "min_nuclear_norm", "commuting_measurements", "small_start_bound"
    )},
    "theory.max_margin": {"problem": ld.Logistic(X, X @ np.arange(1.0, n + 1) > 0)},
    "theory.tight_start": {"h": 8}, "theory.tight_pairing": {"sigma": 0.5 ** np.arange(min(n, m))},
    "find_gauge": {"problem": ld.factorization(np.ones((n, m)) + np.eye(n, m))},
    "find_subspaces": {"model": DEEP},
    "lambda0_objective": {"problem": FACTORS}, "lambda0_path": {"problem": FACTORS},
    "run_ensemble": {"trial": _trial, "grid": {"width": [1.0, 2.0]}, "trials": 2},
    "open_figure": {"path": "absent"}, "open_reductions": {"path": "absent"}, "open_sweep": {"path": "absent"},
    "data.read_idx": {"path": "absent"},
    "exact.aligned_jump_time": {"sigma": 2.0},
    "observables.on": {"name": "loss"},
    **{f"observables.{name}": {"problem": ld.Softmax(X, np.arange(N) % m)} for name in ("accuracy", "least_margin")},
    "observables.observable": {"symbol": "$x$", "label": "x", "panel": "x"},
    "studies.audit": {"starts": STARTS, "trials": 1, "points": 3, "horizon": 0.1},
    "studies.simulate": {"start": STARTS["a"], "points": 3, "horizon": 0.1},
    "theory.tied_autoencoder": {"problem": ld.LeastSquares(X, X), "model": ld.SymmetricFactors(U)},
}  # fmt: skip


def is_checked(value):
    return hasattr(value.__init__ if inspect.isclass(value) else value, "is_checked")


def public():
    """Public functions and constructors by their names below the package."""
    found = {}
    for family in FAMILIES:
        module = ld
        for part in family.split(".") if family else ():
            module = getattr(module, part)
        names = getattr(module, "__all__", None)
        for name in names or [name for name in vars(module) if not name.startswith("_")]:
            value = getattr(module, name)
            if isinstance(value, types.ModuleType) or not callable(value):
                continue
            if names is None and getattr(value, "__module__", None) != module.__name__:
                continue
            if family == "figures" and name not in ("names", "describe"):
                continue
            # Abstract classes are asked through those made of them.
            if inspect.isclass(value) and (not is_checked(value) or inspect.isabstract(value)):
                continue
            if any(value is other for other in found.values()):
                continue
            found[f"{family}.{name}".lstrip(".")] = value
    return found


def at(setting):
    """This module at another of the `SETTINGS`."""
    spec = importlib.util.spec_from_file_location(f"fuzzing at {setting}", __file__)
    module = importlib.util.module_from_spec(spec)
    module.SETTING = setting
    spec.loader.exec_module(module)
    return module


# What takes a while to make, by the names of a function and a parameter.
MADE = {
    ("lambda0_objective", "fit"): lambda: ld.fit_lambda0(FACTORS, U, V, nodes=8, grid=8),
    ("lambda0_path", "fit"): lambda: ld.fit_lambda0(FACTORS, U, V, nodes=8, grid=8),
    ("masked", "dataset"): lambda: ld.run_ensemble(_trial, {"width": [1.0]}, 2, key=KEY),
}


def shaped(make):
    """Ones in the shapes of what a call gives, which is traced and not run."""
    is_shape = lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct)  # noqa: E731
    return jax.tree.map(
        lambda leaf: jnp.ones(leaf.shape, leaf.dtype) if is_shape(leaf) else leaf, eqx.filter_eval_shape(make)
    )


def calls():
    """Name, function and the arguments of its valid call."""
    for name, function in public().items():
        own, arguments = OWN.get(name, {}), {}
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                continue
            if (name, parameter.name) in MADE:
                arguments[parameter.name] = MADE[name, parameter.name]
            elif parameter.name in own:
                arguments[parameter.name] = own[parameter.name]
            elif parameter.default is not parameter.empty:
                arguments[parameter.name] = parameter.default
            else:
                arguments[parameter.name] = COMMON[parameter.name]
        yield name, function, arguments


OTHER = ld.LeastSquares(RNG.normal(size=(5, 3)), RNG.normal(size=(5, 1)))
WRONG_KINDS = {
    "None": None, "text": "text", "dict": {}, "object": object(), "complex": np.array([1j]), "strings": ["a", "b"], "set": {1},
    "a model": MODEL, "a problem": PROBLEM, "a function": abs, "a whole number": 7, "bytes": b"a",
}  # fmt: skip


def is_number(value):
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def broken(value, entry):
    """The value with its first number replaced, or `None` where it has none."""
    if is_number(value):
        return entry
    if isinstance(value, (np.ndarray, jax.Array)) and jnp.issubdtype(value.dtype, np.number):
        array = np.array(value, float)
        array.flat[0] = entry
        return array
    if isinstance(value, eqx.Module) and not isinstance(value, ld.LeastSquares):
        leaves, tree = jax.tree.flatten(value)
        leaves = [
            leaf.ravel().at[0].set(entry).reshape(leaf.shape) if eqx.is_inexact_array(leaf) and leaf.size else leaf
            for leaf in leaves
        ]
        return jax.tree.unflatten(tree, leaves)
    if isinstance(value, tuple) and type(value) is tuple and value and is_number(value[0]):
        return (entry, *value[1:])
    return None


def misshapen(value):
    """Values of the same kind and another shape."""
    if is_number(value):
        return [np.array([value, value]), np.zeros((0,))]
    if isinstance(value, (np.ndarray, jax.Array)) and value.ndim:
        value = np.asarray(value)
        return [
            value[None],
            np.repeat(value, 2, axis=-1),
            value[..., :-1],
            np.zeros((0,) * value.ndim),
            value.ravel()[0],
        ]
    if isinstance(value, ld.LeastSquares):
        return [OTHER]
    if isinstance(value, ld.AbstractModel):
        return [
            ld.TwoLayer(np.ones((3, 2)), np.ones((1, 2))),
            ld.LinearModel(np.ones((3, 1))),
            DEEP,
            ld.SymmetricFactors(U),
        ]
    return []


def substitutions(parameter, value, optional):
    """Label, group and value of everything wrong that is put in the place of one argument."""
    for entry in (np.nan, np.inf, -np.inf):
        # A number may be left out as well.
        wrong = entry if value is None else broken(value, entry)
        if wrong is not None:
            yield str(entry), "numbers", wrong
    for i, wrong in enumerate(misshapen(value)):
        yield f"shape {i}", "shapes", wrong
    for label, wrong in WRONG_KINDS.items():
        number = is_number(value) or (eqx.is_array(value) and jnp.issubdtype(value.dtype, np.number))
        right = {
            "None": optional, "text": isinstance(value, str), "a model": isinstance(value, ld.AbstractModel),
            "a problem": isinstance(value, ld.LeastSquares), "a function": callable(value),
            "a whole number": number or (value is None and parameter != "key"),
            "dict": isinstance(value, dict) or parameter == "observables", "strings": isinstance(value, tuple),
        }  # fmt: skip
        if right.get(label, False):
            continue
        yield label, "kinds", wrong


def outcome(name, function, arguments, label, group):
    """What is wrong with the answer to wrong arguments; `None` where it is refused in a sentence, or says nothing wrong."""
    try:
        result = function(**arguments)
    except (ValueError, TypeError, OSError) as error:
        text = str(error)
        return (
            None
            if any(word in text for word in ("`", "model", "problem", "network", "gauge"))
            else f"{type(error).__name__}: {text[:200]}"
        )
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    if group == "kinds":
        return f"accepted: {str(result)[:80]}"
    if group == "numbers" and label == "nan" and name not in SIZES_ALONE:
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(result) if eqx.is_array_like(leaf)]
        if any(leaf.dtype == bool and leaf.any() for leaf in leaves):
            return f"a verdict: {str(result)[:200]}"
        numbers = [leaf for leaf in leaves if leaf.dtype.kind == "f"]
        if numbers and all(np.isfinite(leaf).all() for leaf in numbers):
            return f"finite: {str(result)[:200]}"
    return None


def main():
    warnings.simplefilter("ignore")
    which, *names = sys.argv[1:]
    for name, function, arguments in calls():
        if (which == "solvers") != (name in SOLVERS) or (names and not name.startswith(tuple(names))):
            continue
        arguments |= {given: MADE[name, given]() for given in arguments if (name, given) in MADE}
        begun = time.perf_counter()
        try:
            if which != "quick":
                function(**arguments)
        except (FileNotFoundError, ld.data.DataError):
            pass
        except Exception as error:
            print(json.dumps([name, "", "valid", f"{type(error).__name__}: {str(error)[:200]}"]), flush=True)
            continue
        for parameter, value in arguments.items():
            optional = inspect.signature(function).parameters[parameter].default is None or value is None
            wrongs = list(substitutions(parameter, value, optional))
            if which == "quick":
                # In turn, so that each wrong kind meets many functions.
                wrongs = [wrong for wrong in wrongs if wrong[1] == "kinds"]
                wrongs = [wrongs[sum(map(ord, name + parameter)) % len(wrongs)]]
            for label, group, wrong in wrongs:
                if (name, parameter, label) in RIGHT:
                    continue
                found = outcome(name, function, {**arguments, parameter: wrong}, label, group)
                if found is not None:
                    print(json.dumps([name, parameter, label, found]), flush=True)
        print(f"{time.perf_counter() - begun:.1f} s {name}", file=sys.stderr)


if __name__ == "__main__":
    main()
