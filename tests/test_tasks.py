"""Networks go through tasks one after another: by flow, descent and closed form, with the same answer where they have one."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import integrated, load_cases, relative_error, tolerance

import lindyn_jax as ld

CASE = load_cases("workbench")["task_sequence"]
GIVEN = CASE["inputs"]
n, m, h = 3, 3, 5
START = ld.TwoLayer(np.array(GIVEN["U"]), np.array(GIVEN["V"]))
TASKS = ld.sequence([(ld.factorization(np.array(Y)), GIVEN["duration"]) for Y in GIVEN["tasks"]])


def balanced_start(lambda0, dtype=np.float64, h=2, seed=0):
    draws = np.random.default_rng(seed)
    problem = ld.factorization(np.zeros((3, 2), dtype))
    return ld.init.balanced(problem, 0.3 * draws.normal(size=(3, 2)).astype(dtype), h, lambda0=lambda0)


def reversal(dtype=np.float64, duration=1.5):
    Y = np.random.default_rng(1).normal(size=(3, 2)).astype(dtype)
    return ld.sequence([(ld.factorization(Y), duration), (ld.factorization(-Y), duration), (ld.factorization(Y), 1.0)])


def test_flow_through_tasks_is_that_of_the_reference():
    passage = TASKS.flow(START, rtol=1e-12)
    for i, expected in enumerate(CASE["expected"]):
        assert relative_error(passage.Theta[i + 1], expected["Theta"]) < CASE["rel_or_abs_tol"]
        assert relative_error(passage.losses[i + 1], expected["losses"]) < CASE["rel_or_abs_tol"]
    assert bool(passage.ok) and passage.curves.shape == (3, 2, 3)
    np.testing.assert_allclose(passage.ts, [[0, 1.5], [1.5, 3.0], [3.0, 4.5]])
    # What was said of the tasks in words.
    losses = np.array([expected["losses"] for expected in CASE["expected"]])
    np.testing.assert_allclose(passage.forgetting[2, 0], losses[2, 0] - losses[0, 0], rtol=1e-8)
    np.testing.assert_allclose(np.triu(passage.forgetting), 0)
    np.testing.assert_allclose(passage.transfer[1], passage.losses[0, 1] - losses[0, 1], rtol=1e-8)
    assert passage.transfer[0] == 0


@eqx.filter_jit
def in_closed_form(tasks, start):
    return tasks.closed_form(start, points=3)


@pytest.mark.parametrize("lambda0", [0.0, 1.5, -0.8])
def test_closed_form_is_the_flow(lambda0):
    start, tasks = balanced_start(lambda0), reversal()
    exact = in_closed_form(tasks, start)
    targets = [np.asarray(task.Y) for task in tasks.tasks]
    U, V, Theta, curves, begins = np.asarray(start.U), np.asarray(start.V), [], [], 0.0
    for Y, duration, ts in zip(targets, (1.5, 1.5, 1.0), np.asarray(exact.ts), strict=True):
        np.testing.assert_allclose(ts, begins + np.linspace(0, duration, 3), rtol=1e-14)
        paths = integrated(lambda Theta, Y=Y: Theta - Y, U, V, ts - begins, rtol=1e-13)
        products = paths[0] @ np.swapaxes(paths[1], 1, 2)
        curves.append([[np.sum((product - Z) ** 2) / 2 for Z in targets] for product in products])
        Theta.append(products[0])
        U, V, begins = paths[0][-1], paths[1][-1], begins + duration
    assert relative_error(exact.Theta, np.stack([*Theta, U @ V.T])) < 1e-9
    assert relative_error(exact.curves, np.stack(curves)) < 1e-9
    U, V = np.asarray(exact.final.U), np.asarray(exact.final.V)
    np.testing.assert_allclose(U.T @ U - V.T @ V, lambda0 * np.eye(2), atol=1e-12)


def test_closed_forms_of_homogeneous_imbalance_are_integrations_to_eleven_digits():
    Y, ts = np.asarray(reversal().tasks[0].Y), np.array([0.3, 1.0, 2.5])
    for lambda0 in (-10.0, -3.0, -1.0, -0.1, 0.0, 0.1, 1.0, 3.0, 10.0):
        start = balanced_start(lambda0)
        U, V = integrated(lambda Theta: Theta - Y, start.U, start.V, ts, rtol=1e-13)
        exact = ld.exact.homogeneous_product(Y, start.U, start.V, lambda0, ts)
        assert relative_error(exact, U @ np.swapaxes(V, 1, 2)) < 1e-11


def test_closed_form_knows_scales_inputs_and_other_networks():
    draws = np.random.default_rng(2)
    X = 1.7 * np.linalg.qr(draws.normal(size=(6, 3)))[0]
    problems = [ld.LeastSquares(X, draws.normal(size=(6, 3)), scale="mean", output_scale=0.6) for _ in range(2)]
    tasks = ld.sequence([(problem, 0.7) for problem in problems])
    start = ld.init.balanced(problems[0], 0.3 * draws.normal(size=(3, 3)), 3, lambda0=0.5)
    tied = ld.sequence([(ld.factorization(draws.normal(size=(3, 3)), scale=0.5, output_scale=2.0), 0.4)] * 2)
    for network, passed in ((start, tasks), (ld.SymmetricFactors(draws.normal(size=(3, 2))), tied)):
        expected = passed.flow(network, solver="tsit5", rtol=1e-12).Theta
        assert relative_error(passed.closed_form(network).Theta, expected) < 1e-9
    # One layer by hand: X^T X is 1.7^2, and q c^2 = 0.36 / 6.
    Theta = [draws.normal(size=(3, 3))]
    for problem in problems:
        best = X.T @ np.asarray(problem.Y) / (0.6 * 1.7**2)
        Theta.append(best + np.exp(-0.7 * 1.7**2 * 0.36 / 6) * (Theta[-1] - best))
    assert relative_error(tasks.closed_form(ld.LinearModel(Theta[0])).Theta, Theta) < 1e-12


def test_closed_form_holds_in_float32_and_after_long_tasks(dtype):
    tasks, start = reversal(dtype, duration=200.0), balanced_start(1.5, dtype)
    passage = tasks.closed_form(start)
    assert passage.Theta.dtype == dtype
    # Each task is learned to the end, or to the rank that the width allows.
    assert np.all(np.asarray(passage.losses)[[1, 2], [0, 1]] < tolerance(dtype))
    Y = tasks.tasks[0].Y
    assert relative_error(passage.losses[1, 1], 2 * np.sum(Y**2)) < tolerance(dtype, 10)


def test_descent_of_small_steps_is_the_flow():
    start, tasks = balanced_start(0.5), reversal()
    errors = [
        relative_error(tasks.descent(start, step_size=eta).Theta, tasks.closed_form(start).Theta)
        for eta in (0.02, 0.01)
    ]
    assert 1.8 < errors[0] / errors[1] < 2.2
    passage = tasks.descent(start, step_size=0.02, points=4)
    assert bool(passage.ok) and passage.curves.shape == (3, 4, 3)
    by_steps = ld.sequence([(task, 75) for task in tasks.tasks[:2]]).descent(start, optimizer=ld.plain_descent(0.02))
    np.testing.assert_allclose(by_steps.Theta[1:], passage.Theta[1:3], rtol=1e-12)
    np.testing.assert_array_equal(by_steps.ts, [[0, 75], [75, 150]])


def test_a_network_of_any_width_goes_through_tasks_on_the_same_inputs():
    draws = np.random.default_rng(3)
    X = draws.normal(size=(4, 5))
    problems = [ld.LeastSquares(X, draws.normal(size=(4, 2))) for _ in range(2)]
    tasks = ld.sequence([(problem, 1.0) for problem in problems])
    core = ld.init.gaussian_core(problems[0], 1e9, alpha=0.5, key=jax.random.key(0))
    how = {"observables": ("imbalance_drift",), "solver": "tsit5"}
    passage = tasks.flow(core, **how)
    assert bool(passage.ok) and passage.losses.shape == (3, 2)
    assert passage.paths[1].final_observables["imbalance_drift"] < 1e-6
    other = ld.LeastSquares(draws.normal(size=(4, 5)), draws.normal(size=(4, 2)))
    with pytest.raises(ValueError, match="coordinates of other data"):
        ld.sequence([(problems[0], 1.0), (other, 1.0)]).flow(core)


def test_a_reduced_network_goes_through_tasks_as_the_full_one():
    draws = np.random.default_rng(3)
    X = draws.normal(size=(4, 5))
    problems = [ld.LeastSquares(X, draws.normal(size=(4, 2))) for _ in range(2)]
    tasks, how = ld.sequence([(problem, 1.0) for problem in problems]), {"solver": "tsit5"}
    full = ld.init.gaussian(5, 2, 30, alpha=0.5, key=jax.random.key(0))
    reduced = tasks.flow(ld.reduce(full, problems[0]), **how)
    np.testing.assert_allclose(reduced.losses, tasks.flow(full, **how).losses, rtol=1e-6)


def last_loss(x, how):
    """The loss of the first task after the second, from a start, a duration and a target that depend on x."""
    start, Y = balanced_start(0.5), reversal().tasks[0].Y
    tasks = ld.sequence([(ld.factorization(Y), 1.5 + x[0]), (ld.factorization((x[1] - 1) * Y), 1.5)])
    # Balanced starts stay so when they are scaled.
    return how(tasks, ld.TwoLayer((1 + x[2]) * start.U, (1 + x[2]) * start.V)).losses[2, 0]


def closed(tasks, model):
    return tasks.closed_form(model)


def test_derivatives_of_closed_forms_are_differences():
    d, e = np.array([0.5, -1.0, 0.7]), 1e-4
    program = jax.jit(jax.value_and_grad(lambda x: last_loss(x, closed)))
    (ahead, _), (behind, _) = program(e * d), program(-e * d)
    assert relative_error(program(np.zeros(3))[1] @ d, (ahead - behind) / (2 * e)) < 1e-6


@pytest.mark.slow
def test_derivatives_pass_through_the_flow_of_all_tasks():
    x, flow = jnp.zeros(3), lambda tasks, model: tasks.flow(model, rtol=1e-11)
    assert relative_error(jax.grad(last_loss)(x, flow), jax.grad(last_loss)(x, closed)) < 1e-7


def test_wrong_tasks_and_starts_are_refused():
    problem, other = ld.factorization(np.ones((3, 2))), ld.factorization(np.ones((2, 2)))
    data = ld.LeastSquares(np.diag([1.0, 2.0, 3.0]), np.ones((3, 2)))
    model = ld.TwoLayer(np.ones((3, 2)), np.ones((2, 2)))
    for match, call in {
        "`tasks` must hold at least one pair": lambda: ld.sequence([]),
        r"pairs \(problem, duration\), but tasks\[1\] is": lambda: ld.sequence([(problem, 1.0), (1.0, problem)]),
        "must be a positive number, but is -1": lambda: ld.sequence([(problem, -1.0)]),
        r"as the first, \(3, 2\), but that of tasks\[1\] has \(2, 2\)": lambda: ld.sequence(
            [(problem, 1.0), (other, 1.0)]
        ),
        "has for no number lambda0": lambda: ld.sequence([(problem, 1.0)]).closed_form(model),
        "multiple of the identity": lambda: ld.sequence([(data, 1.0)]).closed_form(balanced_start(0.5)),
        "is a WideLimit: use `flow`": lambda: ld.sequence([(problem, 1.0)]).closed_form(
            ld.WideLimit(np.ones((3, 2)), 1.0)
        ),
        "exactly one of `step_size`": lambda: ld.sequence([(problem, 1.0)]).descent(model),
        "numbers of steps": lambda: ld.sequence([(problem, 1.5)]).descent(model, optimizer=ld.plain_descent(0.1)),
        "`points` must be at least 2": lambda: ld.sequence([(problem, 1.0)]).flow(model, points=1),
    }.items():
        with pytest.raises(ValueError, match=match):
            call()


def test_flow_of_tasks_of_other_losses_agrees_with_scipy():
    draws = np.random.default_rng(5)
    X, Y = draws.normal(size=(6, 3)), draws.integers(0, 2, (6, 2)).astype(float)
    start = ld.TwoLayer(0.5 * draws.normal(size=(3, 4)), 0.5 * draws.normal(size=(2, 4)))
    tasks = ld.sequence([(ld.Logistic(X, Y), 2.0), (ld.factorization(np.ones((3, 2))), 0.5)])
    passage = tasks.flow(start, solver="tsit5", rtol=1e-11)
    logistic = lambda Theta: X.T @ (1 / (1 + np.exp(-X @ Theta)) - Y)  # noqa: E731
    scale = float(ld.Logistic(X, Y).scale)
    U, V = integrated(lambda Theta: scale * logistic(Theta), start.U, start.V, [2.0])
    U, V = integrated(lambda Theta: Theta - 1, U[-1], V[-1], [0.5])
    assert relative_error(passage.Theta[-1], U[-1] @ V[-1].T) < 1e-8


def test_command_of_reversed_tasks_tells_what_is_forgotten(call, tmp_path):
    options = {"shape": "3,2", "tasks": 3, "change": "reversed", "width": 1e9, "duration": 3, "points": 4}
    given = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    code, printed, _ = call("sequence", *given, "--json", "--out", tmp_path / "out")
    assert code == 0
    found = json.loads(printed)["summary"]
    losses = np.array(found["losses"])
    assert len(found["time"]) == 10 and np.all(np.diff(found["time"]) > 0)
    np.testing.assert_allclose(np.array(found["task_losses"])[[0, 3, 6, 9]], losses, rtol=1e-12)
    # The third task is the first one: what the second has undone, and no loss of its own.
    np.testing.assert_allclose(losses[:, 0], losses[:, 2], rtol=1e-12)
    np.testing.assert_allclose(found["forgetting"][1][0], losses[2, 0] - losses[1, 0], rtol=1e-12)
    assert losses[2, 0] > 1e3 * losses[1, 0]
    assert (tmp_path / "out/trajectory.csv").exists() and (tmp_path / "out/figure.png").exists()


def test_targets_of_further_tasks_are_what_they_are_said_to_be():
    problem = ld.factorization(np.arange(6.0).reshape(2, 3))
    tasks = {
        change: [
            np.asarray(task.Y)
            for task in ld.studies.Tasks(problem, ld.init.Gaussian(9), tasks=3, change=change).problems()
        ]
        for change in ("fresh", "reversed", "permuted")
    }
    np.testing.assert_array_equal(tasks["reversed"], [problem.Y, -problem.Y, problem.Y])
    for Y in tasks["permuted"]:
        assert {tuple(column) for column in Y.T} == {tuple(column) for column in np.asarray(problem.Y).T}
    assert not np.array_equal(tasks["fresh"][1], tasks["fresh"][2])
