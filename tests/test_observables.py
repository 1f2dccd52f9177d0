"""Observables of rank, modes and kernel against their definitions on full-size matrices, and on reduced models."""

import re
from itertools import pairwise
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import relative_error, tolerance
from scipy.stats import ks_2samp

import lindyn_jax as ld
from lindyn_jax import observables as obs

SHAPE = (9, 4, 3, 12)


@pytest.fixture
def case(rng, dtype):
    N, n, m, h = SHAPE
    X, Y = rng.normal(size=(N, n)).astype(dtype), rng.normal(size=(N, m)).astype(dtype)
    U, V = rng.normal(size=(n, h)).astype(dtype), rng.normal(size=(m, h)).astype(dtype)
    return ld.TwoLayer(U, V), ld.LeastSquares(X, Y, scale="mean", output_scale=1.2)


def test_nuclear_norm_and_effective_rank_are_those_of_the_singular_values(case, dtype):
    model, problem = case
    sigma = np.linalg.svd(np.asarray(model.product(), float), compute_uv=False)
    p = sigma / sigma.sum()
    assert abs(obs.nuclear_norm(model, problem) / sigma.sum() - 1) < tolerance(dtype, 10)
    assert abs(obs.effective_rank(model, problem) / np.exp(-np.sum(p * np.log(p))) - 1) < tolerance(dtype, 10)
    reduced = ld.reduce(model, problem)
    for name in ("nuclear_norm", "effective_rank", "mode_strengths", "alignment"):
        value, seen = (obs.OBSERVABLES[name](m, problem) for m in (model, reduced))
        assert relative_error(seen, value) < tolerance(dtype, 30)
        assert value.dtype == dtype


def test_effective_rank_counts_equal_singular_values_and_has_a_derivative_everywhere():
    problem = ld.factorization(np.eye(4))
    for k in range(5):
        model = ld.LinearModel(jnp.diag(jnp.where(jnp.arange(4) < k, 0.7, 0.0)))
        assert abs(obs.effective_rank(model, problem) - k) < 1e-12
    gradient = jax.jit(jax.grad(lambda Theta: obs.effective_rank(ld.LinearModel(Theta), problem)))
    for diagonal in ([2.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0], [0.0] * 4):
        assert bool(jnp.all(jnp.isfinite(gradient(jnp.diag(jnp.array(diagonal))))))


def test_mode_strengths_are_the_components_along_the_correlation(case, dtype):
    model, problem = case
    X, Y = np.asarray(problem.X, float), np.asarray(problem.Y, float)
    Phi, _, PsiT = np.linalg.svd(X.T @ Y, full_matrices=False)
    w = np.diag(Phi.T @ np.asarray(model.product(), float) @ PsiT.T)
    assert relative_error(obs.mode_strengths(model, problem), w) < tolerance(dtype, 30)
    share = np.sum(w**2) / np.sum(np.asarray(model.product(), float) ** 2)
    assert abs(obs.alignment(model, problem) - share) < tolerance(dtype, 30)


def test_an_aligned_start_has_strengths_e_to_the_minus_2d_and_alignment_1(rng):
    # Fewer samples than inputs: the modes lie in the range of the data.
    problem = ld.LeastSquares(rng.normal(size=(5, 8)), rng.normal(size=(5, 3)))
    d = np.array([1.0, 2.0, 3.0])
    start = ld.init.aligned(problem, d, 6, key=jax.random.key(0))
    assert relative_error(obs.mode_strengths(start, problem), np.exp(-2 * d)) < 1e-13
    assert abs(obs.alignment(start, problem) - 1) < 1e-12
    zero = ld.TwoLayer(0 * start.U, start.V)
    assert obs.alignment(zero, problem) == 0 and obs.effective_rank(zero, problem) == 0


def tangent_kernel(model, problem):
    """J J^T of the outputs with respect to all weights, in full size."""
    leaves, shape = jax.tree.flatten(model)
    jacobian = jax.jacrev(lambda leaves: problem.predict(jax.tree.unflatten(shape, leaves).product()).ravel())(leaves)
    rows = np.concatenate([np.asarray(J).reshape(J.shape[0], -1) for J in jacobian], axis=1)
    return rows @ rows.T


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_kernel_distance_is_that_of_the_full_tangent_kernels(depth, rng):
    N, n, m, _ = SHAPE
    problem = ld.LeastSquares(rng.normal(size=(N, n)), rng.normal(size=(N, m)), output_scale=1.2)
    sizes = [*[n, 5, 6, 7][:depth], m]
    layers = [[rng.normal(size=pair) for pair in pairwise(sizes)] for _ in range(2)]
    if depth == 2:
        start, model = (ld.TwoLayer(W[0], W[1].T) for W in layers)
    else:
        start, model = (ld.LinearModel(W[0]) if depth == 1 else ld.DeepLinear(W) for W in layers)
    K, K0 = (tangent_kernel(x, problem) for x in (model, start))
    expected = 1 - np.sum(K * K0) / np.linalg.norm(K) / np.linalg.norm(K0)
    assert abs(obs.kernel_distance(model, problem, start) - expected) < 1e-12
    if depth == 1:
        assert expected < 1e-12
    if depth == 2:
        reduced = [ld.reduce(x, problem) for x in (model, start)]
        assert abs(obs.kernel_distance(reduced[0], problem, reduced[1]) - expected) < 1e-12


def test_kernel_distance_keeps_its_digits_near_the_start(rng):
    N, n, m, h = SHAPE
    problem = ld.LeastSquares(rng.normal(size=(N, n)), rng.normal(size=(N, m)))
    start = ld.TwoLayer(rng.normal(size=(n, h)), rng.normal(size=(m, h)))
    dU, dV = rng.normal(size=(n, h)), rng.normal(size=(m, h))
    distance = jax.jit(lambda U, V: obs.kernel_distance(ld.TwoLayer(U, V), problem, start))
    near = [distance(start.U + t * dU, start.V + t * dV) for t in (1e-3, 1e-7)]
    # Of second order: 1e-8 times smaller, at 1e-15, where one minus a cosine would be lost.
    assert abs(near[1] / near[0] / 1e-8 - 1) < 1e-2
    assert obs.kernel_distance(start, problem, start) == 0
    gradient = jax.jit(jax.grad(distance))(start.U, start.V)
    assert np.max(np.abs(gradient)) < 1e-16
    assert np.isfinite(distance(0 * start.U, 0 * start.V))


def test_distances_that_are_zero_have_derivative_zero(rng):
    N, n, m, h = 3, 5, 2, 6
    problem = ld.LeastSquares(rng.normal(size=(N, n)), rng.normal(size=(N, m)))
    # At the minimum-norm solution, from where it started: every distance is zero.
    solution = ld.init.balanced(problem, problem.theta_hat, h)
    none = ld.LeastSquares(problem.X, np.zeros((N, m)))
    zero = ld.TwoLayer(jnp.zeros((n, h)), jnp.zeros((m, h)))
    reduced, solved = ld.reduce(zero, none), ld.reduce(solution, problem)

    def distances(model, problem):
        names = ("reconstruction_error", "distance_to_theta_hat", "frozen_product_norm")
        return jnp.stack(
            [
                *(obs.OBSERVABLES[name](model, problem) for name in names),
                obs.imbalance_drift(model, problem, jax.lax.stop_gradient(model)),
            ]
        )

    @jax.jit
    def everything(model, problem):
        value, pullback = jax.vjp(lambda model: distances(model, problem), model)
        return value, pullback(jnp.ones_like(value))

    for model, data in ((zero, none), (reduced, none), (solution, problem), (solved, problem)):
        value, gradient = everything(model, data)
        assert np.max(np.abs(value)) < 1e-13
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))
    # Without a target an error is infinite relative to it.
    assert obs.reconstruction_error(solution, none) == np.inf


def test_solvers_measure_the_new_observables_along_the_way(rng):
    N, n, m, h = SHAPE
    problem = ld.LeastSquares(rng.normal(size=(N, n)), rng.normal(size=(N, m)), scale="mean")
    start = ld.TwoLayer(rng.normal(size=(n, h)), rng.normal(size=(m, h)))
    names = ["nuclear_norm", "effective_rank", "mode_strengths", "alignment", "kernel_distance"]
    run = ld.gradient_descent(start, problem, 20, optimizer=ld.plain_descent(0.01), observables=names)
    for name in names:
        function = obs.OBSERVABLES[name]
        arguments = (run.final, problem, start) if name == "kernel_distance" else (run.final, problem)
        assert relative_error(run.final_observables[name], function(*arguments)) < 1e-11
    assert run.observables["kernel_distance"][0] < 1e-20 and run.observables["kernel_distance"][-1] > 1e-6
    assert run.observables["mode_strengths"].shape == (2, m)


class Diagonal(ld.AbstractModel):
    """A network of a user's own, beta = u * v, of which only the product is written down."""

    u: jnp.ndarray
    v: jnp.ndarray

    def product(self):
        return (self.u * self.v)[:, None]


@pytest.mark.parametrize("kind", ["diagonal", "tied"])
def test_a_network_of_any_kind_has_the_kernel_distance_of_its_jacobian(kind, rng, dtype):
    # More samples than inputs, or fewer: the kernel is computed in the data's coordinates.
    for samples in (9, 3):
        X, Y = rng.normal(size=(samples, 4)).astype(dtype), rng.normal(size=(samples, 4)).astype(dtype)
        problem = ld.LeastSquares(X, Y[:, :1] if kind == "diagonal" else Y)
        u, v = (rng.normal(size=(2, *((4,) if kind == "diagonal" else (4, 5)))).astype(dtype) for _ in range(2))
        start, model = (
            Diagonal(jnp.asarray(a), jnp.asarray(b)) if kind == "diagonal" else ld.SymmetricFactors(a)
            for a, b in zip(u, v, strict=True)
        )
        K, K0 = (tangent_kernel(x, problem).astype(float) for x in (model, start))
        expected = 1 - np.sum(K * K0) / np.linalg.norm(K) / np.linalg.norm(K0)
        assert expected > 1e-4
        assert abs(obs.kernel_distance(model, problem, start) - expected) < tolerance(dtype, 10)
        # In all units, without a distance from itself.
        tiny, small = (jax.tree.map(lambda leaf: leaf * jnp.asarray(1e-15, dtype), x) for x in (model, start))
        assert abs(obs.kernel_distance(tiny, problem, small) - expected) < tolerance(dtype, 10)
        assert obs.kernel_distance(start, problem, start) == 0
    if kind == "diagonal":
        step = ld.plain_descent(1e-2)
        run = ld.gradient_descent(start, problem, 8, optimizer=step, observables="kernel_distance")
        expected = obs.kernel_distance(run.final, problem, start)
        assert relative_error(run.final_observables["kernel_distance"], expected) < tolerance(dtype, 10)


def test_the_wide_limit_has_the_tangent_kernel_of_a_wide_network(rng):
    n, m, r, h, level = 5, 3, 4, 20_000, 0.8
    problem = ld.LeastSquares(rng.normal(size=(r, n)), rng.normal(size=(r, m)))
    Theta = 0.5 * rng.normal(size=(n, m))
    wide, at_zero = ld.WideLimit(Theta, level), ld.WideLimit(np.zeros((n, m)), level)
    distance = obs.kernel_distance(wide, problem, at_zero)
    rows, columns = (_square_root(G + level**2 * np.eye(len(G))) for G in (Theta @ Theta.T, Theta.T @ Theta))
    X, kernels = np.asarray(problem.X), []
    for R, C in ((rows, columns), (level * np.eye(n), level * np.eye(m))):
        kernels.append(np.kron(X @ R @ X.T, np.eye(m)) + np.kron(X @ X.T, C))
    K, K0 = kernels
    assert abs(distance - (1 - np.sum(K * K0) / (np.linalg.norm(K) * np.linalg.norm(K0)))) < 1e-13
    assert distance > 1e-3
    # As of a network of this width from a Gaussian start, in its own tangent kernel.
    start = ld.init.gaussian(n, m, h, std=(level / h) ** 0.5, key=jax.random.key(0))
    times = jnp.array([1.0])
    runs = [
        ld.gradient_flow(model, problem, times, observables="kernel_distance", solver="tsit5", rtol=1e-6)
        for model in (start, at_zero)
    ]
    network, limit = (run.observables["kernel_distance"][0] for run in runs)
    assert abs(network - limit) < 0.05 * limit


def test_unknown_kinds_of_models_are_refused_and_not_given_a_number(rng):
    class Own(ld.AbstractModel):
        Theta: jnp.ndarray

        def product(self):
            return self.Theta

        def velocity(self, problem):
            return Own(-problem.loss_gradient(self.Theta))

    problem = ld.LeastSquares(rng.normal(size=(4, 5)), rng.normal(size=(4, 2)))
    own, wide = Own(jnp.ones((5, 2))), ld.WideLimit(np.ones((5, 2)), 1.0)
    for call in (
        lambda: obs.imbalance_drift(own, problem, own),
        lambda: ld.theory.stationarity(own, problem),
        lambda: ld.theory.stationary_point(own, problem),
        lambda: ld.theory.hessian_sharpness(own, problem),
    ):
        with pytest.raises(ValueError, match="Own"):
            call()
    with pytest.raises(ValueError, match="WideLimit has no Hessian"):
        ld.theory.hessian_sharpness(wide, problem)
    with pytest.raises(ValueError, match=r"the shape of its product must be \(5, 2\), but is \(4, 2\)"):
        ld.gradient_flow(Own(jnp.ones((4, 2))), problem, jnp.array([1.0]))
    deep = ld.DeepLinear([rng.normal(size=s) for s in ((5, 4), (4, 4), (4, 2))])
    with pytest.raises(ValueError, match="networks of one depth"):
        obs.kernel_distance(deep, problem, wide)
    with pytest.raises(ValueError, match="of one kind, but the model is a Own and the start a LinearModel"):
        obs.kernel_distance(own, problem, ld.LinearModel(own.Theta))
    # A WideLimit stands still where K G = 0, which is at the minimum.
    assert ld.theory.stationarity(ld.WideLimit(problem.theta_hat, 1.0), problem).holds
    assert not ld.theory.stationarity(wide, problem).holds


def _square_root(A):
    values, vectors = np.linalg.eigh(A)
    return (vectors * np.sqrt(values)) @ vectors.T


# -- the decorator -------------------------------------------------------------------------------------------------------


@pytest.fixture
def table(monkeypatch):
    """The table of observables, in which what a test registers is forgotten afterwards."""
    before = dict(obs.OBSERVABLES)
    yield obs.OBSERVABLES
    obs.OBSERVABLES.clear()
    obs.OBSERVABLES.update(before)


def test_an_observable_of_one_s_own_is_one_function_as_the_documentation_shows(table):
    page = Path(__file__).parent.parent / ".docs" / "pages" / "api" / "observables.md"
    own, used = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    assert len(own.splitlines()) < 30
    names = {}
    for code in (own, used):
        exec(compile(code, "observables.md", "exec"), names)
    flow, descent, dataset, many = (names[x] for x in ("flow", "descent", "dataset", "many"))
    for run in (flow, descent):
        largest = np.linalg.norm(run.final.product(), ord=2)
        assert relative_error(run.final_observables["spectral_norm"], largest) < tolerance("float64", 10)
    assert dataset["spectral_norm"].attrs == {
        "long_name": "largest singular value of Theta",
        "symbol": r"$\|\Theta\|_2$",
        "units": "1",
        "scale": "log",
        "panel": "norm",
    }
    assert many["spectral_norm"].attrs == dataset["spectral_norm"].attrs
    assert many["spectral_norm"].shape == (2, 2, 1)
    (ax,) = (ax for ax in names["figure"].axes if ax.get_title() == "norm")
    assert ax.get_ylabel() == r"$\|\Theta\|_2$"
    assert np.array_equal(ax.lines[0].get_ydata(), dataset["spectral_norm"])
    # What is stored is drawn as it was where the function is not known.
    del table["spectral_norm"]
    assert [ax.get_title() for ax in ld.plots.trajectory(dataset, "mine").axes] == ["loss", "norm"]


def test_an_observable_is_refused_in_one_sentence_where_it_is_not_defined(table, rng):
    @obs.observable(symbol="$s$", label="spread", units="s", kinds=(ld.LinearModel, ld.TwoLayer), needs_start=True)
    def spread(model, problem, start):
        return jnp.max(model.product()) - jnp.max(start.product())

    problem = ld.factorization(rng.normal(size=(3, 2)))
    # By keywords as well.
    same = ld.LinearModel(np.ones((3, 2)))
    assert spread(model=same, problem=problem, start=same) == obs.imbalance_drift(
        start=ld.TwoLayer(np.eye(3), np.eye(2, 3)), problem=problem, model=ld.TwoLayer(np.eye(3), np.eye(2, 3))
    )
    one, deep = ld.LinearModel(np.ones((3, 2))), ld.DeepLinear((np.ones((3, 3)), np.ones((3, 2))))
    assert spread(one, problem, one) == 0
    match = r"^Observable `spread` is defined for models of kind LinearModel or TwoLayer, but the model is of kind DeepLinear\."
    for call in (
        lambda: spread(deep, problem, deep),
        lambda: ld.gradient_flow(deep, problem, jnp.array([1.0]), observables="spread", solver="tsit5"),
        lambda: ld.gradient_descent(deep, problem, 1, optimizer=ld.plain_descent(0.1), observables="spread"),
    ):
        with pytest.raises(ValueError, match=match):
            call()
    # A start is given to it in the user's coordinates as well.
    wide = ld.TwoLayer(rng.normal(size=(3, 40)), rng.normal(size=(2, 40)))
    run = ld.gradient_descent(wide, problem, 8, optimizer=ld.plain_descent(1e-2), observables={"s": "spread"})
    assert abs(run.observables["s"][0]) < 1e-13
    assert relative_error(run.final_observables["s"], spread(run.final, problem, wide)) < tolerance("float64", 100)
    # Two layers are two layers, of whatever class.
    two = ld.TwoLayer(deep.layers[0], deep.layers[1].T)
    assert np.array_equal(obs.imbalance_spectrum(deep, problem), obs.imbalance_spectrum(two, problem))
    with pytest.raises(
        ValueError, match="The imbalance is defined for two-layer models, but the model is a DeepLinear"
    ):
        obs.imbalance_spectrum(ld.DeepLinear((*deep.layers, np.eye(2))), problem)

    class Other:
        pass

    @obs.observable(symbol="$t$", label="two", kinds=ld.LeastSquares)
    def constant(model, problem):
        return jnp.asarray(2.0)

    with pytest.raises(
        ValueError, match="is defined for problems of kind LeastSquares, but the problem is of kind Other"
    ):
        constant(one, Other())
    # Under its own name, though others are computed on the way.
    with pytest.raises(ValueError, match=r"^Observable `alignment` is defined for problems of kind LeastSquares, but"):
        obs.alignment(one, ld.Softmax(np.eye(3), np.array([0, 1, 1])))


@pytest.mark.slow
def test_an_observable_of_a_drawn_core_is_that_of_the_core_on_the_problem_in_its_coordinates(table, rng):
    @obs.observable(symbol="$n$", label="norm", kinds=(ld.TwoLayer, ld.LeastSquares))
    def mine(model, problem):
        return jnp.stack(
            [jnp.linalg.norm(model.product(), ord=2), jnp.linalg.norm(problem.loss_gradient(model.product()))]
        )

    data = ld.LeastSquares(rng.normal(size=(2, 5)), rng.normal(size=(2, 2)), scale="mean")
    core = jax.jit(lambda key: ld.init.gaussian_core(data, 1e6, alpha=0.5, key=key))(jax.random.key(0))
    run = ld.gradient_descent(core, data, 8, optimizer=ld.plain_descent(1e-2), observables="mine")
    seen = obs.reduced_product(run.final, data)
    expected = [np.linalg.norm(seen, ord=2), np.linalg.norm(data.reduced_loss_gradient(seen))]
    assert relative_error(run.final_observables["mine"], expected) < tolerance("float64", 10)


def test_names_symbols_and_kinds_of_observables_are_checked(table):
    with pytest.raises(ValueError, match=r"There is an observable `loss` already, of lindyn_jax.observables.losses"):

        @obs.observable(symbol="$L$", label="mine")
        def loss(model, problem):
            return 0.0

    def time(model, problem):
        return 0.0

    for function in (time, lambda model, problem: 0.0, jax.tree_util.Partial(time)):
        with pytest.raises(ValueError, match="An observable needs a name of its own"):
            obs.observable(symbol="$t$", label="mine")(function)
    with pytest.raises(ValueError, match="dollar signs in pairs"):
        obs.observable(symbol="$L", label="mine")
    with pytest.raises(ValueError, match=r"`kinds\[0\]` must be a function, but is 'TwoLayer'"):
        obs.observable(symbol="L", label="mine", kinds=("TwoLayer",))


def test_every_observable_says_what_it_is():
    for name, function in obs.OBSERVABLES.items():
        facts = function.facts
        assert facts.name == name == function.__name__
        assert facts.label and facts.symbol and facts.units
        assert obs.attributes()[name]["long_name"] == facts.label


def test_every_observable_is_a_number_where_it_is_defined_and_one_sentence_elsewhere(rng):
    X, Y = rng.normal(size=(3, 4)), rng.normal(size=(3, 1))
    data, custom = ld.LeastSquares(X, Y), ld.CustomProblem(lambda Theta: jnp.sum(jnp.cosh(Theta - 0.1)), 4, 1)
    two = ld.TwoLayer(rng.normal(size=(4, 3)), rng.normal(size=(1, 3)))
    deep = ld.DeepLinear([rng.normal(size=shape) for shape in ((4, 3), (3, 3), (3, 1))])
    own = Diagonal(*(jnp.asarray(rng.normal(size=4)) for _ in range(2)))
    arguments = lambda function, *given: given[: 3 if function.facts.needs_start else 2]  # noqa: E731
    refused = 0
    for model, problem in ((two, data), (deep, data), (own, custom)):
        defined = {name: f for name, f in obs.OBSERVABLES.items() if f.facts.refusal(model, problem) is None}

        @eqx.filter_jit
        def values(*given, defined=defined):
            return {name: function(*arguments(function, *given)) for name, function in defined.items()}

        for name, value in values(model, problem, model).items():
            assert np.all(np.isfinite(value)), (name, model, problem)
        # A network that has diverged has no finite number.
        spoiled = jax.tree.map(np.array, model)
        jax.tree.leaves(spoiled)[0].flat[0] = np.nan
        for name, value in values(spoiled, problem, model).items():
            assert not np.any(np.isfinite(value)), (name, model, problem)
        for function in (f for name, f in obs.OBSERVABLES.items() if name not in defined):
            refused += 1
            with pytest.raises(ValueError, match=r"^[^\n]+\.$"):
                function(*arguments(function, model, problem, model))
    assert refused > 25


# -- similarity, stable rank, and the loss on other data ------------------------------------------------------------------


def test_similarity_of_the_hidden_layer_is_that_of_the_samples(rng):
    problem = ld.LeastSquares(rng.normal(size=(5, 7)), rng.normal(size=(5, 2)))
    start, model = (ld.TwoLayer(rng.normal(size=(7, 4)), rng.normal(size=(2, 4))) for _ in range(2))

    def turn(G, before):
        return 1 - np.sum(G * before) / np.linalg.norm(G) / np.linalg.norm(before)

    samples = [problem.X @ network.U @ network.U.T @ problem.X.T for network in (model, start)]
    outputs = [network.V @ network.V.T for network in (model, start)]
    np.testing.assert_allclose(
        ld.observables.input_similarity_distance(model, problem, start), turn(*samples), rtol=1e-10
    )
    np.testing.assert_allclose(
        ld.observables.output_similarity_distance(model, problem, start), turn(*outputs), rtol=1e-10
    )
    np.testing.assert_allclose(ld.observables.output_gram(model, problem), outputs[0], rtol=1e-12)
    plain = ld.factorization(np.ones((7, 2)))
    np.testing.assert_allclose(ld.observables.input_gram(model, plain), model.U @ model.U.T, rtol=1e-12)
    assert ld.observables.input_similarity_distance(start, problem, start) == 0
    single = ld.LinearModel(np.ones((7, 2)))
    for name, given in (("gram", (single,)), ("similarity_distance", (single, problem, single))):
        for side in ("input", "output"):
            with pytest.raises(ValueError, match=f"`{side}_{name}` is defined for networks with hidden layers, but"):
                getattr(ld.observables, f"{side}_{name}")(*given[:1], problem, *given[2:])


def test_stable_rank_is_between_one_and_the_rank(rng):
    problem = ld.factorization(np.ones((4, 3)))
    stable = lambda Theta: float(ld.observables.stable_rank(ld.LinearModel(Theta), problem))  # noqa: E731
    Theta = rng.normal(size=(4, 3))
    assert stable(Theta) == pytest.approx(np.sum(Theta**2) / np.linalg.norm(Theta, ord=2) ** 2)
    assert stable(1e-200 * np.eye(4, 3)) == pytest.approx(3) and stable(np.zeros((4, 3))) == 0


def test_the_test_loss_of_drawn_cores_has_the_law_of_full_networks(rng):
    n, m, h, draws = 6, 2, 5, 1500
    problem = ld.LeastSquares(rng.normal(size=(3, n)), rng.normal(size=(3, m)))
    other = ld.LeastSquares(rng.normal(size=(8, n)), rng.normal(size=(8, m)))

    def drawn(key):
        first, second = jax.random.split(key)
        core = ld.init.gaussian_core(problem, h, std=0.6, key=first)
        return ld.observables.on(other, "loss", key=second)(core, problem), other.loss(
            problem.from_data(core.product())
        )

    seen, blind = jax.jit(jax.vmap(drawn))(jax.random.split(jax.random.key(0), draws))
    U, V = 0.6 * rng.normal(size=(draws, n, h)), 0.6 * rng.normal(size=(draws, m, h))
    errors = np.asarray(other.Y) - np.asarray(other.X) @ U @ np.swapaxes(V, 1, 2)
    full = np.sum(errors**2, axis=(1, 2)) / 2
    assert ks_2samp(seen, full).pvalue > 1e-3
    # Without what the data do not see the law is another one.
    assert ks_2samp(blind, full).pvalue < 1e-6
    core = ld.Reduction(ld.TwoLayer(U[0, :3], V[0]), h, 3)
    with pytest.raises(ValueError, match="or give `on` a key"):
        ld.observables.on(other, "loss")(core, problem)
