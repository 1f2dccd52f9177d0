"""`--json` and `--csv`: the same rows, and in JSON the version and the settings that they belong to, for every command alike."""

import csv
import io
import itertools
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import _files
from . import _tables

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON instead of a table: version, settings, rows and what else there is.")
]
CsvOption = Annotated[
    Path | None,
    typer.Option("--csv", help="Write the rows as CSV too, in all digits; - prints them.", show_default="no CSV"),
]


def check(csv_: Path | None, json_: bool) -> None:
    """Refuses, before anything is computed, what cannot be written."""
    if csv_ is None:
        return
    if str(csv_) == "-":
        if json_:
            raise ValueError("Options --json and --csv - both print: leave out one of them, or give --csv a file.")
    else:
        check_file(csv_, "--csv")


def check_file(path: Path, option: str) -> None:
    """Refuses a file that cannot be made."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder: choose another {option}.")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"{path} cannot be made, for its folder is not there: choose another {option}.")


def told(command: str, settings: Mapping[str, Any], rows: Iterable[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    """What `--json` prints. **Args:** `more`, further entries of this command."""
    from .. import __version__

    known = {"command": command, "version": __version__, "settings": dict(settings), "rows": list(rows), **more}
    # JSON has no number for what is not finite.
    return json.loads(json.dumps(known), parse_constant=lambda constant: None)


def show(console, known: Mapping[str, Any], parts: Sequence[Any], json_: bool, csv_: Path | None) -> bool:
    """Prints JSON, CSV or tables, and writes CSV where it is asked for; whether it was tables."""
    for file in file_of(csv_):
        _files.put(file, as_csv(known["rows"]).encode(errors="backslashreplace"))
    if json_:
        print(json.dumps(known, indent=1))
    elif csv_ is not None and str(csv_) == "-":
        sys.stdout.write(as_csv(known["rows"]))
    else:
        _tables.show(console, parts)
        return True
    return False


def file_of(csv_: Path | None) -> list[Path]:
    """The file of `--csv`, where it is one."""
    return [] if csv_ is None or str(csv_) == "-" else [csv_]


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with a column for each name; entries of dictionaries have their own, lists are JSON, and what is missing is empty."""
    records = [dict(flat(row)) for row in rows]
    names = list(dict.fromkeys(itertools.chain(*records)))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerows([names, *([_cell(row.get(name)) for name in names] for row in records)])
    return file.getvalue()


def flat(row: Mapping[str, Any], between: str = "_", before: str = "") -> Iterable[tuple[str, Any]]:
    """Names and values of nested dictionaries."""
    for name, value in row.items():
        match value:
            case dict():
                yield from flat(value, between, f"{before}{name}{between}")
            case _:
                yield f"{before}{name}", value


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case _:
            return json.dumps(value)


def rows_of(summary, axes: Sequence[str]) -> list[dict[str, Any]]:
    """A dataset as one row for each point of some axes.

    Further axes have a column for each of their names, or for each number from 1 where they have none; what lies on another
    axis of numbers, such as curves over time, is left out.
    """
    import numpy as np

    axes = [axis for axis in axes if axis in summary.dims]
    columns: dict[str, tuple[list[str], Any]] = {}
    for name, array in {**summary.coords, **summary.data_vars}.items():
        own, extra = ([dim for dim in array.dims if (dim in axes) == among] for among in (True, False))
        if any(dim in summary.coords and summary[dim].dtype.kind not in "UOST" for dim in extra) or name in extra:
            continue
        values = array.transpose(*own, *extra).values
        labels = [summary[dim].values if dim in summary.coords else range(1, array.sizes[dim] + 1) for dim in extra]
        for place in np.ndindex(*(array.sizes[dim] for dim in extra)):
            words = (str(label[i]) for label, i in zip(labels, place, strict=True))
            columns["_".join((str(name), *words))] = (own, values[(..., *place)])
    return [
        {
            name: np.asarray(values[tuple(place[axes.index(dim)] for dim in own)]).item()
            for name, (own, values) in columns.items()
        }
        for place in np.ndindex(*(summary.sizes[axis] for axis in axes))
    ]
