"""The documentation names everything that is public and nothing else."""

import importlib
import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lindyn_jax as ld

ROOT = Path(__file__).parent.parent
DOCS = ROOT / ".docs"
PAGES = DOCS / "pages"
# Directives that a page takes from the table of observables.
OBSERVABLES = "\n".join(
    f"::: observables.{name}" for name in ld.observables.OBSERVABLES if name in ld.observables.__all__
)
REFERENCE = {
    path.stem: path.read_text().replace("<!-- observables -->", OBSERVABLES)
    for path in sorted((PAGES / "api").glob("*.md"))
}
DIRECTIVES = [name for text in REFERENCE.values() for name in re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE)]
# With `__all__` that is what is public; without, what a module defines itself.
FAMILIES = ("", "data", "exact", "fits", "init", "observables", "plots", "studies", "figures", "theory")


def resolve(name):
    """`lindyn_jax.NAME`, modules on the way imported."""
    value, path = ld, "lindyn_jax"
    for part in name.split("."):
        path += f".{part}"
        if not hasattr(value, part):
            importlib.import_module(path)
        value = getattr(value, part)
    return value


def public(family):
    """Public names of a module and what they stand for."""
    module = resolve(family) if family else ld
    if hasattr(module, "__all__"):
        return {name: getattr(module, name) for name in module.__all__}
    own = {name: value for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__}
    return {name: value for name, value in own.items() if not name.startswith("_") and has_docstring(value)}


def has_docstring(value):
    return inspect.isfunction(value) or inspect.isclass(value) or hasattr(value, "__wrapped__")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_public_name_is_in_the_reference(family):
    documented = [resolve(name) for name in DIRECTIVES]
    text = "\n".join(REFERENCE.values())
    missing = []
    for name, value in public(family).items():
        full = f"{family}.{name}".lstrip(".")
        if inspect.ismodule(value):
            continue
        there = any(value is one for one in documented) if has_docstring(value) else f"`ld.{full}`" in text
        if not there:
            missing.append(full)
    assert public(family)
    assert not missing


def test_every_name_in_the_reference_exists_once():
    assert len(set(DIRECTIVES)) == len(DIRECTIVES)
    for name in DIRECTIVES:
        assert inspect.getdoc(resolve(name)), name


def test_sections_that_pages_take_from_the_readme_are_there():
    headings = re.findall(r"^## (.+)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    wanted = [
        name for path in PAGES.glob("*.md") for name in re.findall(r"^<!-- readme: (.+) -->$", path.read_text(), re.M)
    ]
    assert set(wanted) <= set(headings)


def test_every_name_in_the_reference_exists_after_one_import():
    # In a fresh process: what other tests have imported exists already.
    program = (
        "import functools, lindyn_jax as ld\n"
        f"names = {DIRECTIVES!r}\n"
        "for name in names:\n"
        "    functools.reduce(getattr, name.split('.'), ld)\n"
        "print(len(names))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) == len(DIRECTIVES) > 200
