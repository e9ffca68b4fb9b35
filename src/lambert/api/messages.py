"""What lambert tells its user goes through `logging.getLogger("lambert")`; here it reaches a terminal or a notebook."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

log = logging.getLogger("lambert")


def log_lines(lines: Iterable[str]) -> None:
    """Each line as a message of its own."""
    for line in lines:
        log.info(line)


class _Printer(logging.Handler):
    """Prints messages; warnings go to standard error, after the program's name."""

    def __init__(self, reword: Callable[[str], str]) -> None:
        super().__init__()
        self._reword = reword

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        is_warning = record.levelno >= logging.WARNING
        prefix = "lambert: " if is_warning else ""
        print(prefix + self._reword(record.getMessage()), file=sys.stderr if is_warning else sys.stdout, flush=True)


_STREAMS = {"stdout": "output", "stderr": "error"}


class _Unbreakable:
    """A text stream that drops what cannot be written: its reader is gone, its terminal closed, its disk full."""

    def __init__(self, stream: IO[str], name: str) -> None:
        self._stream, self._name, self._is_lost = stream, name, False

    def write(self, text: str) -> int:
        """Write, or drop."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        """Flush, or drop."""
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _drop(self, error: OSError) -> None:
        with suppress(OSError):  # what the stream still holds, and all that follows, goes nowhere
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        if not self._is_lost and error.errno not in (errno.EPIPE, errno.EIO):  # closed on purpose
            self._is_lost = True
            log.warning(f"{self._name} cannot be written ({error.strerror}): lambert continues without it")


@contextmanager
def unbreakable(*names: str) -> Iterator[None]:
    """Within the block, `stdout` or `stderr` of `sys` drop what cannot be written, and the program continues."""
    before = {name: stream for name in names if (stream := getattr(sys, name)) is not None}
    inside = {name: _Unbreakable(stream, f"standard {_STREAMS[name]}") for name, stream in before.items()}
    for name, stream in inside.items():
        setattr(sys, name, stream)
    try:
        yield
    finally:
        for name, stream in inside.items():
            stream.flush()
            if getattr(sys, name) is stream:
                setattr(sys, name, before[name])


@contextmanager
def printed_messages(*, active: bool = True, reword: Callable[[str], str] = str) -> Iterator[None]:
    """Print lambert's messages within the block, unless the caller has set up logging for them already.

    Args:
        reword: applied to each message; the command line makes flags of argument names.
    """
    if not active or log.handlers:
        yield
        return
    handler, level, propagates = _Printer(reword), log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagates
