"""What can be known about a dashboard before a run: may its folder be written to, does its server answer."""

from __future__ import annotations

import re
import socket
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from lambert.errors import UserError
from lambert.utils.io import unwritable

_CONNECT_SECONDS = 5.0
_PORTS = {"http": 80, "https": 443}


def check_writable(folder: Path) -> None:
    """Make the folder and a file in it, which is deleted.

    Raises:
        UserError: it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise unwritable(error, folder, remedy="Choose another folder or fix its permissions") from None


def check_reachable(address: str) -> None:
    """Open and close a connection to the server of an http or https address.

    Raises:
        UserError: it is no address, or nothing answers there within five seconds.
    """
    shown = without_password(address)
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port or _PORTS[parts.scheme]
    except ValueError:
        host, port = None, 0
    if not host:
        raise UserError(f"{shown} is no address of a server", remedy="Give one such as http://localhost:5000")
    try:
        socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise UserError(
            f"no server answers at {shown} ({error.strerror or error})", remedy="Start it, or check address and network"
        ) from None


def without_password(text: str) -> str:
    """The text with every address in it without user and password, for messages.

    >>> without_password("no answer from http://me:secret@host:5000/api")
    'no answer from http://host:5000/api'
    """
    return re.sub(r"://[^/\s]*@", "://", text)
