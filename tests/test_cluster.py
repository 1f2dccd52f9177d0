"""Chunks as tasks of an executor: the bits of a local run, whoever computes them and whoever dies."""

import concurrent.futures
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import distributed
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lindyn_jax as ld
from lindyn_jax import cli
from lindyn_jax.cli import _cluster
from lindyn_jax.ensemble import StoreError, SweepStore, WorkerError, open_reductions
from lindyn_jax.statistics import Count, Moments

GRID = {"scale": [1.0, 10.0], "shift": [0.0, 1.0]}
KEPT = {"large": Count("large"), "value": Moments("value")}


def trial(key, scale, shift):
    normal = jax.random.normal(key)
    return {"value": scale * jnp.exp(normal) + shift, "large": normal > 0.5}


def run(trials=48, **options):
    defaults = {"key": jax.random.key(3), "chunk": 4, "reductions": KEPT}
    return ld.run_ensemble(trial, GRID, trials, **{**defaults, **options})


def same_bits(first, second):
    assert set(first.variables) == set(second.variables)
    return [name for name in first.variables if first[name].values.tobytes() != second[name].values.tobytes()]


def same_stores(first, second):
    return [name for opened in (ld.open_sweep, open_reductions) for name in same_bits(opened(first), opened(second))]


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("here")
    run(store=folder / "store")
    return folder / "store"


def pool(kind):
    if kind == "threads":
        return concurrent.futures.ThreadPoolExecutor(3)
    return concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))


@pytest.mark.parametrize("kind", ["threads", pytest.param("processes", marks=pytest.mark.slow)])
def test_any_executor_gives_the_bits_of_the_local_devices(kind, here, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_ENABLE_X64", "1")

    def narrow(merged, count):
        return bool(merged["value"][..., 0].min() >= 30)

    with pool(kind) as executor:
        seen = []
        run(store=tmp_path / "store", executor=executor, progress=lambda done, total: seen.append(done))
        assert same_stores(tmp_path / "store", here) == []
        assert seen[0] == 0 and seen[-1] == 192 and seen == sorted(seen)
        # In memory, too.
        assert same_bits(run(executor=executor, keep_trials=False), open_reductions(here)) == []
        # Chunks beyond the stop may have been computed; they do not count.
        stopped = run(executor=executor, stop_when=narrow, store=tmp_path / "stopped")
        assert int(stopped["computed"].sum()) == 32


def test_what_a_worker_raises_ends_the_run_and_what_is_complete_stays(here, tmp_path, monkeypatch):
    write = SweepStore.write

    def full(self, index, *arguments):
        if index == 7:
            raise StoreError(f"The store {self.path} cannot be used (No space left on device).")
        write(self, index, *arguments)

    with pool("threads") as executor:
        with monkeypatch.context() as patch:
            patch.setattr(SweepStore, "write", full)
            with pytest.raises(StoreError, match="No space left"):
                run(store=tmp_path / "store", executor=executor)
        assert 0 < int(ld.open_sweep(tmp_path / "store")["computed"].sum()) < 48
        run(store=tmp_path / "store", executor=executor)
    assert same_stores(tmp_path / "store", here) == []


def test_a_cluster_refuses_other_precision_by_name_and_survives_the_death_of_a_worker(here, tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_ENABLE_X64", raising=False)
    options = {"threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
    with distributed.LocalCluster(n_workers=2, **options) as cluster, cluster.get_client() as client:
        executor, killed = client.get_executor(pure=False), []
        with pytest.raises(WorkerError, match="float is float32 there and float64 in the run"):
            run(store=tmp_path / "store", executor=executor)
        assert not (tmp_path / "store").exists()
        client.run(lambda: jax.config.update("jax_enable_x64", True))

        def progress(done, total):
            if done and not killed:
                killed.append(next(iter(client.run(os.getpid).values())))
                os.kill(killed[0], signal.SIGKILL)

        client.register_plugin(_cluster._plugin())
        run(store=tmp_path / "store", executor=executor, progress=progress)
        assert killed and killed[0] not in client.run(os.getpid).values()
    assert same_stores(tmp_path / "store", here) == []


STUDIES = {
    "lemma11": ["--inputs", "20", "--widths", "13,1e9", "--alphas", "0.5,0.2", "--trials", "300", "--chunk", "10"],
    "theorem12": ["--samples", "3", "--widths", "1e2,1e6", "--alphas", "0.5", "--trials", "40", "--chunk", "2"],
}


def command(study, out, *more):
    arguments = [sys.executable, "-m", "lindyn_jax", "sweep", study, *STUDIES[study], "--keep-trials"]
    return [*arguments, "--out", str(out), *more]


def computed(out):
    try:
        return int(ld.open_sweep(out)["computed"].sum())
    except (FileNotFoundError, StoreError):
        return 0


def children(process):
    found = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(process)], capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in found.splitlines() if "spawn_main" in line]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("study", STUDIES)
def test_a_sweep_by_two_processes_of_which_one_is_killed_and_then_the_driver_has_the_bits_of_one(study, tmp_path):
    ended = subprocess.run(command(study, tmp_path / "one"), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    for killed in ("worker", "driver"):
        out = tmp_path / killed
        running = subprocess.Popen(command(study, out, "--cluster", "local:2"), stderr=subprocess.PIPE, text=True)
        while computed(out) == 0:
            time.sleep(0.05)
        workers = children(running.pid)
        assert len(workers) == 2
        os.kill(workers[0] if killed == "worker" else running.pid, signal.SIGKILL)
        assert computed(out) < (300 if study == "lemma11" else 40)
        error = running.communicate(timeout=600)[1]
        assert running.returncode == (0 if killed == "worker" else -signal.SIGKILL), error
        if killed == "driver":
            deadline = time.monotonic() + 30
            while any(os.path.exists(f"/proc/{worker}") for worker in workers) and time.monotonic() < deadline:
                time.sleep(0.1)
            assert not any(os.path.exists(f"/proc/{worker}") for worker in workers)
            again = subprocess.run(command(study, out, "--cluster", "local:2"), capture_output=True, text=True)
            assert again.returncode == 0, again.stderr
            assert "resuming" in again.stderr
        assert same_stores(out, tmp_path / "one") == []
        assert {path.name for path in out.iterdir()} == {"sweep.zarr", "figure.png", "figure.pdf"}


@pytest.fixture
def refused(monkeypatch, capsys, tmp_path):
    def call(*arguments):
        line = ["lindyn-jax", "sweep", "lemma11", *STUDIES["lemma11"], "--out", str(tmp_path / "out"), *arguments]
        monkeypatch.setattr(sys, "argv", line)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 2
        return capsys.readouterr().err.strip().splitlines()[-1]

    return call


def test_what_is_no_cluster_is_refused_in_a_sentence(refused, tmp_path, monkeypatch):
    for name, text in (("list.json", "[1, 2]"), ("other.json", '{"id": 3}'), ("words.json", "address")):
        (tmp_path / name).write_text(text)
        assert "is no scheduler file" in refused("--cluster", str(tmp_path / name))
    assert "No such file" in refused("--cluster", str(tmp_path / "missing.json"))
    for text in ("local:0", "local:", "nonsense", "tcp://host"):
        assert "must be tcp://HOST:PORT, a scheduler file" in refused("--cluster", text)
    monkeypatch.setattr(_cluster, "TIMEOUT", 0.3)
    (tmp_path / "gone.json").write_text(json.dumps({"address": "tcp://127.0.0.1:1"}))
    for text in ("tcp://127.0.0.1:1", str(tmp_path / "gone.json")):
        assert "No scheduler answers at tcp://127.0.0.1:1 within 0.3 s" in refused("--cluster", text)
    assert not (tmp_path / "out" / "sweep.zarr").exists()


@pytest.mark.slow
def test_without_workers_a_run_waits_says_so_and_ends_at_a_signal(tmp_path):
    options = {"n_workers": 0, "dashboard_address": None, "silence_logs": 50}
    with distributed.LocalCluster(**options) as cluster:
        arguments = command("lemma11", tmp_path / "out", "--cluster", cluster.scheduler_address)
        # A test that runs in the background may have been told to ignore the signal.
        hear = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
        running = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, preexec_fn=hear)
        lines = iter(running.stderr.readline, "")
        assert any("waiting for one" in line for line in lines)
        running.send_signal(signal.SIGINT)
        assert "the same command goes on from there" in running.communicate(timeout=60)[1]
        assert running.returncode == 130


HOLD = """
import fcntl, os, sys, time
place = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.lockf(place, fcntl.LOCK_EX)
os.write(place, b"4711 on elsewhere")
print("held", flush=True)
time.sleep(600)
"""


def test_a_second_run_of_one_store_is_refused_until_the_first_is_dead(here, tmp_path):
    place = tmp_path / ".store.driver"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(place)], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match="is being computed by process 4711 on elsewhere: wait"):
            run(store=tmp_path / "store")
        first.kill()
    run(store=tmp_path / "store")
    assert same_stores(tmp_path / "store", here) == []
    assert os.listdir(tmp_path) == ["store"]

    def second(done, total):
        with pytest.raises(StoreError, match=f"process {os.getpid()} on "):
            run(8, store=tmp_path / "other")

    run(8, store=tmp_path / "other", progress=second)


def test_a_run_of_other_settings_is_refused_whoever_computes(here):
    before = np.array(ld.open_sweep(here)["value"])
    with pool("threads") as executor, pytest.raises(StoreError, match="stop is null there and 1e-06 here"):
        run(store=here, executor=executor, settings={"stop": 1e-6})
    assert np.array_equal(ld.open_sweep(here)["value"], before)
