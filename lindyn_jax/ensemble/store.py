"""The sweep on disk: one Zarr store that xarray opens, written chunk by chunk, resumable after any interruption, and checked.

A chunk of trials is written variable by variable, asked onto the disk, and then marked as complete by length and checksum of
each of its files. A process killed or cut from power at any moment therefore leaves complete chunks marked, and everything
else is computed again to the same bits; so is a chunk that lost or changed a file since. Whoever reads takes one snapshot of
what is complete and reads nothing else. Workers of one run write chunks of their own to one store, which appears in one move,
in an object store with the last file of those that describe it.
"""

import contextlib
import functools
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .. import _files
from .._public import public
from .bucket import Bucket
from .building import FORMAT, READABLE, Plan, build, check_layout
from .folder import Folder, Lock
from .growing import add_trials, advice, growing_axis
from .names import REDUCED, ROOT, STOPPED, TRIAL, Variable, check_names, files_of
from .records import checksum_of, decoded, mark_of, plain, same, seal_of, short, write_stop
from .snapshot import Snapshot
from .verified import StoreError, verified

# Formats whose chunks have no checksums.
OLDER = ("lindyn_jax sweep 1", "lindyn_jax sweep 2")


def told(method):
    """Faults of the disk, and of what reaches an object store, become a `StoreError` of one sentence."""

    @functools.wraps(method)
    def wrapper(self, *arguments, **options):
        try:
            return method(self, *arguments, **options)
        except Exception as error:
            if not _files.is_fault(error):
                raise
            reason = getattr(error, "strerror", None) or str(error)
            raise StoreError(
                f"The store {self.path} cannot be used ({reason}): what is complete there is kept, and the same run goes on "
                "from it once the disk allows."
            ) from error

    return wrapper


class SweepStore:
    """The Zarr store of one sweep at `path`, made when the first run starts and found again by the next.

    **Args:** `path`, the folder of the store, or its address in an object store (`s3://BUCKET/NAME`, whatever fsspec knows; extra
    `remote`). Nothing is touched until `prepare` is called.

    **Raises:** every method `StoreError`, for faults of the disk as well.

    Example:

        >>> store = ld.SweepStore("sweep.zarr")
        >>> print(store.settings())
        None
        >>> made = ld.run_ensemble(lambda key, x: {"y": x}, {"x": [1.0]}, 3, key=jax.random.key(0), store=store)
        >>> print(store.settings()["trials"])
        3
    """

    @public
    def __init__(self, path: str | os.PathLike | _files.Place):
        self.path = _files.place(path)
        if "\0" in str(self.path):
            raise ValueError(f"Argument `path` must be the name of a folder, but is {str(self.path)!r}.")
        if not _files.is_remote(self.path) and self.path.name in ("", ".."):
            # Beside it are places of its own, which are called as it is.
            self.path = self.path.resolve()
        self.place = Bucket(self.path) if _files.is_remote(self.path) else Folder(self.path)

    @told
    def settings(self) -> dict[str, Any] | None:
        """The settings the store was made with, or `None` if there is no store yet.

        **Raises:** `StoreError` if something else than a store is there.
        """
        return self._attributes()["settings"] if self.place.there() else None

    def _attributes(self) -> dict[str, Any]:
        """The attributes of the store, which must be there, checked."""
        data = _files.read(self.path / ROOT)
        try:
            attributes = decoded(json.loads(data or b"")["attributes"])
            made = attributes["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{self.path} is not a sweep store, or its file {ROOT} is missing or damaged: choose an empty or new folder."
            ) from error
        if made not in READABLE:
            older = ", but one of an earlier version, whose chunks cannot be checked" if made in OLDER else ""
            raise StoreError(
                f"{self.path} is not a sweep store of this version ({FORMAT}){older}: choose another folder."
            )
        if attributes.get("checksum") != checksum_of(attributes):
            raise StoreError(f"The file {ROOT} of the store {self.path} is damaged: choose another folder.")
        return attributes | {"files": {key: tuple(known) for key, known in attributes["files"].items()}}

    def check(self, settings: Mapping[str, Any]) -> bool:
        """Whether a store with these settings, or for less of one thing, is there already; `False` if there is none yet.

        **Raises:** `StoreError` naming every setting that differs.
        """
        existing = self.settings()
        if existing is None:
            return False
        settings = plain(settings)
        names = [n for n in {**existing, **settings} if not same(existing.get(n), settings.get(n))]
        if names and growing_axis(existing, settings) is None:
            studies = [each.get("study") for each in (existing, settings)]
            if None not in studies and studies[0] != studies[1]:
                raise StoreError(
                    f"{self.path} holds the study {studies[0]}, and this is the study {studies[1]}: choose another folder."
                )
            changes = "; ".join(
                f"{name} is {short(existing.get(name))} there and {short(settings.get(name))} here" for name in names
            )
            raise StoreError(
                f"{self.path} holds a sweep made with other settings ({changes}): {advice(existing, settings)}."
            )
        return True

    def growing_axis(self, settings: Mapping[str, Any]) -> str | None:
        """`"trial"` or the name of the grid coordinate of which these settings ask for more than the store has, if any."""
        return growing_axis(self.settings() or {}, plain(settings))

    @told
    def recover(self) -> None:
        """Makes good what a run left that was killed while it put one store in the place of another."""
        if self.place.interrupted():
            with self.driving():
                self.place.recover()

    @contextlib.contextmanager
    def driving(self) -> Iterator[Lock]:
        """Inside it no other run computes for the store; that of a process which has died is taken over.

        **Raises:** `StoreError` that names host and process of the run that is there.
        """
        lock = told(lambda store: store.place.lock())(self)
        try:
            yield lock
        finally:
            lock.release()

    @told
    def prepare(
        self,
        variables: Mapping[str, Variable],
        coordinates: Mapping[str, Any],
        settings: Mapping[str, Any],
        attributes: Mapping[str, Any],
        trials: int,
        chunk: int,
        reduced: Mapping[str, Variable] | None = None,
        shared: bool = False,
    ) -> int:
        """Makes the store, in one move, or checks that the one there was made with the same settings and for the same outputs.

        **Args:** `variables`, of the single trials; `coordinates`, arrays or `xarray.Variable`s with attributes; `settings`;
        further `attributes`; `trials` and `chunk`, their numbers; `reduced`, what is kept of each chunk as a whole; `shared`,
        whether workers may still be writing.

        **Returns:** the trials a chunk of the store: those of the process that made it.

        **Raises:** `StoreError` naming every setting and output that differs; `ValueError` as `check_names`.
        """
        plan = Plan(variables, coordinates, settings, attributes, trials, chunk, reduced or {})
        check_names(plan.variables, plan.coordinates, plan.reduced)
        self.place.clear(shared)
        if self.check(settings):
            there = self._attributes()
            plan = plan._replace(chunk=there["chunk"])
            if there["trials"] < trials:
                check_layout(self.path, there["layout"], plan.layout, TRIAL)
                # But for a last chunk that was cut short.
                add_trials(self, plan, self.complete()[: there["trials"] // plan.chunk])
            self._resume(plan, shared)
            return plan.chunk
        with self.place.building() as building:
            build(building, plan)
            if not self.place.appear(building):
                self.check(settings)
                self._resume(plan, True)
        return self.chunk

    def _resume(self, plan: Plan, shared: bool) -> None:
        """Checks that the store is laid out for these outputs, and mends what describes them."""
        there = self._attributes()
        check_layout(self.path, there["layout"], plain(plan.layout))
        damaged = [key for key in there["files"] if self._wrong(key, there["files"][key])]
        if damaged:
            with self.place.building() as building:
                build(building, plan._replace(chunk=there["chunk"]))
                for key in damaged:
                    data = _files.read(building / key)
                    if data is None or _files.difference(data, there["files"][key]):
                        raise StoreError(f"{self.path} is damaged ({key}): choose another folder.")
                    _files.make((self.path / key).parent)
                    _files.put(self.path / key, data)
                _files.settle(self.path, [self.path / key for key in damaged])
            warnings.warn(f"Files of {self.path} that were damaged are mended: {', '.join(damaged)}.", stacklevel=2)
        if not shared and self._stop(there) is None:
            self.set_stop(None)

    @property
    def chunk(self) -> int:
        """Trials a chunk, as the store was made."""
        return self._attributes()["chunk"]

    @told
    def is_finished(self, trials: int) -> bool:
        """Whether all of so many trials are there, every file as it was written, and none was left out by an early stop."""
        attributes = self._attributes()
        if attributes["trials"] != trials:
            return False
        stop = self._stop(attributes)
        if stop is None or stop[0] or any(self._wrong(key, known) for key, known in attributes["files"].items()):
            return False
        return bool(np.all(self.snapshot().complete))

    @told
    def snapshot(self) -> Snapshot:
        """What the store holds at this moment, every file of every complete chunk checked.

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
        complete = np.zeros(count, bool)
        damaged = {}
        for index in range(count):
            marked, wrong = self._marked(attributes, index)
            if marked or wrong:
                wrongs = (f"{key} {w}" for key, known in marked.items() if (w := self._wrong(key, known)))
                wrong = wrong or next(wrongs, None)
                if wrong:
                    damaged[index] = wrong
                else:
                    complete[index] = True
                    files.update(marked)
        return Snapshot(attributes, complete, stop if stop[0] else None, files, damaged)

    def _wrong(self, key: str, expected: _files.Stamp) -> str | None:
        return _files.difference(_files.read(self.path / key), expected)

    def _marked(self, attributes, index: int) -> tuple[dict[str, _files.Stamp], str | None]:
        """The files of a chunk that is marked as complete, none if it is not; a few words if its mark is damaged."""
        data = _files.read(self.path / mark_of(index))
        if data is None or (data and not any(data)):
            return {}, None
        keys = files_of(attributes["layout"], index)
        entries, seal = data[:-4], data[-4:]
        if len(data) != 8 * len(keys) + 4 or seal != seal_of(attributes["identity"], index, entries):
            return {}, f"{mark_of(index)} is damaged"
        return dict(zip(keys, map(tuple, np.frombuffer(entries, "<u4").reshape(-1, 2).tolist()), strict=True)), None

    def _stop(self, attributes) -> tuple[int, int] | None:
        """Chunks and trials after which the study was stopped, zeros if it was not; `None` if the record is damaged."""
        data = _files.read(self.path / STOPPED / "c" / "0")
        if data is None or len(data) != 24 or data[16:20] != seal_of(attributes["identity"], -1, data[:16]):
            return None
        chunks, trials = np.frombuffer(data[:16], "<u8").tolist()
        return chunks, trials

    def complete(self) -> np.ndarray:
        """Which chunks are complete."""
        return self.snapshot().complete

    @told
    def holds(self, index: int) -> bool:
        """Whether one chunk is complete, its files checked."""
        marked, wrong = self._marked(self._attributes(), index)
        return bool(marked) and wrong is None and not any(self._wrong(key, known) for key, known in marked.items())

    @told
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
        paths = [self.path / key for key in files_of(layout, index)]
        # Not believed while it is written over. Files are replaced whole: two workers that write the same chunk do not
        # miss each other's.
        _files.remove(self.path / mark_of(index))
        group: Any = zarr.open_group(self.place.opened, mode="r+", zarr_format=3)
        # A file that is not there is lost, and not one that holds zeros.
        with zarr.config.set({"array.write_empty_chunks": True}):
            for name, value in values.items():
                dims = layout["variables"][name]["dims"]
                group[name][tuple(trials if dim == TRIAL else slice(None) for dim in dims)] = value
            for name, value in reduced.items():
                group[REDUCED][name][index] = value
        entries = np.array(_files.settle(self.path, paths), "<u4").tobytes()
        mark = self.path / mark_of(index)
        _files.make(mark.parent)
        _files.put(mark, entries + seal_of(attributes["identity"], index, entries))
        for folder in (mark.parent.parent, mark.parent.parent.parent):
            _files.sync(folder)

    @told
    def read_reduced(self, index: int, snapshot: Snapshot | None = None) -> dict[str, np.ndarray]:
        """The reductions of one complete chunk.

        **Args:** `snapshot`, in which it is complete; by default of this moment.

        **Raises:** `StoreError` if it is not complete, or damaged.
        """
        import zarr

        if snapshot is None:
            attributes = self._attributes()
            marked, _ = self._marked(attributes, index)
            if not marked:
                raise StoreError(f"Chunk {index} of {self.path} is not complete: run the study again to compute it.")
            files = attributes["files"] | marked
        else:
            files = snapshot.files
        group: Any = zarr.open_group(verified(self.path, files), mode="r", zarr_format=3)[REDUCED]
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

    @told
    def set_stop(self, stop: Mapping[str, Any] | None) -> None:
        """Records after how many chunks the study was stopped early, or that it was not.

        **Args:** `stop`, with `chunks` and `trials`.
        """
        attributes = self._attributes()
        wanted = (0, 0) if stop is None else (int(stop["chunks"]), int(stop["trials"]))
        if self._stop(attributes) != wanted:
            write_stop(self.path, attributes["identity"], wanted)
