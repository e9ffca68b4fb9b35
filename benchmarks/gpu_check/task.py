"""Stage 12: from a run to SQuAD, and its export beside what `transformers` makes of it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch

import lambert
from gpu_check.report import Report
from gpu_check.runs import finished
from gpu_check.stages import Settings
from lambert.training.config.precision import Precision

_LARGEST = 1e-2
"""Largest difference of a logit; a GPU may multiply in TF32."""


def squad(settings: Settings, report: Report) -> None:
    """F1 after fine-tuning on a sample, and the largest difference of the exported logits."""
    run = _run(settings, report)
    if run is None:
        return
    with report.case("SQuAD") as row:
        questions = settings.data / "squad"
        sizes = {"train_questions": 8, "dev_questions": 4, "sequence_length": 64, "document_stride": 16}
        found = lambert.finetune_squad(
            run,
            questions / "train.json",
            questions / "dev.json",
            epochs=1,
            precision=Precision.BFLOAT16_AUTOCAST if settings.on_gpu else Precision.FLOAT32,
            device=settings.device,
            **(sizes if settings.small else {"micro_batch_size": 32}),
        )
        row["f1"], row["exact_match"] = found.f1, found.exact_match
    with report.case("export") as row:
        _compare(settings, report, run / "huggingface", row)


def _run(settings: Settings, report: Report) -> Path | None:
    """A finished run: one of stage 11 if it is there, else a short one."""
    for precision in ("bfloat16-autocast", "bfloat16-master", "float32"):
        run = settings.work / "precisions" / precision
        if (run / "huggingface").exists():
            return run
    run = settings.work / "squad" / "run"
    with report.case("a run to start from") as row:
        run.parent.mkdir(parents=True, exist_ok=True)
        sizes = {"model": "1x64" if settings.small else "mini", "batch_size": 16, "samples": 160}
        length = 32 if settings.small else 128
        options = {**sizes, "sequence_lengths": [length], "probe_seconds": 0.0, "fresh": True}
        row.update(finished(settings, run, options))
    return run if (run / "huggingface").exists() else None


@torch.no_grad()
def _compare(settings: Settings, report: Report, folder: Path, row: dict[str, object]) -> None:
    """Logits on the device beside those of transformers on the CPU, or of lambert there."""
    model = lambert.BertForPreTraining.from_pretrained(folder)
    config = model.config
    ids = torch.randint(0, config.vocabulary_size, (4, min(64, config.maximum_positions)))
    if find_spec("transformers") is None:
        row["with"] = "lambert on the CPU: transformers is not installed"
        theirs = model(ids, torch.zeros_like(ids), None, torch.arange(ids.numel()))[0]
    else:
        import transformers

        row["with"] = f"transformers {transformers.__version__}"
        other = transformers.AutoModelForPreTraining.from_pretrained(folder, dtype=torch.float32).eval()
        theirs = other(ids).prediction_logits.flatten(0, 1)
    on_device = ids.to(settings.device)
    everywhere = torch.arange(ids.numel(), device=settings.device)
    ours = model.to(settings.device)(on_device, torch.zeros_like(on_device), None, everywhere)[0]
    difference = float((ours.float().cpu() - theirs.float()).abs().max())
    row["largest_difference"] = difference
    report.expect(difference <= _LARGEST, f"the exported model's logits differ by {difference:.3g}")
