"""Nothing compiles twice: not for other numbers, data of one shape, an optimizer or observable that is written down again."""

import functools
import types

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lindyn_jax as ld
from lindyn_jax._keyed import Keyed, keyed

N, n, m, h = 6, 4, 2, 3
CALLS = []


def watched(model, problem):
    """An observable that tells how often it is traced."""
    CALLS.append(1)
    return jnp.sum(model.product())


def slower(size, step):
    return size / (1 + step)


def draw(seed):
    rng = np.random.default_rng(seed)
    model = ld.TwoLayer(rng.normal(size=(n, h)), rng.normal(size=(m, h)))
    return model, ld.LeastSquares(rng.normal(size=(N, n)), rng.normal(size=(N, m)))


def traces(run, settings):
    """How often what is observed was traced in the first of some runs, and in all others together."""
    before = len(CALLS)
    for i, setting in enumerate(settings):
        run(setting)
        if i == 0:
            first = len(CALLS) - before
    return first, len(CALLS) - before - first


def descend(optimizer, seed=0, **options):
    model, problem = draw(seed)
    options = {"observables": {"watched": watched}, **options}
    return ld.gradient_descent(model, problem, 3, optimizer=optimizer, **options)


def flow(seed=0, ts=(0.0, 0.5), **options):
    model, problem = draw(seed)
    return ld.gradient_flow(model, problem, ts, **{"observables": {"watched": watched}, "solver": "tsit5"} | options)


def diffuse(seed):
    model, problem = draw(seed)
    options = {"step_size": 0.01 * (1 + seed), "key": jax.random.key(seed), "observables": {"watched": watched}}
    return ld.stochastic_flow(model, problem, [0.1 * (1 + seed)], noise=ld.Minibatch(2), **options)


def limit(seed):
    return ld.flow_to_limit(*draw(seed), observables={"watched": watched}, rtol=1e-6 / (1 + seed))


# `watched` counts in a list, which no function among those below may refer to: it would be another one every time.
RUNS = {
    "eta": (descend, [ld.plain_descent(1e-3 * (i + 1)) for i in range(12)]),
    "momentum": (descend, [ld.Descent(1e-3, 0.005 * i, weight_decay=1e-4 * i, nesterov=True) for i in range(12)]),
    "polar": (descend, [ld.polar_descent(1e-3 * i, 0.1 * i) for i in range(1, 5)]),
    "constants of a schedule": (
        descend,
        [ld.Descent(jax.tree_util.Partial(slower, jnp.asarray(0.1 * i))) for i in range(1, 5)],
    ),
    "fresh optax.sgd": (lambda _: descend(optax.sgd(0.01)), range(12)),
    "fresh optax.chain": (lambda _: descend(optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.01, 0.9))), range(3)),
    "fresh optax.adam": (lambda _: descend(optax.adam(0.01), reduce=False), range(3)),
    "equal lambdas in descent": (
        lambda i: descend(ld.plain_descent(0.01), observables={"watched": lambda *args: watched(*args)}),
        range(12),
    ),
    "equal lambdas in flow": (lambda i: flow(observables={"watched": lambda *args: watched(*args)}), range(12)),
    "data of descent": (lambda seed: descend(ld.plain_descent(1e-3), seed, stop=0.1 / (1 + seed)), range(5)),
    "data of flow": (lambda seed: flow(seed, (0.0, 0.5 + seed), rtol=1e-6 / (1 + seed), stop=0.1 / (1 + seed)), range(5)),
    "solvers written down again": (lambda _: flow(solver=diffrax.Dopri5(), adjoint=diffrax.ForwardMode()), range(3)),
    "data of the stochastic flow": (diffuse, range(3)),
    "data of the limit": (limit, range(3)),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_a_solver_is_traced_once_for_other_numbers_and_what_is_written_down_again(name):
    first, later = traces(*RUNS[name])
    assert first > 0 and later == 0


def programs(call) -> int:
    """How many programs a call compiles."""
    seen = []

    def listen(event, seconds, **_):
        seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        call()
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    return seen.count("/jax/core/compile/backend_compile_duration")


def test_a_gaussian_core_is_one_program_whatever_its_numbers_are():
    rng = np.random.default_rng(0)
    problem = ld.LeastSquares(rng.normal(size=(5, 11)), rng.normal(size=(5, 3)))
    keys = jax.random.key(0), jax.random.key(1)

    def draw(width, alpha, key):
        return lambda: ld.init.gaussian_core(problem, width, alpha=alpha, key=key)

    assert programs(draw(100, 0.5, keys[0])) == 1
    assert programs(draw(10**9, 0.4, keys[1])) == 0


def test_functions_are_equal_where_all_that_they_refer_to_is():
    def made(a, b=None):
        return lambda x, scale=2.0: a * x * scale + np.sin(b[0] if b else 0)

    same = keyed(made(1.0)), keyed(made(1.0))
    assert type(same[0]) is Keyed and same[0] == same[1] and hash(same[0]) == hash(same[1])
    others = [made(2.0), made(1), made(1.0, (3,)), made(np.ones(2)), made(functools.partial(made, 1.0))]
    kept = [keyed(f) for f in others]
    assert all(type(f) is Keyed and f != same[0] for f in kept) and len(set(kept)) == len(kept)


def test_functions_that_use_a_global_name_are_others_after_it_changed():
    place = {"__name__": "a notebook"}
    exec("def made(): return lambda x: size * x", place)
    place["size"] = 1.0
    one = keyed(place["made"]())
    assert type(one) is Keyed and one == keyed(place["made"]())
    place["size"] = 2.0
    assert keyed(place["made"]()) != one


def test_functions_that_read_a_setting_of_a_module_or_class_are_others_after_it_changed():
    class Constants:
        size = 1.0

    inner, module = types.ModuleType("inner"), types.ModuleType("settings")
    module.inner, module.constants = inner, Constants
    for owner in (inner, module, Constants):
        owner.size = 1.0

        def made():
            return lambda x: (module.size, module.inner.size, module.constants.size, x)

        one = keyed(made())
        assert type(one) is Keyed and one == keyed(made())
        owner.size = 2.0
        assert keyed(made()) != one


def test_functions_of_what_cannot_be_compared_are_themselves():
    def made(a):
        return lambda x: a

    for unknown in (object(), np.zeros(20_000), {1, 2}, [3]):
        one = made(unknown)
        assert keyed(one) is one
    jax.jit(lambda x: (keyed(f := made(x)) is f) or pytest.fail("a traced number was compared"))(1.0)
    assert keyed(made) == keyed(made) and keyed(draw) is draw


def test_descent_is_that_of_optax():
    weights, gradient = {"U": jnp.arange(6.0).reshape(2, 3)}, {"U": jnp.ones((2, 3))}
    schedule = optax.exponential_decay(0.1, 1, 0.5)
    for mine, theirs in (
        (ld.Descent(0.1), optax.sgd(0.1)),
        (ld.Descent(0.1, 0.9), optax.sgd(0.1, 0.9)),
        (ld.Descent(schedule, 0.9, nesterov=True), optax.sgd(schedule, 0.9, nesterov=True)),
        (ld.Descent(0.1, 0.5, weight_decay=0.2), optax.chain(optax.add_decayed_weights(0.2), optax.sgd(0.1, 0.5))),
    ):
        ours, states = weights, [mine.init(weights), theirs.init(weights)]
        other = weights
        for _ in range(3):
            change, states[0] = mine.update(gradient, states[0], ours)
            ours = optax.apply_updates(ours, change)
            change, states[1] = theirs.update(gradient, states[1], other)
            other = optax.apply_updates(other, change)
        np.testing.assert_allclose(ours["U"], other["U"], rtol=1e-15)
    with pytest.raises(ValueError, match=r"`momentum` must lie in \[0, 1\)"):
        ld.Descent(0.1, 1.0)
    with pytest.raises(ValueError, match="`weight_decay` must be a number of at least 0"):
        ld.Descent(0.1, weight_decay=-1)
    with pytest.raises(ValueError, match="pass `momentum`"):
        ld.Descent(0.1, nesterov=True)


def test_descent_with_decay_moves_in_its_smallest_form_as_at_full_size():
    rng = np.random.default_rng(3)
    problem = ld.LeastSquares(rng.normal(size=(3, n)), rng.normal(size=(3, m)))
    model = ld.TwoLayer(rng.normal(size=(n, 9)), rng.normal(size=(m, 9)))
    optimizer = ld.Descent(1e-3, 0.9, nesterov=True, weight_decay=0.1)
    small, full = (
        ld.gradient_descent(model, problem, 20, optimizer=optimizer, reduce=reduce).final for reduce in (True, False)
    )
    np.testing.assert_allclose(small.U, full.U, rtol=0, atol=1e-13)
    np.testing.assert_allclose(small.V, full.V, rtol=0, atol=1e-13)
