"""Tables: csv files with a header, whose target columns the user names.

Spreadsheets write them with other separators, decimal commas and encodings. What a file is follows from the file alone: the one
separator with which every row has as many cells as the header, a comma within cells only where no cell has a point. A file with
two readings is refused.
"""

import codecs
import csv
import difflib
import io
import os
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ._common import DataError, Dataset, check_finite, checked, decoded, listed, one_hot, read_bytes

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "spaces"}
# What spreadsheets, R and pandas write where there is no value.
MISSING = {"", "#N/A", "#NA", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null", "-nan", "-NaN", "."}
# Bytes that Windows-1252 leaves undefined, and the one of broken byte-order marks.
_NO_LETTERS = {0x81, 0x8D, 0x8F, 0x90, 0x9D, 0xFF}
_COMMA = re.compile(r"[+-]?(\d+,\d*|,\d+)([eE][+-]?\d+)?")
_POINT = re.compile(r"[+-]?(\d+\.\d*|\.\d+)([eE][+-]?\d+)?")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")


class _Table(NamedTuple):
    """A csv as it was read. **Fields:** `header`; `columns`, the cells of each; `lines`, the line of the file on which each row
    ends; `notes`, how it was read where that is not the usual way."""

    header: list[str]
    columns: dict[str, list[str]]
    lines: list[int]
    notes: list[str]


def read_csv(path: str, targets: str | Sequence[str] | None) -> Dataset:
    header, columns, lines, notes = _read_table(path)
    names = _target_names(path, header, targets)
    targeted = set(names)
    features = [name for name in header if name not in targeted]
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
        described = f"column{'' if len(names) == 1 else 's'} {listed(names).replace('`', '')}"
    for array, labels in ((X, features), (Y, target_names)):
        check_finite(array, "X" if array is X else "Y", f"file `{path}`", labels, lines)
    return checked(
        X,
        Y,
        source=f"file `{path}`",
        name=os.path.basename(path),
        description=f"csv table{''.join(f', {note}' for note in notes)}; targets: {described}",
        feature_names=tuple(features),
        target_names=target_names,
    )


def _read_table(path: str) -> _Table:
    text, encoding = _decoded_text(path, read_bytes(path))
    notes = [] if encoding == "utf-8" else [f"read as {encoding}"]
    separator, text, skipped = _stated_separator(path, text)
    if separator is None:
        separator = _found_separator(path, text)
    if separator != ",":
        notes.append(f"{SEPARATORS.get(separator, repr(separator))} between cells")
    rows, lines = _rows(path, text, separator)
    lines = [line + skipped for line in lines]
    if not rows:
        raise DataError(f"File `{path}` is empty: its first line must name the columns.")
    header, rows, lines = rows[0], rows[1:], lines[1:]
    if all(map(_is_number, header)) or all(cell != "" and _COMMA.fullmatch(cell) for cell in header):
        raise DataError(f"File `{path}` has no header: its first line must name the columns, but holds only numbers.")
    if "" in header:
        raise DataError(
            f"File `{path}` does not name its column {header.index('') + 1}: name it in the header or remove it."
        )
    repeated = sorted(name for name, count in Counter(header).items() if count > 1)
    if repeated:
        raise DataError(f"File `{path}` has more than one column named {listed(repeated)}.")
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(header):
            raise DataError(
                f"File `{path}` must have {len(header)} cells in each row, as in its header, but line {line} has {len(row)}."
            )
    if not rows:
        raise DataError(f"File `{path}` is empty: it has a header, but no rows.")
    rows, commas = _with_points(path, rows, lines)
    notes += ["decimal commas"] * commas
    return _Table(header, dict(zip(header, map(list, zip(*rows, strict=True)), strict=True)), lines, notes)


def _decoded_text(path: str, raw: bytes) -> tuple[str, str]:
    """The text of a file and its encoding: by its byte-order mark, by its zero bytes, UTF-8 if it is that, Windows-1252 else."""
    marks = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"}
    marks |= {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
    encoding = next((name for mark, name in marks.items() if raw.startswith(mark)), None)
    if encoding is None and b"\0" in raw[:4096]:
        # Letters of the alphabet have a zero byte in UTF-16: the second one in little-endian order, else the first.
        even, odd = raw[:4096:2].count(0), raw[1:4096:2].count(0)
        if min(even, odd) * 10 > max(even, odd):
            raise DataError(f"File `{path}` cannot be read as csv: it holds zero bytes and is no text.")
        encoding = "utf-16-le" if odd > even else "utf-16-be"
    if encoding is None:
        try:
            text, encoding = raw.decode("utf-8"), "utf-8"
        except UnicodeDecodeError:
            # All other bytes are letters in it; a wrong one in a name is shown and stored, but changes no number.
            if set(raw) & _NO_LETTERS:
                decoded(path, "a csv file in UTF-8", lambda: raw.decode("utf-8"))
            text, encoding = raw.decode("cp1252"), "latin-1 (Windows-1252)"
    else:
        codec = "utf-8-sig" if encoding == "utf-8" else encoding
        text = decoded(path, f"a csv file in {encoding.upper()}", lambda: raw.decode(codec)).removeprefix("\ufeff")
    if any(letter < " " and letter not in "\t\n\r\f\v" for letter in set(text[:65536]) - {"\x1b"}):
        raise DataError(f"File `{path}` cannot be read as csv: it holds control characters and is no text.")
    return text, encoding


def _stated_separator(path: str, text: str) -> tuple[str | None, str, int]:
    """The separator of a first line `sep=;`, the text behind that line, and how many lines were taken."""
    first, _, rest = text.partition("\n")
    stated = re.fullmatch(r'"?sep=(.*?)"?', first.rstrip("\r"), re.IGNORECASE)
    if stated is None:
        return None, text, 0
    separator = {"\\t": "\t"}.get(stated[1], stated[1])
    if len(separator) != 1 or separator in '\r\n"' or separator.isalnum():
        raise DataError(
            f"File `{path}` states its separator as {separator!r}: it must be one character other than a letter or a digit."
        )
    return separator, rest, 1


def _found_separator(path: str, text: str) -> str:
    """The separator with which every row has as many cells as the header, and more than one."""
    fitting = []
    first = next((line for line in text.splitlines() if line.strip()), "")
    present = [separator for separator in SEPARATORS if separator in first]
    for separator in present:
        try:
            rows, _ = _rows(path, text, separator)
        except DataError:
            continue
        if rows and len(rows[0]) > 1 and len({len(row) for row in rows}) == 1:
            fitting.append((separator, rows))
    if len(fitting) > 1:
        # Between words a space is no separator while another one fits, and the right one leaves numbers in the cells.
        fitting = [(separator, rows) for separator, rows in fitting if separator != " "]
        count = {separator: sum(_is_number(cell) for row in rows[1:] for cell in row) for separator, rows in fitting}
        fitting = [(separator, rows) for separator, rows in fitting if count[separator] == max(count.values())]
    if len(fitting) > 1:
        names = " or ".join(SEPARATORS[separator] for separator, _ in fitting)
        raise DataError(
            f"File `{path}` can be read with {names} between cells: say which by a first line such as `sep=;`."
        )
    if fitting:
        return fitting[0][0]
    # None fits: what is wrong is said of the one that the header has most of.
    return max(present, key=lambda separator: (separator != " ", first.count(separator)), default=",")


def _rows(path: str, text: str, separator: str) -> tuple[list[list[str]], list[int]]:
    """The cells of every row, and the line on which it ends."""
    if separator == " ":
        text = "\n".join(re.sub("[ \t]+", " ", line.strip()) for line in text.splitlines())
    reader = csv.reader(
        io.StringIO(text, newline=""), strict=True, delimiter=separator, skipinitialspace=separator != "\t"
    )
    rows, lines = [], []
    try:
        for row in reader:
            if row and not (len(row) == 1 and not row[0].strip()):
                rows.append([cell.strip() for cell in row])
                lines.append(reader.line_num)
    except csv.Error as error:
        raise DataError(
            f"File `{path}` cannot be read as csv: line {reader.line_num} is malformed ({error})."
        ) from error
    return rows, lines


def _with_points(path: str, rows: list[list[str]], lines: list[int]) -> tuple[list[list[str]], bool]:
    """The rows with decimal points in place of decimal commas, and whether there were any."""
    commas = [(cell, line) for row, line in zip(rows, lines, strict=True) for cell in row if "," in cell]
    commas = [(cell, line) for cell, line in commas if _COMMA.fullmatch(cell) or _THOUSANDS.fullmatch(cell)]
    if not commas:
        return rows, False
    cell, line = commas[0]
    point = next((cell for row in rows for cell in row if "." in cell and _POINT.fullmatch(cell)), None)
    if point is not None:
        raise DataError(
            f"File `{path}` holds {cell!r} in line {line} and {point!r} elsewhere: write numbers with points, and without "
            "separators of thousands."
        )
    if all(_THOUSANDS.fullmatch(cell) for cell, _ in commas):
        raise DataError(
            f"File `{path}` holds {cell!r} in line {line}, whose comma may be of decimals or of thousands: write numbers with "
            "points, and without separators of thousands."
        )
    return [[cell.replace(",", ".") if _COMMA.fullmatch(cell) else cell for cell in row] for row in rows], True


def _target_names(path: str, header: list[str], targets: str | Sequence[str] | None) -> list[str]:
    columns = listed(header)
    if isinstance(targets, str):
        # A column whose name has a comma in it can still be named alone.
        targets = [targets] if targets in header else targets.split(",")
    names = [name.strip() for name in targets or () if name.strip()]
    if not names:
        raise DataError(f"File `{path}` needs `targets`, the names of its target columns, out of {columns}.")
    known, counts = set(header), Counter(names)
    for name in names:
        if name not in known:
            # Names that go on, with a unit for instance, before those that are alike.
            close = [column for column in header if column.lower().startswith(name.lower())]
            close = close or difflib.get_close_matches(name, header, n=1)
            suggestion = f"did you mean `{close[0]}`? " if close else ""
            raise DataError(
                f"File `{path}` has no column `{name}` to be a target: {suggestion}{'Its' if close else 'its'} columns are "
                f"{columns}."
            )
        if counts[name] > 1:
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
    for cell, line in zip(cells, lines, strict=True):
        if cell == "":
            raise DataError(
                f"File `{path}` has an empty cell in column `{name}`, line {line}: leave out the row, or fill it in."
            )
        # NaN that Python reads as a number is reported as such.
        if cell in MISSING and not _is_number(cell):
            raise DataError(
                f"File `{path}` has no value in column `{name}`, line {line}, which holds {cell!r}: leave out the row, or write "
                "another word if it is one."
            )
    return cells


def _numbers(cells: list[str], name: str, path: str, lines: list[int], hint: str = "") -> np.ndarray:
    for cell, line in zip(_filled(cells, name, path, lines), lines, strict=True):
        if not _is_number(cell):
            hint = hint or ": leave the column out, turn it into numbers, or name it in `targets` if it holds labels"
            raise DataError(
                f"Column `{name}` of file `{path}` must hold numbers, but line {line} holds {cell!r}{hint}."
            )
    return np.array([float(cell) for cell in cells])
