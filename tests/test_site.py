"""The site builds without a warning, leads everywhere it says, and can be read in wide and narrow windows."""

import html.parser
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
from urllib.parse import unquote, urlsplit

import browser
import pytest
from test_docs import DIRECTIVES, PAGES, REFERENCE, ROOT, resolve

import lindyn_jax as ld
from lindyn_jax.cli._help import EXAMPLES

# It takes a minute to build.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder of the site, built once; a warning is an error."""
    missing = [
        name
        for name in ("sphinx", "myst_parser", "pydata_sphinx_theme", "sphinx_design", "sphinx_copybutton")
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        pytest.skip(f"needs the extra `docs` ({', '.join(missing)} not installed)")
    folder = tmp_path_factory.mktemp("docs")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-d",
        folder / "doctrees",
        PAGES,
        folder / "site",
    ]
    built = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env={**os.environ, "JAX_PLATFORMS": "cpu"}
    )
    assert built.returncode == 0, built.stderr
    return folder / "site"


class Parts(html.parser.HTMLParser):
    """What a page refers to, and the anchors that it has."""

    def __init__(self, text):
        super().__init__()
        self.links, self.anchors = [], {"", "top"}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        facts = dict(attributes)
        self.anchors |= {facts[name] for name in ("id", "name") if facts.get(name)}
        self.links += [facts[name] for name in ("href", "src") if facts.get(name)]


def test_every_public_name_has_its_page_and_nothing_else_has(site):
    objects = [name for name in DIRECTIVES if not inspect.ismodule(resolve(name))]
    pages = {path.stem.removesuffix("-class"): path for path in (site / "reference").glob("*.html")}
    assert set(pages) == set(objects)
    # On some systems names that differ in capitals only are one.
    assert len({path.name.lower() for path in pages.values()}) == len(objects)
    for name in objects:
        text = pages[name].read_text()
        assert f'id="lindyn_jax.{name}"' in text, name
        assert re.search(
            rf'href="(\.\./)?reference/{re.escape(pages[name].name)}',
            (site / "api")
            .joinpath(f"{next(page for page, names in REFERENCE.items() if f'::: {name}' in names.splitlines())}.html")
            .read_text(),
        ), name


def test_the_page_of_a_class_names_the_properties_that_it_has_from_others(site):
    text = (site / "reference" / "LeastSquares.html").read_text()
    for name in ("condition", "rank", "singular_values"):
        assert name not in vars(ld.LeastSquares) and re.search(rf"<td>.*>{name}<.*</td>", text), name


def test_every_link_within_the_site_leads_somewhere(site):
    # The theme leaves a template among its files. What follows `#` in the explorer's address are its settings.
    pages = [path for path in site.rglob("*.html") if path.name != "webpack-macros.html"]
    parts = {path: Parts(path.read_text()) for path in pages}
    broken = set()
    for path, page in parts.items():
        for link in page.links:
            where = urlsplit(link)
            if where.scheme or where.netloc:
                continue
            to = (path.parent / unquote(where.path)).resolve() if where.path else path
            # Addresses into the explorer hold what is set there.
            place = "" if to.parent.name == "explorer" else unquote(where.fragment)
            if not to.is_file() or (to in parts and place not in parts[to].anchors):
                broken.add((str(path.relative_to(site)), link))
    assert len(parts) > 400
    assert not broken, sorted(broken)[:20]


def test_nothing_is_loaded_from_elsewhere_and_no_path_of_this_machine_is_named(site):
    for path in site.rglob("*.html"):
        text = path.read_text()
        assert str(ROOT) not in text, path
        loaded = re.findall(
            r'<(?:script|img|iframe)[^>]* src="(?:https?:)?//[^"]+|<link[^>]* href="(?:https?:)?//[^"]+', text
        )
        assert not loaded, (path, loaded)


def test_the_table_of_observables_and_the_commands_are_those_of_the_code(site):
    table = (site / "api" / "observables.html").read_text()
    for name, function in ld.observables.OBSERVABLES.items():
        assert re.search(rf"<td>.*>{name}<.*</td>", table), name
        assert function.facts.source in table
    commands = html.unescape(re.sub("<[^>]*>", "", (site / "command-line.html").read_text()))
    # Two hyphens are no dash.
    assert "inspect._empty" not in commands and "required" in commands
    assert "--keep-trials" in commands and not re.search(r"\u2013\w", commands)
    assert [line for lines in EXAMPLES.values() for line in lines if line not in commands] == []


def test_the_gallery_shows_every_figure_with_its_command_and_data(site):
    gallery = (site / "gallery.html").read_text()
    parts = Parts(gallery)
    for name in ld.figures.names():
        assert name in parts.anchors
        assert f"lindyn-jax figure {name} --quick" in re.sub("<[^>]*>", "", gallery)
        assert (site / "_images" / f"{name}.png").stat().st_size < 65_000
        (data,) = (site / "_downloads").rglob(f"{name}.json")
        assert json.loads(data.read_text())["attrs"]["figure"] == name
        assert data.stat().st_size < 65_000


def test_the_search_index_has_what_people_look_for(site):
    index = json.loads(re.search(r"setIndex\((.*)\)", (site / "searchindex.js").read_text(), re.S)[1])
    # Words are kept by their stems.
    for word in ("test", "error", "weight", "decay"):
        assert index["terms"].get(word) or index["titleterms"].get(word), word


# -- as readers see it ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium():
    with browser.opened() as one:
        yield one


LOOKED_AT = {
    "home": "index.html",
    "notation": "notation.html",
    "statements": "statements.html",
    "gallery": "gallery.html",
    "how-to": "how-to/own-data.html",
    "papers": "papers.html",
    "group": "api/theory.html",
    "name": "reference/theory.loss_bound.html",
    "signature": "reference/gradient_flow.html",
    "command line": "command-line.html",
    "notebook": "notebooks/quickstart.html",
}
WITH_MATHEMATICS = {"home", "notation"}


@pytest.mark.parametrize("name", LOOKED_AT)
def test_a_page_fits_wide_and_narrow_windows_and_sets_its_formulas(site, chromium, name):
    page = chromium.visit((site / LOOKED_AT[name]).as_uri())
    assert page.overflow() == 0
    page.resize(390)
    assert page.overflow() == 0
    formulas = page.run("[...document.querySelectorAll('.math')].map(one => one.querySelector('.katex-html') !== null)")
    assert all(formulas)
    assert len(formulas) > 0 or name not in WITH_MATHEMATICS
    assert not page.run("document.querySelectorAll('.katex-error').length")
    assert not page.problems
    page.close()


@pytest.mark.parametrize(
    "words, wanted",
    [("test error", "how-to/own-data.html"), ("weight decay", "how-to/weight-decay.html")],
)
def test_search_finds_what_people_look_for(site, chromium, words, wanted):
    page = chromium.visit(f"{(site / 'search.html').as_uri()}?q={words.replace(' ', '+')}")
    page.wait("document.querySelector('p.search-summary')?.textContent.includes('found')")
    links = page.run("[...document.querySelectorAll('ul.search a')].map(one => one.href)")
    assert any(wanted in link for link in links), links
    assert not page.problems
    page.close()
