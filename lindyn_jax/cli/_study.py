"""Commands made of studies: options from fields, then run, resume, table or JSON, and picture."""

import inspect
import json
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ..studies.study import Study, Table, check_precision, option_of, options_of
from ._common import (
    BatchOption,
    CentreOption,
    ChunkOption,
    Coordinator,
    DataOption,
    JsonOption,
    LossScaleOption,
    NumProcesses,
    Precision,
    ProcessId,
    Progress,
    SamplesOption,
    ShapeOption,
    SubsetSeedOption,
    TargetsOption,
    as_json,
    computed,
    configure,
    consoles,
    join,
    named,
    numbers,
    problem_of,
    refuse_too_large,
    save_figure,
    say,
    store_in,
    widths_of,
    written,
)
from ._endings import interruptible

DATA = ("data", "shape", "targets", "samples", "subset_seed", "centre", "loss_scale")
PAIRED = "Seed of the choice of rows; of the data for --data gaussian."


def command(study: type[Study]) -> Callable[..., None]:
    """The function that typer makes the command of a study of."""
    name = study.name or study.__name__.lower()
    parameters = {parameter.name: parameter for parameter in _parameters(study, name)}

    def run(**values: Any) -> None:
        _run(study, values)

    run.__name__ = name.replace("-", "_")
    run.__doc__ = (inspect.getdoc(study) or "").partition("\n")[0]
    run.__signature__ = inspect.Signature(list(parameters.values()))
    run.__annotations__ = {key: parameter.annotation for key, parameter in parameters.items()}
    run.unbounded = () if study.bounded else tuple(option.name for option in options_of(study))
    return run


def _parameters(study: type[Study], name: str):
    def one(name, annotation, default):
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)

    def asked(option):
        kind, default = option.kind, option.default
        several = _several(kind)
        optional = type(None) in typing.get_args(kind)
        if several:
            kind = str | None if optional else str
            default = None if default is None else ",".join(f"{value:g}" for value in default)
        elif typing.get_origin(kind) is typing.Literal:
            kind = str
        flags = (f"--{option.name.replace('_', '-')}",) if kind is bool and not default else ()
        info = typer.Option(*flags, help=option.help, show_default=option.shown or True)
        return one(option.name, Annotated[kind, info], default)

    if _has_problem(study):
        if study.data is None:
            yield from map(asked, _own_options(study))
        data = DataOption if study.data_help is None else Annotated[str | None, typer.Option(help=study.data_help)]
        yield one("data", data, study.data)
        if "shape" in study.takes:
            yield one("shape", ShapeOption, "5,10")
        yield one("targets", TargetsOption, None)
        yield one("samples", SamplesOption, None)
        seed = SubsetSeedOption if "shape" in study.takes else Annotated[int, typer.Option(help=PAIRED)]
        yield one("subset_seed", seed, 0)
        yield one("centre", CentreOption, False)
        if "loss_scale" in study.takes:
            yield one("loss_scale", LossScaleOption, "sum")
    yield from map(asked, options_of(study))
    yield one("trials", Annotated[int, typer.Option(help=study.trials_help)], study.trials)
    yield one("seed", Annotated[int, typer.Option(help="Seed of the starts.")], 0)
    yield one("chunk", ChunkOption, None)
    yield one("batch", BatchOption, "auto")
    if study.keep_trials is not None:
        yield one("keep_trials", Annotated[bool, typer.Option(help=study.keep_trials_help)], study.keep_trials)
    if study.has_precision:
        yield one("precision", Precision, None)
    yield one("coordinator", Coordinator, None)
    yield one("num_processes", NumProcesses, None)
    yield one("process_id", ProcessId, None)
    folder = "Folder for the store and the figure; resumes what is there."
    yield one("out", Annotated[Path, typer.Option(help=folder)], Path(name))
    yield one("json_", JsonOption, False)


def _several(kind: Any) -> bool:
    return any(typing.get_origin(part) is tuple for part in (kind, *typing.get_args(kind)))


def _has_problem(study: type[Study]) -> bool:
    return "problem" in typing.get_type_hints(study)


def _own_options(study: type[Study]):
    arguments = inspect.signature(study.without_data).parameters.values()
    return [option for a in arguments for option in option_of(a.name, a.annotation, a.default)]


def _settings(study: type[Study], values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the study but for its problem, read from the options."""
    read = {}
    for option in options_of(study):
        value = values[option.name]
        if _several(option.kind) and value is not None:
            value = tuple(widths_of(value) if option.name == "widths" else numbers(value, option.name))
        read[option.name] = value
    for name, kind in typing.get_type_hints(study).items():
        if hasattr(kind, "_fields"):
            read[name] = kind(**{field: read.pop(field) for field in kind._fields})
    return read


def _problem(study: type[Study], values: Mapping[str, Any]):
    """The problem that the options name, a name for it and a description."""
    if values["data"] is None:
        return study.without_data(**{o.name: values[o.name] for o in _own_options(study)}), "sizes only", ""
    return problem_of(*(values.get(name) for name in DATA))


def _run(study: type[Study], values: Mapping[str, Any]) -> None:
    configure(distributed=True)
    from .. import _checks, plots
    from ..ensemble import BATCHES

    _checks.check_choice(values["batch"], "batch", BATCHES)
    check_precision(values.get("precision"))
    settings = _settings(study, values)
    process = join(values["coordinator"], values["num_processes"], values["process_id"])
    record, source, description = {}, "", ""
    if _has_problem(study):
        settings["problem"], source, description = _problem(study, values)
        record = {"data": None if values["data"] is None else named(values["data"])}
        record |= {name: values[name] for name in ("samples", "subset_seed", "centre")}
    chosen = study(**settings)
    chosen.check()
    trials, keep = values["trials"], values.get("keep_trials", True)
    held = chosen.held(trials, keep)
    if held is not None:
        refuse_too_large(*held)
    store = store_in(values["out"])

    console, notes = consoles()
    for word, text in chosen.notes(trials, source, description):
        say(notes, word, text)
    with interruptible(), Progress(notes) as progress:
        dataset = chosen.run(
            trials,
            seed=values["seed"],
            keep_trials=values.get("keep_trials"),
            precision=values.get("precision"),
            record=record,
            store=store,
            chunk=values["chunk"],
            batch=values["batch"],
            process=process,
            progress=progress,
        )
    done = computed(dataset, notes)
    if done is None:
        return
    summary = chosen.summarise(dataset)
    figure = chosen.draw(dataset, summary, chosen.title(plots.literal(source), done))
    paths = save_figure(notes, figure, values["out"])
    if values["json_"]:
        print(json.dumps(as_json(summary), indent=1))
        return
    show(console, chosen.table(summary))
    kept = study.kept if keep else "reductions of the trials"
    console.print(f"{kept}: {written([store.path])}   figure: {written(paths)}", soft_wrap=True)


def show(console, parts) -> None:
    """Prints tables and sentences."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as Drawn

    for part in parts:
        if not isinstance(part, Table):
            console.print(part, soft_wrap=True)
            continue
        padding = (0, 0, 0, 1) if part.tight else (0, 1)
        drawn = Drawn(title=part.title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=padding)
        for name in part.columns:
            drawn.add_column(name, justify="left" if name in part.words else "right", no_wrap=True)
        for row in part.rows:
            if row is None:
                drawn.add_section()
            else:
                drawn.add_row(*row)
        console.print(drawn)
