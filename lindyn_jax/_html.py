"""What objects show of themselves in a notebook: a heading, lines, and a short table, all of it escaped."""

import inspect
from collections.abc import Sequence
from html import escape
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ._checks import is_traced


def card(heading: str, lines: Sequence[str], columns: Sequence[str] = (), rows: Sequence[Sequence[str]] = ()) -> str:
    """A heading, lines below it, and a table without its empty columns, as HTML that needs no style sheet."""
    cell = "style='text-align: left; vertical-align: top'"
    told = [place for place in range(len(columns)) if any(row[place] for row in rows)]
    columns, *rows = ([row[place] for place in told] for row in (columns, *rows))
    head = "".join(f"<th {cell}>{escape(text)}</th>" for text in columns)
    body = "".join(f"<tr>{''.join(f'<td {cell}>{escape(text)}</td>' for text in row)}</tr>" for row in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if rows else ""
    return f"<div><b>{escape(heading)}</b>{''.join(f'<br>{escape(line)}' for line in lines)}{table}</div>"


def number(value: Any) -> str:
    """A number in six digits, or a few of them; nothing for what is more, or no number."""
    if not eqx.is_array_like(value) or is_traced(value) or np.ndim(value) > 1 or np.size(value) > 6:
        return ""
    if np.ndim(value):
        return f"[{', '.join(map(number, np.asarray(value)))}]"
    return f"{value:.6g}" if np.asarray(value).dtype.kind == "f" else str(np.asarray(value).item())


def laid_out(value: Any) -> str:
    """Dtype and shape of an array, or the type of what is none."""
    if not eqx.is_array_like(value):
        return type(value).__name__
    array = value if hasattr(value, "dtype") else np.asarray(value)
    return f"{array.dtype}{list(array.shape)}" if array.ndim else str(array.dtype)


def arrays_of(tree: Any) -> list[tuple[str, str, str]]:
    """A row for each array that an object was made of: name, dtype and shape, and its value or, of more numbers, its norm."""
    rows, given = [], inspect.signature(type(tree).__init__).parameters
    leaves = [(keys, leaf) for keys, leaf in jax.tree_util.tree_leaves_with_path(tree) if eqx.is_array(leaf)]
    # What is worked out of these is not shown, unless nothing else is there.
    made_of = [(keys, leaf) for keys, leaf in leaves if getattr(keys[0], "name", "") in given] or leaves
    for keys, leaf in made_of:
        many = np.ndim(leaf) > 0 and not is_traced(leaf)
        size = f"norm {np.linalg.norm(np.asarray(leaf).ravel()):.6g}" if many else number(leaf)
        rows.append((jax.tree_util.keystr(keys).removeprefix("."), laid_out(leaf), size))
    return rows
