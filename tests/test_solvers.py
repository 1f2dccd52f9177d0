"""The structured implicit solver against explicit integrations, closed properties, finite differences and its own limits.

Every test here runs compiled loops with linear algebra inside: the suite's own timeout ends one that hangs, and the batched
one runs in a process of its own.
"""

import inspect
import subprocess
import sys

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import integrated, relative_error, tolerance

import lindyn_jax as ld
from lindyn_jax import flow, solvers, trajectory
from lindyn_jax._stop import as_stop
from lindyn_jax.methods import METHODS
from lindyn_jax.solvers import stages

n, r, m = 7, 5, 3
unchecked = inspect.unwrap(ld.gradient_flow)


def stiff_problem(condition, seed=0, rank=r, outputs=m):
    """Data whose X^T X has this condition number, with targets of unit size in every direction."""
    rng = np.random.default_rng(seed)
    W, _ = np.linalg.qr(rng.normal(size=(rank, rank)))
    Phi1, _ = np.linalg.qr(rng.normal(size=(n, rank)))
    X = W * np.logspace(0, -np.log10(condition) / 2, rank) @ Phi1.T
    return ld.LeastSquares(X, X @ rng.normal(size=(n, outputs)) / 2, rank=rank)


def core(problem, width, std, seed=0):
    return ld.init.gaussian_core(problem, width, std=std, key=jax.random.key(seed))


# -- the step ------------------------------------------------------------------------------------------------------------


def chosen(model, problem, ts, stop, reduce=True):
    return flow._choose("auto", jnp.float64, model, problem, ts, as_stop(stop, None, None, problem), reduce)


def names(methods):
    known = {id(method): name for name, method in METHODS.items()}
    return [known[id(method)] for method in methods]


def test_path_agrees_with_an_explicit_integration(rng):
    X, Y = rng.normal(size=(8, n)), rng.normal(size=(8, m))
    problem = ld.LeastSquares(X, Y, scale="mean", output_scale=0.7)
    start = ld.TwoLayer(rng.normal(size=(n, 14)) / 3, rng.normal(size=(m, 14)) / 3)
    ts = np.array([0.0, *np.logspace(-2, 1.7, 11)])
    explicit = integrated(lambda Theta: 0.7 / 8 * X.T @ (0.7 * X @ Theta - Y), start.U, start.V, ts)
    implicit = ld.gradient_flow(start, problem, ts, solver="radau", rtol=1e-12, keep_models=True)
    assert bool(implicit.ok) and bool(implicit.stats["implicit"])
    assert relative_error(implicit.models.U[0], start.U) < tolerance("float64")
    for layers, expected in zip((implicit.models.U, implicit.models.V), explicit, strict=True):
        for t in range(len(ts)):
            assert relative_error(layers[t], expected[t]) < 1e-8
    losses = [np.sum((0.7 * X @ U @ V.T - Y) ** 2) / 16 for U, V in zip(*explicit, strict=True)]
    assert relative_error(implicit.observables["loss"], losses) < 1e-8


def test_the_method_has_order_five():
    problem = stiff_problem(2.0)
    start = core(problem, 20.0, 0.5)
    moving, fixed = eqx.partition(start, start.moving())

    @jax.jit
    def end(step):
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: y),  # the solver knows the flow by itself
            solvers.ImpulseRadau(jnp.asarray(1e-11)),
            0.0,
            1.0,
            step,
            moving,
            args=(problem, fixed),
            stepsize_controller=diffrax.ConstantStepSize(),
            max_steps=200,
        )
        return solution.ys.U1[-1], solution.ys.V[-1]

    exact = integrated(jax.jit(lambda Theta: problem.reduced_loss_gradient(Theta)), start.U1, start.V, [1.0], 1e-13)
    steps = np.array([32, 64, 128])
    errors = [relative_error(np.concatenate(end(1 / k)), np.concatenate([layer[0] for layer in exact])) for k in steps]
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    print("errors", errors, "orders", orders)
    assert np.all(np.abs(orders - 5) < 0.2)
    assert errors[-1] > 1e-12  # above round-off, so that the orders mean something


def test_dense_output_has_order_four_between_steps():
    problem = stiff_problem(2.0)
    start = core(problem, 20.0, 0.5)
    moving, fixed = eqx.partition(start, start.moving())

    @jax.jit
    def middle(step):
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: y),
            solvers.ImpulseRadau(jnp.asarray(1e-11)),
            0.0,
            step,
            step,
            moving,
            args=(problem, fixed),
            saveat=diffrax.SaveAt(ts=step[None] / 2),
            stepsize_controller=diffrax.ConstantStepSize(),
        )
        return solution.ys.V[0]

    gradient = jax.jit(lambda Theta: problem.reduced_loss_gradient(Theta))

    def exact(step):
        return integrated(gradient, start.U1, start.V, [step / 2], 1e-13)[1][0]

    errors = [relative_error(middle(jnp.asarray(step)), exact(step)) for step in (0.04, 0.02, 0.01)]
    # A cubic: its error over one step is of order four.
    assert np.all(np.log2(np.divide(errors[:-1], errors[1:])) > 3.5)


def test_steps_grow_with_the_logarithm_of_the_conditioning_and_the_imbalance_stays():
    steps = []
    for condition in (1.0, 1e4, 1e8):
        problem = stiff_problem(condition)
        start = core(problem, 1000.0, 1000**-0.5)
        ts = np.logspace(-1, np.log10(30 * condition), 5)
        out = ld.gradient_flow(
            start, problem, ts, observables=("imbalance_drift", "excess_loss"), solver="radau", rtol=1e-6
        )
        assert bool(out.ok)
        assert np.max(out.observables["imbalance_drift"]) < 1e-12
        assert out.observables["excess_loss"][-1] < 1e-12 * ld.observables.excess_loss(start, problem)
        steps.append(int(out.stats["num_steps"]))
    print("steps", steps)
    # Measured: about 9 a decade at this tolerance. An explicit method needs 1e9 at the end.
    assert steps[1] - steps[0] < 4 * 14 and steps[2] - steps[1] < 4 * 14


# -- estimated against true errors ---------------------------------------------------------------------------------------

KINDS = {"plain": (0.5, 0.5), "tiny": (1e-4, 1e-4), "imbalanced": (3.0, 0.03), "rank-deficient target": (0.5, 0.5)}


@pytest.mark.parametrize(
    ("rank", "outputs", "columns", "slack"),
    [(5, 3, 8, 1), (5, 3, 4, 1), (1, 3, 4, 1), (4, 1, 5, 1), (5, 3, 2, 1)],
    ids=["wide", "h < r + m", "r = 1", "m = 1", "h < min(r, m)"],
)
def test_true_error_keeps_to_the_tolerance(rank, outputs, columns, slack, rng):
    # Twenty random problems a shape, five of each kind: one hundred in all. Condition numbers to 30, for the explicit peer.
    count, rtol = 20, 1e-6
    base = ld.LeastSquares(np.diag(np.arange(rank, 0, -1.0)), np.ones((rank, outputs)), rank=rank)
    s = np.sort(rng.uniform(30**-0.5, 1, size=(count, rank)))[:, ::-1]
    Theta = rng.normal(size=(count, rank, outputs))
    kinds = np.arange(count) % 4
    Theta[kinds == 3] = Theta[kinds == 3][:, :, :1] * rng.normal(size=(1, 1, outputs))
    stds = np.array(list(KINDS.values()))[kinds]
    U = stds[:, 0, None, None] * rng.normal(size=(count, rank, columns))
    V = stds[:, 1, None, None] * rng.normal(size=(count, outputs, columns))
    horizon = 12 / s[:, -1] ** 2 * np.where(kinds == 1, 4, 1)

    def run(solver, rtol, max_steps):
        def one(arguments):
            s, Y, U, V, T = arguments
            problem = eqx.tree_at(lambda p: (p.data_singular_values, p.Ytil), base, (s, Y))
            start = ld.Reduction(ld.TwoLayer(U, V), columns, 0)
            ts = T * jnp.array([0.01, 0.1, 1.0])
            out = ld.gradient_flow(
                start, problem, ts, solver=solver, rtol=rtol, atol=1e-15, max_steps=max_steps, keep_models=True
            )
            Z = jnp.concatenate([out.models.U1, out.models.V], axis=1)
            return Z, out.result, out.stats["num_steps"], ld.observables.imbalance_drift(out.final, problem, start)

        return jax.jit(lambda *arguments: jax.lax.map(one, arguments))(s, s[:, :, None] * Theta, U, V, horizon)

    Z, result, steps, drift = run("radau", rtol, 2000)
    exact, reference, _, _ = run("dopri8", 1e-11, 100_000)
    assert np.all(reference == trajectory.FINISHED) and np.all(result == trajectory.FINISHED)
    errors = np.linalg.norm(Z - exact, axis=(2, 3)) / np.linalg.norm(exact, axis=(2, 3))
    print("largest error of each kind", [errors[kinds == kind].max() for kind in range(4)], "steps", np.max(steps))
    assert np.max(errors) < slack * rtol
    sizes = np.sum(U**2, axis=(1, 2)) + np.sum(V**2, axis=(1, 2))
    assert np.all(drift < tolerance("float64") * np.maximum(sizes, 1))


# -- what fails ----------------------------------------------------------------------------------------------------------


def test_a_step_that_cannot_converge_ends_with_a_result_code():
    problem, start = stiff_problem(1e4), core(stiff_problem(1e4), 50.0, 0.3)
    spoilt = eqx.tree_at(lambda p: p.Ytil, problem, jnp.full_like(problem.Ytil, jnp.nan))
    out = jax.jit(lambda problem: ld.gradient_flow(start, problem, jnp.ones(1), solver="radau"))(spoilt)
    assert int(out.result) == trajectory.SOLVER_FAILED and not bool(out.ok)
    assert np.all(np.isinf(out.observables["loss"]))
    # Sixty rejections in a row, each with a quarter of the step before.
    assert int(out.stats["num_steps"]) <= 60


def test_a_start_that_cannot_reach_its_target_runs_out_of_steps_and_says_so():
    problem = stiff_problem(1e4)
    column = np.ones((1, 6))
    start = ld.Reduction(ld.TwoLayer(np.arange(1, r + 1.0)[:, None] * column, np.ones((m, 1)) * column), 6, n - r)
    out = ld.gradient_flow(start, problem, np.array([1e6]), solver="radau", rtol=1e-6, max_steps=300)
    assert int(out.result) == trajectory.STEP_LIMIT and not bool(out.ok)
    assert int(out.stats["num_steps"]) == 300 and np.all(np.isinf(out.observables["loss"]))


@pytest.mark.parametrize(
    ("model", "problem", "options", "match"),
    [
        (ld.LinearModel(np.ones((n, m))), stiff_problem(2.0), {}, "the model is a LinearModel"),
        (ld.TwoLayer(np.ones((n, 2)), np.eye(m, 2)), stiff_problem(2.0), {"reduce": False}, "`reduce` is False"),
        (ld.TwoLayer(np.ones((n, 2)), np.eye(m, 2)), stiff_problem(2.0).regularized(1.0), {}, "has a penalty"),
    ],
    ids=["linear", "full size", "penalty"],
)
def test_what_the_structure_does_not_cover_is_refused(model, problem, options, match):
    with pytest.raises(ValueError, match=f"The solver 'radau' moves two-layer models .*{match}"):
        unchecked(model, problem, np.ones(1), solver="radau", **options)
    (method,) = chosen(model, problem, jnp.ones(1), None, options.get("reduce", True))
    assert not method.is_implicit


# -- the choice ----------------------------------------------------------------------------------------------------------


def test_auto_chooses_by_the_horizon_in_units_of_the_fastest_rate():
    problem = stiff_problem(1e4)
    start = core(problem, 1000.0, 1000**-0.5)
    for horizon, expected in ((1e2, "dopri8"), (1e5, "radau")):
        assert names(chosen(start, problem, jnp.array([horizon]), None)) == [expected]
    # Whatever is traced leaves the choice to run time; with a stop, the time that it takes counts.
    for condition in (1.0, 1e4):
        seen, problem = [], stiff_problem(condition)
        jax.eval_shape(
            lambda ts, problem=problem, seen=seen: seen.append(chosen(start, problem, ts, None)), jnp.ones(1)
        )
        assert names(*seen) == ["dopri8", "radau"]
    for stop, expected in ((1e-8, ["dopri8"]), (None, ["radau"])):
        assert names(chosen(start, stiff_problem(10.0), jnp.array([1e9]), stop)) == expected


@pytest.mark.parametrize("stop", [None, 1e-6])
def test_numbers_that_are_known_are_judged_as_those_of_a_program_are(stop, rng):
    for scale in (1e-150, 1e-3, 1.0, 1e3):
        problem = ld.LeastSquares(rng.normal(size=(3, 4)), rng.normal(size=(3, m)), scale=0.3)
        start = ld.TwoLayer(scale * rng.normal(size=(4, 6)), scale * rng.normal(size=(m, 6)))
        ends = as_stop(stop, None, None, problem)
        compiled = jax.jit(lambda *of, ends=ends: flow._stiffness(*of, ends))(*start.parts(problem), 7.0)
        for same in (start, ld.reduce(start, problem)):
            known = flow._known_stiffness(same, problem, 7.0, ends)
            assert known == pytest.approx(float(compiled), rel=1e-12)
    # Beyond the range of the dtype, without a warning.
    huge = ld.TwoLayer(np.full((4, 6), 1e200), np.full((m, 6), 1e200))
    assert names(chosen(huge, problem, np.array([7.0]), stop)) == ["dopri8"]


def test_auto_knows_that_a_small_start_learns_the_least_mode_late():
    problem = ld.factorization(np.diag([1.0, 1e-6]))
    small, wide = (ld.TwoLayer(size * np.eye(2), size * np.eye(2)) for size in (1e-2, 1.0))
    # A stop at 1e-8 of the loss has no need of the mode of 1e-6; one at 1e-13 has.
    for start, stop, expected in ((small, 1e-13, ["radau"]), (small, 1e-8, ["dopri8"]), (wide, 1e-13, ["dopri8"])):
        assert names(chosen(start, problem, jnp.array([1e9]), stop)) == expected


def test_with_traced_data_the_choice_is_made_at_run_time():
    start = core(stiff_problem(10.0), 1000.0, 1000**-0.5)
    start = ld.Reduction(start.core, 1000.0, start.num_frozen)  # in the coordinates of whatever data

    @jax.jit
    def run(problem, ts):
        return ld.gradient_flow(start, problem, ts, rtol=1e-7)

    out = run(stiff_problem(10.0), np.array([1.0, 30.0]))
    assert bool(out.ok) and not bool(out.stats["implicit"])
    problem, ts = stiff_problem(1e5), np.array([1.0, 3e5])
    out = run(problem, ts)
    assert bool(out.ok) and bool(out.stats["implicit"])
    # An explicit method would need some hundred thousand steps; the loss has come down to that of the rank.
    assert int(out.stats["num_steps"]) < 1000
    s, Y = np.asarray(problem.data_singular_values), np.asarray(problem.Ytil)
    error = s[:, None] * np.asarray(out.final.product()) - Y
    assert np.sum(error**2) / 2 < 1e-3 * float(out.observables["loss"][0])


# -- derivatives ---------------------------------------------------------------------------------------------------------


# The README's example takes such a derivative as well.
@pytest.mark.slow
def test_derivatives_pass_through_the_choice_that_traced_data_leave_to_run_time():
    base = stiff_problem(1e4)
    start = core(base, 1000.0, 1000**-0.5)

    def loss(scale, solver):
        problem = eqx.tree_at(lambda p: p.Ytil, base, scale * base.Ytil)
        return ld.gradient_flow(start, problem, jnp.array([1e3]), solver=solver, rtol=1e-6).observables["loss"][-1]

    gradients = jax.jit(jax.vmap(jax.grad(lambda scale: loss(scale, "auto"))))(jnp.array([0.5, 1.0]))
    alone = jax.jit(jax.grad(lambda scale: loss(scale, "radau")))
    np.testing.assert_allclose(gradients, [alone(0.5), alone(1.0)], rtol=1e-9)


def test_derivatives_agree_with_central_differences():
    base = stiff_problem(1e4)
    start = core(base, 1000.0, 1000**-0.5)
    Y, direction = base.Ytil, np.random.default_rng(1).normal(size=base.Ytil.shape)

    def outcome(parameters, adjoint=None):
        data, spectrum, scale, time = parameters
        s = base.data_singular_values ** (1 + spectrum)
        problem = eqx.tree_at(lambda p: (p.Ytil, p.data_singular_values), base, (Y + data * direction, s))
        model = start.with_core(start.core.scaled(scale))
        ts = time * jnp.array([1.0, 2e3])
        out = ld.gradient_flow(model, problem, ts, solver="radau", rtol=1e-10, adjoint=adjoint, keep_models=True)
        return jnp.array([out.final_observables["loss"], jnp.sum(jnp.sin(out.models.V[0])), jnp.sum(out.final.V)])

    point = jnp.array([0.0, 0.0, 1.0, 1.0])
    # A row and a column at a time: a program for all of them at once takes longer to compile.
    pull = jax.jit(lambda p, row: jax.vjp(outcome, p)[1](row)[0])
    push = jax.jit(lambda p, column: jax.jvp(lambda q: outcome(q, diffrax.ForwardMode()), (p,), (column,)))
    reverse = np.stack([pull(point, row) for row in jnp.eye(3)])
    forward = np.stack([push(point, column)[1] for column in jnp.eye(4)], axis=1)
    assert relative_error(forward, reverse) < tolerance("float64", 100)
    value = lambda p: np.asarray(push(p, jnp.zeros(4))[0])  # noqa: E731
    for index in range(4):
        step = 2e-4 * np.eye(4)[index]
        near, far = ((value(point + k * step) - value(point - k * step)) / (2 * k * 2e-4) for k in (1, 2))
        difference = (4 * near - far) / 3
        # What is left in the differences is the tolerance of the integration over the step.
        np.testing.assert_allclose(reverse[:, index], difference, rtol=1e-6, atol=1e-7)


def test_projection_keeps_the_imbalance_and_the_product_to_first_order(rng):
    U, V = (jnp.asarray(rng.normal(size=(rows, 4))) for rows in (5, 3))
    D = solvers.imbalance(U, V)
    products = []
    for size in (1e-3, 1e-4):
        moved_U, moved_V = U + size * rng.normal(size=U.shape), V + size * rng.normal(size=V.shape)
        new_U, new_V = solvers.project(*solvers.project(moved_U, moved_V, D), D)
        assert relative_error(solvers.imbalance(new_U, new_V), D) < 1e-10
        products.append(relative_error(new_U @ new_V.T, moved_U @ moved_V.T))
    assert products[1] < products[0] / 30


def test_projection_is_differentiable_where_eigenvalues_repeat():
    U, V = jnp.eye(4, 3), jnp.zeros((2, 3)).at[0, 0].set(1.0)
    D = solvers.imbalance(U, V) + 1e-3 * jnp.ones((3, 3))

    def value(scale):
        new_U, new_V = solvers.project(scale * U, V, D)
        return jnp.sum(jnp.cos(new_U)) + jnp.sum(new_V**3)

    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(value)))(1 + 1e-5 * np.array([-1, 0, 1]))
    assert abs(slopes[1] - (values[2] - values[0]) / 2e-5) < 1e-8


def test_pseudo_orthogonal_factor_keeps_the_form(rng):
    signs = np.diag([1.0, 1, 1, -1, -1])
    G = rng.normal(size=(5, 5))
    # exp(J (G - G^T) / 4) keeps J; R is near it.
    R = np.asarray(jax.scipy.linalg.expm(signs @ (G - G.T) / 4)) + 1e-4 * rng.normal(size=(5, 5))
    Q, defect = solvers.pseudo_orthogonal(jnp.asarray(R), 3)
    assert relative_error(Q.T @ signs @ Q, signs) < tolerance("float64")
    assert 1e-5 < defect < 1e-2 and relative_error(Q, R) < 1e-3


@pytest.mark.parametrize("shape", [(6, 4), (3, 9), (1, 1)])
def test_largest_singular_value_is_an_upper_bound_within_a_few_per_cent(shape, rng):
    for factor in (1e-150, 1.0, 1e150):
        A = rng.normal(size=shape)
        ratio = float(solvers.largest_singular_value(jnp.asarray(factor * A))) / factor / np.linalg.norm(A, 2)
        assert 1 - 1e-12 < ratio < 1.05
    assert float(solvers.largest_singular_value(jnp.zeros(shape))) == 0


def test_tableau_is_radau_and_its_transformation_splits_it():
    A, c = stages.TABLEAU, stages.NODES
    for power in range(1, 4):
        np.testing.assert_allclose(A @ c ** (power - 1), c**power / power, atol=1e-14)
    block = np.linalg.inv(stages._T) @ np.linalg.inv(A) @ stages._T
    a, b = stages.COMPLEX.real, stages.COMPLEX.imag
    np.testing.assert_allclose(block, [[stages.REAL, 0, 0], [0, a, -b], [0, b, a]], atol=1e-12)


# -- precision and batches -----------------------------------------------------------------------------------------------


def test_float32_stays_float32_and_agrees():
    problem = stiff_problem(1e3)
    start = core(problem, 200.0, 200**-0.5)
    single = ld.LeastSquares(np.asarray(problem.X, np.float32), np.asarray(problem.Y, np.float32), rank=r)
    start32 = ld.Reduction(ld.TwoLayer(start.U1.astype(np.float32), start.V.astype(np.float32)), 200, n - r)
    ts = np.array([1.0, 1e3])
    # The singular vectors of the two decompositions agree up to signs: the reduced data are taken over.
    reduced = problem.Ytil.astype(np.float32), problem.data_singular_values.astype(np.float32)
    single = eqx.tree_at(lambda p: (p.Ytil, p.data_singular_values), single, reduced)
    low = ld.gradient_flow(start32, single, ts.astype(np.float32), solver="radau")
    high = ld.gradient_flow(ld.Reduction(start.core, 200, n - r), problem, ts, solver="radau")
    assert low.final.V.dtype == np.float32 and bool(low.ok)
    # Default tolerance 1e-5, and round-off times the root of the condition number.
    assert relative_error(low.final.V, high.final.V) < tolerance("float32", 10)
    assert relative_error(low.final.product(), high.final.product()) < tolerance("float32", 30)


BATCH = """
import jax, jax.numpy as jnp
jax.config.update("jax_enable_x64", True)
import lindyn_jax as ld

problem = ld.LeastSquares(jnp.diag(jnp.array([1.0, 0.1, 0.01])), jnp.ones((3, 2)), rank=3)

def run(key):
    start = ld.init.gaussian_core(problem, 1e4, alpha=0.5, key=key)
    out = ld.gradient_flow(start, problem, jnp.array([1e5]), solver="radau", rtol=1e-6)
    return out.ok, out.final.V

keys, alone = jax.random.split(jax.random.key(0), 64), jax.jit(run)
ok, V = jax.jit(jax.vmap(run))(keys)
assert bool(jnp.all(ok))
alone = [alone(keys[i])[1] for i in (0, 63)]
print(float(jnp.max(jnp.abs(V[jnp.array([0, 63])] - jnp.stack(alone)))))
"""


def test_a_vmapped_batch_ends_and_equals_its_members():
    # A hang shows as a TimeoutExpired: the program itself takes about ten seconds.
    ended = subprocess.run([sys.executable, "-c", BATCH], capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout) < tolerance("float64", 10)
