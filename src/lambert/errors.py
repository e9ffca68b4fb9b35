"""`UserError`: an error that the user can fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class UserError(Exception):
    """Invalid input, an invalid setting, or a machine that cannot do what was requested.

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
        """Support pickling, to pass errors between processes."""
        return _user_error, (type(self), self.what, self.remedy)


class Interrupted(UserError):
    """An external cause ended a run; its last checkpoint is complete, and the same command resumes."""

    exit_code = 3


class LaunchError(UserError):
    """The launcher's variables are wrong, or this rank cannot reach the others; each rank says so for itself."""


class PeerLost(Interrupted):
    """Another rank of a run died or hangs."""

    exit_code = 4


def _user_error(kind: type[UserError], what: str, remedy: str) -> UserError:
    return kind(what, remedy=remedy)


EXIT_INTERRUPTED = 130
"""Exit code after Ctrl-C, as of a shell."""


def was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is the error, or what it comes from: a class that is made meanwhile turns it into its own."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


PRETRAINING = (
    "charset_normalizer", "filelock", "numpy", "pyarrow", "rich", "safetensors", "sentencex", "tokenizers", "tomli_w",
    "tyro",
)  # fmt: skip
"""What the extra `pretrain` installs and all but `lambert.optim` needs, by the names under which it is imported."""


def missing_package(error: ModuleNotFoundError) -> UserError:
    """The error for a package of the extra `pretrain` that is not installed.

    Raises:
        ModuleNotFoundError: `error` is about another module.
    """
    package = (error.name or "").partition(".")[0]
    if package not in PRETRAINING:
        raise error
    return UserError(
        f"{package} is not installed, which only lambert.optim does without",
        remedy="Install what pre-training needs with: pip install 'lambert-bert[pretrain]'",
    )


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for an unknown name; suggests the nearest known one."""
    choices = sorted(known)
    begun = [choice for choice in choices if name and choice.startswith(name.lower())]
    begun.sort(key=lambda choice: len(choice) > len(name) + 1)  # adamw before adam-hyperball
    nearest = begun or difflib.get_close_matches(name.lower(), choices, n=1)
    hint = f"Did you mean {nearest[0]!r}? Known" if nearest else "Known"
    return UserError(f"unknown {kind} {name!r}", remedy=f"{hint}: {', '.join(choices)}")
