"""Asking a Python program in a process of its own: JSON in, JSON out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from lambert.errors import UserError


def ask_program(
    words: Sequence[str], asked: dict[str, Any], *, seconds: float, failed: str, remedy: str
) -> dict[str, Any]:
    """The JSON object in the last line that a program prints.

    Args:
        words: options of Python and the program: `-c TEXT`, or a file.
        asked: what it reads from standard input, as JSON.
        seconds: it may take.
        failed, remedy: for the error; the last line of what it said is added.

    Raises:
        UserError: it fails, takes too long or prints no JSON.
    """
    command = [sys.executable, "-W", "ignore", *words]
    try:
        done = subprocess.run(
            command, input=json.dumps(asked), capture_output=True, text=True, timeout=seconds, check=True
        )
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (OSError, ValueError, IndexError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1:]
        raise UserError(f"{failed} ({' '.join(said)[:300]})", remedy=remedy) from None
    return answer
