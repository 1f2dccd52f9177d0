"""Descent on batches, noisy labels and fresh samples: reference cases, exact reduction, distributions, refusals."""

import inspect
import itertools
import re
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import load_cases, relative_error, tolerance
from test_losses import KINDS, make, num_terms

import lindyn_jax as ld
from lindyn_jax import trajectory
from lindyn_jax.noise import picked, prepare_noise

CASES = load_cases("minibatch")
PAGES = Path(__file__).parent.parent / ".docs/pages"
KEY = jax.random.key(11)
N, n, m = 12, 6, 3
unchecked = inspect.unwrap(ld.gradient_descent)


def data(h, seed=0):
    """Inputs of rank 4 in 6 dimensions, targets, and a start."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, 4)) @ rng.normal(size=(4, n)) / 2
    return X, rng.normal(size=(N, m)), rng.normal(size=(n, h)) / h**0.5, rng.normal(size=(m, h)) / h**0.5


def final(model, problem, steps=24, *, eta=0.03, **options):
    return ld.gradient_descent(model, problem, steps, optimizer=optax.sgd(eta), **options)


# -- reference values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduce", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_batches_of_the_reference_cases(name, reduce):
    case = CASES[name]
    given = {key: np.asarray(value) for key, value in case["inputs"].items() if key != "loss"}
    problem, start = ld.LeastSquares(given["X"], given["Y"], scale="averaged"), ld.TwoLayer(given["U"], given["V"])
    out = ld.gradient_descent(
        start,
        problem,
        len(given["indices"]),
        optimizer=optax.sgd(float(given["step"]), float(given["momentum"]) or None),
        noise=ld.Minibatch(indices=given["indices"]),
        reduce=reduce,
    )
    U, V = out.final.U, out.final.V
    assert relative_error(U @ V.T, case["expected"]["Theta"]) < case["rel_or_abs_tol"]
    assert relative_error(U.T @ U - V.T @ V, case["expected"]["D"]) < case["rel_or_abs_tol"]


# -- the problem of some samples ---------------------------------------------------------------------------------------


def problem_of(kind, weighted):
    if kind in ("least squares", "sigmoid", "identity"):
        X, Y, _, _ = data(3)
        X = None if kind == "identity" else X
        return ld.LeastSquares(X, Y, scale=0.7, output_scale=0.8, link="sigmoid" if kind == "sigmoid" else None)
    return make(kind, weights=np.random.default_rng(1).uniform(0.5, 2, num_terms(kind)) if weighted else None)


@pytest.mark.parametrize("kind", ["least squares", "sigmoid", "identity", *KINDS])
def test_the_mean_over_batches_is_the_whole_problem(kind):
    problem = problem_of(kind, True)
    small, Phi1 = problem.restrict()
    Theta = jnp.asarray(0.4 * np.random.default_rng(2).normal(size=(problem.num_inputs, problem.num_outputs)))
    K = problem.num_samples
    weights = jnp.asarray(np.random.default_rng(3).normal(size=K))
    Theta1 = Theta if Phi1 is None else jnp.asarray(Phi1).T @ Theta

    def both(index):
        some = problem.rows(index)
        reduced = some.restrict()[0]
        assert reduced.num_inputs == small.num_inputs
        return some.loss(Theta), some.loss_gradient(Theta), some.reduced_loss(Theta1), reduced.loss_gradient(Theta1)

    @jax.jit
    def everything():
        gradient = lambda *index: problem.rows(jnp.asarray(index)).loss_gradient(Theta)  # noqa: E731
        batches = jnp.asarray([[i, (i + 1) % K, (i + 4) % K] for i in range(K)])
        whole = (
            problem.loss(Theta),
            problem.loss_gradient(Theta),
            problem.to_data(Theta),
            problem.reduced_loss_gradient(Theta1),
        )
        repeated = gradient(2, 2), gradient(2), gradient(*range(K))
        each = jax.vmap(lambda i: problem.rows(i[None]).loss_gradient(Theta))(jnp.arange(K))
        return jax.vmap(both)(batches), whole, repeated, each, problem.sampled().weighted_gradient(Theta, weights)

    batches, (loss, G, to_data, G1), (twice, once, all_of_them), each, weighted = everything()
    assert relative_error(to_data, Theta1) < 1e-13
    for values, expected in zip(batches, (loss, G, loss, G1), strict=True):
        assert relative_error(np.mean(values, axis=0), expected) < 1e-13
    # One sample that comes twice counts twice, and all of them are all of it.
    assert relative_error(twice, once) < 1e-14
    assert relative_error(all_of_them, G) < 1e-13
    assert relative_error(weighted, np.tensordot(weights, each, 1) / K) < 1e-13


def test_samples_out_of_range_are_refused_or_make_the_loss_nan():
    X, Y, U, V = data(3)
    problem, Theta = ld.LeastSquares(X, Y), jnp.asarray(U @ V.T)
    for wrong in ([0, 12], [-1]):
        with pytest.raises(ValueError, match=r"`index` must lie between 0 and 11, but is (12|-1) at index"):
            problem.rows(jnp.asarray(wrong))
        assert np.isnan(jax.jit(lambda index: problem.rows(index).loss(Theta))(jnp.asarray(wrong)))
    entries = make("masked")
    wrong = jnp.asarray([entries.num_samples])
    assert np.isnan(jax.jit(lambda index: entries.rows(index).loss(Theta))(wrong))


def test_rows_of_a_problem_of_ones_own():
    class Hinge(ld.OutputProblem):
        def output_loss(self, outputs, Y):
            return jnp.sum(jnp.logaddexp(0.0, -Y * outputs))

    class Weighed(Hinge):
        each: jax.Array = eqx.field(default_factory=lambda: jnp.ones(N))

        def __init__(self, X, Y):
            super().__init__(X, Y)
            self.each = jnp.ones(N)

    X, Y, U, V = data(5)
    index = np.random.default_rng(7).integers(N, size=(24, 4))
    out = final(ld.TwoLayer(U, V), Hinge(X, Y), noise=ld.Minibatch(indices=index), observables=()).final
    # A batch stands for all samples: N / 4 times its own sum.
    gradient = lambda T, B: -X[B].T @ (Y[B] / (1 + np.exp(Y[B] * (X[B] @ T)))) * N / 4  # noqa: E731
    expected = numpy_sgd(gradient, U, V, index, eta=0.03, momentum=0, decay=0)
    assert max(relative_error(out.U, expected[0]), relative_error(out.V, expected[1])) < 1e-12
    with pytest.raises(ValueError, match=r"has rows of its own in `each`: give it a `rows\(index\)`"):
        Weighed(X, Y).rows(jnp.arange(2))


# -- reduced = full size ------------------------------------------------------------------------------------------------


def numpy_sgd(gradient, U, V, indices, *, eta=0.02, momentum=0.8, decay=1e-2):
    """Full-size descent with momentum and decay, by NumPy; `gradient(Theta, index)` is dL_B/dTheta."""
    buffers = [np.zeros_like(U), np.zeros_like(V)]
    for index in indices:
        G = gradient(U @ V.T, index)
        steps = (G @ V + decay * U, G.T @ U + decay * V)
        buffers = [momentum * b + step for b, step in zip(buffers, steps, strict=True)]
        U, V = U - eta * buffers[0], V - eta * buffers[1]
    return U, V


@pytest.mark.parametrize("h", [3, 40, pytest.param(500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["least squares", "logistic", "completion"])
def test_a_thousand_reduced_steps_are_those_of_the_full_size(kind, h):
    X, Y, U, V = data(h)
    labels, mask = (Y > 0).astype(float), np.random.default_rng(5).uniform(size=(n, m)) < 0.8
    mask[:3] = True
    target = np.random.default_rng(6).normal(size=(n, m))
    i, j = np.nonzero(mask)
    count = len(i) if kind == "completion" else N
    problem, gradient = {
        "least squares": (ld.LeastSquares(X, Y, scale="mean"), lambda T, B: X[B].T @ (X[B] @ T - Y[B]) / 4),
        "logistic": (
            ld.Logistic(X, labels, scale="mean"),
            lambda T, B: X[B].T @ (1 / (1 + np.exp(-X[B] @ T)) - labels[B]) / 4,
        ),
        "completion": (
            ld.MatrixCompletion(target, mask, scale="mean"),
            lambda T, B: np.bincount(i[B] * m + j[B], (T - target)[i[B], j[B]], n * m).reshape(n, m) / 4,
        ),
    }[kind]
    indices = np.random.default_rng(7).integers(count, size=(1000, 4))
    U_end, V_end = numpy_sgd(gradient, U, V, indices)
    optimizer = optax.chain(optax.add_decayed_weights(1e-2), optax.sgd(0.02, 0.8))
    out = ld.gradient_descent(
        ld.TwoLayer(U, V), problem, 1000, optimizer=optimizer, noise=ld.Minibatch(indices=indices), observables=()
    )
    assert relative_error(out.final.U, U_end) < tolerance("float64")
    assert relative_error(out.final.V, V_end) < tolerance("float64")
    assert np.linalg.norm(U_end @ V_end.T - U @ V.T) > 0.1 and int(out.result) == trajectory.FINISHED


def test_noise_is_the_same_at_both_sizes():
    X, Y, U, V = data(30)
    start, labels = ld.TwoLayer(U, V), ld.LabelNoise(0.3, key=KEY)
    cases = [
        (ld.LeastSquares(X, Y, scale="mean"), labels),
        (ld.MatrixCompletion(Y[:n]), ld.Minibatch(2, key=KEY) + labels),
    ]
    for problem, noise in cases:
        small, full = (
            final(start, problem, noise=noise, reduce=reduce, observables=()).final for reduce in (True, False)
        )
        assert relative_error(small.product(), full.product()) < tolerance("float64")
        assert relative_error(full.product(), start.product()) > 1e-3


def test_weight_decay_of_the_problem_is_that_of_the_optimizer():
    X, Y, U, V = data(20)
    problem, start, noise = ld.LeastSquares(X, Y, scale="mean"), ld.TwoLayer(U, V), ld.Minibatch(3, key=KEY)
    decayed = final(start, ld.Penalised(problem, weight_decay=0.1), noise=noise, observables=()).final
    optimizer = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.03))
    other = ld.gradient_descent(start, problem, 24, optimizer=optimizer, noise=noise, observables=()).final
    assert relative_error(decayed.U, other.U) < tolerance("float64")
    assert relative_error(decayed.V, other.V) < tolerance("float64")


@pytest.mark.slow
def test_tied_and_deep_networks_take_batches():
    X, Y, U, _ = data(20)
    rng = np.random.default_rng(9)
    square = ld.LeastSquares(X, X @ rng.normal(size=(n, n)), scale="mean")
    Q = np.linalg.qr(rng.normal(size=(20, 20)))[0]
    problem = ld.LeastSquares(X, Y, scale="mean")
    middle = Q[:, :7] @ Q[:, 7:14].T
    deep = ld.DeepLinear((U, middle, rng.normal(size=(20, m)) / 4))
    for start, task in ((ld.SymmetricFactors(U), square), (deep, problem)):
        both = [
            final(start, task, noise=ld.Minibatch(3, key=KEY), reduce=reduce, eta=0.01).final
            for reduce in (True, False)
        ]
        assert relative_error(both[0].product(), both[1].product()) < tolerance("float64")


def test_a_run_at_a_width_of_a_billion():
    X, Y, _, _ = data(3)
    problem = ld.LeastSquares(X, Y, scale="mean")
    start = ld.init.gaussian_core(problem, 1e9, alpha=0.5, key=KEY)
    out = final(start, problem, noise=ld.Minibatch(3, key=KEY), eta=0.02)
    assert bool(out.ok) and float(out.observables["loss"][-1]) < float(out.observables["loss"][0])


# -- what is drawn -----------------------------------------------------------------------------------------------------


def drawn(noise, N, steps):
    """The numbers of the samples of each step."""
    problem = ld.LeastSquares(np.arange(1.0, N + 1)[:, None], np.ones((N, 1)))
    made = prepare_noise(noise, problem, steps, False)

    def step(state, k):
        now, state = made.draw(state, k)
        return state, jnp.round(now.X[:, 0] - 1).astype(int)

    return np.asarray(jax.jit(lambda made: jax.lax.scan(step, made.start(), jnp.arange(steps))[1])(made))


@pytest.mark.parametrize(("count", "size"), [(9, 4), (200, 3), (300, 290)])
def test_batches_without_replacement_are_uniform_sets(count, size):
    steps = 4000
    index = drawn(ld.Minibatch(size, key=KEY), count, steps)
    assert index.shape == (steps, size)
    assert all(len(set(row)) == size for row in index.tolist())
    share = np.bincount(index.ravel(), minlength=count) / steps
    p = size / count
    assert np.max(np.abs(share - p)) < 4 * np.sqrt(p * (1 - p) / steps)
    # Pairs as well: those of neighbours are no likelier than others.
    taken = np.zeros((steps, count), bool)
    np.put_along_axis(taken, index, True, 1)
    pairs = np.mean(np.sum(taken & np.roll(taken, 1, 1), axis=1))
    expected = size * (size - 1) / (count - 1)
    assert abs(pairs - expected) < 4 * np.sqrt(expected / steps)


@pytest.mark.parametrize(("count", "size"), [(5, 3), (4, 4), (3, 1)])
def test_every_ordered_set_comes_of_one_choice_of_places(count, size):
    places = list(itertools.product(*(range(count - i) for i in range(size))))
    sets = np.asarray(jax.vmap(lambda places: picked(places, count))(jnp.asarray(places, jnp.int32)))
    assert sorted(map(tuple, sets.tolist())) == list(itertools.permutations(range(count), size))


def test_the_first_of_the_largest_batch_are_uniform_sets():
    steps, count = 4000, 200
    index = drawn(ld.Minibatch(2, key=KEY, largest=3), count, steps)
    assert index.shape == (steps, 3) and all(len(set(row)) == 3 for row in index.tolist())
    assert np.array_equal(index[:, :2], drawn(ld.Minibatch(2, key=KEY), count, steps))
    share = np.bincount(index[:, :2].ravel(), minlength=count) / steps
    # The largest of two hundred.
    assert np.max(np.abs(share - 0.01)) < 5 * np.sqrt(0.01 / steps)


def test_batches_with_replacement_are_independent_samples():
    index = drawn(ld.Minibatch(3, key=KEY, replace=True), 5, 4000)
    assert np.max(np.abs(np.bincount(index.ravel()) / index.size - 0.2)) < 4 * np.sqrt(0.16 / index.size)
    same = np.mean(index[:, 0] == index[:, 1])
    assert abs(same - 0.2) < 4 * np.sqrt(0.16 / len(index))


def test_an_epoch_uses_every_sample_once_and_then_shuffles_anew():
    index = drawn(ld.Minibatch(4, key=KEY, replace="epoch"), 12, 12).reshape(4, 12)
    assert all(sorted(row) == list(range(12)) for row in index.tolist())
    assert len({tuple(row) for row in index.tolist()}) == 4
    left_out = drawn(ld.Minibatch(5, key=KEY, replace="epoch"), 12, 8).reshape(4, 10)
    assert all(len(set(row)) == 10 for row in left_out.tolist())
    assert len({frozenset(row) for row in left_out.tolist()}) > 1


def test_label_noise_has_the_variance_that_is_asked_for():
    X, Y, U, V = data(5)
    problem, start = ld.LeastSquares(X, Y), ld.TwoLayer(U, V)
    G = problem.reduced_loss_gradient(problem.to_data(start.product()))
    s = np.asarray(problem.singular_values)

    def gradients(noise, key):
        made = prepare_noise(eqx.tree_at(lambda part: part.key, noise, key), problem, 1, False)
        return (
            made.draw(made.start(), jnp.asarray(0))[0].restrict()[0].loss_gradient(problem.to_data(start.product())) - G
        )

    keys = jax.random.split(KEY, 20_000)
    noise = np.asarray(jax.jit(jax.vmap(lambda key: gradients(ld.LabelNoise(0.3, key=KEY), key)))(keys))
    variance = 0.09 * s[:, None] ** 2 * np.ones(m)
    assert np.all(np.abs(np.mean(noise, axis=0)) < 4 * np.sqrt(variance / len(keys)))
    assert np.all(np.abs(np.var(noise, axis=0) / variance - 1) < 4 * np.sqrt(2 / len(keys)))


def test_online_samples_of_the_teacher_have_the_gradient_of_the_problem_in_the_mean():
    X, Y, U, V = data(5)
    problem, start = ld.LeastSquares(X, Y, scale=0.5), ld.TwoLayer(U, V)
    teacher = ld.Teacher.of(problem, 4)
    Theta1 = problem.to_data(start.product())

    def gradient(key):
        made = prepare_noise(ld.Online(teacher, key=key), problem, 1, True)
        return made.draw(made.start(), jnp.asarray(0))[0].restrict()[0].loss_gradient(Theta1)

    drawn = np.asarray(jax.jit(jax.vmap(gradient))(jax.random.split(KEY, 20_000)))
    error = np.mean(drawn, axis=0) - problem.reduced_loss_gradient(Theta1)
    assert np.all(np.abs(error) < 4 * np.std(drawn, axis=0) / np.sqrt(len(drawn)))


@pytest.mark.slow
def test_online_samples_are_the_same_at_both_sizes():
    X, Y, U, V = data(5)
    problem, start = ld.LeastSquares(X, Y, scale=0.5), ld.TwoLayer(U, V)
    teacher = ld.Teacher.of(problem, 4)
    both = [
        final(start, problem, noise=ld.Online(teacher, key=KEY), reduce=reduce, eta=0.01) for reduce in (True, False)
    ]
    assert relative_error(both[0].final.U, both[1].final.U) < tolerance("float64")


# -- runs --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def setting():
    X, Y, U, V = data(4)
    return ld.TwoLayer(U, V), ld.LeastSquares(X, Y, scale="mean")


def test_all_samples_are_no_noise(setting):
    start, problem = setting
    plain = final(start, problem)
    for noise in (ld.FullBatch(), (ld.FullBatch(),)):
        assert np.array_equal(final(start, problem, noise=noise).final.U, plain.final.U)
    whole = final(start, problem, noise=ld.Minibatch(N, key=KEY))
    assert relative_error(whole.final.U, plain.final.U) < 1e-13


def test_a_run_does_not_depend_on_where_it_is_observed(setting):
    start, problem = setting
    noise = ld.Minibatch(5, key=KEY, replace="epoch") + ld.LabelNoise(0.1, key=KEY)
    often = final(start, problem, noise=noise, save_at=[0, 3, 8, 9, 17, 24], keep_models=True)
    once = final(start, problem, noise=noise, save_at=[9])
    assert np.array_equal(often.final.U, once.final.U)
    assert np.array_equal(often.observables["loss"][3], once.observables["loss"][0])
    # The first steps of a longer run are those of a shorter one.
    assert np.array_equal(final(start, problem, 9, noise=noise).final.U, often.models.U[3])


def test_keys_step_sizes_and_noise_are_numbers_of_a_batch(setting):
    start, problem = setting

    def run(key, eta, std):
        noise = (ld.Minibatch(2, key=key), ld.LabelNoise(std, key=key))
        return final(start, problem, eta=eta, noise=noise, observables=()).final.V

    keys, etas, stds = jax.random.split(KEY, 3), jnp.asarray([0.01, 0.02, 0.03]), jnp.asarray([0.0, 0.1, 0.2])
    single = jax.jit(run)
    batch = jax.jit(jax.vmap(run))(keys, etas, stds)
    for i in range(3):
        assert relative_error(batch[i], single(keys[i], etas[i], stds[i])) < 1e-13
    assert single._cache_size() == 1
    assert relative_error(batch[1], single(keys[0], etas[1], stds[1])) > 1e-3


@pytest.mark.parametrize("replace", [False, "epoch", pytest.param(True, marks=pytest.mark.slow)])
def test_sizes_of_batches_are_numbers_of_a_grid_beside_noise_and_steps(setting, replace):
    start, problem = setting
    grid, traced = {"size": [1, 2, 5], "std": [0.0, 0.2], "eta": [0.01, 0.03]}, []

    def last(key, noise, eta):
        options = {"optimizer": ld.plain_descent(eta), "noise": noise, "observables": (), "differentiate": "forward"}
        return ld.gradient_descent(start, problem, 24, **options).final.product()

    def trial(key, size, std, eta):
        traced.append(None)
        noise = ld.Minibatch(size, key=key, replace=replace, largest=5) + ld.LabelNoise(std, key=key)
        return {"Theta": last(key, noise, eta)}

    dims = {"Theta": ("n", "m")}
    dataset = ld.run_ensemble(trial, grid, 2, key=KEY, dims=dims)
    assert len(traced) == 1 and bool(dataset["ok"].all())
    key = jax.random.fold_in(KEY, 1)
    for size in grid["size"][1:]:
        # The first samples of a larger draw are those of a smaller one, and the rest counts nothing.
        noise = ld.Minibatch(size, key=key, replace=replace) + ld.LabelNoise(0.2, key=key)
        found = dataset["Theta"].sel(size=size, std=0.2, eta=0.03).values[1]
        assert relative_error(found, last(key, noise, 0.03)) < 1e-13
        assert relative_error(found, dataset["Theta"].sel(size=size, std=0.2, eta=0.03).values[0]) > 1e-3


def test_a_traced_size_is_that_of_a_draw_and_one_that_is_none_makes_the_run_diverge(setting):
    start, problem = setting
    penalised = ld.Penalised(problem, weight_decay=0.1)

    @jax.jit
    def run(size):
        out = final(start, penalised, noise=ld.Minibatch(size, key=KEY, largest=4), observables=())
        return out.result, out.final.product()

    assert [int(run(size)[0]) for size in (1.0, 4.0)] == [trajectory.FINISHED] * 2
    assert [int(run(size)[0]) for size in (0.0, 5.0, 2.5)] == [trajectory.DIVERGED] * 3
    # The first samples of a larger draw are those of a smaller one, and the rest counts nothing.
    alone = final(start, penalised, noise=ld.Minibatch(2, key=KEY), observables=()).final.product()
    assert relative_error(run(2.0)[1], alone) < 1e-13 and relative_error(run(1.0)[1], alone) > 1e-3


def test_the_largest_batch_is_one_of_entries_and_measurements_too():
    for kind in ("masked", "sensing"):
        problem = make(kind)
        index, Theta = jnp.arange(5), jnp.ones((problem.num_inputs, problem.num_outputs))

        @jax.jit
        def both(index, Theta, problem=problem):
            few = problem.rows(index).weighed(jnp.asarray([2.5, 2.5, 0, 0, 0]))
            return few.loss_gradient(Theta), problem.rows(index[:2]).loss_gradient(Theta)

        assert relative_error(*both(index, Theta)) < 1e-13


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_pathwise_derivatives_are_central_differences(setting, mode):
    start, problem = setting

    def loss(numbers):
        eta, std, scale = numbers
        noise = (ld.Minibatch(2, key=KEY), ld.LabelNoise(std, key=KEY))
        model = ld.TwoLayer(scale * start.U, start.V)
        out = final(model, problem, 12, eta=eta, noise=noise, observables=(), differentiate=mode)
        return problem.loss(out.final.product())

    def both(at, unit):
        if mode == "forward":
            return jax.jvp(loss, (at,), (unit,))
        value, gradient = jax.value_and_grad(loss)(at)
        return value, gradient @ unit

    # Before, at and behind the point, along each of the numbers.
    units, step = np.repeat(np.eye(3), 3, axis=0), 1e-6
    points = np.array([0.05, 0.3, 1.0]) + step * np.tile([-1, 0, 1], 3)[:, None] * units
    values, slopes = (np.reshape(part, (3, 3)) for part in jax.jit(jax.vmap(both))(points, units))
    central = (values[:, 2] - values[:, 0]) / (2 * step)
    assert np.all(np.abs(slopes[:, 1] - central) < 1e-6 * np.maximum(1.0, np.abs(central)))
    assert np.all(np.abs(central) > 1e-4)


def test_a_stop_is_about_the_whole_problem(setting):
    start, problem = setting
    out = final(start, problem, 4000, noise=ld.Minibatch(4, key=KEY), stop=0.5, save_at=[0, 3999])
    assert int(out.result) == trajectory.STOPPED and int(out.stats["num_steps"]) % 8 == 0
    excess = ld.observables.excess_loss
    assert float(excess(out.final, problem)) <= 0.5 * float(excess(start, problem))
    assert np.isinf(out.observables["loss"][1])
    steep = final(start, problem, 4000, noise=ld.Minibatch(4, key=KEY), eta=50.0, stop=0.5, save_at=[0, 3999])
    assert int(steep.result) == trajectory.DIVERGED


def test_batches_of_one_sample_in_single_precision(setting):
    start, _ = setting
    X, Y, _, _ = data(4)
    single = jax.tree.map(lambda leaf: leaf.astype(np.float32), start)
    problem = ld.LeastSquares(X.astype(np.float32), Y.astype(np.float32), scale="mean")
    noise = ld.Minibatch(1, key=KEY) + ld.LabelNoise(0.0, key=KEY)
    out = final(single, problem, noise=noise, eta=0.01)
    assert out.final.U.dtype == np.float32 and bool(out.ok)
    with jax.numpy_dtype_promotion("strict"):
        jax.eval_shape(lambda: final(single, problem, noise=noise, eta=0.01))
    twin = final(start, ld.LeastSquares(X, Y, scale="mean"), noise=ld.Minibatch(1, key=KEY), eta=0.01)
    assert relative_error(out.final.U, twin.final.U) < tolerance("float32", 10)


@pytest.mark.parametrize(
    ("optimizer", "is_exact"),
    [
        (optax.nadamw(0.01), False),
        (optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, 0.9, nesterov=True)), True),
    ],
)
def test_optimizers_are_admitted_as_without_noise(setting, optimizer, is_exact):
    start, problem = ld.TwoLayer(*(np.tile(W, 3) for W in (setting[0].U, setting[0].V))), setting[1]
    noise = ld.Minibatch(3, key=KEY)
    if not is_exact:
        with pytest.raises(ValueError, match="reduce=False"):
            ld.gradient_descent(start, problem, 9, optimizer=optimizer, noise=noise)
        return
    both = [
        ld.gradient_descent(start, problem, 24, optimizer=optimizer, noise=noise, reduce=r).final for r in (True, False)
    ]
    assert relative_error(both[0].U, both[1].U) < tolerance("float64")


# -- refusals ----------------------------------------------------------------------------------------------------------


class Whole(ld.OutputProblem):
    def output_loss(self, outputs, Y):
        return jnp.sum((outputs - Y) ** 4)


def refused():
    X, Y, U, V = data(4)
    problem, start = ld.LeastSquares(X, Y), ld.TwoLayer(U, V)
    custom = ld.CustomProblem(lambda Theta: jnp.sum(Theta**2), n, m)
    logistic = ld.Logistic(X, (Y > 0).astype(float))
    completion = ld.MatrixCompletion(Y[:n])
    run = lambda noise, problem=problem, **options: final(start, problem, noise=noise, **options)  # noqa: E731
    batch, labels = ld.Minibatch(3, key=KEY), ld.LabelNoise(0.1, key=KEY)
    wide = ld.TwoLayer(np.tile(U, 3), np.tile(V, 3))
    yield "`size` must be a static whole number of at least 1, but is 0", lambda: ld.Minibatch(0, key=KEY)
    yield "`size` must be a static whole number of at least 1, but is nan", lambda: ld.Minibatch(np.nan, key=KEY)
    yield (
        "`size` must be at most the number of samples, 12, without replacement, but is 13",
        lambda: run(ld.Minibatch(13, key=KEY)),
    )
    yield "at most the number of samples, 18", lambda: run(ld.Minibatch(19, key=KEY), completion)
    yield "at most the number of samples", lambda: run(ld.Minibatch(13, key=KEY, replace="epoch"))
    yield "One of the arguments `size` and `indices` must be given", lambda: ld.Minibatch(key=KEY)
    yield "needs a `key`, or the `indices`", lambda: run(ld.Minibatch(3))
    yield (
        "`replace` must be one of 'epoch'",
        lambda: inspect.unwrap(ld.Minibatch.__init__)(object.__new__(ld.Minibatch), 3, replace="x"),
    )
    yield (
        "`indices` must lie between 0 and 11, but is 12 at index",
        lambda: run(ld.Minibatch(indices=np.full((24, 2), 12))),
    )
    yield "`indices` must lie between 0 and 11, but is -1", lambda: run(ld.Minibatch(indices=np.full((24, 2), -1)))
    yield (
        "`indices` must have a row for each of the 24 steps, but has 5",
        lambda: run(ld.Minibatch(indices=np.zeros((5, 2), int))),
    )
    yield "`size` must be 2 for `indices`", lambda: ld.Minibatch(3, indices=np.zeros((5, 2), int))
    yield "`size` must be a whole number from 1 to `largest`, 4, but is 5", lambda: ld.Minibatch(5, key=KEY, largest=4)
    yield "`size` must be a whole number from 1 to `largest`, 4, but is 0", lambda: ld.Minibatch(0, key=KEY, largest=4)
    minibatch = inspect.unwrap(ld.Minibatch.__init__)
    yield (
        "`largest` must be a static whole number of at least 1, but is 1.5",
        lambda: minibatch(object.__new__(ld.Minibatch), 1, key=KEY, largest=1.5),
    )
    yield "`largest` must be at most the number of samples, 12", lambda: run(ld.Minibatch(2, key=KEY, largest=13))
    yield "but `indices` are given", lambda: ld.Minibatch(2, indices=np.zeros((5, 2), int), largest=2)
    yield (
        "A Whole does not know the losses of its samples one by one",
        lambda: run(ld.Minibatch(2, key=KEY, largest=3), Whole(X, Y)),
    )
    yield "`std` must be a finite number of at least 0, but is -1", lambda: ld.LabelNoise(-1.0, key=KEY)
    yield "needs a `key`, but has none", lambda: run(ld.LabelNoise(0.1))
    yield "a Logistic has no such targets", lambda: run(labels, logistic)
    yield "a CustomProblem has no such targets", lambda: run(labels, custom)
    yield "a CustomProblem is not known to be a sum over samples", lambda: run(batch, custom)
    yield "Only one noise may act on the samples, but Minibatch and Minibatch do", lambda: run((batch, batch))
    yield "Only one noise may act on the targets", lambda: run(labels + labels)
    yield "`noise` must be a noise such as", lambda: unchecked(start, problem, 9, optimizer=optax.sgd(0.1), noise=3)
    yield (
        "of which a MatrixCompletion has none",
        lambda: run(ld.Online(ld.Teacher(U @ V.T), key=KEY), completion),
    )
    yield (
        r"keeps the 4 that the\s+problem's own data see",
        lambda: final(wide, problem, noise=ld.Online(ld.Teacher(U @ V.T), key=KEY)),
    )
    yield (
        r"must make arrays of shapes \(B, 6\) and \(B, 3\), but makes",
        lambda: run(ld.Online(ld.Teacher(V @ U.T), key=KEY), reduce=False),
    )
    yield "`sampler` must be a function of a key", lambda: run(ld.Online(lambda key: 3, key=KEY), reduce=False)
    yield (
        "use `gradient_descent` for steps on batches, or `stochastic_flow`",
        lambda: ld.gradient_flow(start, problem, [1.0], noise=batch),
    )
    mask = jnp.ones((n, m))
    yield (
        "its mask is traced",
        lambda: jax.jit(lambda mask: run(ld.Minibatch(2, key=KEY), ld.MatrixCompletion(Y[:n], mask)).final.U)(mask),
    )


def test_noise_that_does_not_fit_is_refused_in_a_sentence():
    for match, call in refused():
        with pytest.raises(ValueError, match=match):
            call()


@pytest.mark.slow
def test_the_guides_run():
    section = (PAGES / "api/dynamics.md").read_text().split("## Batches and noisy labels")[1].split("\n## ")[0]
    names = {}
    exec("\n".join(re.findall(r"```python\n(.*?)```", section, re.S)), names)
    assert bool(names["run"].ok) and bool(names["limit"].ok) and np.all(np.isfinite(names["losses"]))
    section = (PAGES / "getting-started.md").read_text().split("## Batches")[1].split("\n## ")[0]
    exec(re.search(r"```python\n(.*?)```", section, re.S)[1], names)
    assert bool(names["run"].ok)
