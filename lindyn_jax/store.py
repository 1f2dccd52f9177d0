"""The sweep on disk: one Zarr store that xarray opens, written chunk by chunk and resumable after any interruption.

A chunk of trials is written variable by variable and then marked as complete, each file being moved into place in one
operation. A process killed at any moment therefore leaves complete chunks marked, and everything else is computed again to
the same bits. Several processes may write chunks of their own to one store: it appears in one move, made by the fastest of
them, and the others go on only if their settings are its settings.
"""

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ._public import public
from .statistics import merge

FORMAT = "lindyn_jax sweep 2"
TRIAL = "trial"
CHUNK = "chunk"
COMPLETE = "chunk_complete"
REDUCED = "reduced"
STOPPED = "stopped_early"


class StoreError(ValueError):
    """A folder that cannot be used as the store of this sweep."""


class Variable(NamedTuple):
    """How one variable is laid out: dimension names, shape, dtype and attributes (units, convention)."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype
    attributes: dict[str, Any]


class SweepStore:
    """The Zarr store of one sweep at `path`, made when the first run starts and found again by the next.

    **Args:** `path`, the folder of the store. Nothing is touched until `prepare` is called.
    """

    @public
    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)

    def settings(self) -> dict[str, Any] | None:
        """The settings the store was made with, or `None` if there is no store yet.

        **Raises:** `StoreError` if something else than a store is there.
        """
        if not self.path.exists():
            return None
        if not self.path.is_dir():
            raise StoreError(f"{self.path} is a file, not a sweep store: choose another folder.")
        if not any(self.path.iterdir()):
            return None
        try:
            attributes = self._group("r").attrs.asdict()
        except (OSError, ValueError, KeyError) as error:
            raise StoreError(f"{self.path} is not a sweep store: choose an empty or new folder.") from error
        if attributes.get("format") != FORMAT:
            raise StoreError(f"{self.path} is not a sweep store of this version ({FORMAT}): choose another folder.")
        return attributes["settings"]

    def check(self, settings: Mapping[str, Any]) -> bool:
        """Whether a store with these settings is there already; `False` if there is none yet.

        **Raises:** `StoreError` naming every setting that differs.
        """
        existing = self.settings()
        if existing is None:
            return False
        settings = _plain(settings)
        names = [name for name in {**existing, **settings} if existing.get(name) != settings.get(name)]
        if names:
            changes = "; ".join(
                f"{name} is {_short(existing.get(name))} there and {_short(settings.get(name))} here" for name in names
            )
            raise StoreError(
                f"{self.path} holds a sweep made with other settings ({changes}): choose another folder or the same settings."
            )
        return True

    def prepare(
        self,
        variables: Mapping[str, Variable],
        coordinates: Mapping[str, np.ndarray],
        settings: Mapping[str, Any],
        attributes: Mapping[str, Any],
        trials: int,
        chunk: int,
        reduced: Mapping[str, Variable] | None = None,
        shared: bool = False,
    ) -> int:
        """Makes the store, in one move, or checks that the one there was made with the same settings.

        **Args:** `variables`, of the single trials; `coordinates`; `settings`; further `attributes`; `trials` and `chunk`, their
        numbers; `reduced`, what is kept of each chunk as a whole; `shared`, whether other processes may be writing.

        **Returns:** the trials a chunk of the store: those of the process that made it.

        **Raises:** `StoreError` naming every setting that differs.
        """
        if self.check(settings):
            # Another process may be in the middle of moving such a file into place.
            if not shared:
                for leftover in self.path.rglob("*.partial"):
                    leftover.unlink(missing_ok=True)
            return self.chunk
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Hosts that share a file system may use the same process number.
        building = self.path.with_name(f".{self.path.name}.building-{os.getpid()}-{uuid.uuid4().hex}")
        try:
            self._build(building, variables, coordinates, settings, attributes, trials, chunk, reduced or {})
            try:
                # Onto an empty folder this succeeds, onto the store of a faster process it fails.
                os.replace(building, self.path)
            except OSError:
                if not self.check(settings):
                    raise
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return self.chunk

    @staticmethod
    def _build(path, variables, coordinates, settings, attributes, trials, chunk, reduced) -> None:
        import zarr

        count = -(-trials // chunk)
        group = zarr.open_group(path, mode="w", zarr_format=3)
        group.attrs.update(
            {"format": FORMAT, "chunk": chunk, "trials": trials, "settings": _plain(settings), **_plain(attributes)}
        )
        for name, values in coordinates.items():
            array = group.create_array(name, shape=values.shape, dtype=values.dtype, dimension_names=[name])
            array[:] = values

        def create(group, name, variable, along, length):
            sizes = zip(variable.dims, variable.shape, strict=True)
            group.create_array(
                name,
                shape=variable.shape,
                chunks=tuple(length if dim == along else size for dim, size in sizes),
                dtype=variable.dtype,
                dimension_names=list(variable.dims),
                fill_value=_fill(variable.dtype),
                attributes=_plain(variable.attributes),
            )

        for name, variable in variables.items():
            create(group, name, variable, TRIAL, chunk)
        parts = group.create_group(REDUCED)
        for name, variable in reduced.items():
            layout = Variable((CHUNK, *variable.dims), (count, *variable.shape), variable.dtype, variable.attributes)
            create(parts, name, layout, CHUNK, 1)
        group.create_array(
            COMPLETE, shape=(count,), chunks=(1,), dtype="bool", fill_value=False, dimension_names=[CHUNK]
        )

    @property
    def chunk(self) -> int:
        """Trials a chunk, as the store was made."""
        return self._group("r").attrs["chunk"]

    def complete(self) -> np.ndarray:
        """Which chunks are complete."""
        return np.asarray(self._group("r")[COMPLETE][:])

    def write(
        self,
        index: int,
        trials: slice,
        values: Mapping[str, np.ndarray],
        reduced: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Writes one chunk and marks it complete: `values` of its trials, the trial axis cut to `trials`, and `reduced`."""
        group = self._group("r+")
        for name, value in values.items():
            array = group[name]
            dims = array.metadata.dimension_names
            array[tuple(trials if dim == TRIAL else slice(None) for dim in dims)] = value
        for name, value in (reduced or {}).items():
            group[REDUCED][name][index] = value
        group[COMPLETE][index] = True

    def read_reduced(self, index: int) -> dict[str, np.ndarray]:
        """The reductions of one complete chunk."""
        group = self._group("r")[REDUCED]
        return {name: np.asarray(group[name][index]) for name in group.array_keys()}

    def used(self) -> np.ndarray:
        """Which chunks count: the complete ones, up to where the study was stopped early if it was."""
        group = self._group("r")
        complete = np.asarray(group[COMPLETE][:])
        stopped = group.attrs.get(STOPPED)
        if stopped is not None:
            complete[stopped["chunks"] :] = False
        return complete

    def progress(self) -> tuple[int, int, bool]:
        """Trials that count, trials that were asked for, and whether the study was stopped early."""
        used, attributes = self.used(), self._group("r").attrs.asdict()
        chunk, trials = attributes["chunk"], attributes["trials"]
        sizes = np.minimum(chunk, trials - np.arange(len(used)) * chunk)
        return int(np.sum(sizes[used])), trials, attributes.get(STOPPED) is not None

    def set_stop(self, stop: Mapping[str, Any] | None) -> None:
        """Records after how many chunks the study was stopped early, or that it was not."""
        attributes = self._group("r").attrs
        if attributes.get(STOPPED) != _plain(stop):
            self.set_attributes({STOPPED: stop})

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Adds attributes to the store."""
        self._group("r+").attrs.update(_plain(attributes))

    def _group(self, mode: str):
        import zarr

        return zarr.open_group(self.path, mode=mode, zarr_format=3)


@public
def open_sweep(path: str | os.PathLike):
    """A sweep on disk as a lazily read `xarray.Dataset`, finished or not.

    **Args:** `path`, the store's folder, or a folder with the store `sweep.zarr` in it.

    **Returns:** the dataset with a coordinate `computed` along the trials: `False` where they are still to be computed, and
    where every value is a fill value (NaN, 0 or `False`), and for surplus trials of a study that was stopped early. A sweep
    that keeps no single trials is returned as `open_reductions` does.

    **Raises:** `FileNotFoundError` if nothing is there, `StoreError` if it is not a sweep store.
    """
    import xarray as xr

    store = _existing(path)
    dataset = xr.open_zarr(store.path, consolidated=False, chunks=None)
    if TRIAL not in dataset.dims:
        return open_reductions(path)
    trials = dataset.sizes[TRIAL]
    computed = np.repeat(store.used(), dataset.attrs["chunk"])[:trials]
    return dataset.drop_vars(COMPLETE).assign_coords(computed=(TRIAL, computed))


@public
def open_reductions(path: str | os.PathLike):
    """The reductions of a sweep on disk, merged over its complete chunks in their order.

    **Args:** as for `open_sweep`.

    **Returns:** an `xarray.Dataset` over the grid, with the number of trials behind it as `trials_computed`. One chunk is read
    at a time.

    **Raises:** as `open_sweep`.
    """
    import xarray as xr

    store = _existing(path)
    dataset = xr.open_zarr(store.path, consolidated=False, chunks=None)
    layout = xr.open_zarr(store.path, group=REDUCED, consolidated=False, chunks=None)
    rules = {name: layout[name].attrs["merging"] for name in layout.data_vars}
    merged, used = Merged(rules), store.used()
    for index in np.flatnonzero(used).tolist():
        merged.add(store.read_reduced(index))
    count = store.progress()[0]
    grid = {name: values for name, values in dataset.coords.items() if name != TRIAL}
    variables = {name: Variable(v.dims[1:], v.shape[1:], v.dtype, v.attrs) for name, v in layout.data_vars.items()}
    return merged.dataset(variables, grid, count, dataset.attrs)


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
        return xr.Dataset({**arrays, "trials_computed": count}, coords=coordinates, attrs=dict(attributes))


def _existing(path: str | os.PathLike) -> SweepStore:
    path = Path(path)
    if (path / "sweep.zarr").is_dir():
        path = path / "sweep.zarr"
    store = SweepStore(path)
    if store.settings() is None:
        raise FileNotFoundError(f"There is no sweep store at {path}.")
    return store


def _fill(dtype: np.dtype):
    if np.issubdtype(dtype, np.floating):
        return np.nan
    return False if np.issubdtype(dtype, np.bool_) else 0


def _plain(value: Any) -> Any:
    """`value` as JSON holds it."""

    def convert(item):
        if isinstance(item, np.generic):
            return item.item()
        if hasattr(item, "tolist"):
            return item.tolist()
        return str(item)

    return json.loads(json.dumps(value, default=convert))


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:60] + "..." + text[-15:]
