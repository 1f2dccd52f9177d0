"""What a cluster costs: a million trials of Lemma 11 by two workers against one process, and stores of ten thousand chunks."""

import os
import time

import distributed
import jax
import jax.numpy as jnp
import xarray as xr
from common import record

import lindyn_jax as ld
from lindyn_jax import _files
from lindyn_jax.cli._cluster import _plugin
from lindyn_jax.studies import lemma11

TRIALS, CHUNK = 1_000_000, 10_000


def test_two_workers_take_the_processor_time_of_one_process(tmp_path):
    def run(trials, name, **options):
        sizes = lemma11.sizes(20, 5, 2)
        return lemma11.run(sizes, [42], [0.5], trials, chunk=CHUNK, store=tmp_path / name, **options)

    options = {"threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
    with distributed.LocalCluster(n_workers=2, **options) as cluster, distributed.Client(cluster) as client:
        client.register_plugin(_plugin())
        executor = client.get_executor(pure=False)

        def spent():
            return time.process_time() + sum(client.run(time.process_time).values())

        rows = []
        for name, engine in (("one process", None), ("two workers", executor)):
            # Compiled everywhere.
            run(20 * CHUNK, f"{name} warm", executor=engine)
            begin, wall = spent(), time.perf_counter()
            result = run(TRIALS, name, executor=engine)
            cpu, wall = spent() - begin, time.perf_counter() - wall
            rows.append({"by": name, "cpu_seconds": cpu, "seconds": wall, "load_average": os.getloadavg()[0]})
            rows[-1]["events_33"] = int(result["level_is_large"].values.item())
            print(rows[-1])
    rows.append({"overhead": rows[1]["cpu_seconds"] / rows[0]["cpu_seconds"] - 1})
    print(rows[-1], record("cluster", rows))
    assert rows[0]["events_33"] == rows[1]["events_33"]
    assert rows[-1]["overhead"] < 0.1


def test_ten_thousand_chunks_are_opened_in_under_a_second(tmp_path, monkeypatch):
    def trial(key, width):
        return {"value": jnp.sqrt(width) * jax.random.normal(key)}

    with monkeypatch.context() as patch:
        # Nothing here has to outlive a loss of power.
        patch.setattr(_files, "sync", lambda path: None)
        ld.run_ensemble(trial, {"width": [1.0, 2.0]}, 10_000, key=jax.random.key(0), chunk=1, store=tmp_path / "store")
    rows = []
    for name, opened in (("xarray", lambda path: xr.open_zarr(path, chunks=None)), ("open_sweep", ld.open_sweep)):
        begin = time.process_time()
        dataset = opened(tmp_path / "store")
        rows.append({"by": name, "cpu_seconds": time.process_time() - begin})
        assert dataset.sizes["trial"] == 10_000
    print(rows, record("chunks", rows))
    assert rows[0]["cpu_seconds"] < 1
