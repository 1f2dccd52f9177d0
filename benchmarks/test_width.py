"""Cost against width: the same 64 trials at widths from 1e2 to 1e9, and one full-size run as a peer; memory of both."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from common import record, seconds

import lindyn_jax as ld
from lindyn_jax import data
from lindyn_jax.studies import theorem12

WIDTHS = (1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9)


def time_per_step(name, trial, trials, least):
    """Times a trial (key, width) -> number of steps at all widths by one program: from `least` on they differ by 1.3 at most."""
    keys = jax.random.split(jax.random.key(0), trials)
    batch = jax.jit(lambda keys, width: jax.lax.map(lambda key: trial(key, width), keys))

    def spent(width):
        # Of the processor: whatever else runs beside it.
        begin = time.process_time()
        jax.block_until_ready(batch(keys, width))
        return time.process_time() - begin

    # In turn, so that what else the machine does meets all widths alike; the first compiles.
    turns = [[spent(width) for width in WIDTHS] for _ in range(8)][1:]
    rows = []
    for width, least_spent in zip(WIDTHS, np.min(turns, axis=0).tolist(), strict=True):
        steps = int(jnp.sum(batch(keys, width)))
        rows.append(
            {
                "width": width,
                "trials": trials,
                "steps": steps,
                "cpu_seconds": least_spent,
                "us_per_step": 1e6 * least_spent / steps,
            }
        )
        print(rows[-1])
    per_step = [row["us_per_step"] for row in rows if row["width"] >= least]
    rows.append({"max_over_min_per_step": max(per_step) / min(per_step), "compilations": batch._cache_size()})
    print(rows[-1], record(name, rows))
    assert batch._cache_size() == 1
    assert max(per_step) / min(per_step) < 1.3


def test_time_per_step_does_not_depend_on_the_width():
    drawn = data.load("digits", samples=30, centre=True)
    trial = theorem12.Theorem12(ld.LeastSquares(drawn.X, drawn.Y)).trial
    time_per_step("width", lambda key, width: trial(key, 0.5, width)["num_steps"], 64, 1e3)


def completion():
    rng = np.random.default_rng(0)
    return ld.MatrixCompletion(rng.normal(size=(20, 2)) @ rng.normal(size=(2, 15)), rng.random((20, 15)) < 0.6)


def softmax():
    drawn = data.load("digits", samples=50, centre=True)
    return ld.Softmax(drawn.X, np.argmax(drawn.Y, axis=1), num_classes=10, scale="mean")


@pytest.mark.parametrize("make", [completion, softmax])
def test_nor_does_it_under_other_losses(make):
    problem = make()

    def trial(key, width):
        start = ld.init.gaussian_core(problem, width, alpha=0.5, key=key)
        return ld.gradient_flow(start, problem, [10.0], solver="dopri8", rtol=1e-6).stats["num_steps"]

    time_per_step(f"width_{make.__name__}", trial, 8, 1e2)


def test_drawn_core_beside_full_size_descent():
    drawn = data.gaussian()
    problem = ld.LeastSquares(drawn.X, drawn.Y, scale="averaged")
    steps, width = 2000, 10_000
    start = ld.init.gaussian(problem.num_inputs, 1, width, alpha=0.5, key=jax.random.key(0))
    step = optax.sgd(5e-3)

    def descend(start, reduce):
        return ld.gradient_descent(start, problem, steps, optimizer=step, reduce=reduce).final

    full = jax.jit(lambda start: descend(start, False))
    reduced = jax.jit(lambda start: descend(start, True))
    core = jax.jit(lambda key: descend(ld.init.gaussian_core(problem, float(width), alpha=0.5, key=key), True))
    np.testing.assert_allclose(full(start).product(), reduced(start).product(), atol=1e-12)
    rows = [
        {"run": "full size", "seconds": seconds(lambda: full(start), 1)},
        {"run": "reduced from a full-size start", "seconds": seconds(lambda: reduced(start))},
        {"run": "drawn core", "seconds": seconds(lambda: core(jax.random.key(1)))},
    ]
    for row in rows:
        row["ratio_to_core"] = row["seconds"] / rows[-1]["seconds"]
        print(row)
    print(record("descent_fig7", rows))


def test_memory_does_not_depend_on_the_width():
    drawn = data.gaussian()
    problem = ld.LeastSquares(drawn.X, drawn.Y, scale="averaged")
    step, key = optax.sgd(5e-3), jax.random.key(0)

    def descend(start, reduce):
        return ld.gradient_descent(start, problem, 100, optimizer=step, reduce=reduce, observables=()).final

    def needed(run, *arguments):
        memory = jax.jit(run).lower(*arguments).compile().memory_analysis()
        return memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes

    rows = []
    for width in (1_000, 10_000, 100_000, 1_000_000):
        full = lambda key, width=width: descend(ld.init.gaussian(500, 1, width, alpha=0.5, key=key), False)  # noqa: E731
        core = lambda key, width: descend(ld.init.gaussian_core(problem, width, alpha=0.5, key=key), True)  # noqa: E731
        rows.append(
            {"width": width, "full_size_bytes": needed(full, key), "core_bytes": needed(core, key, float(width))}
        )
        print(rows[-1])
    print(record("memory", rows))
    assert len({row["core_bytes"] for row in rows}) == 1
