"""What the command line says of itself: help, examples, choices, versions, and one schema of JSON and CSV."""

import csv
import io
import json
import shlex
import sys
from typing import Annotated

import numpy as np
import pytest
import xarray as xr
from typer.main import get_command

import lindyn_jax as ld
from lindyn_jax import cli
from lindyn_jax.cli import _app, _cache, _checked, _help, _output, _study, simulate

PATHS = sorted(_app.COMMANDS)


@pytest.fixture(scope="module")
def made():
    """Every command by its path, as typer makes it."""
    top = get_command(_app.applications()[0])
    return {path: (top.commands["sweep"] if " " in path else top).commands[path.split()[-1]] for path in PATHS}


def test_every_help_has_groups_and_examples_that_can_be_read(call, made):
    assert set(_help.EXAMPLES) == set(PATHS)
    for path in PATHS:
        code, printed, _ = call(*path.split(), "-h")
        assert code == 0 and all(line in printed for line in _help.EXAMPLES[path]), path
        assert "Output" in printed
        assert ("--no-cache does without" in printed) == (path not in _cache.WITHOUT)
        for line in _help.EXAMPLES[path]:
            words = shlex.split(line.partition(" > ")[0])
            assert words[: 1 + len(path.split())] == ["lindyn-jax", *path.split()]
            context = made[path].make_context(path, words[1 + len(path.split()) :])
            for rule in _checked.RULES[path.split()[-1]]:
                for name in rule.names:
                    assert not _checked.is_given(context, name) or rule.when(context.params), (line, name)


@pytest.mark.parametrize("width", [60, 80])
def test_help_names_every_option_in_full_and_fits_the_screen(width, call, made, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    for path, command in made.items():
        code, printed, _ = call(*path.split(), "--help")
        told, _, examples = printed.partition("Examples:")
        assert code == 0 and "…" not in told and "[none]" not in told
        # Choices are one word.
        assert max(len(line) for line in told.splitlines() if "|" not in line) <= width
        assert all(
            name in told for each in command.params for name in (*each.opts, *each.secondary_opts) if "-" in name
        )
        # An example is one line to copy, however long.
        assert [line.strip() for line in examples.splitlines() if line] == list(_help.EXAMPLES[path])


RUN = [(path, line) for path in PATHS for line in _help.EXAMPLES[path] if _app.COMMANDS[path].runner]


@pytest.mark.parametrize(("path", "line"), RUN, ids=[line.removeprefix("lindyn-jax ") for _, line in RUN])
def test_values_of_examples_make_the_study_that_they_name(path, line, call, monkeypatch, tmp_path):
    made = []

    def read(study, values):
        made.append(_study.read(study, values)[0])

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_study, "run", read)
    monkeypatch.setattr(simulate, "run", read)
    code, _, error = call(*shlex.split(line)[1:])
    assert (code, error) == (0, "")
    assert [type(study).__name__.lower() for study in made] == [_app.COMMANDS[path].place.partition(":")[2].lower()]


class Marked(ld.Study):
    """A study :smile: of [red]brackets[/red] at 1:2:3, :-)"""

    level: Annotated[float, "Level of :cat: and \\alpha [b]x[/b], :warning:"] = 1.0

    def grid(self):
        return {"x": [1.0]}

    def trial(self, key, x):
        return {"x": x}


def test_texts_of_a_users_study_are_printed_letter_by_letter(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "argv", ["own", "--help"])
    with pytest.raises(SystemExit):
        cli.main(Marked)
    printed = capsys.readouterr().out
    for text in (
        "A study :smile: of [red]brackets[/red] at 1:2:3, :-)",
        "Level of :cat: and \\alpha [b]x[/b], :warning:",
    ):
        assert text in printed


def test_every_option_is_in_a_group(made):
    for path, command in made.items():
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.name in _help.PANEL_OF, (path, parameter.name)


def test_version_and_what_cannot_be_read_are_said_in_a_line(call):
    assert call("--version")[:2] == (0, f"lindyn-jax {ld.__version__}\n")
    for arguments, sentence in (
        (("simulat",), "simulate"),
        (("simulate", "--dynamics", "walk"), "'flow', 'descent'"),
        (("simulate", "--points", "x"), "--points"),
        (("simulate", "--nothing"), "--nothing"),
        (("show",), "STORE"),
    ):
        code, printed, error = call(*arguments)
        assert (code, printed, error.count("\n")) == (2, "", 1) and sentence in error and "--help" in error


def test_choices_are_completed(made):
    for path, option, choices in (
        ("simulate", "dynamics", ["flow", "descent"]),
        ("sweep theorem12", "solver", ["auto", "radau", "lie", "tsit5", "dopri8", "kvaerno5"]),
        ("audit", "dynamics", ["flow", "descent", "both"]),
        ("audit", "start", ["gaussian", "balanced", "imbalance"]),
        ("export", "to", ["csv", "netcdf", "parquet"]),
    ):
        (parameter,) = (each for each in made[path].params if each.name == option)
        context = made[path].context_class(made[path])
        assert [item.value for item in parameter.shell_complete(context, "")] == choices, option


def test_earlier_spellings_are_read(made):
    words = ["--loss-scale", "mean", "--until=3", "--data", "gaussian"]
    values = made["simulate"].make_context("simulate", words).params
    assert (values["scale"], values["horizon"]) == ("mean", 3.0)


def test_csv_reads_back_as_the_rows_of_json():
    summary = xr.Dataset(
        {
            "mean": (("width", "kind"), [[0.1, np.nan], [1 / 3, 2.0]]),
            "whole": ((), 7),
            "curve": (("width", "time"), np.ones((2, 3))),
            "part": (("width", "part_index"), [[1.0, 2.0], [3.0, 4.0]]),
        },
        coords={"width": [1.0, 1e9], "kind": ["a[b]", 'c,"d'], "time": [0.0, 1.0, 2.0]},
    )
    known = _output.told("own", {"data": "$x_[1]"}, _output.rows_of(summary, ("width",)), summary={"nan": float("nan")})
    assert list(known) == ["command", "version", "settings", "rows", "summary"] and known["summary"] == {"nan": None}
    assert known["rows"][0] == {
        "width": 1.0,
        "mean_a[b]": 0.1,
        'mean_c,"d': None,
        "whole": 7,
        "part_1": 1.0,
        "part_2": 2.0,
    }
    read = list(csv.DictReader(io.StringIO(_output.as_csv(known["rows"]))))
    assert [{name: json.loads(text or "null") for name, text in row.items()} for row in read] == known["rows"]


def test_csv_and_json_of_a_command_hold_the_same_rows(call, tmp_path):
    file = tmp_path / "$rows_[1].csv"
    code, printed, _ = call("figure", "list", "--json", "--csv", file)
    known = json.loads(printed)
    assert (
        code == 0
        and list(csv.DictReader(io.StringIO(file.read_text()))) == known["rows"]
        and known["version"] == ld.__version__
    )
    assert call("figure", "list", "--csv", "-")[1] == file.read_text()
    code, printed, error = call("figure", "list", "--csv", "-", "--json")
    assert (code, printed) == (2, "") and "leave out one" in error
    code, printed, error = call("figure", "list", "--csv", tmp_path / "no" / "file.csv")
    assert (code, printed) == (2, "") and "its folder is not there" in error


def test_a_trajectory_of_other_settings_is_not_written_over(call, tmp_path):
    folder = tmp_path / "out"
    (folder / "trajectory.zarr").mkdir(parents=True)
    for attributes, said in (
        ({"options": {"data": "digits"}}, "data is digits there and gaussian here"),
        ({}, "version"),
    ):
        (folder / "trajectory.zarr" / "zarr.json").write_text(json.dumps({"attributes": attributes}))
        code, printed, error = call("simulate", "--width", 4, "--points", 3, "--out", folder)
        assert (code, printed) == (2, "") and said in error and "which would be lost: choose another --out" in error
