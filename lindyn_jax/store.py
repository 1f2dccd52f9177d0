"""The sweep on disk: one Zarr store that xarray opens, written chunk by chunk, resumable after any interruption, and checked.

A chunk of trials is written variable by variable, asked onto the disk, and then marked as complete by length and checksum of
each of its files. A process killed or cut from power at any moment therefore leaves complete chunks marked, and everything
else is computed again to the same bits; so is a chunk that lost or changed a file since. Whoever reads takes one snapshot of
what is complete and reads nothing else. Several processes may write chunks of their own to one store: it appears in one move,
made by the fastest of them, and the others go on only if their settings are its settings.
"""

import contextlib
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import time
import uuid
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import _files
from ._public import public
from .statistics import merge

FORMAT = "lindyn_jax sweep 3"
TRIAL = "trial"
CHUNK = "chunk"
COMPLETE = "chunk_complete"
REDUCED = "reduced"
STOPPED = "stopped_early"
COMPUTED = "computed"
COUNT = "trials_computed"
ROOT = "zarr.json"
# Dimensions of the two records.
_ENTRY, _STOP = f"{COMPLETE}_entry", f"{STOPPED}_entry"
RESERVED = (TRIAL, CHUNK, COMPLETE, REDUCED, STOPPED, COMPUTED, COUNT, _ENTRY, _STOP)
# Attributes of the store that are its own business.
_INTERNAL = ("identity", "layout", "files", "checksum")


class StoreError(ValueError):
    """A folder that cannot be used as the store of this sweep."""


class Variable(NamedTuple):
    """How one variable is laid out: dimension names, shape, dtype and attributes (units, convention)."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype
    attributes: dict[str, Any]


class Snapshot(NamedTuple):
    """What a store holds, all of it read at one moment.

    **Fields:** `attributes` of the store; `complete`, which chunks are; `stop`, after how many chunks and trials the study was
    stopped early, or `None`; `files`, what may be read, by length and checksum; `damaged`, what is wrong with chunks that were
    complete once, by their index.
    """

    attributes: dict[str, Any]
    complete: np.ndarray
    stop: tuple[int, int] | None
    files: dict[str, _files.Stamp]
    damaged: dict[int, str]

    @property
    def used(self) -> np.ndarray:
        """Which chunks count: the complete ones, up to where the study was stopped early if it was."""
        used = self.complete.copy()
        if self.stop is not None:
            used[self.stop[0] :] = False
        return used

    @property
    def computed(self) -> np.ndarray:
        """Which trials count."""
        return np.repeat(self.used, self.attributes["chunk"])[: self.attributes["trials"]]

    @property
    def described(self) -> dict[str, Any]:
        """The attributes that a reader is shown."""
        stop = {} if self.stop is None else {STOPPED: dict(zip(("chunks", "trials"), self.stop, strict=True))}
        return {name: value for name, value in self.attributes.items() if name not in _INTERNAL} | stop


def _told(method):
    """Faults of the disk become a `StoreError` of one sentence."""

    @functools.wraps(method)
    def wrapper(self, *arguments, **options):
        try:
            return method(self, *arguments, **options)
        except OSError as error:
            reason = error.strerror or str(error)
            raise StoreError(
                f"The store {self.path} cannot be used ({reason}): what is complete there is kept, and the same run goes on "
                "from it once the disk allows."
            ) from error

    return wrapper


class SweepStore:
    """The Zarr store of one sweep at `path`, made when the first run starts and found again by the next.

    **Args:** `path`, the folder of the store. Nothing is touched until `prepare` is called.

    **Raises:** every method `StoreError`, for faults of the disk as well.
    """

    @public
    def __init__(self, path: str | os.PathLike):
        if "\0" in os.fsdecode(path):
            raise ValueError(f"Argument `path` must be the name of a folder, but is {os.fsdecode(path)!r}.")
        self.path = Path(path)

    @_told
    def settings(self) -> dict[str, Any] | None:
        """The settings the store was made with, or `None` if there is no store yet.

        **Raises:** `StoreError` if something else than a store is there.
        """
        for place in (self.path, *self.path.parents):
            if place.is_symlink() and not place.exists():
                raise StoreError(f"{place} is a link to {os.readlink(place)}, which does not exist: make or remove it.")
        if not self.path.exists():
            return None
        if not self.path.is_dir():
            raise StoreError(f"{self.path} is a file, not a sweep store: choose another folder.")
        if not any(self.path.iterdir()):
            return None
        return self._attributes()["settings"]

    def _attributes(self) -> dict[str, Any]:
        """The attributes of the store, which must be there, checked."""
        data = _files.read(self.path / ROOT)
        try:
            attributes = json.loads(data)["attributes"]
            made = attributes["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{self.path} is not a sweep store, or its file {ROOT} is missing or damaged: choose an empty or new folder."
            ) from error
        if made != FORMAT:
            older = ", but one of an earlier version, whose chunks cannot be checked" if made in OLDER else ""
            raise StoreError(
                f"{self.path} is not a sweep store of this version ({FORMAT}){older}: choose another folder."
            )
        if attributes.get("checksum") != _checksum(attributes):
            raise StoreError(f"The file {ROOT} of the store {self.path} is damaged: choose another folder.")
        return attributes | {"files": {key: tuple(known) for key, known in attributes["files"].items()}}

    def check(self, settings: Mapping[str, Any]) -> bool:
        """Whether a store with these settings is there already; `False` if there is none yet.

        **Raises:** `StoreError` naming every setting that differs.
        """
        existing = self.settings()
        if existing is None:
            return False
        settings = _plain(settings)
        names = [n for n in {**existing, **settings} if not _same(existing.get(n), settings.get(n))]
        if names:
            changes = "; ".join(
                f"{name} is {_short(existing.get(name))} there and {_short(settings.get(name))} here" for name in names
            )
            raise StoreError(
                f"{self.path} holds a sweep made with other settings ({changes}): choose another folder or the same settings."
            )
        return True

    @_told
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
        """Makes the store, in one move, or checks that the one there was made with the same settings and for the same outputs.

        **Args:** `variables`, of the single trials; `coordinates`; `settings`; further `attributes`; `trials` and `chunk`, their
        numbers; `reduced`, what is kept of each chunk as a whole; `shared`, whether other processes may be writing.

        **Returns:** the trials a chunk of the store: those of the process that made it.

        **Raises:** `StoreError` naming every setting and output that differs; `ValueError` as `check_names`.
        """
        reduced = reduced or {}
        check_names(variables, coordinates, reduced)
        self._clear_abandoned(shared)
        if self.check(settings):
            self._resume(variables, coordinates, settings, attributes, trials, reduced, shared)
            return self.chunk
        made = [folder for folder in (self.path.parent, *self.path.parent.parents) if not folder.exists()]
        for folder in reversed(made):
            folder.mkdir(exist_ok=True)
        with self._building() as building:
            self._build(building, variables, coordinates, settings, attributes, trials, chunk, reduced)
            try:
                # Onto an empty folder this succeeds, onto the store of a faster process it fails.
                os.replace(building, self.path)
            except OSError:
                if not self.check(settings):
                    raise
                self._resume(variables, coordinates, settings, attributes, trials, reduced, True)
        for folder in (self.path.parent, *(folder.parent for folder in made)):
            _files.sync(folder)
        return self.chunk

    @contextlib.contextmanager
    def _building(self):
        """A new folder beside the store, gone in the end unless it was moved away."""
        # Hosts that share a file system may use the same process number.
        host = re.sub(r"\W", "_", platform.node())[:60]
        path = self.path.with_name(f".{self.path.name}.building-{host}-{os.getpid()}-{uuid.uuid4().hex}")
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def _clear_abandoned(self, shared: bool) -> None:
        """Removes what processes left that were killed while they made the store, or while they wrote a file of it."""
        host = re.sub(r"\W", "_", platform.node())[:60]
        # On a disk that cannot be written to there is nothing to be cleared, and a finished store can be read.
        with contextlib.suppress(OSError):
            for folder in self.path.parent.iterdir():
                if not folder.name.startswith(f".{self.path.name}.building-"):
                    continue
                *where, process, _ = folder.name.rpartition(".building-")[2].split("-")
                gone = where in ([], [host]) and not _alive(process)
                if gone or time.time() - folder.stat().st_mtime > 3600:
                    shutil.rmtree(folder, ignore_errors=True)
            # Another process may be in the middle of moving such a file into place.
            if not shared:
                for leftover in self.path.rglob("*.partial"):
                    leftover.unlink(missing_ok=True)

    def _resume(self, variables, coordinates, settings, attributes, trials, reduced, shared) -> None:
        """Checks that the store is laid out for these outputs, and mends what describes them."""
        there, here = self._attributes(), _plain(_layout(variables, reduced))
        differ = [
            f"{kind} `{name}` is {_laid_out(there['layout'][group].get(name))} there and "
            f"{_laid_out(here[group].get(name))} here"
            for group, kind in (("variables", "output"), ("reduced", "reduction"))
            for name in {**there["layout"][group], **here[group]}
            if there["layout"][group].get(name) != here[group].get(name)
        ]
        if differ:
            raise StoreError(
                f"{self.path} holds a sweep with other outputs ({'; '.join(differ)}): choose another folder or the same outputs."
            )
        damaged = [key for key in there["files"] if self._wrong(key, there["files"][key])]
        if damaged:
            with self._building() as building:
                self._build(building, variables, coordinates, settings, attributes, trials, there["chunk"], reduced)
                for key in damaged:
                    data = _files.read(building / key)
                    if _files.difference(data, there["files"][key]):
                        raise StoreError(f"{self.path} is damaged ({key}): choose another folder.")
                    (self.path / key).parent.mkdir(parents=True, exist_ok=True)
                    _files.put(self.path / key, data)
                _files.settle(self.path, [self.path / key for key in damaged])
            warnings.warn(f"Files of {self.path} that were damaged are mended: {', '.join(damaged)}.", stacklevel=2)
        if not shared and self._stop(there) is None:
            self.set_stop(None)

    @staticmethod
    def _build(path, variables, coordinates, settings, attributes, trials, chunk, reduced) -> None:
        import zarr

        count = -(-trials // chunk)
        group = zarr.open_group(path, mode="w", zarr_format=3)
        with zarr.config.set({"array.write_empty_chunks": True}):
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
        layout = _layout(variables, reduced)
        entries = 2 * len(_keys(layout, 0)) + 1
        for name, shape, dims, chunks, text in (
            (
                COMPLETE,
                (count, entries),
                (CHUNK, _ENTRY),
                (1, entries),
                "length and CRC-32 of each file of a complete chunk",
            ),
            (STOPPED, (3,), (_STOP,), (3,), "chunks and trials after which the study was stopped early, or zeros"),
        ):
            # Written as they are, file by file.
            group.create_array(
                name,
                shape=shape,
                chunks=chunks,
                dtype="uint32" if name == COMPLETE else "uint64",
                fill_value=0,
                dimension_names=list(dims),
                compressors=None,
                filters=None,
                attributes={"long_name": f"{text}, and a checksum of the record"},
            )
        files = sorted(file for file in path.rglob("*") if file.is_file() and file != path / ROOT)
        stamps = _files.settle(path, files)
        described = {
            "format": FORMAT,
            "chunk": chunk,
            "trials": trials,
            "settings": _plain(settings),
            **_plain(attributes),
            "identity": uuid.uuid4().hex,
            "layout": _plain(layout),
            "files": {f.relative_to(path).as_posix(): list(known) for f, known in zip(files, stamps, strict=True)},
        }
        _write_root(path, described)
        _write_stop(path, described["identity"], None)
        for folder in (path, *(folder for folder in path.rglob("*") if folder.is_dir())):
            _files.sync(folder)

    @property
    def chunk(self) -> int:
        """Trials a chunk, as the store was made."""
        return self._attributes()["chunk"]

    @_told
    def snapshot(self, known: np.ndarray | None = None) -> Snapshot:
        """What the store holds at this moment, every file of every complete chunk checked.

        **Args:** `known`, which chunks are complete for certain: their files are neither checked nor listed.

        **Raises:** `StoreError` if what describes the store is damaged.
        """
        attributes = self._attributes()
        files = dict(attributes["files"])
        for key, expected in files.items():
            wrong = self._wrong(key, expected)
            if wrong:
                raise StoreError(
                    f"{self.path} is damaged ({key} {wrong}): the run that made it, started again, mends it."
                )
        stop = self._stop(attributes)
        if stop is None:
            raise StoreError(
                f"{self.path} is damaged (the record of an early stop): the run that made it, started again, mends it."
            )
        count = -(-attributes["trials"] // attributes["chunk"])
        complete = np.zeros(count, bool) if known is None else known.copy()
        damaged = {}
        for index in np.flatnonzero(~complete).tolist():
            marked = self._marked(attributes, index)
            if isinstance(marked, str):
                damaged[index] = marked
            elif marked:
                wrong = next((f"{key} {w}" for key, known in marked.items() if (w := self._wrong(key, known))), None)
                if wrong:
                    damaged[index] = wrong
                else:
                    complete[index] = True
                    files.update(marked)
        return Snapshot(attributes, complete, stop if stop[0] else None, files, damaged)

    def _wrong(self, key: str, expected: _files.Stamp) -> str | None:
        return _files.difference(_files.read(self.path / key), expected)

    def _marked(self, attributes, index: int) -> dict[str, _files.Stamp] | str | None:
        """The files of a chunk that is marked as complete; `None` if it is not, a few words if its mark is damaged."""
        data = _files.read(self.path / _mark(index))
        if data is None or (data and not any(data)):
            return None
        keys = _keys(attributes["layout"], index)
        entries, seal = data[:-4], data[-4:]
        if len(data) != 8 * len(keys) + 4 or seal != _seal(attributes["identity"], index, entries):
            return f"{_mark(index)} is damaged"
        return dict(zip(keys, map(tuple, np.frombuffer(entries, "<u4").reshape(-1, 2).tolist()), strict=True))

    def _stop(self, attributes) -> tuple[int, int] | None:
        """Chunks and trials after which the study was stopped, zeros if it was not; `None` if the record is damaged."""
        data = _files.read(self.path / STOPPED / "c" / "0")
        if data is None or len(data) != 24 or data[16:20] != _seal(attributes["identity"], -1, data[:16]):
            return None
        chunks, trials = np.frombuffer(data[:16], "<u8").tolist()
        return chunks, trials

    def complete(self, known: np.ndarray | None = None) -> np.ndarray:
        """Which chunks are complete; those `known` to be are not looked at again."""
        return self.snapshot(known).complete

    @_told
    def write(
        self,
        index: int,
        trials: slice,
        values: Mapping[str, np.ndarray],
        reduced: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Writes one chunk and marks it complete: `values` of its trials, the trial axis cut to `trials`, and `reduced`.

        **Raises:** `StoreError` for outputs that are not those of the store.
        """
        import zarr

        attributes, reduced = self._attributes(), reduced or {}
        layout = attributes["layout"]
        for given, expected in ((values, layout["variables"]), (reduced, layout["reduced"])):
            if set(given) != set(expected):
                names = ", ".join(f"`{name}`" for name in sorted(set(given) ^ set(expected)))
                raise StoreError(f"The store {self.path} and this chunk do not have the same outputs: {names}.")
        paths = [self.path / key for key in _keys(layout, index)]
        # Neither believed nor read while it is written over.
        for path in (self.path / _mark(index), *paths):
            path.unlink(missing_ok=True)
        group = zarr.open_group(self.path, mode="r+", zarr_format=3)
        # A file that is not there is lost, and not one that holds zeros.
        with zarr.config.set({"array.write_empty_chunks": True}):
            for name, value in values.items():
                dims = layout["variables"][name]["dims"]
                group[name][tuple(trials if dim == TRIAL else slice(None) for dim in dims)] = value
            for name, value in reduced.items():
                group[REDUCED][name][index] = value
        entries = np.array(_files.settle(self.path, paths), "<u4").tobytes()
        mark = self.path / _mark(index)
        mark.parent.mkdir(parents=True, exist_ok=True)
        _files.put(mark, entries + _seal(attributes["identity"], index, entries))
        for folder in (mark.parent.parent, mark.parent.parent.parent):
            _files.sync(folder)

    @_told
    def read_reduced(self, index: int, snapshot: Snapshot | None = None) -> dict[str, np.ndarray]:
        """The reductions of one complete chunk.

        **Args:** `snapshot`, in which it is complete; by default of this moment.

        **Raises:** `StoreError` if it is not complete, or damaged.
        """
        import zarr

        if snapshot is None:
            attributes = self._attributes()
            marked = self._marked(attributes, index)
            if not isinstance(marked, dict):
                raise StoreError(f"Chunk {index} of {self.path} is not complete: run the study again to compute it.")
            files = attributes["files"] | marked
        else:
            files = snapshot.files
        group = zarr.open_group(_verified(self.path, files), mode="r", zarr_format=3)[REDUCED]
        return {name: np.asarray(group[name][index]) for name in group.array_keys()}

    def used(self) -> np.ndarray:
        """Which chunks count: the complete ones, up to where the study was stopped early if it was."""
        return self.snapshot().used

    def progress(self) -> tuple[int, int, bool]:
        """Trials that count, trials that were asked for, and whether the study was stopped early, at this moment.

        Of a dataset that was read before, `progress_of` says it.
        """
        now = self.snapshot()
        return int(now.computed.sum()), now.attributes["trials"], now.stop is not None

    @_told
    def set_stop(self, stop: Mapping[str, Any] | None, seen: int | None = None) -> None:
        """Records after how many chunks the study was stopped early, or that it was not.

        **Args:** `stop`, with `chunks` and `trials`; `seen`, of how many chunks it is known that they do not stop the study: a
        stop that another process has recorded after more of them is kept.
        """
        attributes = self._attributes()
        there = self._stop(attributes)
        wanted = (0, 0) if stop is None else (int(stop["chunks"]), int(stop["trials"]))
        if stop is None and seen is not None and there is not None and there[0] > seen:
            return
        if there != wanted:
            _write_stop(self.path, attributes["identity"], wanted)

    @_told
    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Adds attributes to the store."""
        _write_root(self.path, self._attributes() | _plain(attributes))


# Formats whose chunks have no checksums.
OLDER = ("lindyn_jax sweep 1", "lindyn_jax sweep 2")


@public
def open_sweep(path: str | os.PathLike):
    """A sweep on disk as a lazily read `xarray.Dataset`, finished or not.

    **Args:** `path`, the store's folder, or a folder with the store `sweep.zarr` in it.

    **Returns:** the dataset with a coordinate `computed` along the trials: `False` where they are still to be computed, and
    where every value is a fill value (NaN, 0 or `False`), and for surplus trials of a study that was stopped early. A sweep
    that keeps no single trials is returned as `open_reductions` does.

    **Raises:** `FileNotFoundError` if nothing is there, `StoreError` if it is not a sweep store, and when values are read from a
    file that was damaged since.

    **Notes:** it is the store of one moment. Every file is checked then; a chunk that lost or changed one counts as not
    computed, and a warning says so.
    """
    store, snapshot = _existing(path)
    dataset = _opened(store, snapshot)
    if TRIAL not in dataset.dims:
        return _merged(store, snapshot, dataset)
    return dataset.assign_coords({COMPUTED: (TRIAL, snapshot.computed)})


@public
def open_reductions(path: str | os.PathLike):
    """The reductions of a sweep on disk, merged over its complete chunks in their order.

    **Args:** as for `open_sweep`.

    **Returns:** an `xarray.Dataset` over the grid, with the number of trials behind it as `trials_computed`. One chunk is read
    at a time.

    **Raises:** as `open_sweep`.

    **Notes:** as `open_sweep`.
    """
    store, snapshot = _existing(path)
    return _merged(store, snapshot, _opened(store, snapshot))


def _opened(store: SweepStore, snapshot: Snapshot, group: str | None = None):
    import xarray as xr

    checked = _verified(store.path, snapshot.files)
    dataset = xr.open_zarr(checked, group=group, consolidated=False, chunks=None)
    if group is not None:
        return dataset
    return dataset.drop_vars([COMPLETE, STOPPED]).drop_attrs(deep=False).assign_attrs(snapshot.described)


def _merged(store: SweepStore, snapshot: Snapshot, dataset):
    layout = _opened(store, snapshot, REDUCED)
    merged = Merged({name: layout[name].attrs["merging"] for name in layout.data_vars})
    for index in np.flatnonzero(snapshot.used).tolist():
        merged.add(store.read_reduced(index, snapshot))
    grid = {name: values for name, values in dataset.coords.items() if name != TRIAL}
    variables = {name: Variable(v.dims[1:], v.shape[1:], v.dtype, v.attrs) for name, v in layout.data_vars.items()}
    return merged.dataset(variables, grid, int(snapshot.computed.sum()), dataset.attrs)


def progress_of(dataset) -> tuple[int, int, bool]:
    """Trials behind a dataset, trials that were asked for, and whether the study was stopped early.

    **Args:** `dataset`, from `open_sweep`, `open_reductions` or `run_ensemble` with a store: what it holds, whatever other
    processes have written since.
    """
    done = int(dataset[COUNT]) if COUNT in dataset else int(dataset[COMPUTED].sum())
    return done, int(dataset.attrs["trials"]), STOPPED in dataset.attrs


def save_dataset(dataset, path: str | os.PathLike, zarr_format: int = 3) -> None:
    """Writes a dataset as a Zarr store in place of what was there, with length and checksum of each of its files."""
    with _files.replacing(Path(path)) as new:
        dataset.to_zarr(new, mode="w", consolidated=False, zarr_format=zarr_format)
        root = new / (".zattrs" if zarr_format == 2 else ROOT)
        document = json.loads(root.read_bytes())
        files = sorted(file for file in new.rglob("*") if file.is_file() and file != root)
        attributes = document if zarr_format == 2 else document["attributes"]
        attributes["files"] = {f.relative_to(new).as_posix(): _files.stamp(f.read_bytes()) for f in files}
        attributes["checksum"] = _checksum(attributes)
        root.write_text(json.dumps(document, indent=2))


def check_dataset(path: str | os.PathLike) -> None:
    """Checks the files of a dataset that `save_dataset` wrote; one without checksums is of an earlier version, and passes.

    **Raises:** `StoreError` naming the first file that is missing or damaged.
    """
    path = Path(path)
    data = _files.read(path / ".zattrs")
    document = json.loads(data if data is not None else _files.read(path / ROOT) or b"{}")
    attributes = document if data is not None else document.get("attributes", {})
    if "checksum" not in attributes:
        return
    damaged = [] if attributes["checksum"] == _checksum(attributes) else ["its attributes"]
    for key, expected in attributes.get("files", {}).items():
        wrong = _files.difference(_files.read(path / key), tuple(expected))
        damaged += [f"{key} {wrong}"] if wrong else []
    if damaged:
        raise StoreError(f"{path} is damaged ({damaged[0]}): make it again.")


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


def check_names(
    variables: Mapping[str, Variable], coordinates: Mapping[str, Any], reduced: Mapping[str, Variable]
) -> None:
    """Refuses names that a store cannot hold beside one another, and dtypes that it cannot hold.

    **Args:** as for `SweepStore.prepare`.

    **Raises:** `ValueError`.
    """
    grid = [name for name in coordinates if name != TRIAL]
    for kind, group in (("Grid coordinate", grid), ("Output", variables), ("Reduction", reduced)):
        for name in group:
            check_name(name, kind)
    for kind, group in (("Output", variables), ("Reduction", reduced)):
        sizes: dict[str, int] = {}
        for name, variable in group.items():
            if variable.dtype.kind not in "biufc":
                raise ValueError(f"{kind} `{name}` has dtype {variable.dtype}, which is none that a store can hold.")
            if 0 in variable.shape:
                raise ValueError(f"{kind} `{name}` has shape {variable.shape}: there is nothing in it to keep.")
            if len(set(variable.dims)) < len(variable.dims):
                raise ValueError(
                    f"{kind} `{name}` has a dimension twice, {variable.dims}: give its own axes other names."
                )
            for dim, size in zip(variable.dims, variable.shape, strict=True):
                if dim not in (*coordinates, TRIAL):
                    check_name(dim, f"A dimension of {kind.lower()} `{name}`")
                if sizes.setdefault(dim, size) != size:
                    raise ValueError(
                        f"Dimension `{dim}` has length {size} in {kind.lower()} `{name}` and {sizes[dim]} in another: give one "
                        "of them another name."
                    )
        for name in group:
            if name in sizes or name in coordinates:
                raise ValueError(
                    f"{kind} `{name}` has the name of a dimension or grid coordinate: give it another one."
                )


def check_name(name: Any, kind: str) -> None:
    """Refuses what cannot be the name of a variable or dimension in a store, for it is no name of a folder or is taken."""
    if not isinstance(name, str):
        raise ValueError(f"{kind} must have a text for a name, but has {name!r}.")
    if name in RESERVED:
        raise ValueError(f"{kind} may not be called `{name}`, which a store uses itself: give it another name.")
    if (
        not name.isprintable()
        or not name
        or name.startswith("__")
        or name in (".", "..", ROOT)
        or set(name) & {"/", "\\"}
    ):
        raise ValueError(
            f"{kind} may not be called {name!r}: names are those of folders, without slashes, and do not begin with `__`."
        )
    if len(name.encode(errors="surrogatepass")) > 200:
        raise ValueError(f"{kind} `{name[:40]}...` has a name of more than 200 bytes: give it a shorter one.")


@functools.cache
def _verified_class():
    import zarr.storage

    class Verified(zarr.storage.LocalStore):
        """A folder of which only known files are handed out, and only as they are known."""

        def __init__(self, root, files):
            super().__init__(root, read_only=True)
            self.files = files

        def with_read_only(self, read_only: bool = False):
            return self

        def __reduce__(self):
            return _verified, (self.root, self.files)

        def _checked(self, key: str, prototype, byte_range):
            data = _files.read(self.root / key)
            if key != ROOT:
                if key not in self.files:
                    return None
                wrong = _files.difference(data, self.files[key])
                if wrong:
                    raise StoreError(
                        f"{self.root} is damaged ({key} {wrong}): the run that made it, started again, computes it again."
                    )
            if data is None:
                return None
            if byte_range is not None:
                return super().get_sync(key, prototype=prototype, byte_range=byte_range)
            return prototype.buffer.from_bytes(data)

        def get_sync(self, key, *, prototype=None, byte_range=None):
            from zarr.core.buffer import default_buffer_prototype

            return self._checked(key, prototype or default_buffer_prototype(), byte_range)

        async def get(self, key, prototype=None, byte_range=None):
            return self.get_sync(key, prototype=prototype, byte_range=byte_range)

    return Verified


def _verified(root, files):
    return _verified_class()(root, files)


def _existing(path: str | os.PathLike) -> tuple[SweepStore, Snapshot]:
    path = Path(path)
    with contextlib.suppress(OSError):
        if (path / "sweep.zarr").is_dir():
            path = path / "sweep.zarr"
    store = SweepStore(path)
    if store.settings() is None:
        raise FileNotFoundError(f"There is no sweep store at {path}.")
    snapshot = store.snapshot()
    warn_of_damage(store, snapshot)
    return store, snapshot


def warn_of_damage(store: SweepStore, snapshot: Snapshot) -> None:
    """Warns if chunks that were complete once are not any more, and says what happens to them."""
    if snapshot.damaged:
        index, reason = next(iter(snapshot.damaged.items()))
        number = len(snapshot.damaged)
        warnings.warn(
            f"{number} chunk{'s' * (number > 1)} of {store.path} {'are' if number > 1 else 'is'} damaged (chunk {index}: "
            f"{reason}): the trials count as not computed, and the same run computes them again.",
            UserWarning,
            stacklevel=4,
        )


def _layout(variables: Mapping[str, Variable], reduced: Mapping[str, Variable]) -> dict[str, Any]:
    return {
        group: {
            name: {"dims": list(v.dims), "shape": [int(size) for size in v.shape], "dtype": str(np.dtype(v.dtype))}
            for name, v in named.items()
        }
        for group, named in (("variables", variables), ("reduced", reduced))
    }


def _laid_out(entry: Mapping[str, Any] | None) -> str:
    return "missing" if entry is None else f"{entry['dtype']} ({', '.join(entry['dims'])}) {tuple(entry['shape'])}"


def _keys(layout: Mapping[str, Any], index: int) -> list[str]:
    """The files of a chunk."""
    own = [
        "/".join((name, "c", *(str(index if dim == TRIAL else 0) for dim in entry["dims"])))
        for name, entry in layout["variables"].items()
    ]
    return own + [
        "/".join((REDUCED, name, "c", str(index), *("0" for _ in entry["dims"])))
        for name, entry in layout["reduced"].items()
    ]


def _mark(index: int) -> str:
    return f"{COMPLETE}/c/{index}/0"


def _seal(identity: str, index: int, entries: bytes) -> bytes:
    """Ties a record to its store and its place."""
    return np.array(zlib.crc32(f"{identity}:{index}:".encode() + entries), "<u4").tobytes()


def _write_stop(path: Path, identity: str, stop: tuple[int, int] | None) -> None:
    entries = np.array((0, 0) if stop is None else stop, "<u8").tobytes()
    file = path / STOPPED / "c" / "0"
    file.parent.mkdir(parents=True, exist_ok=True)
    _files.put(file, entries + _seal(identity, -1, entries) + bytes(4))
    _files.sync(file.parent.parent)


def _write_root(path: Path, attributes: dict[str, Any]) -> None:
    document = json.loads((path / ROOT).read_bytes())
    document["attributes"] = attributes | {"checksum": _checksum(attributes)}
    _files.put(path / ROOT, json.dumps(document, indent=2).encode())


def _checksum(attributes: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in attributes.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _fill(dtype: np.dtype):
    if np.issubdtype(dtype, np.floating):
        return np.nan
    return False if np.issubdtype(dtype, np.bool_) else 0


def _plain(value: Any) -> Any:
    """`value` as JSON holds it.

    **Raises:** `ValueError` for what has no value of its own to compare, such as a function.
    """

    def convert(item):
        if isinstance(item, (np.generic, np.ndarray)) or hasattr(item, "tolist"):
            return item.tolist()
        if isinstance(item, (os.PathLike, np.dtype, type)):
            return str(item)
        raise ValueError(
            f"Settings and attributes of a sweep must be numbers, texts, arrays, lists or dictionaries, but one is a "
            f"{type(item).__name__}: record what determines it instead."
        )

    try:
        return json.loads(json.dumps(value, default=convert))
    except TypeError as error:
        raise ValueError("Keys of settings and attributes of a sweep must be texts or numbers.") from error


def _same(first: Any, second: Any) -> bool:
    """Whether two settings are equal, the order of names and NaN included."""
    return json.dumps(first) == json.dumps(second)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:60] + "..." + text[-15:]
