"""What every page shares: the HTML document, its scripts and their security policy, and an atomic write."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from lambert.errors import UserError
from lambert.report.style import style_sheet
from lambert.utils.io import unwritable


def document(title: str, body: str, charts: Mapping[str, Any] | None = None) -> str:
    """The whole page around `body`; with charts, their data and the scripts that draw them.

    The content security policy names the page's scripts by their hashes. The browser refuses any other script,
    whatever text a run contains, and every request.
    """
    scripts, allowed = "", ""
    if charts is not None:
        run = (library(), own_script())
        allowed = f" script-src {' '.join(map(_policy_hash, run))};"
        scripts = f'<script type="application/json" id="charts">{as_data(charts)}</script>\n'
        scripts += "".join(f"<script>{script}</script>\n" for script in run)
    policy = f"default-src 'none';{allowed} style-src 'unsafe-inline'; img-src data:"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} – lambert report</title><style>{style_sheet()}</style></head>\n"
        f"<body><main>{body}</main>{scripts}</body></html>\n"
    )


def tiles(entries: Sequence[tuple[str, str, str]]) -> str:
    """Headline numbers: name, value, and a note below it."""
    cells = (
        f'<div class="tile"><dt>{escape(name)}</dt><dd><div class="value">{escape(value)}</div>'
        f'<div class="beside">{escape(note)}</div></dd></div>'
        for name, value, note in entries
    )
    return f'<dl class="tiles">{"".join(cells)}</dl>'


@cache
def library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that needs no network; it sets `window.vegaEmbed`."""
    return _inline_safe((files("lambert.report") / "vega.js").read_bytes().decode("utf-8"))


@cache
def own_script() -> str:
    """page.js."""
    return _inline_safe((files("lambert.report") / "page.js").read_text("utf-8"))


def as_data(value: Mapping[str, Any]) -> str:
    """JSON for a <script> element: without "<", so that no text in it can end the script or open another."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    text = text.encode("utf-8", errors="replace").decode("utf-8")  # a lone surrogate cannot be encoded
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


_OUR_FILES = (b"<!doctype html>", b"<svg", b"<?xml", b"\x89PNG")
_START_BYTES = 16


def writable(out: Path) -> Path:
    """Checks a path for a file before any work is done.

    Raises:
        UserError: it is a folder, its folder cannot be written to, or it is a file that lambert did not write.
    """
    if out.is_dir():
        raise UserError(f"{out} is a folder", remedy="Give the name of a file, for example report.html")
    if out.is_file() and out.stat().st_size and not out.read_bytes()[:_START_BYTES].startswith(_OUR_FILES):
        raise UserError(f"{out} is a file that is no page or picture", remedy="Give another name, or delete it first")
    for above in out.parents:
        if above.exists():
            if not above.is_dir() or not os.access(above, os.W_OK):
                raise UserError(f"{out} cannot be written, because of {above}", remedy="Give another file to write")
            break
    return out


def write(out: Path, content: bytes) -> Path:
    """Writes to a temporary file, then renames it: a reader never sees half a page.

    Raises:
        UserError: it cannot be written.
    """
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, out)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise unwritable(error, out, remedy="Give another file to write") from None
    return out


def _policy_hash(script: str) -> str:
    """The source expression for a script in a content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode('utf-8')).digest()).decode()}'"


def _inline_safe(script: str) -> str:
    """Escapes what would end or confuse a <script> element; such text occurs only inside strings."""
    return re.sub(r"<(?=/script|script|!--)", r"\\x3c", script, flags=re.IGNORECASE)
