"""`lindyn-jax figure`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ._common import JsonOption, configure, consoles, table_of


def figure(
    name: Annotated[
        str,
        typer.Argument(
            help="A figure, such as t21-figure1 or m22-figure7; all for every one; list to see what there is."
        ),
    ] = "list",
    quick: Annotated[
        bool, typer.Option("--quick", help="Small sizes that still show the claim: all in less than five minutes.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of data and starts.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for NAME.png, NAME.pdf and the data, NAME.zarr.")] = Path("figures"),
    json_: JsonOption = False,
) -> None:
    """The papers' figures in the papers' settings: picture, data, and what was measured beside what the paper shows."""
    configure()
    from ..studies import figures

    console, notes = consoles(json_)
    if name == "list":
        rows = figures.describe()
        if json_:
            print(json.dumps([dict(zip(("name", "source", "title"), row, strict=True)) for row in rows], indent=1))
            return
        table = table_of("Figures", ("name", "source", "what is drawn"), words=3)
        for row in rows:
            table.add_row(*row)
        console.print(table)
        return
    if seed < 0:
        raise ValueError(f"Option --seed must be at least 0, but is {seed}.")
    chosen = figures.names(name)

    def report(made: figures.Made) -> None:
        failed = f"; {made.failed} of {made.runs} runs failed and are left out" if made.failed else ""
        console.print(f"[bold]{made.name}[/]: {made.source}, {made.seconds:.0f} s{failed}", soft_wrap=True)
        console.print(f"  shown:    {made.shows}", soft_wrap=True, markup=False)
        console.print(f"  measured: {made.measured}", soft_wrap=True, markup=False)
        console.print(f"  written:  {', '.join(str(path) for path in made.paths)}", soft_wrap=True)

    def announce(name: str) -> None:
        notes.print(f"making {name} ({chosen.index(name) + 1} of {len(chosen)}) in {out}")

    done = figures.make_all(chosen, out, quick=quick, seed=seed, begun=announce, done=None if json_ else report)
    if json_:
        print(json.dumps([{**made._asdict(), "paths": [str(path) for path in made.paths]} for made in done], indent=1))
    if any(made.failed for made in done):
        notes.print("Some runs failed: they are masked, counted above and in the titles.")
