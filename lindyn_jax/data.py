"""Data: what a user names, on the command line or in Python, as arrays X and Y.

A bundled set by its name, an npz archive, a csv table, a pair of npy or IDX files, or Gaussian data drawn on the spot. Pure
NumPy: scikit-learn is imported only for the sets that it carries, and every way in which a file can be wrong ends in a
`DataError` of one sentence.
"""

import csv
import difflib
import gzip
import io
import math
import operator
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
from jaxtyping import Float

# Floats belong to the type so that they reach `_whole`, which refuses them in a sentence.
Count = SupportsIndex | float


class DataError(ValueError):
    """Data that cannot be used: the message says which, why, and what to do, on one line."""

    def __init__(self, message: str):
        super().__init__(_on_one_line(message))


class Dataset(NamedTuple):
    """Inputs and targets with what is known of them.

    **Fields:** `X`, shape (N, n), and `Y`, shape (N, m), both float64; `name`; `description`, where the data come from, what
    the targets are and what was done to them; `feature_names` (n of them) and `target_names` (m), or `None`.
    """

    X: Float[np.ndarray, "N n"]
    Y: Float[np.ndarray, "N m"]
    name: str
    description: str
    feature_names: tuple[str, ...] | None = None
    target_names: tuple[str, ...] | None = None


class _Bundled(NamedTuple):
    loader: str
    classes: bool
    description: str


_BUNDLED = {
    "digits": _Bundled(
        "load_digits", True, "8 x 8 images of handwritten digits, pixels from 0 to 16; targets: the digit"
    ),
    "iris": _Bundled("load_iris", True, "four measurements of iris flowers in cm; targets: the species"),
    "wine": _Bundled("load_wine", True, "thirteen chemical measurements of wines; targets: the cultivar"),
    "breast-cancer": _Bundled("load_breast_cancer", True, "thirty measurements of cell nuclei; targets: the diagnosis"),
    "diabetes": _Bundled(
        "load_diabetes",
        False,
        "ten measurements of patients, each column with mean 0 and norm 1; targets: disease progression after a year",
    ),
    "linnerud": _Bundled("load_linnerud", False, "three exercises of twenty men; targets: weight, waist and pulse"),
}

KNOWN = (*_BUNDLED, "gaussian")


def load(
    spec: str | os.PathLike,
    *,
    targets: str | Sequence[str] | None = None,
    samples: Count | None = None,
    subset_seed: Count = 0,
    centre: bool = False,
) -> Dataset:
    """The data that `spec` names, all rows or a seeded choice of them, centred or as they are.

    **Args:**

    - `spec`: one of
        - a name in `KNOWN`, in any case and with `_` for `-` if you like: scikit-learn's bundled sets, with classes as
          one-hot targets, or `"gaussian"` for `gaussian()` with its defaults. A name goes before a file of that name: write
          `./digits` for the file;
        - `FILE.npz`, with arrays X, shape (N, n), and Y, shape (N, m) or (N,);
        - `FILE.csv`, with a header and commas. Columns that `targets` does not name are features;
        - two files with a comma between them, `X.npy,Y.npy`, or images and labels in IDX, the format of MNIST, gzipped or
          not. Images are flattened to one row each and keep their raw values (0 to 255 for bytes), integer labels become
          one-hot.
    - `targets`: the target columns of a csv, a sequence or a string with commas; required there and refused elsewhere.
        Numbers are targets as they stand. One column of words is a column of labels and becomes one-hot.
    - `samples`: how many rows to keep, drawn without replacement and left in their order. Default: all.
    - `subset_seed`: the seed of that draw.
    - `centre`: whether to subtract the column means of X and of Y, those of the rows kept.

    One-hot columns are sorted by label and are those of the whole set, also when a subset misses a label.

    **Returns:** a `Dataset`.

    **Raises:** `DataError` for an unknown name, a file that is missing or cannot be read, missing or wrong arrays or
    columns, differing numbers of rows, NaN or infinity, and impossible `samples`. Pickled arrays are never loaded.
    """
    samples = None if samples is None else _whole(samples, "samples", least=1)
    subset_seed = _whole(subset_seed, "subset_seed", least=0)
    dataset = _read(spec, targets)
    if samples is not None:
        dataset = _subset(dataset, samples, subset_seed)
    if centre:
        dataset = dataset._replace(
            X=dataset.X - dataset.X.mean(axis=0),
            Y=dataset.Y - dataset.Y.mean(axis=0),
            description=f"{dataset.description}; columns centred",
        )
    return dataset


def gaussian(
    *, n: Count = 500, samples: Count = 100, m: Count = 1, noise: float | int = 0.01, seed: Count = 0
) -> Dataset:
    """Gaussian inputs and noisy linear targets, `Y = X Theta + noise * epsilon`.

    The entries of X and of Theta are independent N(0, 1/n), those of epsilon N(0, 1); M22's Fig. 7 with the defaults.

    **Args:** `n`, `samples` (N) and `m`, the sizes; `noise`, a standard deviation, 0 for none; `seed`, of NumPy's
    `default_rng`, from which X, Theta and epsilon are drawn in this order.

    **Returns:** a `Dataset` with X of shape (N, n) and Y of shape (N, m).

    **Raises:** `DataError` for sizes below 1, a negative seed or noise.

    **Source:** M22 Fig. 7: 500 inputs, 100 samples, one output, noise of standard deviation .01.
    """
    n, samples, m = (_whole(value, name, least=1) for value, name in ((n, "n"), (samples, "samples"), (m, "m")))
    seed = _whole(seed, "seed", least=0)
    if not (math.isfinite(noise) and noise >= 0):
        raise DataError(f"Argument `noise` must be a finite standard deviation of at least 0, but is {noise}.")
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(samples, n)) / math.sqrt(n)
    Theta = rng.normal(size=(n, m)) / math.sqrt(n)
    Y = X @ Theta + noise * rng.normal(size=(samples, m))
    description = f"inputs and linear map N(0, 1/n), seed {seed}; targets: linear with noise {noise:g}"
    return Dataset(X, Y, "gaussian", description)


def describe(dataset: Dataset) -> str:
    """One line: name, sizes, where the data come from and what the targets are."""
    (num_samples, num_inputs), num_outputs = dataset.X.shape, dataset.Y.shape[1]
    sizes = ", ".join(
        f"{number} {noun}{'' if number == 1 else 's'}"
        for number, noun in ((num_samples, "sample"), (num_inputs, "input"), (num_outputs, "output"))
    )
    return _on_one_line(f"{dataset.name}: {sizes}; {dataset.description}")


def _on_one_line(text: str) -> str:
    """`text` with line breaks and terminal codes escaped: names of files, arrays and columns may hold them."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _whole(value: Count, name: str, *, least: int) -> int:
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least:
        raise DataError(f"Argument `{name}` must be a whole number of at least {least}, but is {value!r}.")
    return number


def _subset(dataset: Dataset, samples: int, seed: int) -> Dataset:
    num_samples = dataset.X.shape[0]
    if samples > num_samples:
        hint = "; draw more with `gaussian(samples=...)`" if dataset.name == "gaussian" else ""
        raise DataError(
            f"Argument `samples` asks for {samples} rows, but {dataset.name} has only {num_samples}: "
            f"ask for at most {num_samples}{hint}."
        )
    rows = np.sort(np.random.default_rng(seed).choice(num_samples, samples, replace=False))
    description = f"{dataset.description}; {samples} of {num_samples} rows, subset seed {seed}"
    return dataset._replace(X=dataset.X[rows], Y=dataset.Y[rows], description=description)


# -- which reader ----------------------------------------------------------------------------------------------------------


def _read(spec: str | os.PathLike, targets: str | Sequence[str] | None) -> Dataset:
    text = os.fsdecode(spec)
    name = text.strip().lower().replace("_", "-")
    path = os.path.expanduser(text)
    is_csv = path.lower().endswith(".csv")
    known = isinstance(spec, str) and name in KNOWN
    if targets is not None and not is_csv:
        raise DataError(f"Argument `targets` names columns of a csv file, but the data are `{text}`: leave it out.")
    if known:
        return gaussian() if name == "gaussian" else _read_bundled(name)
    if os.path.isdir(path):
        raise DataError(f"`{text}` is a folder: name a file in it.")
    if os.path.exists(path):
        if is_csv:
            return _read_csv(path, targets)
        if path.lower().endswith(".npz"):
            return _read_npz(path)
        raise DataError(
            f"File `{text}` is neither .npz nor .csv: name one of these, or two npy or IDX files with a comma between "
            "them, such as `X.npy,Y.npy`."
        )
    if "," in text:
        return _read_pair(text)
    if os.sep in text or os.path.splitext(text)[1]:
        raise DataError(f"File `{text}` does not exist.")
    close = difflib.get_close_matches(name, KNOWN, n=1)
    suggestion = f"did you mean `{close[0]}`? The known names are" if close else "the known names are"
    raise DataError(f"`{text}` is neither a known name nor a file: {suggestion} {', '.join(KNOWN)}.")


def _read_bundled(name: str) -> Dataset:
    try:
        from sklearn import datasets
    except ImportError as error:
        raise DataError(
            f'The data set `{name}` comes with scikit-learn, which is not installed: run `pip install "lindyn_jax[data]"`.'
        ) from error
    bundled = _BUNDLED[name]
    bunch = getattr(datasets, bundled.loader)()
    target_names = tuple(str(label) for label in bunch["target_names"]) if "target_names" in bunch else None
    Y, _ = _one_hot(bunch["target"]) if bundled.classes else (bunch["target"], None)
    return _checked(
        bunch["data"],
        Y,
        source=f"data set `{name}`",
        name=name,
        description=f"scikit-learn's {name}, {bundled.description}{', one-hot' if bundled.classes else ''}",
        feature_names=tuple(str(feature) for feature in bunch["feature_names"]),
        target_names=target_names,
    )


# -- files -----------------------------------------------------------------------------------------------------------------


def _read_bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise DataError(f"File `{path}` cannot be read: {error.strerror or error}.") from error


def _decoded(path: str, kind: str, decode: Callable[[], Any]) -> Any:
    # Corrupt bytes make zipfile, zlib and NumPy raise nearly every type there is; all of them mean this one thing.
    try:
        return decode()
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"File `{path}` cannot be read as {kind} ({type(error).__name__}): it is damaged, incomplete, or holds Python "
            "objects, which are never loaded."
        ) from error


def _read_npz(path: str) -> Dataset:
    raw = _read_bytes(path)

    def arrays() -> tuple[np.ndarray, np.ndarray]:
        # np.load would take a lone npy array, or try to unpickle anything that is not a zip archive.
        if not raw.startswith(b"PK"):
            raise DataError(f"File `{path}` is not an npz archive: write it with `numpy.savez(path, X=X, Y=Y)`.")
        with np.load(io.BytesIO(raw), allow_pickle=False) as archive:
            missing = [key for key in ("X", "Y") if key not in archive.files]
            if missing:
                held = ", ".join(f"`{key}`" for key in archive.files) or "nothing"
                raise DataError(
                    f"File `{path}` must hold arrays `X` and `Y`, but has no {' and no '.join(f'`{k}`' for k in missing)}: "
                    f"it holds {held}."
                )
            return archive["X"], archive["Y"]

    X, Y = _decoded(path, "an npz archive", arrays)
    name = os.path.basename(path)
    return _checked(X, Y, source=f"file `{path}`", name=name, description="npz archive; targets: its array Y")


def _read_pair(text: str) -> Dataset:
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
            Y, target_names = _one_hot(Y)
    inputs = "IDX images, flattened, raw values" if inputs_are_idx else "npy array"
    outputs = "IDX values" if targets_are_idx else "npy array"
    return _checked(
        X,
        Y,
        source=f"files `{paths[0]}` and `{paths[1]}`",
        name=",".join(os.path.basename(path) for path in paths),
        description=f"{inputs}; targets: {outputs if target_names is None else 'IDX labels, one-hot'}",
        target_names=target_names,
    )


def _read_array(path: str) -> tuple[np.ndarray, bool]:
    raw = _read_bytes(path)
    if raw.startswith(b"\x1f\x8b"):
        raw = _decoded(path, "a gzip file", lambda: gzip.decompress(raw))
    if raw.startswith(b"\x93NUMPY"):
        return _decoded(path, "an npy array", lambda: np.load(io.BytesIO(raw), allow_pickle=False)), False
    if raw.startswith(b"\0\0"):
        return _decode_idx(raw, path), True
    raise DataError(f"File `{path}` is neither an npy array nor an IDX file.")


_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def _decode_idx(raw: bytes, path: str) -> np.ndarray:
    # Two zero bytes, the type, the number of axes, each axis as a big-endian 32-bit number, then the entries.
    start = 4 + 4 * raw[3] if len(raw) >= 4 else 4
    if len(raw) < start or raw[2] not in _IDX_TYPES or raw[3] == 0:
        raise DataError(f"File `{path}` cannot be read as an IDX file: its header is damaged.")
    dtype = np.dtype(_IDX_TYPES[raw[2]])
    shape = tuple(int(size) for size in np.frombuffer(raw, ">u4", count=raw[3], offset=4))
    expected, given = math.prod(shape) * dtype.itemsize, len(raw) - start
    if expected != given:
        raise DataError(
            f"IDX file `{path}` says that its shape is {shape}, which takes {expected} bytes, but holds {given}: "
            "it is damaged or incomplete."
        )
    return np.frombuffer(raw, dtype, offset=start).reshape(shape)


def _read_csv(path: str, targets: str | Sequence[str] | None) -> Dataset:
    header, columns, lines = _read_table(path)
    names = _target_names(path, header, targets)
    features = [name for name in header if name not in names]
    if not features:
        raise DataError(f"File `{path}` has no columns left to be features: `targets` names all {len(header)} of them.")
    X = np.stack([_numbers(columns[name], name, path, lines) for name in features], axis=1)
    target_names = tuple(names)
    if len(names) == 1 and not any(map(_is_number, columns[names[0]])):
        labels = _filled(columns[names[0]], names[0], path, lines)
        Y, target_names = _one_hot(np.array(labels))
        described = f"labels of column {names[0]}, one-hot"
    else:
        hint = (
            ": labels must all be words or all be numbers"
            if len(names) == 1
            else ": several target columns must all be numbers, and only a single one can hold labels"
        )
        Y = np.stack([_numbers(columns[name], name, path, lines, hint) for name in names], axis=1)
        described = f"column{'' if len(names) == 1 else 's'} {', '.join(names)}"
    for array, labels in ((X, features), (Y, target_names)):
        _check_finite(array, "X" if array is X else "Y", f"file `{path}`", labels, lines)
    return _checked(
        X,
        Y,
        source=f"file `{path}`",
        name=os.path.basename(path),
        description=f"csv table; targets: {described}",
        feature_names=tuple(features),
        target_names=target_names,
    )


def _read_table(path: str) -> tuple[list[str], dict[str, list[str]], list[int]]:
    """The header, the cells of each column, and the line of the file on which each row ends."""
    raw = _read_bytes(path)
    # Spreadsheets put a byte-order mark in front, which would become part of the first column's name.
    text = _decoded(path, "a csv file in UTF-8", lambda: raw.decode("utf-8-sig"))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows, lines = [], []
    try:
        for row in reader:
            if row:
                rows.append([cell.strip() for cell in row])
                lines.append(reader.line_num)
    except csv.Error as error:
        raise DataError(
            f"File `{path}` cannot be read as csv: line {reader.line_num} is malformed ({error})."
        ) from error
    if not rows:
        raise DataError(f"File `{path}` is empty: its first line must name the columns.")
    header, rows, lines = rows[0], rows[1:], lines[1:]
    if all(map(_is_number, header)):
        raise DataError(f"File `{path}` has no header: its first line must name the columns, but holds only numbers.")
    if "" in header:
        raise DataError(
            f"File `{path}` does not name its column {header.index('') + 1}: name it in the header or remove it."
        )
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise DataError(f"File `{path}` has more than one column named {', '.join(f'`{name}`' for name in repeated)}.")
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(header):
            raise DataError(
                f"File `{path}` must have {len(header)} cells in each row, as in its header, but line {line} has {len(row)}."
            )
    if not rows:
        raise DataError(f"File `{path}` is empty: it has a header, but no rows.")
    return header, dict(zip(header, map(list, zip(*rows, strict=True)), strict=True)), lines


def _target_names(path: str, header: list[str], targets: str | Sequence[str] | None) -> list[str]:
    columns = ", ".join(f"`{name}`" for name in header)
    if isinstance(targets, str):
        # A column whose name has a comma in it can still be named alone.
        targets = [targets] if targets in header else targets.split(",")
    names = [name.strip() for name in targets or () if name.strip()]
    if not names:
        raise DataError(f"File `{path}` needs `targets`, the names of its target columns, out of {columns}.")
    for name in names:
        if name not in header:
            close = difflib.get_close_matches(name, header, n=1)
            suggestion = f"did you mean `{close[0]}`? " if close else ""
            raise DataError(
                f"File `{path}` has no column `{name}` to be a target: {suggestion}{'Its' if close else 'its'} columns are "
                f"{columns}."
            )
        if names.count(name) > 1:
            raise DataError(f"Argument `targets` names column `{name}` more than once.")
    return names


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    # Python reads 1_000 as a number; in a table it is a word.
    return "_" not in cell


def _filled(cells: list[str], name: str, path: str, lines: list[int]) -> list[str]:
    if "" in cells:
        raise DataError(f"File `{path}` has an empty cell in column `{name}`, line {lines[cells.index('')]}.")
    return cells


def _numbers(cells: list[str], name: str, path: str, lines: list[int], hint: str = "") -> np.ndarray:
    for cell, line in zip(_filled(cells, name, path, lines), lines, strict=True):
        if not _is_number(cell):
            hint = hint or ": leave the column out, turn it into numbers, or name it in `targets` if it holds labels"
            raise DataError(
                f"Column `{name}` of file `{path}` must hold numbers, but line {line} holds {cell!r}{hint}."
            )
    return np.array([float(cell) for cell in cells])


# -- arrays ----------------------------------------------------------------------------------------------------------------


def _one_hot(labels: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """One column for each label that occurs, sorted by label, and the labels."""
    classes, index = np.unique(labels, return_inverse=True)
    Y = np.zeros((len(labels), len(classes)))
    Y[np.arange(len(labels)), index] = 1.0
    return Y, tuple(str(label) for label in classes)


def _checked(
    X: np.ndarray,
    Y: np.ndarray,
    *,
    source: str,
    name: str,
    description: str,
    feature_names: tuple[str, ...] | None = None,
    target_names: tuple[str, ...] | None = None,
) -> Dataset:
    X, Y = _as_numbers(X, "X", source), _as_numbers(Y, "Y", source)
    if Y.ndim == 1:
        Y = Y[:, None]
    for array, letter, shape in ((X, "X", "(N, n)"), (Y, "Y", "(N, m)")):
        if array.ndim != 2:
            raise DataError(f"Array `{letter}` of {source} must have shape {shape}, but has shape {array.shape}.")
        if 0 in array.shape:
            raise DataError(
                f"Array `{letter}` of {source} is empty: it must have shape {shape}, but has {array.shape}."
            )
    if X.shape[0] != Y.shape[0]:
        raise DataError(
            f"Arrays `X` and `Y` of {source} must have one row a sample, but have {X.shape[0]} and {Y.shape[0]} rows."
        )
    _check_finite(X, "X", source)
    _check_finite(Y, "Y", source)
    return Dataset(X, Y, name, description, feature_names, target_names)


def _as_numbers(array: np.ndarray, letter: str, source: str) -> np.ndarray:
    if array.dtype.kind not in "biuf":
        raise DataError(f"Array `{letter}` of {source} must hold real numbers, but has dtype {array.dtype}.")
    # A long double beyond the range of float64 becomes infinite, which the check that follows reports.
    with np.errstate(over="ignore"):
        return np.array(array, np.float64)


def _check_finite(
    array: np.ndarray,
    letter: str,
    source: str,
    columns: Sequence[str] | None = None,
    lines: Sequence[int] | None = None,
) -> None:
    bad = np.argwhere(~np.isfinite(array))
    if len(bad) == 0:
        return
    row, column = (int(index) for index in bad[0])
    named = "" if columns is None or lines is None else f" (column `{columns[column]}`, line {lines[row]})"
    raise DataError(
        f"Array `{letter}` of {source} must be finite, but {len(bad)} of its entries are not: the first is "
        f"{array[row, column]} in row {row}, column {column}, counted from 0{named}."
    )
