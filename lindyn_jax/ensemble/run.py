"""Monte Carlo: a trial function over a labelled grid times trials, in one compilation, as a labelled dataset.

Trial t has the key `fold_in(key, t)` at every grid point, so results do not depend on how the work is cut up, and points of
the grid are compared on common random numbers. A chunk of trials is the unit of work, of storage and of resume: it is spread
over the devices of a process, reduced on one of them, and only then leaves it. Chunks are tasks of an executor, the local devices
by default; they are merged here, in their order.
"""

import contextlib
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, UInt32

from .. import _checks, observables
from .._public import public
from ..statistics import AbstractReduction
from .batches import BATCHES, Trial
from .building import Plan
from .folder import NO_LOCK
from .joining import add_points
from .machine import UNBATCHED, generator_of, key_words
from .names import COORDINATES, TRIAL, Variable, check_name, check_names
from .reading import Merged, flat, open_reductions, open_sweep
from .store import SweepStore
from .work import Executor, Parts, Program, Survey, Task, compute, ended, engine_of, survey

Progress = Callable[[int, int], None]
StopWhen = Callable[[Mapping[str, np.ndarray], int], bool]
# Chunks that an executor is given at once, and seconds after which progress is told without any.
IN_FLIGHT, PATIENCE = 64, 2.0


@public
def run_ensemble(
    trial: Trial,
    grid: Mapping[str, Any],
    trials: int,
    *,
    key: PRNGKeyArray | UInt32[Array, "2"],
    chunk: int | None = None,
    largest_chunk: int | None = None,
    batch: str = "auto",
    store: str | os.PathLike | SweepStore | None = None,
    progress: Progress | None = None,
    dims: Mapping[str, tuple[str, ...]] | None = None,
    attributes: Mapping[str, Mapping[str, Any]] | None = None,
    settings: Mapping[str, Any] | None = None,
    reductions: Mapping[str, AbstractReduction] | None = None,
    keep_trials: bool = True,
    stop_when: StopWhen | None = None,
    executor: Executor | None = None,
    trust_store: bool = False,
):
    """Runs `trial(key, **point)` for every point of a grid and every trial.

    **Args:**

    - `trial`: function of a key and one number for each grid name, returning a dictionary of arrays. It is traced once for
        the whole grid, so grid values are numbers inside it, not shapes. A boolean `ok` among its outputs says whether the
        trial succeeded; without it a trial is ok when all its outputs are finite.
    - `grid`: name -> vector of numbers (widths, exponents, scales, imbalance levels).
    - `trials`: trials at each grid point.
    - `key`: the root key. Keys of the generators rbg and unsafe_rbg need `batch="map"`: in lock step their numbers would depend
        on which trials are batched together.
    - `chunk`: trials computed, stored and resumed as one piece, all grid points together. By default `largest_chunk`, or less
        where the devices have no memory for that: half of what is free is used.
    - `largest_chunk`: a limit for the chosen chunk; by default 256 evaluations (trials times grid points) under `"map"`, where
        one can take long, and 1024 trials otherwise.
    - `batch`: `"map"` runs trials one after another on each device, `"vmap"` the trials of a grid point in lock step,
        `"blocks"` blocks of 256 of them in lock step, one block after another: on CPU the fastest for trials that all take
        equally long. `"auto"` is `"map"` on CPU and for keys of rbg, `"vmap"` elsewhere. The work is spread over all local
        devices, whose number need not divide it.
    - `store`: folder of a Zarr store, or its address in an object store (`s3://BUCKET/NAME`; extra `remote`). What is complete
        there is checked and not computed again; what is missing or damaged is, and a warning says so. With more `trials` than it
        was made for it is extended by those; where it is finished, and one coordinate of the grid has more values than it had, by
        the points of these alone.
    - `progress`: called with (trials done, trials in all), counted over the grid, after each chunk.
    - `dims`: names of the dimensions of outputs that are not scalars.
    - `attributes`: attributes (units, convention, description) of coordinates and outputs; outputs with the name of an observable
        have its own by default.
    - `settings`: whatever else determines the results, the data above all; a store made with other settings is refused. The
        grid, trials, key, batch, precision and reductions are among them anyway.
    - `reductions`: name -> what to keep of each chunk as a whole (`statistics.Count`, `Moments`, `Histogram`), computed on the
        device. They see failed trials as NaN.
    - `keep_trials`: whether to keep the outputs of every trial. Without them the memory in use is that of one chunk, whatever
        the number of trials.
    - `stop_when`: function of (merged reductions, trials behind them), asked after each chunk in their order whether that is
        enough. Which chunk is the last depends on the seed and the chunk only, not on devices, workers or restarts.
    - `trust_store`: whether a store that is finished and was made with these settings is read without a look at `trial`. By
        default its outputs must be those of the store, which takes as long as tracing it.
    - `executor`: where chunks are computed, any `concurrent.futures.Executor`: `client.get_executor()` of a Dask client, a
        `ProcessPoolExecutor` of spawned processes, an `mpi4py.futures.MPIPoolExecutor`, or threads; and those of submitit, whose
        jobs are asked again and again whether they have ended. One worker a device does best; workers write their chunks to the
        store themselves. By default the local devices, one chunk after another.

    **Returns:** an `xarray.Dataset` with dimensions (grid names..., `trial`, ...), read lazily from the store if there is
    one. Failed trials keep their values and are flagged by `ok`; `masked` removes them. With `keep_trials=False` it holds the
    merged reductions over the grid, and the number of trials behind them as `trials_computed`.

    **Raises:** `ValueError` for an empty grid or one that is not numbers, trials or chunk below 1, a trial function that does
    not return a dictionary of arrays, neither trials nor reductions to keep, names that a store cannot hold beside one
    another, keys of rbg in lock step; `StoreError` for a store made with other settings or for other outputs, one that another
    run computes for at the moment, and for a disk that cannot be used; `ensemble.WorkerError` for a worker of other versions
    or precision; and what an executor raises.

    **Notes:** reductions are merged in the order of the chunks and do not depend on devices, workers or restarts; another
    chunk size moves the last digits of their means. `"auto"` looks at the devices of this process, not of workers.
    Under `"map"` and `"blocks"` no bit of a trial depends on the devices.

    Example:

        >>> problem = ld.factorization(jnp.diag(jnp.array([2.0, 1.0])))
        >>> def trial(key, width):
        ...     start = ld.init.gaussian_core(problem, width, alpha=0.5, key=key)
        ...     return {"square": width * jnp.sum(start.product() ** 2)}
        >>> found = ld.run_ensemble(trial, {"width": [10.0, 1e6]}, 500, key=jax.random.key(0))
        >>> print(found["square"].mean("trial").values)  # n m = 4 in the mean
        [3.871 3.979]
    """
    import xarray as xr

    grid = _grid(grid)
    for name in reductions or {}:
        check_name(name, "Reduction")
    trials = _checks.check_count(trials, "trials")
    reductions = dict(reductions or {})
    if not (keep_trials or reductions):
        raise ValueError("Nothing would be kept: pass `reductions`, or leave `keep_trials` on.")
    if stop_when is not None and not reductions:
        raise ValueError("Argument `stop_when` judges merged reductions: pass `reductions` as well.")
    _checks.check_choice(batch, "batch", BATCHES)
    generator = generator_of(key)
    if batch == "auto":
        batch = "map" if jax.default_backend() == "cpu" or generator in UNBATCHED else "vmap"
    if batch != "map" and generator in UNBATCHED:
        raise ValueError(
            f"Argument `key` is of the generator {generator}, whose numbers depend on which trials are computed in lock step: "
            f'pass `batch="map"`, or `jax.random.key(seed, impl="threefry2x32")`.'
        )
    engine = engine_of(executor)
    names, shape, given = tuple(grid), tuple(len(values) for values in grid.values()), settings
    points = int(np.prod(shape))
    settings = {
        "grid": {name: values.tolist() for name, values in grid.items()},
        "trials": trials,
        "key": key_words(key),
        "generator": generator,
        "batch": batch,
        "dtype": str(jnp.result_type(float)),
        "matmul_precision": str(_checks.jax_setting("jax_default_matmul_precision") or "default"),
        "keep_trials": keep_trials,
        "reductions": {name: _described(name, reductions[name]) for name in sorted(reductions)},
        **(settings or {}),
    }
    if isinstance(store, (str, os.PathLike)):
        store = SweepStore(store)
    if store is not None:
        store.recover()
    resumed = store if store is not None and store.check(settings) else None
    axis = None if resumed is None else resumed.growing_axis(settings)
    if resumed is not None and axis is None and trust_store and stop_when is None and resumed.is_finished(trials):
        if progress is not None:
            progress(points * trials, points * trials)
        return _opened(resumed, keep_trials, grid, attributes)
    fit = resumed is None and chunk is None
    if resumed is not None:
        chunk = resumed.chunk
    elif chunk is None:
        # A few hundred trials a chunk on CPU, where one can take long; enough to fill an accelerator elsewhere.
        usual = max(1, 256 // points) if batch == "map" else 1024
        chunk = min(trials, usual if largest_chunk is None else _checks.check_count(largest_chunk, "largest_chunk"))
    else:
        chunk = min(_checks.check_count(chunk, "chunk"), trials)

    program = Program(Parts(trial, grid, key, batch, reductions))
    known: Survey = engine.submit(survey, program, chunk, fit).result()
    described = observables.attributes() | dict(attributes or {})
    variables = _variables(known.outputs, names, shape, trials, dims or {}, described) if keep_trials else {}
    reduced = _reduced_variables(known.reduced, reductions, names, described)
    coordinates = {
        name: xr.Variable((name,), values, _facts(name, attributes))
        for name, values in ({**grid, TRIAL: np.arange(trials)} if keep_trials else grid).items()
    }
    check_names(variables, coordinates, reduced)
    with contextlib.nullcontext(NO_LOCK) if store is None else store.driving() as lock:
        chunk, arrays = known.chunk, {}
        if store is not None:
            plan = Plan(variables, coordinates, settings, {"environment": known.environment}, trials, chunk, reduced)
            if axis in grid:

                def again(grid, trials, store, progress):
                    options = {"chunk": chunk, "batch": batch, "executor": executor, "keep_trials": keep_trials}
                    # Of single trials they are taken when all points are there.
                    kept = None if keep_trials else reductions
                    described = {"dims": dims, "attributes": attributes, "settings": given, "reductions": kept}
                    return run_ensemble(
                        trial, grid, trials, key=key, store=store, progress=progress, **options, **described
                    )

                def of_all(done: int, added: int) -> None:
                    lock.check()
                    if progress is not None:
                        progress(points * trials - added + done, points * trials)

                add_points(store, axis, again, grid, plan, of_all, program.runner(chunk).reductions_of)
            chunk = store.prepare(*plan, executor is not None)
            snapshot = store.snapshot()
            snapshot.warn_of_damage(store.path)
            complete = snapshot.complete
        else:
            complete = np.zeros(-(-trials // chunk), bool)
            arrays = {name: np.empty(variable.shape, variable.dtype) for name, variable in variables.items()}
        prefix = _Prefix({name: reduction.merging for name, reduction in reductions.items()}, stop_when, trials, chunk)
        follow = bool(reductions) and (stop_when is not None or store is None)
        ours: dict[int, Mapping[str, np.ndarray]] = {}
        sizes = np.minimum(chunk, trials - np.arange(len(complete)) * chunk)

        def advance() -> None:
            while follow and not prefix.stopped and prefix.chunks < len(complete) and complete[prefix.chunks]:
                index = prefix.chunks
                prefix.add(ours.pop(index) if store is None or index in ours else store.read_reduced(index))

        def report() -> None:
            lock.check()
            if progress is not None:
                progress(points * int(np.sum(sizes[complete])), points * trials)

        advance()
        if store is not None and not prefix.stopped:
            # What an earlier run found narrow enough is not for this one.
            store.set_stop(None)
        report()
        task = Task(chunk, trials, None if store is None else store.place.absolute, keep_trials, follow)
        waiting = np.flatnonzero(~complete).tolist()[::-1]
        pending: dict[Any, int] = {}
        try:
            while (waiting or pending) and not prefix.stopped:
                while waiting and len(pending) < (1 if executor is None else IN_FLIGHT):
                    index = waiting.pop()
                    pending[engine.submit(compute, program, task, index)] = index
                done = ended(pending, PATIENCE)
                for future in sorted(done, key=pending.__getitem__):
                    index = pending.pop(future)
                    values, parts = future.result()
                    for name, array in arrays.items():
                        place = slice(index * chunk, min((index + 1) * chunk, trials))
                        array[(*(slice(None),) * len(shape), place)] = values[name]
                    complete[index] = True
                    if follow:
                        ours[index] = parts
                    advance()
                    report()
                if not done:
                    report()
        finally:
            for future in pending:
                future.cancel()
        if store is not None:
            store.set_stop({"chunks": prefix.chunks, "trials": prefix.trials} if prefix.stopped else None)
    if store is not None:
        return _opened(store, keep_trials, grid, attributes)
    attrs = {"settings": settings, "environment": known.environment, "chunk": chunk, "trials": trials}
    if keep_trials:
        dataset = xr.Dataset(
            {name: (variables[name].dims, value, variables[name].attributes) for name, value in arrays.items()},
            coords=coordinates,
            attrs=attrs,
        )
        if prefix.stopped:
            dataset = dataset.isel({TRIAL: slice(0, prefix.trials)})
    else:
        dataset = prefix.merged.dataset(reduced, grid, prefix.trials, attrs)
    return flat(_attributed(dataset, grid, attributes))


def _opened(store: SweepStore, keep_trials: bool, grid, attributes):
    """What a store holds, read lazily."""
    return _attributed((open_sweep if keep_trials else open_reductions)(store.path), grid, attributes)


def _facts(name: str, attributes) -> dict[str, Any]:
    return COORDINATES.get(name, {}) | dict((attributes or {}).get(name, {}))


def _attributed(dataset, grid, attributes):
    for name in grid:
        dataset[name].attrs.update(_facts(name, attributes))
    return dataset


@public
def masked(dataset):
    """The dataset with every floating-point value of a failed (or not yet computed) trial replaced by NaN.

    **Args:** `dataset`, as from `run_ensemble` or `open_sweep`.

    **Returns:** an `xarray.Dataset`, in which flags and whole numbers are as they were.

    **Raises:** `ValueError` for what has no variable `ok`.

    Example:

        >>> trial = lambda key, x: {"root": jnp.sqrt(x)}
        >>> found = ld.run_ensemble(trial, {"x": [4.0, -1.0]}, 2, key=jax.random.key(0))
        >>> print(found["ok"].values)
        [[ True True]
         [False False]]
        >>> print(ld.masked(found)["root"].mean("trial").values)
        [ 2. nan]
    """
    if "ok" not in getattr(dataset, "data_vars", ()):
        raise ValueError(
            "Argument `dataset` must be a dataset of trials with the variable `ok`, as from `run_ensemble` or `open_sweep`, "
            f"but is of type {type(dataset).__name__}."
        )
    valid = dataset["ok"].astype(bool)
    if "computed" in dataset.coords:
        valid = valid & dataset["computed"]
    floats = [name for name in dataset.data_vars if np.issubdtype(dataset[name].dtype, np.floating)]
    return dataset.assign({name: dataset[name].where(valid) for name in floats})


class _Prefix:
    """The reductions of the first chunks, merged in order, and whether they are enough."""

    def __init__(self, rules: Mapping[str, str], stop_when: StopWhen | None, total: int, chunk: int):
        self.merged, self.stop_when, self.total, self.chunk = Merged(rules), stop_when, total, chunk
        self.chunks, self.stopped = 0, False

    @property
    def trials(self) -> int:
        return min(self.total, self.chunks * self.chunk)

    def add(self, reduced: Mapping[str, np.ndarray]) -> None:
        self.merged.add(reduced)
        self.chunks += 1
        self.stopped = self.stop_when is not None and bool(self.stop_when(self.merged.values, self.trials))


def _grid(grid: Mapping[str, Any]) -> dict[str, np.ndarray]:
    if not grid:
        raise ValueError("Argument `grid` must name at least one coordinate, such as {'width': [100, 1000]}.")
    checked = {}
    for name, values in grid.items():
        check_name(name, "A grid coordinate")
        values = np.atleast_1d(np.asarray(values))
        if values.ndim != 1 or values.size == 0 or values.dtype.kind not in "iuf":
            raise ValueError(f"Grid coordinate `{name}` must be a vector of numbers with at least one entry.")
        if not np.all(np.isfinite(values)):
            raise ValueError(f"Grid coordinate `{name}` must be finite.")
        checked[name] = values
    return checked


def _variables(outputs, names, shape, trials, dims, attributes) -> dict[str, Variable]:
    variables = {}
    for name, output in outputs.items():
        extra = dims.get(name, tuple(f"{name}_{axis}" for axis in range(len(output.shape))))
        if len(extra) != len(output.shape):
            raise ValueError(f"Output `{name}` has {len(output.shape)} dimensions, but `dims` names {len(extra)}.")
        variables[name] = Variable(
            (*names, TRIAL, *extra),
            (*shape, trials, *output.shape),
            np.dtype(output.dtype),
            dict(attributes.get(name, {})),
        )
    return variables


def _reduced_variables(outputs, reductions, names, attributes) -> dict[str, Variable]:
    variables = {}
    for name, reduction in reductions.items():
        extra, lengths, meaning = reduction.extra(name)
        dims = (*(names if reduction.dims is None else reduction.dims), *extra)
        output = outputs[name]
        if len(dims) != len(output.shape) or output.shape[len(dims) - len(extra) :] != lengths:
            raise ValueError(f"Reduction `{name}` has shape {output.shape}, but its dimensions are {dims}.")
        source = attributes.get(reduction.output, {})
        described = {**source, **attributes.get(name, {}), **meaning, "merging": reduction.merging}
        variables[name] = Variable(dims, output.shape, np.dtype(output.dtype), described)
    return variables


def _described(name: str, reduction: AbstractReduction) -> dict[str, Any]:
    _, lengths, meaning = reduction.extra(name)
    return {
        "of": reduction.output or "a function",
        "dims": reduction.dims,
        "lengths": lengths,
        "merging": reduction.merging,
        **meaning,
    }
