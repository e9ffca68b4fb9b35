"""Commands that messages name, as a shell reads them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lambert.training.config.arguments import TrainingArguments, command_line
from lambert.utils.formatting import shell_command

NAMES = [
    b"-run", b"plain", b"a b", b"it's", b'a"b', b"100%d\\n", b"a\nb", b"ends\n\n", b"\n", b"caf\xe9\xff",
    "café".encode(), b"$(x)`y`", b"~", b"#", b"a;b&c|d", b"*", b"!", b"\t\x1b[2J\x7f", "\u202e\u200b".encode(),
]  # fmt: skip
"""Names of folders that someone has."""


def as_read(line: str) -> list[bytes]:
    """The words of a line, as `sh` finds them."""
    assert line.encode()  # a terminal that shows UTF-8 can show it
    script = f"lambert() {{ printf '%s\\0' \"$@\"; }}\n{line}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, check=True)
    return done.stdout.split(b"\0")[:-1]


@pytest.mark.parametrize("name", NAMES)
def test_a_command_works_when_it_is_pasted(name: bytes) -> None:
    path = Path(os.fsdecode(name))
    expected = b"./-run" if name == b"-run" else name
    assert as_read(shell_command("lambert", "fill", path, "a [MASK]")) == [b"fill", expected, b"a [MASK]"]
    line = command_line("pretrain", TrainingArguments(model="-m", samples=80), corpus=path, out=path)
    words = [b"pretrain", b"--model=-m", b"--samples", b"80", b"--corpus", expected, b"--out", expected]
    assert as_read(line) == words
    if name != b"ends\n\n" and name != b"\n":
        assert "\n" not in line
