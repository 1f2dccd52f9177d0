"""Tables: csv files with a header, whose target columns the user names."""

import csv
import difflib
import io
import os
from collections.abc import Sequence

import numpy as np

from ._common import DataError, Dataset, check_finite, checked, decoded, one_hot, read_bytes


def read_csv(path: str, targets: str | Sequence[str] | None) -> Dataset:
    header, columns, lines = _read_table(path)
    names = _target_names(path, header, targets)
    features = [name for name in header if name not in names]
    if not features:
        raise DataError(f"File `{path}` has no columns left to be features: `targets` names all {len(header)} of them.")
    X = np.stack([_numbers(columns[name], name, path, lines) for name in features], axis=1)
    target_names = tuple(names)
    if len(names) == 1 and not any(map(_is_number, columns[names[0]])):
        labels = _filled(columns[names[0]], names[0], path, lines)
        Y, target_names = one_hot(np.array(labels))
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
        check_finite(array, "X" if array is X else "Y", f"file `{path}`", labels, lines)
    return checked(
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
    raw = read_bytes(path)
    # Spreadsheets put a byte-order mark in front, which would become part of the first column's name.
    text = decoded(path, "a csv file in UTF-8", lambda: raw.decode("utf-8-sig"))
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
