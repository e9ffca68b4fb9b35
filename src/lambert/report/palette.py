"""Colours by role, for light and for dark, and the font. Series colours keep apart for colour-blind readers."""

from __future__ import annotations

FONT_STACK = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

# role: (light, dark). Every light colour is unique: it marks its role inside a drawn SVG.
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


def light(role: str) -> str:
    """The role's colour on white."""
    return PALETTE[role][0]
