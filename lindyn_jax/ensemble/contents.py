"""What stores hold, whatever made them, without a look at the study: a summary over the grid, tables, files of other kinds."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .._files import Place
from ..statistics import frequency, mean_interval, named
from .building import READABLE
from .names import COUNT, ROOT, TRIAL
from .reading import existing, open_reductions, open_sweep
from .verified import StoreError

# What each kind of file needs, and the ending of its name.
KINDS = {"csv": ((), "csv"), "netcdf": (("h5netcdf", "h5py"), "nc"), "parquet": (("pyarrow",), "parquet")}


def stores_in(folder: Place) -> Iterator[Place]:
    """All sweeps on disk in a folder and below it."""
    for root in sorted(folder.rglob(ROOT)):
        try:
            made = json.loads(root.read_bytes())["attributes"]["format"]
        except (ValueError, KeyError, TypeError, OSError):
            continue
        if made in READABLE:
            yield root.parent


def summary_of(path: Place):
    """Means over the trials that succeeded, and shares of those in which a flag is set, over the grid.

    **Args:** `path`, of the store.

    **Returns:** an `xarray.Dataset`. From reductions where there are some: of moments the mean, of counts the share of the
    trials; others are left out.
    """
    import xarray as xr

    store, snapshot = existing(path)
    if snapshot.attributes["layout"]["reduced"]:
        merged, found = open_reductions(store.path), {}
        count = max(1, int(merged[COUNT]))
        for name, array in ((str(name), array) for name, array in merged.data_vars.items()):
            if "moment" in array.dims:
                found[name.removesuffix("_moments")] = array.isel(moment=1, drop=True)
            elif array.attrs.get("merging") == "sum" and set(array.dims) <= set(
                snapshot.attributes["settings"]["grid"]
            ):
                found[name] = array / count
        return xr.Dataset(found)
    dataset = open_sweep(store.path)
    dataset = dataset.isel({TRIAL: np.flatnonzero(dataset["computed"].values)})
    single = [name for name, array in dataset.data_vars.items() if TRIAL in array.dims and name != "ok"]
    single = [name for name in single if set(dataset[name].dims) == {*dataset["ok"].dims}]
    means = {name: dataset[name].where(dataset["ok"].astype(bool)).mean(TRIAL) for name in single}
    return xr.Dataset({**means, "ok": dataset["ok"].mean(TRIAL)})


def intervals_of(path: Path):
    """95% intervals of what `summary_of` finds over the whole grid: `..._low` and `..._high`.

    Those of means by Student's t, those of shares exact.

    **Args:** `path`, of the store.

    **Returns:** an `xarray.Dataset`.
    """
    import xarray as xr

    store, snapshot = existing(path)
    grid, found = list(snapshot.attributes["settings"]["grid"]), {}
    if snapshot.attributes["layout"]["reduced"]:
        merged = open_reductions(store.path)
        count = int(merged[COUNT])
        for name, array in ((str(name), array) for name, array in merged.data_vars.items()):
            if set(array.dims) == {*grid, "moment"}:
                found[name.removesuffix("_moments")] = mean_interval(array.transpose(*grid, "moment").values)
            elif set(array.dims) == set(grid) and array.attrs.get("merging") == "sum":
                successes = array.transpose(*grid).values
                found[name] = frequency(successes, np.full(successes.shape, count))
    else:
        dataset = open_sweep(store.path)
        dataset = dataset.isel({TRIAL: np.flatnonzero(dataset["computed"].values)}).transpose(*grid, TRIAL, ...)
        merged, ok = dataset, dataset["ok"].values.astype(bool)
        count = ok.sum(-1)
        for name, array in ((str(name), array) for name, array in dataset.data_vars.items() if array.ndim == ok.ndim):
            if name == "ok":
                found[name] = frequency(count, np.full(count.shape, ok.shape[-1]))
            elif array.dtype == bool:
                found[name] = frequency((array.values & ok).sum(-1), count)
            else:
                mean = np.sum(array.values, axis=-1, where=ok) / np.maximum(count, 1)
                spread = np.sum((array.values - mean[..., None]) ** 2, axis=-1, where=ok)
                found[name] = mean_interval(np.stack([count, mean, spread], axis=-1))
    ends = {name: value for key, interval in found.items() for name, value in named(key, interval).items()}
    coords = {name: merged[name] for name in grid}
    return xr.Dataset({name: (grid, value) for name, value in ends.items() if name not in found}, coords)


def frame(dataset):
    """A dataset as a table with one row for each point and trial, coordinates first; vectors have a column for each entry."""
    columns = {}
    shared = [dim for dim in dataset.dims if dim in dataset.coords]
    for name, array in dataset.data_vars.items():
        extra = [dim for dim in array.dims if dim not in shared]
        for place in np.ndindex(*(array.sizes[dim] for dim in extra)):
            label = "_".join(map(str, (name, *place)))
            if label in columns:
                raise StoreError(f"Two columns of the table would be called `{label}`: export to netcdf.")
            columns[label] = array.isel(dict(zip(extra, place, strict=True)))
    coords = {name: dataset.coords[name] for name in dataset.coords if set(dataset.coords[name].dims) <= set(shared)}
    table = type(dataset)(columns, coords=coords)
    return table.to_dataframe(dim_order=shared).reset_index() if shared else table.to_pandas().to_frame().T


def export(path: Place, kind: str, file: Path) -> None:
    """Writes what a store holds into a file of another kind.

    **Raises:** `ValueError` where a package is missing that the kind needs.
    """
    import importlib.util

    missing = [package for package in KINDS[kind][0] if importlib.util.find_spec(package) is None]
    if missing:
        raise ValueError(f"Files of {kind} need {' and '.join(missing)}: pip install 'lindyn_jax[export]'.")
    dataset = open_sweep(path)
    partial = file.with_name(f".{file.name}.partial")
    try:
        if kind == "netcdf":
            dataset.to_netcdf(partial, engine="h5netcdf")
        elif kind == "parquet":
            frame(dataset).to_parquet(partial, index=False)
        elif kind == "csv":
            frame(dataset).to_csv(partial, index=False)
        else:
            raise AssertionError(f"nothing writes {kind}")
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
