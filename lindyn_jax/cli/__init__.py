"""The command line `lindyn-jax`: parses, calls and prints; the numerics are elsewhere. One command a file."""

import sys

import typer

from . import audit, info, lemma11, simulate, theorem12

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Learning dynamics of overparametrized linear networks.",
)
sweep = typer.Typer(no_args_is_help=True, help="Monte Carlo studies over widths and exponents.")
app.add_typer(sweep, name="sweep")
sweep.command("theorem12")(theorem12.sweep_theorem12)
sweep.command("lemma11")(lemma11.sweep_lemma11)
app.command("simulate")(simulate.simulate)
app.command("audit")(audit.audit)
app.command("info")(info.info)


def main() -> None:
    """Runs the command line: bad input ends with one sentence and exit code 2, an interruption with 130."""
    try:
        app()
    except (ValueError, FileNotFoundError, PermissionError, NotADirectoryError) as error:
        print(f"lindyn-jax: {error}", file=sys.stderr)
        sys.exit(2)
