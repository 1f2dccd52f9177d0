"""`lindyn-jax figure`."""

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from . import _output, _report
from ._common import HtmlOption, configure, consoles, table_of, written
from ._output import CsvOption, JsonOption
from ._progress import Progress
from ._tables import say


def _names(incomplete: str) -> list[str]:
    """Names of figures that begin like this."""
    from .. import figures

    return [name for name in ("all", "list", *figures.FIGURES) if name.startswith(incomplete)]


class Ensembles:
    """Progress of the ensembles of a figure, one after another, each with a bar of its own."""

    def __init__(self, console):
        self.console = console
        self.open = contextlib.ExitStack()

    def __call__(self, done: int, total: int) -> None:
        if done == 0:
            self.close()
            self.bar = self.open.enter_context(Progress(self.console))
        self.bar(done, total)

    def close(self) -> None:
        self.open.close()


def _sentences(made) -> list[tuple[str, str]]:
    """What is said of a figure, each a word and a text."""
    said = (("shown", made.shows), ("reference", made.reference), ("measured", made.measured))
    return [(word, text) for word, text in said if text]


def figure(
    name: Annotated[
        str,
        typer.Argument(
            autocompletion=_names,
            help="A figure, such as t21-figure1 or m22-figure7; all for every one; list to see what there is.",
        ),
    ] = "list",
    quick: Annotated[
        bool, typer.Option("--quick", help="Small sizes that still show the claim: all in less than five minutes.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of data and starts.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for NAME.png, NAME.pdf and the data, NAME.zarr.")] = Path("figures"),
    json_: JsonOption = False,
    csv: CsvOption = None,
    html: HtmlOption = None,
) -> None:
    """The papers' figures in the papers' settings: picture, data, and what was measured beside what the paper shows."""
    configure()
    _report.check(html)
    _output.check(csv, json_)
    from rich.text import Text

    from .. import figures

    console, notes = consoles()
    if name == "list":
        rows = figures.describe()
        known = _output.told("figure", {}, (dict(zip(("name", "source", "title"), row, strict=True)) for row in rows))
        table = table_of("Figures", ("name", "source", "what is drawn"), rows, words=3)
        _output.show(console, known, [table], json_, csv)
        return
    chosen = figures.names(name)

    progress = Ensembles(notes)

    def report(made: figures.Made) -> None:
        progress.close()
        failed = f"; {made.failed} of {made.runs} runs failed and are left out" if made.failed else ""
        console.print(
            Text.assemble((made.name, "bold"), f": {made.source}, {made.seconds:.0f} s{failed}"), soft_wrap=True
        )
        for word, text in _sentences(made):
            say(console, f"  {word + ':':<10} {text}", indent=13)
        say(console, f"  written:   {written(made.paths)}", indent=13)

    def announce(name: str) -> None:
        notes.print(f"making {name} ({chosen.index(name) + 1} of {len(chosen)}) in {written([out])}")

    with contextlib.closing(progress):
        done = figures.make_all(
            chosen,
            out,
            quick=quick,
            seed=seed,
            progress=progress,
            begun=announce,
            done=None if json_ or str(csv) == "-" else report,
        )
    rows = [{**made._asdict(), "paths": [str(path) for path in made.paths]} for made in done]
    _output.show(console, _output.told("figure", {"quick": quick, "seed": seed}, rows), [], json_, csv)
    if html is not None:
        sections = [
            _report.Section(
                f"{made.name}: {made.source}", [f"{word}: {text}" for word, text in _sentences(made)], made.paths
            )
            for made in done
        ]
        numbers = [{"figure": made.name, **made.numbers} for made in done]
        settings = {"settings": {"name": name, "quick": quick, "seed": seed}}
        failed, runs = sum(made.failed for made in done), sum(made.runs for made in done)
        facts = [
            ("state", f"complete: {failed or 'none'} of {runs} runs failed{' and are left out' if failed else ''}")
        ]
        known = _report.machine() | settings
        saved = _report.save(html, f"figure: {name}", sections, numbers, facts=facts, known=known)
        notes.print(f"report: {written(saved)}")
    if any(made.failed for made in done):
        notes.print("Some runs failed: they are masked, counted above and in the titles.")
