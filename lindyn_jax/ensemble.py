"""Monte Carlo: a trial function over a labelled grid times trials, in one compilation, as a labelled dataset.

Trial t has the key `fold_in(key, t)` at every grid point, so results do not depend on how the work is cut up, and points of
the grid are compared on common random numbers. A chunk of trials is the unit of work, of storage and of resume: it is spread
over the local devices, reduced on one of them, and only then leaves it. Several processes share out the chunks by number.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, UInt32

from . import _checks, observables
from ._public import public
from .statistics import AbstractReduction
from .store import (
    TRIAL,
    Merged,
    SweepStore,
    Variable,
    check_name,
    check_names,
    open_reductions,
    open_sweep,
    warn_of_damage,
)

Trial = Callable[..., Mapping[str, Array]]
Progress = Callable[[int, int], None]
StopWhen = Callable[[Mapping[str, np.ndarray], int], bool]

BATCHES = ("auto", "map", "vmap", "blocks")
BLOCK = 256
# Generators whose numbers under vmap depend on which keys are batched together.
UNBATCHED = ("rbg", "unsafe_rbg")


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
    process: tuple[int, int] | None = None,
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
    - `store`: folder of a Zarr store. What is complete there is checked and not computed again; what is missing or damaged is,
        and a warning says so.
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
        enough. Which chunk is the last depends on the seed and the chunk only, not on devices, processes or restarts.
    - `process`: (index, number of processes): this one computes every chunk whose number has that remainder, and the others do
        the rest in the same store. By default the index and number that `jax.distributed` knows: (0, 1) without it.

    **Returns:** an `xarray.Dataset` with dimensions (grid names..., `trial`, ...), read lazily from the store if there is
    one. Failed trials keep their values and are flagged by `ok`; `masked` removes them. With `keep_trials=False` it holds the
    merged reductions over the grid, and the number of trials behind them as `trials_computed`.

    **Raises:** `ValueError` for an empty grid or one that is not numbers, trials or chunk below 1, a trial function that does
    not return a dictionary of arrays, neither trials nor reductions to keep, several processes without a store, names that a
    store cannot hold beside one another, keys of rbg in lock step; `StoreError` for a store made with other settings or for
    other outputs, and for a disk that cannot be used.

    **Notes:** reductions are merged in the order of the chunks and do not depend on devices, processes or restarts; another
    chunk size moves the last digits of their means. Under `"map"` and `"blocks"` no bit of a trial depends on the devices.
    """
    import xarray as xr

    grid = _grid(grid)
    for name in reductions or {}:
        check_name(name, "Reduction")
    trials = _count(trials, "trials")
    reductions = dict(reductions or {})
    if not (keep_trials or reductions):
        raise ValueError("Nothing would be kept: pass `reductions`, or leave `keep_trials` on.")
    if stop_when is not None and not reductions:
        raise ValueError("Argument `stop_when` judges merged reductions: pass `reductions` as well.")
    _checks.check_choice(batch, "batch", BATCHES)
    generator = _generator(key)
    if batch == "auto":
        batch = "map" if jax.default_backend() == "cpu" or generator in UNBATCHED else "vmap"
    if batch != "map" and generator in UNBATCHED:
        raise ValueError(
            f"Argument `key` is of the generator {generator}, whose numbers depend on which trials are computed in lock step: "
            f'pass `batch="map"`, or `jax.random.key(seed, impl="threefry2x32")`.'
        )
    rank, processes = (jax.process_index(), jax.process_count()) if process is None else process
    if not 0 <= rank < processes:
        raise ValueError(
            f"Process indices run from 0 to {processes - 1} for {processes} processes, but this one is {rank}."
        )
    if processes > 1 and store is None:
        raise ValueError(f"{processes} processes need a store that all of them can write to: pass `store`.")
    names, shape = tuple(grid), tuple(len(values) for values in grid.values())
    points = int(np.prod(shape))
    settings = {
        "grid": {name: values.tolist() for name, values in grid.items()},
        "trials": trials,
        "key": _key_words(key),
        "generator": generator,
        "batch": batch,
        "dtype": str(jnp.result_type(float)),
        "matmul_precision": str(jax.config.jax_default_matmul_precision or "default"),
        "keep_trials": keep_trials,
        "reductions": {name: _described(name, reductions[name]) for name in sorted(reductions)},
        **(settings or {}),
    }
    if isinstance(store, (str, os.PathLike)):
        store = SweepStore(store)
    resumed = store is not None and store.check(settings)
    fit = not resumed and chunk is None
    if resumed:
        chunk = store.chunk
    elif chunk is None:
        # A few hundred trials a chunk on CPU, where one can take long; enough to fill an accelerator elsewhere.
        usual = max(1, 256 // points) if batch == "map" else 1024
        chunk = min(trials, usual if largest_chunk is None else _count(largest_chunk, "largest_chunk"))
    else:
        chunk = min(_count(chunk, "chunk"), trials)

    def make(chunk: int) -> _Runner:
        return _Runner(trial, grid, key, chunk, batch, reductions)

    run = make(chunk)
    while fit and chunk > 1 and run.memory > (free := free_memory() / 2):
        chunk = max(1, min(chunk // 2, int(chunk * free / run.memory)))
        run = make(chunk)
    described = observables.attributes() | dict(attributes or {})
    variables = _variables(run.outputs, names, shape, trials, dims or {}, described) if keep_trials else {}
    reduced = _reduced_variables(run.reduced, reductions, names, described)
    coordinates = {**grid, TRIAL: np.arange(trials)} if keep_trials else grid
    check_names(variables, coordinates, reduced)
    environment = describe_environment()
    if store is not None:
        recorded = {"environment": environment}
        chunk = store.prepare(variables, coordinates, settings, recorded, trials, chunk, reduced, processes > 1)
        if chunk != run.chunk:
            # Another process made the store, with the chunk that suits its devices.
            run = make(chunk)
        snapshot = store.snapshot()
        warn_of_damage(store, snapshot)
        complete = snapshot.complete
        arrays = {}
    else:
        complete = np.zeros(-(-trials // chunk), bool)
        arrays = {name: np.empty(variable.shape, variable.dtype) for name, variable in variables.items()}
    total = len(complete)
    prefix = _Prefix({name: reduction.merging for name, reduction in reductions.items()}, stop_when, trials, chunk)
    follow = bool(reductions) and (stop_when is not None or store is None)
    ours: dict[int, dict[str, np.ndarray]] = {}

    def advance() -> None:
        while follow and not prefix.stopped and prefix.chunks < total and complete[prefix.chunks]:
            index = prefix.chunks
            prefix.add(ours.pop(index) if index in ours else store.read_reduced(index))

    sizes = np.minimum(chunk, trials - np.arange(total) * chunk)

    def report() -> None:
        if progress is not None:
            progress(points * int(np.sum(sizes[complete])), points * trials)

    advance()
    if store is not None and not prefix.stopped:
        # What an earlier run found narrow enough is not for this one.
        store.set_stop(None, seen=None if stop_when is None else prefix.chunks)
    report()
    for index in range(rank, total, processes):
        if prefix.stopped:
            break
        if complete[index]:
            continue
        part = slice(index * chunk, min((index + 1) * chunk, trials))
        outputs, parts = run(part.start, part.stop - part.start)
        values = {}
        every = (slice(None),) * len(shape)
        for name in variables:
            value = np.asarray(outputs[name])
            values[name] = value.reshape(*shape, chunk, *value.shape[2:])[(*every, slice(0, part.stop - part.start))]
        if store is not None:
            store.write(index, part, values, parts)
        for name in arrays:
            arrays[name][(*every, part)] = values[name]
        complete[index] = True
        if follow:
            if index == prefix.chunks:
                ours[index] = parts
            if processes > 1:
                complete = store.complete(complete)
            advance()
        report()

    if store is not None:
        if follow and processes > 1:
            # Others may have gone on since this one wrote its last chunk.
            complete = store.complete(complete)
            advance()
        stop = {"chunks": prefix.chunks, "trials": prefix.trials} if prefix.stopped else None
        store.set_stop(stop, seen=None if stop_when is None else prefix.chunks)
        dataset = open_sweep(store.path) if keep_trials else open_reductions(store.path)
    else:
        attrs = {"settings": settings, "environment": environment, "chunk": chunk, "trials": trials}
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
    for name in grid:
        dataset[name].attrs.update((attributes or {}).get(name, {}))
    return dataset


class Processes(NamedTuple):
    """Which of how many processes this one is. **Fields:** `index`, from 0; `count`."""

    index: int
    count: int


def join_processes(coordinator: str | None = None, count: int | None = None, index: int | None = None) -> Processes:
    """Finds out which of how many processes this one is; to be called before JAX is used.

    **Args:**

    - `coordinator`: `HOST:PORT` on the host of process 0. With it the processes meet through `jax.distributed`, which makes
        sure that there are as many as they think, and part again at once: from then on one that dies takes no other with it.
        Without it they do not meet.
    - `count`, `index`: number of processes and index of this one, from 0. By default those of the SLURM job step that this
        process belongs to; (1, 0) outside one.

    **Returns:** a `Processes`.

    **Raises:** `ValueError` when only one of count and index is given, for an index that is not one of count, or a coordinator
    without them.

    **Notes:** nothing else is agreed on here. The settings are: all processes write to one store, which belongs to the settings
    of the process that made it, and others are refused by `SweepStore.prepare`. A step of SLURM is what `srun` starts: in
    the batch script itself, and on a login node, there is one process.
    """
    step = "SLURM_STEP_NUM_TASKS" in os.environ and "SLURM_PROCID" in os.environ
    if count is None and index is None and step:
        count, index = int(os.environ["SLURM_STEP_NUM_TASKS"]), int(os.environ["SLURM_PROCID"])
    if (count is None) != (index is None):
        raise ValueError("Give both the number of processes and the index of this one, or neither.")
    if count is None:
        if coordinator is not None:
            raise ValueError(
                "A coordinator needs to know the number of processes and the index of this one: give both, or start the "
                "processes by srun."
            )
        count, index = 1, 0
    if count < 1 or not 0 <= index < count:
        raise ValueError(f"Process indices run from 0 to {count - 1} for {count} processes, but this one is {index}.")
    if coordinator is not None:
        jax.distributed.initialize(coordinator, count, index)
        # The devices of this process are settled by now and stay its own.
        jax.local_devices()
        jax.distributed.shutdown()
    return Processes(index, count)


def free_memory() -> float:
    """Bytes that are free on the fullest local device; for the devices of a CPU their share of the host's free memory."""
    devices = jax.local_devices()
    stats = [device.memory_stats() for device in devices]
    if all(entry and "bytes_limit" in entry for entry in stats):
        return float(min(entry["bytes_limit"] - entry.get("bytes_in_use", 0) for entry in stats))
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) / len(devices)
    except (AttributeError, ValueError, OSError):
        return float("inf")


@public
def masked(dataset):
    """The dataset with every floating-point value of a failed (or not yet computed) trial replaced by NaN.

    **Args:** `dataset`, as from `run_ensemble` or `open_sweep`.
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


def describe_environment() -> dict[str, Any]:
    """Versions, devices and precision, as stored beside results; no setting of a study, so that a resume may find others."""
    import platform
    from importlib.metadata import version

    packages = ("lindyn_jax", "jax", "jaxlib", "equinox", "diffrax", "optax", "numpy")
    device = jax.local_devices()[0]
    return {
        "versions": {"python": platform.python_version()} | {package: version(package) for package in packages},
        "backend": jax.default_backend(),
        "device": device.device_kind,
        "devices": len(jax.local_devices()),
        "float": str(jnp.result_type(float)),
        "generator": _generator(jax.random.key(0)),
        "matmul_precision": str(jax.config.jax_default_matmul_precision or "default"),
    }


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


class _Runner:
    """The compiled batch: trials `start .. start + chunk` at every grid point, and their reductions."""

    def __init__(self, trial: Trial, grid: Mapping[str, np.ndarray], key, chunk: int, batch: str, reductions):
        devices = jax.local_devices()
        self.chunk, self.batch = chunk, batch
        mesh = np.meshgrid(*grid.values(), indexing="ij")
        dtype = jnp.result_type(float)
        self.points = {name: values.ravel().astype(dtype) for name, values in zip(grid, mesh, strict=True)}
        self.count = len(next(iter(self.points.values())))
        # One call computes all points under map, one point under vmap: trials of one point are alike in difficulty.
        self.size = chunk if batch == "vmap" else chunk * self.count
        # A block is the same whatever the devices: it goes to one of them as a whole.
        block = BLOCK if batch == "blocks" else 1
        whole = len(devices) * block
        self.padded = -(-self.size // whole) * whole
        # Dealt out in turn, so that every device gets its share of the hard grid points.
        self.deal = np.arange(self.padded).reshape(-1, len(devices), block).swapaxes(0, 1).ravel()
        self.home = devices[0]

        def one(arguments):
            index, point = arguments
            outputs = trial(jax.random.fold_in(key, index), **point)
            if not isinstance(outputs, Mapping) or not outputs:
                raise ValueError(
                    f"The trial function must return a dictionary of arrays, but returned {type(outputs).__name__}."
                )
            outputs = {name: jnp.asarray(value) for name, value in outputs.items()}
            for name, value in outputs.items():
                if jnp.issubdtype(value.dtype, jax.dtypes.extended):
                    raise ValueError(f"Output `{name}` has dtype {value.dtype}: return numbers.")
            if "ok" not in outputs:
                finite = [jnp.all(jnp.isfinite(v)) for v in outputs.values() if jnp.issubdtype(v.dtype, jnp.inexact)]
                outputs["ok"] = jnp.all(jnp.stack(finite)) if finite else jnp.ones((), bool)
            return outputs

        def many(indices, points):
            if batch == "vmap":
                return jax.vmap(lambda i, p: one((i, p)))(indices, points)
            return jax.lax.map(one, (indices, points), batch_size=None if batch == "map" else BLOCK)

        if len(devices) > 1:
            axis = jax.sharding.PartitionSpec("device")
            self.sharding = jax.sharding.NamedSharding(jax.sharding.Mesh(np.array(devices), ("device",)), axis)
            many = jax.shard_map(many, mesh=self.sharding.mesh, in_specs=(axis, axis), out_specs=axis, check_vma=False)
        else:
            self.sharding = self.home
        lowered = jax.jit(many).lower(*self._arguments(0, slice(0, self.size)))
        self.outputs = {
            name: jax.ShapeDtypeStruct(value.shape[1:], value.dtype) for name, value in lowered.out_info.items()
        }
        self.compiled = lowered.compile()
        collect = np.argsort(self.deal)[: self.size]
        shape = tuple(len(values) for values in grid.values())

        def gather(pieces):
            # On one device and in the order of the trials: what follows is the same program for any number of devices.
            whole = {name: jnp.concatenate([piece[name][collect] for piece in pieces]) for name in self.outputs}
            return {name: value.reshape(self.count, chunk, *value.shape[1:]) for name, value in whole.items()}

        def reduce(outputs, present):
            outputs = {name: value.reshape(*shape, *value.shape[1:]) for name, value in outputs.items()}
            ok = outputs["ok"]

            def seen(value):
                if not jnp.issubdtype(value.dtype, jnp.floating):
                    return value
                return jnp.where(ok.reshape(*ok.shape, *(1,) * (value.ndim - ok.ndim)), value, jnp.nan)

            outputs = {name: seen(value) for name, value in outputs.items()}
            inside = jnp.arange(chunk) < present
            return {name: reduction(outputs, inside) for name, reduction in reductions.items()}

        self._gather, self._reduce = jax.jit(gather), jax.jit(reduce)
        whole = {
            name: jax.ShapeDtypeStruct((self.count, chunk, *output.shape), output.dtype)
            for name, output in self.outputs.items()
        }
        self.reduced = jax.eval_shape(reduce, whole, jax.ShapeDtypeStruct((), jnp.int32))

    @property
    def memory(self) -> float:
        """Bytes that a chunk needs on the device it is gathered on, the copy in the order of the trials included."""
        analysis = self.compiled.memory_analysis()
        needed = 0
        if analysis is not None:
            needed = analysis.temp_size_in_bytes + analysis.argument_size_in_bytes + analysis.output_size_in_bytes
        each = sum(int(np.prod(output.shape)) * output.dtype.itemsize for output in self.outputs.values())
        return float(needed + 3 * self.chunk * self.count * each)

    def _arguments(self, start: int, part: slice):
        trial = start + np.arange(self.chunk)
        indices = np.tile(trial, self.count)[part].astype(np.uint32)
        points = {name: np.repeat(values, self.chunk)[part] for name, values in self.points.items()}
        pad = [(0, self.padded - self.size)]
        arguments = jax.tree.map(lambda x: np.pad(x, pad, mode="edge")[self.deal], (indices, points))
        return jax.device_put(arguments, self.sharding)

    def __call__(self, start: int, present: int) -> tuple[dict[str, Array], dict[str, np.ndarray]]:
        """Outputs of shape (points, chunk, ...), of which `present` trials count, and their reductions."""
        parts = [slice(begin, begin + self.size) for begin in range(0, self.chunk * self.count, self.size)]
        pieces = [self.compiled(*self._arguments(start, part)) for part in parts]
        outputs = self._gather(jax.device_put(pieces, self.home))
        reduced = self._reduce(outputs, jnp.int32(present))
        return outputs, {name: np.asarray(value) for name, value in reduced.items()}


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


def _count(value: int, name: str) -> int:
    if isinstance(value, bool) or int(value) != value or value < 1:
        raise ValueError(f"Argument `{name}` must be a whole number of at least 1, but is {value}.")
    return int(value)


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
        source = dict(attributes.get(reduction.of, {})) if isinstance(reduction.of, str) else {}
        described = {**source, **attributes.get(name, {}), **meaning, "merging": reduction.merging}
        variables[name] = Variable(dims, output.shape, np.dtype(output.dtype), described)
    return variables


def _described(name: str, reduction: AbstractReduction) -> dict[str, Any]:
    _, lengths, meaning = reduction.extra(name)
    of = reduction.of if isinstance(reduction.of, str) else "a function"
    return {"of": of, "dims": reduction.dims, "lengths": lengths, "merging": reduction.merging, **meaning}


def _generator(key) -> str:
    """The implementation that draws from a key, with what else decides its numbers."""
    if not (hasattr(key, "dtype") and hasattr(key, "shape")):
        raise ValueError(f"Argument `key` must be a key such as `jax.random.key(0)`, but is {key!r}.")
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    raw = jax.random.key_data(jax.random.key(0)).shape
    if key.shape != (() if typed else raw) or not (typed or key.dtype == jnp.uint32):
        raise ValueError(
            f"Argument `key` must be one key such as `jax.random.key(0)`, but has dtype {key.dtype} and shape {key.shape}."
        )
    name = str(jax.random.key_impl(key)) if typed else str(jax.config.jax_default_prng_impl)
    partitionable = name != "threefry2x32" or jax.config.jax_threefry_partitionable
    return name if partitionable else f"{name}, not partitionable"


def _key_words(key) -> list[int]:
    data = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    return np.asarray(data).tolist()
