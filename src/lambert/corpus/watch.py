"""A corpus in use: its files are compared with their hashes beside the work, and must not change meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from lambert.corpus.store import Corpus
from lambert.errors import UserError

SECONDS_BETWEEN_LOOKS = 5.0


class Watch:
    """What has been found so far."""

    def __init__(self) -> None:
        self.problem: UserError | None = None
        """Why the corpus cannot be trusted any more."""


@contextmanager
def watched(corpus: Corpus, *, active: bool = True) -> Iterator[Watch]:
    """Within the block a thread reads the whole corpus once, comparing hashes, and then looks for changed files.

    Args:
        active: False watches nothing, for processes beside the one that does.

    Raises:
        UserError: at the end of the block, when something was found and the block raised nothing of its own.
    """
    watch = Watch()
    if not active:
        yield watch
        return
    files = [corpus.path / entry["file"] for entry in corpus.manifest["shards"]]
    before = [(file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    over = threading.Event()

    def look() -> None:
        try:
            corpus.verify()
            while watch.problem is None:
                is_over = over.wait(SECONDS_BETWEEN_LOOKS)
                for file, facts in zip(files, before, strict=True):
                    now = file.stat()
                    if (now.st_size, now.st_mtime_ns) != facts:
                        raise UserError(
                            f"corpus file {file} has changed since the run began",
                            remedy="Prepare the corpus again into a new folder and start over with it",
                        )
                if is_over:
                    return
        except UserError as error:
            watch.problem = error
        except OSError as error:
            watch.problem = UserError(
                f"the corpus {corpus.path} cannot be read any more ({error})", remedy="Bring it back and start again"
            )

    thread = threading.Thread(target=look, name="corpus watch", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        over.set()
        thread.join()
    if watch.problem is not None:
        raise watch.problem
