"""What `lindyn-jax simulate` and `sequence` do with their options, which `Simulate` and `Tasks` name."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from .. import _files
from ..studies._record import of_problem
from ..studies.simulate import check_folder, save
from ..studies.study import data_notes
from . import _output, _report
from ._common import as_json, configure, consoles, refuse_file, save_figure, say, written
from ._progress import Working
from ._study import read

# Of what `of_problem` says, what a file under the same name can change.
PROBLEM = ("data_sha256", "data_dtype")


def run(study: type[Any], values: Mapping[str, Any]) -> None:
    """Moves one start, saves, and prints; fails where the run or the saving does."""
    configure()
    from ..plots import literal

    chosen, source, description, record = read(study, values)
    out, label = values["out"], chosen.label()
    refuse_file(out)
    check_folder(out)
    _report.check(values["html"])
    _output.check(values["csv"], values["json_"])
    options = {name: str(value) for name, value in values.items() if name not in ("out", "json_", "csv", "html")}
    _refuse_another(out, {"options": options, **of_problem(chosen.problem)})
    console, notes = consoles()
    facts = [*data_notes(chosen.problem, description), ("start", label)]
    for word, text in facts:
        say(notes, word, text)
    with Working(notes):
        dataset = chosen.run(
            seed=values["seed"], record={"data": record["data"], "description": description, "options": options}
        )
    try:
        paths = save(dataset, out)
        title = f"{literal(source)}: {label}; {chosen.dynamics}"
        paths += save_figure(notes, lambda: chosen.draw(dataset, dataset, title), out)
    except OSError as error:
        # What took long is shown all the same.
        notes.print(f"The trajectory cannot be saved in {written([out])} ({error.strerror or error}).")
        paths = []
    told, parts = as_json(dataset), chosen.table(dataset)
    state = ("state", f"{'complete' if dataset.attrs['ok'] else 'failed'}: {dataset.attrs['result']}")
    sections = [_report.Section("Results", parts, paths)]
    title = f"{study.name}: {source}, {label}; {chosen.dynamics}"
    report = _report.save(values["html"], title, sections, told, facts=[*facts, state], known=dataset.attrs)
    settings = {**{name: dataset.attrs[name] for name in ("data", "dynamics", "seed")}, **dataset.attrs["settings"]}
    known = _output.told(study.name, settings, _output.rows_of(dataset, ("time",)), summary=told)
    parts = [*parts, f"written: {written([*paths, *report, *_output.file_of(values['csv'])])}"]
    _output.show(console, known, parts, values["json_"], values["csv"])
    if not dataset.attrs["ok"]:
        say(notes, "The run failed:", f" {dataset.attrs['result']}.")
    if not (dataset.attrs["ok"] and paths):
        raise typer.Exit(1)


def _refuse_another(out: Path, known: Mapping[str, Any]) -> None:
    """Refuses a folder with a trajectory that is not that of this command, which would be lost."""
    data = _files.read(out / "trajectory.zarr" / "zarr.json")
    if data is None:
        return
    found = json.loads(data).get("attributes", {})
    before, now = (
        {**known.get("options", {}), **{name: known.get(name) for name in PROBLEM}} for known in (found, known)
    )
    for name, value in now.items():
        if before.get(name) != value:
            what = f"{name} is {before[name]} there and {value} here" if name in before else "by another version"
            raise ValueError(
                f"{out} holds a trajectory made with other settings ({what}), which would be lost: choose another --out, or "
                "remove it."
            )
