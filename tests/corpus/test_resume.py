"""Any partitions and workers make the same bytes; kills, changes and duplicates change what they should and no more."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent

import pytest

from lambert.corpus import partitions, workers
from lambert.corpus.build import build_corpus
from lambert.corpus.build_folder import build_folder
from lambert.corpus.partitions import PartitionBuilder, group_files
from lambert.corpus.store import Corpus
from lambert.corpus.vocabulary import SPECIAL
from lambert.errors import UserError

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,"


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    file = tmp_path / "vocab.txt"
    file.write_text("\n".join([*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS)]), encoding="utf-8")
    return file


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Eight files of different sizes."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(8):
        documents = [f"file {number} says {n}. it ends here, {n * 7}." for n in range(20 + 15 * number)]
        (folder / f"{number}.txt").write_text("\n\n".join(documents), encoding="utf-8")
    return folder


def bytes_of(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


PROGRAM = """
import sys, time
from pathlib import Path
from textwrap import dedent
from lambert.corpus import partitions
from lambert.corpus.build import build_corpus
partitions.PARTITION_BYTES = 3_000
partitions.BATCH_CHARACTERS = 500
place = partitions.PartitionBuilder._add
def slowly(builder, batch):
    time.sleep(0.07)
    place(builder, batch)
partitions.PartitionBuilder._add = slowly
if __name__ == "__main__":
    text, out, vocabulary, workers = sys.argv[1:]
    build_corpus([Path(text)], Path(out), vocab=Path(vocabulary), validation_fraction=0.1, workers=int(workers))
"""


def command(tmp_path: Path, out: str, count: int) -> list[str]:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    return [
        sys.executable,
        str(program),
        str(tmp_path / "texts"),
        str(tmp_path / out),
        str(tmp_path / "vocab.txt"),
        str(count),
    ]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": ":".join(sys.path)}


def test_any_number_of_workers_makes_the_same_bytes(tmp_path: Path, texts: Path, vocabulary: Path) -> None:
    for count in (1, 2, 3):
        subprocess.run(command(tmp_path, f"out{count}", count), env=environment(), check=True)
    one = bytes_of(tmp_path / "out1")
    assert one == bytes_of(tmp_path / "out2") == bytes_of(tmp_path / "out3")
    assert sum(name.startswith("train") for name in one) > 3
    Corpus.open(tmp_path / "out3").verify()


@pytest.mark.parametrize("wanted", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_after_kills_at_random_moments_the_bytes_are_the_same(
    tmp_path: Path, texts: Path, vocabulary: Path, wanted: int
) -> None:
    subprocess.run(command(tmp_path, "whole", 1), env=environment(), check=True)
    draw = random.Random(3)
    kills = 0
    began = time.monotonic()
    for attempt in range(10 * wanted):
        count = 1 + attempt % 2
        process = subprocess.Popen(
            command(tmp_path, "out", count), env=environment(), start_new_session=True, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(timeout=0.3 + draw.random() * 0.7 if kills < wanted else None)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            continue
        assert process.returncode == 0
        break
    assert kills >= min(wanted, 3), f"ended after {time.monotonic() - began:.1f} s"
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")
    assert not (tmp_path / "out.partial").exists()


def stopped_after(monkeypatch: pytest.MonkeyPatch, count: int) -> list[int]:
    """Makes the build break off when it begins its part `count` (from 0); returns the parts it builds."""
    built: list[int] = []
    original = PartitionBuilder.build

    def build(self: PartitionBuilder, documents: object) -> None:
        if len(built) == count:
            raise KeyboardInterrupt
        built.append(self.number)
        original(self, documents)  # type: ignore[arg-type]

    monkeypatch.setattr(PartitionBuilder, "build", build)
    return built


def test_finished_parts_are_not_built_again(
    tmp_path: Path, texts: Path, vocabulary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "PARTITION_BYTES", 3_000)
    build_corpus([texts], tmp_path / "whole", vocab=vocabulary)
    with monkeypatch.context() as patch:
        assert stopped_after(patch, 2) is not None
        with pytest.raises(KeyboardInterrupt):
            build_corpus([texts], tmp_path / "out", vocab=vocabulary)
    assert (tmp_path / "out.partial").is_dir()
    built = stopped_after(monkeypatch, 99)
    build_corpus([texts], tmp_path / "out", vocab=vocabulary)
    assert built == list(range(2, 2 + len(built))) and len(built) >= 3
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")


def test_a_learned_vocabulary_is_not_learned_again(
    tmp_path: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "PARTITION_BYTES", 3_000)
    build_corpus([texts], tmp_path / "whole", vocab_size=120)
    with monkeypatch.context() as patch:
        stopped_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            build_corpus([texts], tmp_path / "out", vocab_size=120)
    monkeypatch.setattr("lambert.corpus.tokenizer_choice.train_vocabulary", None)
    build_corpus([texts], tmp_path / "out", vocab_size=120)
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")


@pytest.mark.parametrize(
    ("options", "told"), [({"validation_fraction": 0.2}, "validation_fraction"), ({"language": "de"}, "language")]
)
def test_other_settings_are_refused_or_begun_anew(
    tmp_path: Path,
    texts: Path,
    vocabulary: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, object],
    told: str,
) -> None:
    monkeypatch.setattr(partitions, "PARTITION_BYTES", 3_000)
    with monkeypatch.context() as patch:
        stopped_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            build_corpus([texts], tmp_path / "out", vocab=vocabulary)
    with pytest.raises(UserError, match=rf"other arguments \({told}: .* there, .* now\).*`restart=True`"):
        build_corpus([texts], tmp_path / "out", vocab=vocabulary, **options)  # type: ignore[arg-type]
    build_corpus([texts], tmp_path / "out", vocab=vocabulary, restart=True, **options)  # type: ignore[arg-type]
    build_corpus([texts], tmp_path / "whole", vocab=vocabulary, **options)  # type: ignore[arg-type]
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")


def test_a_file_that_changed_is_read_again(
    tmp_path: Path, texts: Path, vocabulary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "PARTITION_BYTES", 3_000)
    with monkeypatch.context() as patch:
        stopped_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            build_corpus([texts], tmp_path / "out", vocab=vocabulary)
    first = texts / "0.txt"
    first.write_text(first.read_text().replace("says", "said"), encoding="utf-8")
    built = stopped_after(monkeypatch, 99)
    build_corpus([texts], tmp_path / "out", vocab=vocabulary)
    assert built[0] == 0 and 1 not in built
    build_corpus([texts], tmp_path / "whole", vocab=vocabulary)
    assert Corpus.open(tmp_path / "out").fingerprint == Corpus.open(tmp_path / "whole").fingerprint


def test_a_record_never_vouches_for_shards_of_other_text(
    tmp_path: Path, texts: Path, vocabulary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file changes, its partition is written again but not finished, and the file changes back."""
    monkeypatch.setattr(partitions, "PARTITION_BYTES", 3_000)
    with monkeypatch.context() as patch:
        stopped_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            build_corpus([texts], tmp_path / "out", vocab=vocabulary)
    first = texts / "0.txt"
    text, times = first.read_text(), (first.stat().st_atime_ns, first.stat().st_mtime_ns)
    first.write_text(text.replace("says", "said"), encoding="utf-8")

    def killed(self: partitions.PartitionRecord, file: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(partitions.PartitionRecord, "write", killed)
        build_corpus([texts], tmp_path / "out", vocab=vocabulary)
    first.write_text(text, encoding="utf-8")
    os.utime(first, ns=times)
    build_corpus([texts], tmp_path / "out", vocab=vocabulary)
    build_corpus([texts], tmp_path / "whole", vocab=vocabulary)
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")
    Corpus.open(tmp_path / "out").verify()


def test_a_vocabulary_learned_from_other_text_is_refused(
    tmp_path: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "PARTITION_BYTES", 3_000)
    stopped_after(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        build_corpus([texts], tmp_path / "out", vocab_size=120)
    (texts / "9.txt").write_text("one more.", encoding="utf-8")
    with pytest.raises(UserError, match=r"sources changed: .*9\.txt"):
        build_corpus([texts], tmp_path / "out", vocab_size=120)


def test_two_at_once_are_refused(tmp_path: Path, texts: Path, vocabulary: Path) -> None:
    with build_folder(tmp_path / "out", {"a": 1}, restart=False) as folder:
        with pytest.raises(UserError, match="another process is preparing"):
            build_corpus([texts], tmp_path / "out", vocab=vocabulary)
        (folder / "manifest.json").write_text(json.dumps({"shards": []}))


def test_wrong_input_in_a_worker_is_told_and_what_is_finished_stays(
    tmp_path: Path, texts: Path, vocabulary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "PARTITION_BYTES", 3_000)
    (texts / "7.txt").write_bytes(b"\x1f\x8b damaged")
    with pytest.raises(UserError, match=r"7\.txt is damaged"):
        build_corpus([texts], tmp_path / "out", vocab=vocabulary, workers=2)
    assert len(list((tmp_path / "out.partial" / "parts").glob("*.json"))) >= 1
    (texts / "7.txt").write_text("mended.", encoding="utf-8")
    build_corpus([texts], tmp_path / "out", vocab=vocabulary, workers=2)
    assert Corpus.open(tmp_path / "out").split("train").document_count > 300


def test_a_killed_worker_is_told(
    tmp_path: Path, texts: Path, vocabulary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "PARTITION_BYTES", 3_000)
    monkeypatch.setattr(workers, "_in_worker", suicide)
    with pytest.raises(UserError, match=r"worker process was killed.*fewer `workers`"):
        build_corpus([texts], tmp_path / "out", vocab=vocabulary, workers=2)


def suicide(job: workers.Job) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_one_large_file_is_encoded_by_all_workers(
    tmp_path: Path, texts: Path, vocabulary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "one.txt"
    file.write_text("\n\n".join(one.read_text(encoding="utf-8") for one in sorted(texts.iterdir())), encoding="utf-8")
    monkeypatch.setattr(partitions, "BATCH_CHARACTERS", 500)
    build_corpus([file], tmp_path / "here", vocab=vocabulary, validation_fraction=0.1)
    with monkeypatch.context() as patch:
        patch.setattr(partitions.DocumentEncoder, "encode", None)  # not in this process
        build_corpus([file], tmp_path / "there", vocab=vocabulary, validation_fraction=0.1, workers=3)
    assert bytes_of(tmp_path / "here") == bytes_of(tmp_path / "there")
    assert Corpus.open(tmp_path / "there").split("train").document_count > 300
    monkeypatch.setattr(workers, "_encode", suicide)
    with pytest.raises(UserError, match=r"worker process was killed.*fewer `workers`"):
        build_corpus([file], tmp_path / "killed", vocab=vocabulary, workers=2)


def test_workers_end_with_the_process_that_asked(tmp_path: Path) -> None:
    program = """
        import os, signal, sys, time
        from lambert.corpus.workers import worker_processes

        if __name__ == "__main__":
            with worker_processes(2) as executor:
                pids = {executor.submit(os.getpid).result() for _ in range(20)}
                sys.stdout.write(" ".join(map(str, pids)))
                sys.stdout.flush()
                os.kill(os.getpid(), signal.SIGKILL)
    """
    (tmp_path / "program.py").write_text(dedent(program))
    ran = subprocess.run([sys.executable, tmp_path / "program.py"], env=environment(), capture_output=True, text=True)
    pids = [int(pid) for pid in ran.stdout.split()]
    assert ran.returncode == -signal.SIGKILL and pids, ran.stderr
    deadline = time.monotonic() + 20
    while (alive := [pid for pid in pids if is_alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_parts_depend_on_sizes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "PARTITION_BYTES", 10)
    files = [Path(name) for name in "abcdef"]
    assert group_files(files, [4, 4, 4, 20, 1, 9]) == [files[:2], files[2:3], files[3:4], files[4:]]
    assert group_files([], []) == []


def test_duplicates_are_counted_and_left_out_on_request(
    tmp_path: Path, vocabulary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "PARTITION_BYTES", 400)
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(5):
        documents = [f"story {n % 12} is told. it ends." for n in range(number, number + 10)]
        (folder / f"{number}.txt").write_text("\n\n".join(documents), encoding="utf-8")
    all_of_it = build_corpus([folder], tmp_path / "all", vocab=vocabulary, validation_fraction=0.2).summary
    assert all_of_it is not None
    once = build_corpus(
        [folder], tmp_path / "once", vocab=vocabulary, validation_fraction=0.2, deduplicate="exact"
    ).summary
    assert once is not None
    assert (all_of_it.total.documents, all_of_it.duplicate_documents) == (50, 38)
    assert (once.total.documents, once.duplicate_documents) == (12, 38)
    assert once.total.sentences == 24 and once.total.words == 12 * 6
    corpus = Corpus.open(tmp_path / "once")
    corpus.verify()
    train, held_out = (corpus.split(name) for name in ("train", "held_out"))
    hashes = [*train.document_hashes.tolist(), *held_out.document_hashes.tolist()]
    assert len(set(hashes)) == len(hashes) == 12
    assert train.document_count == once.splits["train"].documents
    assert train.token_count + held_out.token_count == once.total.tokens


def test_copies_share_their_split_even_where_one_had_to_be_held_out(tmp_path: Path, vocabulary: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("\n\n".join(["one text."] * 5 + ["another text."] * 5), encoding="utf-8")
    summary = build_corpus([file], tmp_path / "out", vocab=vocabulary, validation_fraction=1e-9).summary
    assert summary is not None
    assert {split.documents for split in summary.splits.values()} == {5}
    file.write_text("\n\n".join(["one text."] * 5), encoding="utf-8")
    summary = build_corpus([file], tmp_path / "same", vocab=vocabulary, validation_fraction=1e-9).summary
    assert summary is not None
    assert summary.splits["held_out"].documents == 0


def test_a_full_disk_keeps_what_is_finished(
    tmp_path: Path, texts: Path, vocabulary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "PARTITION_BYTES", 3_000)
    written = 0
    original = partitions.PartitionRecord.write

    def write(self: partitions.PartitionRecord, file: Path) -> None:
        nonlocal written
        written += 1
        if written == 3:
            raise OSError(28, "No space left on device")
        original(self, file)

    with monkeypatch.context() as patch:
        patch.setattr(partitions.PartitionRecord, "write", write)
        with pytest.raises(UserError, match=r"the disk is full.*finished partitions stay.*the same call resumes"):
            build_corpus([texts], tmp_path / "out", vocab=vocabulary)
    build_corpus([texts], tmp_path / "out", vocab=vocabulary)
    build_corpus([texts], tmp_path / "whole", vocab=vocabulary)
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")
