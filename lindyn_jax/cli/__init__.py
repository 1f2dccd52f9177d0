"""The command line `lindyn-jax`: parses, calls and prints; the numerics are elsewhere. One command a file."""

import sys
import warnings

import typer

from . import audit, commutation, figure, fit_lambda0, info, lemma11, simulate, theorem12

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Learning dynamics of overparametrized linear networks: one trajectory, thousands of them, and the papers' figures.

    Commands compute in float64, say on standard error what they do, and print a table (or JSON with --json); studies and
    figures are written to the folder --out as well. A first try, about a minute on two cores:

    lindyn-jax sweep theorem12 --data digits --samples 30 --centre
    """,
    epilog="Exit codes: 0 done (failed trials of a study are masked and counted); 1 the run itself failed; "
    "2 bad input, with one sentence about it; 130 interrupted. "
    "Completion in your shell: --install-completion.",
)
sweep = typer.Typer(
    no_args_is_help=True,
    help="""Monte Carlo studies over widths and exponents, stored in a folder and resumable.

    The same command goes on after an interruption, with any number of devices and processes.
    """,
)
app.add_typer(sweep, name="sweep")
sweep.command("theorem12")(theorem12.sweep_theorem12)
sweep.command("lemma11")(lemma11.sweep_lemma11)
app.command("simulate")(simulate.simulate)
app.command("audit")(audit.audit)
app.command("figure")(figure.figure)
app.command("fit-lambda0")(fit_lambda0.fit_lambda0)
app.command("commutation")(commutation.commutation)
app.command("info")(info.info)


def main() -> None:
    """Runs the command line: bad input ends with one sentence and exit code 2, an interruption with 130."""
    warnings.formatwarning = lambda message, *_: f"lindyn-jax: {message}\n"
    try:
        app()
    except (ValueError, OSError) as error:
        text = f"{error.strerror}: {error.filename}" if getattr(error, "filename", None) else error
        print(f"lindyn-jax: {text}", file=sys.stderr)
        sys.exit(2)
