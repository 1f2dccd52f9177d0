"""Monte Carlo: a trial function over a labelled grid times trials, in one compilation, as a labelled dataset.

Trial t has the key `fold_in(key, t)` at every grid point, so results do not depend on how the work is cut up, and points of
the grid are compared on common random numbers.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, UInt32

from . import _checks
from .store import TRIAL, SweepStore, Variable, open_sweep

Trial = Callable[..., Mapping[str, Array]]
Progress = Callable[[int, int], None]


def run_ensemble(
    trial: Trial,
    grid: Mapping[str, Any],
    trials: int,
    *,
    key: PRNGKeyArray | UInt32[Array, "2"],
    chunk: int | None = None,
    batch: str = "auto",
    store: str | os.PathLike | SweepStore | None = None,
    progress: Progress | None = None,
    dims: Mapping[str, tuple[str, ...]] | None = None,
    attributes: Mapping[str, Mapping[str, Any]] | None = None,
    settings: Mapping[str, Any] | None = None,
):
    """Runs `trial(key, **point)` for every point of a grid and every trial.

    **Args:**

    - `trial`: function of a key and one number for each grid name, returning a dictionary of arrays. It is traced once for
        the whole grid, so grid values are numbers inside it, not shapes. A boolean `ok` among its outputs says whether the
        trial succeeded; without it a trial is ok when all its outputs are finite.
    - `grid`: name -> vector of numbers (widths, exponents, scales, imbalance levels).
    - `trials`: trials at each grid point.
    - `key`: the root key.
    - `chunk`: trials computed, stored and resumed as one piece, all grid points together.
    - `batch`: `"map"` runs trials one after another on each device, `"vmap"` the trials of a grid point in lock step;
        `"auto"` is `"map"` on CPU, `"vmap"` elsewhere. The work is spread over all local devices.
    - `store`: folder of a Zarr store. What is complete there is not computed again.
    - `progress`: called with (trials done, trials in all), counted over the grid, after each chunk.
    - `dims`: names of the dimensions of outputs that are not scalars.
    - `attributes`: attributes (units, convention, description) of coordinates and outputs.
    - `settings`: whatever else determines the results; a store made with other settings is refused.

    **Returns:** an `xarray.Dataset` with dimensions (grid names..., `trial`, ...), read lazily from the store if there is
    one. Failed trials keep their values and are flagged by `ok`; `masked` removes them.

    **Raises:** `ValueError` for an empty grid or one that is not numbers, trials or chunk below 1, a trial function that does
    not return a dictionary of arrays; `StoreError` for a store made with other settings.
    """
    import xarray as xr

    grid = _grid(grid)
    trials = _count(trials, "trials")
    _checks.check_choice(batch, "batch", ("auto", "map", "vmap"))
    if batch == "auto":
        batch = "map" if jax.default_backend() == "cpu" else "vmap"
    devices = jax.local_devices()
    names, shape = tuple(grid), tuple(len(values) for values in grid.values())
    points = int(np.prod(shape))
    settings = {
        "grid": {name: values.tolist() for name, values in grid.items()},
        "trials": trials,
        "key": _key_words(key),
        "batch": batch,
        "dtype": str(jnp.result_type(float)),
        **(settings or {}),
    }
    if isinstance(store, (str, os.PathLike)):
        store = SweepStore(store)
    resumed = store is not None and store.check(settings)
    if resumed:
        chunk = store.chunk
    elif chunk is None:
        # A few hundred trials a chunk on CPU, where one can take long; enough to fill an accelerator elsewhere.
        chunk = min(trials, 1024 if batch == "vmap" else max(1, 256 // points))
    else:
        chunk = min(_count(chunk, "chunk"), trials)

    run = _Runner(trial, grid, key, chunk, batch, devices)
    variables = _variables(run.outputs, names, shape, trials, dims or {}, attributes or {})
    coordinates = {**grid, TRIAL: np.arange(trials)}
    environment = describe_environment()
    if store is not None:
        store.prepare(variables, coordinates, settings, {"environment": environment}, chunk)
        complete = store.complete()
        arrays = None
    else:
        complete = np.zeros(-(-trials // chunk), bool)
        arrays = {name: np.empty(variable.shape, variable.dtype) for name, variable in variables.items()}

    def done() -> int:
        return points * min(trials, int(np.sum(complete)) * chunk)

    if progress is not None:
        progress(done(), points * trials)
    for index in np.flatnonzero(~complete).tolist():
        part = slice(index * chunk, min((index + 1) * chunk, trials))
        values = {}
        every = (slice(None),) * len(shape)
        for name, value in run(part.start).items():
            values[name] = value.reshape(*shape, chunk, *value.shape[1:])[(*every, slice(0, part.stop - part.start))]
        if store is not None:
            store.write(index, part, values)
        else:
            for name, value in values.items():
                arrays[name][(*every, part)] = value
        complete[index] = True
        if progress is not None:
            progress(done(), points * trials)

    if store is not None:
        dataset = open_sweep(store.path)
    else:
        dataset = xr.Dataset(
            {name: (variables[name].dims, value, variables[name].attributes) for name, value in arrays.items()},
            coords=coordinates,
            attrs={"settings": settings, "environment": environment, "chunk": chunk},
        )
    for name in grid:
        dataset[name].attrs.update((attributes or {}).get(name, {}))
    return dataset


def masked(dataset):
    """The dataset with every floating-point value of a failed (or not yet computed) trial replaced by NaN.

    **Args:** `dataset`, as from `run_ensemble` or `open_sweep`.
    """
    valid = dataset["ok"].astype(bool)
    if "computed" in dataset.coords:
        valid = valid & dataset["computed"]
    floats = [name for name in dataset.data_vars if np.issubdtype(dataset[name].dtype, np.floating)]
    return dataset.assign({name: dataset[name].where(valid) for name in floats})


def describe_environment() -> dict[str, Any]:
    """Versions and device, as stored beside results."""
    from importlib.metadata import version

    packages = ("lindyn_jax", "jax", "jaxlib", "equinox", "diffrax", "optax", "numpy")
    device = jax.local_devices()[0]
    return {
        "versions": {package: version(package) for package in packages},
        "backend": jax.default_backend(),
        "device": device.device_kind,
        "devices": len(jax.local_devices()),
        "float": str(jnp.result_type(float)),
    }


class _Runner:
    """The compiled batch: trials `start .. start + chunk` at every grid point, as NumPy arrays (points * chunk, ...)."""

    def __init__(self, trial: Trial, grid: Mapping[str, np.ndarray], key, chunk: int, batch: str, devices):
        self.chunk, self.batch = chunk, batch
        mesh = np.meshgrid(*grid.values(), indexing="ij")
        dtype = jnp.result_type(float)
        self.points = {name: values.ravel().astype(dtype) for name, values in zip(grid, mesh, strict=True)}
        self.count = len(next(iter(self.points.values())))
        # One call computes all points under map, one point under vmap: trials of one point are alike in difficulty.
        self.size = chunk if batch == "vmap" else chunk * self.count
        self.padded = -(-self.size // len(devices)) * len(devices)
        # Dealt out in turn, so that every device gets its share of the hard grid points.
        self.deal = np.arange(self.padded).reshape(-1, len(devices)).T.ravel()
        self.collect = np.argsort(self.deal)[: self.size]

        def one(arguments):
            index, point = arguments
            outputs = trial(jax.random.fold_in(key, index), **point)
            if not isinstance(outputs, Mapping) or not outputs:
                raise ValueError(
                    f"The trial function must return a dictionary of arrays, but returned {type(outputs).__name__}."
                )
            outputs = {name: jnp.asarray(value) for name, value in outputs.items()}
            if "ok" not in outputs:
                finite = [jnp.all(jnp.isfinite(v)) for v in outputs.values() if jnp.issubdtype(v.dtype, jnp.inexact)]
                outputs["ok"] = jnp.all(jnp.stack(finite)) if finite else jnp.ones((), bool)
            return outputs

        def many(indices, points):
            if batch == "vmap":
                return jax.vmap(lambda i, p: one((i, p)))(indices, points)
            return jax.lax.map(one, (indices, points))

        if len(devices) > 1:
            axis = jax.sharding.PartitionSpec("device")
            self.sharding = jax.sharding.NamedSharding(jax.sharding.Mesh(np.array(devices), ("device",)), axis)
            many = jax.shard_map(many, mesh=self.sharding.mesh, in_specs=(axis, axis), out_specs=axis, check_vma=False)
        else:
            self.sharding = devices[0]
        lowered = jax.jit(many).lower(*self._arguments(0, slice(0, self.size)))
        self.outputs = {
            name: jax.ShapeDtypeStruct(value.shape[1:], value.dtype) for name, value in lowered.out_info.items()
        }
        self.compiled = lowered.compile()

    def _arguments(self, start: int, part: slice):
        trial = start + np.arange(self.chunk)
        indices = np.tile(trial, self.count)[part].astype(np.uint32)
        points = {name: np.repeat(values, self.chunk)[part] for name, values in self.points.items()}
        pad = [(0, self.padded - self.size)]
        arguments = jax.tree.map(lambda x: np.pad(x, pad, mode="edge")[self.deal], (indices, points))
        return jax.device_put(arguments, self.sharding)

    def __call__(self, start: int) -> dict[str, np.ndarray]:
        parts = [slice(begin, begin + self.size) for begin in range(0, self.chunk * self.count, self.size)]
        pieces = [self.compiled(*self._arguments(start, part)) for part in parts]
        pieces = [{name: np.asarray(value)[self.collect] for name, value in piece.items()} for piece in pieces]
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in self.outputs}


def _grid(grid: Mapping[str, Any]) -> dict[str, np.ndarray]:
    if not grid:
        raise ValueError("Argument `grid` must name at least one coordinate, such as {'width': [100, 1000]}.")
    checked = {}
    for name, values in grid.items():
        values = np.atleast_1d(np.asarray(values))
        if values.ndim != 1 or values.size == 0 or not np.issubdtype(values.dtype, np.number):
            raise ValueError(f"Grid coordinate `{name}` must be a vector of numbers with at least one entry.")
        if not np.all(np.isfinite(values)):
            raise ValueError(f"Grid coordinate `{name}` must be finite.")
        if name == TRIAL:
            raise ValueError(f"A grid coordinate may not be called `{TRIAL}`: that is the dimension of the trials.")
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


def _key_words(key) -> list[int]:
    data = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    return np.asarray(data).tolist()
