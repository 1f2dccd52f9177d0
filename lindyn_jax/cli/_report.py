"""`--html`: what a command printed, its pictures, settings and how to repeat it, as one page that needs nothing else.

The tables are those that are printed, and all numbers those of `--json`: nothing is computed or worded here.
"""

import base64
import itertools
import json
import math
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from .. import _files
from .._text import on_one_line
from . import _output

# What is known again, and may be written over.
MARK = '<meta name="generator" content="lindyn-jax report">'
# Beyond, a page is not read any more, and the numbers are elsewhere.
MOST_CELLS = 100_000
STYLE = Path(__file__).with_name("_report.css")


class Section(NamedTuple):
    """A part of a report.

    **Fields:** `heading`; `parts`, tables and sentences as they are printed; `pictures`, paths of images, of which those in PNG
    are shown.
    """

    heading: str
    parts: Sequence[Any]
    pictures: Sequence[Path] = ()


def check(path: Path | None) -> None:
    """Refuses, before anything is computed, a file that cannot be written or that is no report."""
    if path is None:
        return
    if path.is_dir():
        raise ValueError(f"{path} is a folder: choose another --html.")
    if not (path.absolute().parent.is_dir() and os.access(path.absolute().parent, os.W_OK)):
        raise ValueError(
            f"{path} cannot be made, for its folder is not there or not to be written to: choose another --html."
        )
    if path.exists() and MARK.encode() not in path.read_bytes()[:1000]:
        raise ValueError(f"{path} is there and is no report: choose another --html.")


def save(
    path: Path | None,
    title: str,
    sections: Sequence[Section],
    values: Any,
    *,
    facts: Sequence[tuple[str, str]] = (),
    known: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Writes the report, where one is asked for.

    **Args:** `path`, of the file, or `None`; `title`; `sections`; `values`, as `--json` prints them; `facts`, lines of a word and
    a text, such as the state; `known`, attributes that hold `settings` and `environment`, as JSON or as dictionaries.

    **Returns:** the paths of what was written.
    """
    if path is None:
        return []
    known = {name: _decoded(value) for name, value in (known or {}).items() if name in ("settings", "environment")}
    settings = known.get("settings", {})
    facts = [*facts, *_machine(known.get("environment", {}))]
    numbers = "".join(_numbers(values))
    wide = any(len(getattr(part, "columns", ())) > 9 for section in sections for part in section.parts)
    text = json.dumps(values, indent=1)
    link = f"data:application/json;base64,{base64.b64encode(text.encode()).decode()}"
    body = [
        f"<h1>{_text(title)}</h1>",
        _facts([*facts, ("written", time.strftime("%Y-%m-%d %H:%M:%S %z"))]),
        *(_section(section) for section in sections),
        "<section><h2>How to repeat it</h2>",
        f"<pre><code>{' '.join(f'<span>{_text(word)}</span>' for word in command())}</code></pre></section>",
        _settings(settings),
        f"<section class='all'><h2>All numbers</h2><p><a download='numbers.json' href='{link}'>Download them as JSON</a></p>",
        f"<details><summary>Show them in all digits</summary>{numbers}</details></section>",
    ]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    page = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">{MARK}'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{_text(title)}</title>'
        f"<style>{STYLE.read_text()}{'@page { size: landscape }' if wide else ''}</style></head>\n"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )
    _files.put(path, page.encode(errors="backslashreplace"))
    return [path]


def command() -> list[str]:
    """The words that were typed, as a shell takes them."""
    program = Path(sys.argv[0]).name
    name = ["lindyn-jax"] if program in ("__main__.py", "lindyn-jax") else ["python", program]
    return list(map(shlex.quote, [*name, *sys.argv[1:]]))


def state_of(done: int, wanted: int, stopped: int, failed: int | None = None) -> tuple[str, str]:
    """The line about what is there."""
    complete = "complete" if done == wanted else "stopped early, as asked" if stopped else "not finished"
    counted = "" if failed is None else f"; {failed or 'none'} failed" + (" and left out" if failed else "")
    return "state", f"{complete}: {done} of {wanted} trials a point{counted}"


def failed_of(dataset) -> int | None:
    """Trials that failed, over the whole grid, where a dataset holds them one by one."""
    if "ok" not in dataset or "trial" not in dataset.dims:
        return None
    ok = dataset["ok"].astype(bool)
    return int((~ok & dataset["computed"]).sum() if "computed" in dataset.coords else (~ok).sum())


def machine() -> dict[str, Any]:
    """Versions and devices, as `known` holds them, of what has no dataset."""
    from ..ensemble import describe_environment
    from ._common import configure

    configure()
    return {"environment": describe_environment()}


def made_by(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The line about the command of this package that made a store."""
    from ._app import COMMANDS

    name = settings.get("study", "").replace("_", "-")
    found = [path for path in COMMANDS if path.split()[-1] == name]
    return [("made by", f"lindyn-jax {path}, with the settings below") for path in found]


def _text(text: object) -> str:
    return escape(on_one_line(str(text)))


def _decoded(value: Any) -> Any:
    match value:
        case str():
            return json.loads(value)
        case _:
            return value


def _facts(rows: Sequence[tuple[str, str]]) -> str:
    return f"<dl>{''.join(f'<dt>{_text(name)}</dt><dd>{_text(text)}</dd>' for name, text in rows)}</dl>"


def _machine(environment: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if environment:
        versions = environment["versions"]
        yield "versions", ", ".join(f"{package} {version}" for package, version in versions.items())
        yield "device", f"{environment['devices']} x {environment['device']} ({environment['backend']})"
        yield "precision", f"{environment['float']}; matmul precision {environment['matmul_precision']}"


def _settings(settings: Mapping[str, Any]) -> str:
    """Settings; how trials are reduced is for those who ask."""
    if not settings:
        return ""
    kept = settings.get("reductions", {})
    more = (
        f"<details><summary>What is kept of the trials</summary>{_facts(_flat(kept, 'none'))}</details>" if kept else ""
    )
    rest = {name: value for name, value in settings.items() if name != "reductions"}
    return f"<section><h2>Settings</h2>{_facts(_flat(rest, 'none'))}{more}</section>"


def _section(section: Section) -> str:
    shown = []
    for part in section.parts:
        match part:
            case str():
                shown.append(f"<p>{_text(part)}</p>")
            case _:
                shown.append(_table(part.title, part.columns, part.rows, part.words))
    for path in section.pictures:
        if path.suffix == ".png":
            data = base64.b64encode(path.read_bytes()).decode()
            image = f'<img src="data:image/png;base64,{data}" alt="{_text(f"Picture: {section.heading}")}">'
            shown.append(f'<figure class="wide" tabindex="0">{image}</figure>')
    return f"<section><h2>{_text(section.heading)}</h2>{''.join(shown)}</section>"


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str] | None], words: Sequence[str] = ()) -> str:
    left = [name in words for name in columns]

    def row(tag: str, cells: Sequence[str]) -> str:
        looks = (' class="word"' if word else "" for word in left)
        return f"<tr>{''.join(f'<{tag}{look}>{_text(cell)}</{tag}>' for cell, look in zip(cells, looks, strict=True))}</tr>"

    bodies = [list(group) for none, group in itertools.groupby(rows, lambda cells: cells is None) if not none]
    body = "".join(f"<tbody>{''.join(row('td', cells or ()) for cells in group)}</tbody>" for group in bodies)
    caption = f"<caption><span>{_text(title)}</span></caption>"
    return (
        f'<div class="wide" tabindex="0" role="group" aria-label="{_text(title)}"><table>{caption}'
        f"<thead>{row('th', columns)}</thead>{body}</table></div>"
    )


def _cell(value: Any, absent: str = "not finite") -> str:
    match value:
        case list():
            return ", ".join(_cell(each, absent) for each in value) or "none"
        case None | True | False:
            return {True: "yes", False: "no", None: absent}[value]
        case str():
            return value
        case _:
            return json.dumps(value)


def _flat(values: Mapping[str, Any], absent: str = "not finite") -> list[tuple[str, str]]:
    """Names and values of nested dictionaries as texts; `absent`, what `None` stands for."""
    return [(name, _cell(value, absent)) for name, value in _output.flat(values, ".")]


def _numbers(values: Any) -> Iterator[str]:
    """Tables of all that `--json` prints: records, or arrays over the axes of a grid and what is beside them."""
    if type(values) is list:
        records = [dict(_flat(record)) for record in values]
        columns = list(dict.fromkeys(itertools.chain(*records)))
        yield _upright("", columns, [[record.get(name, "") for name in columns] for record in records], columns[:1])
        return
    dims = values.get("dims", {})
    axes = set(itertools.chain(*dims.values()))
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, own in dims.items():
        groups.setdefault(tuple(own), []).append(name)
    for own, names in groups.items():
        sizes = _sizes(values[names[0]], len(own))
        title = f"over {', '.join(own)}" if own else "of the whole"
        if math.prod(sizes) * (len(own) + len(names)) > MOST_CELLS:
            yield f"<p>{_text(f'{len(names)} x {math.prod(sizes)} numbers {title} are left out here: download them.')}</p>"
            continue
        rows = []
        for place in itertools.product(*map(range, sizes)):
            at = [values[axis][i] if axis in values else i for axis, i in zip(own, place, strict=True)]
            rows.append([_cell(x) for x in (*at, *(_entry(values[name], place) for name in names))])
        yield _upright(title, [*own, *names], rows)
    rest = {name: value for name, value in values.items() if name not in {"dims", *dims, *axes}}
    rows = _flat(rest)
    if rows:
        yield _table("besides", ["name", "value"], rows, ["name", "value"])


def _upright(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[str] = ()) -> str:
    """A table, turned where it has more columns than rows: few points of many numbers are read downwards."""
    if len(rows) >= len(columns):
        return _table(title, columns, rows, words)
    turned = list(map(list, zip(columns, *rows, strict=True)))
    return _table(title, ["number", *(f"{i + 1}" for i in range(len(rows)))], turned, ["number"])


def _sizes(value: Any, depth: int) -> tuple[int, ...]:
    return (len(value), *_sizes(value[0], depth - 1)) if depth else ()


def _entry(value: Any, place: tuple[int, ...]) -> Any:
    for index in place:
        value = value[index]
    return value
