"""What lambert tells its user goes through `logging.getLogger("lambert")`; here it reaches a terminal or a notebook."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

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
