"""Making a store: its arrays without contents, and what describes them."""

import uuid
import warnings

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
    layout_of,
)
from .records import plain, write_root, write_stop

FORMAT = "lindyn_jax sweep 4"
# Those of the third have the same files, and attributes that are no texts.
READABLE = (FORMAT, "lindyn_jax sweep 3")


def build(path, variables, coordinates, settings, attributes, trials, chunk, reduced, identity=None) -> None:
    """Makes an empty store in a new folder; arguments as of `SweepStore.prepare`, and the identity of one that it extends."""
    import zarr

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
    layout = layout_of(variables, reduced)
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
