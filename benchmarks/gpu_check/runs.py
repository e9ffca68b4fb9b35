"""Stages 5 and 9 to 11: whole runs, each in a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpu_check.driver import fresh_folder
from gpu_check.report import Report, described, write_line
from gpu_check.stages import Settings

_SAVE_SECONDS = 60.0
_QUIET = {"evaluation_samples": 0, "trust_ratios_per_phase": 0, "probe_seconds": 0.0}


def finished(settings: Settings, out: Path, options: Mapping[str, Any], **how: Any) -> dict[str, Any]:
    """As `train`, for a run that must come to its end.

    Raises:
        RuntimeError: it did not; with what it said last.
    """
    found = train(settings, out, options, **how)
    said = found.pop("said")
    if found.pop("code"):
        raise RuntimeError(said)
    return found


def train(settings: Settings, out: Path, options: Mapping[str, Any], **how: Any) -> dict[str, Any]:
    """Pre-train in a process of its own.

    Args:
        options: of `lambert.pretrain`.
        how: `kill_at`: the step at which it kills itself, once a checkpoint is there; `fits`: rows of the largest
            micro-batch that does not run out of memory; `memory_fraction`: of the GPU that it may use.

    Returns:
        The exit code `code`, what it `said` last, and if it has finished `seconds`, `bytes` and its metrics.
    """
    spec, told = out.with_suffix(".json"), out.with_suffix(".told.json")
    told.unlink(missing_ok=True)
    corpus = str(settings.data / "corpus")
    spec.write_text(json.dumps({"corpus": corpus, "out": str(out), "told": str(told), "options": dict(options), **how}))
    words = [*settings.program, "--train", str(spec)]
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    said = (done.stderr or done.stdout).strip().splitlines()
    found: dict[str, Any] = json.loads(told.read_text()) if told.exists() else {}
    return {"code": done.returncode, "said": found.pop("problem", "") or " ".join(said[-2:])[-400:], **found}


def train_here(spec: Path) -> int:
    """The other side of `train`."""
    import torch

    import lambert
    from lambert.planning.memory import peak_memory_bytes

    asked = json.loads(spec.read_text())
    told = Path(asked["told"])
    on_gpu = torch.cuda.is_available()
    if asked.get("memory_fraction") and on_gpu:
        torch.cuda.set_per_process_memory_fraction(asked["memory_fraction"])
    if asked.get("fits"):
        _refuse_more_rows(asked["fits"])
    callbacks = [_killer(asked["kill_at"], Path(asked["out"]))] if asked.get("kill_at") else []
    began = time.monotonic()
    try:
        trainer = lambert.Trainer(asked["corpus"], out=asked["out"], callbacks=callbacks, **asked["options"])
        output = trainer.train()
    except Exception as error:
        write_line(told, {"problem": described(error)})
        return 1
    device = torch.device("cuda", 0) if on_gpu else torch.device("cpu")
    facts = {"seconds": time.monotonic() - began, "bytes": peak_memory_bytes(device)}
    write_line(told, {**facts, **output.metrics, "resumed_from": output.resumed_from_step})
    return 0


def _killer(step: int, out: Path) -> Any:
    """A callback that kills this process at a step, as soon as a checkpoint is complete."""
    import lambert

    class Killer(lambert.Callback):
        def on_step_end(self, trainer: Any, record: Mapping[str, Any]) -> None:
            if record["step"] < step:
                return
            until = time.monotonic() + _SAVE_SECONDS
            while not (out / "latest").exists() and time.monotonic() < until:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)

    return Killer()


def _refuse_more_rows(fits: int) -> None:
    """Let every forward pass of more than `fits` rows run out of memory."""
    import torch

    from lambert.model.heads import BertForPreTraining

    forward = BertForPreTraining.forward

    def limited(self: Any, token_ids: Any, *rest: Any, **named: Any) -> Any:
        if torch.is_grad_enabled() and len(token_ids) > fits:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Provoked: {len(token_ids)} rows, {fits} fit")
        return forward(self, token_ids, *rest, **named)

    BertForPreTraining.forward = limited  # type: ignore[method-assign]


def same_bits(settings: Settings, report: Report) -> None:
    """Hashes of the weights: two equal runs; at 512 deterministic twice, and once killed and resumed."""
    folder = fresh_folder(settings.work / "bits")
    if settings.small:
        sizes, length, long = {"model": "1x64", "batch_size": 8, "micro_batch_size": 4, "samples": 48}, 32, 64
        checkpoint, kill_at = 2, 4
    else:
        sizes, length, long = {"model": "mini", "batch_size": 64, "micro_batch_size": 32, "samples": 1_280}, 128, 512
        checkpoint, kill_at = 5, 12
    common = {**sizes, **_QUIET, "checkpoint_steps": checkpoint}
    plain = {**common, "sequence_lengths": [length]}
    fixed = {**common, "sequence_lengths": [long], "deterministic": True}
    for name, options, kill in (
        ("plain", plain, 0),
        ("plain again", plain, 0),
        ("deterministic", fixed, 0),
        ("deterministic again", fixed, 0),
        ("deterministic, killed and resumed", fixed, kill_at),
    ):
        with report.case(name) as row:
            out = folder / name.replace(",", "").replace(" ", "-")
            if kill:
                killed = train(settings, out, options, kill_at=kill)
                report.expect(killed["code"] == -signal.SIGKILL, f"{name}: ended with {killed['code']}, not by SIGKILL")
            row.update(finished(settings, out, options))
            report.expect(not kill or row["resumed_from"] > 0, f"{name}: it did not resume from a checkpoint")
            row["sha256"] = hashlib.sha256((out / "huggingface" / "model.safetensors").read_bytes()).hexdigest()[:16]
            report.facts.setdefault("hashes", {})[name] = row["sha256"]
    hashes = report.facts.get("hashes", {})
    same = {name.startswith("deterministic"): len({hashes[o] for o in hashes if o[:5] == name[:5]}) for name in hashes}
    report.facts["plain_runs_are_equal"] = same.get(False) == 1
    report.facts["deterministic_runs_are_equal"] = same.get(True) == 1
    report.expect(same.get(True) == 1, f"deterministic runs differ: {hashes}")


def out_of_memory(settings: Settings, report: Report) -> None:
    """A run whose micro-batch does not fit: halved until it fits, and finished."""
    folder = fresh_folder(settings.work / "memory")
    small = {"model": "1x64", "batch_size": 8, "micro_batch_size": 8, "samples": 24, "sequence_lengths": [32]}
    cases: list[tuple[str, dict[str, Any], dict[str, Any]]] = [("provoked by hand", small, {"fits": 2})]
    if settings.on_gpu and not settings.small:
        large = {"model": "mini", "batch_size": 8_192, "micro_batch_size": 8_192, "samples": 3 * 8_192}
        cases.append(("a tenth of the memory", {**large, "sequence_lengths": [128]}, {"memory_fraction": 0.1}))
    for name, options, how in cases:
        with report.case(name) as row:
            out = folder / name.replace(" ", "-")
            row.update(finished(settings, out, {**options, **_QUIET}, **how))
            halved = [record["micro_batch_size"] for record in journal(out) if record["event"] == "micro_batch"]
            row["micro_batch_sizes"] = [options["micro_batch_size"], *halved]
            report.expect(bool(halved), f"{name}: no micro-batch was halved")


def forecast(settings: Settings, report: Report) -> None:
    """What a run took, beside what it forecast before its first step; and the data's share of its steps."""
    folder = fresh_folder(settings.work / "forecast")
    options: dict[str, Any] = {"model": "base", "batch_size": 256, "samples": 51_200, "sequence_lengths": [128, 512]}
    if settings.small:
        options = {"model": "1x64", "batch_size": 8, "samples": 96, "sequence_lengths": [32, 64]}
    with report.case("run") as row:
        row.update(finished(settings, folder / "run", {**options, "probe_seconds": 2.0 if settings.small else 5.0}))
        records = journal(folder / "run")
        outcome = next(record for record in records if record["event"] == "outcome")
        predicted = outcome["predicted"] or {}
        for quantity in ("seconds", "memory_bytes"):
            row[f"forecast_{quantity}"], row[f"seen_{quantity}"] = predicted.get(quantity), outcome[quantity]
            sane = bool(predicted.get(quantity)) and outcome[quantity] > 0
            report.expect(sane, f"{quantity}: forecast {predicted.get(quantity)}, seen {outcome[quantity]}")
            row[f"{quantity}_ratio"] = predicted[quantity] / outcome[quantity] if sane else None
        timed = [record for record in records if record["event"] == "step"][3:]
        data = sum(record["step_time_breakdown"].get("data", 0.0) for record in timed)
        row["data_share"] = data / max(sum(record["seconds"] for record in timed), 1e-9)
        row["mfu"] = sorted(record["mfu"] for record in timed)[len(timed) // 2] if timed else None


def precisions(settings: Settings, report: Report) -> None:
    """Held-out losses of one model and seed in three precisions."""
    options: dict[str, Any] = {"model": "mini", "batch_size": 512, "micro_batch_size": 512, "samples": 400_000}
    more: dict[str, Any] = {"evaluation_samples": 2_048, "probe_seconds": 0.0, "sequence_lengths": [128]}
    if settings.small:
        options = {"model": "1x64", "batch_size": 8, "samples": 160}
        more |= {"evaluation_samples": 16, "sequence_lengths": [32]}
    for precision in ("float32", "bfloat16-autocast", "bfloat16-master"):
        with report.case(precision, precision=precision) as row:
            out = fresh_folder(settings.work / "precisions" / precision)
            row.update(finished(settings, out, {**options, **more, "precision": precision}))
            row["mlm_loss"], row["unigram_loss"] = row["eval_mlm_loss"], row["eval_unigram_loss"]
            report.expect(row["mlm_loss"] > 0, f"{precision}: held-out loss {row['mlm_loss']}")
            report.facts.setdefault("losses", {})[precision] = row["mlm_loss"]


def journal(run: Path) -> list[dict[str, Any]]:
    """The records of a run; none where there is no journal."""
    path = run / "journal.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
