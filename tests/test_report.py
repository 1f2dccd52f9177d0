"""Reports of `--html`: one page with all that was printed, that asks for nothing, and shows names letter by letter."""

import json
import re
import shlex
import sys
from html import escape
from html.parser import HTMLParser
from typing import Annotated

import browser
import jax
import pytest

import lindyn_jax as ld
from lindyn_jax import cli

# What would be markup, an entity, mathematics, a link, or a style of a terminal.
NAME = "a<b>&amp; $x_1$ [red] 'y' \"z\""


class Coins(ld.Study):
    """How often a coin falls on its head, and how far it rolls."""

    note: Annotated[str, "Any text."] = ""

    name = "coins"

    def grid(self):
        return {"share": [0.25, 1 / 3]}

    def trial(self, key, share):
        head, far = jax.random.uniform(key, (2,))
        return {"head": head < share, "distance": far / share, "ok": far < 0.9}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The report of a study, that of its store, the JSON of both, and what was typed."""
    folder = tmp_path_factory.mktemp("reports")
    out, texts = folder / f"out {NAME}", []
    with pytest.MonkeyPatch.context() as patch:
        run = ["--note", NAME, "--trials", "40", "--out", str(out), "--json"]
        for main, words in (
            (lambda: cli.main(Coins), ["coins.py", *run, "--html", str(folder / "run.html")]),
            (cli.main, ["lindyn-jax", "show", str(out), "--json", "--html", str(folder / "store.html")]),
        ):
            patch.setattr(sys, "argv", words)
            patch.setattr(sys, "stdout", (folder / "printed").open("w"))
            with pytest.raises(SystemExit) as ended:
                main()
            sys.stdout.close()
            assert not ended.value.code
            texts.append(
                ((folder / f"{'run' if len(texts) == 0 else 'store'}.html"), words, (folder / "printed").read_text())
            )
    return texts


class Resources(HTMLParser):
    """All that a page names by address."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]


def numbers_of(value):
    """All numbers of a JSON value, as JSON writes them."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return set().union(*map(numbers_of, value))
    return {json.dumps(value)} if isinstance(value, (int, float)) and not isinstance(value, bool) else set()


def test_a_report_opens_from_disk_without_errors_and_fits_a_phone(made):
    with browser.opened() as chromium:
        for path, words, _ in made:
            page = chromium.visit(path.as_uri())
            for width in (390, 1366):
                page.resize(width)
                assert page.overflow() == 0
            assert page.run("Array.from(document.images, image => image.naturalWidth > 100)") == [True]
            # As a reader sees it: what was typed to get it, letter by letter.
            assert page.run("document.querySelector('pre').textContent").endswith(" ".join(map(shlex.quote, words[1:])))
            shown = page.run("document.body.innerText")
            assert NAME in shown and "complete: 40 of 40 trials a point" in shown
            assert page.run("document.querySelectorAll('main b, main red').length") == 0
            # On paper nothing is left to scroll or to press.
            page.ask("Emulation.setEmulatedMedia", media="print")
            assert page.run("[...document.querySelectorAll('.wide')].every(e => e.scrollWidth <= e.clientWidth)")
            assert page.run("[...document.querySelectorAll('a, summary')].every(e => !e.checkVisibility())")
            assert not page.problems


@pytest.mark.parametrize("index", [0, 1], ids=["study", "store"])
def test_every_number_of_the_json_is_in_the_report_and_nothing_is_fetched(made, index):
    path, _, printed = made[index]
    text = path.read_text()
    found = Resources(text).found
    assert len(found) == 2 and all(address.startswith("data:") for address in found)
    assert not re.search(r"url\(|@import", text)
    told = json.loads(printed)
    cells = set(re.findall(r"<t[dh][^>]*>([^<]*)</t[dh]>", text))
    numbers = numbers_of(told.get("summary", told))
    assert len(numbers) > 6
    assert numbers <= set(", ".join(cells).split(", "))


def test_a_comparison_is_reported_letter_by_letter_with_all_numbers(made, tmp_path, call):
    out = made[1][1][2]
    code, printed, _ = call("compare", out, out, "--json", "--html", tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert code == 0 and escape(NAME) in text and "the settings are the same" in text
    numbers = numbers_of(json.loads(printed)["rows"])
    assert len(numbers) > 6 and numbers <= set(re.findall(r"<t[dh][^>]*>([^<]*)</t[dh]>", text))


def test_a_report_says_what_failed_where_and_with_what(made):
    told = json.loads(made[0][2])
    told = told.get("summary", told)
    failed = sum(round(40 * (1 - share)) for share in told["ok"])
    assert failed > 0
    text = made[0][0].read_text()
    assert f"{failed} failed and left out" in text
    assert f"lindyn_jax {ld.__version__}" in text and f"jax {jax.__version__}" in text and "float64" in text
    # The tables that are printed, with their intervals.
    low, high = told["head_low"][0], told["head_high"][0]
    assert f"{told['head'][0]:.4g} [{low:.4g}, {high:.4g}]" in text


def test_a_file_that_is_no_report_is_left_alone_and_a_report_is_written_anew(made, tmp_path, monkeypatch, capsys):
    (tmp_path / "thesis.html").write_text("years of work")
    for name, sentence in (("thesis.html", "is no report"), (".", "is a folder"), ("no/r.html", "cannot be made")):
        monkeypatch.setattr(sys, "argv", ["coins.py", "--out", str(tmp_path / "out"), "--html", str(tmp_path / name)])
        with pytest.raises(SystemExit) as ended:
            cli.main(Coins)
        assert ended.value.code == 2 and sentence in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.html"]
    before = made[1][0].read_bytes()
    monkeypatch.setattr(sys, "argv", made[1][1])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code and made[1][0].read_bytes()[:200] == before[:200]
