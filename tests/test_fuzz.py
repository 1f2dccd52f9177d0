"""Wrong arguments end in one sentence that names them, and what is not a number in no verdict."""

import inspect
import json
import pickle
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import fuzzing
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lindyn_jax as ld


def fuzzed(folder, *arguments):
    """What the fuzzing program prints: it runs without the type checks that the tests turn on."""
    program = Path(fuzzing.__file__)
    ended = subprocess.run(
        [sys.executable, str(program), *arguments], capture_output=True, text=True, cwd=folder, timeout=1800
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return [json.loads(line) for line in ended.stdout.splitlines()]


def test_wrong_arguments_are_refused_in_a_sentence(tmp_path):
    assert fuzzed(tmp_path, "quick") == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("which", ["full", "solvers"])
def test_everything_wrong_in_every_argument_is_refused_in_a_sentence(tmp_path, which):
    assert fuzzed(tmp_path, which) == []


def test_every_public_function_has_a_valid_call():
    names = [name for name, _, _ in fuzzing.calls()]
    assert len(names) > 180 and set(fuzzing.SOLVERS) <= set(names)
    assert set(fuzzing.OWN) | {name for name, _ in fuzzing.MADE} <= set(names)
    unchecked = [name for name, function, _ in fuzzing.calls() if not fuzzing.is_checked(function)]
    assert not unchecked, "put `@public` on them"


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_closed_forms_and_fits_keep_strict_promotion_and_the_precision_they_are_given(dtype):
    is_number = lambda leaf: getattr(leaf, "dtype", None) in (np.float64, np.float32)  # noqa: E731
    change = lambda leaf: jnp.asarray(leaf, dtype) if is_number(leaf) else leaf  # noqa: E731
    for name, function, arguments in fuzzing.calls():
        if not name.startswith(("exact.", "fit_lambda0", "lambda0")):
            continue
        made = [given for given in arguments if (name, given) in fuzzing.MADE]
        traced, rest = eqx.partition(jax.tree.map(change, arguments), is_number)

        def call(traced, name=name, function=function, rest=rest, made=made):
            return function(
                **eqx.combine(traced, rest)
                | {given: jax.tree.map(change, fuzzing.shaped(fuzzing.MADE[name, given])) for given in made}
            )

        with jax.numpy_dtype_promotion("strict"):
            out = jax.eval_shape(call, traced)
        numbers = [leaf.dtype for leaf in jax.tree.leaves(out) if leaf.dtype.kind == "f"]
        assert not jax.tree.leaves(traced) or all(given == dtype for given in numbers), name


def test_a_key_is_asked_for_by_name():
    for wrong in (0, None, "a", np.zeros(3, np.uint32), np.zeros(2)):
        with pytest.raises(
            ValueError, match=r"Argument `key` must be a PRNG key, such as `jax\.random\.key\(0\)`, but is"
        ):
            ld.init.gaussian(3, 2, 4, std=0.1, key=wrong)


def test_a_drawn_core_is_not_measured_on_data_of_another_rank():
    problem = ld.LeastSquares(np.random.default_rng(0).normal(size=(5, 4)), np.ones((5, 2)))
    other = ld.LeastSquares(np.random.default_rng(1).normal(size=(3, 4)), np.ones((3, 2)))
    core = ld.init.gaussian_core(problem, 10, std=0.1, key=jax.random.key(0))
    for observable in (ld.observables.loss, ld.observables.singular_values, ld.observables.alignment):
        with pytest.raises(
            ValueError, match=r"\(3, 2\), but is \(4, 2\); a reduced model has the coordinates of the data"
        ):
            observable(core, other)


def test_checks_say_what_was_asked_and_what_was_given():
    problem, model = fuzzing.PROBLEM, fuzzing.MODEL
    for match, call in {
        "Argument `problem` must be a problem such as LeastSquares, but is a list": lambda: ld.observables.loss(
            model, [1]
        ),
        "Argument `model` must be a model of this package, but is a LeastSq": lambda: ld.observables.loss(
            problem, problem
        ),
        "Argument `reduce` must be True or False, but is 'no'": lambda: ld.gradient_flow(
            model, problem, [1.0], reduce="no"
        ),
        "Argument `k` must be a whole number, but is nan": lambda: ld.exact.plateau([2.0, 1.0], [1.0, 1.0], np.nan),
        "Argument `constant` must be one of 'paper', .*, but is 3": lambda: ld.theory.lemma11(
            problem, 9, 0.5, 0.1, constant=3
        ),
    }.items():
        with pytest.raises(ValueError, match=match):
            call()


def test_checked_functions_are_themselves_to_pickle_signature_and_transformations():
    mode = ld.exact.mode
    assert pickle.loads(pickle.dumps(mode)) is mode
    assert list(inspect.signature(mode).parameters) == ["sigma", "u0", "v0", "t"]
    times = np.linspace(0, 1, 3)
    at_once = jax.jit(jax.vmap(lambda t: mode(1.0, 0.5, 0.2, t).x))(times)
    assert np.array_equal(at_once, [mode(1.0, 0.5, 0.2, t).x for t in times])
