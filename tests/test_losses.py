"""Losses other than least squares: their values and derivatives, and that all that holds for any loss holds for them."""

import inspect
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import load_cases, relative_error

import lindyn_jax as ld

CASES = load_cases("losses")
PAGE = Path(__file__).parent.parent / ".docs/pages/api/problems.md"
KINDS = ("logistic", "softmax", "huber", "poisson", "general", "masked", "sensing", "rank-one")
N, n, m = 12, 6, 3


def of_case(case):
    """The problem and the start of a reference case."""
    given = {name: np.asarray(value) for name, value in case["inputs"].items()}
    X = given.get("X")
    make = {
        "logistic": lambda: ld.Logistic(X, given["y"], scale="mean"),
        "softmax": lambda: ld.Softmax(X, given["labels"], scale="mean"),
        "huber": lambda: ld.Huber(X, given["Y"], given["delta"], scale="mean"),
        "poisson": lambda: ld.Poisson(X, given["counts"], scale="mean"),
        "masked": lambda: ld.MatrixCompletion(given["Y"], given["mask"]),
        "sensing": lambda: ld.MatrixSensing(given["A"], given["y"]),
        "weight": lambda: ld.Penalised(ld.LeastSquares(X, given["Y"]), weight_decay=given["decay"]),
    }
    return make[case["name"].split("_")[0]](), ld.TwoLayer(given["U"], given["V"])


def make(kind, keep=slice(None), weights=None, **options):
    """A problem of 6 inputs in 4 dimensions, of the samples, entries or measurements to keep."""
    rng = np.random.default_rng(8)
    X, Y = rng.normal(size=(N, 4)) @ rng.normal(size=(4, n)), rng.normal(size=(N, m))
    labels, y = np.arange(N) % m, (np.arange(N * m) % 5 > 1).astype(float)
    a, b = rng.normal(size=(5, n)), rng.normal(size=(5, m))
    # Two more from the same four directions.
    a, b, A = np.concatenate([a[:4], a[:3] - a[1:4]]), np.concatenate([b, b[:2]]), rng.normal(size=(8, n, m))
    options = {"scale": 0.7, "weights": weights} | options
    return {
        "logistic": lambda: ld.Logistic(X[keep], y.reshape(N, m)[keep], **options),
        "softmax": lambda: ld.Softmax(X[keep], labels[keep], num_classes=m, **options),
        "huber": lambda: ld.Huber(X[keep], Y[keep], 0.8, **options),
        "poisson": lambda: ld.Poisson(X[keep] / 4, np.floor(np.exp(Y))[keep], **options),
        "general": lambda: ld.GeneralLoss(X[keep], Y[keep], lambda o, y: jnp.sum(jnp.log(jnp.cosh(o - y))), **options),
        "masked": lambda: ld.MatrixCompletion(rng.normal(size=(n, m)), y[: n * m].reshape(n, m), **options),
        "sensing": lambda: ld.MatrixSensing(A[keep], np.arange(8.0)[keep], **options),
        "rank-one": lambda: ld.MatrixSensing((a[keep], b[keep]), np.arange(7.0)[keep], **options),
    }[kind]()


def num_terms(kind):
    return {"masked": (n, m), "sensing": (8,), "rank-one": (7,)}.get(kind, (N,))


@jax.jit
def value_and_gradient(problem, Theta):
    return problem.loss(Theta), problem.loss_gradient(Theta)


# -- reference values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if "h2" in name else ()) for name in CASES])
def test_start_and_descent_of_the_reference_cases(name):
    problem, start = of_case(CASES[name])
    expected = CASES[name]["expected"]
    loss, gradient = value_and_gradient(problem, start.product())
    assert relative_error(loss, expected["loss0"]) < 1e-14
    assert relative_error(gradient, expected["gradient0"]) < 1e-14
    steps = expected["descent"]
    end = ld.gradient_descent(start, problem, steps["steps"], optimizer=ld.plain_descent(steps["step"]))
    assert relative_error(end.final_observables["loss"], steps["loss"]) < 1e-13
    assert relative_error(end.final.product(), steps["Theta"]) < 1e-13


@pytest.mark.parametrize(
    ("name", "reduce"),
    [
        pytest.param(name, reduce, marks=() if "h2" not in name and reduce else pytest.mark.slow)
        for name in CASES
        for reduce in (True, False)
    ],
)
def test_flow_of_the_reference_cases(name, reduce):
    case = CASES[name]
    problem, start = of_case(case)
    observables = {"loss": "loss", "Theta": lambda model, problem: model.product(), "drift": "imbalance_drift"}
    options = {"observables": observables, "reduce": reduce}
    path = ld.gradient_flow(start, problem, case["times"], rtol=1e-11, **options)
    assert bool(path.ok)
    for key in ("loss", "Theta"):
        assert relative_error(path.observables[key], case["expected"][key]) < case["rel_or_abs_tol"]
    # The imbalance is kept, and under weight decay decays by itself.
    D, decay = start.U.T @ start.U - start.V.T @ start.V, case["inputs"].get("decay", 0.0)
    drift = np.linalg.norm(D) * -np.expm1(-2 * decay * np.asarray(case["times"]))
    assert np.max(np.abs(path.observables["drift"] - drift)) < 1e-8


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_flow_of_the_reference_cases_keeps_the_imbalance_at_the_usual_tolerance(name):
    case, decay = CASES[name], CASES[name]["inputs"].get("decay", 0.0)
    problem, start = of_case(case)
    path = ld.gradient_flow(start, problem, case["times"], observables="imbalance_drift")
    drift = np.linalg.norm(start.U.T @ start.U - start.V.T @ start.V)
    drift = drift * -np.expm1(-2 * decay * np.asarray(case["times"]))
    assert bool(path.ok) and np.max(np.abs(path.observables["imbalance_drift"] - drift)) < 1e-8


# -- values and derivatives --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_and_hessians_are_differences_of_the_loss(kind):
    rng = np.random.default_rng(1)
    problem = make(kind, weights=rng.uniform(0.5, 2, num_terms(kind)))
    Theta, one, two = 0.4 * rng.normal(size=(3, n, m))
    step = 1e-5
    (above, G_above), (below, G_below), (loss, G) = (
        map(np.asarray, value_and_gradient(problem, Theta + s * step * one)) for s in (1, -1, 0)
    )
    assert relative_error(np.sum(G * one), (above - below) / (2 * step)) < 1e-8
    product = jax.jit(lambda Theta, along: problem.hessian_vector(Theta, along))
    Hv = np.asarray(product(Theta, one))
    assert relative_error(Hv, (G_above - G_below) / (2 * step)) < 1e-8
    # The Hessian is symmetric.
    assert relative_error(np.sum(Hv * two), np.sum(product(Theta, two) * one)) < 1e-13
    # What is restricted has the same loss and gradient, in fewer rows.
    small, Phi1 = problem.restrict()
    frame = np.eye(n) if Phi1 is None else np.asarray(Phi1)
    assert frame.shape[1] == problem.rank == (6 if kind in ("masked", "sensing") else 4)
    assert relative_error(frame @ (frame.T @ G), G) < 1e-13
    reduced = jax.jit(lambda Theta: (problem.reduced_loss(Theta), problem.reduced_loss_gradient(Theta)))
    for value, gradient in (value_and_gradient(small, frame.T @ Theta), reduced(frame.T @ Theta)):
        assert relative_error(value, loss) < 1e-13
        assert relative_error(gradient, frame.T @ G) < 1e-13


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [0.7, "mean"])
def test_a_weight_of_zero_is_a_sample_left_out(kind, scale):
    weights = np.ones(num_terms(kind))
    weights[np.unravel_index([1, 4], weights.shape)] = 0
    weighted = make(kind, weights=weights, scale=scale)
    if kind == "masked":
        dropped = ld.MatrixCompletion(weighted.Y, weighted.mask * weights, scale=scale)
    else:
        dropped = make(kind, keep=weights > 0, scale=scale)
    Theta = jnp.asarray(np.random.default_rng(2).normal(size=(n, m)))
    for value, expected in zip(value_and_gradient(weighted, Theta), value_and_gradient(dropped, Theta), strict=True):
        assert relative_error(value, expected) < 1e-14
    for metric in ("accuracy", "margin", "deviance", "outliers"):
        if hasattr(weighted, metric):
            assert relative_error(getattr(weighted, metric)(Theta), getattr(dropped, metric)(Theta)) < 1e-14


def test_special_losses_are_cases_of_one_another():
    rng = np.random.default_rng(3)
    X, Y, Theta = rng.normal(size=(N, n)), rng.normal(size=(N, m)), jnp.asarray(rng.normal(size=(n, m)))
    same = [(ld.Huber(X, Y, 1e3), ld.LeastSquares(X, Y))]
    same.append((ld.Huber(X, Y, 0.3), ld.GeneralLoss(X, Y, lambda o, y: jnp.sum(optax.huber_loss(o, y, delta=0.3)))))
    labels = np.arange(N) % m
    one_hot = np.eye(m)[labels]
    same.append((ld.Softmax(X, labels), ld.Softmax(X, one_hot.astype(bool))))
    same.append((ld.Softmax(X, labels), ld.GeneralLoss(X, one_hot, optax.softmax_cross_entropy)))
    counts = np.floor(np.exp(Y))
    same.append((ld.Poisson(X, counts), ld.GeneralLoss(X, counts, lambda o, y: jnp.sum(jnp.exp(o) - y * o))))
    everything = np.ones((n, m))
    same.append((ld.MatrixCompletion(X[:n, :m], everything), ld.factorization(X[:n, :m])))
    a, b, y = rng.normal(size=(7, n)), rng.normal(size=(7, m)), rng.normal(size=7)
    same.append((ld.MatrixSensing((a, b), y), ld.MatrixSensing(np.einsum("kn,km->knm", a, b), y)))
    mask = (labels[:n, None] != np.arange(m)).astype(float)
    holes = np.where(mask > 0, Y[:n], np.nan)
    entries = np.argwhere(mask)
    measured = ld.MatrixSensing((np.eye(n)[entries[:, 0]], np.eye(m)[entries[:, 1]]), Y[:n][mask > 0])
    same += [(ld.MatrixCompletion(holes), measured), (ld.MatrixCompletion(holes, mask), measured)]
    both = jax.jit(lambda pairs, Theta: [[(p.loss(Theta), p.loss_gradient(Theta)) for p in pair] for pair in pairs])
    for one, two in both(same, Theta):
        assert relative_error(one[0], two[0]) < 1e-13
        assert relative_error(one[1], two[1]) < 1e-13
    # Two classes: the logit of the second less that of the first.
    two = ld.Softmax(X, labels % 2).loss(Theta[:, :2])
    assert relative_error(ld.Logistic(X, labels % 2).loss(Theta[:, 1:2] - Theta[:, :1]), two) < 1e-13


def test_losses_keep_their_digits_where_answers_are_all_but_certain(dtype):
    X = np.array([[1.0], [-1.0]], dtype)
    digits = 4 * np.finfo(dtype).eps

    @jax.jit
    def everything(problem, Theta):
        more = (
            problem.hessian_vector(Theta, jnp.ones_like(Theta)),
            jax.grad(problem.loss)(Theta),
            problem.predict(Theta),
        )
        return problem.loss(Theta), problem.loss_gradient(Theta), *more

    for size in (40.0, 1e4):
        right, wrong = np.array([[size]], dtype), np.array([[-size]], dtype)
        logistic, softmax = ld.Logistic(X, np.array([1, 0])), ld.Softmax(X, np.array([1, 0]))
        # Each of two samples has the loss log(1 + e^-size), or that and size.
        assert logistic.dtype == softmax.dtype == dtype
        cases = ((logistic, right, wrong), (softmax, np.hstack([wrong, 0 * right]), np.hstack([right, 0 * right])))
        for problem, well, badly in cases:
            (loss, gradient, *rest), (worst, steep, *other) = everything(problem, well), everything(problem, badly)
            np.testing.assert_allclose(loss, 2 * np.exp(-dtype.type(size)), rtol=size * digits)
            np.testing.assert_allclose(worst, 2 * size, rtol=digits)
            np.testing.assert_allclose(np.abs(gradient), 2 * np.exp(-dtype.type(size)), rtol=size * digits)
            np.testing.assert_allclose(np.abs(steep), 2, rtol=digits)
            assert all(np.all(np.isfinite(numbers)) for numbers in (*rest, *other))


def test_metrics_say_what_they_say():
    X, labels = np.eye(4, 3), np.array([0, 1, 2, 0])
    problem = ld.Softmax(X, labels)
    Theta = np.array([[2.0, 0, 0], [0, 3, 1], [1, 0, 0]])
    # The third sample is taken for the first class, by a logit of 1; the last has no input, and its logits are alike.
    measures = jax.jit(lambda problem, Theta: (problem.accuracy(Theta), problem.margin(Theta), problem.predict(Theta)))
    accuracy, margin, shares = measures(problem, Theta)
    assert (float(accuracy), float(margin)) == (0.5, -1.0)
    assert relative_error(np.sum(shares, axis=1), np.ones(4)) < 1e-15
    answer = ld.Logistic(np.eye(3), np.array([True, False, True]))
    theta = np.array([[0.5], [-2.0], [-0.1]])
    accuracy, margin, _ = measures(answer, theta)
    assert relative_error(accuracy, 2 / 3) < 1e-15 and float(margin) == -0.1
    assert np.isnan(measures(answer, theta * np.nan)[0]) and np.isnan(measures(problem, Theta * np.nan)[0])
    counts = jnp.array([[1.0], [3.0], [2.0]])
    assert relative_error(ld.Poisson(None, counts).deviance(jnp.log(counts)), 0.0) < 1e-15
    assert float(ld.Poisson(None, 0 * counts).deviance(0 * counts)) == 2.0
    completion = ld.MatrixCompletion(np.array([[1.0, np.nan], [2.0, 3.0]]))
    assert float(completion.test_error(jnp.ones((2, 2)), np.array([[9.0, 2.0], [9.0, 9.0]]))) == 0.5
    assert float(ld.Huber(None, counts, 1.5).outliers(0 * counts)) == pytest.approx(2 / 3)


def test_a_reduced_network_is_the_full_one_on_other_data():
    draws = np.random.default_rng(8)
    for samples in (7, 3):  # the data see all of the inputs, or three directions of them
        data, other = (
            ld.LeastSquares(draws.normal(size=(samples, 4)), draws.normal(size=(samples, 4))) for _ in range(2)
        )
        U, V = draws.normal(size=(4, 20)), draws.normal(size=(4, 20))
        for model in (ld.SymmetricFactors(U), ld.TwoLayer(U, V)):
            seen = ld.observables.on(other, "loss")(ld.reduce(model, data), data)
            assert relative_error(seen, other.loss(model.product())) < 1e-13


def test_observables_of_classes_and_of_other_data():
    problem = make("softmax")
    X = np.random.default_rng(6).normal(size=(5, n))
    test = ld.Softmax(X, np.arange(5) % m)
    start = ld.init.gaussian(n, m, 30, std=0.5, key=jax.random.key(3))
    names = {name: name for name in ("accuracy", "least_margin")}
    others = {f"test_{name}": ld.observables.on(test, name) for name in ("accuracy", "loss")}
    end = ld.gradient_descent(start, problem, 30, optimizer=optax.sgd(1e-2), observables=names | others)
    seen = end.final_observables

    @jax.jit
    def measured(Theta):
        return {
            "accuracy": problem.accuracy(Theta),
            "least_margin": problem.margin(Theta),
            "test_accuracy": test.accuracy(Theta),
            "test_loss": test.loss(Theta),
        }

    for name, expected in measured(end.final.product()).items():
        assert relative_error(seen[name], expected) < 1e-13
    # A core that was drawn knows its network on other data where all of it moves.
    whole = ld.Softmax(np.random.default_rng(7).normal(size=(N, n)), np.arange(N) % m)
    same = ld.Softmax(whole.X, np.arange(N) % m)

    @jax.jit
    def both(key):
        core = ld.init.gaussian_core(whole, 1e9, alpha=0.5, key=key)
        return [
            (ld.observables.on(same, name)(core, whole), ld.observables.OBSERVABLES[name](core, whole))
            for name in ("accuracy", "loss")
        ]

    for value, own in both(jax.random.key(0)):
        assert relative_error(value, own) < 1e-13
    drawn = jax.jit(lambda key: ld.init.gaussian_core(problem, 1e9, alpha=0.5, key=key))(jax.random.key(0))
    for ask, message in (
        (lambda: ld.observables.on(test, "loss")(drawn, problem), "needs all of Theta"),
        (lambda: ld.observables.on(test, "imbalance_drift"), "that does not look at the start"),
        (lambda: ld.observables.on(test, "lose"), r"`name` is 'lose': did you mean 'loss'\?"),
        (lambda: ld.observables.accuracy(start, make("huber")), "kind Logistic or Softmax, but .* Huber"),
    ):
        with pytest.raises(ValueError, match=message):
            ask()


# -- every way of moving -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["softmax", "rank-one"])
def test_networks_of_any_width_move_in_reduced_form(kind):
    problem = make(kind)
    start = ld.init.gaussian(n, m, 30, std=0.1, key=jax.random.key(0))
    ends = [
        ld.gradient_descent(start, problem, 30, optimizer=optax.sgd(2e-3, momentum=0.5), reduce=reduce)
        for reduce in (True, False)
    ]
    assert relative_error(ends[0].final.U, ends[1].final.U) < 1e-13
    assert relative_error(ends[0].final_observables["loss"], ends[1].final_observables["loss"]) < 1e-13
    assert float(ends[0].final_observables["loss"]) < float(ends[0].observables["loss"][0]) * 0.99


def unseen(kind):
    """Measurements of 6 inputs and 5 outputs that see four dimensions of one and two of the other."""
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(5, 4)) @ rng.normal(size=(4, n)), rng.normal(size=(5, 2)) @ rng.normal(size=(2, 5))
    A = (a, b) if kind == "rank-one" else np.einsum("kn,km->knm", a, b)
    return ld.MatrixSensing(A, rng.normal(size=5), weights=rng.uniform(0.5, 2, 5))


@pytest.mark.parametrize("kind", ["rank-one", "dense"])
def test_outputs_that_no_measurement_sees_are_left_out(kind):
    problem, Theta = unseen(kind), jnp.asarray(np.random.default_rng(4).normal(size=(n, 5)))
    small, Phi1 = problem.restrict()
    inner, Psi1 = small.restrict_outputs()
    assert (inner.num_inputs, inner.num_outputs, inner.restrict()[1], inner.restrict_outputs()[1]) == (4, 2, None, None)
    assert relative_error(inner.loss(Phi1.T @ Theta @ Psi1), problem.loss(Theta)) < 1e-13
    G = problem.loss_gradient(Theta)
    assert relative_error(Phi1 @ inner.loss_gradient(Phi1.T @ Theta @ Psi1) @ Psi1.T, G) < 1e-13
    outer = problem.restrict_outputs()[0]
    assert relative_error(outer.restrict()[0].loss(Phi1.T @ Theta @ Psi1), problem.loss(Theta)) < 1e-13
    # Of batches too, and not where a term on the weights pulls at all outputs.
    index = jnp.array([3, 0])
    some = small.rows(index).restrict_outputs()[0].loss(Phi1.T @ Theta @ Psi1)
    assert relative_error(some, problem.rows(index).loss(Theta)) < 1e-13
    pulled = ld.Penalised(problem, imbalance=ld.ImbalancePenalty(0.0, 1.0))
    assert pulled.restrict_outputs()[1] is None


@pytest.mark.parametrize("width", [pytest.param(3, marks=pytest.mark.slow), 30])
def test_networks_move_without_the_outputs_that_no_measurement_sees(width):
    problem = ld.Penalised(unseen("rank-one"), weight_decay=0.01)
    start = ld.init.gaussian(n, 5, width, std=0.5, key=jax.random.key(0))
    reduced = ld.reduce(start, problem)
    assert reduced.core.V.shape == (2, min(width, 9)) and reduced.V.shape == (5, min(width, 9))
    assert relative_error(ld.lift(reduced).U, start.U) < 1e-14 and relative_error(ld.lift(reduced).V, start.V) < 1e-14
    names = ("loss", "nuclear_norm", "frozen_product_norm", "imbalance_spectrum", "imbalance_drift")

    def both(move):
        ends = [move(model, reduce) for model, reduce in ((start, True), (start, False))]
        for layers in ("U", "V"):
            assert relative_error(getattr(ends[0].final, layers), getattr(ends[1].final, layers)) < 1e-9
        for name in names:
            assert relative_error(ends[0].final_observables[name], ends[1].final_observables[name]) < 1e-9

    options = {"observables": names, "rtol": 1e-11, "solver": "tsit5"}
    both(lambda model, reduce: ld.gradient_flow(model, problem, [2.0], reduce=reduce, **options))
    optimizer = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(1e-4, momentum=0.5))
    options = {"observables": names, "optimizer": optimizer}
    both(lambda model, reduce: ld.gradient_descent(model, problem, 30, reduce=reduce, **options))
    # The reduced network goes on by itself, its velocity and its steps are those of the full one.
    assert relative_error(reduced.velocity_norm(problem), start.velocity_norm(problem)) < 1e-13
    assert relative_error(reduced.squared_norm(problem), start.squared_norm(problem)) < 1e-13
    other = ld.MatrixSensing((problem.plain.A.a, problem.plain.A.b[:, ::-1]), problem.plain.y)
    with pytest.raises(ValueError, match="reduced to the coordinates of other data"):
        ld.gradient_flow(reduced, other, [1.0])


def test_measurements_by_vectors_move_millions_of_rows_as_a_few():
    rng, size = np.random.default_rng(0), 10**6
    a, b = rng.normal(size=(2, 3, size)) / size**0.5
    problem = ld.MatrixSensing((a, b), np.ones(3))
    reduced = ld.reduce(ld.TwoLayer(*(0.1 * rng.normal(size=(2, size, 4)))), problem)
    assert reduced.core.U.shape == reduced.core.V.shape == (3, 4)
    path = ld.gradient_flow(reduced, problem, [0.0, 9.0], solver="tsit5", rtol=1e-6)
    assert bool(path.ok) and float(path.final_observables["loss"]) < 0.5 * float(path.observables["loss"][0])


def test_cores_of_any_width_leave_out_the_same_outputs():
    problem, names = unseen("rank-one"), ("loss", "singular_values")
    core = ld.init.gaussian_core(problem, 1e9, std=1e-5, key=jax.random.key(0))
    assert core.core.U.shape == (4, 9) and core.core.V.shape == (2, 9) and core.V.shape == (5, 9)
    whole = ld.Reduction(
        ld.TwoLayer(core.U1, core.V),
        core.width,
        2,
        core.frozen,
        coordinates=core.coordinates,
        rest=(core.rest[0], None),
    )
    # Implicit steps of the one have r s impulses, explicit ones of the other move all r + m rows.
    paths = [
        ld.gradient_flow(model, problem, [0.0, 2.0], observables=names, solver=solver, rtol=1e-9)
        for model, solver in ((core, "radau"), (whole, "tsit5"))
    ]
    for name in names:
        assert relative_error(paths[0].observables[name], paths[1].observables[name]) < 1e-6
    assert paths[0].final_observables["loss"] < 0.5 * paths[0].observables["loss"][0]


def test_one_program_serves_all_widths_scales_and_weights():
    traces = []

    @jax.jit
    def change(h, scale, weights):
        traces.append(1)
        problem = make("softmax", weights=weights, scale=scale, rank=4)
        core = ld.init.gaussian_core(problem, h, alpha=0.5, key=jax.random.key(0))
        path = ld.gradient_flow(core, problem, [0.0, 1e-2], observables=("loss", "imbalance_drift"), solver="tsit5")
        return path.observables["loss"], path.final_observables["imbalance_drift"], path.ok

    weights = np.ones(N)
    for h, scale in ((1e2, 0.5), (1e9, 0.5), (1e9, 0.1)):
        loss, drift, ok = change(h, scale, weights)
        assert bool(ok) and loss[1] < loss[0] and drift < 1e-8
    assert len(traces) == 1
    assert relative_error(change(1e9, 0.1, weights / 2)[0][0], loss[0] / 2) < 1e-13


class Diagonal(ld.AbstractModel):
    u: jax.Array
    v: jax.Array

    def product(self):
        return (self.u * self.v)[:, None]


@pytest.mark.parametrize("kind", ["deep", "tied", "own"])
def test_deep_tied_and_own_networks_move_with_them(kind):
    rng = np.random.default_rng(4)
    X, square = rng.normal(size=(N, 4)), rng.normal(size=(4, 4))
    square = square + square.T
    observed = (np.add.outer(np.arange(4), np.arange(4)) % 3 > 0).astype(float)
    logistic, completion = ld.Logistic(X, np.arange(N) % 2), ld.MatrixCompletion(square, observed)
    layers = tuple(jnp.asarray(0.5 * rng.normal(size=shape)) for shape in ((4, 5), (5, 5), (5, 4)))
    start, problem = {
        "deep": (ld.DeepLinear(layers), completion),
        "tied": (ld.SymmetricFactors(0.5 * rng.normal(size=(4, 7))), completion),
        "own": (Diagonal(*jnp.asarray(rng.normal(size=(2, 4)))), logistic),
    }[kind]
    end = ld.gradient_descent(start, problem, 20, optimizer=optax.sgd(1e-2)).final
    # The same by JAX alone.
    moved = start
    slope = jax.jit(jax.grad(lambda model: problem.loss(model.product())))
    for _ in range(20):
        moved = jax.tree.map(lambda w, g: w - 1e-2 * np.asarray(g), moved, slope(moved))
    assert relative_error(end.product(), moved.product()) < 1e-13


def test_runs_stop_at_a_loss_without_a_least_value():
    problem, start = of_case(CASES["logistic_h5"])
    times = np.array([0.0, 100.0])
    # The loss is .7315 at t = 2 and .6170 at t = 10.
    level = CASES["logistic_h5"]["expected"]["loss"][1]

    def when(level):
        flow = ld.gradient_flow(start, problem, times, stop_loss=level, rtol=1e-11, solver="tsit5")
        return flow.stats["final_time"], (flow.final_observables["loss"], flow.result, flow.final.velocity(problem))

    (time, (loss, result, velocity)), slope = jax.jit(jax.value_and_grad(when, has_aux=True))(level)
    assert ld.RESULTS[int(result)] == ld.RESULTS[1] and loss <= level and 2 <= time < 2.2
    # L' = -||velocity||^2, so the time at which the loss is reached falls by 1 over that.
    speed = sum(float(jnp.sum(W**2)) for W in jax.tree.leaves(velocity))
    assert relative_error(slope, -1 / speed) < 1e-8
    descent = ld.gradient_descent(start, problem, 4000, optimizer=ld.plain_descent(0.01), stop_loss=level)
    assert ld.RESULTS[int(descent.result)] == ld.RESULTS[1] and descent.final_observables["loss"] <= level
    assert 200 <= int(descent.stats["num_steps"]) < 210 and int(descent.stats["num_steps"]) % 8 == 0
    # What is not reached is no error, and least squares may be stopped at a loss as well.
    never = ld.gradient_descent(start, problem, 4000, optimizer=ld.plain_descent(0.01), stop_loss=0.0)
    assert ld.RESULTS[int(never.result)] == ld.RESULTS[0]
    squares = ld.LeastSquares(problem.X, problem.Y)
    level = 1.1 * squares.loss_star
    end = ld.gradient_descent(start, squares, 4000, optimizer=ld.plain_descent(0.01), stop_loss=level)
    assert 0.99 * level < squares.loss(end.final.product()) <= level


def test_runs_stop_at_the_norm_of_the_gradient_in_all_weights():
    problem, start = of_case(CASES["logistic_h5"])

    def size(model):
        weights = lambda U, V: problem.loss(U @ V.T)  # noqa: E731
        return jnp.sqrt(sum(jnp.sum(G**2) for G in jax.grad(weights, (0, 1))(model.U, model.V)))

    level = 0.2 * float(size(start))

    def when(level):
        end = ld.gradient_flow(start, problem, [0.0, 100.0], stop_gradient_norm=level, rtol=1e-11, solver="tsit5")
        return end.stats["final_time"], end

    (time, flow), slope = jax.jit(jax.value_and_grad(when, has_aux=True))(level)
    assert ld.RESULTS[int(flow.result)] == ld.RESULTS[1] and 0.8 * level < size(flow.final) <= level
    # The time at which the norm is reached: by how fast it falls along the velocity at the end.
    velocity = flow.final.velocity(problem)
    falls = jax.jvp(lambda U, V: size(ld.TwoLayer(U, V)), (flow.final.U, flow.final.V), (velocity.U, velocity.V))[1]
    assert time > 0 and relative_error(slope, 1 / falls) < 1e-8
    for reduce in (True, False):
        descent = ld.gradient_descent(
            start, problem, 8000, optimizer=ld.plain_descent(0.01), stop_gradient_norm=level, reduce=reduce
        )
        assert ld.RESULTS[int(descent.result)] == ld.RESULTS[1] and 0.8 * level < size(descent.final) <= level
        assert abs(int(descent.stats["num_steps"]) * 0.01 - float(time)) < 0.3 + 0.05 * float(time)


@pytest.mark.parametrize("solve", [ld.gradient_flow, ld.gradient_descent])
def test_stops_and_starts_that_make_no_sense_are_refused(solve):
    problem, start = of_case(CASES["poisson_h5"])
    options = (problem, [1.0]) if solve is ld.gradient_flow else (problem, 4)
    more = {} if solve is ld.gradient_flow else {"optimizer": ld.plain_descent(0.1)}
    for given, message in (
        ({"stop": 0.1}, "least loss, which a Poisson does not know: give the loss to stop at as `stop_loss`"),
        ({"stop": 0.1, "stop_loss": 0.1}, "Only one of the arguments `stop` and `stop_loss`"),
        (
            {"stop_loss": 0.1, "stop_gradient_norm": 0.1},
            "Only one of the arguments `stop_loss` and `stop_gradient_norm`",
        ),
        ({"stop_loss": np.nan}, "`stop_loss` must be finite"),
        ({"stop_gradient_norm": 0.0}, "`stop_gradient_norm` must be a positive number, but is 0.0"),
    ):
        with pytest.raises(ValueError, match=message):
            solve(start, *options, **more, **given)
    with pytest.raises(
        ValueError, match=r"loss of a Poisson must be finite at the start, .* but is inf: give the start other"
    ):
        solve(start.scaled(jnp.array(1e3)), *options, **more)
    cusp = ld.CustomProblem(lambda Theta: jnp.sqrt(jnp.sum(Theta**2)), *start.product().shape)
    with pytest.raises(ValueError, match="with a finite gradient, but its gradient is not"):
        solve(ld.TwoLayer(start.U, 0 * start.V), cusp, *options[1:], **more)


def test_ends_have_derivatives_in_the_numbers_of_the_loss():
    rng = np.random.default_rng(5)
    X, Y = rng.normal(size=(N, n)), rng.normal(size=(N, m))
    start = ld.init.gaussian(n, m, 3, std=0.5, key=jax.random.key(0))

    def end(numbers):
        delta, scale, weights = numbers
        problem = ld.Huber(X, Y, delta, scale=scale, weights=weights, rank=n)
        return ld.gradient_descent(start, problem, 10, optimizer=optax.sgd(1e-2), reduce=False).final_observables[
            "loss"
        ]

    at, along = (0.3, 0.5, np.ones(N)), (1.0, -0.4, rng.normal(size=N))
    up, down = (jax.tree.map(lambda x, d, s=s: x + s * d, at, along) for s in (1e-6, -1e-6))
    both = jax.jit(jax.value_and_grad(end))
    slope = jax.tree.map(lambda g, d: jnp.sum(g * d), both(at)[1], along)
    assert relative_error(sum(slope), (both(up)[0] - both(down)[0]) / 2e-6) < 1e-7


def test_an_ensemble_completes_other_entries_in_every_trial():
    truth = np.outer([1.0, 0.5, -1.0, 2.0], [1.0, -1.0, 0.5])

    def trial(key, width):
        mask = jax.random.bernoulli(key, 0.8, truth.shape)
        problem = ld.MatrixCompletion(truth, mask)
        core = ld.init.gaussian_core(problem, width, alpha=0.8, key=key)
        path = ld.gradient_descent(core, problem, 5, optimizer=optax.sgd(1e-2))
        return {"seen": jnp.sum(mask), "fell": path.final_observables["loss"] < path.observables["loss"][0]}

    found = ld.run_ensemble(trial, {"width": [1e3, 1e6]}, 6, key=jax.random.key(1))
    assert bool(found["fell"].all()) and len(np.unique(found["seen"])) > 2


# -- refusals ----------------------------------------------------------------------------------------------------------


ONES, LABELS = np.ones((4, 2)), np.array([0, 1, 2, 0])
ONE_ROW = np.array([[1, 1], [1, 1], [0, 0], [1, 1]])


@pytest.mark.parametrize(
    ("kind", "arguments", "options", "message"),
    [
        ("MatrixCompletion", (ONES, 0 * ONES), {}, r"`mask` must have an observed entry, but is 0 everywhere"),
        (
            "MatrixCompletion",
            (ONES, np.ones((4, 3))),
            {},
            r"`mask` must have the shape \(4, 2\) of `Y`, but .*\(4, 3\)",
        ),
        ("MatrixCompletion", (ONES, 2 * ONES), {}, r"`mask` must be made of 0 and 1, but is 2 at index \(0, 0\)"),
        ("MatrixCompletion", (ONES, ONE_ROW), {}, "row 2 has none and cannot be learned"),
        ("MatrixCompletion", (ONES, ONES * [1, 0]), {}, "column 1 has none and cannot be learned"),
        ("MatrixCompletion", (np.nan * ONES,), {}, "`mask` must have an observed entry"),
        ("MatrixCompletion", (np.inf * ONES,), {}, "`Y` must be finite, but 8 of its entries are not"),
        (
            "MatrixCompletion",
            (ONES, ONES),
            {"weights": -ONES},
            "`weights` must have entries of at least 0, .* entry -1",
        ),
        ("MatrixCompletion", (ONES, ONES), {"weights": ONE_ROW * 1.0}, "`mask` times `weights` must have .* row 2"),
        ("MatrixSensing", (ONES, np.ones(4)), {}, r"`A` must have shape \(K, n, m\), or be a pair .*\(4, 2\)"),
        ("MatrixSensing", (np.ones((3, 4, 2)), np.ones(4)), {}, r"`y` must have shape \(3,\), one number for each A_k"),
        ("MatrixSensing", ((ONES, ONES[:3]), np.ones(4)), {}, r"as many vectors a_k as b_k, .*\(4, 2\) and \(3, 2\)"),
        ("MatrixSensing", (np.zeros((3, 4, 2)), np.ones(3)), {}, "`A` is zero: nothing was measured"),
        ("MatrixSensing", (np.ones((3, 4, 2)), np.nan * np.ones(3)), {}, "`y` must be finite"),
        ("Logistic", (ONES, LABELS), {}, r"`y` must be made of the labels 0 and 1, but is 2 at index \(2, 0\)"),
        ("Logistic", (ONES, np.array([0.5, 0, 1, 0])), {}, r"labels 0 and 1, but is 0\.5 at index \(0, 0\)"),
        ("Logistic", (ONES, np.ones(4)), {}, "`y` must have both classes, 0 and 1, but is 1 everywhere in column 0"),
        ("Logistic", (ONES, np.array([0, 1, 1])), {}, "`X` and `y` must have one row a sample, .*4 rows and `y` has 3"),
        ("Logistic", (ONES, LABELS > 0), {"weights": np.ones(3)}, r"`weights` must have shape \(4,\), but .*\(3,\)"),
        ("Logistic", (ONES, LABELS > 0), {"weights": np.zeros(4)}, "one of them above 0, but has no other"),
        ("Softmax", (ONES, LABELS - 1), {}, r"`labels` must be made of whole numbers of at least 0, but is -1 at"),
        ("Softmax", (ONES, LABELS / 2), {}, r"whole numbers of at least 0, but is 0\.5 at index \(1,\)"),
        ("Softmax", (ONES, LABELS), {"num_classes": 2}, r"`labels` must be below 2, .*`num_classes`, but is 2 at"),
        ("Softmax", (ONES, np.ones(4)), {}, "samples of two classes or more, but all are of class 1"),
        ("Softmax", (ONES, np.eye(4)), {"num_classes": 3}, "`num_classes` must be 4 for one-hot labels"),
        ("Softmax", (ONES, np.eye(4) * 2), {}, "a single 1 in every row and be 0 elsewhere, but row 0 is not so"),
        ("Softmax", (ONES, np.nan * LABELS), {}, "`labels` must be finite"),
        ("Huber", (ONES, ONES, jnp.array(0.0)), {}, r"`delta` must be a positive number, but is 0"),
        ("Huber", (ONES, ONES * np.inf, 1.0), {}, "`Y` must be finite"),
        ("Poisson", (ONES, -ONES), {}, r"`counts` must be made of numbers of at least 0, but is -1 at index \(0, 0\)"),
        ("Poisson", (ONES, ONES * np.nan), {}, "`counts` must be finite"),
    ],
)
def test_what_is_no_such_problem_is_refused_in_a_sentence(kind, arguments, options, message):
    # Without the tests' own check of annotations, which would refuse shapes first.
    made = getattr(ld, kind)
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(made.__init__)(object.__new__(made), *arguments, **options)


def test_traced_labels_need_the_number_of_classes_and_replaced_losses_are_refused():
    loss = lambda labels, **options: ld.Softmax(ONES, labels, rank=1, **options).loss(jnp.ones((2, 3)))  # noqa: E731
    with pytest.raises(ValueError, match="`num_classes` must be given for labels that are traced"):
        jax.jit(loss)(LABELS)
    assert relative_error(jax.jit(lambda labels: loss(labels, num_classes=3))(LABELS), loss(LABELS)) < 1e-14

    class Hinge(ld.Logistic):
        def sample_losses(self, outputs, Y):
            return jnp.sum(jnp.maximum(0, 1 - (2 * Y - 1) * outputs), axis=1)

    with pytest.raises(ValueError, match="Logistic with a `sample_losses` of its own"):
        Hinge(ONES, LABELS > 0)


def test_examples_of_the_reference_run():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    names = {}
    for block in blocks:
        if "AbstractProblem" not in block:
            exec(block, names)
    assert float(names["accuracy"]) == 1 and float(names["hidden"]) < 0.01
