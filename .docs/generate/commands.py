"""The command line: every command with its arguments and options, read from the functions that Typer calls."""

import html
import inspect
import re
from enum import Enum
from typing import Literal, get_args, get_origin


def commands() -> str:
    """Every command with its arguments and options, read from the functions that Typer calls."""
    from lindyn_jax.cli import app

    text = re.sub(r"^(lindyn-jax .*)$", r"```sh\n\1\n```", inspect.cleandoc(app.info.help), flags=re.MULTILINE)
    return "\n\n".join([text, *parts_of(app, "lindyn-jax")])


def parts_of(app, name: str):
    """Sections of the commands of a Typer app and of the apps below it."""
    for one in app.registered_commands:
        yield from command(one.callback, f"{name} {one.name}")
    for group in app.registered_groups:
        yield f"## {name} {group.name}\n\n{inspect.cleandoc(group.typer_instance.info.help)}"
        yield from parts_of(group.typer_instance, f"{name} {group.name}")


def command(function, name: str):
    """The section of one command, with its examples."""
    from lindyn_jax.cli._help import EXAMPLES

    # A parameter without option or argument is Typer's own context.
    signature = inspect.signature(function).parameters.items()
    parameters = [Parameter(*item) for item in signature if get_args(item[1].annotation)]
    arguments = [f"[{parameter.label}]" for parameter in parameters if parameter.is_argument]
    yield f"{'#' * (1 + name.count(' '))} {name}"
    yield inspect.getdoc(function)
    usage = " ".join([name, *arguments, *(["[OPTIONS]"] if len(arguments) < len(parameters) else [])])
    yield "\n".join(["```sh", usage, "", *EXAMPLES[name.removeprefix("lindyn-jax ")], "```"])
    if parameters:
        rows = [
            f"| {parameter.names} | {parameter.kind} | {parameter.meaning} | {parameter.default} |"
            for parameter in parameters
        ]
        yield "\n".join(["{.options}", "| option | value | meaning | default |", "|---|---|---|---|", *rows])


class Parameter:
    """One parameter of a command's function, as a row of a table."""

    def __init__(self, name: str, parameter: inspect.Parameter):
        annotation, self.info = get_args(parameter.annotation)
        self.label = name.upper()
        self.is_argument = type(self.info).__name__ == "ArgumentInfo"
        self.is_flag = annotation is bool
        kinds = [kind for kind in (get_args(annotation) or (annotation,)) if kind is not type(None)]
        self.kind = "flag" if self.is_flag else kind_of(kinds)
        # Typer takes the first of the given names for a default.
        given = (self.info.default, *(self.info.param_decls or ()))
        options = [name for name in given if isinstance(name, str) and name.startswith("--")]
        if not options:
            dashed = name.replace("_", "-")
            options = [f"--{dashed}", f"--no-{dashed}"] if self.is_flag else [f"--{dashed}"]
        self.names = f"`{self.label}`" if self.is_argument else ", ".join(f"`{option}`" for option in options)
        self.meaning = html.escape(" ".join((self.info.help or "").split()), quote=False).replace("|", "\\|")
        value = self.info.show_default if isinstance(self.info.show_default, str) else parameter.default
        if value is parameter.empty:
            value = "required"
        if self.is_flag:
            value = {True: "on", False: ""}[value]
        self.default = (
            "" if value is None else " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        )


def kind_of(kinds: list) -> str:
    """What a value is: its choices, or the name of its type."""
    kinds = [one for kind in kinds for one in (get_args(kind) if get_origin(kind) is Literal else [kind])]
    if isinstance(kinds[0], str):
        return ", ".join(f"`{choice}`" for choice in kinds)
    if issubclass(kinds[0], Enum):
        return ", ".join(f"`{choice.value}`" for choice in kinds[0])
    return {"str": "text", "float": "number"}.get(kinds[0].__name__, kinds[0].__name__)
