"""Tables of the command line at every width: all keys, no number cut, text of users letter by letter."""

import io
import re
from typing import Annotated

import jax
import matplotlib.figure
import numpy as np
import pytest
import xarray as xr
from helpers import assert_fits
from rich.cells import cell_len
from rich.console import Console

import lindyn_jax as ld
from lindyn_jax import plots
from lindyn_jax.cli import _tables
from lindyn_jax.statistics import frequency
from lindyn_jax.studies.study import Table

WIDTHS = (60, 80, 100, 200)
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?!\w)")


def printed(parts, width: int) -> str:
    file = io.StringIO()
    _tables.show(Console(file=file, width=width, markup=False, emoji=False, highlight=False), parts)
    return file.getvalue()


def random_table(columns: int, rows: int, named: int, seed: int = 0) -> Table:
    rng = np.random.default_rng(seed)
    cells = [[f"{10 ** rng.normal(0, 3):.5g}" for _ in range(columns)] for _ in range(rows)]
    names = tuple(f"number {i}" for i in range(columns))
    return Table("A title that is longer than narrow screens are, which is why it is broken", names, cells, named=named)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("columns", [2, 5, 14, 30])
def test_every_part_fits_begins_with_the_keys_and_cuts_no_number(width, columns):
    table = random_table(columns, 4, named=2)
    text = printed([table], width)
    assert max(map(cell_len, text.splitlines())) <= width
    heads = {str(i) for i in range(columns)}
    assert set(NUMBER.findall(text)) - heads == {cell for row in table.rows for cell in row} - heads
    lines = [line.split() for line in text.splitlines()]
    starts = [[line[:2] for line in lines].count(row[:2]) for row in table.rows]
    # Each row once in every part, after its keys.
    assert len(set(starts)) == 1 and starts[0] == len(re.findall("^─+$", text, re.MULTILINE))


@pytest.mark.parametrize("width", WIDTHS)
def test_words_are_broken_between_words_and_paths_anywhere(width):
    path = "/a/folder/" + "x" * 70 + "/sweep.zarr"
    sentence = "what is drawn, in a sentence that is longer than a narrow screen has columns for a sentence"
    table = Table("", ("store", "what", "trials"), [(path, sentence, "1234567890")], ("store", "what"))
    text = printed([table, table._replace(rows=[*table.rows, ("b", "c", "2")])], width)
    assert max(map(cell_len, text.splitlines())) <= width and text.count("1234567890") == 2
    letters = "".join(text.split())
    if width == 200:
        assert text.count(path) == text.count(sentence) == 2
    assert letters.count("x") >= 140 and all(f"{word}" in text for word in sentence.split())


def test_keys_are_broken_after_other_words_and_sentences_begin_where_they_do():
    rows = [
        ["a/rather/long/path/to/a/sweep.zarr", "a sentence that is as long as half a screen", f"{i}"] for i in range(2)
    ]
    text = printed([Table("", ("store", "what is there", "n"), rows, ("store", "what is there"), named=1)], 60)
    assert text.count(rows[0][0]) == 2 and max(map(cell_len, text.splitlines())) <= 60
    text = printed(
        [Table("", ("store", "n"), [("a/rather_long/path/to/a_store/sweep.zarr", "1"), ("b", "2")], ("store",))], 25
    )
    assert [line[:22].strip() for line in text.splitlines()[3:6]] == [
        "a/rather_long/path/to/",
        "a_store/sweep.zarr",
        "b",
    ]
    numbers = ["[-2.1041711145459047e-08, 1]", "-5.924141426434033e-100"]
    text = printed(
        [Table("", ("setting", "one", "two"), [["a.long.name.of.a.setting", *numbers]] * 2, ("setting", "one", "two"))],
        60,
    )
    assert text.count("-2.1041711145459047e-08,") == text.count(numbers[1]) == 2
    assert _tables.wrapped("  word:   one two", 12, indent=10) == ["  word:", " " * 10 + "one", " " * 10 + "two"]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_row_alone_or_with_keys_as_wide_as_the_screen_turns_sideways(width):
    row = [f"{i}.123456789012345" for i in range(20)]
    text = printed([Table("", tuple(f"number {i}" for i in range(20)), [row], named=1)], width)
    assert [line.split() for line in text.splitlines() if line] == [["number", str(i), x] for i, x in enumerate(row)]
    keys = Table("", tuple("abcdefg"), [[f"{i}.1234567890123456789012345" for i in range(7)]] * 2, named=6)
    text = printed([keys], width)
    assert ("─" in text) == (width == 200) and text.count("6.1234567890123456789012345") == 2


def test_markup_wide_letters_and_terminal_codes_are_printed_and_measured_as_they_are():
    odd = ["[bold]x[/bold]", "$\\alpha_1$", ":smile:", "日本語", "\x1b[1m\n\udcff"]
    table = Table("[red]title[/red]", ("[b]name", "n"), [(name, "1") for name in odd], ("[b]name",))
    text = printed([table, "[i]a sentence"], 60)
    assert "[red]title[/red]" in text and "[b]name" in text and "[i]a sentence" in text
    assert all(name in text for name in odd[:4]) and r"\x1b[1m\n\udcff" in text
    rows = [line for line in text.splitlines() if line.endswith("1")]
    assert len(rows) == 5 and len({cell_len(line) for line in rows}) == 1


def test_sections_are_set_apart_and_no_row_is_no_fault():
    text = printed([Table("", ("a", "b"), [("1", "2"), None, ("3", "4")])], 60)
    assert [line.split() for line in text.splitlines()][3:6] == [["1", "2"], [], ["3", "4"]]
    assert "a" in printed([Table("", ("a", "b"), [])], 60)


def test_a_pipe_is_as_wide_as_columns_says_and_100_where_it_says_nothing(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert _tables.width_of(io.StringIO()) == 100
    for text, width in (("60", 60), ("", 100), ("many", 100), ("1", 20)):
        monkeypatch.setenv("COLUMNS", text)
        assert _tables.width_of(io.StringIO()) == width


def test_the_picture_of_events_shows_failures_on_a_scale_that_tells_them_from_none():
    values = {"level_is_large": [[0.0, 0.93, 1.0]] * 2, "coupling_is_small": [[0.9, 1.0, 1.0], [0.8, 1.0, 1.0]]}
    values["product_is_small"] = [[1.0] * 3] * 2
    summary = xr.Dataset(coords={"alpha": [0.5, 0.3], "width": [10.0, 100.0, 1000.0]}, attrs={"delta": 0.1})
    for name, shares in values.items():
        counts = np.round(100 * np.array(shares)).astype(int)
        for end, found in zip(("", "_low", "_high"), frequency(counts, np.full((2, 3), 100)), strict=True):
            summary[name + end] = (("alpha", "width"), found)
    ax = matplotlib.figure.Figure().subplots()
    plots.events_against_width(ax, summary)
    assert ax.get_yscale() == "log"
    drawn = {bars.get_label(): bars.lines[0].get_ydata() for bars in ax.containers}
    # The same at both exponents, and drawn once.
    np.testing.assert_allclose(drawn["(33) imbalance"], [1, 0.07, np.nan])
    np.testing.assert_allclose(drawn[r"(34) coupling, $\alpha$ = 0.3"], [0.2, np.nan, np.nan])
    assert len(drawn) == 3
    (limit,) = (line for line in ax.lines if str(line.get_label()).startswith("no failure"))
    # Of no failure among 100 at 97.5%.
    np.testing.assert_allclose(limit.get_ydata(), 1 - 0.025**0.01, rtol=1e-9)
    assert "(35) product: never failed" in [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.parametrize("tasks", [2, 12])
def test_the_table_of_tasks_fits_screens_of_80_columns_with_its_keys(tasks):
    numbers = (np.random.default_rng(0).normal(size=(tasks + 1, tasks)) ** 9).tolist()
    known = {"losses": numbers, "forgetting": numbers[1:], "transfer": numbers[0], "duration": 1.0}
    known |= {"start": "balanced", "dynamics": "flow", "result": "reached the horizon"}
    problem = ld.factorization(np.eye(2))
    study = ld.studies.Tasks(problem, ld.init.Gaussian(4), tasks=tasks)
    assert_fits(study.table(xr.Dataset(attrs=known)), "")


class Coins(ld.Study):
    """How often a coin falls on its head, and how far it rolls."""

    far: Annotated[float, "How far, at most."] = 1e-9

    name = "coins"

    def grid(self):
        return {"share": [0.25, 1 / 3], "height": [1.0, 1e12]}

    def trial(self, key, share, height):
        head, far = jax.random.uniform(key, (2,))
        return {f"a_far_distance_{i}": -(10.0**i) * far * self.far / height for i in range(6)} | {"head": head < share}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two stores of one study, which differ in settings and numbers; one is in a folder with an odd name."""
    folder = tmp_path_factory.mktemp("stores")
    for name, far in (("one", 1e-9), ("a $x_1$ [red]b[/red]", 1 / 3)):
        Coins(far).run(3, store=ld.SweepStore(folder / name / "sweep.zarr"))
    return folder


@pytest.mark.parametrize("width", (60, 80, 120, 200))
@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        (("figure", "list"), [("name",)]),
        (("commutation", "--data", "iris", "--data", "wine"), [("data", "columns")]),
        (("list", "."), [("store",)]),
        (("show", "one"), [("share", "height", "number")]),
        (("compare", "one", "a $x_1$ [red]b[/red]"), [("setting",), ("share", "height", "number")]),
        (("info",), []),
    ],
    ids=lambda value: value[0] if type(value) is tuple else "",
)
def test_commands_that_compute_nothing_print_every_key_and_cut_no_cell(
    arguments, keys, width, folder, call, monkeypatch
):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", str(width))
    given, show = [], _tables.show
    monkeypatch.setattr(_tables, "show", lambda console, parts: (given.extend(parts), show(console, parts)))
    code, out, error = call(*arguments)
    lines = (out + error).splitlines()
    assert code == 0 and "…" not in out
    # A path has a line of its own.
    assert max(cell_len(line) for line in lines if "/" not in line) <= width
    tables = [part for part in given if isinstance(part, Table)]
    for table, names in zip(tables, keys, strict=True):
        assert_fits([table], *names, width=width)
        assert printed([table], width) in out
    if arguments == ("info",):
        # Lines that go on are set in.
        assert {line[:11].strip() for line in lines} - {""} == {"versions", "devices", "precision", "cache"}


def test_numbers_at_the_same_values_of_other_axes_are_not_compared(call, tmp_path):
    for axis in ("scale", "width"):
        ld.run_ensemble(
            lambda key, **point: {"x": 2 * sum(point.values())},
            {axis: [1.0, 2.0]},
            2,
            key=jax.random.key(0),
            store=tmp_path / axis,
        )
    code, out, _ = call("compare", tmp_path / "scale", tmp_path / "width")
    assert code == 0 and "no point of the grid is in both" in out
