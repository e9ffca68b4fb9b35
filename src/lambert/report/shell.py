"""What every page is made in: the document around the body, and a file written whole or not at all."""

from __future__ import annotations

import os
from html import escape
from pathlib import Path

from lambert.errors import UserError
from lambert.report.style import style_sheet

# Nothing but the page itself: a browser then refuses whatever a run's own words might smuggle in.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def document(title: str, body: str) -> str:
    """The whole page around `body`."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} – lambert report</title><style>{style_sheet()}</style></head>\n"
        f"<body><main>{body}</main></body></html>\n"
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
