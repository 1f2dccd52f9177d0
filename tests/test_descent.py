"""Gradient descent: exact steps, result codes, derivatives, stable step sizes."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import load_cases, relative_error, tolerance

import lindyn_jax as ld
from lindyn_jax import descent, trajectory

N, n, m, h = 4, 6, 2, 9

# The public function without the run-time check of its annotations, which would refuse wrong types before it does.
unchecked = inspect.unwrap(ld.gradient_descent)


@pytest.fixture
def data(rng):
    return rng.normal(size=(N, n)), rng.normal(size=(N, m)), rng.normal(size=(n, h)) / 3, rng.normal(size=(m, h)) / 3


def numpy_descent(X, Y, U, V, q, eta, steps):
    for _ in range(steps):
        E = Y - X @ U @ V.T
        U, V = U + eta * q * X.T @ E @ V, V + eta * q * E.T @ X @ U
    return U, V


def final_loss(data, differentiate="reverse"):
    """The loss after 40 steps as a function of the step size."""
    X, Y, U, V = data
    model, problem = ld.TwoLayer(U, V), ld.LeastSquares(X, Y)

    def of_step_size(eta):
        out = ld.gradient_descent(model, problem, 40, optimizer=optax.sgd(eta), differentiate=differentiate)
        return out.final_observables["loss"]

    return of_step_size


# -- exact steps ---------------------------------------------------------------------------------------------------------


def test_thousand_steps_agree_with_a_numpy_loop(data):
    X, Y, U, V = data
    problem = ld.LeastSquares(X, Y, scale="mean")
    out = ld.gradient_descent(ld.TwoLayer(U, V), problem, 1000, optimizer=optax.sgd(0.05))
    U_end, V_end = numpy_descent(X, Y, U, V, 1 / N, 0.05, 1000)
    assert relative_error(out.final.U, U_end) < tolerance("float64")
    assert relative_error(out.final.V, V_end) < tolerance("float64")
    loss = np.sum((Y - X @ U_end @ V_end.T) ** 2) / (2 * N)
    assert relative_error(out.observables["loss"][-1], loss) < tolerance("float64")
    assert relative_error(out.observables["loss"][0], np.sum((Y - X @ U @ V.T) ** 2) / (2 * N)) < tolerance("float64")
    assert int(out.result) == trajectory.FINISHED and bool(out.ok)


def test_every_step_changes_the_imbalance_by_the_exact_amount(data):
    X, Y, U, V = data
    problem, eta, steps = ld.LeastSquares(X, Y), 0.03, 25
    models = ld.gradient_descent(
        ld.TwoLayer(U, V), problem, steps, optimizer=optax.sgd(eta), save_at=np.arange(steps + 1), keep_models=True
    ).models
    U, V = np.asarray(models.U), np.asarray(models.V)
    U1 = np.einsum("nr,tnh->trh", problem.Phi1, U)
    D = np.einsum("trh,trk->thk", U1, U1) - np.einsum("tmh,tmk->thk", V, V)
    largest = 0.0
    for t in range(steps):
        E = Y - X @ U[t] @ V[t].T
        G_U1, G_V = -np.asarray(problem.Phi1).T @ X.T @ E @ V[t], -E.T @ X @ U[t]
        change = eta**2 * (G_U1.T @ G_U1 - G_V.T @ G_V)
        largest = max(largest, np.linalg.norm(change))
        assert np.linalg.norm(D[t + 1] - D[t] - change) < tolerance("float64")
    assert largest > 1e-3  # the change that is tested must not itself be round-off


def test_a_step_of_descent_is_an_euler_step_of_the_flow(data):
    X, Y, U, V = data
    problem, start = ld.LeastSquares(X, Y, output_scale=0.6), ld.TwoLayer(U, V)
    out = ld.gradient_descent(start, problem, 1, optimizer=optax.sgd(0.1))
    velocity = start.velocity(problem)
    assert relative_error(out.final.U, U + 0.1 * velocity.U) < tolerance("float64")
    assert relative_error(out.final.V, V + 0.1 * velocity.V) < tolerance("float64")


def test_one_layer_agrees_with_the_matrix_power(data):
    X, Y, _, _ = data
    problem, eta, steps = ld.LeastSquares(X, Y), 0.02, 37
    Theta0 = np.ones((n, m))
    out = ld.gradient_descent(ld.LinearModel(Theta0), problem, steps, optimizer=optax.sgd(eta))
    limit = np.linalg.pinv(X) @ Y
    power = np.linalg.matrix_power(np.eye(n) - eta * X.T @ X, steps)
    assert relative_error(out.final.Theta, power @ (Theta0 - limit) + limit) < tolerance("float64")


def test_observing_does_not_change_the_path(data):
    X, Y, U, V = data
    problem = ld.LeastSquares(X, Y)
    often = ld.gradient_descent(
        ld.TwoLayer(U, V),
        problem,
        40,
        optimizer=optax.sgd(0.02),
        save_at=np.array([0, 3, 8, 9, 31, 40]),
        keep_models=True,
    )
    for i, steps in ((1, 3), (3, 9), (4, 31), (5, 40)):
        U_end, _ = numpy_descent(X, Y, U, V, 1.0, 0.02, steps)
        assert relative_error(often.models.U[i], U_end) < tolerance("float64")


def test_float32_stays_float32_and_agrees(data):
    X, Y, U, V = data
    X32, Y32, U32, V32 = (A.astype(np.float32) for A in data)
    out = ld.gradient_descent(ld.TwoLayer(U32, V32), ld.LeastSquares(X32, Y32), 40, optimizer=optax.sgd(0.02))
    assert out.final.U.dtype == np.float32 and out.observables["loss"].dtype == np.float32
    U_end, _ = numpy_descent(X, Y, U, V, 1.0, 0.02, 40)
    assert relative_error(out.final.U, U_end) < tolerance("float32")


# -- how a run ends ------------------------------------------------------------------------------------------------------


def test_stop_ends_the_run_and_leaves_later_slots_infinite(data):
    X, Y, U, V = data
    out = ld.gradient_descent(
        ld.TwoLayer(U, V),
        ld.LeastSquares(X, Y),
        4000,
        optimizer=optax.sgd(0.02),
        save_at=np.array([0, 8, 3999, 4000]),
        observables={"excess": "excess_loss", "count": lambda model, problem: jnp.array(7)},
        stop=1e-6,
        keep_models=True,
    )
    assert int(out.result) == trajectory.STOPPED and bool(out.ok)
    excess = np.asarray(out.observables["excess"])
    assert np.all(np.isfinite(excess[:2])) and np.all(np.isinf(excess[2:]))
    assert np.all(np.isfinite(out.models.U[1])) and np.all(np.isinf(out.models.U[2:]))
    assert list(out.observables["count"]) == [7, 7, *[np.iinfo(out.observables["count"].dtype).max] * 2]
    assert float(out.final_observables["excess"]) <= 1e-6 * excess[0]
    steps = int(out.stats["num_steps"])
    assert 8 < steps < 3999
    # The run ends within the eight steps between two tests.
    U_before, V_before = numpy_descent(X, Y, U, V, 1.0, 0.02, steps - 8)
    assert np.sum((Y - X @ U_before @ V_before.T) ** 2) / 2 > 1e-6 * excess[0]
    _, V_end = numpy_descent(X, Y, U, V, 1.0, 0.02, steps)
    assert relative_error(out.final.V, V_end) < tolerance("float64")


def test_a_stop_that_is_not_reached_finishes(data):
    X, Y, U, V = data
    out = ld.gradient_descent(
        ld.TwoLayer(U, V), ld.LeastSquares(X, Y), 40, optimizer=optax.sgd(1e-5), stop=1e-6, save_at=np.array([40])
    )
    assert int(out.result) == trajectory.FINISHED and int(out.stats["num_steps"]) == 40


def test_a_huge_step_diverges_and_says_so(data):
    X, Y, U, V = data
    options = {"save_at": np.arange(41), "observables": ("loss", "excess_loss", "imbalance_spectrum"), "stop": 0.5}
    out = ld.gradient_descent(ld.TwoLayer(U, V), ld.LeastSquares(X, Y), 40, optimizer=optax.sgd(50.0), **options)
    assert int(out.result) == trajectory.DIVERGED and not bool(out.ok)
    ended = int(out.stats["final_time"])
    first = int(np.argmax(np.isinf(out.observables["loss"])))
    assert ended % 8 == 0 and 0 < first < ended  # between the weights' end and the test that saw it
    for name, values in out.observables.items():
        assert np.all(np.isfinite(values[:first])) and np.all(np.isinf(values[first:])), name
        assert np.all(np.isinf(out.final_observables[name])), name
    assert "diverged" in repr(out)


@pytest.mark.parametrize("kind", [ld.Descent, ld.plain_descent, ld.polar_descent])
@pytest.mark.parametrize("step", [-0.1, 0, np.nan, np.array([0.1, 0.0])])
def test_steps_that_go_uphill_or_nowhere_are_refused(kind, step):
    with pytest.raises(ValueError, match="Argument `step_size` must be a positive number, but is"):
        inspect.unwrap(kind)(step)


def test_the_trajectory_prints_itself(data):
    X, Y, U, V = data
    out = ld.gradient_descent(ld.TwoLayer(U, V), ld.LeastSquares(X, Y), 40, optimizer=optax.sgd(0.02))
    assert "Trajectory of TwoLayer" in repr(out) and "finished" in repr(out) and "loss" in repr(out)


# -- derivatives and batches ---------------------------------------------------------------------------------------------


# Also one of the derivatives of simulations, which are all held in one table.
@pytest.mark.slow
def test_derivative_by_step_size_agrees_with_a_central_difference(data):
    value, other = jax.jit(final_loss(data)), final_loss(data, "forward")
    forward = jax.jit(lambda eta: jax.jvp(other, (eta,), (jnp.ones_like(eta),))[1])
    gradient, step = float(jax.jit(jax.grad(final_loss(data)))(0.02)), 1e-6
    difference = (float(value(0.02 + step)) - float(value(0.02 - step))) / (2 * step)
    # The difference quotient itself is accurate to about eps/step + step^2.
    assert abs(gradient - difference) < 1e-7 * abs(difference) and abs(difference) > 1e-2
    assert abs(float(forward(jnp.asarray(0.02))) - gradient) < 1e-11 * abs(gradient)


def test_the_gradient_is_the_same_where_few_states_are_kept(data, monkeypatch):
    X, Y, U, V = data
    gradients = []
    for kept in (descent.KEPT_BYTES, 0):
        monkeypatch.setattr(descent, "KEPT_BYTES", kept)
        # Another name is another program: how many states are kept is settled in it.
        observables = {f"loss, {kept} bytes": ld.observables.loss}

        def final(rates, observables=observables):
            optimizer = optax.sgd(lambda step: rates[step // 50])
            start, problem = ld.TwoLayer(U, V), ld.LeastSquares(X, Y)
            path = ld.gradient_descent(start, problem, 203, optimizer=optimizer, observables=observables)
            return sum(path.final_observables.values())

        gradients.append(jax.grad(final)(jnp.array([0.01, 0.02, 0.03, 0.02, 0.01])))
    np.testing.assert_allclose(*gradients, rtol=1e-12)
    assert bool(jnp.all(gradients[0] != 0))


def test_as_many_states_are_kept_as_fit_and_enough_where_none_do():
    carry, chunks = (jnp.zeros((1000, 1000)),), 10_000
    for loops, most in ((1, descent.KEPT_BYTES / 8e6), (4, descent.KEPT_BYTES / 32e6)):
        # Twice the root is where no state has to be computed more than twice.
        kept = descent._num_kept(carry, loops, chunks)
        assert kept <= max(most, 2 * chunks**0.5) and (kept + 1) * (kept + 2) > 2 * chunks
    assert descent._num_kept((jnp.zeros(10),), 4, chunks) == chunks


def test_vmap_over_step_sizes_equals_a_loop(data):
    etas = jnp.asarray([0.005, 0.01, 0.02])
    batch = jax.jit(jax.vmap(final_loss(data)))(etas)
    X, Y, U, V = data
    for eta, value in zip(etas, batch, strict=True):
        U_end, V_end = numpy_descent(X, Y, U, V, 1.0, float(eta), 40)
        assert relative_error(value, np.sum((Y - X @ U_end @ V_end.T) ** 2) / 2) < tolerance("float64")


def test_batched_stops_equal_single_ones(data):
    X, Y, U, V = data
    problem = ld.LeastSquares(X, Y)

    def run(stop):
        out = ld.gradient_descent(
            ld.TwoLayer(U, V), problem, 800, optimizer=optax.sgd(0.02), stop=stop, save_at=np.array([0])
        )
        return out.stats["num_steps"], out.final.V

    stops = jnp.asarray([1e-1, 1e-3])
    steps, weights = jax.jit(jax.vmap(run))(stops)
    assert steps[0] < steps[1]
    for i in range(2):
        assert relative_error(weights[i], numpy_descent(X, Y, U, V, 1.0, 0.02, int(steps[i]))[1]) < tolerance("float64")


# -- stable steps --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.5, 0.3])
def test_stable_step_keeps_a_very_wide_run_monotone(alpha, rng):
    problem = ld.LeastSquares(rng.normal(size=(N, n)), rng.normal(size=(N, m)))

    @jax.jit
    def drawn(key):
        start = ld.init.gaussian_core(problem, 10**6, alpha=alpha, key=key)
        return start, ld.stable_step(start, problem)

    start, eta = drawn(jax.random.key(3))
    options = {"save_at": np.arange(0, 401, 8), "observables": "excess_loss", "stop": 1e-12}

    @jax.jit
    def run(eta):
        out = ld.gradient_descent(start, problem, 400, optimizer=ld.plain_descent(eta), **options)
        return out.ok, out.observables["excess_loss"], out.final_observables["excess_loss"]

    ok, excess, _ = run(eta)
    excess = np.asarray(excess)
    excess = excess[np.isfinite(excess)]
    assert bool(ok) and len(excess) > 2
    assert np.all(np.diff(excess) <= 0)
    assert excess[-1] < 1e-2 * excess[0]
    # A hundred times that step is not stable: the bound is not idle.
    ok, _, end = run(100 * eta)
    assert not bool(ok) or float(end) > excess[0]


# -- reference cases -----------------------------------------------------------------------------------------------------


def test_reference_large_first_layer():
    case = load_cases("m22")["fig3_like_U_big"]
    given, expected = case["inputs"], case["expected"]
    U, V = given["sigma_U"] * np.array(given["U0"]), given["sigma_V"] * np.array(given["V0"])
    problem = ld.LeastSquares(np.diag(given["s"]), np.array(given["Ytilde"]), scale="averaged")
    steps = expected["iterations"]
    out = ld.gradient_descent(
        ld.TwoLayer(U, V), problem, steps, optimizer=optax.sgd(given["eta"]), save_at=np.array([0, steps - 1, steps])
    )
    assert relative_error(out.final.product(), expected["UVt_final"]) < tolerance("float64")
    losses = np.asarray(out.observables["loss"])
    assert relative_error(np.sqrt(2 * losses[0]), expected["E0_fro"]) < tolerance("float64")
    assert losses[2] < given["tol"] <= losses[1]


def compressed_case(name):
    case = load_cases("m22")[name]
    given, expected = case["inputs"], case["expected"]
    Z = np.array(given["Z0"])
    problem = ld.LeastSquares(np.array(given["X"]), np.array(given["Y"]))
    return problem, ld.TwoLayer(Z[: given["n"]], Z[given["n"] :]), given, expected


def test_reference_descent_through_the_reduction():
    problem, start, given, expected = compressed_case("compress_gd")
    out = ld.gradient_descent(start, problem, given["steps"], optimizer=optax.sgd(given["eta"]))
    assert relative_error(out.final.product(), expected["UVt_full"]) < tolerance("float64")
    assert relative_error(out.observables["loss"][-1], expected["loss_full"]) < tolerance("float64")


def test_reference_nesterov_through_the_reduction():
    problem, start, given, expected = compressed_case("compress_nesterov")
    steps, eta, momentum = given["steps"], 0.01, 0.9
    models = ld.gradient_descent(
        start,
        problem,
        steps,
        optimizer=optax.sgd(eta, momentum, nesterov=True),
        save_at=np.array([steps - 1, steps]),
        keep_models=True,
    ).models
    before, after = (jax.tree.map(lambda leaf, i=i: leaf[i], models) for i in range(2))
    # Optax keeps the look-ahead points y = z + eta momentum b; the reference keeps z.
    buffer = jax.tree.map(lambda y0, y1, g: ((y1 - y0) / eta - g) / momentum, before, after, before.velocity(problem))
    z = jax.tree.map(lambda y, b: y - eta * momentum * b, after, buffer)
    assert relative_error(z.product(), expected["UVt_full"]) < tolerance("float64", 10)


# -- refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"steps": 0}, "`steps` must be a static whole number of at least 1, but is 0"),
        ({"steps": 2.5}, "`steps` must be a static whole number"),
        ({"optimizer": 0.1}, "`optimizer` must be an optax transformation"),
        ({"optimizer": optax.adam}, r"but is the function `adam`: call it, as in `adam\(0.01\)`"),
        ({"optimizer": optax.sgd("1e-2")}, "a string is among what it was made of"),
        ({"observables": "losss"}, r"`observables` is 'losss': did you mean 'loss'\? It must be one of 'loss'"),
        ({"observables": "input_gram"}, r"give \{'input_gram': ld.observables.input_gram\}"),
        (
            {"observables": {"a": ld.observables.on(ld.factorization(np.eye(3)), "loss")}},
            "Observable `a`: The model does",
        ),
        ({"save_at": np.array([0, 50])}, "must increase strictly between 0 and steps = 40"),
        ({"save_at": np.array([-1, 5])}, "must increase strictly between 0 and steps"),
        ({"save_at": np.array([5, 5])}, "must increase strictly between 0 and steps"),
        ({"save_at": np.array([0.5, 5.0])}, "`save_at` must be a vector of whole step numbers"),
        ({"save_at": np.zeros((2, 2), int)}, "`save_at` must be a vector of whole step numbers"),
        ({"save_at": np.zeros(0, int)}, "`save_at` must be a vector of whole step numbers"),
        ({"stop": 0.0}, r"must lie in \(0, 1\), but is 0.0"),
        ({"stop": 1.0}, r"must lie in \(0, 1\), but is 1.0"),
        ({"differentiate": "both"}, "`differentiate` must be one of 'reverse', 'forward', but is 'both'"),
        ({"observables": "speed"}, "`observables` must be one of 'loss'"),
        ({"model": ld.TwoLayer(np.ones((n + 1, h)), np.ones((m, h)))}, "does not fit the problem"),
        ({"model": ld.LinearModel(np.ones((n, m + 1)))}, "does not fit the problem"),
        ({"model": ld.TwoLayer(np.zeros((n, h)), np.zeros((m, h)))}, "The start is the saddle"),
        ({"optimizer": optax.adam(0.1)}, "reduce=False"),
    ],
)
def test_bad_arguments_are_refused(change, match, data):
    X, Y, U, V = data
    arguments = {
        "model": ld.TwoLayer(U, V),
        "problem": ld.LeastSquares(X, Y),
        "steps": 40,
        "optimizer": optax.sgd(0.1),
        **change,
    }
    with pytest.raises(ValueError, match=match):
        unchecked(**arguments)


def test_a_whole_number_of_steps_may_be_written_as_a_float(data):
    X, Y, U, V = data
    arguments = ld.TwoLayer(U, V), ld.LeastSquares(X, Y), 1e1, ld.plain_descent(0.1), None
    assert descent._check(*arguments).tolist() == [0, 10]


def test_traced_step_numbers_are_refused(data):
    X, Y, U, V = data
    model, problem, optimizer = ld.TwoLayer(U, V), ld.LeastSquares(X, Y), optax.sgd(0.1)
    with pytest.raises(ValueError, match="`steps` must be a static whole number"):
        jax.jit(lambda steps: unchecked(model, problem, steps, optimizer=optimizer).result)(3)
    with pytest.raises(ValueError, match="`save_at` must be known before compiling"):
        jax.jit(lambda at: unchecked(model, problem, 3, optimizer=optimizer, save_at=at).result)(jnp.arange(3))


def test_stop_needs_a_problem_without_a_link(data):
    X, Y, U, V = data
    problem = ld.LeastSquares(X, Y, link=jax.nn.sigmoid)
    with pytest.raises(ValueError, match="`stop` needs the least loss"):
        ld.gradient_descent(ld.TwoLayer(U, V), problem, 5, optimizer=optax.sgd(0.1), stop=0.1)


def test_observables_that_mean_nothing_are_refused():
    resolve = inspect.unwrap(ld.observables.resolve)
    with pytest.raises(ValueError, match="`observables` has the entry 3: give names, or a dictionary"):
        resolve([3])
    for unnamed in (["loss", ld.observables.loss], lambda model, problem: 0.0):
        with pytest.raises(ValueError, match="has a function without a name: give a dictionary"):
            resolve(unnamed)
    with pytest.raises(ValueError, match="Observable `a` must be a name or a function"):
        resolve({"a": 3})
    problem, model = ld.factorization(np.eye(2)), ld.LinearModel(np.eye(2))
    with pytest.raises(ValueError, match="defined for two-layer models, but the model is a LinearModel"):
        inspect.unwrap(ld.observables.imbalance_spectrum)(model, problem)


# -- where a run ends, and in which units ------------------------------------------------------------------------------


def test_where_a_run_stops_does_not_depend_on_where_it_is_observed(data):
    X, Y, U, V = data
    problem, start = ld.LeastSquares(X, Y), ld.TwoLayer(U, V)
    ends = set()
    # As many places in each, so that one program serves them all.
    for save_at in ([0, 9, 1000], [3, 500, 1000], [1, 22, 1000], [37, 38, 1000], [8, 16, 1000]):
        run = ld.gradient_descent(
            start, problem, 1000, optimizer=ld.plain_descent(0.02), stop=1e-3, save_at=np.array(save_at)
        )
        ends.add((int(run.stats["num_steps"]), float(run.final_observables["loss"]), int(run.result)))
    assert len(ends) == 1
    steps, _, result = ends.pop()
    assert steps % 8 == 0 and 8 < steps < 1000 and result == trajectory.STOPPED


def test_the_level_of_the_wide_limit_is_no_weight(data):
    X, Y, *_ = data
    problem, start = ld.LeastSquares(X, Y), ld.WideLimit(np.zeros((n, m)), 2.0)
    clipped = optax.chain(optax.add_decayed_weights(0.3), optax.clip_by_global_norm(1e-3), optax.sgd(1.0))
    final = ld.gradient_descent(start, problem, 1, optimizer=clipped).final
    assert float(final.level) == 2.0
    assert relative_error(np.linalg.norm(final.Theta), 1e-3) < tolerance("float64")


@pytest.mark.slow
def test_the_level_of_the_wide_limit_has_no_noise(data):
    X, Y, *_ = data
    problem, start = ld.LeastSquares(X, Y), ld.WideLimit(np.zeros((n, m)), 2.0)
    final = ld.gradient_descent(start, problem, 5, optimizer=optax.noisy_sgd(0.01, key=0)).final
    assert float(final.level) == 2.0 and np.linalg.norm(final.Theta) > 0


@pytest.mark.parametrize("kind", ["two layers", "one layer", "deep"])
def test_descent_is_the_same_in_all_units(kind, data):
    # Y -> aY: each of L layers scales as a^{1/L} and the step as a^{2/L - 2}.
    X, Y, U, V = data
    depth = {"two layers": 2, "one layer": 1, "deep": 3}[kind]
    make = {
        "two layers": lambda c: ld.TwoLayer(c * U, c * V),
        "one layer": lambda c: ld.LinearModel(c * (U @ V.T)),
        "deep": lambda c: ld.DeepLinear([c * U, c * np.eye(h), c * V.T]),
    }[kind]
    found = {}
    for a in (1.0, 1e-30, 1e30):
        c = a ** (1 / depth)
        run = ld.gradient_descent(
            make(c),
            ld.LeastSquares(X, a * Y),
            40,
            optimizer=ld.plain_descent(jnp.asarray(0.02 * c**2 / a**2)),
            stop=1e-6,
        )
        found[a] = [np.asarray(run.final.product()) / a, np.asarray(run.observables["loss"]) / a**2]
        assert bool(run.ok)
    for a in (1e-30, 1e30):
        for scaled, plain in zip(found[a], found[1.0], strict=True):
            assert relative_error(scaled, plain) < tolerance("float64")
