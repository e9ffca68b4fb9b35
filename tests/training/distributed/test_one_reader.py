"""Several processes resume, and rank 0 alone reads: the others are given a folder that does not exist."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

import warm
from lambert.corpus.store import Corpus
from lambert.corpus.tokenizer_files import save_tokenizer
from lambert.errors import Interrupted, UserError
from lambert.model.bert import BertConfig
from lambert.model.heads import BertForPreTraining
from lambert.model.huggingface import save_model
from lambert.planning.memory import peak_memory_bytes, reset_peak_memory
from lambert.training.checkpoint import resume
from lambert.training.checkpoint.format import Checkpoint, write_checkpoint
from lambert.training.distributed import process_group
from lambert.training.distributed.fsdp import from_rank_0, full_tensor
from lambert.training.distributed.process_group import ProcessGroup

pytestmark = pytest.mark.integration
COUNT = 3
CPU = torch.device("cpu")
SLACK_BYTES = 40_000_000
"""Buffers, and tensors that have just been received: less than half of the checkpoint."""
ANY: Any = None
"""The settings of a run, which are not compared where the checkpoint records none."""


def checkpoint(pairs: int, rows: int, step: int = 10) -> Checkpoint:
    """Pairs of weights and moments of 4 kB a row, some small ones, and a step count."""
    counted = [
        torch.arange(start, start + rows * 1_000, dtype=torch.float32).view(rows, -1) for start in range(2 * pairs)
    ]
    weights = {f"w{number}": tensor for number, tensor in enumerate(counted[:pairs])}
    moments = {f"w{number}/exp_avg": tensor for number, tensor in enumerate(counted[pairs:])}
    small = {"w0/step": torch.tensor(7.0), "w1/seen": torch.tensor([True, False, True])}
    return Checkpoint(step, {"model": weights, "optimizer": {**moments, **small}}, {"noise": {"measured": [1.5, 2]}})


def hashed(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().data).hexdigest()


def group(rank: int, count: int, folder: str) -> ProcessGroup:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=count)
    return ProcessGroup(rank, count)


def tell(rank: int, folder: str, facts: Any) -> None:
    (Path(folder) / f"{rank}.json").write_text(json.dumps(facts))


def run_all(function: Any, folder: Path, count: int = COUNT, *arguments: Any) -> list[Any]:
    """What each process told."""
    warm.run_all(function, count, str(folder), *arguments)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(count)]


def _resume(rank: int, count: int, folder: str) -> None:
    processes = group(rank, count, folder)
    run = Path(folder) / ("run" if rank == 0 else "absent")
    opened: Counter[str] = Counter()
    sys.addaudithook(lambda event, given: opened.update([str(given[0])]) if event == "open" else None)
    processes.broadcast(torch.zeros(1))  # connections and buffers
    reset_peak_memory(CPU)
    before = peak_memory_bytes(CPU)
    saved, problems = resume.agreed_checkpoint(run, ANY, processes)
    assert saved is not None and not problems
    checks = {}
    for named in saved.tensors.values():
        for name in named:
            checks[name] = hashed(from_rank_0(torch.zeros(1), named[name], processes))
    peak = peak_memory_bytes(CPU) - before
    reads = {Path(path).name: number for path, number in opened.items() if folder in path and Path(path).is_file()}
    tell(rank, folder, {"step": saved.step, "facts": dict(saved.facts), "hashes": checks, "reads": reads, "peak": peak})
    torch.distributed.destroy_process_group()


def test_one_rank_reads_a_checkpoint_once_and_no_other_holds_more_than_a_tensor(tmp_path: Path) -> None:
    saved = checkpoint(pairs=24, rows=500)
    (tmp_path / "run").mkdir()
    write_checkpoint(tmp_path / "run", saved)
    told = run_all(_resume, tmp_path)
    assert told[0]["reads"] == {"manifest.json": 1, "model.safetensors": 1, "optimizer.safetensors": 1}
    assert all(not one["reads"] for one in told[1:])
    hashes = {name: hashed(tensor) for named in saved.tensors.values() for name, tensor in named.items()}
    for one in told:
        assert (one["step"], one["facts"], one["hashes"]) == (10, saved.facts, hashes)
    assert told[0]["peak"] < saved.tensor_bytes + SLACK_BYTES, told
    assert all(one["peak"] < SLACK_BYTES for one in told[1:]), told


def _shards(rank: int, count: int, folder: str) -> None:
    processes = group(rank, count, folder)
    mesh = init_device_mesh("cpu", (count,))
    sizes = []
    for shape in [(7, 5), (6, 2), (2, 4), (1,), (9,)]:
        tensor = torch.arange(torch.Size(shape).numel(), dtype=torch.float32).view(shape) + 1
        theirs = distribute_tensor(torch.zeros(shape), mesh, [Shard(0)])
        own = from_rank_0(theirs, tensor if rank == 0 else tensor.to("meta"), processes)
        assert torch.equal(full_tensor(own), tensor), shape
        theirs.copy_(own)
        assert torch.equal(full_tensor(theirs), tensor), shape
        sizes.append(own.to_local().numel())
    tell(rank, folder, sizes)
    torch.distributed.destroy_process_group()


def test_a_rank_of_a_sharded_model_gets_its_rows_only(tmp_path: Path) -> None:
    assert run_all(_shards, tmp_path) == [[15, 4, 4, 1, 3], [15, 4, 4, 0, 3], [5, 4, 0, 0, 3]]


def _refusals(rank: int, count: int, folder: str, fault: str) -> None:
    processes = group(rank, count, folder)
    faults = {
        "no permission": PermissionError(13, "Permission denied"),
        "memory": MemoryError("12 GB"),
        "a bug": RuntimeError("of its own"),
    }
    if rank == 0 and fault in faults:

        def fail(*_: Any) -> None:
            raise faults[fault]

        if fault == "no permission":
            from lambert.training.checkpoint import format as module

            module.read_tensors = lambda *_, **__: fail()
        else:
            resume.newest_checkpoint = fail  # type: ignore[assignment]
    try:
        resume.agreed_checkpoint(Path(folder) / ("run" if rank == 0 else "absent"), ANY, processes)
    except Exception as error:
        code = getattr(error, "exit_code", None)
        tell(rank, folder, {"code": code, "words": str(error), "kind": type(error).__name__})
    processes.barrier()  # nobody hangs, and the group still works
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("fault", ["altered", "no permission", "memory", "a bug"])
def test_what_stops_rank_0_stops_all_with_its_words(tmp_path: Path, fault: str) -> None:
    (tmp_path / "run").mkdir()
    path = write_checkpoint(tmp_path / "run", checkpoint(pairs=1, rows=1)) / "optimizer.safetensors"
    if fault == "altered":
        path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    first, *others = run_all(_refusals, tmp_path, COUNT, fault)
    assert others[0] == others[1]
    if fault in ("altered", "no permission"):
        expected = "optimizer.safetensors is not what was saved (its SHA-256 differs)"
        assert (expected if fault == "altered" else "cannot be read (Permission denied)") in first["words"]
        assert first["code"] == UserError.exit_code and {**first, "kind": "UserError"} == others[0]
    else:
        assert first["kind"] == ("MemoryError" if fault == "memory" else "RuntimeError")
        assert others[0]["code"] == Interrupted.exit_code and first["words"] in others[0]["words"]


def test_bytes_of_a_broadcast_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    monkeypatch.setattr(torch.distributed, "broadcast", lambda tensor, source: sent.append(tensor.nbytes))
    for count in (8, 1_024):
        sent.clear()
        given = torch.zeros(10_000_001)
        assert ProcessGroup(0, count).broadcast(given) is given
        assert sent == [process_group.PIECE_BYTES] * 2 + [40_000_004 - 2 * process_group.PIECE_BYTES]


def test_a_run_folder_and_initial_weights_are_read_on_one_machine(small_corpus: Corpus, tmp_path: Path) -> None:
    """The second has a corpus, a model without its weights, and no run; both end in the weights of one process."""
    from lambert.cli.main import main

    hosts = [tmp_path / "first", tmp_path / "second"]
    config = BertConfig(small_corpus.vocabulary_size, 1, hidden_size=32, attention_heads=2, feed_forward_size=64)
    for host in hosts:
        shutil.copytree(small_corpus.path, host / "corpus")
        save_model(BertForPreTraining(config), host / "model")
        save_tokenizer(small_corpus.tokenizer(), host / "model", longest_sequence=64)
    (hosts[1] / "model" / "model.safetensors").write_bytes(b"")
    words = ["--batch-size", "8", "--micro-batch-size", "2", "--sequence-lengths", "32", "--optimizer", "adamw"]
    words += ["--deterministic", "--evaluation-samples", "0", "--checkpoint-steps", "5", "--probe-seconds", "0"]
    words = ["pretrain", "--samples", "80", "--learning-rate", "0.001", *words]
    first = hosts[0]
    alone = ["--corpus", first / "corpus", "--init-from", first / "model", "--out", tmp_path / "alone"]
    assert main([*words, *map(str, alone)]) == 0
    for sitting in range(2):
        output = tmp_path / f"{sitting}.txt"
        own = ["--corpus", "corpus", "--init-from", "model", "--out", "run"]
        assert warm.run_ranks(None, [*words, *own], output, hosts=hosts) == [0, 0], output.read_text()
        one, other = (folder / "huggingface" / "model.safetensors" for folder in (tmp_path / "alone", first / "run"))
        assert one.read_bytes() == other.read_bytes()
        if sitting == 0:
            shutil.rmtree(first / "run" / "checkpoints" / "step-10")
    journal = [json.loads(line) for line in (first / "run" / "journal.jsonl").read_text().splitlines()]
    assert [event["resumed_from_step"] for event in journal if event["event"] == "run"] == [0, 5]
    assert sorted(path.name for path in hosts[1].iterdir()) == ["corpus", "model"]
    for path in (first / "run" / "checkpoints").rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    output = tmp_path / "damaged.txt"
    assert [warm.code_of(rank) for rank in warm.start_ranks(None, [*words, *own], output, hosts=hosts)] == [2, 2]
    told = output.read_text()
    assert told.count("lambert: no checkpoint of run is complete") == 1 and "Traceback" not in told, told
