"""Commands made of studies: options from fields, then run, resume, table or JSON, and picture."""

import functools
import inspect
import json
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer

from .. import __version__
from .._files import place
from ..studies.study import Option, Settled, Study, check_precision, option_of, options_of
from . import _kept, _output, _report, _starts, _tables
from ._checked import is_given
from ._cluster import cluster_of
from ._common import (
    BatchOption,
    CentreOption,
    ChunkOption,
    ClusterOption,
    DataOption,
    HtmlOption,
    Precision,
    SamplesOption,
    ScaleOption,
    ShapeOption,
    SubsetSeedOption,
    TargetsOption,
    as_json,
    computed,
    configure,
    consoles,
    mark_of,
    named,
    numbers,
    problem_of,
    refuse_too_large,
    save_figure,
    say,
    step_size_of,
    store_in,
    widths_of,
    written,
)
from ._endings import interruptible
from ._progress import Progress

S = TypeVar("S", bound=Settled)

# Options that studies share: name -> annotation and default.
DATA: dict[str, tuple[Any, Any]] = {
    "data": (DataOption, "gaussian"),
    "shape": (ShapeOption, "5,10"),
    "targets": (TargetsOption, None),
    "samples": (SamplesOption, None),
    "subset_seed": (SubsetSeedOption, 0),
    "centre": (CentreOption, False),
    "scale": (ScaleOption, "sum"),
}
SEED = (Annotated[int, typer.Option(help="Seed of the starts.")], 0)
RUN: dict[str, tuple[Any, Any]] = {
    "trials": (Annotated[int, typer.Option(help="Trials at each point of the grid.")], 100),
    "seed": SEED,
    "chunk": (ChunkOption, None),
    "batch": (BatchOption, "auto"),
    "keep_trials": (
        Annotated[bool, typer.Option(help="Store every trial, or reductions only, in constant memory.")],
        True,
    ),
    "precision": (Precision, None),
    "cluster": (ClusterOption, None),
}
FOLDER = "Folder for the store and the figure, or an address such as s3://BUCKET/NAME; resumes what is there."
PAIRED = "Seed of the choice of rows; of the data for --data gaussian."


def _listed(text: str | None, name: str) -> tuple[float, ...] | None:
    return None if text is None else tuple(widths_of(text) if name == "widths" else numbers(text, name))


def _names(text: str | None, name: str) -> tuple[str, ...] | None:
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


# Types of fields that are given as a text, with what reads it.
READ: dict[Any, tuple[Any, Callable[[Any, str], Any]]] = {
    tuple[float, ...]: (str, _listed),
    tuple[float, ...] | None: (str | None, _listed),
    tuple[str, ...] | None: (str | None, _names),
    str | Sequence[str]: (str, lambda text, name: text),
    float | str: (str, lambda text, name: step_size_of(text)),
}


def command(study: type[S], run: Callable[[type[S], Mapping[str, Any]], None]) -> Callable[..., None]:
    """The function that typer makes the command of a study of; `run` is what it does with the class and the options."""
    name = study.name or study.__name__.lower()
    parameters = {parameter.name: parameter for parameter in _parameters(study, name)}

    def called(**values: Any) -> None:
        run(study, values)

    called.__name__ = name.replace("-", "_")
    called.__doc__ = (inspect.getdoc(study) or "").partition("\n")[0]
    called.__signature__ = inspect.Signature(list(parameters.values()))
    called.__annotations__ = {key: parameter.annotation for key, parameter in parameters.items()}
    called.fields = tuple(option.name for option in options_of(study))
    return called


def _parameters(study: type[Settled], name: str):
    def one(name, annotation, default):
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)

    def shared(table):
        for name, (annotation, default) in table.items():
            given = study.options.get(name, (default, None))
            if given is not None and given[1] is not None:
                # Of options that may be left out the default says it.
                kind = str | None if given[0] is None else typing.get_args(annotation)[0]
                annotation = Annotated[kind, typer.Option(help=given[1])]
            if given is not None:
                yield one(name, annotation, given[0])

    def asked(option: Option):
        kind, default = option.kind, option.default
        kind = Literal[option.choices] if option.choices else READ.get(kind, (kind,))[0]
        if type(default) is tuple:
            default = ",".join(f"{value:g}" for value in default)
        flags = (f"--{option.name.replace('_', '-')}",) if kind is bool and not default else ()
        info = typer.Option(*flags, help=option.help, show_default=option.shown or True)
        return one(option.name, Annotated[kind, info], default)

    hints = typing.get_type_hints(study)
    if study.presets():
        text, kind = "A figure's setting in place of data and starts.", Literal[tuple(study.presets())]
        yield one("context", typer.Context, None)
        yield one("preset", Annotated[kind | None, typer.Option(help=text)], None)
    if "problem" in hints:
        if (study.options.get("data", ("",)) or (None,))[0] is None:
            yield from map(asked, _own_options(study))
        paired = {"subset_seed": (Annotated[int, typer.Option(help=PAIRED)], 0)}
        yield from shared(DATA | (paired if study.options.get("shape", ()) is None else {}))
    for field in hints.keys() & _starts.OPTIONS.keys():
        yield from (one(*option) for option in _starts.OPTIONS[field])
    yield from map(asked, options_of(study))
    yield from shared(RUN if issubclass(study, Study) else {"seed": SEED})
    yield from shared({"out": (Annotated[Path, typer.Option(help=FOLDER, parser=place, metavar="PATH")], Path(name))})
    yield one("json_", _output.JsonOption, False)
    yield one("csv", _output.CsvOption, None)
    yield one("html", HtmlOption, None)


def _own_options(study: type[Settled]):
    arguments = inspect.signature(study.without_data).parameters.values()
    return [option for a in arguments for option in option_of(a.name, a.annotation, a.default)]


def read(study: type[S], values: Mapping[str, Any]) -> tuple[S, str, str, dict[str, Any]]:
    """The study that the options name, checked; a name for its data, a description, and what is recorded of them."""
    hints, fields, own = typing.get_type_hints(study), {}, options_of(study)
    for option in own:
        value = values[option.name]
        fields[option.name] = READ[option.kind][1](value, option.name) if option.kind in READ else value
    for name, kind in hints.items():
        if hasattr(kind, "_fields"):
            fields[name] = kind(**{field: fields.pop(field) for field in kind._fields})
    source, description, record = "", "", {}
    preset = values.get("preset")
    if preset is not None:
        given = {option.name for option in own if is_given(values["context"], option.name)}
        fields |= {name: value for name, value in study.presets()[preset]().items() if name not in given}
        source, description, record = preset, f"setting {preset}", {"preset": preset}
    else:
        if "problem" in hints:
            fields["problem"], source, description = _problem(study, values)
            record = {"data": None if values["data"] is None else named(values["data"])}
            record |= {name: values[name] for name in ("samples", "subset_seed", "centre")}
        for name in hints.keys() & _starts.OPTIONS.keys():
            fields[name] = _starts.read(name, values)
    made = study(**fields)
    made.check()
    return made, source, description, record


def _problem(study: type[Settled], values: Mapping[str, Any]):
    """The problem that the options name, a name for it and a description."""
    if values["data"] is None:
        return study.without_data(**{o.name: values[o.name] for o in _own_options(study)}), "sizes only", ""
    return problem_of(*(values.get(name) for name in DATA))


def run(study: type[Study], values: Mapping[str, Any]) -> None:
    """Runs a study over its grid, stores, and prints; what the commands of all studies do."""
    configure()
    from ..ensemble import progress_of

    check_precision(values.get("precision"))
    _report.check(values["html"])
    _output.check(values["csv"], values["json_"])
    chosen, source, description, record = read(study, values)
    trials, keep = values["trials"], values.get("keep_trials", True)
    held = chosen.held(trials, keep)
    if held is not None:
        refuse_too_large(*held)
    store = store_in(values["out"], study.store)

    console, notes = consoles()
    cluster = cluster_of(values.get("cluster"), notes)
    facts = chosen.notes(trials, source, description)
    for word, text in facts:
        say(notes, word, text)
    with interruptible(), cluster as executor, Progress(notes) as progress:
        asked = {name: values[name] for name in list(RUN)[:6] if name in values}
        dataset = chosen.run(**asked, record=record, store=store, executor=executor, progress=progress)
    done = computed(dataset, notes)
    summary = functools.cache(lambda: chosen.summarise(dataset))

    def draw():
        from ..plots import literal

        return chosen.draw(dataset, summary(), chosen.title(literal(source), done))

    # What was printed of a store as it is now is printed again without a summary, unless that may be another one by now.
    known = _kept.kept(store.path, progress_of(dataset)) if study.__module__.startswith("lindyn_jax.") else None
    if known is None or known.version != __version__:
        rows = _output.rows_of(summary(), tuple(chosen.grid()))
        known = _kept.Kept(chosen.table(summary()), rows, as_json(summary()))
    settings = json.loads(dataset.attrs["settings"])
    printed = _output.told(study.name or study.__name__, settings, known.rows, summary=known.summary)
    parts, told = known.parts, printed["summary"]
    # What a store holds follows from its attributes.
    mark = mark_of(study.name, source, done, told, dataset.attrs)
    paths = save_figure(notes, draw, values["out"], mark)
    state = _report.state_of(*progress_of(dataset), _report.failed_of(dataset))
    sections = [_report.Section("Results", parts, paths)]
    title = f"{study.name or study.__name__}: {source}".rstrip(": ")
    report = _report.save(values["html"], title, sections, told, facts=[*facts, state], known=dataset.attrs)
    _kept.keep(store.path, progress_of(dataset), parts, printed)
    if not _output.show(console, printed, parts, values["json_"], values["csv"]):
        return
    places = {chosen.kept(keep): [store.path], "figure": paths}
    places |= {"report": report} if report else {}
    places |= {"csv": [values["csv"]]} if values["csv"] else {}
    _tables.say(console, "   ".join(f"{name}: {written(place)}" for name, place in places.items()))
