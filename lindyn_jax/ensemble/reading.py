"""Reading a sweep on disk, finished or not: its trials lazily, or its reductions merged."""

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import _files
from .._files import Place
from .._public import public
from ..statistics import merge
from .names import AXES, COMPLETE, COMPUTED, COUNT, REDUCED, ROOT, STOPPED, TRIAL, Variable
from .snapshot import Snapshot
from .store import SweepStore
from .verified import StoreError, verified

# How studies call the store in their folder.
STORES = ("sweep.zarr", "audit.zarr")


@public
def open_sweep(path: str | os.PathLike | Place):
    """A sweep on disk as a lazily read `xarray.Dataset`, finished or not.

    **Args:** `path`, the store's folder, or a folder with the store `sweep.zarr` in it; or its address in an object store.

    **Returns:** the dataset with a coordinate `computed` along the trials: `False` where they are still to be computed, and
    where every value is a fill value (NaN, 0 or `False`), and for surplus trials of a study that was stopped early. The
    attribute `state` says how much is there, unless all of it is; `settings` and `environment` are JSON texts, so that
    `to_netcdf` can write it as it is; axes that the study has names for have these as coordinates. A sweep that keeps no single
    trials is returned as `open_reductions` does.

    **Raises:** `FileNotFoundError` if nothing is there, `StoreError` if it is not a sweep store, and when values are read from a
    file that was damaged since.

    **Notes:** it is the store of one moment. Every file is checked then; a chunk that lost or changed one counts as not
    computed, and a warning says so.

    Example:

        >>> trial = lambda key, x: {"noisy": x + jax.random.normal(key)}
        >>> made = ld.run_ensemble(trial, {"x": [1.0, 2.0]}, 3, key=jax.random.key(0), store="sweep.zarr")
        >>> found = ld.open_sweep("sweep.zarr")
        >>> print(found["noisy"].dims, bool((found["noisy"] == made["noisy"]).all()))
        ('x', 'trial') True
    """
    store, snapshot = existing(path)
    dataset = _opened(store, snapshot)
    if TRIAL not in dataset.dims:
        return _merged(store, snapshot, dataset)
    names: dict[str, Any] = {}
    for variable in dataset.data_vars.values():
        names |= json.loads(variable.attrs.pop(AXES, "{}"))
    dataset = dataset.assign_coords(names)
    return flat(
        dataset.assign_coords({COMPUTED: (TRIAL, snapshot.computed, {"long_name": "whether the trial is computed"})})
    )


@public
def open_reductions(path: str | os.PathLike | Place):
    """The reductions of a sweep on disk, merged over its complete chunks in their order.

    **Args:** as for `open_sweep`.

    **Returns:** an `xarray.Dataset` over the grid, with the number of trials behind it as `trials_computed`. One chunk is read
    at a time.

    **Raises:** as `open_sweep`.

    **Notes:** as `open_sweep`.

    Example:

        >>> from lindyn_jax.statistics import Moments
        >>> trial = lambda key, x: {"noisy": x + jax.random.normal(key)}
        >>> settings = {"key": jax.random.key(0), "reductions": {"noisy": Moments("noisy")}, "store": "sweep.zarr"}
        >>> made = ld.run_ensemble(trial, {"x": [1.0, 2.0]}, 1000, keep_trials=False, **settings)
        >>> found = ld.open_reductions("sweep.zarr")
        >>> print(found["noisy"].values[:, 1], int(found["trials_computed"]))  # the means
        [1.002 2.002] 1000
    """
    store, snapshot = existing(path)
    return _merged(store, snapshot, _opened(store, snapshot))


def _opened(store: SweepStore, snapshot: Snapshot, group: str | None = None):
    import xarray as xr

    checked = verified(store.path, snapshot.files)
    dataset = xr.open_zarr(checked, group=group, consolidated=False, chunks=None)
    if group is not None:
        return dataset
    return dataset.drop_vars([COMPLETE, STOPPED]).drop_attrs(deep=False).assign_attrs(snapshot.described)


def _merged(store: SweepStore, snapshot: Snapshot, dataset):
    layout = _opened(store, snapshot, REDUCED)
    # Names in a store are strings.
    reduced = {str(name): variable for name, variable in layout.data_vars.items()}
    merged = Merged({name: variable.attrs["merging"] for name, variable in reduced.items()})
    for index in np.flatnonzero(snapshot.used).tolist():
        merged.add(store.read_reduced(index, snapshot))
    grid = {name: values for name, values in dataset.coords.items() if name != TRIAL}
    variables = {
        name: Variable(tuple(map(str, v.dims[1:])), v.shape[1:], v.dtype, v.attrs) for name, v in reduced.items()
    }
    return flat(merged.dataset(variables, grid, int(snapshot.computed.sum()), dataset.attrs))


def progress_of(dataset) -> tuple[int, int, bool]:
    """Trials behind a dataset, trials that were asked for, and whether the study was stopped early.

    **Args:** `dataset`, from `open_sweep`, `open_reductions` or `run_ensemble` with a store: what it holds, whatever other
    processes have written since.
    """
    done = int(dataset[COUNT]) if COUNT in dataset else int(dataset[COMPUTED].sum())
    return done, int(dataset.attrs["trials"]), STOPPED in dataset.attrs


class Merged:
    """Reductions of disjoint sets of trials, merged one after another.

    **Args:** `rules`, how each of them merges: `statistics.merge`.
    """

    def __init__(self, rules: Mapping[str, str]):
        self.rules = dict(rules)
        self.values: dict[str, np.ndarray] = {}

    def add(self, values: Mapping[str, np.ndarray]) -> None:
        """Merges one more chunk."""
        for name, rule in self.rules.items():
            first = self.values.get(name)
            value = values[name].astype(np.int64 if rule == "sum" else float)
            self.values[name] = value if first is None else merge(rule, first, value)

    def dataset(self, variables: Mapping[str, Variable], coordinates, count: int, attributes: Mapping[str, Any]):
        """As an `xarray.Dataset` of reductions over `count` trials; zeros and NaN where there are none."""
        import xarray as xr

        arrays = {}
        for name, variable in variables.items():
            value = self.values.get(name)
            if value is None:
                value = np.zeros(variable.shape, np.int64 if self.rules[name] == "sum" else float)
            arrays[name] = (variable.dims, value, variable.attributes)
        return xr.Dataset({**arrays, COUNT: count}, coords=coordinates, attrs=dict(attributes))


def existing(path: str | os.PathLike | Place) -> tuple[SweepStore, Snapshot]:
    place = _files.place(path)
    try:
        place = next((place / name for name in STORES if (place / name).is_dir()), place)
        if (place / "trajectory.zarr").is_dir() or place.name == "trajectory.zarr":
            there = place if place.name == "trajectory.zarr" else place / "trajectory.zarr"
            raise StoreError(
                f"{path} holds one trajectory, and no sweep of many: read it by xr.open_zarr({str(there)!r})."
            )
        if place.is_file():
            raise StoreError(f"{path} is a file, and no sweep store, which is a folder: give the --out of a study.")
        if place.is_dir() and _files.read(place / ROOT) is None:
            raise StoreError(
                f"{path} is not a sweep store, and holds none: give the --out of a study, or see `lindyn-jax list`."
            )
    except Exception as error:
        # The store itself says what it is.
        if not _files.is_fault(error):
            raise
    store = SweepStore(place)
    if store.settings() is None:
        raise FileNotFoundError(f"There is no sweep store at {place}.")
    snapshot = store.snapshot()
    snapshot.warn_of_damage(store.path)
    return store, snapshot


def flat(dataset):
    """A dataset as files of any kind can hold it: attributes that are dictionaries and the like as JSON texts."""

    def texts(attributes):
        plain = (str, int, float, np.number, np.ndarray)
        return {name: value if type(value) in plain else json.dumps(value) for name, value in attributes.items()}

    flattened = dataset.copy()
    flattened.attrs = texts(dataset.attrs)
    for name in flattened.variables:
        flattened[name].attrs = texts(dataset[name].attrs)
    return flattened
