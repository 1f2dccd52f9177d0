"""Making a store: its arrays without contents, and what describes them."""

import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import _files
from .names import (
    _ENTRY,
    _STOP,
    CHUNK,
    COMPLETE,
    REDUCED,
    ROOT,
    STOPPED,
    TRIAL,
    Variable,
    files_of,
    fill_of,
    laid_out,
    layout_of,
)
from .records import plain, write_root, write_stop
from .verified import StoreError

FORMAT = "lindyn_jax sweep 4"
# Those of the third have the same files, and attributes that are no texts.
READABLE = (FORMAT, "lindyn_jax sweep 3")


class Plan(NamedTuple):
    """What a store is made of. **Fields:** the arguments of `SweepStore.prepare`, `reduced` without a default."""

    variables: Mapping[str, Variable]
    coordinates: Mapping[str, Any]
    settings: Mapping[str, Any]
    attributes: Mapping[str, Any]
    trials: int
    chunk: int
    reduced: Mapping[str, Variable]

    @property
    def layout(self) -> dict[str, Any]:
        """How its outputs are laid out."""
        return layout_of(self.variables, self.reduced)


def build(path: Path, plan: Plan, identity: str | None = None) -> None:
    """Makes an empty store in a new folder, with the identity of one that it extends."""
    import zarr

    variables, coordinates, settings, attributes, trials, chunk, reduced = plan
    count = -(-trials // chunk)
    group = zarr.open_group(path, mode="w", zarr_format=3)
    with zarr.config.set({"array.write_empty_chunks": True}):
        for name, values in coordinates.items():
            known = plain(getattr(values, "attrs", {}))
            array = group.create_array(
                name, shape=values.shape, dtype=values.dtype, dimension_names=[name], attributes=known
            )
            array[:] = np.asarray(values)

    def create(group, name, variable, along, length):
        sizes = zip(variable.dims, variable.shape, strict=True)
        group.create_array(
            name,
            shape=variable.shape,
            chunks=tuple(length if dim == along else size for dim, size in sizes),
            dtype=variable.dtype,
            dimension_names=list(variable.dims),
            fill_value=fill_of(variable.dtype),
            attributes=plain(variable.attributes),
        )

    for name, variable in variables.items():
        create(group, name, variable, TRIAL, chunk)
    parts = group.create_group(REDUCED)
    for name, variable in reduced.items():
        layout = Variable((CHUNK, *variable.dims), (count, *variable.shape), variable.dtype, variable.attributes)
        create(parts, name, layout, CHUNK, 1)
    layout = plan.layout
    entries = 2 * len(files_of(layout, 0)) + 1
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
    with warnings.catch_warnings():
        # Not yet part of the third format, but of what xarray looks for. Metadata never change after this.
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(path)
    files = sorted(file for file in path.rglob("*") if file.is_file() and file != path / ROOT)
    stamps = _files.settle(path, files)
    described = {
        "format": FORMAT,
        "chunk": chunk,
        "trials": trials,
        "settings": plain(settings),
        **plain(attributes),
        "identity": identity or uuid.uuid4().hex,
        "layout": plain(layout),
        "files": {f.relative_to(path).as_posix(): list(known) for f, known in zip(files, stamps, strict=True)},
    }
    write_root(path, described)
    write_stop(path, described["identity"], None)
    for folder in (path, *(folder for folder in path.rglob("*") if folder.is_dir())):
        _files.sync(folder)


def check_layout(path: _files.Place, there, here, longer: str | None = None) -> None:
    """Refuses outputs that are laid out in another way, but for the length of one dimension."""

    def fixed(entry):
        if entry is None:
            return None
        return entry | {"shape": [-1 if d == longer else n for d, n in zip(entry["dims"], entry["shape"], strict=True)]}

    differ = [
        f"{kind} `{name}` is {laid_out(there[group].get(name))} there and {laid_out(here[group].get(name))} here"
        for group, kind in (("variables", "output"), ("reduced", "reduction"))
        for name in {**there[group], **here[group]}
        if fixed(there[group].get(name)) != fixed(here[group].get(name))
    ]
    if differ:
        raise StoreError(
            f"{path} holds a sweep with other outputs ({'; '.join(differ)}): choose another folder or the same outputs."
        )
