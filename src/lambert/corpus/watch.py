"""Watches a corpus in use: a thread verifies its hashes once, and then checks that its files do not change."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from lambert.corpus.store import Corpus
from lambert.errors import UserError

POLL_SECONDS = 5.0


class Watch:
    """The result so far."""

    def __init__(self) -> None:
        self.problem: UserError | None = None
        """Why the corpus can no longer be trusted."""


@contextmanager
def watched(corpus: Corpus, *, active: bool = True) -> Iterator[Watch]:
    """Within the block a thread reads the whole corpus once, compares hashes, and then polls for changed files.

    Args:
        active: False watches nothing, for all ranks but one.

    Raises:
        UserError: at the end of the block, if something was found and the block raised no exception.
    """
    watch = Watch()
    if not active:
        yield watch
        return
    files = [corpus.path / entry["file"] for entry in corpus.manifest["shards"]]
    before = [(file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    ended = threading.Event()

    def check() -> None:
        try:
            corpus.verify()
            while watch.problem is None:
                is_last = ended.wait(POLL_SECONDS)
                for file, facts in zip(files, before, strict=True):
                    now = file.stat()
                    if (now.st_size, now.st_mtime_ns) != facts:
                        raise UserError(
                            f"corpus file {file} has changed since the run began",
                            remedy="Prepare the corpus again into a new folder and start over with it",
                        )
                if is_last:
                    return
        except UserError as error:
            watch.problem = error
        except OSError as error:
            watch.problem = UserError(
                f"the corpus {corpus.path} can no longer be read ({error})", remedy="Restore it and start again"
            )

    thread = threading.Thread(target=check, name="corpus watch", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        ended.set()
        thread.join()
    if watch.problem is not None:
        raise watch.problem
