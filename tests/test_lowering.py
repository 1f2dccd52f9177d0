"""What every public function compiles to, for a CPU and a GPU at once: no call back into Python, and the precision asked for.

Programs are traced and lowered, which needs no GPU, and never compiled. All are asked for single precision, with 64-bit mode on.
"""

import equinox as eqx
import fuzzing
import jax
import jax.numpy as jnp
import numpy as np
import pytest

# What has no program of its own: it reads, draws or looks at numbers that must be known, or runs the programs of others.
NO_PROGRAM = (
    "data.", "figures.", "studies.", "open_", "run_ensemble", "masked", "SweepStore", "observables.attributes",
    "observables.observable", "observables.resolve", "observables.on", "find_subspaces", "init.warn_of_lost_digits",
    "reduction.require_exact", "reduction.check_fits", "reduction.is_reducible",
)  # fmt: skip
# What must be said of data that are traced.
SAID = {
    **{name: {"rank": fuzzing.n} for name in ("LeastSquares", "GeneralLoss", "Huber", "Logistic", "Poisson")},
    "Softmax": {"rank": fuzzing.n, "num_classes": 3},
    "theory.covariance_problem": {"rank": 3},
    "theory.reduced_rank_from_covariances": {"rank": 3},
    "theory.top_projector": {"k": jnp.asarray(1)},
}
# Drawn in the precision of `std`, or counted in whole numbers, whatever the data are in.
DOUBLE = ("init.gaussian_core", "exact.linear_descent")
# Closed forms and fits promote nothing.
STRICT = ("exact.", "fit_lambda0", "lambda0")
FAMILIES = ("solvers and problems", "exact", "init", "observables", "reduction", "theory")
LIBRARY = {"eigh", "svd", "geqrf", "qr", "householder_product", "lu", "cholesky", "triangular_solve", "eig", "schur"}
# Of a Riccati solution: at each time, and where rows are chosen anew.
RICCATI = {"cholesky", "lu", "qr", "triangular_solve"}
IMPLICIT = {"eigh", "lu", "triangular_solve", "cholesky"}
# Decompositions in loops, of which a GPU makes one small call after the other: all there are.
IN_LOOPS = {
    "gradient_flow": IMPLICIT,
    "flow_to_limit": IMPLICIT,
    "limit": IMPLICIT,
    "fit_lambda0": RICCATI | {"eigh", "svd"},
    **dict.fromkeys(("lambda0_objective", "lambda0_path"), RICCATI),
    "exact.diagonal_limit": {"qr", "triangular_solve"},
    **{f"exact.{name}": RICCATI for name in ("decayed", "neuron")},
    **{f"exact.homogeneous{name}": RICCATI for name in ("", "_factors", "_grams", "_product")},
    **{f"exact.{name}{part}": RICCATI for name in ("riccati", "symmetric") for part in ("", "_factors")},
    # Where the rank of the start is to be decided.
    **{
        f"exact.{name}": {"qr"}
        for name in (
            "decayed_limit",
            "homogeneous_limit",
            "homogeneous_rates",
            "riccati_limit",
            "riccati_rate",
            "symmetric_converges",
            "symmetric_entry_rates",
            "symmetric_limit",
            "symmetric_rate",
        )
    },
    "exact.riccati_general": {"lu", "triangular_solve"},
    "theory.batch_stable_step": {"eigh"},
    "theory.hessian_sharpness": {"eigh"},
    "theory.max_margin": {"cholesky", "triangular_solve"},
    "theory.min_nuclear_norm": {"eigh", "svd"},
    "theory.small_start_bound": {"eigh", "svd"},
}
# No wider than what moves: r + m coordinates, of which closed forms choose with as many rows besides, and r m impulses.
WIDEST = max(2 * (fuzzing.n + fuzzing.m), fuzzing.n * fuzzing.m)


def programs(family):
    """Name, function and arguments of the public functions of a family that have a program."""
    for name, function, arguments in fuzzing.calls():
        where = name.partition(".")[0] if "." in name else FAMILIES[0]
        if where == family and not name.startswith(NO_PROGRAM):
            made = {
                given: fuzzing.shaped(fuzzing.MADE[name, given]) for given in arguments if (name, given) in fuzzing.MADE
            }
            yield name, function, arguments | made | SAID.get(name, {})


def traced(function, arguments, promotion):
    """A function of all real numbers among its arguments, traced in single precision, and whether there are any."""

    def asked(leaf):
        real = isinstance(leaf, (np.ndarray, jax.Array)) and jnp.issubdtype(leaf.dtype, jnp.floating)
        return jnp.asarray(leaf, jnp.float32) if real else leaf

    numbers, rest = eqx.partition(jax.tree.map(asked, arguments), eqx.is_inexact_array)
    call = jax.jit(lambda numbers: eqx.filter(function(**eqx.combine(numbers, rest)), eqx.is_array))
    with jax.numpy_dtype_promotion(promotion):
        return call.trace(numbers), bool(jax.tree.leaves(numbers))


def inner(eqn):
    """The programs inside of an operation."""
    for part in jax.tree.leaves(eqn.params, is_leaf=lambda part: hasattr(part, "eqns")):
        part = getattr(part, "jaxpr", part)
        if hasattr(part, "eqns"):
            yield part


def in_double(jaxpr):
    """Operations whose arrays are in double precision; numbers of Python's own become what they are used with."""
    for eqn in jaxpr.eqns:
        results = [var.aval for var in eqn.outvars if getattr(var.aval, "dtype", None) == jnp.float64]
        if any(result.shape and not result.weak_type for result in results):
            yield eqn.primitive.name
        for part in inner(eqn):
            yield from in_double(part)


def in_loops(jaxpr, inside=False):
    """Names and shapes of the decompositions in the loops of a program."""
    for eqn in jaxpr.eqns:
        if inside and eqn.primitive.name in LIBRARY:
            yield eqn.primitive.name, eqn.invars[0].aval.shape
        for part in inner(eqn):
            yield from in_loops(part, inside or eqn.primitive.name in ("while", "scan"))


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=pytest.mark.slow if name == "theory" else ()) for name in FAMILIES]
)
def test_programs_call_nothing_back_keep_their_precision_and_decompose_little_in_loops(family):
    wrong, seen = {}, set()
    for name, function, arguments in programs(family):
        program, asked = traced(function, arguments, "strict" if name.startswith(STRICT) else "standard")
        text = program.lower(lowering_platforms=("cpu", "cuda")).as_text()
        found = set(in_loops(program.jaxpr.jaxpr))
        seen |= {name} if found else set()
        too_wide = [shape for _, shape in found if max(shape[-2:]) > WIDEST]
        faults = {
            "callback": "callback" in text,
            "float64": asked and name not in DOUBLE and list(in_double(program.jaxpr.jaxpr)),
            "in loops": {kind for kind, _ in found} - IN_LOOPS.get(name, set()),
            "too wide": too_wide,
        }
        if any(faults.values()):
            wrong[name] = {word: fault for word, fault in faults.items() if fault}
    assert not wrong
    known = {name for name in IN_LOOPS if (name.partition(".")[0] if "." in name else FAMILIES[0]) == family}
    assert seen == known, "the table has names that are not there"


def test_a_call_back_and_a_loop_would_be_seen():
    def calls_back(x):
        return eqx.error_if(x, x > 0, "positive")

    def loops(x):
        return jax.lax.fori_loop(0, 3, lambda i, A: jnp.linalg.svd(A)[0], x)

    assert "callback" in jax.jit(calls_back).trace(jnp.float32(1)).lower(lowering_platforms=("cpu",)).as_text()
    assert set(in_loops(jax.jit(loops).trace(jnp.ones((3, 3))).jaxpr.jaxpr)) == {("svd", (3, 3))}
