"""One run at a time for each store: a lock that ends with the process that holds it."""

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from .. import _files
from .verified import StoreError

# A lock of this kind keeps out other processes only.
_ours: set[Path] = set()


@contextlib.contextmanager
def driving(path: _files.Place) -> Iterator[None]:
    """Inside it, no other run computes for the store at `path`; that of a process which has died is taken over.

    **Raises:** `StoreError` that names host and process of the run that is there.

    **Notes:** it keeps one from doing work twice, and numbers do not depend on it: in object stores, on disks that know no
    locks, or that cannot be written to, it does nothing.
    """
    if _files.is_remote(path):
        yield
        return
    place = path.absolute().with_name(f".{path.name}.driver")
    if place in _ours:
        raise _taken(path, f"{os.getpid()} on {platform.node()}")
    descriptor = _locked(path, place)
    _ours.add(place)
    try:
        yield
    finally:
        _ours.discard(place)
        if descriptor is not None:
            with contextlib.suppress(OSError):
                place.unlink()
            os.close(descriptor)


def _taken(path: Path, who: str) -> StoreError:
    return StoreError(f"{path} is being computed by process {who}: wait for it, or end it and start this run again.")


def _locked(path: Path, place: Path) -> int | None:
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
            raise _taken(path, who or "unknown") from error
        except FileNotFoundError:
            pass
        except OSError:
            os.close(descriptor)
            return None
        os.close(descriptor)
