"""Files that survive: written beside their place and moved into it, asked onto the disk, known again by checksum.

A place is a `pathlib.Path`, or of the same interface in an object store (`universal_pathlib`), where a file is there whole or not
at all, and folders are but the beginnings of names.
"""

import contextlib
import errno
import os
import shutil
import uuid
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

# A path, or one of the same interface in an object store.
Place = Any
# Packages that speak with object stores, and have errors of their own.
CLIENTS = ("aiohttp", "azure", "botocore", "fsspec", "gcsfs", "google")
# Length and CRC-32, each modulo 2^32.
Stamp = tuple[int, int]


def stamp(data: bytes) -> Stamp:
    """What a file of these bytes is known by."""
    return len(data) % 2**32, zlib.crc32(data)


def place(path: Any) -> Place:
    """A path, or the place in an object store that an address such as `s3://BUCKET/NAME` names.

    **Raises:** `ValueError` for an address without the packages that it needs, and for what is no path.
    """
    if is_remote(path):
        return path
    try:
        text = os.fsdecode(path)
    except TypeError:
        raise ValueError(f"Argument `path` must be a string or a path, but is a {type(path).__name__}.") from None
    if "://" not in text:
        return Path(text)
    try:
        from upath import UPath

        found = UPath(text)
        # To ask for its file system imports what that needs.
        if not (is_remote(found) and found.protocol and found.fs):
            raise ValueError(f"no package knows {text.split('://')[0]}://")
        return found
    except (ImportError, ValueError) as error:
        raise ValueError(f"{text} cannot be reached ({error}): pip install 'lindyn_jax[remote]'.") from error


def is_remote(path: Place) -> bool:
    """Whether a place lies in an object store."""
    return hasattr(path, "storage_options")


def is_fault(error: Exception) -> bool:
    """Whether an error is one of the disk, or of a package that speaks with an object store."""
    return any(kind is OSError or kind.__module__.split(".")[0] in CLIENTS for kind in type(error).__mro__)


def sync(path: Place) -> None:
    """Asks the disk for a file or a folder, as far as the file system can be asked."""
    if is_remote(path) or (path.is_dir() and os.name == "nt"):
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems know no such request for folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(descriptor)


def make(folder: Place) -> None:
    """Makes a folder and those that lead to it, and asks the disk for what is new."""
    if is_remote(folder):
        return
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(made):
        each.mkdir(exist_ok=True)
        sync(each.parent)


def put(path: Place, data: bytes) -> None:
    """Writes a file so that after a loss of power either it or what was there before is there."""
    if is_remote(path):
        path.write_bytes(data)
        return
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        partial.write_bytes(data)
        sync(partial)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


def remove(path: Place) -> None:
    """Removes a file, if it is there."""
    if is_remote(path):
        # As it is named: its own `unlink` looks for patterns in names.
        with contextlib.suppress(FileNotFoundError):
            path.fs.rm_file(path.path)
    else:
        path.unlink(missing_ok=True)


def upload(folder: Path, path: Place, last: str) -> None:
    """Puts all files of a folder into an object store, and the one that tells of the others in the end."""
    files = [file.relative_to(folder).as_posix() for file in sorted(folder.rglob("*")) if file.is_file()]
    for name in sorted(files, key=lambda name: name == last):
        put(path / name, (folder / name).read_bytes())


@contextlib.contextmanager
def replacing(path: Path):
    """A folder to be written, which in the end takes the place of `path` whole; after an error what was there stays."""
    beside = f".{path.name}.{uuid.uuid4().hex[:8]}"
    new, old = path.with_name(f"{beside}.new"), path.with_name(f"{beside}.old")
    try:
        yield new
        tree = list(new.rglob("*"))
        settle(new, [file for file in tree if file.is_file()])
        for folder in (new, *(folder for folder in tree if folder.is_dir())):
            sync(folder)
        if path.exists():
            os.replace(path, old)
        os.replace(new, path)
        sync(path.parent)
    finally:
        if old.exists() and not path.exists():
            os.replace(old, path)
        for folder in (new, old):
            shutil.rmtree(folder, ignore_errors=True)


def settle(root: Place, paths: Iterable[Place]) -> list[Stamp]:
    """Asks the disk for files below `root` and for the folders that lead to them, and says what each is known by."""
    paths = list(paths)

    def one(path: Place) -> Stamp:
        sync(path)
        return stamp(path.read_bytes())

    # Requests that wait together are served together.
    with ThreadPoolExecutor(8) as pool:
        stamps = list(pool.map(one, paths))
        if is_remote(root):
            return stamps
        folders = {folder for path in paths for folder in path.parents if folder == root or root in folder.parents}
        list(pool.map(sync, folders))
    return stamps


def read(path: Place) -> bytes | None:
    """The bytes of a file; `None` if it is not there or the disk cannot read it."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.EIO:
            return None
        raise


def difference(data: bytes | None, expected: Stamp) -> str | None:
    """How a file differs from what it is known by: `None` if it does not."""
    if data is None:
        return "is missing"
    return None if stamp(data) == tuple(expected) else "is damaged"
