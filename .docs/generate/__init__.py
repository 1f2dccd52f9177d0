"""What the pages need from the package: the reference, the command line's options, the gallery, the README, the notebooks.

Everything is made from its one source, so that no page can say what the code does not. `conf.py` hands Sphinx the two functions
here: `write`, which writes whole pages before anything is read, and `fill`, which puts text in place of comments in a page.
"""

import re
from pathlib import Path

from . import commands, gallery, notebooks, reference

ROOT = Path(__file__).parent.parent.parent
PAGES = ROOT / ".docs" / "pages"
README = re.compile(r"^<!-- readme: (.+) -->$", re.MULTILINE)
INCLUDED = re.compile(r"^<!-- file: (.+) -->$", re.MULTILINE)


def write() -> None:
    """Writes one page a public name and one a notebook; a page that is right already keeps its time, others go."""
    for folder, pages in (("reference", reference.pages()), ("notebooks", notebooks.pages(ROOT / "notebooks"))):
        (PAGES / folder).mkdir(exist_ok=True)
        for path in (PAGES / folder).glob("*.md"):
            if path.stem not in pages:
                path.unlink()
        for name, text in pages.items():
            path = PAGES / folder / f"{name}.md"
            if not path.is_file() or path.read_text() != text:
                path.write_text(text)


def fill(markdown: str) -> str:
    """A page with its directives, sections of the README, files, options and figures in place."""
    markdown = README.sub(lambda match: readme_section(match[1]), markdown)
    markdown = INCLUDED.sub(lambda match: (ROOT / match[1]).read_text(), markdown)
    for comment, made in (
        ("<!-- observables -->", reference.observables),
        ("<!-- commands -->", commands.commands),
        ("<!-- figures -->", gallery.figures),
        ("<!-- studies -->", gallery.studies),
        ("<!-- thumbnails -->", gallery.thumbnails),
    ):
        if comment in markdown:
            markdown = markdown.replace(comment, made())
    # Where a file of the repository names a page, it does so from its own folder.
    markdown = re.sub(r"\]\((?:\.\./)?\.docs/pages/", "](/", markdown)
    return reference.tables(markdown)


def readme_section(title: str) -> str:
    """The text of one section of the README, without its heading."""
    text = (ROOT / "README.md").read_text()
    match = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if match is None:
        raise LookupError(f"README.md has no section `## {title}`, which a page includes.")
    return match[1].strip()
