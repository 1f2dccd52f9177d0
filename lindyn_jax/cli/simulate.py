"""What `lindyn-jax simulate` and `sequence` do with their options, which `Simulate` and `Tasks` name."""

import json
from collections.abc import Mapping
from typing import Any

import typer

from ..studies.simulate import check_folder, save
from ..studies.study import data_notes
from . import _report
from ._common import as_json, configure, consoles, refuse_file, save_figure, say, written
from ._study import read, show


def run(study: type[Any], values: Mapping[str, Any]) -> None:
    """Moves one start, saves, and prints; fails where the run or the saving does."""
    configure()
    from ..plots import literal

    chosen, source, description, record = read(study, values)
    out, label = values["out"], chosen.label()
    refuse_file(out)
    check_folder(out)
    _report.check(values["html"])
    console, notes = consoles()
    facts = [*data_notes(chosen.problem, description), ("start", label)]
    for word, text in facts:
        say(notes, word, text)
    dataset = chosen.run(seed=values["seed"], record={"data": record["data"], "description": description})
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
    title = f"{source}: {label}; {chosen.dynamics}"
    paths += _report.save(values["html"], title, sections, told, facts=[*facts, state], known=dataset.attrs)
    if values["json_"]:
        print(json.dumps(told, indent=1))
    else:
        show(console, [*parts, f"written: {written(paths)}"])
    if not dataset.attrs["ok"]:
        say(notes, "The run failed:", f" {dataset.attrs['result']}.")
    if not (dataset.attrs["ok"] and paths):
        raise typer.Exit(1)
