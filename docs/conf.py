"""How Sphinx builds the site: ``make docs``. The pages are the Markdown files of this folder, and
those of the public names, which :mod:`reference` writes into docs/api. Formulas become MathML, so
that a page needs no script and nothing from the network."""

import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util import logging
from sphinx.util.nodes import make_refnode

from contrastloss.testing.docstrings import SHARED

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS.parent / "tests")]

import reference  # noqa: E402  it is found since the lines above

project = "contrastloss"
author = "contrastloss contributors"
extensions = [
    "myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode",
    "sphinx_copybutton",
]  # fmt: skip
exclude_patterns = ["site"]
html_theme = "furo"
html_title = "contrastloss"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_copyright = False
templates_path: list[str] = []
default_role = "code"
pygments_style = "friendly"

# Markdown as the repository's own pages show it
myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # a page may begin with an included one

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False  # torch's own are not ours
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 80
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Shape", "params_style"), (SHARED, "params_style")]

#: the pages of each part, in the order of the navigation
PARTS = {
    "Start": ["api/start", "choosing", "how", "losses", "performance", "precision"],
    "Guides": [
        "guides/two_modalities", "guides/sentence_embeddings", "api/sentences", "guides/supervised",
        "guides/queues", "Many devices <distributed>", "gradcache", "guides/distillation",
        "guides/matryoshka", "guides/sorting", "guides/mining", "guides/measuring",
        "guides/own_loss", "guides/operators",
    ],
    "More": ["usage", "migration", "support", "environment", "seeds", "glossary"],
    "Reference": [f"api/{name}" for name in reference.PAGES],
    "Project": ["architecture", "api/contributing", "api/changelog"],
}  # fmt: skip


def navigation() -> str:
    """A table of contents for each part, which the page itself does not show."""
    parts = [
        "\n".join([f"```{{toctree}}\n:hidden:\n:caption: {name}\n", *pages, "```"])
        for name, pages in PARTS.items()
    ]
    return "\n\n" + "\n\n".join(parts) + "\n"


def read(app: Sphinx, page: str, source: list[str]) -> None:
    """The first page gets the navigation. Links to files beside docs lead to their pages."""
    if page == "index":
        source[0] += navigation()
    up = "../" * page.count("/")
    source[0] = re.sub(r"\]\((?:\.\./)?(?:notebooks/)?(\w+)\.ipynb", rf"]({up}api/\1.md", source[0])
    for file, name in reference.BESIDE.items():
        for link in (f"](../{file}", f"](../../{file}"):
            source[0] = source[0].replace(link, f"]({up}api/{name}.md")


def latex(text: str) -> str:
    """In the commands that the converter knows. Blank lines separate equations, as in Sphinx."""
    text = re.sub(r"\\text\{[^}]*\}", lambda words: words[0].replace("\\_", "_"), text)
    text = re.sub(r"\\arg\b", r"\\operatorname{arg}", text).replace("{aligned}", "{split}")
    equations = re.split(r"\n\s*\n", text.strip())
    if len(equations) == 1 and ("&" not in text or "\\begin{" in text):
        return text
    body = " \\\\\n".join(equations)
    return f"\\begin{{split}}\n{body}\n\\end{{split}}"


def display(app: Sphinx, page: nodes.document) -> None:
    """A formula that is a paragraph of its own has lines of its own."""
    for paragraph in list(page.findall(nodes.paragraph)):
        if len(paragraph) == 1 and isinstance(paragraph[0], nodes.math):
            text = paragraph.astext()
            block = nodes.math_block(text, text, nowrap=False, number=None, label=None)
            paragraph.replace_self(block)


def formula(self: Any, node: nodes.Element) -> None:
    block = isinstance(node, nodes.math_block)
    try:
        found = convert(latex(node.astext()), display="block" if block else "inline")
    except Exception as error:
        raise ExtensionError(f"{node.astext()!r}: no formula: {error!r}") from error
    if re.search(r"\\|<mi>&<", found):
        logging.getLogger(__name__).warning("not in MathML: %r", node.astext(), location=node)
    self.body.append(f'<div class="math">{found}</div>' if block else found)
    raise nodes.SkipNode


def resolve(app: Sphinx, env: Any, node: nodes.Element, shown: nodes.Element) -> Any:
    """A name that is public under another path; what is none is an error, but for annotations."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    path = reference.public(target, node.get("py:module"), node.get("py:class"))
    domain = env.get_domain("py")
    if path in domain.objects:
        entry = domain.objects[path]
        return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, shown, path)
    if "refexplicit" in node and not reference.elsewhere(target):
        logging.getLogger(__name__).warning("no public name: %s", target, location=node)
    return None


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("mathml", (formula, None), (formula, None))
    app.connect("builder-inited", lambda app: reference.write(DOCS / "api"))
    app.connect("source-read", read)
    app.connect("doctree-read", display)
    app.connect("autodoc-process-docstring", reference.docstring, priority=100)
    app.connect("autodoc-process-signature", reference.signature)
    app.connect("missing-reference", resolve)
