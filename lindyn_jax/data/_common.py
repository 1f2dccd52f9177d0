"""What the readers share: the form of a data set, its errors, and the checks of what was read."""

import gzip
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
from jaxtyping import Float

from .._checks import hint_of
from .._public import public
from .._text import on_one_line

# Floats belong to the type so that they reach `whole`, which refuses them in a sentence.
Count = SupportsIndex | float


class DataError(ValueError):
    """Data that cannot be used: the message says which, why, and what to do, on one line.

    Example:

        >>> try:
        ...     ld.data.power_law(0, 1.0)
        ... except ld.data.DataError as error:
        ...     print(error)
        Argument `n` must be a whole number of at least 1, but is 0.
    """

    def __init__(self, message: str):
        super().__init__(on_one_line(message))


class Dataset(NamedTuple):
    """Inputs and targets with what is known of them.

    **Fields:** `X`, shape (N, n), and `Y`, shape (N, m), both float64; `name`; `description`, where the data come from, what
    the targets are and what was done to them; `feature_names` (n of them) and `target_names` (m), or `None`.

    Example:

        >>> iris = ld.data.load("iris")
        >>> print(iris.name, iris.X.shape, iris.Y.shape, iris.target_names)
        iris (150, 4) (150, 3) ('setosa', 'versicolor', 'virginica')
        >>> print(iris.X.mean(axis=0))
        [5.843 3.057 3.758 1.199]
        >>> print(float(ld.LeastSquares(iris.X, iris.Y).condition))
        2592.0
    """

    X: Float[np.ndarray, "N n"]
    Y: Float[np.ndarray, "N m"]
    name: str
    description: str
    feature_names: tuple[str, ...] | None = None
    target_names: tuple[str, ...] | None = None


@public
def describe(dataset: Dataset) -> str:
    """One line: name, sizes, where the data come from and what the targets are.

    **Args:** `dataset`, a `Dataset`; line breaks and terminal codes in its texts are escaped.

    Example:

        >>> X, Y = np.eye(2), np.ones((2, 1))
        >>> print(ld.data.describe(ld.data.Dataset(X, Y, "mine", "made by hand")))
        mine: 2 samples, 2 inputs, 1 output; made by hand
        >>> print(ld.data.describe(ld.data.load("wine"))[:33])
        wine: 178 samples, 13 inputs, 3 o
    """
    (num_samples, num_inputs), num_outputs = dataset.X.shape, dataset.Y.shape[1]
    sizes = ", ".join(
        f"{number} {noun}{'' if number == 1 else 's'}"
        for number, noun in ((num_samples, "sample"), (num_inputs, "input"), (num_outputs, "output"))
    )
    return on_one_line(f"{dataset.name}: {sizes}; {dataset.description}")


hint_of.register(Dataset, lambda dataset: ": give its arrays, `data.X, data.Y`")


def listed(names: Sequence[str], most: int = 12) -> str:
    """The first names, shortened, and how many more there are: a table may have thousands of columns."""
    first = ", ".join(f"`{name if len(name) <= 60 else name[:57] + '...'}`" for name in names[:most])
    return first if len(names) <= most else f"{first} and {len(names) - most} more"


def whole(value: Count, name: str, *, least: int) -> int:
    try:
        number = None if isinstance(value, (bool, float)) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least:
        raise DataError(f"Argument `{name}` must be a whole number of at least {least}, but is {value!r}.")
    return number


def read_bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise DataError(f"File `{path}` cannot be read: {error.strerror or error}.") from error


def decoded(path: str, kind: str, decode: Callable[[], Any]) -> Any:
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


def unzipped(path: str, raw: bytes) -> bytes:
    """The contents of a file, whether it was gzipped or not."""
    return decoded(path, "a gzip file", lambda: gzip.decompress(raw)) if raw.startswith(b"\x1f\x8b") else raw


def one_hot(labels: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """One column for each label that occurs, sorted by label, and the labels."""
    classes, index = np.unique(labels, return_inverse=True)
    Y = np.zeros((len(labels), len(classes)))
    Y[np.arange(len(labels)), index] = 1.0
    return Y, tuple(str(label) for label in classes)


def checked(
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
    check_finite(X, "X", source)
    check_finite(Y, "Y", source)
    return Dataset(X, Y, name, description, feature_names, target_names)


def _as_numbers(array: np.ndarray, letter: str, source: str) -> np.ndarray:
    if array.dtype.kind not in "biuf":
        raise DataError(f"Array `{letter}` of {source} must hold real numbers, but has dtype {array.dtype}.")
    # A long double beyond the range of float64 becomes infinite, which the check that follows reports.
    with np.errstate(over="ignore"):
        return np.array(array, np.float64)


def check_finite(
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
    verb = "is" if len(bad) == 1 else "are"
    raise DataError(
        f"Array `{letter}` of {source} must be finite, but {len(bad)} of its entries {verb} not: the first is "
        f"{array[row, column]} in row {row}, column {column}, counted from 0{named}."
    )
