"""What a worker does: one chunk after another of an ensemble, in this process or wherever an executor has it done.

A `Program` is what is sent. It unpacks to the same object for all tasks of a process, which therefore compiles once, and only
where versions and precision are those of the run. A chunk is written where it is computed; writing it twice, or in two places
at once, gives the same files.
"""

import concurrent.futures
import functools
import json
import os
import pickle
import platform
import threading
import time
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from .._files import Place
from .batches import Runner, Trial
from .machine import describe_environment, free_memory
from .store import SweepStore

# What has to be the same where chunks of one run are computed, and versions.
NUMERIC = ("float", "generator", "matmul_precision")
# Seconds between two looks at jobs that cannot be waited for.
PAUSE = 0.5


Arrays = Mapping[str, np.ndarray]


class WorkerError(ValueError):
    """A worker that computes other numbers than the run asks for."""


class Parts(NamedTuple):
    """What a program is made of. **Fields:** as of `Runner`."""

    trial: Trial
    grid: Mapping[str, np.ndarray]
    key: Any
    batch: str
    reductions: Mapping[str, Any]


class Program:
    """The trials of an ensemble, to be computed in any process.

    **Args:** `parts`, what it is made of, or what was sent of them: versions and precision of the run, and the parts pickled, by
    cloudpickle where that is installed, as it is with Dask. Those are looked at when the first task is begun, for what fails
    before does not reach the run.
    """

    def __init__(self, parts: Parts | None = None, sent: tuple[str, bytes] = ("{}", b"")):
        self._given, self._received = parts, sent
        self.busy = threading.Lock()
        self._runner: Runner | None = None

    @functools.cached_property
    def parts(self) -> Parts:
        if self._given is not None:
            return self._given
        setting, parts = self._received
        _check_setting(json.loads(setting))
        return pickle.loads(parts)

    def runner(self, chunk: int) -> Runner:
        """The compiled batch of this process for a chunk of that size; that of another size is forgotten."""
        if self._runner is None or self._runner.chunk != chunk:
            trial, grid, key, batch, reductions = self.parts
            self._runner = Runner(trial, grid, key, chunk, batch, reductions)
        return self._runner

    @functools.cached_property
    def _packed(self) -> tuple[str, bytes]:
        try:
            from cloudpickle import dumps
        except ModuleNotFoundError:
            dumps = pickle.dumps
        try:
            return json.dumps(numeric_setting()), dumps(self.parts)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ValueError(
                f"The trial or its reductions cannot be sent to workers ({error}): define them at the top of a module, without "
                "what belongs to one process (open files, locks), and install cloudpickle for those defined elsewhere."
            ) from error

    def __reduce__(self):
        return _unpacked, self._packed


@functools.lru_cache(maxsize=4)
def _unpacked(*sent) -> Program:
    return Program(None, sent)


def _check_setting(run: Mapping[str, Any]) -> None:
    """Refuses to compute numbers that are not those of the run."""
    here = numeric_setting()
    differ = [f"{name} is {here[name]} there and {run[name]} in the run" for name in run if here[name] != run[name]]
    if differ:
        raise WorkerError(
            f"The worker of process {os.getpid()} on {platform.node()} would compute other numbers ({'; '.join(differ)}): start "
            "it in the environment of the run, in float64 with JAX_ENABLE_X64=1."
        )


def numeric_setting() -> dict[str, Any]:
    """Versions and precision of this process."""
    environment = describe_environment()
    return environment["versions"] | {name: environment[name] for name in NUMERIC}


class Survey(NamedTuple):
    """What has to be known before chunks are computed. **Fields:** `chunk`, its size; `outputs` and `reduced`, shapes and dtypes;
    `environment` of the worker."""

    chunk: int
    outputs: dict[str, Any]
    reduced: dict[str, Any]
    environment: dict[str, Any]


def survey(program: Program, chunk: int, fit: bool) -> Survey:
    """What a trial puts out, and with `fit` the largest chunk up to the given one that the devices have memory for."""
    with program.busy:
        run = program.runner(chunk)
        while fit and chunk > 1 and run.memory > (free := free_memory() / 2):
            chunk = max(1, min(chunk // 2, int(chunk * free / run.memory)))
            run = program.runner(chunk)
        return Survey(chunk, run.outputs, run.reduced, describe_environment())


class Task(NamedTuple):
    """What is done with chunks.

    **Fields:** `chunk`, their size; `trials` in all; `store`, the folder they are written to, or `None`; `keeps`, whether every
    trial is kept; `reports`, whether their reductions are wanted by the run.
    """

    chunk: int
    trials: int
    store: Place
    keeps: bool
    reports: bool


def compute(program: Program, task: Task, index: int) -> tuple[Arrays, Arrays]:
    """Computes a chunk and writes it, unless another worker has.

    **Returns:** the outputs of its trials without a store to hold them, and its reductions where they are wanted.
    """
    store = None if task.store is None else SweepStore(task.store)
    if store is not None and store.holds(index):
        return {}, store.read_reduced(index) if task.reports else {}
    part = slice(index * task.chunk, min((index + 1) * task.chunk, task.trials))
    present, values = part.stop - part.start, {}
    # The devices of a process are for one chunk at a time; while it is written they are free for the next.
    with program.busy:
        outputs, parts = program.runner(task.chunk)(part.start, present)
        if task.keeps:
            shape = tuple(len(axis) for axis in program.parts.grid.values())
            for name, output in outputs.items():
                whole = np.asarray(output).reshape(*shape, task.chunk, *output.shape[2:])
                values[name] = whole[(*(slice(None),) * len(shape), slice(0, present))]
    if store is not None:
        store.write(index, part, values, parts)
        values = {}
    return values, parts if task.reports else {}


@runtime_checkable
class Executor(Protocol):
    """What tasks are submitted to: a `concurrent.futures.Executor`, or what makes jobs with `done`, `result` and `cancel`."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any: ...


class Here(concurrent.futures.Executor):
    """The local devices: what is submitted is done at once."""

    def submit(self, fn, /, *arguments, **options):
        future = concurrent.futures.Future()
        future.set_result(fn(*arguments, **options))
        return future


def engine_of(executor: Executor | None) -> Executor:
    """What tasks are submitted to: the local devices by default.

    **Raises:** `ValueError` for one that would keep results of the past, or whose workers would hang.
    """
    if executor is None:
        return Here()
    kind = f"{type(executor).__module__.split('.')[0]}.{type(executor).__name__}"
    if hasattr(executor, "get_executor"):
        raise ValueError(f"Argument `executor` is a {kind}: pass its `get_executor(pure=False)`.")
    context = getattr(executor, "_mp_context", None)
    if context is not None and context.get_start_method() == "fork":
        raise ValueError(
            f"Argument `executor` is a {kind} whose processes are forked, and JAX hangs in those: pass "
            '`ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn"))`.'
        )
    return executor


def ended(pending: Collection[Any], patience: float) -> list[Any]:
    """Those of the tasks that have ended, as soon as one has, or none after so many seconds.

    Jobs such as those of submitit have no more than `done`, `result` and `cancel`, and are asked again and again.
    """
    if all(isinstance(task, concurrent.futures.Future) for task in pending):
        return list(concurrent.futures.wait(pending, patience, concurrent.futures.FIRST_COMPLETED).done)
    until = time.monotonic() + patience
    while not (done := [task for task in pending if task.done()]) and time.monotonic() < until:
        time.sleep(PAUSE)
    return done
