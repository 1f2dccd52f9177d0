"""What is shipped: the typed package, one version everywhere, a citation of the five papers."""

import inspect
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import yaml
from typer.testing import CliRunner

import lindyn_jax as ld
from lindyn_jax.cli import app
from lindyn_jax.cli._app import COMMANDS

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_version_is_the_same_everywhere():
    citation = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)[1]
    changes = (ROOT / "CHANGELOG.md").read_text()
    newest = re.search(r"^## (?!Unreleased$)(.+)$", changes, re.MULTILINE)[1]
    assert ld.__version__ == PROJECT["project"]["version"] == citation == newest == version("lindyn_jax")


def test_citation_names_the_five_papers_and_the_licence():
    citation = (ROOT / "CITATION.cff").read_text()
    assert citation.startswith("cff-version: 1.2.0\n")
    assert len(re.findall(r"^  - type: ", citation, re.MULTILINE)) == 5
    assert all(f"notes: {name}" in citation for name in ("T21", "M21", "M22", "G19"))
    assert f"license: {PROJECT['project']['license']}\n" in citation


def test_citation_has_what_its_format_asks_for_and_awaits_a_doi():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "type", "authors", "version", "license"} <= set(citation)
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    works = [citation, *citation["references"]]
    for work in works:
        assert work["authors"] and work["title"]
        for author in work["authors"]:
            assert set(author) == {"name"} or {"family-names", "given-names"} <= set(author)
    # One that is given is one of this form; none is made up.
    dois = [work["doi"] for work in works if "doi" in work]
    dois += [one["value"] for work in works for one in work.get("identifiers", []) if one["type"] == "doi"]
    assert all(re.fullmatch(r"10\.\d{4,9}/\S+", doi) for doi in dois)


def test_everything_in_the_package_is_shipped_with_the_types_marked():
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["lindyn_jax"]}
    assert (Path(ld.__file__).parent / "py.typed").is_file()
    assert PROJECT["project"]["license-files"] == ["LICENSE"]
    assert "Typing :: Typed" in PROJECT["project"]["classifiers"]


def test_extras_hold_what_the_tests_and_the_site_need():
    extras = PROJECT["project"]["optional-dependencies"]
    assert "lindyn_jax[data]" in extras["test"]
    assert {"sphinx", "myst-parser", "pydata-sphinx-theme"} <= {re.split("[<>=]", name)[0] for name in extras["docs"]}


def test_help_of_the_command_line_names_exit_codes_and_explains_every_option():
    shown = CliRunner().invoke(app, ["--help"]).output
    assert "Exit codes: 0 done" in " ".join(shown.split())
    groups = [app, *(group.typer_instance for group in app.registered_groups)]
    commands = [command for group in groups for command in group.registered_commands]
    assert len(commands) >= 8
    shown = {command.name: inspect.getdoc(command.callback).partition("\n")[0] for command in commands}
    assert shown == {path.split()[-1]: late.text for path, late in COMMANDS.items()}
    for command in commands:
        assert inspect.getdoc(command.callback), command.name
        for name, parameter in inspect.signature(command.callback).parameters.items():
            if found := get_args(parameter.annotation):
                assert found[1].help, (command.name, name)


def test_info_tells_versions_devices_precision_and_cache(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-m", "lindyn_jax", "info", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": "", "JAX_COMPILATION_CACHE_DIR": str(tmp_path)},
    )
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert told["versions"]["lindyn_jax"] == ld.__version__
    assert told["float"] == "float64"
    assert told["devices"] >= 1
    assert told["compilation_cache"]["folder"] == str(tmp_path)


def test_what_is_left_to_the_long_suite_exists():
    folder = Path(__file__).parent
    names = re.findall(r"^(\w+)::(\w+)", (folder / "long.txt").read_text(), re.MULTILINE)
    assert len(names) > 50
    missing = [name for file, name in names if f"\ndef {name}(" not in (folder / f"test_{file}.py").read_text()]
    assert not missing
