"""Which optimizers commute with the reduction: all that do, at every step, and none that do not."""

import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import tolerance
from jax.experimental import io_callback

import lindyn_jax as ld

contrib = optax.contrib
SGD = optax.sgd(0.05)
SWITCH = optax.join_schedules([optax.constant_schedule(0.05), optax.cosine_decay_schedule(0.1, 20)], [10])


def late(step):
    return step > 20


EQUAL = {
    "sgd": SGD,
    "momentum": optax.sgd(0.02, momentum=0.9),
    "nesterov": optax.sgd(0.02, momentum=0.9, nesterov=True),
    "switching schedule": optax.sgd(SWITCH),
    "warmup": optax.sgd(optax.warmup_cosine_decay_schedule(0.0, 0.1, 5, 20)),
    "piecewise": optax.sgd(optax.piecewise_constant_schedule(0.1, {5: 0.1, 9: 0.5})),
    "interpolated": optax.sgd(optax.piecewise_interpolate_schedule("cosine", 0.1, {5: 0.1, 9: 0.5})),
    "late descent": optax.chain(optax.conditionally_transform(optax.scale(0.5), late), SGD),
    "late mask": optax.transforms.conditionally_mask(SGD, late),
    "apply_every": optax.chain(optax.apply_every(8), SGD),
    "MultiSteps": optax.MultiSteps(SGD, 8).gradient_transformation(),
    "injected": optax.inject_hyperparams(optax.sgd)(learning_rate=SWITCH),
    "decay": optax.chain(optax.add_decayed_weights(0.3), SGD),
    "decay of V": optax.chain(
        optax.masked(optax.add_decayed_weights(0.3), lambda p: jax.tree.map(lambda x: x is p.V, p)), SGD
    ),
    "global norm": optax.chain(optax.clip_by_global_norm(0.1), SGD),
    "normalized": optax.chain(optax.normalize_by_update_norm(), optax.sgd(0.005)),
    "ema": optax.chain(optax.ema(0.9), SGD),
    "trace": optax.chain(optax.trace(0.9), SGD),
    "lars": optax.lars(0.1),
    "fromage": optax.fromage(0.05),
    "novograd": optax.novograd(0.05),
    "trust ratio": optax.chain(optax.scale_by_trust_ratio(), SGD),
    "block norm": optax.chain(optax.scale_by_param_block_norm(), SGD),
    "optimistic": optax.optimistic_gradient_descent(0.02),
    "polyak": optax.polyak_sgd(0.1),
    "backtracking": optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(10)),
    "lbfgs": optax.lbfgs(),
    "lbfgs without search": optax.lbfgs(0.1, linesearch=None),
    "if finite": optax.apply_if_finite(SGD, 5),
    "flattened": optax.flatten(SGD),
    "partition": optax.partition({"a": SGD}, lambda p: jax.tree.map(lambda x: "a", p)),
    "sam": contrib.sam(SGD, optax.sgd(0.005)),
    "opaque sam": contrib.sam(SGD, optax.sgd(0.02), opaque_mode=True),
    "schedule free": contrib.schedule_free(SGD, 0.05),
    "dog": contrib.dog(1.0),
    "dowg": contrib.dowg(),
    "momo": contrib.momo(0.1),
    "mechanize": contrib.mechanize(SGD),
    "plateau": optax.chain(SGD, contrib.reduce_on_plateau(patience=2)),
}
REFUSED = {
    "adam": optax.adam(0.01),
    "late adam": optax.conditionally_transform(optax.adam(0.01), late),
    "MultiSteps of adam": optax.MultiSteps(optax.adam(1e-2), 8).gradient_transformation(),
    "injected adam": optax.inject_hyperparams(optax.adam)(learning_rate=0.01),
    "flattened adam": optax.flatten(optax.adam(0.01)),
    "radam": optax.radam(0.01),  # descent for five steps, and only then adaptive
    "adamw": optax.adamw(0.01),
    "adagrad": optax.adagrad(0.01),
    "adafactor": optax.adafactor(0.01),
    "lamb": optax.lamb(0.01),
    "lion": optax.lion(0.01),
    "rmsprop": optax.rmsprop(0.01),
    "sm3": optax.sm3(0.01),
    "sign": optax.sign_sgd(0.01),
    "clip": optax.chain(optax.clip(1.0), SGD),
    "block rms": optax.chain(optax.clip_by_block_rms(1.0), SGD),
    "adaptive clipping": optax.chain(optax.adaptive_grad_clip(0.1), SGD),
    "centralize": optax.chain(optax.centralize(), SGD),
    "nonnegative": optax.chain(SGD, optax.keep_params_nonnegative()),
    "noise": optax.noisy_sgd(0.01, key=0),
    "late noise": optax.conditionally_transform(optax.noisy_sgd(0.01, key=0), late),
    "muon": contrib.muon(0.01),
    "prodigy": contrib.prodigy(),
    "momo adam": contrib.momo_adam(0.1),
    "mask by shape": optax.chain(
        optax.masked(optax.add_decayed_weights(0.1), lambda p: jax.tree.map(lambda x: x.shape[1] > 9, p)), SGD
    ),
    "late sign": optax.stateless(
        lambda u, p: jax.lax.cond(p.V[0, 0] > 9, lambda: jax.tree.map(jnp.sign, u), lambda: u)
    ),
    "one row": optax.stateless(lambda u, p: jax.tree.map(lambda x: x.at[0].set(0), u)),
    "one entry": optax.stateless(lambda u, p: jax.tree.map(lambda x: x / (1 + x[0, 0] ** 2), u)),
    "mean": optax.stateless(lambda u, p: jax.tree.map(lambda x: x / (1 + jnp.mean(x**2)), u)),
    "sum": optax.stateless(lambda u, p: jax.tree.map(lambda x: x * jnp.sum(x), u)),
    "gram of weights": optax.stateless(lambda u, p: jax.tree.map(lambda g, x: -x @ x.T @ g, u, p)),
    "constant": optax.stateless(lambda u, p: jax.tree.map(lambda x: x + 1, u)),
}
# Programs on one matrix that are the same at both sizes but for a number, a place or a number of repetitions.
OF_SIZE = {
    "power": lambda g: g * jnp.sum(g**2) ** g.shape[1],
    "repetitions": lambda g: jnp.broadcast_to(g, (g.shape[1], *g.shape)).sum(0),
    "place in numbers": lambda g: g * (jnp.arange(20.0) * jnp.sum(g**2))[g.shape[1]],
    "place in a stack": lambda g: jnp.stack([i * g for i in range(20)])[g.shape[1]],
    "place of a part": lambda g: jnp.concatenate(
        [jnp.zeros((g.shape[1], *g.shape)), g[None], jnp.zeros((19 - g.shape[1], *g.shape))]
    )[7],
    "number of parts": lambda g: jax.lax.dynamic_update_slice(
        jnp.stack([g] * 20), jnp.zeros((g.shape[1], *g.shape)), (0,) * 3
    )[9],
    "axis": lambda g: g * jnp.sum(jnp.sum(g**2) * jnp.arange(9.0).reshape(3, 3), axis=int(g.shape[1] > 9))[0],
    "order": lambda g: (
        g * jax.lax.scan(lambda c, x: (c * x + x, x), 0.0, jnp.arange(3.0) * jnp.sum(g**2), reverse=g.shape[1] > 9)[0]
    ),
    "every other entry": lambda g: g * jnp.sum(g.ravel()[::2] ** 2),
    "ones in place of a matrix": lambda g: jnp.where(jnp.sum(jnp.where(jnp.sum(g**2) > 9, g, 1.0) ** 2) > 5, g, 2 * g),
    "branch by ones": lambda g: jax.lax.cond(
        jnp.sum(jnp.where(jnp.sum(g**2) > 9, g, 1.0) ** 2) > 5, lambda: g, lambda: 2 * g
    ),
    "power of zero": lambda g: g + jax.lax.integer_pow(jnp.zeros_like(g), 0),
    "function of a part": lambda g: jnp.stack([g, g]).at[0].apply(jnp.sin).sum(0),
    "rounded product": lambda g: jnp.matmul(g @ g.T, g, preferred_element_type=jnp.bfloat16).astype(g.dtype),
    "call of the host": lambda g: g * io_callback(lambda x: x, jax.ShapeDtypeStruct((), g.dtype), jnp.sum(g**2)),
}
FAILING = {"lookahead": optax.lookahead(SGD, 5, 0.5), "sophia": contrib.sophia(0.1)}


def setting(kind, dtype="float64"):
    """A start and a problem with frozen directions; the first layer has more rows than move."""
    rng = np.random.default_rng(15)
    draw = lambda *shape: rng.normal(size=shape).astype(dtype)  # noqa: E731
    X = draw(5, 6)
    X[:, 4:] = X[:, :2]
    if kind == "tied":
        return ld.SymmetricFactors(draw(3, 9) / 4), ld.factorization(draw(3, 3))
    problem = {
        "completion": lambda: ld.MatrixCompletion(draw(6, 2), np.arange(12).reshape(6, 2) % 5 > 0),
        "huber": lambda: ld.Huber(X, draw(5, 2), 0.8, scale="mean"),
        "logistic": lambda: ld.Logistic(X, np.arange(10).reshape(5, 2) % 3 > 0, scale="mean"),
        "poisson": lambda: ld.Poisson(X / 4, np.arange(10.0).reshape(5, 2) % 4, scale="mean"),
        "sensing": lambda: ld.MatrixSensing(draw(5, 6, 2), draw(5), scale="mean"),
        "softmax": lambda: ld.Softmax(X, np.arange(5) % 2, scale="mean"),
        "least squares": lambda: ld.LeastSquares(X, draw(5, 2), scale="mean"),
        "link": lambda: ld.LeastSquares(X, draw(5, 2), scale="mean", link="sigmoid"),
        "penalty": lambda: ld.LeastSquares(X, draw(5, 2), scale="mean").regularized(0.5),
        "deep": lambda: ld.LeastSquares(X, draw(5, 2), scale="mean"),
    }[kind]()
    if kind == "deep":
        small = ld.DeepLinear([draw(6, 2) / 2, draw(2, 2), draw(2, 2)])
        return ld.init.deep_core(small, (9, 8), key=jax.random.key(1)), problem
    return ld.TwoLayer(draw(6, 15) / 4, draw(2, 15) / 4), problem


def gap(kind, optimizer, dtype="float64", steps=37):
    start, problem = setting(kind, dtype)
    small, full = (
        ld.gradient_descent(start, problem, steps, optimizer=optimizer, reduce=reduce, save_at=np.array([steps])).final
        for reduce in (True, False)
    )
    pairs = list(zip(jax.tree.leaves(small), jax.tree.leaves(full), strict=True))
    moved = max(float(jnp.max(jnp.abs(b - c))) for (_, b), c in zip(pairs, jax.tree.leaves(start), strict=True))
    assert moved > 1e-3
    return max(float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b)) for a, b in pairs)


@functools.cache
def prepared(kind):
    start, problem = setting(kind)
    return start, problem, ld.reduction.prepare(start, problem, True)


def verdict(kind, optimizer):
    start, problem, moved = prepared(kind)
    try:
        ld.reduction.require_exact(optimizer, start, problem, moved)
    except ValueError as error:
        return str(error)
    return "exact"


# One of each way to be taken or refused: the reader of programs is the same for all networks, and only the trees differ.
FEW = {"nesterov", "switching schedule", "decay", "global norm", "lars", "polyak", "flattened", "sam", "schedule free"}
FEW |= {"adam", "clip", "block rms", "centralize", "noise", "prodigy", "one row", "mean", "gram of weights", "constant"}
KINDS = [(kind, FEW) for kind in ("least squares", "deep")]
KINDS += [
    pytest.param(kind, None, marks=pytest.mark.slow, id=f"{kind}, all") for kind in ("least squares", "tied", "deep")
]


@pytest.mark.parametrize(("kind", "few"), KINDS)
def test_what_commutes_is_taken_and_what_does_not_is_refused(kind, few):
    trees = {"decay of V", "late sign"} if kind != "least squares" else set()
    if few is not None:
        assert few <= EQUAL.keys() | REFUSED.keys()
        trees |= (EQUAL.keys() | REFUSED.keys()) - few
    for name in EQUAL.keys() - trees:
        assert verdict(kind, EQUAL[name]) == "exact", name
    for name in REFUSED.keys() - trees - ({"mask by shape", "muon"} if kind != "least squares" else set()):
        assert "not exact for this optimizer" in verdict(kind, REFUSED[name]), name


@pytest.mark.parametrize("name", OF_SIZE)
def test_what_is_not_the_same_at_both_sizes_is_refused(name):
    program = optax.stateless(lambda u, p: jax.tree.map(OF_SIZE[name], u))
    assert "not exact for this optimizer" in verdict("least squares", program)


def test_refusals_say_what_stands_in_the_way():
    for name, words in {
        "radam": "applies `sqrt` to entries",
        "lion": "applies `sign` to entries",
        "rmsprop": "squares of single entries",
        "muon": "depends on the sizes",
        "noise": "have the shape of the weights",
        "gram of weights": "outside of the reduction",
    }.items():
        assert words in verdict("least squares", REFUSED[name]), name
    assert "in no way" in verdict("least squares", REFUSED["sign"])


SHORT = ("sam", "lbfgs without search")
CASES = [
    pytest.param(name, dtype, marks=() if name in SHORT and dtype == "float64" else pytest.mark.slow)
    for name in EQUAL
    for dtype in ("float64", "float32")
]


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_descent_is_the_same_at_both_sizes(name, dtype):
    # MultiSteps accumulates in float32; line searches and distances from the start multiply round-off, alike in both precisions.
    sensitive = name in {"lbfgs", "mechanize", "dog", "dowg", "lbfgs without search"}
    resolved = "float32" if name == "MultiSteps" else dtype
    most = 4.5e4 * float(np.finfo(resolved).eps) if sensitive else tolerance(resolved)
    assert gap("least squares", EQUAL[name], dtype) < most


LOSSES = ["link", "penalty", "completion", "huber", "logistic", "poisson", "sensing", "softmax"]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", [*LOSSES, "tied", "deep"])
@pytest.mark.parametrize("name", ["switching schedule", "late descent", "lars", "injected", "sam", "schedule free"])
def test_descent_of_every_model_and_loss_is_the_same_at_both_sizes(name, kind, dtype):
    assert gap(kind, EQUAL[name], dtype) < tolerance(dtype, 10)


@pytest.mark.parametrize("name", FAILING)
def test_optimizers_that_cannot_make_a_step_are_refused_in_a_sentence(name):
    start, problem = setting("least squares")
    for reduce in (True, False):
        with pytest.raises(ValueError, match="`optimizer` cannot be used: a step of it fails on these weights"):
            ld.gradient_descent(start, problem, 3, optimizer=FAILING[name], reduce=reduce)


def test_networks_that_are_not_made_smaller_take_every_optimizer():
    problem = ld.factorization(np.ones((4, 3)))
    start = ld.TwoLayer(np.ones((4, 2)), np.ones((3, 2)))
    moved = [ld.gradient_descent(start, problem, 5, optimizer=optax.adam(0.1), reduce=r).final.U for r in (True, False)]
    assert np.array_equal(*moved)


def test_cores_drawn_at_a_width_take_what_commutes_at_every_size():
    _, problem = setting("least squares")
    core = ld.init.gaussian_core(problem, 100.0, std=0.1, key=jax.random.key(0))
    ld.reduction.require_exact(EQUAL["lars"], core, problem)
    for name in ("radam",):
        with pytest.raises(ValueError, match="has no full size to run at"):
            ld.reduction.require_exact(REFUSED[name], core, problem)


@pytest.mark.parametrize("batch", ["map", "vmap", "blocks"])
def test_ensembles_refuse_what_does_not_commute_in_a_sentence(batch):
    _, problem = setting("least squares")

    def trial(key, h):
        core = ld.init.gaussian_core(problem, h, std=0.1, key=key)
        run = ld.gradient_descent(core, problem, 3, optimizer=optax.adam(h / 1e3))
        return {"loss": run.final_observables["loss"]}

    with pytest.raises(ValueError, match="not exact for this optimizer"):
        ld.run_ensemble(trial, {"h": [10.0, 20.0]}, 2, key=jax.random.key(0), batch=batch)


def test_plain_descent_can_be_pickled_and_another_step_compiles_nothing():
    start, problem = setting("least squares")
    traced = []

    def loss(model, problem):
        traced.append(None)
        return ld.observables.loss(model, problem)

    def final(optimizer):
        return ld.gradient_descent(start, problem, 3, optimizer=optimizer, observables={"loss": loss}).final.U

    expected = final(optax.sgd(0.02))
    final(ld.plain_descent(jnp.asarray(0.01)))
    before = len(traced)
    found = final(pickle.loads(pickle.dumps(ld.plain_descent(jnp.asarray(0.02)))))
    assert len(traced) == before
    assert np.array_equal(found, expected)
