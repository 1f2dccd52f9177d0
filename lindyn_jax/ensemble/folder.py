"""Where a store lies: in a folder, where it appears and is replaced in one move, and a lock keeps a second run away."""

import contextlib
import os
import platform
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .. import _files
from .verified import StoreError


class Lock(NamedTuple):
    """What a run holds while it computes for a store. **Fields:** `check`, which raises where it was lost; `release`."""

    check: Callable[[], None]
    release: Callable[[], None]


# What the store of points is called that are to be added to another.
MORE = "more"
NO_LOCK = Lock(lambda: None, lambda: None)
# A lock of the system keeps out other processes only.
_ours: set[Path] = set()


class Folder:
    """The folder of a store, which need not be there yet.

    **Args:** `path`, of the folder.
    """

    def __init__(self, path: Path):
        self.path = path

    @property
    def absolute(self) -> Path:
        """The place of the store, wherever a worker's folder is."""
        return self.path.absolute()

    @property
    def opened(self) -> Any:
        """What Zarr opens to write."""
        return self.path

    def beside(self, name: str) -> Path:
        """A place of the store's own, next to it."""
        return self.path.parent / f".{self.path.name}.{name}"

    def there(self) -> bool:
        """Whether there is what must be a store.

        **Raises:** `StoreError` for what cannot be one.
        """
        for place in (self.path, *self.path.parents):
            if place.is_symlink() and not place.exists():
                raise StoreError(f"{place} is a link to {os.readlink(place)}, which does not exist: make or remove it.")
        if not self.path.exists():
            return False
        if not self.path.is_dir():
            raise StoreError(f"{self.path} is a file, not a sweep store: choose another folder.")
        return any(self.path.iterdir())

    @contextlib.contextmanager
    def building(self) -> Iterator[Path]:
        """A new folder on this machine to build a store in, gone in the end unless it was moved away."""
        _files.make(self.path.parent)
        path = self.beside(f"building-{_host()}-{os.getpid()}-{uuid.uuid4().hex}")
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def appear(self, building: Path) -> bool:
        """Makes the store of what was built: `False` if that of a faster process is there."""
        try:
            # Onto an empty folder this succeeds, onto a store it fails.
            os.replace(building, self.path)
        except OSError:
            if not self.there():
                raise
            return False
        _files.sync(self.path.parent)
        return True

    def keep(self, building: Path, keys: list[str], dropped: list[str]) -> None:
        """Takes files of the store along to what is built in its place, but for those that are dropped."""
        for key in keys:
            (building / key).parent.mkdir(parents=True, exist_ok=True)
            # Files of chunks are never changed, only replaced.
            try:
                os.link(self.path / key, building / key)
            except OSError:
                shutil.copyfile(self.path / key, building / key)
        _files.settle(building, [building / key for key in keys])

    def replace(self, building: Path) -> None:
        """Puts what was built in the place of the store. Killed in between, `recover` puts the former one back."""
        os.replace(self.path, self.beside("former"))
        os.replace(building, self.path)
        _files.sync(self.path.parent)
        self.recover()

    def interrupted(self) -> bool:
        """Whether a run was killed while it put one store in the place of another."""
        return self.beside("former").exists() and not self.path.exists()

    def recover(self) -> None:
        """Makes good what such a run left."""
        if self.interrupted():
            os.replace(self.beside("former"), self.path)
        elif self.beside("former").exists():
            # Points that were added lie in the store itself now.
            shutil.rmtree(self.beside(MORE), ignore_errors=True)
        shutil.rmtree(self.beside("former"), ignore_errors=True)

    def clear(self, shared: bool) -> None:
        """Removes what processes left that were killed while they made the store, or, unless it is shared, wrote a file."""
        self.recover()
        # On a disk that cannot be written to there is nothing to be cleared, and a finished store can be read.
        with contextlib.suppress(OSError):
            for folder in self.path.parent.iterdir():
                if not folder.name.startswith(f".{self.path.name}.building-"):
                    continue
                *where, process, _ = folder.name.rpartition(".building-")[2].split("-")
                gone = where in ([], [_host()]) and not alive(process)
                if gone or time.time() - folder.stat().st_mtime > 3600:
                    shutil.rmtree(folder, ignore_errors=True)
            # A worker may be in the middle of moving such a file into place.
            if not shared:
                for leftover in self.path.rglob("*.partial"):
                    leftover.unlink(missing_ok=True)

    def remove(self) -> None:
        """Removes the store."""
        shutil.rmtree(self.path, ignore_errors=True)

    def lock(self) -> Lock:
        """Keeps other runs away until it is released, or its process has died.

        **Raises:** `StoreError` that names host and process of the run that is there.

        **Notes:** it keeps one from doing work twice, and numbers do not depend on it: on disks that know no locks, or that
        cannot be written to, it does nothing.
        """
        place = self.beside("driver").absolute()
        if place in _ours:
            raise taken(self.path, f"{os.getpid()} on {platform.node()}")
        descriptor = self._locked(place)
        _ours.add(place)

        def release() -> None:
            _ours.discard(place)
            if descriptor is not None:
                with contextlib.suppress(OSError):
                    place.unlink()
                os.close(descriptor)

        return Lock(lambda: None, release)

    def _locked(self, place: Path) -> int | None:
        """An open file that is locked, or `None` where there are no locks."""
        try:
            import fcntl
        except ModuleNotFoundError:
            return None
        while True:
            try:
                _files.make(place.parent)
                descriptor = os.open(place, os.O_RDWR | os.O_CREAT, 0o644)
            except OSError:
                return None
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Whoever held it may have removed it meanwhile.
                if os.path.samestat(os.fstat(descriptor), os.stat(place)):
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, f"{os.getpid()} on {platform.node()}".encode())
                    return descriptor
            except (BlockingIOError, PermissionError) as error:
                who = os.pread(descriptor, 300, 0).decode(errors="replace")
                os.close(descriptor)
                raise taken(self.path, who or "unknown") from error
            except FileNotFoundError:
                pass
            except OSError:
                os.close(descriptor)
                return None
            os.close(descriptor)


def taken(path: _files.Place, who: str) -> StoreError:
    """What a second run is told."""
    return StoreError(f"{path} is being computed by process {who}: wait for it, or end it and start this run again.")


def _host() -> str:
    """This machine, as part of a name of a folder: hosts that share a file system may use the same process number."""
    return re.sub(r"\W", "_", platform.node())[:60]


def alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True
