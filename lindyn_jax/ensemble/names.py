"""What a store may hold: names, dimensions and dtypes of variables, and the files they lie in."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from .._checks import is_name

TRIAL = "trial"
CHUNK = "chunk"
COMPLETE = "chunk_complete"
REDUCED = "reduced"
STOPPED = "stopped_early"
COMPUTED = "computed"
COUNT = "trials_computed"
ROOT = "zarr.json"
# The attribute of a variable that holds names of places on its own axes, as JSON.
AXES = "axes"
# What coordinates of these names are, unless a study says it.
COORDINATES = {
    "width": {"long_name": "hidden width $h$", "units": "1"},
    "alpha": {"long_name": "exponent $\\alpha$ of a start with entries $N(0, h^{-2\\alpha})$", "units": "1"},
    "lambda0": {"long_name": "homogeneous imbalance $\\lambda_0$", "units": "those of the product of the layers"},
    TRIAL: {"long_name": "trial, the number in its key", "units": "1"},
}
# Dimensions of the two records.
_ENTRY, _STOP = f"{COMPLETE}_entry", f"{STOPPED}_entry"
RESERVED = (TRIAL, CHUNK, COMPLETE, REDUCED, STOPPED, COMPUTED, COUNT, _ENTRY, _STOP)


class Variable(NamedTuple):
    """How one variable is laid out: dimension names, shape, dtype and attributes (units, convention)."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype
    attributes: dict[str, Any]


def check_names(
    variables: Mapping[str, Variable], coordinates: Mapping[str, Any], reduced: Mapping[str, Variable]
) -> None:
    """Refuses names that a store cannot hold beside one another, and dtypes that it cannot hold.

    **Args:** as for `SweepStore.prepare`.

    **Raises:** `ValueError`.
    """
    grid = [name for name in coordinates if name != TRIAL]
    for kind, group in (("Grid coordinate", grid), ("Output", variables), ("Reduction", reduced)):
        for name in group:
            check_name(name, kind)
    for kind, group in (("Output", variables), ("Reduction", reduced)):
        sizes: dict[str, int] = {}
        for name, variable in group.items():
            if variable.dtype.kind not in "biufc":
                raise ValueError(f"{kind} `{name}` has dtype {variable.dtype}, which is none that a store can hold.")
            if 0 in variable.shape:
                raise ValueError(f"{kind} `{name}` has shape {variable.shape}: there is nothing in it to keep.")
            if len(set(variable.dims)) < len(variable.dims):
                raise ValueError(
                    f"{kind} `{name}` has a dimension twice, {variable.dims}: give its own axes other names."
                )
            for dim, size in zip(variable.dims, variable.shape, strict=True):
                if dim not in (*coordinates, TRIAL):
                    check_name(dim, f"A dimension of {kind.lower()} `{name}`")
                if sizes.setdefault(dim, size) != size:
                    raise ValueError(
                        f"Dimension `{dim}` has length {size} in {kind.lower()} `{name}` and {sizes[dim]} in another: give one "
                        "of them another name."
                    )
        for name in group:
            if name in sizes or name in coordinates:
                raise ValueError(
                    f"{kind} `{name}` has the name of a dimension or grid coordinate: give it another one."
                )


def check_name(name: Any, kind: str) -> None:
    """Refuses what cannot be the name of a variable or dimension in a store, for it is no name of a folder or is taken."""
    if not is_name(name):
        raise ValueError(f"{kind} must have a text for a name, but has {name!r}.")
    if name in RESERVED:
        raise ValueError(f"{kind} may not be called `{name}`, which a store uses itself: give it another name.")
    if (
        not name.isprintable()
        or not name
        or name.startswith("__")
        or name in (".", "..", ROOT)
        or set(name) & {"/", "\\"}
    ):
        raise ValueError(
            f"{kind} may not be called {name!r}: names are those of folders, without slashes, and do not begin with `__`."
        )
    if len(name.encode(errors="surrogatepass")) > 200:
        raise ValueError(f"{kind} `{name[:40]}...` has a name of more than 200 bytes: give it a shorter one.")


def layout_of(variables: Mapping[str, Variable], reduced: Mapping[str, Variable]) -> dict[str, Any]:
    return {
        group: {
            name: {"dims": list(v.dims), "shape": [int(size) for size in v.shape], "dtype": str(np.dtype(v.dtype))}
            for name, v in named.items()
        }
        for group, named in (("variables", variables), ("reduced", reduced))
    }


def laid_out(entry: Mapping[str, Any] | None) -> str:
    return "missing" if entry is None else f"{entry['dtype']} ({', '.join(entry['dims'])}) {tuple(entry['shape'])}"


def files_of(layout: Mapping[str, Any], index: int) -> list[str]:
    """The files of a chunk."""
    own = [
        "/".join((name, "c", *(str(index if dim == TRIAL else 0) for dim in entry["dims"])))
        for name, entry in layout["variables"].items()
    ]
    return own + [
        "/".join((REDUCED, name, "c", str(index), *("0" for _ in entry["dims"])))
        for name, entry in layout["reduced"].items()
    ]


def fill_of(dtype: np.dtype):
    if np.issubdtype(dtype, np.floating):
        return np.nan
    return False if np.issubdtype(dtype, np.bool_) else 0
