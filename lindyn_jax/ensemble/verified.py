"""Folders of which only known files are read, and only as they are known; datasets that are kept so."""

import functools
import json
import os
from pathlib import Path

from .. import _files
from .names import ROOT
from .records import checksum_of


class StoreError(ValueError):
    """A folder that cannot be used as the store of this sweep."""


def save_dataset(dataset, path: str | os.PathLike, zarr_format: int = 3) -> None:
    """Writes a dataset as a Zarr store in place of what was there, with length and checksum of each of its files."""
    with _files.replacing(Path(path)) as new:
        dataset.to_zarr(new, mode="w", consolidated=False, zarr_format=zarr_format)
        root = new / (".zattrs" if zarr_format == 2 else ROOT)
        document = json.loads(root.read_bytes())
        files = sorted(file for file in new.rglob("*") if file.is_file() and file != root)
        attributes = document if zarr_format == 2 else document["attributes"]
        attributes["files"] = {f.relative_to(new).as_posix(): _files.stamp(f.read_bytes()) for f in files}
        attributes["checksum"] = checksum_of(attributes)
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
    damaged = [] if attributes["checksum"] == checksum_of(attributes) else ["its attributes"]
    for key, expected in attributes.get("files", {}).items():
        wrong = _files.difference(_files.read(path / key), tuple(expected))
        damaged += [f"{key} {wrong}"] if wrong else []
    if damaged:
        raise StoreError(f"{path} is damaged ({damaged[0]}): make it again.")


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
            return verified, (self.root, self.files)

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


def verified(root, files):
    return _verified_class()(root, files)
