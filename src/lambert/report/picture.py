"""A Vega-Lite specification as a picture: an SVG or PNG file. Needs the extra `pictures`."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lambert.errors import UserError
from lambert.report.document import writable, write
from lambert.report.spec import CONFIG, INK, MUTED, PAPER, Spec
from lambert.report.style import FONT_STACK, PALETTE

SUFFIXES = (".svg", ".png")
_WIDTH, _HEIGHT = 960, 440
_CAPTION_LETTERS = 140


def write_picture(drawn: Spec, out: Path) -> Path:
    """Writes an SVG that follows the reader's light or dark setting, or a light PNG at twice its size.

    Raises:
        UserError: the name ends otherwise, the file cannot be written, or vl-convert is not installed.
    """
    check_picture(out)
    if out.suffix.lower() == ".png":
        vl_convert = _vl_convert()
        return write(out, vl_convert.svg_to_png(_with_colours(_svg(drawn)), scale=2))
    return write(out, _standing(_svg(drawn), drawn["title"]["text"]).encode("utf-8", errors="replace"))


def check_picture(out: Path) -> None:
    """Refuses a name that ends in neither .svg nor .png, and a file that cannot be drawn or written.

    Raises:
        UserError: it is refused.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"{out} is neither an SVG nor a PNG", remedy=f"Give a name that ends in {' or '.join(SUFFIXES)}"
        )
    writable(out)
    _vl_convert()


def can_draw() -> bool:
    """Whether vl-convert is installed."""
    return find_spec("vl_convert") is not None


def _vl_convert() -> Any:
    try:
        import vl_convert
    except ModuleNotFoundError:
        raise UserError(
            "a picture in a file of its own needs the package vl-convert-python, which is not installed",
            remedy="Install it with: pip install 'lambert-bert[pictures]'",
        ) from None
    return vl_convert


def standing(content: Mapping[str, Any], *, title: str, caption: str = "", size: Spec | None = None) -> Spec:
    """A specification with a background, a title and a caption below the title.

    Args:
        content: its layers, or a facet.
        size: other than 960 × 440 pixels; a facet needs the sizes of its parts instead.
    """
    lines = textwrap.wrap(caption.replace(" %", "\N{NO-BREAK SPACE}%"), _CAPTION_LETTERS)
    whole = {"width": _WIDTH, "height": _HEIGHT, "autosize": {"type": "fit", "contains": "padding"}}
    return {
        **(whole if size is None else size),
        "padding": {"left": 26, "right": 26, "top": 24, "bottom": 18},
        "title": {
            "text": title, **({"subtitle": lines} if lines else {}), "anchor": "start", "frame": "bounds",
            "fontSize": 17, "color": INK,
            "subtitleFontSize": 12.5, "subtitleColor": MUTED, "subtitlePadding": 7, "offset": 14,
        },
        **content,
        "config": {**CONFIG, **content.get("config", {}), "background": PAPER},
    }  # fmt: skip


@dataclass(frozen=True)
class LegendEntry:
    """One entry: its label, its colour, and the symbol ("stroke" for a line) as the picture draws it."""

    label: str
    colour: str
    symbol: str = "circle"
    dash: Sequence[float] = (1, 0)
    hollow: bool = False


def legend_layer(entries: Sequence[LegendEntry], **more: Any) -> Spec:
    """A layer that draws nothing but a legend; `more` are other properties of it, in Vega-Lite's words."""
    labels = [entry.label for entry in entries]
    shown: Spec = {
        "title": None, "symbolOpacity": 1, "symbolSize": 120, "symbolStrokeWidth": 2, "columns": 8, "columnPadding": 20,
        "labelColor": INK, "labelFontSize": 13, **more,
    }  # fmt: skip

    def channel(values: list[Any]) -> Spec:
        scale = {"domain": labels, "range": values}
        return {"field": "entry", "type": "nominal", "sort": None, "scale": scale, "legend": shown}

    return {
        "data": {"values": [{"entry": label} for label in labels]},
        "mark": {"type": "point", "opacity": 0, "aria": False},
        "encoding": {
            "stroke": channel([entry.colour for entry in entries]),
            "fill": channel([PAPER if entry.hollow else entry.colour for entry in entries]),
            "shape": channel([entry.symbol for entry in entries]),
            "strokeDash": channel([list(entry.dash) for entry in entries]),
        },
    }  # fmt: skip


def _svg(drawn: Spec) -> str:
    """The SVG as Vega draws it, with ids that do not depend on what was drawn before."""
    text: str = _vl_convert().vegalite_to_svg(drawn)
    ids = {name: f"clip{number}" for number, name in enumerate(dict.fromkeys(re.findall(r' id="(clip\d+)"', text)))}
    return re.sub(r'(?<= id=")clip\d+(?=")|(?<=url\(#)clip\d+(?=\))', lambda found: ids[found[0]], text)


def _without_font(text: str) -> str:
    """Shorter: a style sheet says it once."""
    return text.replace(f' font-family="{FONT_STACK}"', "")


def _standing(text: str, title: str) -> str:
    """The SVG as a file of its own, which carries both sets of colours."""
    rules = (f'[{what}="{light}"]{{{what}:{dark}}}' for light, dark in PALETTE.values() for what in ("fill", "stroke"))
    dark = f"@media (prefers-color-scheme:dark){{{''.join(rules)}}}"
    head = f"<title>{escape(title)}</title><style>text{{font-family:{FONT_STACK}}}{dark}</style>"
    return (
        re.sub(
            r"<svg [^>]*>", lambda tag: f'{tag[0][:-1]} role="img">{head}', _with_colours(_without_font(text)), count=1
        )
        + "\n"
    )


def _with_colours(text: str) -> str:
    """The palette's light colours in place of the variables."""
    roles = "|".join(PALETTE)
    return re.sub(rf' (fill|stroke)="var\(--({roles})\)"', lambda m: f' {m[1]}="{PALETTE[m[2]][0]}"', text)
