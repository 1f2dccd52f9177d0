"""Units change nothing: the flow of scaled data from a scaled start is the scaled flow, at scaled times; and tiny starts.

With L layers the flow of (a Y, b X, c q) from (a / b)^{1/L} times the weights is the flow of (Y, X, q) at times
`a^{2 - 2/L} b^{2/L} c` as large.
"""

import jax
import numpy as np
import optax
import pytest

import lindyn_jax as ld
from lindyn_jax import trajectory

RTOL = {"float64": 1e-9, "float32": 1e-5}
SCALES = {"float64": (1e-30, 1e30), "float32": (1e-10, 1e10)}
drawn = np.random.default_rng(15)
X, Y = drawn.normal(size=(5, 4)), drawn.normal(size=(5, 3))
U, V, W = drawn.normal(size=(4, 6)) / 3, drawn.normal(size=(3, 6)) / 3, drawn.normal(size=(6, 6)) / 3

# Model, number of layers that share the scale, and whether its matrices do or (as in the wide limit) their product.
MODELS = {
    "two layers": (lambda f: ld.TwoLayer(f(U), f(V)), 2),
    "tied": (lambda f: ld.SymmetricFactors(f(U)), 2),
    "three layers": (lambda f: ld.DeepLinear((f(U), f(W), f(V.T))), 3),
    "one layer": (lambda f: ld.LinearModel(0 * f(U[:, :3])), 1),
    "wide limit": (lambda f: ld.WideLimit(0 * f(U[:, :3]), f(np.asarray(0.1))), 2),
}
CASES = [
    *(("two layers", solver, "float64") for solver in ("tsit5", "lie", "radau", "dopri8")),
    *((name, "tsit5", "float64") for name in list(MODELS)[1:]),
    ("two layers", "radau", "float32"),
    ("three layers", "tsit5", "float32"),
    # A tiny start below is learned by these as well.
    *(
        pytest.param("two layers", solver, dtype, marks=pytest.mark.slow)
        for solver, dtype in (
            *((name, "float32") for name in ("tsit5", "lie", "dopri8", "kvaerno5")),
            ("kvaerno5", "float64"),
        )
    ),
]


def laws(scale):
    """(a, b, c): the scales of Y, X and q."""
    return [(scale, 1, 1), (1, scale, 1), (1, 1, scale)]


def scaled(name, dtype, a, b, c):
    """The model, the problem, the factor on times and the one on the product."""
    make, layers = MODELS[name]
    targets = np.concatenate([Y, Y[:, :1]], axis=1) if name == "tied" else Y
    problem = ld.LeastSquares((b * X).astype(dtype), (a * targets).astype(dtype), scale=np.asarray(c, dtype), rank=4)
    size = a / b if name == "wide limit" else (a / b) ** (1 / layers)
    model = make(lambda A: np.asarray(size * A).astype(dtype))
    return model, problem, 1 / (float(a) ** (2 - 2 / layers) * float(b) ** (2 / layers) * c), a / b


@pytest.mark.parametrize(("name", "solver", "dtype"), CASES)
def test_the_flow_is_the_same_in_all_units(name, solver, dtype):
    def run(a, b, c):
        model, problem, time, size = scaled(name, dtype, a, b, c)
        out = ld.gradient_flow(model, problem, (np.array([0.3, 1.5]) * time).astype(dtype), solver=solver)
        assert int(out.result) == trajectory.FINISHED
        return np.asarray(out.final.product(), np.float64) / size, np.asarray(out.observables["loss"], float) / (
            a * a * c
        )

    expected = run(1, 1, 1)
    for scale in SCALES[dtype]:
        for law in laws(scale):
            for value, there in zip(run(*law), expected, strict=True):
                # Rounding the scaled data may move a step; each is right to the tolerance.
                np.testing.assert_allclose(
                    value, there, rtol=0, atol=30 * RTOL[dtype] * np.max(np.abs(there)), err_msg=law
                )


@pytest.mark.parametrize("dtype", RTOL)
def test_the_limit_is_the_same_in_all_units(dtype):
    def run(a, b, c):
        model, problem, _, size = scaled("two layers", dtype, a, b, c)
        out = ld.flow_to_limit(model, problem)
        assert int(out.result) == trajectory.FINISHED
        return np.asarray(out.final.V, np.float64) / size**0.5

    expected = run(1, 1, 1)
    for scale in SCALES[dtype]:
        for law in laws(scale):
            np.testing.assert_allclose(run(*law), expected, rtol=0, atol=30 * RTOL[dtype], err_msg=law)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, "float64") for name in ("two layers", "three layers", "one layer")),
        ("three layers", "float32"),
        *(pytest.param(name, "float32", marks=pytest.mark.slow) for name in ("two layers", "one layer")),
    ],
)
def test_descent_is_the_same_in_all_units(name, dtype):
    @jax.jit
    def run(model, data, targets, scale, step):
        problem = ld.LeastSquares(data, targets, scale=scale, rank=4)
        optimizer = optax.sgd(step, 0.5)
        out = ld.gradient_descent(model, problem, 6, optimizer=optimizer, save_at=np.arange(0, 7, 3))
        return out.final.product(), out.observables["loss"]

    def at(a, b, c):
        model, problem, time, size = scaled(name, dtype, a, b, c)
        step = np.asarray(0.01 * time, dtype)
        product, loss = run(model, problem.X, problem.Y, problem.scale, step)
        return np.asarray(product, np.float64) / size, np.asarray(loss, np.float64) / (a * a * c)

    expected = at(1, 1, 1)
    assert expected[1][2] < 0.9 * expected[1][0]
    for scale in SCALES[dtype]:
        for law in laws(scale):
            for value, there in zip(at(*law), expected, strict=True):
                tolerance = 100 * np.finfo(dtype).eps * np.max(np.abs(there))
                np.testing.assert_allclose(value, there, rtol=0, atol=tolerance, err_msg=law)


LABELS = np.arange(15).reshape(5, 3) % 4
OTHERS = {  # of targets in units a and inputs in units b; classes and counts have no units
    "completion": lambda a, b, c: ld.MatrixCompletion(a * b * X.T @ Y, LABELS[:4] > 0, scale=c),
    "sensing": lambda a, b, c: ld.MatrixSensing(b * np.einsum("ni,nj->nij", X, Y), a * Y[:, 0], scale=c),
    "huber": lambda a, b, c: ld.Huber(b * X, a * Y, 0.7 * a, scale=c),
    "logistic": lambda a, b, c: ld.Logistic(b * X, LABELS > 1, scale=c),
    "softmax": lambda a, b, c: ld.Softmax(b * X, LABELS[:, 0] % 3, scale=c),
    "poisson": lambda a, b, c: ld.Poisson(b * X / 4, LABELS, scale=c),
}


@pytest.mark.parametrize(
    "name", [name if name in ("huber", "logistic") else pytest.param(name, marks=pytest.mark.slow) for name in OTHERS]
)
def test_flows_of_other_losses_are_the_same_in_all_units(name):
    has_targets, is_entries = name in ("completion", "sensing", "huber"), name == "completion"

    def run(a, b, c):
        # Entries of Theta itself are compared with targets in units a b; a loss of outputs moves at the rate a b c, or b c.
        size, rate, unit = a / b, (a * b if has_targets else b) * c, a * a * c if has_targets else c
        if is_entries:
            size, rate, unit = a * b, a * b * c, (a * b) ** 2 * c
        start = ld.TwoLayer(size**0.5 * U, size**0.5 * V)
        out = ld.gradient_flow(start, OTHERS[name](a, b, c), np.array([0.3, 1.5]) / rate, solver="tsit5")
        assert int(out.result) == trajectory.FINISHED
        return np.asarray(out.final.product()) / size, np.asarray(out.observables["loss"]) / unit

    expected = run(1.0, 1.0, 1.0)
    assert expected[1][1] < 0.95 * expected[1][0]
    for scale in SCALES["float64"]:
        for law in [(scale, 1.0, 1.0), (1.0, scale, 1.0), (1.0, 1.0, scale)][0 if has_targets else 1 :]:
            for value, there in zip(run(*law), expected, strict=True):
                tolerance = 30 * RTOL["float64"] * np.max(np.abs(there))
                np.testing.assert_allclose(value, there, rtol=0, atol=tolerance, err_msg=law)


# -- small starts ----------------------------------------------------------------------------------------------------------


def learned(sigma, size, t):
    """The strength of a mode from u = v = size: `w' = 2 w (sigma - w)`."""
    return sigma / (1 + np.exp(np.log(sigma) - 2 * np.log(size) - 2 * sigma * t) - np.exp(-2 * sigma * t))


# Of float32: Tsit5 stands for the other explicit one, and the flow in all units has radau.
PAIRED = [("dopri8", "float32"), ("radau", "float32")]


@pytest.mark.parametrize(
    ("solver", "dtype"),
    [
        *(
            pytest.param(solver, dtype, marks=pytest.mark.slow if (solver, dtype) in PAIRED else ())
            for solver in ("tsit5", "dopri8", "lie", "radau")
            for dtype in RTOL
        ),
        ("kvaerno5", "float64"),
    ],
)
def test_a_tiny_start_learns_every_mode_at_its_time(solver, dtype):
    sigma = np.array([3.0, 2.0, 1.0])
    problem = ld.factorization(np.diag(sigma).astype(dtype))
    # Of a step; a start of 1e-100 grows by 230 units.
    slack = {"lie": 500, "kvaerno5": 100}.get(solver, 20)
    for size in (1.0, 1e-6, 1e-20, 1e-100) if dtype == "float64" else (1.0, 1e-6, 1e-10):
        size = float(np.asarray(size, dtype))
        # The first mode is half learned, then the last one.
        ts = np.array([max(0.1, np.log(k / size**2) / (2 * k)) for k in (3, 1)]) if size < 1 else np.array([0.1, 1.0])
        ts = ts.astype(dtype)
        start = (size * np.eye(3)).astype(dtype)
        out = ld.gradient_flow(ld.TwoLayer(start, start), problem, ts, solver=solver, keep_models=True)
        assert bool(out.ok) and out.stats["roundoff"] < 1e2 * np.finfo(dtype).eps
        for t, U, V in zip(np.asarray(ts, float), out.models.U, out.models.V, strict=True):
            strengths = np.diagonal(np.asarray(U, float) @ np.asarray(V, float).T)
            growth = max(1.0, -np.log(size) / 20)
            # Round-off in the time counts by the growth.
            tolerance = slack * growth * RTOL[dtype]
            np.testing.assert_allclose(strengths, learned(sigma, size, t), rtol=tolerance, err_msg=f"{size} {t}")


def test_strict_promotion_of_dtypes_is_kept():
    model, problem, _, _ = scaled("two layers", "float64", 1, 1, 1)
    # Promotion is an error of tracing.
    with jax.numpy_dtype_promotion("strict"):
        for run in (ld.flow_to_limit, lambda model, problem: ld.gradient_flow(model, problem, np.ones(1))):
            assert jax.eval_shape(lambda run=run: run(model, problem).ok).dtype == bool
