"""The how-to pages and the tutorial run as they stand, and print what they show."""

import re
import tomllib
from pathlib import Path

import matplotlib
import pages
import pytest

DOCS = Path(__file__).parent.parent / ".docs/pages"
HOW_TO = sorted((DOCS / "how-to").glob("*.md"))
# Pages whose commands have tests of their own.
ELSEWHERE = {"index", "trajectory-and-audit", "figures", "install", "many-trials"}
# Those that compile several solvers, run studies or draw pictures.
LONGER = {
    "solver", "derivatives", "resume", "own-study", "fit", "closed-forms", "tutorial", "own-data", "export", "own-loss",
    "pictures", "saxe", "batches", "sweeps", "own-network", "precision", "adam", "sharp-bits"
}  # fmt: skip
RUN = [path for path in [*HOW_TO, DOCS / "tutorial.md", DOCS / "saxe.md"] if path.stem not in ELSEWHERE]
# Page -> command -> options that make it small, or None for one that is not run.
SMALLER = {
    "own-data": {"lindyn-jax simulate --data divided.csv": None, "python splits.py": "--trials 2"},
    "sweeps": {"lindyn-jax sweep": None},
}


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=pytest.mark.slow) if path.stem in LONGER else path for path in RUN],
    ids=lambda path: path.stem,
)
def test_a_page_runs_as_it_stands_and_prints_what_it_shows(path, tmp_path, monkeypatch):
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    text = path.read_text()
    assert re.match(r"# \S.*\n", text)
    assert any(language == "text" for language, _ in pages.blocks(text))
    pages.run(text, SMALLER.get(path.stem, {}))


def test_what_a_page_prints_is_compared():
    page = "```python\nprint(1.25)\n```\n\n```text\n{}\n```\n"
    pages.run(page.format("1.25"))
    pages.run(page.format("1.2"))
    for wrong in ("1.26", "1.25 more"):
        with pytest.raises(AssertionError, match="but this is printed"):
            pages.run(page.format(wrong))
    with pytest.raises(AssertionError, match="printed, but not shown"):
        pages.run("```python\nprint(1)\n```\n")


def test_every_page_of_the_how_tos_is_listed_and_every_link_leads_to_a_file():
    listed = re.findall(r"\]\(([\w-]+)\.md\)", (DOCS / "how-to/index.md").read_text())
    assert sorted(listed) == [path.stem for path in HOW_TO if path.stem != "index"]
    root = DOCS.parent.parent
    for path in [
        root / "README.md",
        root / "CHANGELOG.md",
        root / ".github/CONTRIBUTING.md",
        *DOCS.glob("*.md"),
        *HOW_TO,
    ]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
            # These are made when the site is.
            if not re.match(r"(notebooks|reference)/", target):
                assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_the_environment_of_the_page_on_installing_is_valid_toml_and_asks_for_extras_that_are_there():
    (text,) = (
        block for language, block in pages.blocks((DOCS / "how-to/install.md").read_text()) if language == "toml"
    )
    found = tomllib.loads(text)
    project = tomllib.loads((DOCS.parent.parent / "pyproject.toml").read_text())["project"]
    for feature in (found, found["feature"]["cuda"]):
        assert set(feature["pypi-dependencies"]["lindyn_jax"]["extras"]) <= set(project["optional-dependencies"])
    assert found["dependencies"]["python"] == project["requires-python"]
    assert found["environments"]["cuda"] == ["cuda"] and found["tasks"]["study"].startswith("lindyn-jax sweep ")


def test_the_readme_is_short_and_names_what_moved_to_pages():
    readme = (DOCS.parent.parent / "README.md").read_text()
    assert len(readme.splitlines()) <= 120
    linked = set(re.findall(r"\]\(\.docs/pages/how-to/([\w-]+)\.md", readme))
    assert {path.stem for path in HOW_TO} - {"index", "install"} <= linked
