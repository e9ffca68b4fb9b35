"""matplotlib figure -> SVG text that is small, repeatable and at home in light and dark.

Figures are drawn in the light colours of the palette. For a page each becomes a CSS variable, so that the
page's style sheet decides; a picture that stands alone carries both sets itself.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from contextlib import AbstractContextManager
from html import escape
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from lambert.report.palette import FONT_STACK, PALETTE

_SETTINGS: Any = {
    "svg.fonttype": "none",  # text stays text: it can be read aloud, searched, and takes the page's font
    "svg.hashsalt": "lambert",
    "svg.image_inline": True,
    "text.parse_math": False,  # a "$" in a run's name is a dollar sign
    "text.usetex": False,
    "path.simplify": True,
    "font.family": ["DejaVu Sans"],
}
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


def house_settings() -> AbstractContextManager[None]:
    """matplotlib's settings while a figure is drawn or written; what was set before comes back after."""
    return matplotlib.rc_context(_SETTINGS)


def page_svg(figure: Figure, name: str, label: str) -> str:
    """The figure as an inline <svg> for a page; `name` keeps its ids apart from those of other figures."""
    body = _own_ids(_body(figure), name)
    for role, (light, _) in PALETTE.items():
        body = body.replace(light, f"var(--{role})")
    return f'<svg role="img" aria-label="{escape(label)}" viewBox="{_view_box(figure)}">{body}</svg>'


def standing_svg(figure: Figure, label: str) -> str:
    """The figure as an SVG file of its own, following the reader's light or dark setting."""
    rules = []
    for light, dark in PALETTE.values():
        rules += [f'[style*="{what}: {light}"]{{{what}:{dark}!important}}' for what in ("fill", "stroke")]
    width, height = _pixels(figure)
    dark_rules = f"@media (prefers-color-scheme:dark){{{''.join(rules)}}}"
    style = f"<style>text{{font-family:{FONT_STACK}}}{dark_rules}</style>"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img"'
        f' width="{width}" height="{height}" viewBox="{_view_box(figure)}"><title>{escape(label)}</title>'
        f"{style}{_own_ids(_body(figure), 'picture')}</svg>\n"
    )


def png(figure: Figure) -> bytes:
    """The figure as a PNG at twice its size, light."""
    buffer = io.BytesIO()
    with house_settings(), _quiet():
        figure.savefig(buffer, format="png", dpi=144, metadata={"Software": None})
    return buffer.getvalue()


def _body(figure: Figure) -> str:
    """What stands between <svg> and </svg>, without ids nobody refers to and with shorter numbers."""
    buffer = io.StringIO()
    with house_settings(), _quiet():
        figure.savefig(buffer, format="svg", metadata=_NO_METADATA)
    text = buffer.getvalue()
    text = text[text.index(">", text.index("<svg")) + 1 : text.rindex("</svg>")]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    # Tags only: a number inside a text is what somebody wrote.
    text = re.sub(r"<[^>]*>", lambda tag: re.sub(r"\b(\d+\.\d{2})\d+", r"\1", tag.group()), text)
    return re.sub(r">\s+<", "><", text).strip()


def _own_ids(body: str, name: str) -> str:
    """Prefixes the ids that are referred to and drops the others; ids must be unique on the page."""
    prefix = "f" + hashlib.sha256(name.encode()).hexdigest()[:8]
    used = set(re.findall(r'(?:xlink:)?href="#([^"]+)"|url\(#([^)]+)\)', body))
    names = {first or second for first, second in used}

    def rename(match: re.Match[str]) -> str:
        return f' id="{prefix}-{match[1]}"' if match[1] in names else ""

    body = re.sub(r' id="([^"]*)"', rename, body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', body)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", body)


def _pixels(figure: Figure) -> tuple[int, int]:
    width, height = figure.get_size_inches() * 72
    return round(width), round(height)


def _view_box(figure: Figure) -> str:
    width, height = _pixels(figure)
    return f"0 0 {width} {height}"


class _quiet(warnings.catch_warnings):
    """matplotlib measures text with its own font and warns of letters that the reader's font will have."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
