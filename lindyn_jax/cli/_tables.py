"""Tables and sentences as lines of a given width: no number is cut, and every part of a table begins with its key columns."""

import itertools
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from .._text import on_one_line

if TYPE_CHECKING:
    from ..studies.study import Table

# Of what is no terminal, where COLUMNS says nothing.
WIDTH = 100
# Columns of words are made no narrower than this.
SHORT = 20


def width_of(stream) -> int:
    """The columns of a terminal; of what is none those that COLUMNS says, or 100."""
    if stream.isatty():
        return max(20, shutil.get_terminal_size((WIDTH, 24)).columns)
    text = os.environ.get("COLUMNS", "")
    return max(20, int(text)) if text.isascii() and text.isdigit() else WIDTH


def show(console, parts: Iterable["Table | str"]) -> None:
    """Prints tables and sentences on a console, as wide as it is."""
    rule = "─" if console.encoding.startswith("utf") else "-"
    for part in parts:
        match part:
            case str():
                say(console, on_one_line(part))
            case _:
                for line, head in lines_of(part, console.width, rule):
                    console.print(line, style="bold" if head else None, soft_wrap=True)


def say(console, text: str, indent: int = 0) -> None:
    """Prints a sentence."""
    for line in fitted(text, console, indent):
        console.print(line, soft_wrap=True)


def fitted(text: str, console, indent: int = 0) -> list[str]:
    """A sentence as lines for a terminal, or for the width that COLUMNS asks for; in a pipe it stays one line, to be searched."""
    return wrapped(text, console.width, indent) if console.is_terminal or "COLUMNS" in os.environ else [text]


def wrapped(text: str, width: int, indent: int = 0) -> list[str]:
    """`text` as lines that end between words, those after the first indented; a longer word (a path) has a line of its own."""
    first, *words = text.lstrip(" ").split(" ")
    lines, line = [], " " * (len(text) - len(text.lstrip(" "))) + first
    for word in words:
        longer = f"{line} {word}" if line.strip() else line + word
        if line.strip() and _size(longer) > width:
            lines.append(line.rstrip(" "))
            longer = " " * indent + word
        line = longer
    return [*lines, line]


def lines_of(table: "Table", width: int, rule: str = "─") -> Iterator[tuple[str, bool]]:
    """A table as lines of at most `width` columns, each with whether it names columns.

    Where it is wider, columns of words are made narrow; then it is printed in parts that begin with the key columns; and where
    those leave no room for any other, or there is one row alone, row for row, with a line for each column.
    """
    words = [name in table.words for name in table.columns]
    rows = [None if row is None else [on_one_line(str(cell)) for cell in row] for row in table.rows]
    # A table ends with an empty line as it is.
    while rows and rows[-1] is None:
        rows.pop()
    filled = [row for row in rows if row is not None]
    for line in ["", *wrapped(on_one_line(table.title), width), ""] if table.title else [""]:
        yield line, False
    heads = [on_one_line(name) for name in table.columns]
    natural = [max(map(_size, (head, *cells))) for head, *cells in zip(heads, *filled, strict=True)]
    least = [
        _least(head, cells, word) for (head, *cells), word in zip(zip(heads, *filled, strict=True), words, strict=True)
    ]
    gap = 1 if table.tight and sum(natural) + 2 * (len(natural) - 1) > width else 2
    keys = list(range(table.named))
    parts = _parts(natural, least, words, keys, gap, width)
    if parts is None or (len(parts) > 1 and len(filled) == 1):
        yield from ((line, False) for line in _sideways(heads, filled, width))
        return
    for index, (part, sizes) in enumerate(parts):
        left = [words[i] for i in part]
        if index:
            yield "", False
        yield from ((line, True) for line in _joined([heads[i] for i in part], sizes, left, gap, bottom=True))
        yield rule * (sum(sizes) + gap * (len(sizes) - 1)), False
        for row in rows:
            lines = [""] if row is None else _joined([row[i] for i in part], sizes, left, gap)
            yield from ((line, False) for line in lines)
    yield "", False


def _size(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def _least(head: str, cells: Sequence[str], word: bool) -> int:
    """How narrow a column can be: heads and cells of words are broken, numbers are not."""
    named = min(max(map(_size, head.split(" "))), SHORT)
    if not word:
        return max(named, *map(_size, cells), 0)
    numbers = (_size(part) for cell in cells for part in cell.split(" ") if _is_number(part))
    return max(named, min(SHORT, max(map(_size, cells), default=0)), max(numbers, default=0))


def _is_number(text: str) -> bool:
    try:
        float(text.strip("[](),"))
    except ValueError:
        return False
    return True


def _parts(natural, least, words, keys, gap, width) -> list[tuple[list[int], list[int]]] | None:
    """Columns and their sizes for each part; `None` where the key columns leave no room."""

    def room(part):
        return width - gap * (len(part) - 1)

    def fits(part):
        return sum(least[i] for i in part) <= room(part)

    others = [i for i in range(len(natural)) if i not in keys]
    if not fits(keys) or not all(fits([*keys, i]) for i in others):
        return None
    parts: list[list[int]] = []
    for i in others or keys:
        if parts and fits([*parts[-1], i]):
            parts[-1].append(i)
        else:
            parts.append([*keys, *([i] if others else [])])
    return [(part, _sizes(part, natural, least, words, keys, room(part))) for part in parts]


def _sizes(part, natural, least, words, keys, room) -> list[int]:
    """Each column as wide as it would like to be, as far as there is room: numbers, then keys, then words up to the same size."""

    def sizes(most: int, key: int) -> list[int]:
        limits = [(key if i in keys else most) if words[i] else natural[i] for i in part]
        return [max(least[i], min(natural[i], limit)) for i, limit in zip(part, limits, strict=True)]

    widest = max(natural)
    tried = itertools.chain(
        ((most, widest) for most in range(widest, 0, -1)), ((0, key) for key in range(widest, -1, -1))
    )
    # Heads of numbers are broken where that does not suffice.
    return next((found for found in itertools.starmap(sizes, tried) if sum(found) <= room), [least[i] for i in part])


def _joined(cells, sizes, left, gap, bottom: bool = False) -> Iterator[str]:
    """Cells side by side, each on as many lines as it needs; `bottom`, whether they stand on the last line."""
    blocks = [_broken(cell, size) for cell, size in zip(cells, sizes, strict=True)]
    most = max(map(len, blocks))
    blocks = [[""] * (most - len(block)) + block if bottom else block for block in blocks]
    for line in itertools.zip_longest(*blocks, fillvalue=""):
        padded = (
            text + " " * (size - _size(text)) if word else " " * (size - _size(text)) + text
            for text, size, word in zip(line, sizes, left, strict=True)
        )
        yield (" " * gap).join(padded).rstrip()


def _broken(text: str, size: int) -> list[str]:
    """A cell on lines of at most `size`; a longer word is broken after slashes and underscores, or anywhere if it has none."""
    from rich.cells import chop_cells

    lines = []
    for line in wrapped(text, size):
        begun = ""
        for part in re.split(r"(?<=[/_])", line):
            if begun and _size(begun + part) > size:
                lines += chop_cells(begun, size)
                begun = ""
            begun += part
        lines += chop_cells(begun, size) if _size(begun) > size else [begun]
    return lines


def _sideways(heads, rows, width) -> Iterator[str]:
    """Row for row, a line for each column: its name and the cell."""
    most = min(max(map(_size, heads)), width // 2)
    for row in rows:
        for head, cell in zip(heads, row, strict=True):
            yield from _joined([head, cell], [most, width - most - 2], [True, True], 2)
        yield ""
