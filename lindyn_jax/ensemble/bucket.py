"""Where a store lies: in an object store, where nothing can be moved, and a file is there whole or not at all.

What takes the place of something is first put beside it, its root last, and then copied: a run that finds a root there does the
copying of one that was killed. A lock is a file that is put first and looked for others afterwards: of two runs at least one sees
the other, for what was put is listed at once by all stores of today.
"""

import contextlib
import json
import os
import platform
import tempfile
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .. import _files
from .folder import MORE, NO_LOCK, Lock, alive, taken
from .names import ROOT
from .verified import StoreError

# Seconds between signs of life of a run, and without them until it counts as dead.
BEAT, PATIENCE = 60.0, 300.0
# Locks of runs of this process.
_ours: set[str] = set()


class Bucket:
    """The beginning of names of a store's files, of the interface of `Folder`.

    **Args:** `path`, as of `_files.place`.
    """

    def __init__(self, path: _files.Place):
        self.path = path

    @property
    def absolute(self) -> _files.Place:
        """The place of the store, the same for all."""
        return self.path

    @property
    def opened(self) -> Any:
        """What Zarr opens to write."""
        import zarr.storage

        return zarr.storage.FsspecStore.from_url(str(self.path), storage_options=dict(self.path.storage_options))

    def beside(self, name: str) -> _files.Place:
        """A place of the store's own, next to it."""
        return self.path.with_name(f".{self.path.name}.{name}")

    def there(self) -> bool:
        """Whether there is what must be a store.

        **Raises:** `StoreError` for what cannot be one.
        """
        if _files.read(self.path / ROOT) is not None:
            return True
        if self.path.exists() and not self.interrupted():
            raise StoreError(f"{self.path} is there and is no sweep store: choose another address.")
        return False

    @contextlib.contextmanager
    def building(self) -> Iterator[Path]:
        """A new folder on this machine to build a store in, gone in the end."""
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / "store"

    def appear(self, building: Path) -> bool:
        """Makes the store of what was built: always `True`."""
        self.replace(building)
        return True

    def keep(self, building: Path, keys: list[str], dropped: list[str]) -> None:
        """Files of the store stay where they are, but for those that are dropped."""
        for key in dropped:
            _files.remove(self.path / key)

    def replace(self, building: Path) -> None:
        """Puts the files of what was built over those of the store. Killed in between, `recover` ends it.

        Meanwhile what has changed counts as damaged for whoever reads.
        """
        _remove(self.beside("next"))
        _files.upload(building, self.beside("next"), ROOT)
        self.recover()

    def interrupted(self) -> bool:
        """Whether a run was killed while it put one store in the place of another."""
        return _files.read(self.beside("next") / ROOT) is not None

    def recover(self) -> None:
        """Makes good what such a run left."""
        if self.interrupted():
            there, here, files = self.beside("next").path, self.path.path, self.path.fs
            files.invalidate_cache()
            names = [name.removeprefix(there).strip("/") for name in files.find(there)]
            for part in ([name for name in names if name != ROOT], [ROOT]):
                files.copy([f"{there}/{name}" for name in part], [f"{here}/{name}" for name in part])
            # Points that were added lie in the store itself now.
            _remove(self.beside(MORE))
            _remove(self.beside("next"))

    def clear(self, shared: bool) -> None:
        """Makes good what was interrupted; nothing else is left by those that were killed."""
        self.recover()

    def remove(self) -> None:
        """Removes the store."""
        _remove(self.path)

    def lock(self) -> Lock:
        """Keeps other runs away until it is released, or its process has died or given no sign of life for five minutes.

        **Raises:** `StoreError` that names host and process of the run that is there.

        **Notes:** of two runs that begin at the same moment each may refuse for the other's sake. Where nothing can be written
        it does nothing.
        """
        own, ended, lost = self.beside("driver") / uuid.uuid4().hex, threading.Event(), threading.Event()
        who = json.dumps({"process": os.getpid(), "host": platform.node()}).encode()

        def beat() -> None:
            while not ended.wait(BEAT):
                with _suppressed_faults():
                    if _files.read(own) is None:
                        return lost.set()
                    _files.put(own, who)

        def check() -> None:
            if lost.is_set():
                raise StoreError(
                    f"{self.path} was taken over by another run, for this one gave no sign of life for {PATIENCE:g} s: wait for "
                    "that, and start this run again."
                )

        def release() -> None:
            ended.set()
            if beating.ident is not None:
                beating.join()
            _ours.discard(own.name)
            with _suppressed_faults():
                _files.remove(own)

        beating = threading.Thread(target=beat, daemon=True)
        try:
            _files.put(own, who)
        except PermissionError:
            return NO_LOCK
        _ours.add(own.name)
        try:
            self._refuse_others(own)
            beating.start()
        except BaseException:
            release()
            raise
        return Lock(check, release)

    def _refuse_others(self, own: _files.Place) -> None:
        """Refuses while another run is there, and removes what the dead have left."""
        self.path.fs.invalidate_cache()
        for name in self.path.fs.find(own.parent.path):
            other = own.with_name(name.rpartition("/")[2])
            data = _files.read(other) if other.name != own.name else None
            if data is None:
                continue
            process, host = (json.loads(data)[name] for name in ("process", "host"))
            if host == platform.node():
                dead = other.name not in _ours if process == os.getpid() else not alive(str(process))
            else:
                # By the clock of the store.
                since = self.path.fs.modified(own.path) - self.path.fs.modified(other.path)
                dead = since.total_seconds() > PATIENCE
            if not dead:
                raise taken(self.path, f"{process} on {host}")
            _files.remove(other)


def _remove(path: _files.Place) -> None:
    """Removes what lies there, the root first: without it the rest is nothing."""
    path.fs.invalidate_cache()
    _files.remove(path / ROOT)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(path.fs.rm_file, path.fs.find(path.path)))


@contextlib.contextmanager
def _suppressed_faults() -> Iterator[None]:
    """What an object store cannot do at the moment it may do at the next."""
    try:
        yield
    except Exception as error:
        if not _files.is_fault(error):
            raise
