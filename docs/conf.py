"""How Sphinx builds the pages of docs/ and the reference of the public modules: `make docs`.

Every warning is an error there. The build uses no network, so names of other projects are not linked.
"""

from __future__ import annotations

import inspect
from typing import Any

from sphinx.application import Sphinx

import lambert
import lambert.optim

project = "lambert"
author = "The lambert developers"
project_copyright = author
release = version = lambert.__version__
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["launch/*", "results/*"]

# Markdown: `#name` in a link is a heading, as on a forge.
myst_heading_anchors = 3
myst_enable_extensions = ["attrs_inline"]

# Docstrings: Google's sections, Markdown's single backticks.
default_role = "literal"
napoleon_numpy_docstring = False
napoleon_use_param = False  # "lr, betas: as `LAMB`'s" names several parameters in one line
napoleon_use_rtype = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True}
python_maximum_signature_line_length = 72
add_module_names = False

html_theme = "furo"
html_title = f"lambert {release}"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_theme_options = {
    "source_repository": "https://github.com/lambert-bert/lambert",
    "source_branch": "main",
    "source_directory": "docs/",
}
html_copy_source = False
pygments_style = "default"
pygments_dark_style = "github-dark"
highlight_language = "none"  # a block without a language is commands or output: shown as it is

LISTED_IN = "api/lambert"


def list_public_names(app: Sphinx, page: str, source: list[str]) -> None:
    """Appends every name of `lambert.__all__` to its page, whatever it is: the module loads its names lazily."""
    if page != LISTED_IN:
        return
    names = [name for name in lambert.__all__ if not name.startswith("_")]
    elsewhere = [name for name in names if name in lambert.optim.__all__]
    if elsewhere:
        source[0] += f"\nFrom [lambert.optim](optim.md): {', '.join(f'`{name}`' for name in elsewhere)}.\n"
    entries = [f".. auto{_kind(getattr(lambert, name))}:: lambert.{name}\n" for name in names if name not in elsewhere]
    if entries:
        source[0] += "\n```{eval-rst}\n" + "\n".join(entries) + "```\n"


def _kind(thing: Any) -> str:
    if inspect.ismodule(thing):
        return "module"
    if inspect.isclass(thing):
        return "exception" if issubclass(thing, BaseException) else "class"
    return "function" if callable(thing) else "data"


def setup(app: Sphinx) -> None:
    app.connect("source-read", list_public_names)
