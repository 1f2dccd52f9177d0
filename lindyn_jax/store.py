"""The sweep on disk: one Zarr store that xarray opens, written chunk by chunk and resumable after any interruption.

A chunk of trials is written variable by variable and then marked as complete, each file being moved into place in one
operation. A process killed at any moment therefore leaves complete chunks marked, and everything else is computed again to
the same bits.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FORMAT = "lindyn_jax sweep 1"
TRIAL = "trial"
COMPLETE = "chunk_complete"


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
        chunk: int,
    ) -> None:
        """Makes the store, in one move, or checks that the one there was made with the same settings."""
        import zarr

        if self.check(settings):
            for leftover in self.path.rglob("*.partial"):
                leftover.unlink(missing_ok=True)
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        building = self.path.with_name(f".{self.path.name}.building-{os.getpid()}")
        shutil.rmtree(building, ignore_errors=True)
        try:
            group = zarr.open_group(building, mode="w", zarr_format=3)
            group.attrs.update({"format": FORMAT, "chunk": chunk, "settings": _plain(settings), **_plain(attributes)})
            for name, values in coordinates.items():
                array = group.create_array(name, shape=values.shape, dtype=values.dtype, dimension_names=[name])
                array[:] = values
            trials = coordinates[TRIAL].shape[0]
            for name, variable in variables.items():
                chunks = tuple(
                    chunk if dim == TRIAL else size for dim, size in zip(variable.dims, variable.shape, strict=True)
                )
                group.create_array(
                    name,
                    shape=variable.shape,
                    chunks=chunks,
                    dtype=variable.dtype,
                    dimension_names=list(variable.dims),
                    fill_value=_fill(variable.dtype),
                    attributes=_plain(variable.attributes),
                )
            count = -(-trials // chunk)
            group.create_array(
                COMPLETE, shape=(count,), chunks=(1,), dtype="bool", fill_value=False, dimension_names=["chunk"]
            )
            if self.path.is_dir():
                self.path.rmdir()
            os.replace(building, self.path)
        finally:
            shutil.rmtree(building, ignore_errors=True)

    @property
    def chunk(self) -> int:
        """Trials a chunk, as the store was made."""
        return self._group("r").attrs["chunk"]

    def complete(self) -> np.ndarray:
        """Which chunks are complete."""
        return np.asarray(self._group("r")[COMPLETE][:])

    def write(self, index: int, trials: slice, values: Mapping[str, np.ndarray]) -> None:
        """Writes the values of one chunk, trial axis cut to `trials`, and marks it complete."""
        group = self._group("r+")
        for name, value in values.items():
            array = group[name]
            dims = array.metadata.dimension_names
            array[tuple(trials if dim == TRIAL else slice(None) for dim in dims)] = value
        group[COMPLETE][index] = True

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Adds attributes to the store."""
        self._group("r+").attrs.update(_plain(attributes))

    def _group(self, mode: str):
        import zarr

        return zarr.open_group(self.path, mode=mode, zarr_format=3)


def open_sweep(path: str | os.PathLike):
    """A sweep on disk as a lazily read `xarray.Dataset`, finished or not.

    **Args:** `path`, the store's folder, or a folder with the store `sweep.zarr` in it.

    **Returns:** the dataset with a coordinate `computed` along the trials: `False` where they are still to be computed, and
    where every value is a fill value (NaN, 0 or `False`).

    **Raises:** `FileNotFoundError` if nothing is there, `StoreError` if it is not a sweep store.
    """
    import xarray as xr

    path = Path(path)
    if (path / "sweep.zarr").is_dir():
        path = path / "sweep.zarr"
    store = SweepStore(path)
    if store.settings() is None:
        raise FileNotFoundError(f"There is no sweep store at {path}.")
    dataset = xr.open_zarr(path, consolidated=False, chunks=None)
    complete = dataset[COMPLETE].values
    trials = dataset.sizes[TRIAL]
    computed = np.repeat(complete, dataset.attrs["chunk"])[:trials]
    return dataset.drop_vars(COMPLETE).assign_coords(computed=(TRIAL, computed))


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
