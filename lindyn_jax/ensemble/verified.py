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
    from zarr.abc.store import OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest

    def part_of(data: bytes, wanted) -> bytes:
        if wanted is None:
            return data
        if type(wanted) is RangeByteRequest:
            return data[wanted.start : wanted.end]
        if type(wanted) is OffsetByteRequest:
            return data[wanted.offset :]
        if type(wanted) is SuffixByteRequest:
            return data[-wanted.suffix :]
        raise ValueError(f"A part of a file of a store cannot be asked for by {wanted!r}.")

    class Verified(Store):
        """A folder of which only known files are there, and only as they are known."""

        supports_writes = property(lambda self: False)
        supports_deletes = property(lambda self: False)
        supports_listing = property(lambda self: True)

        def __init__(self, root, files):
            super().__init__(read_only=True)
            self.root, self.files = root, files

        def with_read_only(self, read_only: bool = False):
            return self

        def __eq__(self, other):
            return type(other) is Verified and (self.root, self.files) == (other.root, other.files)

        def __reduce__(self):
            return verified, (self.root, self.files)

        def get_sync(self, key, *, prototype=None, byte_range=None):
            from zarr.core.buffer import default_buffer_prototype

            if key != ROOT and key not in self.files:
                return None
            data = _files.read(self.root / key)
            wrong = None if key == ROOT else _files.difference(data, self.files[key])
            if wrong:
                raise StoreError(
                    f"{self.root} is damaged ({key} {wrong}): the run that made it, started again, computes it again."
                )
            if data is None:
                return None
            return (prototype or default_buffer_prototype()).buffer.from_bytes(part_of(data, byte_range))

        async def get(self, key, prototype=None, byte_range=None):
            return self.get_sync(key, prototype=prototype, byte_range=byte_range)

        async def get_partial_values(self, prototype, key_ranges):
            return [self.get_sync(key, prototype=prototype, byte_range=wanted) for key, wanted in key_ranges]

        async def exists(self, key):
            return key in (ROOT, *self.files)

        async def list(self):
            for key in (ROOT, *self.files):
                yield key

        async def list_prefix(self, prefix):
            async for key in self.list():
                if key.startswith(prefix):
                    yield key

        async def list_dir(self, prefix):
            start = f"{prefix.rstrip('/')}/" if prefix else ""
            for name in sorted(
                {key[len(start) :].split("/")[0] for key in (ROOT, *self.files) if key.startswith(start)}
            ):
                yield name

        async def set(self, key, value):
            raise StoreError(f"{self.root} is read here, and not written.")

        async def delete(self, key):
            raise StoreError(f"{self.root} is read here, and not written.")

    return Verified


def verified(root, files):
    return _verified_class()(root, files)
