"""Opens an exported folder again: it must give the ids and the logits of what was exported."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from lambert.corpus.tokenizer_files import ids_of, probe_lines
from lambert.errors import UserError
from lambert.model.heads import PreTrainingModel, pretraining_model
from lambert.model.huggingface import load_model
from lambert.utils.own_process import ask_program

log = logging.getLogger("lambert")
_SEQUENCES, _TOKENS = 8, 32
_LOGITS = 1_000
"""Logits of a token that are compared with `transformers`, evenly from all of them."""
_MOST_SECONDS = 600

# What transformers makes of a folder; a program of its own, because lambert does not depend on transformers.
_PROGRAM = """
import json, sys, torch, transformers
transformers.utils.logging.set_verbosity_error(); transformers.utils.logging.disable_progress_bar()
asked = json.load(sys.stdin)
tokenizer = transformers.AutoTokenizer.from_pretrained(asked["folder"])
kind = getattr(transformers, asked["class"])
model = kind.from_pretrained(asked["folder"], dtype=torch.float32).eval()
with torch.no_grad():
    found = [model(torch.tensor([ids])) for ids in asked["inputs"]]
    logits = [one[asked["logits"]][0, :, ::asked["stride"]].tolist() for one in found]
    first = torch.tensor(asked["inputs"][:1])
    by_name = [(transformers.AutoModelForMaskedLM, found[0][asked["logits"]])]
    by_name.append((transformers.AutoModel, model.base_model(first)[0]))
    autos = [(one.from_pretrained(asked["folder"], dtype=torch.float32).eval(), expected) for one, expected in by_name]
    same = all(torch.allclose(auto(first)[0], expected, atol=1e-5) for auto, expected in autos)
tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
half = kind.from_pretrained(asked["folder"], dtype=torch.bfloat16).eval()
with torch.no_grad():
    finite = all(bool(half(torch.tensor([ids]))[asked["logits"]].isfinite().all()) for ids in asked["inputs"])
ids = tokenizer(asked["lines"])["input_ids"]
print(json.dumps({"finite": finite, "ids": ids, "logits": logits, "tied": tied, "auto": same}))
"""


def check_export(model: PreTrainingModel, tokenizer: Tokenizer, folder: Path) -> None:
    """Check that lambert reads the same model from `folder`; its tokenizer was checked when it was written.

    Raises:
        UserError: a weight, a setting or a logit is another, or a logit is not finite.
    """
    device = model.mlm_head.bias.device
    again, report = load_model(folder, pretraining_model)
    again.to(device)
    inputs = _inputs(tokenizer, model.config.maximum_positions)
    mine, theirs = _logits(model, inputs), _logits(again, inputs)
    if not all(bool(torch.isfinite(one).all()) for one in mine):
        raise UserError(
            f"the model for {folder} gives logits that are not finite, so its training has failed",
            remedy="Look for the first loss that is NaN or infinite in the run's report, and start from before it",
        )
    same = all(torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in zip(mine, theirs, strict=True))
    if not same or again.config != model.config or report.freshly_initialised or report.unused:
        raise UserError(f"the model in {folder} is not the one that was written", remedy="Export it to another disk")


def differences_in_transformers(model: PreTrainingModel, tokenizer: Tokenizer, folder: Path) -> list[str] | None:
    """What `transformers` reads otherwise from `folder`: "ids", "logits", "tied weights", or "logits by its AutoModel
    classes"; None if it is not installed.

    It is asked in a process of its own, without lambert. Logits that are not finite in bfloat16 are a warning.

    Raises:
        UserError: `transformers` cannot open the folder.
    """
    if find_spec("transformers") is None:
        return None
    lines, inputs = probe_lines(tokenizer), _inputs(tokenizer, model.config.maximum_positions)
    stride = max(1, model.config.vocabulary_size // _LOGITS)
    kind = type(model).__name__
    of_output = "prediction_logits" if kind == "BertForPreTraining" else "logits"
    asked = {"folder": str(folder), "lines": lines, "inputs": inputs, "stride": stride, "class": kind}
    asked["logits"] = of_output
    found = ask_transformers(_PROGRAM, asked)
    logits = zip(_logits(model, inputs), found["logits"], strict=True)
    same = all(torch.allclose(a[:, ::stride].cpu(), torch.tensor(b), rtol=1e-3, atol=1e-3) for a, b in logits)
    checks = {
        "ids": found["ids"] == ids_of(tokenizer, lines),
        "logits": same,
        "logits by its AutoModel classes": found["auto"],
        "tied weights": found["tied"] == model.config.tied_decoder,
    }
    if not found["finite"]:
        log.warning(f"The model in {folder} gives logits that are not finite in bfloat16. Load it in float32.")
    return [name for name, is_same in checks.items() if not is_same]


def ask_transformers(program: str, asked: dict[str, Any]) -> dict[str, Any]:
    """What a program that reads `asked` as JSON prints as JSON, in a process of its own, without lambert.

    Raises:
        UserError: it fails: `transformers` cannot open `asked["folder"]`.
    """
    return ask_program(
        ["-c", program],
        asked,
        seconds=_MOST_SECONDS,
        failed=f"the transformers that is installed cannot open {asked['folder']}",
        remedy="Use another version of transformers, or one environment for it and another for lambert",
    )


def _inputs(tokenizer: Tokenizer, positions: int) -> list[list[int]]:
    """Ids of a few lines, as long as the model has positions for."""
    found = [ids[: min(positions, _TOKENS)] for ids in ids_of(tokenizer, probe_lines(tokenizer)[:_SEQUENCES])]
    return [ids for ids in found if ids]


@torch.no_grad()
def _logits(model: PreTrainingModel, inputs: list[list[int]]) -> list[Tensor]:
    """[tokens, vocabulary] for each input, in evaluation mode."""
    training, device = model.training, model.mlm_head.bias.device
    model.eval()
    found = []
    for ids in inputs:
        row = torch.tensor([ids], device=device)
        logits, _ = model(row, torch.zeros_like(row), None, torch.arange(len(ids), device=device))
        found.append(logits.float())
    model.train(training)
    return found
