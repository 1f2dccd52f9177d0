"""Executors that are not Dask's: MPI processes, jobs that can only be asked, and those that are refused before anything runs."""

import concurrent.futures
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import pytest
from test_cluster import run, same_bits, same_stores

import lindyn_jax as ld
from lindyn_jax.ensemble import work

# Of processes that find these tests, in the precision of the tests.
ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)]),
    "JAX_ENABLE_X64": "1",
}


class Job:
    """What is known of a job in a queue: whether it has ended, and its result."""

    def __init__(self, future):
        self.done, self.result, self.cancel = future.done, future.result, future.cancel


class Queue:
    """An executor whose jobs are no futures."""

    def __init__(self, pool):
        self.pool = pool

    def submit(self, fn, *arguments):
        return Job(self.pool.submit(fn, *arguments))


def test_jobs_that_can_only_be_asked_give_the_bits_of_the_local_devices(tmp_path, monkeypatch):
    monkeypatch.setattr(work, "PAUSE", 0.01)
    with ThreadPoolExecutor(2) as pool:
        run(40, store=tmp_path / "store", executor=Queue(pool))
        assert same_bits(run(40, executor=Queue(pool)), run(40)) == []
    run(40, store=tmp_path / "here")
    assert same_stores(tmp_path / "store", tmp_path / "here") == []


@pytest.mark.slow
def test_jobs_of_submitit_give_the_bits_of_the_local_devices(tmp_path, monkeypatch):
    submitit = pytest.importorskip("submitit")
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    executor = submitit.AutoExecutor(tmp_path / "logs", cluster="local")
    run(8, store=tmp_path / "store", executor=executor)
    run(8, store=tmp_path / "here")
    assert same_stores(tmp_path / "store", tmp_path / "here") == []


MPI = """
import sys
from mpi4py.futures import MPIPoolExecutor
from test_cluster import run

if __name__ == "__main__":
    import jax

    jax.config.update("jax_enable_x64", True)
    with MPIPoolExecutor() as executor:
        run(24, store=sys.argv[1], executor=executor)
        print("workers", executor.num_workers)
"""


@pytest.mark.timeout(300)
def test_processes_of_mpi_give_the_bits_of_the_local_devices(tmp_path):
    pytest.importorskip("mpi4py", reason="needs mpi4py and an MPI")
    # Beside the interpreter where the MPI is a wheel as well.
    mpiexec = shutil.which("mpiexec", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]))
    if mpiexec is None:
        pytest.skip("no mpiexec")
    (tmp_path / "script.py").write_text(MPI)
    # Of Open MPI: more processes than cores, and root in containers.
    allowed = {f"OMPI_ALLOW_RUN_AS_ROOT{end}": "1" for end in ("", "_CONFIRM")} | {
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"
    }
    command = [
        mpiexec,
        "-n",
        "3",
        sys.executable,
        "-m",
        "mpi4py.futures",
        str(tmp_path / "script.py"),
        str(tmp_path / "store"),
    ]
    ended = subprocess.run(
        command, env={**os.environ, **ENVIRONMENT, **allowed}, capture_output=True, text=True, timeout=240
    )
    assert ended.returncode == 0 and "workers 2" in ended.stdout, ended.stderr
    run(24, store=tmp_path / "here")
    assert same_stores(tmp_path / "store", tmp_path / "here") == []


class Client:
    """Of Dask, it would keep the results of tasks that it has seen."""

    def submit(self, fn, *arguments):
        raise AssertionError("nothing is submitted")

    def get_executor(self):
        raise AssertionError("nobody asks")


def test_what_takes_no_tasks_is_refused_in_a_sentence(tmp_path):
    forked = concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("fork"))
    with forked, multiprocessing.get_context("spawn").Pool(1) as pool:
        for executor, sentence in (
            (forked, r"whose processes are forked.*pass `ProcessPoolExecutor\(mp_context="),
            (Client(), r"pass its `get_executor\(pure=False\)`"),
            (pool, "must be an Executor or None, but is a Pool"),
            (3, "must be an Executor or None, but is"),
        ):
            with pytest.raises(ValueError, match=sentence):
                run(store=tmp_path / "store", executor=executor)
    assert not (tmp_path / "store").exists()


def test_a_trial_that_cannot_be_sent_is_refused_in_a_sentence(monkeypatch):
    lock = threading.Lock()
    program = work.Program(work.Parts(lambda key, x: {"y": x, "lock": lock}, {}, None, "map", {}))
    with pytest.raises(ValueError, match=r"cannot be sent to workers \(cannot pickle .*lock.* define them at the top"):
        pickle.dumps(program)
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    program = work.Program(work.Parts(lambda key, x: {"y": x}, {}, None, "map", {}))
    with pytest.raises(ValueError, match=r"cannot be sent to workers \(.*lambda.* install cloudpickle"):
        pickle.dumps(program)


def test_a_trial_that_fails_in_a_thread_is_raised_as_it_is():
    def trial(key, x):
        raise ArithmeticError("of the trial")

    with ThreadPoolExecutor(1) as executor, pytest.raises(ArithmeticError, match="of the trial"):
        ld.run_ensemble(trial, {"x": [1.0]}, 2, key=jax.random.key(0), executor=executor)
