"""Reading and writing Hugging Face folders: `config.json` and `model.safetensors`, as `transformers` does.

The tokenizer files beside them belong to `corpus/vocabulary.py`. Weights are safetensors only, so loading runs no code.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from lambert.errors import UserError
from lambert.model.architectures import encoder
from lambert.model.bert import BertConfig
from lambert.model.config_file import config_settings, read_config
from lambert.model.layouts import Layout, layout_of
from lambert.model.weight_files import damaged, read_weights, refuse_quantized
from lambert.utils import hub
from lambert.utils.hub import CONFIG_FILE, WEIGHTS_FILE
from lambert.utils.io import atomic_write, share, unwritable

Model = TypeVar("Model", bound=nn.Module)

_POSITION_IDS = "bert.embeddings.position_ids"
"""A list of 0, 1, 2, … that `transformers` once wrote."""


@dataclass(frozen=True)
class LoadReport:
    """Where a folder's weights and the model did not match."""

    freshly_initialised: list[str]
    """Our names of the parameters without weights in the folder: usually a head's."""
    unused: list[str]
    """The folder's tensors that the model does not have."""
    grown: int = 0
    """New entries of the vocabulary, whose rows are the mean of the folder's."""


def model_folder(path: Path) -> Path:
    """The Hugging Face folder of a run or a fine-tuning, the folder itself, or that into which a model of the Hub is
    fetched.

    Raises:
        UserError: there is no such folder or model, or it is a run that has not exported a model yet.
    """
    if hub.is_hub_name(path):
        return hub.fetched_model(str(path))
    if not path.is_dir():
        raise UserError(
            f"there is no model folder {path}",
            remedy=f"Give a run, a Hugging Face BERT folder, or a name on the Hub such as {hub.EXAMPLE}",
        )
    if (exported := path / "huggingface").is_dir():
        return exported
    if (fine_tuned := path / "model").is_dir() and not (path / CONFIG_FILE).exists():
        return fine_tuned
    if (path / "journal.jsonl").exists() and not (path / CONFIG_FILE).exists():
        raise UserError(f"the run {path} has no finished model yet", remedy="Finish the run or export a checkpoint")
    return path


def huggingface_state(model: nn.Module) -> dict[str, Tensor]:
    """The weights under `transformers`' names; the tensors are not copied."""
    state: dict[str, Tensor] = {}
    layout = layout_of(cast(BertConfig, model.config))
    for name, parameter in model.named_parameters():
        theirs = layout.names(name)
        state.update(zip(theirs, parameter.detach().chunk(len(theirs)), strict=True))
    return state


def save_model(model: nn.Module, folder: Path, *, more_settings: Mapping[str, Any] | None = None) -> None:
    """Write `config.json` and `model.safetensors` of a model with a `config`; creates `folder`.

    The name of its class must be that of the architecture in `transformers`. A tied decoder is left out, as
    `transformers` does: loading ties it again.

    Args:
        more_settings: for `config.json`, such as the names of a classifier's classes.
    """
    config = cast(BertConfig, model.config)
    settings = config_settings(config, type(model).__name__) | dict(more_settings or {})
    state = {name: tensor.cpu().contiguous() for name, tensor in huggingface_state(model).items()}
    layout = layout_of(config)
    if layout.decoder in state and layout.decoder_bias not in state:  # transformers reads the decoder with its own bias
        state[layout.decoder_bias] = state[layout.bias].clone()
    _write_aside(folder / WEIGHTS_FILE, lambda path: save_file(state, path, metadata={"format": "pt"}))
    text = json.dumps(settings, indent=2) + "\n"
    _write_aside(folder / CONFIG_FILE, lambda path: path.write_text(text, encoding="utf-8"))


def _write_aside(path: Path, write: Callable[[Path], object]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial:
            write(partial)
            share(partial)  # safetensors creates files that only their owner can read
    except (OSError, SafetensorError) as error:
        raise unwritable(error, path, remedy="Choose another folder") from None


def load_model(
    folder: Path,
    head: Callable[[BertConfig], Model],
    *,
    config: BertConfig | None = None,
    entries: tuple[int, int] | None = None,
) -> tuple[Model, LoadReport]:
    """Build `head` with the weights of a Hugging Face BERT folder.

    A head that the folder lacks keeps its random initialization and is named in the report; a missing encoder weight is
    an error, and so is one that the configuration has no place for.

    Args:
        config: in place of the folder's, of the same sizes but for the vocabulary's.
        entries: entries of the folder's vocabulary, and of a larger one that begins with them. The rows of the others
            start from the mean of the folder's.

    Raises:
        UserError: the folder, its config or its weights are missing or damaged, or shapes differ.
    """
    written = read_config(folder)
    config = config or written
    layout = layout_of(config)
    found = {layout.modern(name): tensor for name, tensor in read_weights(folder).items()}
    _refuse_larger_model(folder, written, found)
    model = head(config)
    _join_copies(folder, layout, found, tied=config.tied_decoder, used=hasattr(model, "mlm_head"))
    known, wanted = entries or (0, 0)
    if wanted > known:
        for name in found.keys() & {layout.words, layout.bias, layout.decoder}:
            found[name] = _with_mean_rows(found[name], known, wanted)
    fresh: list[str] = []
    for name, parameter in model.named_parameters():
        theirs_of_it = layout.names(name)
        for theirs, part in zip(theirs_of_it, parameter.data.chunk(len(theirs_of_it)), strict=True):
            weight = found.pop(theirs, None)
            if weight is None:
                if name.startswith("encoder."):
                    raise damaged(f"the weights in {folder} lack {theirs}")
                fresh.append(name)
            elif weight.shape != part.shape:
                implied = tuple(part.shape)
                raise damaged(f"{folder}: {theirs} has shape {tuple(weight.shape)}, config.json implies {implied}")
            else:
                refuse_quantized(theirs, weight, folder)
                part.copy_(weight)
    if strange := [name for name in sorted(found) if name.startswith(layout.encoder_parts)]:
        raise UserError(
            f"{folder} has {strange[0]} and {len(strange) - 1:,} more, for which its config.json has no place",
            remedy="Give a model of the original BERT family, with the config.json that it was saved with",
        )
    return model, LoadReport(freshly_initialised=fresh, unused=sorted(found), grown=max(0, wanted - known))


def _with_mean_rows(weight: Tensor, known: int, wanted: int) -> Tensor:
    """Rows from `known` on up to `wanted` are the mean of those before; padding beyond `wanted` stays."""
    rows = weight[:known].float()
    mean = rows.mean(0, keepdim=True).to(weight.dtype)
    return torch.cat([weight[:known], mean.expand(wanted - known, *weight.shape[1:]), weight[wanted:]])


def _join_copies(folder: Path, layout: Layout, found: dict[str, Tensor], *, tied: bool, used: bool) -> None:
    """Takes the decoder's bias and matrix for what they copy; refuses two that differ, if the model uses them.

    A decoder that is not tied has a matrix and a bias of its own, and `transformers` does not use the other bias.
    """
    found.pop(_POSITION_IDS, None)
    if not tied:
        found |= {layout.bias: found.pop(layout.decoder_bias)} if layout.decoder_bias in found else {}
        return
    for copy, original in ((layout.decoder_bias, layout.bias), (layout.decoder, layout.words)):
        tensor = None if copy == original else found.pop(copy, None)
        if tensor is not None and used and not torch.equal(tensor, found.setdefault(original, tensor)):
            raise UserError(
                f"{folder}: {copy} differs from {original}, which it copies by config.json",
                remedy='Where the decoder has a matrix of its own, write "tie_word_embeddings": false into config.json',
            )


def _refuse_larger_model(folder: Path, config: BertConfig, found: dict[str, Tensor]) -> None:
    """A config of sizes beyond the weights could exhaust memory."""
    with torch.device("meta"):
        needed = sum(parameter.numel() for parameter in encoder(config).parameters())
    held = sum(tensor.numel() for tensor in found.values())
    if needed > held:
        raise damaged(f"{folder} has {held:,} parameters, config.json implies {needed:,} in the encoder alone")
