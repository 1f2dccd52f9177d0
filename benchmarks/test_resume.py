"""What an interruption costs: an ensemble of two hundred chunks stopped half way and resumed, and a finished one asked again."""

import time

import jax
import jax.numpy as jnp
import pytest
from common import record

import lindyn_jax as ld

TRIALS, CHUNK = 100_000, 500


class Stopped(Exception):
    """An interruption."""


def trial(key, width):
    return {"norm": jnp.linalg.norm(jax.random.normal(key, (6, 6)) / jnp.sqrt(width), 2)}


def stop_half_way(done, total):
    if done >= total / 2:
        raise Stopped


def test_an_ensemble_that_was_stopped_half_way_takes_the_processor_time_of_one_that_was_not(tmp_path):
    def run(name, trials=TRIALS, **options):
        begin = time.process_time()
        options = {"key": jax.random.key(0), "chunk": CHUNK, "store": tmp_path / name} | options
        ld.run_ensemble(trial, {"width": [1e6]}, trials, **options)
        return time.process_time() - begin

    def until_the_stop(name):
        begin = time.process_time()
        with pytest.raises(Stopped):
            run(name, progress=stop_half_way)
        return time.process_time() - begin

    run("warm", CHUNK)
    spent = {
        "one chunk": run("one", CHUNK),
        "all chunks": run("whole"),
        "until the stop": until_the_stop("stopped"),
        "resumed": run("stopped"),
        "asked again": run("whole"),
    }
    whole = spent["all chunks"]
    spent["stopped and resumed"] = spent["until the stop"] + spent["resumed"]
    rows = [{"run": name, "cpu_seconds": cpu, "ratio": cpu / whole} for name, cpu in spent.items()]
    print(rows, record("resume", rows))
    # Nothing that was done is done again: a second start is all that a stop costs.
    assert spent["resumed"] < 0.75 * whole + spent["one chunk"]
    assert spent["stopped and resumed"] < 1.3 * whole + spent["one chunk"] and spent["asked again"] < 0.5 * whole
    first, second = ld.open_sweep(tmp_path / "whole"), ld.open_sweep(tmp_path / "stopped")
    assert set(first.variables) == set(second.variables)
    for name in first.variables:
        assert first[name].values.tobytes() == second[name].values.tobytes(), name
