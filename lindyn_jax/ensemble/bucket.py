"""Where a store lies: in an object store, where nothing can be moved, and a file is there whole or not at all."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import _files
from .folder import NO_LOCK, Lock
from .names import ROOT
from .verified import StoreError

# There while the files of a new store come one after another.
MAKING = "making"


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
        if self.path.exists() and not (self.path / MAKING).exists():
            raise StoreError(f"{self.path} is there and is no sweep store: choose another address.")
        return False

    @contextlib.contextmanager
    def building(self) -> Iterator[Path]:
        """A new folder on this machine to build a store in, gone in the end."""
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / "store"

    def appear(self, building: Path) -> bool:
        """Makes the store of what was built: always `True`."""
        _files.put(self.path / MAKING, b"")
        self.replace(building)
        (self.path / MAKING).unlink()
        return True

    def keep(self, building: Path, keys: list[str], dropped: list[str]) -> None:
        """Files of the store stay where they are, but for those that are dropped."""
        for key in dropped:
            (self.path / key).unlink(missing_ok=True)

    def replace(self, building: Path) -> None:
        """Puts the files of what was built over those of the store, the root last.

        Until then what it describes counts as damaged, and is mended.
        """
        _files.upload(building, self.path, ROOT)

    def recover(self) -> None:
        """Nothing is half done that is not mended."""

    def clear(self, shared: bool) -> None:
        """There is nothing to be cleared away."""

    def remove(self) -> None:
        """Removes the store."""
        self.path.rmdir(recursive=True)

    def lock(self) -> Lock:
        """There are no locks."""
        return NO_LOCK
