"""How Sphinx builds this site; CONTRIBUTING says how to start it. No font, script or index of another host is loaded."""

import re
import sys
from pathlib import Path

from docutils import nodes
from sphinx import addnodes

DOCS = Path(__file__).parent.parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]
import generate  # noqa: E402
from generate import reference  # noqa: E402

project = "lindyn_jax"
author = "The lindyn_jax developers"
copyright = "The lindyn_jax developers, Apache-2.0"
extensions = ["myst_parser", "sphinx_design", "sphinx_copybutton"]
exclude_patterns = ["conf.py"]
source_suffix = {".md": "markdown"}
nitpicky = False
pygments_style = "friendly"
# Quotes and dots only: two hyphens begin an option and are no dash.
smartquotes_action = "qe"

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist", "attrs_block", "attrs_inline"]
myst_heading_anchors = 3
# A comma of the notation is no break of the line, and a page may begin where another one's heading ends.
suppress_warnings = ["myst.header", "misc.highlighting_failure"]

copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True

python_maximum_signature_line_length = 88
toc_object_entries = False
add_module_names = True

html_theme = "pydata_sphinx_theme"
html_title = "lindyn_jax"
html_static_path = ["../static"]
html_css_files = ["katex/katex.min.css", "site.css"]
html_js_files = ["katex/katex.min.js", "site.js"]
html_extra_path = [str(path) for path in [DOCS / "extra"] if path.is_dir()]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_math_renderer = "katex"
html_context = {"default_mode": "auto"}
html_theme_options = {
    "logo": {"text": "lindyn_jax"},
    "header_links_before_dropdown": 7,
    "navbar_align": "left",
    "navbar_persistent": ["search-button"],
    "show_prev_next": False,
    "show_nav_level": 1,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
}
templates_path = ["../templates"]
html_sidebars = {"**": ["section.html"]}


def write_pages(app, config):
    generate.write()


def fill_page(app, docname, source):
    source[0] = generate.fill(source[0])


def plain_signatures(app, doctree):
    """A user writes `ld.exact.linear`; words of a signature are linked as names in code font are."""
    for node in doctree.findall(addnodes.desc_addname):
        text = node.astext().replace("lindyn_jax.", "ld.", 1)
        node.clear()
        node += nodes.Text(text)
    for signature in doctree.findall(addnodes.desc_signature):
        for node in list(signature.findall(addnodes.pending_xref)):
            node.replace_self(nodes.inline("", "", *node.children, classes=["word"]))


def link_names(app, doctree, docname):
    """Public names in code font lead to their pages."""
    group = app.env.metadata[docname].get("group") or docname.rpartition("/")[2]
    words = [node for node in doctree.findall(nodes.inline) if "word" in node["classes"]]
    for node in [*doctree.findall(nodes.literal), *words]:
        if isinstance(node.parent, nodes.reference) or not re.fullmatch(r"[\w.]+", node.astext()):
            continue
        page = reference.target(node.astext(), group)
        if page is not None and page != docname:
            link = nodes.reference("", "", internal=True, refuri=app.builder.get_relative_uri(docname, page))
            node.replace_self(link)
            link += node


def list_section(app, docname, template, context, doctree):
    """What the list on the left shows: the section that a page is in, or nothing, where there is no other page."""
    below = app.env.toctree_includes
    above = {page: parent for parent, pages in below.items() for page in pages}
    chain = [docname]
    while chain[0] in above:
        chain.insert(0, above[chain[0]])
    section = chain[1] if len(chain) > 1 else None
    if not below.get(section):
        context["sidebars"] = []
        return

    def titled(page):
        return page, app.env.titles[page].astext()

    context["section"], context["section_title"] = titled(section)
    context["beside"] = [
        (*titled(page), [titled(one) for one in below.get(page, [])] if page in chain else None)
        for page in below[section]
    ]


def visit_math(self, node):
    self.body.append(self.starttag(node, "span", "", CLASS="math") + self.encode(node.astext()) + "</span>")
    raise nodes.SkipNode


def visit_math_block(self, node):
    self.body.append(self.starttag(node, "div", "", CLASS="math") + self.encode(node.astext()) + "</div>")
    raise nodes.SkipNode


def setup(app):
    app.connect("config-inited", write_pages)
    app.connect("source-read", fill_page)
    app.connect("doctree-read", plain_signatures)
    app.connect("doctree-resolved", link_names)
    app.connect("html-page-context", list_section)
    app.add_html_math_renderer("katex", (visit_math, None), (visit_math_block, None))
