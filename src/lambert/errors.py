"""The one exception that means: the person running lambert can put this right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class UserError(Exception):
    """Wrong input, a wrong setting or a machine that cannot do what was asked.

    Args:
        what: what was wrong and where (file, line, field, value), without a full stop.
        remedy: what to do about it, an imperative sentence without a full stop.

    The command line prints it on one line and exits with code 2.
    """

    exit_code = 2

    def __init__(self, what: str, *, remedy: str) -> None:
        super().__init__(f"{what}. {remedy}.")
        self.what = what
        self.remedy = remedy

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors travel between processes."""
        return _user_error, (type(self), self.what, self.remedy)


class Interrupted(UserError):
    """Something outside ended a run whose last checkpoint is whole: the same command resumes."""

    exit_code = 3


class PeerLost(Interrupted):
    """Another process of a run died or hangs."""

    exit_code = 4


def _user_error(kind: type[UserError], what: str, remedy: str) -> UserError:
    return kind(what, remedy=remedy)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not in a list, offering the nearest one."""
    choices = sorted(known)
    nearest = difflib.get_close_matches(name.lower(), choices, n=1)
    hint = f"Did you mean {nearest[0]!r}? Known" if nearest else "Known"
    return UserError(f"unknown {kind} {name!r}", remedy=f"{hint}: {', '.join(choices)}")
