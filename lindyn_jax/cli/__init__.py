"""The command line `lindyn-jax`: parses, calls and prints; the numerics are elsewhere. One command a file."""

import sys
import warnings

import typer

from ..studies.audit import Audit
from ..studies.completion import Completion
from ..studies.fit_lambda0 import FitLambda0
from ..studies.lemma11 import Lemma11
from ..studies.simulate import Simulate
from ..studies.study import Study
from ..studies.tasks import Tasks
from ..studies.theorem12 import Theorem12
from . import _endings, commutation, figure, info, simulate
from ._checked import Checked
from ._study import command, run

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Learning dynamics of overparametrized linear networks: one trajectory, thousands of them, and the papers' figures.

    Commands compute in float64, say on standard error what they do, and print a table (or JSON with --json); studies and
    figures are written to the folder --out as well. Compiled programs are kept in your cache folder, of which `info` says what
    is in it; --no-cache after any command does without. A first try, about a minute on two cores:

    lindyn-jax sweep theorem12 --data digits --samples 30 --centre
    """,
    epilog="Exit codes: 0 done (failed trials of a study are masked and counted); 1 the run itself failed; "
    "2 bad input, with one sentence about it; 130, 143, 129, 141 ended by Ctrl-C, SIGTERM, SIGHUP or a closed output. "
    "Completion in your shell: --install-completion.",
)
sweep = typer.Typer(
    no_args_is_help=True,
    help="""Monte Carlo studies over widths and exponents, stored in a folder and resumable.

    The same command goes on after an interruption, with any number of devices and processes.
    """,
)
app.add_typer(sweep, name="sweep")
sweep.command("theorem12", cls=Checked)(command(Theorem12, run))
sweep.command("lemma11", cls=Checked)(command(Lemma11, run))
sweep.command("completion", cls=Checked)(command(Completion, run))
app.command("simulate", cls=Checked)(command(Simulate, simulate.run))
app.command("sequence", cls=Checked)(command(Tasks, simulate.run))
app.command("audit", cls=Checked)(command(Audit, run))
app.command("figure", cls=Checked)(figure.figure)
app.command("fit-lambda0", cls=Checked)(command(FitLambda0, run))
app.command("commutation", cls=Checked)(commutation.commutation)
app.command("info", cls=Checked)(info.info)


def main(study: type[Study] | None = None) -> None:
    """Runs the command line: bad input ends with one sentence and exit code 2, a signal with 128 and its number.

    **Args:** `study`, a class of your own, whose command is run in place of those of this package.
    """
    warnings.formatwarning = lambda message, *_: f"lindyn-jax: {message}\n"
    sys.exit(_endings.run(app if study is None else one(study)))


def one(study: type[Study]) -> typer.Typer:
    """An application of one command, that of a study."""
    alone = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    alone.command(study.name or study.__name__.lower(), cls=Checked)(command(study, run))
    return alone
