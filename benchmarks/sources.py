"""How fast every kind of source is read, with the same documents from each, and what the hardest files take of memory.

python benchmarks/sources.py TEXT_FILE [--dump ENWIKI.xml.bz2]

Each source is read in a process of its own. The hard files are written into a temporary folder and need 3 GB of disk.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import hashlib
import json
import lzma
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lambert.corpus.sources import TextReader, find_files

GIGABYTE_PARTS = 1_024
PART = b"The quick brown fox jumps over the lazy dog. " * 23_302  # 1 MiB


def same_documents(text: Path, folder: Path, megabytes: int) -> None:
    """Writes the first megabytes of a text in every format, in whole documents."""
    documents, characters = [], 0
    for document in TextReader([text]):
        documents.append(document.paragraphs)
        characters += sum(map(len, document.paragraphs))
        if characters > megabytes * 1e6:
            break
    plain = "".join("\n".join(paragraphs) + "\n\n" for paragraphs in documents).encode()
    records = "".join(json.dumps({"text": "\n".join(lines)}, ensure_ascii=False) + "\n" for lines in documents).encode()
    zstd = pa.Codec("zstd").compress
    (folder / "a.txt").write_bytes(plain)
    (folder / "a.txt.gz").write_bytes(gzip.compress(plain, 6))
    (folder / "a.txt.bz2").write_bytes(bz2.compress(plain))
    (folder / "a.txt.xz").write_bytes(lzma.compress(plain, preset=1))
    (folder / "a.txt.zst").write_bytes(zstd(plain, asbytes=True))
    (folder / "a.jsonl").write_bytes(records)
    (folder / "a.jsonl.zst").write_bytes(zstd(records, asbytes=True))
    pq.write_table(pa.table({"text": ["\n".join(lines) for lines in documents]}), folder / "a.parquet")


def hard_files(folder: Path) -> None:
    """Files that would fill a memory that holds a line, a record or a row group whole."""

    def write(name: str, parts: Iterable[bytes]) -> None:
        with (folder / name).open("wb") as file:
            for part in parts:
                # Several streams in one file are one text.
                file.write(gzip.compress(part, 1) if name.endswith(".gz") else part)

    gigabyte = [PART] * GIGABYTE_PARTS
    write("line of 1 GiB.txt", gigabyte)
    write("word of 1 GiB.txt", [b"x" * (1 << 20)] * GIGABYTE_PARTS)
    write("bomb of 1 GiB.txt.gz", gigabyte)
    write("record of 1 GiB.jsonl", [b'{"text": "fine"}\n{"text": "', *gigabyte, b'"}\n'])
    write("five million lists.jsonl", [b'{"text": "fine"}\n[', b"[]," * 5_000_000, b"[]]\n"])
    text = pa.array([PART[:100_000].decode()])
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 50_000, pa.int32()), text)
    pq.write_table(pa.table({"text": repeated}), folder / "5 GB repeated.parquet")
    texts = pa.array([hashlib.shake_128(bytes([number])).hexdigest(2_000) for number in range(250)])
    group = pa.table({"text": pa.chunked_array([texts] * 1_000)})
    pq.write_table(group, folder / "row group of 1 GB.parquet", row_group_size=1 << 30, use_dictionary=False)


def peak_megabytes() -> int:
    """Resident memory at its most; `getrusage` would count that of the parent before the program was loaded too."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) // 1_024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1_024


def read_here(file: Path) -> dict[str, Any]:
    """Reads one file: its documents' hash, speed and the process's peak of resident memory."""
    digest = hashlib.sha256()
    reader = TextReader(find_files([file]))
    started = time.perf_counter()
    for document in reader:
        digest.update(json.dumps(document.paragraphs).encode())
    hashed_seconds = time.perf_counter() - started
    started = time.perf_counter()
    if hashed_seconds < 10:
        for _ in reader:
            pass
    seconds = time.perf_counter() - started if hashed_seconds < 10 else hashed_seconds
    return {
        "case": file.name,
        "parser": reader.statistics.parsers[str(file)],
        "megabytes_per_second": round(reader.statistics.bytes / seconds / 1e6, 1),
        "peak_megabytes": peak_megabytes(),
        "documents": digest.hexdigest()[:12],
    }


def main() -> None:
    """Print the table and its JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, help="text file, also compressed")
    parser.add_argument("--megabytes", type=int, default=20, help="how much of it")
    parser.add_argument("--dump", type=Path, help="a MediaWiki export to time")
    parser.add_argument("--only-read", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only_read:
        print(json.dumps(read_here(arguments.text)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as name:
        same, hard = Path(name, "same"), Path(name, "hard")
        same.mkdir()
        hard.mkdir()
        same_documents(arguments.text, same, arguments.megabytes)
        hard_files(hard)
        files = [*sorted(same.iterdir()), *sorted(hard.iterdir()), *([arguments.dump] if arguments.dump else [])]
        for file in files:
            command = [sys.executable, __file__, str(file), "--only-read"]
            row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            rows.append(row)
            print("{case:60} {parser:14} {megabytes_per_second:8} MB/s {peak_megabytes:5} MB {documents}".format(**row))
    machine = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    print(json.dumps({"benchmark": "sources", "machine": machine, "rows": rows}))


if __name__ == "__main__":
    main()
