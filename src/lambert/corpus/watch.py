"""Watches a corpus in use: a thread verifies its hashes once, and then checks that its files do not change."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lambert.corpus.store import Corpus
from lambert.errors import UserError

POLL_SECONDS = 5.0


class Watch:
    """The result so far."""

    def __init__(self, files: Sequence[Path] = ()) -> None:
        self.problem: UserError | None = None
        """Why the corpus can no longer be trusted."""
        self._files = files
        self._before = [_facts(file) for file in files]
        self.verified = threading.Event()
        """Set once every hash has been compared, or something was found."""

    def check(self) -> None:
        """Check that all that was read so far is what the corpus's hashes say; waits for their comparison.

        Raises:
            UserError: it is not, or a file has changed since.
        """
        if self._files:
            self.verified.wait()
            self.look()
        if self.problem is not None:
            raise self.problem

    def look(self) -> None:
        """Compare the files' sizes and times with those at the beginning; sets `problem`."""
        for file, before in zip(self._files, self._before, strict=True):
            try:
                changed = _facts(file) != before
            except OSError as error:
                self.problem = self.problem or UserError(
                    f"corpus file {file} can no longer be read ({error.strerror})",
                    remedy="Restore it and give the same command again: the last checkpoint is complete",
                )
                return
            if changed:
                self.problem = self.problem or UserError(
                    f"corpus file {file} has changed since the run began",
                    remedy="Restore it and give the same command again: no checkpoint holds altered text. Or prepare "
                    "the corpus again into a new folder, for a new run",
                )
                return


def _facts(file: Path) -> tuple[int, ...]:
    """What changes whenever the content does."""
    found = file.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@contextmanager
def watched(corpus: Corpus, *, active: bool = True) -> Iterator[Watch]:
    """Within the block a thread reads the whole corpus once, compares hashes, and then polls for changed files.

    Args:
        active: False watches nothing, for all ranks but one.

    Raises:
        UserError: at the end of the block, if something was found and the block raised no exception.
    """
    if not active:
        yield Watch()
        return
    try:
        watch = Watch([corpus.path / entry["file"] for entry in corpus.manifest["shards"]])
    except OSError as error:
        raise _unreadable(corpus, error) from None
    ended = threading.Event()

    def check() -> None:
        try:
            corpus.verify()
            watch.verified.set()
            while watch.problem is None:
                is_last = ended.wait(POLL_SECONDS)
                watch.look()
                if is_last:
                    return
        except UserError as error:
            watch.problem = watch.problem or error
        except OSError as error:
            watch.problem = watch.problem or _unreadable(corpus, error)
        finally:
            watch.verified.set()

    thread = threading.Thread(target=check, name="corpus watch", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        ended.set()
        thread.join()
    if watch.problem is not None:
        raise watch.problem


def _unreadable(corpus: Corpus, error: OSError) -> UserError:
    return UserError(
        f"the corpus {corpus.path} can no longer be read ({error.strerror})",
        remedy="Restore it and give the same command again",
    )
