"""`lindyn-jax show`, `export`, `compare` and `list`: what is in stores, whatever made them. Nothing is computed."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from .. import _files
from .._text import counted
from ..studies.study import Table
from . import _kept, _output, _report, _tables
from ._common import HtmlOption, as_json, consoles, say, table_of, written
from ._output import CsvOption, JsonOption

Place = Annotated[
    Path,
    typer.Argument(
        help="A store, or the folder --out of the study that made it.", parser=_files.place, metavar="STORE"
    ),
]
Second = Annotated[Path, typer.Argument(help="The one that it is compared with.", parser=_files.place, metavar="OTHER")]
Folder = Annotated[
    Path, typer.Argument(help="A folder with stores in it or below it.", parser=_files.place, metavar="FOLDER")
]


def _state(store) -> str:
    done, wanted, stopped = store.progress()
    return f"{done} of {wanted} trials a point" + (", stopped early" if stopped else "")


def _axes(summary, settings) -> list[str]:
    """Axes of the grid in the order of the study."""
    return [axis for axis in settings["grid"] if axis in summary.sizes]


def _rows(summary, axes):
    """Places of the grid in words, and the numbers there."""
    import numpy as np

    names = [name for name in summary.data_vars if set(summary[name].dims) == set(axes)]
    for place in np.ndindex(*(summary.sizes[axis] for axis in axes)):
        row = summary.isel(dict(zip(axes, place, strict=True)))
        yield tuple(f"{float(row[axis]):g}" for axis in axes), {name: float(row[name]) for name in names}


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.6g}"


def _interval(numbers, name: str) -> str:
    low, high = (numbers.get(f"{name}_{end}") for end in ("low", "high"))
    if low is None or high is None:
        return ""
    return "-" if math.isnan(numbers[name]) else f"[{low:.4g}, {high:.4g}]"


def _numbers(place, settings) -> _kept.Kept:
    """The table of what is in a store, whatever it is: means and shares, one row a number where they are many."""
    from ..ensemble.contents import estimates_of

    means, ends = estimates_of(place)
    summary = means.merge(ends)
    axes = _axes(summary, settings)
    columns = [*axes, "number", "mean or share", "95% interval"]
    rows = [
        [*at, str(name), _number(numbers[name]), _interval(numbers, str(name))]
        for at, numbers in _rows(summary, axes)
        for name in means.data_vars
        if name in numbers
    ]
    table = Table(str(place), columns, rows, ["number"], named=len(columns) - 2)
    known = {name: array.attrs.get("long_name") for name, array in means.data_vars.items()}
    described = [f"{name}: {text}" for name, text in known.items() if text]
    return _kept.Kept([table, *described], _output.rows_of(summary, axes), as_json(summary))


def show(store: Place, json_: JsonOption = False, csv: CsvOption = None, html: HtmlOption = None) -> None:
    """Table, figure, settings and state of a store, finished or not, without computing anything."""
    from ..ensemble.reading import existing

    console, notes = consoles()
    _report.check(html)
    _output.check(csv, json_)
    found, snapshot = existing(store)
    pictures = [path for path in (found.path.parent / "figure.png", found.path.parent / "figure.pdf") if path.exists()]
    settings, progress = snapshot.attributes["settings"], found.progress()
    own = _kept.kept(found.path, progress)
    shown = _numbers(found.path, settings) if own is None else own
    state = dict(zip(("trials_computed", "trials", "stopped_early"), progress, strict=True))
    known = {**state, "figure": list(map(str, pictures)), "summary": shown.summary}
    parts, told = shown.parts, _output.told("show", settings, shown.rows, **known)
    report = _report.save(
        html,
        f"{settings.get('study', 'sweep')}: {found.path}",
        [_report.Section("Results", parts, pictures)],
        told["summary"],
        facts=[_report.state_of(*state.values()), *_report.made_by(settings)],
        known=snapshot.attributes,
    )
    if not json_:
        say(notes, "state", _state(found))
        for name, value in settings.items():
            # All of a reduction is a page, and in --json.
            short = list(value) if name == "reductions" else value
            say(notes, "setting", f"{name} = {json.dumps(short)}")
        for _, maker in _report.made_by(settings) if own is None else ():
            say(
                notes,
                "table",
                f"of the numbers in the store; that of the study prints {maker.partition(',')[0]}, as it was run",
            )
    if not _output.show(console, told, parts, json_, csv):
        return
    _tables.say(console, f"figure: {written(pictures) if pictures else 'none'}", indent=8)
    if report:
        console.print(f"report: {written(report)}", soft_wrap=True)


def _beside(path):
    """Where a file of another kind is written: beside a store in a folder, here for one at an address."""
    return Path(path.name) if _files.is_remote(path) else path


def export(
    store: Place,
    to: Annotated[Literal["csv", "netcdf", "parquet"], typer.Option("--to", help="The kind of file.")],
    out: Annotated[Path | None, typer.Option(help="The file.", show_default="beside the store, with its name")] = None,
) -> None:
    """What a store holds, trials or reductions, as a file that other programs read."""
    from ..ensemble.contents import KINDS
    from ..ensemble.contents import export as write
    from ..ensemble.reading import existing

    console, _ = consoles()
    found, _ = existing(store)
    file = _beside(found.path).with_suffix(f".{KINDS[to][1]}") if out is None else out
    _output.check_file(file, "--out")
    before = file.exists()
    left_out = write(found.path, to, file)
    said = [f"{to}: {written([file])}", *(["in place of what was there"] if before else [])]
    said += [f"{_state(found)}, and the {left_out} that are not computed are left out"] if left_out else []
    console.print("; ".join(said), soft_wrap=True)


def compare(
    store: Place, other: Second, json_: JsonOption = False, csv: CsvOption = None, html: HtmlOption = None
) -> None:
    """Settings and numbers of two stores side by side: settings that differ, and numbers at the points that both have."""
    from ..ensemble.contents import estimates_of
    from ..ensemble.reading import existing
    from ..ensemble.records import same

    _report.check(html)
    _output.check(csv, json_)
    console, _ = consoles()
    pair = [existing(path) for path in (store, other)]
    one, two = (snapshot.attributes["settings"] for _, snapshot in pair)
    studies = [settings.get("study") for settings in (one, two)]
    if None not in studies and studies[0] != studies[1]:
        raise ValueError(
            f"{store} holds the study {studies[0]} and {other} the study {studies[1]}: compare two stores of one study."
        )
    differ = {name: (one.get(name), two.get(name)) for name in {**one, **two} if not same(one.get(name), two.get(name))}
    summaries = [estimates_of(found.path)[0] for found, _ in pair]
    axes, theirs = (_axes(*each) for each in zip(summaries, (one, two), strict=True))
    first = dict(_rows(summaries[0], axes))
    # The same numbers on other axes are other points.
    second = dict(_rows(summaries[1], axes)) if set(axes) == set(theirs) else {}
    common = {
        place: {name: (value, second[place][name]) for name, value in values.items() if name in second[place]}
        for place, values in first.items()
        if place in second
    }
    places = (str(store), str(other))
    # A store may be called as an axis is, or be compared with itself.
    one, two = _apart(places, (*axes, "number", "difference"))
    found_rows = [
        {**dict(zip(axes, map(float, place), strict=True)), "number": name, one: a, two: b, "difference": b - a}
        for place, numbers in common.items()
        for name, (a, b) in numbers.items()
    ]
    # Of grids and reductions the entries that differ: all of them is a page, and in --json.
    flat = [dict(_output.flat({name: values[i] for name, values in differ.items()}, ".")) for i in (0, 1)]
    pairs = {name: [each.get(name) for each in flat] for name in {**flat[0], **flat[1]}}
    rows = [
        (name, *("" if v is None else json.dumps(v) for v in values))
        for name, values in pairs.items()
        if not same(*values)
    ]
    table = table_of("Settings that differ", ("setting", *places), rows, 3)
    parts: list[Any] = [table if differ else "the settings are the same"]
    rows = [
        (*place, name, f"{a:.6g}", f"{b:.6g}", f"{b - a:.3g}")
        for place, numbers in common.items()
        for name, (a, b) in numbers.items()
    ]
    table = table_of("Means and shares", (*axes, "number", *places, "difference"), rows, len(axes) + 1, len(axes) + 1)
    parts.append(table if common else "no point of the grid is in both")
    told = _output.told("compare", differ, found_rows, stores=list(places))
    report = _report.save(
        html, f"compare: {' and '.join(places)}", [_report.Section("Side by side", parts)], told["rows"]
    )
    if _output.show(console, told, parts, json_, csv) and report:
        console.print(f"report: {written(report)}", soft_wrap=True)


def _apart(names: Iterable[str], taken: Iterable[str]) -> list[str]:
    """Names with slashes after those that are taken."""
    found: list[str] = []
    for name in names:
        while name in (*taken, *found):
            name += "/"
        found.append(name)
    return found


def list_(folder: Folder = Path("."), json_: JsonOption = False, csv: CsvOption = None) -> None:
    """All stores in a folder: study, grid and state of each."""
    from ..ensemble import SweepStore
    from ..ensemble.contents import stores_in

    _output.check(csv, json_)
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: choose another one.")
    console, _ = consoles()
    found = {str(path): SweepStore(path) for path in stores_in(folder)}
    rows = []
    for path, store in found.items():
        settings = store.settings() or {}
        grid = {name: len(values) for name, values in settings.get("grid", {}).items()}
        rows.append({"store": path, "study": settings.get("study", "-"), "grid": grid, "state": _state(store)})
    lines = [(row["store"], row["study"], counted(row["grid"]), row["state"]) for row in rows]
    table = table_of(
        f"{len(rows)} store{'s' if len(rows) != 1 else ''} in {folder}", ("store", "study", "grid", "state"), lines, 4
    )
    _output.show(console, _output.told("list", {"folder": str(folder)}, rows), [table], json_, csv)
