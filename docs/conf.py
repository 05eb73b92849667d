"""How the documentation is built: MyST pages, and a reference generated from the option table."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

import multisite
from multisite.config import options
from multisite.errors import codes
from multisite.status import metrics

project = "multisite"
author = "The multisite authors"
copyright = "2026, The multisite authors"
version = release = multisite.__version__

extensions = ["myst_parser"]
myst_enable_extensions = ["deflist", "colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "included"]
templates_path: list[str] = []
nitpicky = True

html_theme = "furo"
html_title = f"multisite {release}"
html_static_path: list[str] = []

# Options, metrics and messages are written once, in the package. Each build makes their pages, which are not in git.
REFERENCES = {
    "options": options.reference_rst(),
    "metrics": metrics.reference_rst(),
    "messages": codes.reference_rst(),
}
for name, text in REFERENCES.items():
    reference = HERE / "reference" / f"{name}.rst"
    reference.parent.mkdir(exist_ok=True)
    if not reference.exists() or reference.read_text() != text:
        reference.write_text(text)


def setup(app: Sphinx) -> None:
    """Declare the keys of the files as objects, so that a search finds their entries first."""
    app.add_object_type("option-key", "option-key", "", parse_node=show_key, objname="option")


def show_key(env: BuildEnvironment, name: str, node: nodes.Element) -> str:
    """Show the last part of ``site.service.python``; the whole is what the entry is found by."""
    key = name.rpartition(".")[2]
    node += nodes.literal(key, key)
    return name
