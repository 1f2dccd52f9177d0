"""What stores hold, whatever made them, without a look at the study: a summary over the grid, tables, files of other kinds."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .._files import Place
from ..statistics import MOMENTS, frequency, mean_interval, named
from .building import READABLE
from .names import COMPUTED, COUNT, ROOT, TRIAL
from .reading import existing, open_reductions, open_sweep, progress_of
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


def estimates_of(path: Place):
    """Means over the trials that succeeded, and shares of those in which a flag is set, over the grid, with 95% intervals.

    **Args:** `path`, of the store.

    **Returns:** two `xarray.Dataset`s: means and shares; and `..._low` and `..._high` of those over the whole grid, of means by
    Student's t, of shares exact. From reductions where there are some: of moments the mean, of counts the share of the trials;
    others are left out.
    """
    import xarray as xr

    store, snapshot = existing(path)
    grid, means, found = list(snapshot.attributes["settings"]["grid"]), {}, {}
    if snapshot.attributes["layout"]["reduced"]:
        opened = open_reductions(store.path)
        count = int(opened[COUNT])
        for name, array in ((str(name), array) for name, array in opened.data_vars.items()):
            whole = {*array.dims} - {"moment"} == {*grid}
            if "moment" in array.dims:
                name = name.removesuffix("_moments")
                means[name] = array.isel(moment=1, drop=True).where(array.isel(moment=0, drop=True) > 0)
                if whole:
                    found[name] = mean_interval(array.transpose(*grid, "moment").values)
            elif array.attrs.get("merging") == "sum" and {*array.dims} <= {*grid}:
                means[name] = (array / count if count else array.astype(float) * np.nan).assign_attrs(array.attrs)
                if whole:
                    successes = array.transpose(*grid).values
                    found[name] = frequency(successes, np.full(successes.shape, count))
    else:
        opened = open_sweep(store.path)
        opened = opened.isel({TRIAL: np.flatnonzero(opened["computed"].values)}).transpose(*grid, TRIAL, ...)
        flags, ok = opened["ok"].astype(bool), opened["ok"].values.astype(bool)
        count = ok.sum(-1)
        for name, array in ((str(name), array) for name, array in opened.data_vars.items() if array.ndim == ok.ndim):
            mean = array.where(flags).mean(TRIAL) if name != "ok" else flags.mean(TRIAL)
            means[name] = mean.assign_attrs(array.attrs)
            if name == "ok":
                found[name] = frequency(count, np.full(count.shape, ok.shape[-1]))
            elif array.dtype == bool:
                found[name] = frequency((array.values & ok).sum(-1), count)
            else:
                mean = np.sum(array.values, axis=-1, where=ok) / np.maximum(count, 1)
                spread = np.sum((array.values - mean[..., None]) ** 2, axis=-1, where=ok)
                found[name] = mean_interval(np.stack([count, mean, spread], axis=-1))
    ends = {end: (grid, value) for name, interval in found.items() for end, value in named(name, interval).items()}
    coords = {name: opened[name] for name in grid}
    return xr.Dataset(means), xr.Dataset({end: value for end, value in ends.items() if end not in found}, coords)


def frame(dataset):
    """A dataset as a table with one row for each point and trial, coordinates first.

    Further axes have a column for each of their names, or for each number from 1 where they have none.
    """
    columns = {}
    named = {str(dim): values.values for dim, values in dataset.coords.items() if values.dtype.kind in "UOST"}
    named["moment"] = np.array(MOMENTS)
    shared = [dim for dim in dataset.dims if dim in dataset.coords and dim not in named]
    for name, array in dataset.data_vars.items():
        extra = [dim for dim in array.dims if dim not in shared]
        for place in np.ndindex(*(array.sizes[dim] for dim in extra)):
            words = (named[dim][i] if dim in named else i + 1 for dim, i in zip(extra, place, strict=True))
            label = "_".join(map(str, (name, *words)))
            if label in columns:
                raise StoreError(f"Two columns of the table would be called `{label}`: export to netcdf.")
            columns[label] = array.isel(dict(zip(extra, place, strict=True)), drop=True)
    coords = {name: dataset.coords[name] for name in dataset.coords if set(dataset.coords[name].dims) <= set(shared)}
    table = type(dataset)(columns, coords=coords)
    return table.to_dataframe(dim_order=shared).reset_index() if shared else table.to_pandas().to_frame().T


def export(path: Place, kind: str, file: Path) -> int:
    """Writes what a store holds into a file of another kind: trials that are not computed are left out.

    **Returns:** how many trials that are.

    **Raises:** `ValueError` where a package is missing that the kind needs.
    """
    import importlib.util

    missing = [package for package in KINDS[kind][0] if importlib.util.find_spec(package) is None]
    if missing:
        raise ValueError(f"Files of {kind} need {' and '.join(missing)}: pip install 'lindyn_jax[export]'.")
    dataset = open_sweep(path)
    done, wanted, _ = progress_of(dataset)
    if TRIAL in dataset.dims:
        dataset = dataset.isel({TRIAL: np.flatnonzero(dataset[COMPUTED].values)})
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
    return wanted - done
