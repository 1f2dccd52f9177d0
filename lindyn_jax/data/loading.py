"""What a user names becomes a data set: which reader, which rows, centred or not."""

import difflib
import os
from collections.abc import Sequence

import numpy as np

from .._public import public
from ._common import Count, DataError, Dataset, whole
from .arrays import read_npz, read_pair
from .bundled import BUNDLED, read_bundled
from .drawn import gaussian
from .semantic import semantic
from .tables import read_csv

# Made here, by name.
MADE = {"gaussian": gaussian, "semantic": semantic}
KNOWN = (*BUNDLED, *MADE)


@public
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
          one-hot targets, `"gaussian"` for `gaussian()` with its defaults, or `"semantic"`. A name goes before a file of that
          name: write `./digits` for the file;
        - `FILE.npz`, with arrays X, shape (N, n), and Y, shape (N, m) or (N,);
        - `FILE.csv` or `FILE.tsv`, with a header. Columns that `targets` does not name are features. Separators (comma,
          semicolon, tab, bar or spaces, or a first line `sep=;`), decimal commas and the encoding are found out, and what has
          two readings is refused;
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

    Example:

        >>> digits = ld.data.load("digits", samples=100, centre=True)
        >>> print(digits.X.shape, digits.Y.shape, ld.LeastSquares(digits.X, digits.Y).rank)
        (100, 64) (100, 10) 55
        >>> np.savez("mine.npz", X=np.eye(2), Y=[2.0, 1.0])
        >>> print(ld.data.load("mine.npz").Y.T)
        [[2. 1.]]
    """
    samples = None if samples is None else whole(samples, "samples", least=1)
    subset_seed = whole(subset_seed, "subset_seed", least=0)
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


def _read(spec: str | os.PathLike, targets: str | Sequence[str] | None) -> Dataset:
    text = os.fsdecode(spec)
    name = text.strip().lower().replace("_", "-")
    path = os.path.expanduser(text)
    is_csv = path.lower().endswith((".csv", ".tsv"))
    # A path of that name is a file.
    known = text == spec and name in KNOWN
    if targets is not None and not is_csv:
        raise DataError(f"Argument `targets` names columns of a csv file, but the data are `{text}`: leave it out.")
    if known:
        return MADE[name]() if name in MADE else read_bundled(name)
    if os.path.isdir(path):
        raise DataError(f"`{text}` is a folder: name a file in it.")
    if os.path.exists(path):
        if is_csv:
            return read_csv(path, targets)
        if path.lower().endswith(".npz"):
            return read_npz(path)
        raise DataError(
            f"File `{text}` is neither .npz nor .csv: name one of these, or two npy or IDX files with a comma between "
            "them, such as `X.npy,Y.npy`."
        )
    if "," in text:
        return read_pair(text)
    if os.sep in text or os.path.splitext(text)[1]:
        raise DataError(f"File `{text}` does not exist.")
    raise unknown(text)


def unknown(text: str, names: Sequence[str] = KNOWN) -> DataError:
    """What is said of a word that is none of the names."""
    close = difflib.get_close_matches(text.strip().lower().replace("_", "-"), names, n=1)
    suggestion = f"did you mean `{close[0]}`? The known names are" if close else "the known names are"
    return DataError(f"`{text}` is neither a known name nor a file: {suggestion} {', '.join(names)}.")
