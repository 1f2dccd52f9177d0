"""Checks of options that every command passes through before it runs: numbers within bounds, and none without an effect."""

import contextlib
import math
import os
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from .._text import ArgumentError
from . import _cache, _endings, _help, _tables

# Signed, so that a seed survives wherever numbers are kept.
LARGEST = 2**63 - 1

# Least and most of every option that is a whole number, whatever the command.
BOUNDS: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("seed", "subset_seed", "tasks_seed"), (0, LARGEST)),
    "samples": (1, LARGEST),
    "trials": (1, 10**9),
    **dict.fromkeys(("chunk", "max_steps", "batch_size"), (1, 2**31 - 1)),
    "points": (2, 10**6),
    "tasks": (1, 1000),
    "nodes": (4, 10_000),
    "inputs": (1, 10**15),
    **dict.fromkeys(("rank", "outputs"), (1, 10_000)),
    **dict.fromkeys(("noise", "label_noise", "weight_decay"), (0, 10**30)),
    "momentum": (0, 1),
    "steps": (0, 2**31 - 1),
}
# Real numbers are positive and finite. These are shares as well.
SHARES = ("rtol", "stop", "delta", "relative_error", "recovered")
# Screens on which a help in panels would cut names of options, and has none.
NARROW = 80
# Several names with commas between them, of which those given first would be lost.
LISTS = ("--targets", "--observables")
# The study says which of these a start can have.
FREE = ("width", "alpha", "lambda0")


class Rule(NamedTuple):
    """When options have an effect.

    **Fields:** `names`, of the options; `when`, function of all values of the command, true of a wrong choice that its own check
    refuses; `sentence`, what is said where they have none, with `{option}` for the name.
    """

    names: tuple[str, ...]
    when: Callable[[Mapping[str, Any]], bool]
    sentence: str


def only(where: str) -> str:
    return f"Option --{{option}} has an effect only {where}: leave it out."


def unless(name: str, *choices: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda values: values[name] not in choices


def data_of(values: Mapping[str, Any]) -> str:
    return str(values["data"]).strip().lower()


def is_data(values: Mapping[str, Any]) -> bool:
    """Whether --data names anything; reading it refuses what it does not."""
    from ..data import KNOWN

    name = str(values["data"])
    return data_of(values).replace("_", "-") in KNOWN or "," in name or os.path.exists(os.path.expanduser(name))


def is_step(text: Any) -> bool:
    """Whether --step-size can be read, as a number or by name."""
    try:
        return isinstance(text, float) or text == "stable" or math.isfinite(float(text))
    except ValueError:
        return False


def is_table(name: str) -> bool:
    return name.strip().lower().endswith((".csv", ".tsv"))


TARGETS = Rule(
    ("targets",),
    lambda values: is_table(str(values["data"])),
    "Option --targets names columns of a csv, but --data is none: leave it out.",
)
SUBSET = Rule(
    ("subset_seed",),
    lambda values: values["samples"] is not None or data_of(values) in ("gaussian", "factorization"),
    only("with --samples, --data gaussian or --data factorization"),
)
DATA = (
    Rule(
        ("shape",),
        lambda values: data_of(values) == "factorization" or not is_data(values),
        only("with --data factorization"),
    ),
    Rule(
        ("targets", "samples", "centre"),
        lambda values: data_of(values) != "factorization",
        "Option --{option} is for data with inputs: leave it out with --data factorization.",
    ),
    TARGETS,
    SUBSET,
)
STEP = Rule(
    ("step_size",),
    lambda values: values["dynamics"] != "flow" or not is_step(values["step_size"]),
    only("with --dynamics descent"),
)
SOLVER = Rule(("solver",), unless("dynamics", "descent"), only("with --dynamics flow"))
RTOL = Rule(("rtol",), unless("dynamics", "descent"), only("with --dynamics flow"))
PRESET = ("data", "shape", "targets", "samples", "subset_seed", "centre", "scale")
PRESET += ("start", "widths", "alphas", "std", "positive", "negative", "lambda0")


def _is_preset(name: str | None) -> bool:
    """Whether there is such a preset: of one that does not exist the command says which do."""
    from ..studies.audit import PRESETS

    return name in PRESETS


KINDS = ("gaussian", "balanced", "spectral", "imbalance", "xavier", "he", "lecun", "ntk", "mup")


def with_start(*kinds: str) -> Callable[[Mapping[str, Any]], bool]:
    return unless("start", *(kind for kind in KINDS if kind not in kinds))


STARTS = (
    Rule(("alpha", "std", "seed"), unless("start", "spectral"), only("for starts other than spectral")),
    Rule(
        ("alpha", "std"),
        unless("start", *KINDS[4:]),
        "Option --{option} contradicts --start, which names a scaling: leave out one of them.",
    ),
    Rule(("positive", "negative"), with_start("imbalance"), only("with --start imbalance")),
    Rule(("u0", "v0"), with_start("spectral"), only("with --start spectral")),
    Rule(("lambda0",), with_start("balanced"), only("with --start balanced")),
)

# Of every command, in the order in which they are asked.
RULES: dict[str, tuple[Rule, ...]] = {
    "simulate": (
        *DATA,
        *STARTS,
        STEP,
        SOLVER,
        RTOL,
    ),
    "sequence": (
        *DATA,
        *STARTS,
        Rule(("tasks_seed",), unless("change", "reversed"), only("for fresh or permuted targets")),
        STEP,
        SOLVER,
        RTOL,
    ),
    "audit": (
        Rule(
            PRESET,
            lambda values: not _is_preset(values["preset"]),
            "Option --preset chooses data and starts: leave out --{option}, or --preset.",
        ),
        *DATA,
        Rule(
            ("positive", "negative"),
            lambda values: not set(values["start"]) <= {"gaussian", "balanced"},
            only("with --start imbalance"),
        ),
        Rule(
            ("lambda0",),
            lambda values: not set(values["start"]) <= {"gaussian", "imbalance"},
            only("with --start balanced"),
        ),
        STEP,
        SOLVER,
    ),
    "theorem12": (TARGETS, SUBSET, STEP, SOLVER, RTOL),
    "lemma11": (
        Rule(
            ("inputs", "rank", "outputs"),
            lambda values: values["data"] is None,
            "Option --{option} contradicts --data, which has sizes of its own: leave out one of them.",
        ),
        Rule(
            ("targets", "samples", "subset_seed", "centre"),
            lambda values: values["data"] is not None,
            only("with --data"),
        ),
        TARGETS,
        SUBSET,
        Rule(
            ("step_size", "batch_size", "label_noise", "momentum", "weight_decay"),
            lambda values: values["steps"] != 0,
            only("with --steps"),
        ),
    ),
    "completion": (
        Rule(
            ("shape", "rank"),
            lambda values: values["data"] is None,
            "Option --{option} contradicts --data, which has a size and a rank of its own: leave out one of them.",
        ),
        Rule(("samples",), lambda values: values["data"] is not None, only("with --data")),
        Rule(("subset_seed",), lambda values: values["samples"] is not None, only("with --samples")),
        STEP,
        SOLVER,
        RTOL,
    ),
    "fit-lambda0": (
        Rule(
            ("draw_target",),
            lambda values: data_of(values) == "factorization",
            "Option --draw-target needs matrix factorization: leave it out with other --data.",
        ),
        *DATA,
        Rule(
            ("subset_seed",),
            lambda values: not values["draw_target"],
            only("without --draw-target, which draws by --seed"),
        ),
        Rule(("relative_error",), lambda values: values["horizon"] is None, only("without --horizon")),
    ),
    "commutation": (
        TARGETS._replace(when=lambda values: any(map(is_table, values["data"] or ()))),
        Rule(("subset_seed",), lambda values: values["samples"] is not None, only("with --samples")),
    ),
    "figure": (Rule(("quick", "seed", "out", "html"), unless("name", "list"), only("with the name of a figure")),),
    "phases": (),
    "info": (),
    "show": (),
    "export": (),
    "compare": (),
    "list": (),
}


# The class that all complaints about what was typed have in common.
UsageError: Any = next(cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "UsageError")


@contextlib.contextmanager
def in_one_sentence():
    """What was typed and cannot be read is said as all other bad input is."""
    try:
        yield
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            raise
        text = re.sub(r"\s*\n\s*", " ", error.format_message()).replace("Value error, ", "").rstrip(".")
        path = f"`{error.ctx.command_path} --help`" if error.ctx is not None else "--help"
        raise ValueError(f"{text}{' See' if text.endswith('?') else '; see'} {path}.") from None


class Group(TyperGroup):
    """A group of commands."""

    def parse_args(self, ctx, args: list[str]) -> list[str]:
        with in_one_sentence():
            return super().parse_args(ctx, args)

    def resolve_command(self, ctx, args: list[str]):
        with in_one_sentence():
            return super().resolve_command(ctx, args)


class Checked(TyperCommand):
    """A command whose options are checked against the tables above before it runs; all can do without kept programs."""

    examples: Sequence[str] = ()

    def parse_args(self, ctx, args: list[str]) -> list[str]:
        options = args[: args.index("--")] if "--" in args else args
        _cache.State.wanted = _cache.OPTION not in options
        known = {name for parameter in self.params for name in parameter.opts}
        read = [_spelled(arg, known) for arg in options if arg != _cache.OPTION]
        for name in LISTS:
            count = [arg.partition("=")[0] for arg in read].count(name)
            if count > 1:
                raise ValueError(f"Option {name} is given {count} times: give it once, with commas between its names.")
        with in_one_sentence():
            return super().parse_args(ctx, read + args[len(options) :])

    def get_params(self, ctx) -> list[Any]:
        parameters: list[Any] = self.params
        for parameter in parameters:
            if getattr(parameter, "rich_help_panel", "") is None and parameter.param_type_name == "option":
                parameter.rich_help_panel = _help.PANEL_OF.get(parameter.name, "Study")
        return super().get_params(ctx)

    def format_help(self, ctx, formatter) -> None:
        width, parts = _tables.width_of(sys.stdout), [self, *self.params]
        if width < NARROW:
            self.rich_markup_mode = None
        else:
            for part in parts:
                if getattr(part, "help", None):
                    part.help = _literal(part.help)
        super().format_help(ctx, formatter)
        if self.name not in _cache.WITHOUT:
            formatter.write("\n".join(["", *_tables.wrapped(_cache.SENTENCE, width), ""]))
        if self.examples:
            formatter.write("\n".join(["", "Examples:", *(f"  {line}" for line in self.examples), ""]))

    def invoke(self, ctx) -> Any:
        # Fields of a study of the user's are what they are.
        free = () if self.name in RULES else getattr(self.callback, "fields", ())
        for parameter in self.params:
            if parameter.name not in free:
                check_number(parameter.name, ctx.params.get(parameter.name))
        # Where a study of the user's takes data, as the others do.
        rules = RULES.get(self.name or "", DATA if "data" in ctx.params else ())
        for rule in rules:
            for name in rule.names:
                if is_given(ctx, name) and not rule.when(ctx.params):
                    raise ValueError(rule.sentence.format(option=name.replace("_", "-")))
        try:
            return super().invoke(ctx)
        except ArgumentError as error:
            kinds = {parameter.name: parameter.param_type_name for parameter in self.params}
            if error.argument not in kinds:
                raise
            option = error.argument.replace("_", "-")
            called = f"Option --{option}" if kinds[error.argument] == "option" else f"{self.name} {option.upper()}"
            raise ValueError(f"{called} {error.words}") from error
        except BrokenPipeError as error:
            # Typer would end the process without a word.
            raise _endings.Closed from error


def _literal(text: str) -> str:
    """A help text as it is: whoever wrote it meant brackets where there are brackets, and names between colons."""
    from rich.markup import escape

    # Rich looks for names of emojis between tags, of which this one says nothing.
    return re.sub(r":(?=\w)", ":[none][/none]", escape(text))


def _spelled(argument: str, known: Collection[str]) -> str:
    """An option under its name of today."""
    name, equals, value = argument.partition("=")
    today = _help.ALIASES.get(name, name)
    return today + equals + value if today in known and name not in known else argument


def is_given(context, name: str) -> bool:
    """Whether the user gave this option."""
    return context.get_parameter_source(name).name not in ("DEFAULT", "DEFAULT_MAP")


def check_number(name: str, value: Any) -> None:
    """Refuses a number that is out of bounds whatever the rest; numbers in words are checked where they are read."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or name in FREE:
        return
    option = f"Option --{name.replace('_', '-')}"
    if name in BOUNDS:
        least, most = BOUNDS[name]
        if value < least:
            raise ValueError(f"{option} must be at least {least}, but is {value}.")
        if value > most:
            raise ValueError(f"{option} must be at most {most}, but is {value}.")
    elif name in SHARES:
        if not 0 < value < 1:
            raise ValueError(f"{option} must lie in (0, 1), but is {value:g}.")
    elif not 0 < value < math.inf:
        raise ValueError(f"{option} must be a positive number, but is {value:g}.")
