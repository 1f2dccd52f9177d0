"""Arrays in files: an npz archive, or two npy or IDX files."""

import io
import math
import os

import numpy as np

from ._common import DataError, Dataset, checked, decoded, listed, one_hot, read_bytes, unzipped
from .idx import decode_idx


def read_npz(path: str) -> Dataset:
    raw = read_bytes(path)

    def arrays() -> tuple[np.ndarray, np.ndarray]:
        # np.load would take a lone npy array, or try to unpickle anything that is not a zip archive.
        if not raw.startswith(b"PK"):
            raise DataError(f"File `{path}` is not an npz archive: write it with `numpy.savez(path, X=X, Y=Y)`.")
        with np.load(io.BytesIO(raw), allow_pickle=False) as archive:
            missing = [key for key in ("X", "Y") if key not in archive.files]
            if missing:
                held = listed(archive.files) or "nothing"
                raise DataError(
                    f"File `{path}` must hold arrays `X` and `Y`, but has no {' and no '.join(f'`{k}`' for k in missing)}: "
                    f"it holds {held}."
                )
            X, Y = archive["X"], archive["Y"]
        for array, key in ((X, "X"), (Y, "Y")):
            # A member of another form is returned as its bytes.
            if not isinstance(array, np.ndarray):
                raise DataError(
                    f"Member `{key}` of file `{path}` is no array: write it with `numpy.savez(path, X=X, Y=Y)`."
                )
        return X, Y

    X, Y = decoded(path, "an npz archive", arrays)
    name = os.path.basename(path)
    return checked(X, Y, source=f"file `{path}`", name=name, description="npz archive; targets: its array Y")


def read_pair(text: str) -> Dataset:
    paths = [os.path.expanduser(part.strip()) for part in text.split(",")]
    if len(paths) != 2 or not all(paths):
        raise DataError(
            f"`{text}` must name two files, inputs and targets, with one comma between them, but names "
            f"{sum(map(bool, paths))}."
        )
    for path in paths:
        if not os.path.exists(path):
            raise DataError(f"File `{path}` does not exist.")
    X, inputs_are_idx = _read_array(paths[0])
    Y, targets_are_idx = _read_array(paths[1])
    target_names = None
    if inputs_are_idx:
        if X.ndim < 2:
            raise DataError(
                f"IDX file `{paths[0]}` must hold one image or vector a sample, but has shape {X.shape}: "
                "name the images first and the labels second."
            )
        X = X.reshape(X.shape[0], math.prod(X.shape[1:]))
    if targets_are_idx:
        if Y.ndim != 1:
            raise DataError(
                f"IDX file `{paths[1]}` must hold one label a sample, shape (N,), but has shape {Y.shape}: "
                "name the images first and the labels second."
            )
        if Y.dtype.kind in "iu":
            Y, target_names = one_hot(Y)
    inputs = "IDX images, flattened, raw values" if inputs_are_idx else "npy array"
    outputs = "IDX values" if targets_are_idx else "npy array"
    return checked(
        X,
        Y,
        source=f"files `{paths[0]}` and `{paths[1]}`",
        name=",".join(os.path.basename(path) for path in paths),
        description=f"{inputs}; targets: {outputs if target_names is None else 'IDX labels, one-hot'}",
        target_names=target_names,
    )


def _read_array(path: str) -> tuple[np.ndarray, bool]:
    raw = unzipped(path, read_bytes(path))
    if raw.startswith(b"\x93NUMPY"):
        return decoded(path, "an npy array", lambda: np.load(io.BytesIO(raw), allow_pickle=False)), False
    if raw.startswith(b"\0\0"):
        return decode_idx(raw, path), True
    raise DataError(f"File `{path}` is neither an npy array nor an IDX file.")
