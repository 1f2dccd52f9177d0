"""The commands, each imported when it is called: to list them takes none of their modules."""

import importlib
from collections.abc import Callable, Collection
from typing import Annotated, Any, NamedTuple

import typer

from . import _help
from ._checked import Checked, Group

HELP = """Learning dynamics of overparametrized linear networks: one trajectory, thousands of them, and the papers' figures.

""" + (
    "Commands compute in float64, say on standard error what they do, and print a table (or JSON with --json, CSV with --csv -); "
    "studies and figures are written to the folder --out as well. Compiled programs are kept in your cache folder, of which "
    "`lindyn-jax info` says what is in it; --no-cache after any command does without. A first try, about a minute on two cores:"
    "\n\nlindyn-jax sweep theorem12 --data digits --samples 30 --centre"
)
EPILOG = (
    "Exit codes: 0 done (failed trials of a study are masked and counted); 1 the run itself failed; "
    "2 bad input, with one sentence about it; 130, 143, 129, 141 ended by Ctrl-C, SIGTERM, SIGHUP or a closed output. "
    "Completion in your shell: --install-completion."
)
SWEEP = """Monte Carlo studies over widths and exponents, stored in a folder and resumable.

    The same command goes on after an interruption, with any number of devices and workers.
    """


class Late(NamedTuple):
    """A command that is not imported yet.

    **Fields:** `text`, the first line of its help; `place`, the module and the name of its function, or of the study that it
    runs; `runner`, of a study, module and name of what is done with it.
    """

    text: str
    place: str
    runner: str | None = None

    def made(self) -> Callable[..., None]:
        """The function with all its options."""
        if self.runner is None:
            return _found(self.place)
        from ._study import command

        return command(_found(self.place), _found(self.runner))

    def named(self) -> Callable[..., None]:
        """A function that stands for it in a list."""

        def stand_in() -> None:
            raise AssertionError("A command that was not named is not called.")

        stand_in.__doc__ = self.text
        return stand_in


STUDY, TRAJECTORY = "cli._study:run", "cli.simulate:run"
# In the order in which they are listed.
COMMANDS = {
    "simulate": Late(
        "One trajectory by flow or descent: observables as table, csv, dataset and figure.",
        "studies.simulate:Simulate",
        TRAJECTORY,
    ),
    "sequence": Late(
        "Tasks one after another on the same inputs: the loss of each along the way, forgetting and transfer.",
        "studies.tasks:Tasks",
        TRAJECTORY,
    ),
    "audit": Late(
        "Every convergence bound of M22 against flow and descent: how often it speaks, how tight it is, and if it is crossed.",
        "studies.audit:Audit",
        STUDY,
    ),
    "figure": Late(
        "The papers' figures in the papers' settings: picture, data, and what was measured beside what the paper shows.",
        "cli.figure:figure",
    ),
    "fit-lambda0": Late(
        "Which homogeneous imbalance lambda0 follows the flow of Gaussian starts best, for either sign (T21 Fig. 2).",
        "studies.fit_lambda0:FitLambda0",
        STUDY,
    ),
    "commutation": Late(
        "Whether components are learned one by one: G19's Delta_xy and Delta_x of data, raw and centred.",
        "cli.commutation:commutation",
    ),
    "info": Late(
        "Versions, devices, precision and compilation cache: what to add to a report of a problem.", "cli.info:info"
    ),
    "show": Late(
        "Table, figure, settings and state of a store, finished or not, without computing anything.", "cli.stores:show"
    ),
    "export": Late(
        "What a store holds, trials or reductions, as a file that other programs read.", "cli.stores:export"
    ),
    "compare": Late(
        "Settings and numbers of two stores side by side: settings that differ, and numbers at the points that both have.",
        "cli.stores:compare",
    ),
    "list": Late("All stores in a folder: study, grid and state of each.", "cli.stores:list_"),
    "sweep theorem12": Late(
        "How far from the minimum-norm solution wide networks end: M22's Theorem 12, its bound and the sharp law.",
        "studies.theorem12:Theorem12",
        STUDY,
    ),
    "sweep lemma11": Late(
        "How often the events of M22's Lemma 11 hold for Gaussian starts, at any width and any number of inputs.",
        "studies.lemma11:Lemma11",
        STUDY,
    ),
    "sweep completion": Late(
        "Matrix completion by depth and scale of the start: hidden entries, effective rank, and the least nuclear norm.",
        "studies.completion:Completion",
        STUDY,
    ),
    "sweep phases": Late(
        "Lazy and rich learning of two layers: how far the kernel turns, over scale, imbalance and width of the start.",
        "studies.phases:Phases",
        STUDY,
    ),
}


# Texts are escaped for it, so every version of typer is to read it.
MARKUP: Any = "rich"
HELPED = {"help_option_names": ["-h", "--help"]}


def _version(asked: bool) -> None:
    if asked:
        from .. import __version__

        typer.echo(f"lindyn-jax {__version__}")
        raise typer.Exit


def about(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Options of the command line itself."""


def _found(place: str):
    module, name = place.split(":")
    return getattr(importlib.import_module(f"..{module}", __package__), name)


def applications(words: Collection[str] | None = None) -> tuple[typer.Typer, typer.Typer]:
    """The command line and its group of sweeps.

    **Args:** `words`, what was given: commands that are not among them are named only. By default all are imported.
    """
    shared: Any = {"no_args_is_help": True, "pretty_exceptions_enable": False, "cls": Group, "context_settings": HELPED}
    shared["rich_markup_mode"] = MARKUP
    app = typer.Typer(**shared, help=HELP, epilog=EPILOG)
    app.callback()(about)
    sweep = typer.Typer(**shared, help=SWEEP)
    app.add_typer(sweep, name="sweep")
    for path, late in COMMANDS.items():
        group, _, name = path.rpartition(" ")
        made = late.made() if words is None or name in words else late.named()
        own = type("Command", (Checked,), {"examples": _help.EXAMPLES[path]})
        {"": app, "sweep": sweep}[group].command(name, cls=own)(made)
    return app, sweep
