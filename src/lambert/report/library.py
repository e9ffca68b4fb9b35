"""The scripts of a page: Vega-Lite as vl-convert brings it, the charts as data, and page.js that joins them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that needs no network; it sets `vegaEmbed` on the window."""
    import vl_convert

    return _harmless(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


@cache
def own_script() -> str:
    """page.js."""
    return _harmless((files("lambert.report") / "page.js").read_text("utf-8"))


def as_data(value: Mapping[str, Any]) -> str:
    """JSON that can stand in a <script>: no "<", so that no text in it can end the script or open another."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    text = text.encode("utf-8", errors="replace").decode("utf-8")  # half a surrogate pair is no text
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def policy_hash(script: str) -> str:
    """How a content security policy names a script that may run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode('utf-8')).digest()).decode()}'"


def _harmless(script: str) -> str:
    """The same script without what would end or confuse a <script> element; such text stands in strings only."""
    return re.sub(r"<(?=/script|script|!--)", r"\\x3c", script, flags=re.IGNORECASE)
