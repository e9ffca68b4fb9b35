"""Colours by role, for light and dark, the font, and the page's style sheet (style.css)."""

from __future__ import annotations

from importlib.resources import files

FONT_STACK = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

# role: (light, dark). Series colours keep apart for colour-blind readers.
PALETTE = {
    "ink": ("#1c2230", "#e8eaf0"),
    "muted": ("#5b6475", "#a2abbc"),
    "grid": ("#e3e6ec", "#2b3240"),
    "rule": ("#b4bac6", "#555f72"),
    "paper": ("#ffffff", "#12161f"),
    "series-1": ("#2459c5", "#82adff"),
    "series-2": ("#c2410c", "#ff9a62"),
    "series-3": ("#0b7a5c", "#4fd1a7"),
    "series-4": ("#9333a8", "#dd93f0"),
    "series-5": ("#8a6500", "#e5c04e"),
    "series-6": ("#be1f4b", "#ff8aa5"),
}
_BLOCKS = {
    "surface": ("#f6f7f9", "#1a1f2a"),
    "accent": ("#2459c5", "#82adff"),
    "warn": ("#fff4dc", "#33290f"),
}


def style_sheet() -> str:
    """The whole style sheet, colours of the palette included."""
    colours = {**PALETTE, **_BLOCKS}
    light = "".join(f"--{role}:{pair[0]};" for role, pair in colours.items())
    dark = "".join(f"--{role}:{pair[1]};" for role, pair in colours.items())
    rules = (files("lambert.report") / "style.css").read_text("utf-8")
    return (
        f":root{{color-scheme:light dark;{light}}}\n"
        f"@media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"
        f"@media print{{:root{{color-scheme:light;{light}}}}}\n" + rules.replace("FONT_STACK", FONT_STACK)
    )
