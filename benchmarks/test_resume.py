"""What an interruption costs: a study of a hundred chunks stopped half way and resumed, and a finished one asked again."""

import time

import pytest
from common import record

import lindyn_jax as ld
from lindyn_jax.studies import lemma11

TRIALS, CHUNK = 200_000, 2_000


class Stopped(Exception):
    """An interruption."""


def stop_half_way(done, total):
    if done >= total / 2:
        raise Stopped


def test_a_study_that_was_stopped_half_way_takes_the_processor_time_of_one_that_was_not(tmp_path):
    def run(name, trials=TRIALS, **options):
        sizes = lemma11.sizes(20, 5, 2)
        options = {"chunk": CHUNK, "store": tmp_path / name, "keep_trials": True} | options
        begin = time.process_time()
        if "progress" in options:
            with pytest.raises(Stopped):
                lemma11.run(sizes, [42], [0.5], trials, **options)
        else:
            lemma11.run(sizes, [42], [0.5], trials, **options)
        return time.process_time() - begin

    # Compiled, and with a store that is begun.
    run("warm", 20 * CHUNK)
    spent = {
        "without a stop": run("whole"),
        "until the stop": run("stopped", progress=stop_half_way),
        "resumed": run("stopped"),
        "asked again": run("whole"),
    }
    rows = [{"run": name, "cpu_seconds": cpu, "share": cpu / spent["without a stop"]} for name, cpu in spent.items()]
    rows.append({"run": "both halves", "share": rows[1]["share"] + rows[2]["share"]})
    print(rows, record("resume", rows))
    # The stop came half way, and lost nothing of what was done.
    assert 0.35 < rows[1]["share"] < 0.65
    assert rows[4]["share"] < 1.2 and rows[3]["share"] < 0.1
    for opened in (ld.open_sweep, ld.open_reductions):
        whole, stopped = opened(tmp_path / "whole"), opened(tmp_path / "stopped")
        assert set(whole.variables) == set(stopped.variables)
        for name in whole.variables:
            assert whole[name].values.tobytes() == stopped[name].values.tobytes(), name
