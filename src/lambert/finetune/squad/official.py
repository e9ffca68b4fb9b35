"""The official SQuAD files, downloaded and checked by their SHA-256. A local file works everywhere in their place."""

from __future__ import annotations

import hashlib
import logging
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Literal

from lambert.errors import UserError
from lambert.finetune.squad.data import Question, QuestionFile, Version, read_questions, version_of
from lambert.utils.io import file_sha256

OFFICIAL_ADDRESS = "https://rajpurkar.github.io/SQuAD-explorer/dataset/"
OFFICIAL_FILES = {
    "train-v1.1.json": ("3527663986b8295af4f7fcdff1ba1ff3f72d07d61a20f487cb238a6ef92fd955", 30_288_272),
    "dev-v1.1.json": ("95aa6a52d5d6a735563366753ca50492a658031da74f301ac5238b03966972c9", 4_854_279),
    "train-v2.0.json": ("68dcfbb971bd3e96d5b46c7177b16c1a4e7d4bdef19fb204502738552dede002", 42_123_633),
    "dev-v2.0.json": ("80a5225e94905956a6446d296ca1093975c4d3b3260f1d6c8f68bc2ab77182d8", 4_370_528),
}
"""Name → SHA-256, bytes. Those of v2.0 are what ParlAI (parlai/tasks/squad2) and others record (unconfirmed)."""
_CHUNK_BYTES = 1 << 20
Split = Literal["train", "dev"]
Questions = str | Path | Sequence[Question] | None
"""A file, the questions themselves, "official", "official-v2.0", or None for "official"."""
log = logging.getLogger("lambert")


def find_questions(questions: Questions, split: Split, version: Version) -> QuestionFile:
    """The questions that were asked for; "official" stands for the published file of `version`.

    Raises:
        UserError: a file is wrong or cannot be downloaded, or there are no questions.
    """
    if questions in (None, "official", "official-v2.0"):
        path = official_file(split, "2.0" if questions == "official-v2.0" else version)
    elif isinstance(questions, str | Path):
        path = Path(questions)
    elif questions:
        return QuestionFile(Path(split), tuple(questions), 0, version_of(questions))
    else:
        raise UserError(f"`{split}` has no questions", remedy="Give at least one")
    found = read_questions(path)
    if found.moved_answers:
        log.info(
            f"{found.moved_answers:,} answers of {path} were not at their answer_start and were moved to the nearest "
            "occurrence of their text"
        )
    return found


def official_file(
    split: Split,
    version: Version = "1.1",
    folder: Path | None = None,
    *,
    address: str = OFFICIAL_ADDRESS,
    timeout_seconds: float = 30.0,
) -> Path:
    """The path of an official file, downloaded into `folder` unless an intact copy is there.

    Args:
        folder: where to store it; None takes `$XDG_CACHE_HOME/lambert/squad` (`~/.cache` where unset).
        address: URL of the files' folder, with a closing slash.
        timeout_seconds: longest wait for a response.

    Raises:
        UserError: the server cannot be reached, the file is not the published one, or the folder cannot be written to.
    """
    name = f"{split}-v{version}.json"
    wanted, size_bytes = OFFICIAL_FILES[name]
    path, url = (_cache_folder() if folder is None else folder) / name, address + name
    try:
        if path.is_file() and file_sha256(path) == wanted:
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            digest = _download(url, partial, limit_bytes=size_bytes, timeout_seconds=timeout_seconds)
            if digest != wanted:
                raise UserError(
                    f"{url} gave a file with SHA-256 {digest[:12]}…, not the published {wanted[:12]}…",
                    remedy="Try again, or give the path of a local copy",
                )
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        raise UserError(
            f"{url} cannot be fetched ({error})",
            remedy="Fetch it on a machine with internet access and give the path of the copy",
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error})", remedy="Choose a folder you may write to") from None
    return path


def _cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "lambert" / "squad"


def _download(url: str, target: Path, *, limit_bytes: int, timeout_seconds: float) -> str:
    """Stream `url` into `target` and return its SHA-256; stop soon after `limit_bytes`."""
    digest = hashlib.sha256()
    received_bytes = 0
    with urllib.request.urlopen(url, timeout=timeout_seconds) as answer, target.open("wb") as file:
        while received_bytes <= limit_bytes and (chunk := answer.read(_CHUNK_BYTES)):
            received_bytes += len(chunk)
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()
