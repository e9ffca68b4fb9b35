"""Makes the archive: source, corpus, questions and packages in one .tar.gz."""

from __future__ import annotations

import json
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from gpu_check import carried
from lambert.errors import UserError

LIMIT = 64 * 2**20
"""Bytes of the archive."""
NAME = "lambert-gpu-check"
VOCABULARY = 30_522
QUESTIONS = {"train": 2_000, "dev": 300}
_SOURCES = ("src", "tests", "benchmarks/gpu_check", "pyproject.toml", "README.md", "LICENSE", "docs/gpu.md")
_BYTES_PER_TOKEN, _CHARACTERS_PER_TOKEN = 2, 4.6  # of English


def make_archive(
    file: Path,
    root: Path,
    *,
    text: Sequence[Path],
    squad: Sequence[Path],
    vocab: str | None,
    wheels: Path | None,
    megabytes: int,
    vocab_size: int = VOCABULARY,
) -> str:
    """Write `file` and say what is in it.

    Args:
        text: files or folders for the corpus, of which the first documents are taken.
        squad: training and development questions, sampled.
        megabytes: of the corpus's tokens, at two bytes each.

    Raises:
        UserError: the text is no corpus, a file is no SQuAD file, or the archive is too large.
    """
    with tempfile.TemporaryDirectory(dir=file.resolve().parent) as name:
        data = Path(name)
        made = _make_corpus(data, text, vocab, vocab_size, megabytes)
        for part, source in zip(QUESTIONS, squad, strict=True):
            _write_questions(source, data / f"{part}.json", QUESTIONS[part])
        packages, left = carried.pure_files()
        parts = dict(_source_files(root))
        parts |= {f"gpu_check_data/corpus/{path.relative_to(made)}": path for path in _files(made)}
        parts |= {f"gpu_check_data/squad/{part}.json": data / f"{part}.json" for part in QUESTIONS}
        parts |= {f"{carried.PACKAGES}/{inside}": path for inside, path in packages.items()}
        parts |= {} if wheels is None else {f"{carried.WHEELS}/{path.name}": path for path in wheels.glob("*.whl")}
        partial = file.with_name(f"{file.name}.partial")
        with tarfile.open(partial, "w:gz", compresslevel=6) as archive:
            for inside in sorted(parts):
                archive.add(parts[inside], f"{NAME}/{inside}")
        size, tokens = partial.stat().st_size, sum(path.stat().st_size for path in _files(made))
        if size > LIMIT:
            partial.unlink()
            raise UserError(
                f"the archive would have {size / 2**20:.1f} MiB, and {LIMIT / 2**20:.0f} is the limit",
                remedy="Give a smaller `--megabytes` or fewer wheels",
            )
        partial.replace(file)
    missing = f"\nnot carried: {', '.join(left)}" if left else ""
    return (
        f"{file}: {size / 2**20:.1f} MiB, of which the corpus {tokens / 2**20:.1f} MiB before compression{missing}\n"
        f"There: tar xf {file.name} && cd {NAME} && python benchmarks/gpu_check"
    )


def _make_corpus(data: Path, text: Sequence[Path], vocab: str | None, vocab_size: int, megabytes: int) -> Path:
    from lambert.corpus.build import build_corpus

    cut = data / "text.txt"
    left = int(megabytes * 1e6 / _BYTES_PER_TOKEN * _CHARACTERS_PER_TOKEN)
    with cut.open("wb") as output:
        for block in _blocks(text):
            output.write(block[: max(0, left)])
            left -= len(block)
            if left <= 0:
                break
    build_corpus(
        [cut],
        data / "corpus",
        vocab=vocab,
        vocab_size=None if vocab else vocab_size,
        workers=None,
        validation_fraction=0.02,
    )
    return data / "corpus"


def _blocks(text: Sequence[Path]) -> Iterator[bytes]:
    """The bytes of all files, compressed or not."""
    from lambert.corpus.compression import open_text_bytes, read_blocks
    from lambert.corpus.discovery import find_files

    for path in find_files(text):
        with open_text_bytes(path) as (stream, _):
            yield from read_blocks(stream)
        yield b"\n\n"


def _write_questions(source: Path, target: Path, most: int) -> None:
    """The first `most` questions of a SQuAD file, as a file of the same kind."""
    from lambert.finetune.squad.data import read_json, read_questions

    read_questions(source)  # refuses what is none
    document, left = read_json(source, what="SQuAD"), most
    paragraphs = []
    for paragraph in (one for article in document["data"] for one in article["paragraphs"]):
        asked = paragraph["qas"][:left]
        left -= len(asked)
        if asked:
            paragraphs.append({"context": paragraph["context"], "qas": asked})
    kept = {"version": document.get("version", "1.1"), "data": [{"title": "", "paragraphs": paragraphs}]}
    target.write_text(json.dumps(kept), encoding="utf-8")


def _source_files(root: Path) -> Iterator[tuple[str, Path]]:
    for name in _SOURCES:
        for path in _files(root / name) if (root / name).is_dir() else [root / name]:
            if path.exists() and "__pycache__" not in path.parts and path.suffix != ".so":
                yield str(path.relative_to(root)), path


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
