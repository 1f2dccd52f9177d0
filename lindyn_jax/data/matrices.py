"""Matrices of which some entries are known: a table with empty cells, an archive with NaN, or the inputs of a bundled set."""

import io
import os
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from .._checks import is_name
from .._public import public
from .._text import on_one_line
from ._common import Count, DataError, decoded, listed, read_bytes, whole
from .bundled import BUNDLED, read_bundled
from .tables import MISSING, _decoded_text, _found_separator, _is_number, _rows, _stated_separator, _with_points


class Matrix(NamedTuple):
    """A matrix with missing entries. **Fields:** `values`, shape (n, m), NaN where unknown; `name`; `description`.

    Example:

        >>> np.savetxt("ratings.csv", [[5, 3, np.nan], [4, np.nan, 1]], delimiter=",")
        >>> matrix = ld.data.load_matrix("ratings.csv")
        >>> problem = ld.MatrixCompletion(matrix.values)
        >>> print(matrix.values.shape, problem.num_samples, problem.loss(jnp.zeros((2, 3))))
        (2, 3) 4 25.5
    """

    values: Float[np.ndarray, "n m"]
    name: str
    description: str


@public
def load_matrix(spec: str | os.PathLike, *, samples: Count | None = None, subset_seed: Count = 0) -> Matrix:
    """The matrix that `spec` names, NaN where an entry is not known: what is missing is the question, and no mistake.

    **Args:**

    - `spec`: one of
        - `FILE.csv` or `FILE.tsv`, a table of numbers with or without a header, unknown where a cell is empty, or holds NA, NaN
          or what else spreadsheets write there. Separators, decimal commas and the encoding are found out as by `load`;
        - `FILE.npz`, with one array, or its array Y, unknown where it is NaN;
        - a name of scikit-learn's bundled sets with data for rows, such as `"digits"`, images with a column for each pixel.
          A name goes before a file of that name.
    - `samples`: how many rows to keep, drawn without replacement and left in their order. Default: all.
    - `subset_seed`: the seed of that draw.

    **Returns:** a `Matrix`.

    **Raises:** `DataError` for what is missing or cannot be read, cells that are words, infinite entries, a matrix whose known
    entries are all zero, a row or column without a known entry, which cannot be learned, and impossible `samples`.

    Example:

        >>> np.savetxt("ratings.csv", [[5, 3, np.nan], [4, np.nan, 1]], delimiter=",")
        >>> print(ld.data.load_matrix("ratings.csv").values)
        [[ 5. 3. nan]
         [ 4. nan 1.]]
    """
    samples = None if samples is None else whole(samples, "samples", least=1)
    subset_seed = whole(subset_seed, "subset_seed", least=0)
    text = os.fsdecode(spec)
    name, path = text.strip().lower().replace("_", "-"), os.path.expanduser(text)
    if is_name(spec) and name in BUNDLED:
        values, description = read_bundled(name).X, f"scikit-learn's {name}, {BUNDLED[name].description.split(';')[0]}"
    elif path.lower().endswith((".csv", ".tsv", ".npz")):
        name = os.path.basename(path)
        values = _read_archive(path) if path.lower().endswith(".npz") else _read_table(path)
        description = "npz archive" if path.lower().endswith(".npz") else "csv table"
    else:
        raise DataError(
            f"`{text}` is no matrix: name a file that ends in .csv, .tsv or .npz, or one of {', '.join(BUNDLED)}."
        )
    if samples is not None:
        if samples > len(values):
            raise DataError(f"Argument `samples` asks for {samples} rows, but {name} has only {len(values)}.")
        chosen = np.random.default_rng(subset_seed).choice(len(values), samples, replace=False)
        values, description = values[np.sort(chosen)], f"{description}; {samples} rows, subset seed {subset_seed}"
    _check(values, text)
    known = int(np.sum(~np.isnan(values)))
    sizes = f"{values.shape[0]} x {values.shape[1]}, {known} of {values.size} entries known"
    return Matrix(values, name, on_one_line(f"{name}: {sizes}; {description}"))


def _check(values: np.ndarray, text: str) -> None:
    known = ~np.isnan(values)
    infinite = np.argwhere(np.isinf(values))
    if len(infinite):
        raise DataError(
            f"The matrix of `{text}` must be finite, but is not in row {infinite[0][0]}, column {infinite[0][1]}."
        )
    if not np.any(values[known]):
        what = "no known entry" if not known.any() else "no known entry that is not 0"
        raise DataError(f"The matrix of `{text}` has {what}: there is nothing to learn from it.")
    for axis, word in ((1, "Row"), (0, "Column")):
        empty = np.flatnonzero(~known.any(axis=axis))
        if len(empty):
            raise DataError(
                f"{word} {empty[0]} of the matrix of `{text}`, counted from 0, has no known entry and cannot be learned: leave "
                "it out."
            )


def _read_archive(path: str) -> np.ndarray:
    raw = read_bytes(path)

    def array() -> np.ndarray:
        if not raw.startswith(b"PK"):
            raise DataError(f"File `{path}` is not an npz archive: write it with `numpy.savez(path, Y=Y)`.")
        with np.load(io.BytesIO(raw), allow_pickle=False) as archive:
            if "Y" not in archive.files and len(archive.files) != 1:
                held = listed(archive.files) or "nothing"
                raise DataError(f"File `{path}` must hold one array, or an array `Y`, but holds {held}.")
            return archive["Y" if "Y" in archive.files else archive.files[0]]

    values = decoded(path, "an npz archive", array)
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf":
        raise DataError(f"The array of file `{path}` must hold real numbers.")
    if values.ndim != 2 or 0 in values.shape:
        raise DataError(f"The array of file `{path}` must have shape (n, m), but has shape {values.shape}.")
    with np.errstate(over="ignore"):
        return np.array(values, np.float64)


def _read_table(path: str) -> np.ndarray:
    text, _ = _decoded_text(path, read_bytes(path))
    separator, text, skipped = _stated_separator(path, text)
    rows, lines = _rows(path, text, _found_separator(path, text) if separator is None else separator)
    if not rows:
        raise DataError(f"File `{path}` is empty.")
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(rows[0]):
            raise DataError(
                f"File `{path}` must have as many cells in each row as in its first, {len(rows[0])}, but line {line + skipped} "
                f"has {len(row)}."
            )
    rows, _ = _with_points(path, rows, lines)
    # A first row with a word in it names the columns.
    if not all(cell in MISSING or _is_number(cell) for cell in rows[0]):
        rows, lines = rows[1:], lines[1:]
    if not rows:
        raise DataError(f"File `{path}` is empty: it has a header, but no rows.")
    values = np.full((len(rows), len(rows[0])), np.nan)
    for i, (row, line) in enumerate(zip(rows, lines, strict=True)):
        for j, cell in enumerate(row):
            if cell in MISSING:
                continue
            if not _is_number(cell):
                raise DataError(
                    f"File `{path}` must hold numbers and empty cells, but line {line + skipped}, column {j + 1}, holds "
                    f"{cell!r}: leave names of rows out."
                )
            values[i, j] = float(cell)
    return values
