"""Watches a corpus in use: a thread verifies its hashes once, and then checks that its files do not change."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lambert.corpus.store import Corpus
from lambert.errors import Interrupted, UserError
from lambert.utils.memory import is_out_of_memory, memory_words

POLL_SECONDS = 5.0
_FREE = "Free some and give the same command again: the last checkpoint is complete"


class Watch:
    """The result so far.

    Args:
        reader: which process reads them, at the start of messages; empty for a single one.
    """

    def __init__(self, files: Sequence[Path] = (), reader: str = "") -> None:
        self.problem: UserError | None = None
        """Why the corpus can no longer be trusted."""
        self._files, self._reader = files, reader
        self._before = [_facts(file) for file in files]
        self.verified = threading.Event()
        """Set once every hash has been compared, or something was found."""
        if not files:
            self.verified.set()

    def check(self) -> None:
        """Check that all that was read so far is what the corpus's hashes say; waits for their comparison.

        Raises:
            UserError: it is not, or a file has changed since.
        """
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
                remedy = "Restore it and give the same command again: the last checkpoint is complete"
                self.tell(UserError(f"corpus file {file} can no longer be read ({error.strerror})", remedy=remedy))
                return
            if changed:
                remedy = (
                    "Restore it and give the same command again: no checkpoint holds altered text. Or prepare the "
                    "corpus again into a new folder, for a new run"
                )
                self.tell(UserError(f"corpus file {file} has changed since the run began", remedy=remedy))
                return

    def tell(self, problem: UserError) -> None:
        """Set `problem`, unless one was found before."""
        what = f"{self._reader}: {problem.what}" if self._reader else problem.what
        self.problem = self.problem or type(problem)(what, remedy=problem.remedy)


def _facts(file: Path) -> tuple[int, ...]:
    """What changes whenever the content does."""
    found = file.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@contextmanager
def watched(corpus: Corpus, *, active: bool = True, reader: str = "") -> Iterator[Watch]:
    """Within the block a thread reads the whole corpus once, compares hashes, and then polls for changed files.

    Args:
        active: False watches nothing, for all ranks of a machine but one.
        reader: see `Watch`.

    Raises:
        UserError: at the end of the block, if something was found and the block raised no exception.
    """
    if not active:
        yield Watch()
        return
    try:
        watch = Watch([corpus.path / entry["file"] for entry in corpus.manifest["shards"]], reader)
    except OSError as error:
        raise _failed(corpus, error) from None
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
        except Exception as error:  # MemoryError too: text that was not compared must not be taken for verified
            watch.tell(_failed(corpus, error))
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


def _failed(corpus: Corpus, error: Exception) -> UserError:
    if isinstance(error, UserError):
        return error
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if is_out_of_memory(error):
        return Interrupted(f"the corpus {corpus.path} cannot be verified: {memory_words(error)}", remedy=_FREE)
    return UserError(
        f"the corpus {corpus.path} can no longer be read ({words})",
        remedy="Restore it and give the same command again",
    )
