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
    names = ("loss", "excess_loss", "reconstruction_error", "singular_values", "distance_to_theta_hat")

    @jax.jit
    def numbers(model, layers):
        observed = [ld.observables.OBSERVABLES[name](model, problem) for name in names]
        drift = ld.observables.imbalance_drift(jax.tree.map(lambda W: 1.1 * W, model), problem, model)
        return model.product(), *ld.theory.imbalances(model), *layers(model.velocity(problem)), drift, *observed

    first = numbers(two, jax.tree_util.Partial(lambda model: (model.U, model.V.T)))
    second = numbers(ld.DeepLinear((two.U, two.V.T)), jax.tree_util.Partial(lambda model: model.layers))
    assert gap(second, first) < tolerance("float64")


def test_imbalance_spectra_are_those_of_the_dense_matrices(rng):
    model = network(rng, (2, 9, 3, 4, 2))
    pairs = jax.jit(lambda model: (model.imbalances(), model.imbalance_spectra()))(model)
    for D, spectrum in zip(*pairs, strict=True):
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
    drifts = jax.jit(jax.vmap(lambda model: ld.theory.descent_drift(model, problem, eta)))(models)
    path = [np.asarray(W) for W in models.layers]
    largest = 0.0
    for W, after, drift in zip(path, path[1:], drifts, strict=False):
        D = np.swapaxes(W, 1, 2) @ W - after @ np.swapaxes(after, 1, 2)
        norms = np.linalg.norm(np.diff(D, axis=0) - drift[:-1], axis=(1, 2))
        assert np.max(norms) < tolerance("float64")
        largest = max(largest, np.max(np.linalg.norm(drift, axis=(1, 2))))
    assert largest > 1e-3  # the change that is tested must not itself be round-off
    layers = [np.asarray(W) for W in start.layers]
    X, Y, q, c = np.asarray(problem.X), np.asarray(problem.Y), 1 / N, 0.7
    for _ in range(steps):
        W1, W2, W3 = layers
        G = q * c * X.T @ (c * X @ W1 @ W2 @ W3 - Y)
        layers = [W1 - eta * G @ (W2 @ W3).T, W2 - eta * W1.T @ G @ W3.T, W3 - eta * (W1 @ W2).T @ G]
    assert gap([W[-1] for W in path], layers) < tolerance("float64")


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


@pytest.mark.parametrize("kind", ["forward", "reverse", "flow"])
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
        options = {"observables": (), "differentiate": kind}
        out = ld.gradient_descent(scaled, problem, 15, optimizer=ld.plain_descent(0.1), **options)
        return jnp.sum(jnp.linalg.svd(out.final.product(), compute_uv=False) ** 3)

    if kind == "reverse":
        values, slopes = jax.jit(jax.vmap(jax.value_and_grad(descent)))(scales)
    else:
        end = flow if kind == "flow" else descent
        values, slopes = jax.jit(jax.vmap(lambda scale: jax.jvp(end, (scale,), (jnp.ones(()),))))(scales)
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
    key, small, d = jax.random.key(1), network(rng, (n, 2, 3, m)), np.array([1.0, 2.0])

    @jax.jit
    def drawn():
        wide = [ld.init.deep_gaussian((30, 40, 50, 20), std=std, key=key) for std in (None, (0.1, 3.0, 1.0))]
        cores = [ld.init.deep_core(small, (5, 6), key=draw) for draw in (None, key)]
        aligned = ld.init.deep_aligned(problem, d, (5, 6), key=key), ld.init.deep_aligned(problem, d, (5,))
        orthogonal = ld.init.deep_orthogonal((n, 7, 7, 7, m), std=(0.1, 0.2), gain=(2.0, 0.5), key=key)
        return wide, cores, aligned, orthogonal, ld.init.aligned(problem, d, 5)

    (wide, stds), cores, (aligned, flat), orthogonal, two = jax.tree.map(np.asarray, drawn())
    product = lambda model: np.linalg.multi_dot(model.layers)  # noqa: E731
    assert [W.shape for W in wide.layers] == [(30, 40), (40, 50), (50, 20)]
    # The mean square of some thousand entries, in units of its standard error.
    for W in wide.layers:
        assert abs(np.mean(W**2) * W.shape[0] - 1) < 5 * np.sqrt(2 / W.size)
    assert abs(np.std(stds.layers[1]) - 3) < 0.3 and abs(np.std(stds.layers[0]) - 0.1) < 0.01
    for gain, W in zip((2.0, 0.5), orthogonal.layers[1:-1], strict=True):
        assert relative_error(W.T @ W, gain**2 * np.eye(7)) < tolerance("float64")
    for core in cores:
        assert core.widths == (5, 6) and relative_error(product(core), product(small)) < tolerance("float64")
    assert relative_error(cores[0].layers[1][:2, :3], small.layers[1]) == 0

    correlation = np.asarray(problem.X).T @ np.asarray(problem.Y)
    Phi, _, PsiT = np.linalg.svd(correlation, full_matrices=False)
    assert relative_error(product(aligned), (Phi[:, :2] * np.exp(-3 * d)) @ PsiT[:2]) < tolerance("float64")
    assert all(relative_error(np.linalg.svd(W)[1][:2], np.exp(-d)) < tolerance("float64") for W in aligned.layers)
    assert relative_error(product(flat), two.U @ two.V.T) < tolerance("float64")


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
    start = jax.jit(lambda: ld.init.deep_balanced(problem, (Phi * s0) @ PsiT, (4, 5), key=jax.random.key(0)))()
    path = ld.gradient_flow(start, problem, times, solver="tsit5", keep_models=True).models
    modes = jax.jit(jax.vmap(lambda t: ld.exact.deep_mode(sigma, 1.0, s0, t, depth)))(times)
    for s, W1, W2, W3 in zip(modes, *map(np.asarray, path.layers), strict=True):
        # The default tolerance of the integration is 1e-9 a step.
        assert relative_error(W1 @ W2 @ W3, (Phi * s) @ PsiT) < 1e-7


@pytest.mark.parametrize("depth", [1, 2, 6])
def test_the_mode_and_its_time_are_inverse_to_each_other(depth):
    # The last two times do not exist: what they ask for is on the other side of the limit.
    s0, s = np.array([1e-4, 0.5, 3.0, 3.0, 0.5, 3.0]), np.array([0.3, 1.99999, 2.1, 2.9, 2.5, 1.0])

    @jax.jit
    def there_and_back(s0, s):
        t = ld.exact.deep_mode_time(1.0, 0.5, s0, s, depth)
        return t, ld.exact.deep_mode(1.0, 0.5, s0, t, depth)

    t, back = (np.asarray(part) for part in there_and_back(s0, s))
    assert relative_error(back[:4] / s[:4], np.ones(4)) < tolerance("float64")
    assert np.all(np.isnan(t[4:]))


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_limits_of_the_mode_equation(depth):
    points = jax.jit(jax.vmap(lambda sigma, lam, s0, t: ld.exact.deep_mode(sigma, lam, s0, t, depth)))
    mode = lambda *numbers: np.asarray(points(*(np.resize(np.asarray(x, float), 5) for x in numbers)))  # noqa: E731
    limit = jax.jit(ld.exact.deep_mode_limit)
    rate, far = jax.jit(lambda: (ld.exact.deep_mode_rate(1.3, 0.7, depth), ld.exact.deep_mode_rate(-1.0, 1.0, depth)))()
    (value, applies), rate_value = limit(1.3, 0.7, 0.2), float(rate.value)
    late = mode(1.3, 0.7, [0.2, 0.2, 0.2, 0.0, 0.0], [1e3, 16 / rate_value, 18 / rate_value, 5.0, 5.0])
    assert bool(applies) and relative_error(late[0], value) < tolerance("float64")
    # The next order is about e^{-12} of the first, and round-off e^{18} eps.
    assert bool(rate.applies) and abs(np.log((value - late[1]) / (value - late[2])) - 2) < 1e-3
    assert late[3] == 0 and not bool(far.applies)
    # Tiny starts wait on a plateau that grows with the depth.
    assert relative_error(mode(1.0, 1.0, 1e-300, 1.0)[0] / 1e-300, np.exp(2.0) if depth == 2 else 1.0) < 1e-10
    # A small target has no weight, of either sign.
    small = mode([0.0, 1e-60, 1e-20, -1e-20, -1e-60], 1.0, 0.5, 2.0)
    assert np.max(np.abs(small / small[0] - 1)) < tolerance("float64")
    assert float(limit(-1.0, 1.0, 0.3).value) == 0
    # Where nothing bounds it, a lam that is not known to be 0 before.
    value, applies = limit(1.0, 0.0, 0.3)
    assert float(value) == np.inf and not bool(applies)
    if depth == 2:
        d, t = 3.0, np.array([0.1, 2.0, 50.0])
        aligned = ld.exact.aligned(1.3, 0.7, d, jnp.asarray(t))
        assert relative_error(mode(1.3, 0.7, np.exp(-2 * d), np.resize(t, 5))[:3], aligned) < tolerance("float64")


@pytest.mark.parametrize("depth", [2, 4])
def test_derivatives_of_the_mode_are_those_of_differences(depth):
    both = jax.jit(jax.vmap(jax.value_and_grad(lambda a: ld.exact.deep_mode(a[0], a[1], a[2], a[3], depth))))
    points = np.array(
        [
            (2.0, 0.9, 0.05, 0.7),
            (2.0, 0.9, 4.0, 0.2),
            (-1.0, 0.9, 0.5, 0.7),
            (0.0, 1.0, 0.5, 2.0),
            (1.0, 2.0, 0.5, 0.3),
        ]
    )
    step = 1e-5
    around = points[:, None] + step * np.concatenate([np.zeros((1, 4)), np.eye(4), -np.eye(4)])
    # The last point lies at a start of zero, where there is a derivative as well.
    value, gradient = both(np.concatenate([around.reshape(-1, 4), [[1.0, 1.0, 0.0, 2.0]]]))
    value, at = np.reshape(value[:-1], (5, 9)), np.reshape(gradient[:-1], (5, 9, 4))[:, 0]
    # Central differences are good to step^2 times third derivatives.
    np.testing.assert_allclose(at, (value[:, 1:5] - value[:, 5:]) / (2 * step), rtol=1e-6, atol=1e-8)
    assert abs(float(gradient[-1, 2]) - (np.exp(4.0) if depth == 2 else 1.0)) < 1e-10


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
