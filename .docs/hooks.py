"""What the pages need from the package: directives by public name, the command line's options, the README, the notebooks.

A page writes `::: exact.linear`, the name a user writes after `ld.`; here it becomes the place where the object is defined,
which mkdocstrings reads, under the name that a user types. Everything else is generated from its one source as well, so that
no page can say what the code does not.
"""

import html
import importlib
import inspect
import json
import re
from pathlib import Path
from typing import get_args

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
DIRECTIVE = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)
README = re.compile(r"^<!-- readme: (.+) -->$", re.MULTILINE)
INCLUDED = re.compile(r"^<!-- file: (.+) -->$", re.MULTILINE)
COMMANDS = re.compile(r"^<!-- commands -->$", re.MULTILINE)
OBSERVABLES = re.compile(r"^<!-- observables -->$", re.MULTILINE)
CODE = re.compile(r"(?<!<pre>)<code>([\w.]+)</code>")

# Public name -> where it is defined, for the links of names in code font; filled while the pages are read.
documented: dict[str, str] = {}


def on_files(files, config):
    """One page for each notebook of the repository."""
    documented.clear()
    for page in sorted((ROOT / ".docs" / "pages" / "api").glob("*.md")):
        for name in DIRECTIVE.findall(with_observables(page.read_text())):
            documented[name] = definition(name)
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=notebook(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Fills in directives, sections of the README and the command line's reference."""
    markdown = DIRECTIVE.sub(lambda match: directive(match[1]), with_observables(markdown))
    markdown = README.sub(lambda match: readme_section(match[1]), markdown)
    markdown = INCLUDED.sub(lambda match: (ROOT / match[1]).read_text(), markdown)
    return COMMANDS.sub(lambda match: commands(), markdown)


def on_page_content(content, page, config, files):
    """Links public names in code font to their documentation; a short name means the one on its own page."""
    source = ROOT / ".docs" / "pages" / page.file.src_uri
    here = DIRECTIVE.findall(with_observables(source.read_text())) if source.is_file() else []
    short = [name.rpartition(".")[2] for name in here]
    near = {last: documented[name] for name, last in zip(here, short, strict=True) if short.count(last) == 1}

    def link(match):
        name = match[1].removeprefix("ld.").removeprefix("lindyn_jax.")
        known = near.get(name) or documented.get(name)
        return match[0] if known is None else f'<autoref identifier="{known}" optional>{match[0]}</autoref>'

    return CODE.sub(link, content)


def with_observables(markdown: str) -> str:
    """Where a page asks for the observables: a table of all, and the directives of those that are public functions."""
    return OBSERVABLES.sub(lambda match: observables(), markdown)


def observables() -> str:
    """Every observable of the package, as it was registered."""
    table = importlib.import_module("lindyn_jax").observables
    kind_words = importlib.import_module("lindyn_jax.observables.registry").kind_words
    rows = ["| name | symbol | what it is | defined for | needs the start | source |", "|---|---|---|---|---|---|"]
    for name, facts in ((name, function.facts) for name, function in table.OBSERVABLES.items()):
        symbol, label = (text.replace("|", "\\|") for text in (facts.symbol.replace("$", "`"), facts.label))
        kinds = (
            ", ".join(f"`{kind.__name__}`" if isinstance(kind, type) else kind_words(kind) for kind in facts.kinds)
            or "all"
        )
        start = "yes" if facts.needs_start else ""
        rows.append(f"| `{name}` | {symbol} | {html.escape(label, quote=False)} | {kinds} | {start} | {facts.source} |")
    named = [f"::: observables.{name}" for name in table.OBSERVABLES if name in table.__all__]
    return "\n".join([*rows, "", *named])


def public(name: str):
    """The object that a user reaches as `lindyn_jax.NAME`; modules on the way are imported."""
    value = importlib.import_module("lindyn_jax")
    path = "lindyn_jax"
    for part in name.split("."):
        path += f".{part}"
        if not hasattr(value, part):
            try:
                importlib.import_module(path)
            except ImportError as error:
                raise PluginError(f"The documentation names lindyn_jax.{name}, which does not exist.") from error
        value = getattr(value, part)
    return value


def definition(name: str) -> str:
    """Where the object of a public name is defined: `lindyn_jax.exact.linear.linear` for `exact.linear`."""
    value = public(name)
    if inspect.ismodule(value):
        return value.__name__
    if inspect.isclass(value) or inspect.isfunction(value) or hasattr(value, "__wrapped__"):
        return f"{value.__module__}.{value.__qualname__}"
    return f"lindyn_jax.{name}"


def directive(name: str) -> str:
    """The mkdocstrings directive of a public name; a module contributes its docstring only."""
    options = ["show_root_heading: false", "show_root_toc_entry: false", "members: false"]
    if not inspect.ismodule(public(name)):
        options = [f'heading: "ld.{name}"', f'toc_label: "{name}"']
    lines = "\n".join(f"        {option}" for option in options)
    return f"::: {definition(name)}\n    options:\n{lines}\n"


def readme_section(title: str) -> str:
    """The text of one section of the README, without its heading."""
    text = (ROOT / "README.md").read_text()
    match = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if match is None:
        raise PluginError(f"README.md has no section `## {title}`, which a page includes.")
    return match[1].strip()


# -- the command line ----------------------------------------------------------------------------------------------------


def commands() -> str:
    """Every command with its arguments and options, read from the functions that Typer calls."""
    from lindyn_jax.cli import app

    return "\n\n".join([inspect.cleandoc(app.info.help), *parts_of(app, "lindyn-jax")])


def parts_of(app, name: str):
    """Sections of the commands of a Typer app and of the apps below it."""
    for one in app.registered_commands:
        yield from command(one.callback, f"{name} {one.name}")
    for group in app.registered_groups:
        yield f"## {name} {group.name}\n\n{inspect.cleandoc(group.typer_instance.info.help)}"
        yield from parts_of(group.typer_instance, f"{name} {group.name}")


def command(function, name: str):
    """The section of one command."""
    # A parameter without option or argument is Typer's own context.
    signature = inspect.signature(function).parameters.items()
    parameters = [Parameter(*item) for item in signature if get_args(item[1].annotation)]
    arguments = [f"[{parameter.label}]" for parameter in parameters if parameter.is_argument]
    yield f"{'#' * (1 + name.count(' '))} {name}"
    yield inspect.getdoc(function)
    yield f"```sh\n{' '.join([name, *arguments, '[OPTIONS]' if len(arguments) < len(parameters) else ''])}\n```"
    if parameters:
        rows = [
            f"| {parameter.names} | {parameter.kind} | {parameter.meaning} | {parameter.default} |"
            for parameter in parameters
        ]
        yield "\n".join(["| option | value | meaning | default |", "|---|---|---|---|", *rows])


class Parameter:
    """One parameter of a command's function, as a row of a table."""

    def __init__(self, name: str, parameter: inspect.Parameter):
        annotation, self.info = get_args(parameter.annotation)
        self.label = name.upper()
        self.is_argument = type(self.info).__name__ == "ArgumentInfo"
        self.is_flag = annotation is bool
        kinds = [kind for kind in (get_args(annotation) or (annotation,)) if kind is not type(None)]
        self.kind = (
            "flag" if self.is_flag else {"str": "text", "float": "number"}.get(kinds[0].__name__, kinds[0].__name__)
        )
        # Typer takes the first of the given names for a default.
        given = (self.info.default, *(self.info.param_decls or ()))
        options = [name for name in given if isinstance(name, str) and name.startswith("--")]
        if not options:
            dashed = name.replace("_", "-")
            options = [f"--{dashed}", f"--no-{dashed}"] if self.is_flag else [f"--{dashed}"]
        self.names = f"`{self.label}`" if self.is_argument else ", ".join(f"`{option}`" for option in options)
        self.meaning = html.escape(" ".join((self.info.help or "").split()), quote=False).replace("|", "\\|")
        value = self.info.show_default if isinstance(self.info.show_default, str) else parameter.default
        if self.is_flag:
            value = {True: "on", False: ""}[value]
        self.default = (
            "" if value is None else " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        )


# -- notebooks -----------------------------------------------------------------------------------------------------------


def notebook(path: Path) -> str:
    """A notebook as Markdown: its text, its code, and the outputs saved in it."""
    cells = json.loads(path.read_text())["cells"]
    parts = [part for cell in cells for part in cell_parts(cell)]
    return "\n\n".join([*parts, f"*From `notebooks/{path.name}`, which the tests run.*", ""])


def cell_parts(cell):
    source = "".join(cell["source"])
    if cell["cell_type"] != "code":
        yield source
        return
    yield f"```python\n{source}\n```"
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "image/png" in data:
            yield f'<p><img alt="figure" src="data:image/png;base64,{"".join(data["image/png"]).strip()}"></p>'
        elif text := "".join(output.get("text", data.get("text/plain", []))):
            yield f"```text\n{text.rstrip()}\n```"
