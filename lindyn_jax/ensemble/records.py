"""Records of a store: its attributes as JSON with a checksum, marks of complete chunks, and the record of an early stop."""

import hashlib
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import _files
from .names import COMPLETE, ROOT, STOPPED


def mark_of(index: int) -> str:
    return f"{COMPLETE}/c/{index}/0"


def seal_of(identity: str, index: int, entries: bytes) -> bytes:
    """Ties a record to its store and its place."""
    return np.array(zlib.crc32(f"{identity}:{index}:".encode() + entries), "<u4").tobytes()


def write_stop(path: _files.Place, identity: str, stop: tuple[int, int] | None) -> None:
    entries = np.array((0, 0) if stop is None else stop, "<u8").tobytes()
    file = path / STOPPED / "c" / "0"
    _files.make(file.parent)
    _files.put(file, entries + seal_of(identity, -1, entries) + bytes(4))
    _files.sync(file.parent.parent)


# The attribute that says which of the others are JSON texts: what reads a store can then write it to any other kind of file.
ENCODED = "json"


def write_root(path: Path, attributes: dict[str, Any]) -> None:
    document = json.loads((path / ROOT).read_bytes())
    written = attributes | {"checksum": checksum_of(attributes)}
    texts = {name: json.dumps(value) for name, value in written.items() if type(value) not in (str, int, float)}
    document["attributes"] = written | texts | {ENCODED: " ".join(texts)}
    _files.put(path / ROOT, json.dumps(document, indent=2).encode())


def decoded(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a root as they were given; those of stores of the third format are so already."""
    texts = {name: json.loads(attributes[name]) for name in attributes.get(ENCODED, "").split()}
    return {name: value for name, value in (dict(attributes) | texts).items() if name != ENCODED}


def checksum_of(attributes: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in attributes.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def plain(value: Any) -> Any:
    """`value` as JSON holds it.

    **Raises:** `ValueError` for what has no value of its own to compare, such as a function.
    """

    def convert(item):
        if hasattr(item, "tolist"):
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


def same(first: Any, second: Any) -> bool:
    """Whether two settings are equal, the order of names and NaN included."""
    return json.dumps(first) == json.dumps(second)


def short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:60] + "..." + text[-15:]
