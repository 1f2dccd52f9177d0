"""Deep networks: reference cases, conservation, starts, the balanced mode equation, transformations and refusals."""

import inspect
import itertools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import load_cases, relative_error, tolerance
from scipy.integrate import solve_ivp

import lindyn_jax as ld

CASES = load_cases("g19")
N, n, m = 6, 4, 3


@pytest.fixture
def problem(rng):
    return ld.LeastSquares(rng.normal(size=(N, n)), rng.normal(size=(N, m)), scale="mean", output_scale=0.7)


def network(rng, sizes, std=0.7):
    return ld.DeepLinear([std * rng.normal(size=shape) for shape in itertools.pairwise(sizes)])


def gap(a, b):
    return max(relative_error(x, y) for x, y in zip(a, b, strict=True))


# -- reference cases -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["loss_grad_L1", "loss_grad_L3"])
def test_reference_loss_and_gradients(name):
    given, expected = CASES[name]["inputs"], CASES[name]["expected"]
    problem = ld.LeastSquares(np.array(given["X"]), np.array(given["Y"]), scale="mean")
    model = ld.DeepLinear([np.array(W) for W in given["W"]])
    assert relative_error(problem.loss(model.product()), expected["loss"]) < tolerance("float64")
    assert gap([-v for v in model.velocity(problem).layers], expected["grads"]) < tolerance("float64")


def test_reference_flow_of_three_layers():
    given, expected = CASES["deep3_flow"]["inputs"], CASES["deep3_flow"]["expected"]
    problem = ld.LeastSquares(np.array(given["X"]), np.array(given["Y"]), scale="mean")
    start = ld.DeepLinear([np.array(W) for W in given["W0"]])
    assert gap(start.imbalances(), expected["C_initial"]) < tolerance("float64")
    out = ld.gradient_flow(
        start, problem, np.array([float(given["t"])]), rtol=1e-13, atol=1e-15, observables=("loss", "imbalance_drift")
    )
    assert gap(out.final.layers, expected["W_layers"]) < tolerance("float64")
    assert relative_error(out.final.product(), expected["W"]) < tolerance("float64")
    assert gap(out.final.imbalances(), expected["C_final"]) < tolerance("float64")
    assert float(out.observables["imbalance_drift"][0]) < tolerance("float64")
    assert float(out.observables["loss"][0]) < float(problem.loss(start.product()))


# -- the model -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(n, m), (n, 5, m), (n, 2, 6, m), (n, 5, 1, 4, m)])
@pytest.mark.parametrize("turned", [False, True])
def test_velocities_are_minus_the_gradient(sizes, turned, rng):
    sizes = sizes[::-1] if turned else sizes  # more inputs than outputs, and the other way round
    problem = ld.LeastSquares(rng.normal(size=(N, sizes[0])), rng.normal(size=(N, sizes[-1])), scale="mean")
    model = network(rng, sizes)
    gradient = jax.jit(jax.grad(lambda model: problem.loss(model.product())))(model)
    assert gap(model.velocity(problem).layers, [-g for g in gradient.layers]) < tolerance("float64")
    assert model.depth == len(sizes) - 1 and model.widths == sizes[1:-1]


def test_two_layers_are_those_of_the_two_layer_model(problem, rng):
    two = ld.TwoLayer(rng.normal(size=(n, 9)), rng.normal(size=(m, 9)))
    deep = ld.DeepLinear((two.U, two.V.T))
    assert relative_error(deep.product(), two.product()) < tolerance("float64")
    velocity = two.velocity(problem)
    assert gap(deep.velocity(problem).layers, (velocity.U, velocity.V.T)) < tolerance("float64")
    assert relative_error(deep.imbalance_spectra()[0], two.imbalance_spectrum()) < tolerance("float64")
    assert gap(ld.theory.imbalances(two), deep.imbalances()) == 0
    for name in ("loss", "excess_loss", "reconstruction_error", "singular_values", "distance_to_theta_hat"):
        function = ld.observables.OBSERVABLES[name]
        assert relative_error(function(deep, problem), function(two, problem)) < tolerance("float64"), name
    other = ld.TwoLayer(1.1 * two.U, two.V)
    drifts = [
        ld.observables.imbalance_drift(a, problem, b)
        for a, b in ((other, two), (ld.DeepLinear((other.U, other.V.T)), deep))
    ]
    assert relative_error(drifts[1], drifts[0]) < tolerance("float64", 10)


def test_imbalance_spectra_are_those_of_the_dense_matrices(rng):
    model = network(rng, (2, 9, 3, 4, 2))
    for D, spectrum in zip(model.imbalances(), model.imbalance_spectra(), strict=True):
        padded = np.sort(np.concatenate([spectrum, np.zeros(len(D) - len(spectrum))]))
        assert relative_error(padded, np.linalg.eigvalsh(D)) < tolerance("float64", 10)


def test_a_velocity_forms_nothing_larger_than_the_largest_layer(rng):
    model, problem = network(rng, (2, 60, 50, 3)), ld.factorization(rng.normal(size=(2, 3)))
    jaxpr = jax.make_jaxpr(lambda layers: ld.DeepLinear(layers).velocity(problem).layers)(model.layers)
    made = [v.aval.shape for equation in jaxpr.jaxpr.eqns for v in equation.outvars]
    assert (60, 50) in made and max(np.prod(shape) for shape in made) == 60 * 50
    # Products are taken from the side of the two inputs: each layer-sized result is a gradient, and no product of layers.
    products = [e for e in jaxpr.jaxpr.eqns if e.primitive.name == "dot_general"]
    assert all(min(e.invars[0].aval.shape) <= 2 or min(e.invars[1].aval.shape) <= 2 for e in products)


# -- descent -------------------------------------------------------------------------------------------------------------


def test_every_step_of_descent_changes_the_imbalances_by_the_exact_amount(problem, rng):
    start, eta, steps = network(rng, (n, 6, 5, m)), 0.05, 20
    models = ld.gradient_descent(
        start, problem, steps, optimizer=optax.sgd(eta), save_at=np.arange(steps + 1), keep_models=True
    ).models
    at = lambda t: jax.tree.map(lambda leaf: leaf[t], models)  # noqa: E731
    drift = jax.jit(lambda model: ld.theory.descent_drift(model, problem, eta))
    largest = 0.0
    for t in range(steps):
        changes = [after - before for after, before in zip(at(t + 1).imbalances(), at(t).imbalances(), strict=True)]
        expected = drift(at(t))
        largest = max(largest, *(float(jnp.linalg.norm(D)) for D in expected))
        assert max(float(jnp.linalg.norm(a - b)) for a, b in zip(changes, expected, strict=True)) < tolerance("float64")
    assert largest > 1e-3  # the change that is tested must not itself be round-off
    layers = [np.asarray(W) for W in start.layers]
    X, Y, q, c = np.asarray(problem.X), np.asarray(problem.Y), 1 / N, 0.7
    for _ in range(steps):
        W1, W2, W3 = layers
        G = q * c * X.T @ (c * X @ W1 @ W2 @ W3 - Y)
        layers = [W1 - eta * G @ (W2 @ W3).T, W2 - eta * W1.T @ G @ W3.T, W3 - eta * (W1 @ W2).T @ G]
    assert gap(at(steps).layers, layers) < tolerance("float64")


def test_drift_of_two_layers_and_its_refusals(problem, rng):
    two = ld.TwoLayer(rng.normal(size=(n, 5)), rng.normal(size=(m, 5)))
    velocity = two.velocity(problem)
    (drift,) = ld.theory.descent_drift(two, problem, 0.3)
    assert relative_error(drift, 0.09 * (velocity.U.T @ velocity.U - velocity.V.T @ velocity.V)) < tolerance("float64")
    with pytest.raises(ValueError, match="the problem has a penalty"):
        ld.theory.descent_drift(two, problem.regularized(1.0), 0.3)
    with pytest.raises(ValueError, match="must be a TwoLayer or a DeepLinear, but is a LinearModel"):
        ld.theory.imbalances(ld.LinearModel(np.eye(2)))


def test_the_number_of_conservation_laws_is_that_of_two_layers_and_all_entries_of_square_ones():
    for r, outputs, h in ((3, 2, 5), (3, 2, 4), (2, 3, 9)):
        assert ld.theory.num_deep_conservation_laws((r, h, outputs)) == ld.theory.num_conservation_laws(r, outputs, h)
    assert ld.theory.num_deep_conservation_laws((3, 3, 3, 3)) == 2 * 6
    assert ld.theory.num_deep_conservation_laws((3, 2)) == 0
    with pytest.raises(ValueError, match="at least two positive integers"):
        ld.theory.num_deep_conservation_laws((3,))


# -- transformations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["descent", pytest.param("flow", marks=pytest.mark.slow)])
def test_flow_and_descent_work_under_jit_vmap_and_grad(kind, problem, rng):
    start = network(rng, (n, 3, 3, m), 0.5)
    sigma, step = "singular_values", 1e-4
    scales = jnp.asarray([1 - step, 1.0, 1 + step])

    def flow(scale):
        scaled = ld.DeepLinear([scale * W for W in start.layers])
        out = ld.gradient_flow(
            scaled, problem, np.ones(1), observables=sigma, solver="tsit5", rtol=1e-8, adjoint=diffrax.ForwardMode()
        )
        return jnp.sum(out.observables[sigma] ** 3)

    def descent(scale):
        scaled = ld.DeepLinear([scale * W for W in start.layers])
        out = ld.gradient_descent(scaled, problem, 15, optimizer=ld.plain_descent(0.1), observables=())
        return jnp.sum(jnp.linalg.svd(out.final.product(), compute_uv=False) ** 3)

    if kind == "flow":
        values, slopes = jax.jit(jax.vmap(lambda scale: jax.jvp(flow, (scale,), (jnp.ones(()),))))(scales)
    else:
        values, slopes = jax.jit(jax.vmap(jax.value_and_grad(descent)))(scales)
        assert relative_error(values[1], descent(1.0)) < tolerance("float64")
    # Central difference: step^2, and the tolerance of the integration over the step.
    assert abs(float(values[2] - values[0]) / (2 * step) - float(slopes[1])) < 1e-4 * abs(float(slopes[1]))


# -- starts --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("widths", [(), (3,), (5, 4), (6, 3, 7)])
def test_balanced_starts_have_their_product_and_no_imbalance(widths, rng):
    X = rng.normal(size=(3, n))  # rank 3 of 4 inputs
    problem = ld.LeastSquares(X, rng.normal(size=(3, m)))
    Theta = rng.normal(size=(n, m))
    start = ld.init.deep_balanced(problem, Theta, widths, key=jax.random.key(0))
    assert start.widths == widths and relative_error(start.product(), Theta) < tolerance("float64", 10)
    moving = ld.DeepLinear((problem.to_data(start.layers[0]), *start.layers[1:]))
    assert all(float(jnp.linalg.norm(D)) < tolerance("float64", 10) for D in moving.imbalances())


def test_starts_have_the_form_that_they_promise(problem, rng):
    key = jax.random.key(1)
    wide = ld.init.deep_gaussian((30, 40, 50, 20), key=key)
    assert [W.shape for W in wide.layers] == [(30, 40), (40, 50), (50, 20)]
    # The mean square of some thousand entries, in units of its standard error.
    for W in wide.layers:
        assert abs(float(jnp.mean(W**2)) * W.shape[0] - 1) < 5 * np.sqrt(2 / W.size)
    stds = ld.init.deep_gaussian((30, 40, 20), std=(0.1, 3.0), key=key)
    assert abs(float(jnp.std(stds.layers[1])) - 3) < 0.3 and abs(float(jnp.std(stds.layers[0])) - 0.1) < 0.01

    orthogonal = ld.init.deep_orthogonal((n, 7, 7, 7, m), std=(0.1, 0.2), gain=(2.0, 0.5), key=key)
    for gain, W in zip((2.0, 0.5), orthogonal.layers[1:-1], strict=True):
        assert relative_error(W.T @ W, gain**2 * np.eye(7)) < tolerance("float64")

    small = network(rng, (n, 2, 3, m))
    for draw in (None, key):
        core = ld.init.deep_core(small, (5, 6), key=draw)
        assert core.widths == (5, 6) and relative_error(core.product(), small.product()) < tolerance("float64")
    assert relative_error(ld.init.deep_core(small, (5, 6)).layers[1][:2, :3], small.layers[1]) == 0

    d = np.array([1.0, 2.0])
    aligned = ld.init.deep_aligned(problem, d, (5, 6), key=key)
    correlation = np.asarray(problem.X).T @ np.asarray(problem.Y)
    Phi, _, PsiT = np.linalg.svd(correlation, full_matrices=False)
    assert relative_error(aligned.product(), (Phi[:, :2] * np.exp(-3 * d)) @ PsiT[:2]) < tolerance("float64")
    assert all(relative_error(jnp.linalg.svd(W)[1][:2], np.exp(-d)) < tolerance("float64") for W in aligned.layers)
    two = ld.init.aligned(problem, d, 5)
    assert relative_error(ld.init.deep_aligned(problem, d, (5,)).product(), two.product()) < tolerance("float64")


def test_impossible_starts_are_refused(problem, rng):
    key, Theta = jax.random.key(0), np.ones((n, m))
    for ask, match in (
        (lambda: ld.init.deep_gaussian((3,), key=key), r"`sizes` must be \(n, h_1, ..., m\)"),
        (
            lambda: ld.init.deep_gaussian((3, 2), std=(1.0, 2.0), key=key),
            "`std` must be one number or 1 of them, but has 2",
        ),
        (lambda: ld.init.deep_orthogonal((3, 4, 5, 2), std=1.0, key=key), "with hidden layers of one width"),
        (lambda: ld.init.deep_core(network(rng, (n, 3, m)), (2,)), r"none smaller than \(3,\), but is \(2,\)"),
        (
            lambda: ld.init.deep_balanced(problem, np.eye(n, m), (3, 2)),
            "`widths` must be at least the rank 3 of its product",
        ),
        (
            lambda: jax.jit(lambda A: ld.init.deep_balanced(problem, A, (2,)))(Theta),
            r"must be at least min\(r, m\) = 3",
        ),
        (lambda: ld.init.deep_aligned(problem, np.ones(2), ()), "at least one hidden layer"),
        (lambda: ld.init.deep_aligned(problem, np.ones(3), (5, 2)), r"k <= min\(n, m, h\) = 2"),
    ):
        with pytest.raises(ValueError, match=match):
            ask()


# -- the balanced mode equation ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 3, 6])
def test_the_mode_equation_agrees_with_an_independent_integration(depth):
    sigma, lam, s0 = (
        x.ravel() for x in np.meshgrid([1.6, 0.3, -0.7, 0.0], [1.0, 0.4], [1e-5, 0.05, 3.0], indexing="ij")
    )
    mode = jax.jit(lambda t: ld.exact.deep_mode(sigma, lam, s0, t, depth))
    velocity = lambda t, s: depth * np.maximum(s, 0) ** (2 - 2 / depth) * (sigma - lam * s)  # noqa: E731
    if depth == 1:
        velocity = lambda t, s: sigma - lam * s  # noqa: E731
    times = [0.3, 4.0]
    path = solve_ivp(velocity, (0, times[-1]), s0, method="DOP853", t_eval=times, rtol=1e-12, atol=1e-18).y.T
    for t, s in zip(times, path, strict=True):
        # The integrator's tolerance a step, over some tens of steps.
        np.testing.assert_allclose(mode(t), s, rtol=1e-10)
    np.testing.assert_allclose(mode(0.0), s0, rtol=1e-13)


def test_the_network_obeys_the_mode_equation(rng):
    Y, depth, times = rng.normal(size=(3, 3)), 3, np.array([0.2, 1.0])
    Phi, sigma, PsiT = np.linalg.svd(Y)
    s0 = np.array([0.3, 0.05, 0.6])
    problem = ld.factorization(Y)
    start = ld.init.deep_balanced(problem, (Phi * s0) @ PsiT, (4, 5), key=jax.random.key(0))
    path = ld.gradient_flow(start, problem, times, solver="tsit5", keep_models=True).models
    for t, layers in zip(times, zip(*path.layers, strict=True), strict=True):
        expected = (Phi * ld.exact.deep_mode(sigma, 1.0, s0, t, depth)) @ PsiT
        # The default tolerance of the integration is 1e-9 a step.
        assert relative_error(ld.DeepLinear(layers).product(), expected) < 1e-7


def test_the_mode_and_its_time_are_inverse_to_each_other():
    s0, s = jnp.asarray([1e-4, 0.5, 3.0, 3.0]), jnp.asarray([0.3, 1.99999, 2.1, 2.9])
    for depth in (1, 2, 6):
        t = jax.jit(ld.exact.deep_mode_time, static_argnums=4)(1.0, 0.5, s0, s, depth)
        assert relative_error(
            jax.jit(ld.exact.deep_mode, static_argnums=4)(1.0, 0.5, s0, t, depth) / s, np.ones(4)
        ) < tolerance("float64")
    assert np.all(np.isnan(ld.exact.deep_mode_time(1.0, 0.5, jnp.asarray([0.5, 3.0]), jnp.asarray([2.5, 1.0]), 3)))


def test_limits_of_the_mode_equation():
    mode = jax.jit(ld.exact.deep_mode, static_argnums=4)
    d, t = 3.0, jnp.asarray([0.1, 2.0, 50.0])
    assert relative_error(mode(1.3, 0.7, jnp.exp(-2 * d), t, 2), ld.exact.aligned(1.3, 0.7, d, t)) < tolerance(
        "float64"
    )
    for depth in (2, 3, 5):
        value, applies = ld.exact.deep_mode_limit(1.3, 0.7, 0.2)
        assert bool(applies) and relative_error(mode(1.3, 0.7, 0.2, 1e3, depth), value) < tolerance("float64")
        rate = ld.exact.deep_mode_rate(1.3, 0.7, depth)
        left = [float(value - mode(1.3, 0.7, 0.2, k / rate.value, depth)) for k in (16, 18)]
        # The next order is about e^{-12} of the first, and round-off e^{18} eps.
        assert bool(rate.applies) and abs(np.log(left[0] / left[1]) - 2) < 1e-3
        assert float(mode(1.3, 0.7, 0.0, 5.0, depth)) == 0
        # Tiny starts wait on a plateau that grows with the depth.
        assert relative_error(mode(1.0, 1.0, 1e-300, 1.0, depth) / 1e-300, np.exp(2.0) if depth == 2 else 1.0) < 1e-10
    for depth in (2, 3, 5):
        # A small target has no weight, of either sign.
        bare = mode(0.0, 1.0, 0.5, 2.0, depth)
        for sigma in (1e-60, 1e-20, -1e-20, -1e-60):
            assert relative_error(mode(sigma, 1.0, 0.5, 2.0, depth) / bare, 1.0) < tolerance("float64")
    assert float(ld.exact.deep_mode_limit(-1.0, 1.0, 0.3).value) == 0
    # Where nothing bounds it, a lam that is not known to be 0 before.
    value, applies = jax.jit(ld.exact.deep_mode_limit)(1.0, 0.0, 0.3)
    assert float(value) == np.inf and not bool(applies)
    assert not bool(ld.exact.deep_mode_rate(-1.0, 1.0, 3).applies)


@pytest.mark.parametrize("depth", [2, 4])
def test_derivatives_of_the_mode_are_those_of_differences(depth):
    value = jax.jit(lambda a: ld.exact.deep_mode(a[0], a[1], a[2], a[3], depth))
    gradient = jax.jit(jax.grad(lambda a: ld.exact.deep_mode(a[0], a[1], a[2], a[3], depth)))
    for point in (
        (2.0, 0.9, 0.05, 0.7),
        (2.0, 0.9, 4.0, 0.2),
        (-1.0, 0.9, 0.5, 0.7),
        (0.0, 1.0, 0.5, 2.0),
        (1.0, 2.0, 0.5, 0.3),
    ):
        point, step = np.array(point), 1e-5
        differences = [(value(point + e) - value(point - e)) / (2 * step) for e in step * np.eye(4)]
        # Central differences are good to step^2 times third derivatives.
        np.testing.assert_allclose(gradient(point), differences, rtol=1e-6, atol=1e-8)
    assert abs(float(gradient(np.array([1.0, 1.0, 0.0, 2.0]))[2]) - (np.exp(4.0) if depth == 2 else 1.0)) < 1e-10


def test_the_mode_is_finite_at_extreme_times_and_starts_with_its_derivatives(dtype):
    # sigma, lambda, s0, t, and the strength: of no start, a usual and a tiny one at late times, and a falling tiny one.
    cases = np.array(
        [
            [0.5, 1.0, 0.0, 1e3, 0.0],
            [0.5, 1.0, 1e-3, 1e3, 0.5],
            [0.5, 1.0, 1e-30, 1e3, 0.5],
            [2.0, 1e-12, 1e-12, 0.1, 1e-12 * np.exp(0.4)],
            [-3.0, 1e-12, 1e-12, 0.1, 1e-12 * np.exp(-0.6)],
            [-3.0, 1e-25, 1e-25, 0.1, 1e-25 * np.exp(-0.6)],
        ]
    ).astype(dtype)
    mode = lambda a, depth: ld.exact.deep_mode(a[0], a[1], a[2], a[3], depth)  # noqa: E731
    everything = jax.jit(jax.vmap(jax.value_and_grad(mode), (0, None)), static_argnums=1)
    value, gradient = everything(cases[:, :4], 2)
    assert np.all(np.isfinite(gradient))
    size = np.where(cases[:, 4] > 0, cases[:, 4], 1)
    assert relative_error(value / size, cases[:, 4] / size) < tolerance(dtype, 10)
    assert relative_error(gradient[1], [1, -0.5, 0, 0]) < tolerance(dtype)
    # Before it grows, a tiny start has the derivative e^{2 sigma t} in itself.
    assert relative_error(gradient[3:, 2], np.exp([0.4, -0.6, -0.6])) < tolerance(dtype, 10)


def test_the_mode_in_float32():
    mode = jax.jit(ld.exact.deep_mode, static_argnums=4)
    value = mode(np.float32(2), np.float32(1), np.float32(0.01), np.float32(3), 3)
    assert value.dtype == np.float32
    assert relative_error(value, mode(2.0, 1.0, 0.01, 3.0, 3)) < tolerance("float32")


# -- refusals ------------------------------------------------------------------------------------------------------------


def test_bad_networks_are_refused(problem, rng):
    construct = inspect.unwrap(ld.DeepLinear.__init__)
    for layers, match in (
        ((), "a sequence of at least one matrix"),
        ((np.ones((n, 3)), np.ones((2, m))), r"layers\[0\] has 3 columns and layers\[1\] has 2 rows"),
        ((np.ones((n, 3)), np.ones(3)), r"`layers\[1\]` must have shape \(d_1, d_2\), but has shape \(3,\)"),
    ):
        with pytest.raises(ValueError, match=match):
            construct(object.__new__(ld.DeepLinear), layers)
    start = network(rng, (n, 3, 3, m))
    zero = ld.DeepLinear((0 * start.layers[0], start.layers[1], 0 * start.layers[2]))
    wide = network(rng, (n + 1, 3, m))
    descend = {"optimizer": optax.sgd(0.1)}
    for ask, match in (
        (lambda: ld.gradient_flow(zero, problem, np.ones(1)), "The start is a saddle, W1 = 0 and W3 = 0"),
        (lambda: ld.gradient_descent(zero, problem, 1, **descend), "The start is a saddle, W1 = 0 and W3 = 0"),
        (
            lambda: ld.gradient_descent(wide, problem, 1, **descend),
            r"\(W1 rows, WL columns\) must be \(4, 3\), but is \(5, 3\)",
        ),
        (lambda: start.velocity(problem.regularized(1.0)), "but the model is a DeepLinear"),
        (
            lambda: ld.gradient_flow(start, problem, np.ones(1), solver="radau"),
            "but the model is a DeepLinear: use 'auto'",
        ),
        (lambda: ld.exact.deep_mode(1.0, 1.0, 0.1, 1.0, 0), "`depth` must be at least 1, but is 0"),
        (lambda: ld.exact.deep_mode(1.0, 0.0, 0.1, 1.0, 3), "`lam` must be a positive number"),
        (lambda: ld.exact.deep_mode_time(1.0, 0.0, 0.1, 0.5, 3), "`lam` must be a positive number"),
        (lambda: ld.exact.deep_mode_limit(1.0, -1.0, 0.1), "`lam` must be a positive number"),
        (lambda: ld.exact.deep_mode_limit(1.0, 1.0, -0.1), "`s0` must not be negative"),
        (lambda: ld.exact.deep_mode_rate(1.0, 0.0, 3), "`lam` must be a positive number"),
        (lambda: ld.exact.deep_mode(1.0, 1.0, -0.1, 1.0, 3), "`s0` must not be negative"),
    ):
        with pytest.raises(ValueError, match=match):
            ask()
    with pytest.raises(ValueError, match=r"`depth` must be a whole number, but is 2\.5"):
        inspect.unwrap(ld.exact.deep._depth)(2.5)
