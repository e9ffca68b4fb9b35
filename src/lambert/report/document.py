"""What every page is made in: the document around the body, and a file written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from lambert.errors import UserError
from lambert.report.library import as_data, library, own_script, policy_hash
from lambert.report.style import style_sheet


def document(title: str, body: str, charts: Mapping[str, Any] | None = None) -> str:
    """The whole page around `body`; with charts, what page.js draws them from, and the scripts.

    The content security policy lets a browser run the scripts of the page, which it names by their hashes, and
    nothing else: it refuses whatever a run's own words might smuggle in, and any request.
    """
    scripts, allowed = "", ""
    if charts is not None:
        run = (library(), own_script())
        allowed = f" script-src {' '.join(map(policy_hash, run))};"
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


def writable(out: Path) -> Path:
    """Refuses a folder before any work is done."""
    if out.is_dir():
        raise UserError(f"{out} is a folder", remedy="Give the name of a file, for example report.html")
    for above in out.parents:
        if above.exists():
            if not above.is_dir() or not os.access(above, os.W_OK):
                raise UserError(f"{out} cannot be written, because of {above}", remedy="Give another file to write")
            break
    return out


def write(out: Path, content: bytes) -> Path:
    """Writes aside, then renames: a reader never sees half a page."""
    aside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(content)
        os.replace(aside, out)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise UserError(f"{out} cannot be written ({error.strerror})", remedy="Give another file to write") from None
    return out
