"""The command line `lindyn-jax`: parses, calls and prints; the numerics are elsewhere. One command a file."""

import gc
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

import typer

from . import _app, _endings
from ._checked import Checked

if TYPE_CHECKING:
    from ..studies.study import Study

    app: typer.Typer
    sweep: typer.Typer


def __getattr__(name: str):
    # With all commands, which a command line has no use for.
    if name not in ("app", "sweep"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made = _app.applications()
    globals().update(zip(("app", "sweep"), made, strict=True))
    return globals()[name]


def main(study: "type[Study] | None" = None) -> None:
    """Runs the command line: bad input ends with one sentence and exit code 2, a signal with 128 and its number.

    **Args:** `study`, a class of your own, whose command is run in place of those of this package.
    """
    warnings.formatwarning = lambda message, *_: f"lindyn-jax: {message}\n"
    # Read when JAX is first imported. On processors it says of every program that is kept, in a page of errors, that it was not
    # compiled by this process; what goes wrong is an exception as well.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Tracing makes and drops millions of small objects, none of which the collector frees.
    gc.set_threshold(500_000, 20, 100)
    if study is not None:
        command = one(study)
    else:
        completing = any(name.endswith("_COMPLETE") for name in os.environ)
        command, _ = _app.applications(None if completing else sys.argv[1:])
    sys.exit(_endings.run(command))


def one(study: "type[Study]") -> typer.Typer:
    """An application of one command, that of a study."""
    from ._study import command, run

    options: Any = {"context_settings": _app.HELPED, "rich_markup_mode": _app.MARKUP}
    alone = typer.Typer(pretty_exceptions_enable=False, add_completion=False, **options)
    alone.command(study.name or study.__name__.lower(), cls=Checked)(command(study, run))
    return alone
