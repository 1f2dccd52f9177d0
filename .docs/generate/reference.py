"""One page a public name, from its signature as it is written and its docstring, which is Markdown already.

The pages of `api` say what is public, in groups: a line `::: exact.linear` names what a user reaches as `ld.exact.linear`. There
it becomes a row of a table with the first sentence of the docstring, or the whole docstring, if it is a module's.
"""

import ast
import functools
import html
import importlib
import inspect
import re
import textwrap
from pathlib import Path

API = Path(__file__).parent.parent / "pages" / "api"
DIRECTIVE = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)
BLOCK = re.compile(r"^::: [\w.]+$(?:\n+::: [\w.]+$)*", re.MULTILINE)


def public(name: str):
    """The object that a user reaches as `lindyn_jax.NAME`; modules on the way are imported."""
    value, path = importlib.import_module("lindyn_jax"), "lindyn_jax"
    for part in name.split("."):
        path += f".{part}"
        if not hasattr(value, part):
            try:
                importlib.import_module(path)
            except ImportError as error:
                raise LookupError(f"The documentation names lindyn_jax.{name}, which does not exist.") from error
        value = getattr(value, part)
    return value


@functools.cache
def groups() -> dict[str, list[str]]:
    """Name of a page of `api` and the public names on it, modules left out."""
    texts = {path.stem: with_observables(path.read_text()) for path in sorted(API.glob("*.md"))}
    return {
        page: [name for name in DIRECTIVE.findall(text) if not inspect.ismodule(public(name))]
        for page, text in texts.items()
    }


@functools.cache
def addresses() -> dict[str, str]:
    """Public name and the name of its page: the same, unless two names differ in capitals only, as file systems see them."""
    names = [name for group in groups().values() for name in group]
    lower = [name.lower() for name in names]
    return {
        name: f"{name}-class" if lower.count(name.lower()) > 1 and inspect.isclass(public(name)) else name
        for name in names
    }


def target(word: str, group: str | None = None) -> str | None:
    """The page on which a name in code font is explained; a short name means the one of its group."""
    name = word.removeprefix("ld.").removeprefix("lindyn_jax.")
    near = [one for one in groups().get(group, []) if one.rpartition(".")[2] == name]
    found = near[0] if len(near) == 1 else name
    return f"reference/{addresses()[found]}" if found in addresses() else None


# -- pages ---------------------------------------------------------------------------------------------------------------


def pages() -> dict[str, str]:
    """Name and text of the page of every public name."""
    return {addresses()[name]: page(name, group) for group, names in groups().items() for name in names}


def page(name: str, group: str) -> str:
    """The page of one public name."""
    value = public(name)
    module, _, last = f"lindyn_jax.{name}".rpartition(".")
    kind, parts = ("class", of_class(value)) if inspect.isclass(value) else ("function", [])
    signature = of_init(value) if kind == "class" else of_function(value)
    body = "\n\n".join(
        [
            markdown(inspect.getdoc(value) or ""),
            *(member(*part).replace("MODULE", module) for part in parts),
            *(inherited(value) if kind == "class" else ()),
        ]
    )
    # The group is what a short name in code font refers to.
    head = f"---\ngroup: {group}\n---\n\n# {name}\n\n"
    return f"{head}::::{{py:{kind}}} {last}{signature}\n:module: {module}\n\n{body}\n::::\n"


def member(name: str, kind: str, signature: str, text: str) -> str:
    return f":::{{py:{kind}}} {name}{signature}\n:module: MODULE\n\n{markdown(text)}\n:::"


def markdown(text: str) -> str:
    """A docstring with its indented blocks of code as fenced ones, and the examples named as the other parts are."""
    lines, out, before = re.sub(r"^Examples?:$", r"**Example:**", text, flags=re.MULTILINE).split("\n"), [], ""
    while lines:
        line = lines.pop(0)
        indented = line.startswith("    ")
        if not indented or out[-1:] != [""] or re.match(r"[-*] |\d+\. ", before):
            out.append(line)
            before = line if line and not line[0].isspace() else before
            continue
        block = [line]
        while lines and (not lines[0] or lines[0].startswith("    ")):
            block.append(lines.pop(0))
        code = textwrap.dedent("\n".join(block)).strip("\n")
        out += [f"```{'pycon' if code.startswith('>>>') else 'python'}", code, "```", ""]
    return "\n".join(out).strip()


# -- signatures as they are written --------------------------------------------------------------------------------------


def of_function(function) -> str:
    """`(A: Float[Array, "p p"], *, key) -> Array` of a function, decorators left aside."""
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
    return written(ast.parse(source).body[0], source)


@functools.cache
def lines_of(source: str) -> list[bytes]:
    return source.encode().split(b"\n")


def segment(source: str, node) -> str:
    """A part of the source as it is written, in one line. That of `ast` splits the whole source for each."""
    lines = lines_of(source)[node.lineno - 1 : node.end_lineno]
    lines[-1] = lines[-1][: node.end_col_offset]
    lines[0] = lines[0][node.col_offset :]
    return " ".join(b" ".join(lines).decode().split())


def written(node: ast.FunctionDef, source: str, skip: int = 0) -> str:
    """The signature of a definition, without its first `skip` parameters."""

    def text(part) -> str:
        return segment(source, part)

    def one(argument, default=None) -> str:
        kind = f": {text(argument.annotation)}" if argument.annotation else ""
        equals = " = " if kind else "="
        return argument.arg + kind + (f"{equals}{text(default)}" if default is not None else "")

    of = node.args
    positional = [*of.posonlyargs, *of.args]
    defaults = [None] * (len(positional) - len(of.defaults)) + of.defaults
    parameters = [one(*pair) for pair in zip(positional, defaults, strict=True)]
    if of.posonlyargs:
        parameters.insert(len(of.posonlyargs), "/")
    parameters = parameters[skip:]
    if of.vararg:
        parameters.append(f"*{one(of.vararg)}")
    elif of.kwonlyargs:
        parameters.append("*")
    parameters += [one(*pair) for pair in zip(of.kwonlyargs, of.kw_defaults, strict=True)]
    if of.kwarg:
        parameters.append(f"**{one(of.kwarg)}")
    return f"({', '.join(parameters)})" + (f" -> {text(node.returns)}" if node.returns else "")


@functools.cache
def class_source(cls) -> tuple[str, ast.ClassDef]:
    source = textwrap.dedent(inspect.getsource(cls))
    return source, ast.parse(source).body[0]


def bases(cls):
    """The classes of this package that a class is made of, itself first."""
    return [one for one in cls.__mro__ if one.__module__.startswith("lindyn_jax")]


def of_init(cls) -> str:
    """The signature of a class: of its `__init__`, or of its fields."""
    for one in bases(cls):
        source, tree = class_source(one)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                return written(node, source, skip=1).partition(" -> ")[0]
    if inspect.isabstract(cls):
        return ""
    try:
        taken = inspect.signature(cls).parameters.values()
    except (TypeError, ValueError):
        return ""
    kinds = {}
    for one in reversed(bases(cls)):
        source, tree = class_source(one)
        for node in tree.body:
            if isinstance(node, ast.AnnAssign):
                kinds[node.target.id] = segment(source, node.annotation)
    parameters, keywords = [], False
    for parameter in taken:
        if parameter.kind is parameter.KEYWORD_ONLY and not keywords:
            parameters.append("*")
            keywords = True
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        kind = f": {kinds[parameter.name]}" if parameter.name in kinds else ""
        default = "" if parameter.default is parameter.empty else f"{' = ' if kind else '='}{shown(parameter.default)}"
        parameters.append(f"{stars}{parameter.name}{kind}{default}")
    return f"({', '.join(parameters)})"


def shown(value) -> str:
    """A default, if it is short and can be written down."""
    text = repr(value)
    return "..." if "<" in text or len(text) > 60 else text


def of_class(cls):
    """Name, kind, signature and docstring of the public members that a class defines and explains itself."""
    source, tree = class_source(cls)
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
            continue
        decorators = {ast.unparse(one).rpartition(".")[2] for one in node.decorator_list}
        text = ast.get_docstring(node)
        if not text or "overload" in decorators:
            continue
        if decorators & {"property", "cached_property"}:
            kind = f"\n:type: {segment(source, node.returns)}" if node.returns else ""
            yield node.name, "property", kind, text
        else:
            yield node.name, "method", written(node, source, skip="staticmethod" not in decorators), text


def inherited(cls):
    """A table of the properties that a class has from those it is made of."""
    seen = set(vars(cls))
    rows = []
    for base in bases(cls)[1:]:
        found = [part for part in of_class(base) if part[1] == "property" and part[0] not in seen]
        rows += [f"| `{name}` | {first_sentence(text)} |" for name, _, _, text in found]
        seen |= set(vars(base))
    if rows:
        yield "\n".join(["**Further properties:**", "", "{.names}", "| name | what it is |", "|---|---|", *rows])


# -- groups --------------------------------------------------------------------------------------------------------------


def tables(text: str) -> str:
    """A page with its directives in place: tables of names, docstrings of modules, and where the pages of the names are."""
    names = [name for name in DIRECTIVE.findall(text) if not inspect.ismodule(public(name))]
    text = BLOCK.sub(lambda match: block(DIRECTIVE.findall(match[0])), text)
    if names:
        listed = "\n".join(f"{name} </reference/{addresses()[name]}>" for name in names)
        text += f"\n\n```{{toctree}}\n:hidden:\n\n{listed}\n```\n"
    return text


def block(names: list[str]) -> str:
    parts: list[list[str]] = [[]]
    for name in names:
        value = public(name)
        if inspect.ismodule(value):
            parts += [[markdown(inspect.getdoc(value))], []]
        else:
            parts[-1] += [] if parts[-1] else ["{.names}", "| name | what it is |", "|---|---|"]
            parts[-1].append(f"| `{name}` | {sentence(value)} |")
    return "\n\n".join("\n".join(part) for part in parts if part)


def sentence(value) -> str:
    """The first sentence of a docstring, as a cell of a table."""
    return first_sentence(inspect.getdoc(value) or "")


def first_sentence(text: str) -> str:
    first = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=[.:]) (?=[A-Z`])", first)[0].rstrip(":").replace("|", "\\|")


def with_observables(text: str) -> str:
    return text.replace("<!-- observables -->", observables()) if "<!-- observables -->" in text else text


@functools.cache
def observables() -> str:
    """Every observable of the package, as it was registered: a table, and the directives of those that are public functions."""
    table = public("observables")
    kind_words = importlib.import_module("lindyn_jax.observables.registry").kind_words
    rows = ["| name | symbol | what it is | defined for | needs the start | source |", "|---|---|---|---|---|---|"]
    for name, function in table.OBSERVABLES.items():
        facts = function.facts
        # A bar ends a cell of a table.
        symbol = facts.symbol.replace(r"\|", r"\Vert ").replace("|", r"\vert ")
        kinds = [f"`{kind.__name__}`" if isinstance(kind, type) else kind_words(kind) for kind in facts.kinds]
        label = html.escape(facts.label.replace("|", "\\|"), quote=False)
        start = "yes" if facts.needs_start else ""
        rows.append(f"| `{name}` | {symbol} | {label} | {', '.join(kinds) or 'all'} | {start} | {facts.source} |")
    named = [f"::: observables.{name}" for name in table.OBSERVABLES if name in table.__all__]
    return "\n".join([*rows, "", *named])
