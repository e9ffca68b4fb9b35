"""The Hugging Face folder layout: `config.json` and `model.safetensors` that `transformers` opens, both ways.

The tokenizer files beside them belong to `corpus/vocabulary.py`. Weights are safetensors only: nothing read
here can run code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lambert.errors import UserError
from lambert.model.bert import BertConfig, BertModel
from lambert.model.heads import BertForPreTraining, BertForQuestionAnswering
from lambert.utils.io import SETTINGS_BYTES, atomic_write, read_json

Model = TypeVar("Model", bound=nn.Module)

# Our module path → theirs; `blocks.N` is handled by the pattern in `_their_name`.
_MODULES = {
    "encoder.embeddings.word": "bert.embeddings.word_embeddings",
    "encoder.embeddings.position": "bert.embeddings.position_embeddings",
    "encoder.embeddings.segment": "bert.embeddings.token_type_embeddings",
    "encoder.embeddings.layer_norm": "bert.embeddings.LayerNorm",
    "pooler.dense": "bert.pooler.dense",
    "mlm_head": "cls.predictions",
    "mlm_head.transform": "cls.predictions.transform.dense",
    "mlm_head.layer_norm": "cls.predictions.transform.LayerNorm",
    "nsp_head": "cls.seq_relationship",
    "span_head": "qa_outputs",
    "classifier": "classifier",
}
_BLOCK_MODULES = {
    "attention.query_key_value": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention.output": ("attention.output.dense",),
    "attention.layer_norm": ("attention.output.LayerNorm",),
    "feed_forward.expand": ("intermediate.dense",),
    "feed_forward.contract": ("output.dense",),
    "feed_forward.layer_norm": ("output.LayerNorm",),
}
# Our field → theirs in config.json.
_CONFIG_FIELDS = {
    "vocabulary_size": "vocab_size",
    "layers": "num_hidden_layers",
    "hidden_size": "hidden_size",
    "attention_heads": "num_attention_heads",
    "feed_forward_size": "intermediate_size",
    "maximum_positions": "max_position_embeddings",
    "segment_types": "type_vocab_size",
    "dropout": "hidden_dropout_prob",
    "layer_norm_epsilon": "layer_norm_eps",
    "initializer_range": "initializer_range",
    "pad_token_id": "pad_token_id",
}
# What this encoder computes; a folder that says otherwise is another model.
_REQUIRED_SETTINGS = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
_ARCHITECTURES = {
    BertForPreTraining: "BertForPreTraining",
    BertForQuestionAnswering: "BertForQuestionAnswering",
}


@dataclass(frozen=True)
class LoadReport:
    """What a folder's weights did not settle."""

    freshly_initialised: list[str]
    """Our names of parameters the folder had no weights for (heads, as a rule)."""
    unused: list[str]
    """The folder's tensors that the asked-for model has no place for."""


def _their_names(ours: str) -> list[str]:
    """Under which names `transformers` holds our parameter: one, or several whose rows follow one another in ours."""
    module, _, parameter = ours.rpartition(".")
    block = re.fullmatch(r"encoder\.blocks\.(\d+)\.(.+)", module)
    if block:
        return [f"bert.encoder.layer.{block[1]}.{theirs}.{parameter}" for theirs in _BLOCK_MODULES[block[2]]]
    return [f"{_MODULES[module]}.{parameter}"]


def model_folder(path: Path) -> Path:
    """The Hugging Face folder of a run, or the folder itself.

    Raises:
        UserError: there is no such folder, or it is a run that has not exported a model yet.
    """
    if not path.is_dir():
        raise UserError(f"there is no model folder {path}", remedy="Give a run or a Hugging Face BERT folder")
    exported = path / "huggingface"
    if exported.is_dir():
        return exported
    if (path / "journal.jsonl").exists() and not (path / "config.json").exists():
        raise UserError(f"the run {path} has no finished model yet", remedy="Finish the run or export a checkpoint")
    return path


def huggingface_state(model: nn.Module) -> dict[str, Tensor]:
    """The weights under `transformers`' names (tensors are shared, not copied)."""
    state: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        theirs = _their_names(name)
        state.update(zip(theirs, parameter.detach().chunk(len(theirs)), strict=True))
    return state


def save_model(model: BertForPreTraining | BertForQuestionAnswering, folder: Path) -> None:
    """Write `config.json` and `model.safetensors` into `folder`, which is made if need be.

    The tied decoder is left out of the file, as `transformers` does itself: it ties it again on loading.
    """
    config = model.config
    settings: dict[str, Any] = {
        "architectures": [_ARCHITECTURES[type(model)]],
        **_REQUIRED_SETTINGS,
        **{theirs: getattr(config, ours) for ours, theirs in _CONFIG_FIELDS.items()},
        "attention_probs_dropout_prob": config.dropout,
        "tie_word_embeddings": True,
    }
    state = {name: tensor.cpu().contiguous() for name, tensor in huggingface_state(model).items()}
    _write_aside(folder / "model.safetensors", lambda path: save_file(state, path, metadata={"format": "pt"}))
    text = json.dumps(settings, indent=2) + "\n"
    _write_aside(folder / "config.json", lambda path: path.write_text(text, encoding="utf-8"))


def _write_aside(path: Path, write: Callable[[Path], object]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial:
            write(partial)
            partial.chmod(0o644)  # safetensors makes files that only their owner can read
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path} cannot be written: {error}", remedy="Free some space or choose another folder"
        ) from None


def read_config(folder: Path) -> BertConfig:
    """The model configuration in `folder/config.json`.

    Raises:
        UserError: no such file, not JSON, a field missing, or not a BERT this encoder computes.
    """
    path = folder / "config.json"
    try:
        settings = read_json(path, SETTINGS_BYTES)
    except FileNotFoundError:
        raise UserError(
            f"{folder} has no config.json", remedy="Give a Hugging Face BERT folder or a finished run"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}", remedy="Fetch or export the model again") from None
    if not isinstance(settings, dict):
        raise UserError(f"{path} is not a JSON object", remedy="Fetch or export the model again")
    for key, needed in _REQUIRED_SETTINGS.items():
        found = settings.get(key, needed if key != "model_type" else None)
        if found != needed:
            raise UserError(
                f"{path}: {key} is {found!r}, needed is {needed!r}",
                remedy="Give a model of the original BERT family",
            )
    missing = [
        theirs
        for ours, theirs in _CONFIG_FIELDS.items()
        if theirs not in settings and ours in ("vocabulary_size", "layers", "hidden_size", "attention_heads")
    ]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}", remedy="Fetch or export the model again")
    for theirs in _CONFIG_FIELDS.values():
        value = settings.get(theirs, 0)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UserError(f"{path}: {theirs} is {value!r}, not a number", remedy="Fetch or export the model again")
    known = {ours: settings[theirs] for ours, theirs in _CONFIG_FIELDS.items() if theirs in settings}
    known.setdefault("feed_forward_size", 4 * settings["hidden_size"])
    return BertConfig(**known)


def load_model(
    folder: Path, head: Callable[[BertConfig], Model], *, dropout: float | None = None
) -> tuple[Model, LoadReport]:
    """Build `head` with the weights of a Hugging Face BERT folder.

    Parameters that the folder lacks (a head it was not trained with) keep BERT's random initialisation and are
    named in the report; a missing encoder weight is an error.

    Args:
        dropout: overrides the folder's `hidden_dropout_prob`.

    Raises:
        UserError: the folder, its config or its weights are missing, damaged or of another shape.
    """
    config = read_config(folder)
    if dropout is not None:
        config = BertConfig(**{**config.__dict__, "dropout": dropout})
    found = {_modern_name(name): tensor for name, tensor in _read_weights(folder).items()}
    _refuse_larger_model(folder, config, found)
    model = head(config)
    _refuse_untied_decoder(folder, found)
    fresh: list[str] = []
    for name, parameter in model.named_parameters():
        names = _their_names(name)
        for theirs, part in zip(names, parameter.data.chunk(len(names)), strict=True):
            weight = found.pop(theirs, None)
            if weight is None:
                if name.startswith("encoder."):
                    raise UserError(
                        f"{folder}/model.safetensors lacks {theirs}", remedy="Fetch or export the model again"
                    )
                fresh.append(name)
            elif weight.shape != part.shape:
                raise UserError(
                    f"{folder}/model.safetensors: {theirs} has shape {tuple(weight.shape)}, "
                    f"config.json asks for {tuple(part.shape)}",
                    remedy="Fetch or export the model again",
                )
            else:
                part.copy_(weight)
    return model, LoadReport(freshly_initialised=fresh, unused=sorted(found))


def _refuse_larger_model(folder: Path, config: BertConfig, found: dict[str, Tensor]) -> None:
    """Sizes that nobody has weights for would only take memory."""
    with torch.device("meta"):
        needed = sum(parameter.numel() for parameter in BertModel(config).parameters())
    held = sum(tensor.numel() for tensor in found.values())
    if needed > held:
        raise UserError(
            f"{folder}/model.safetensors holds {held:,} numbers, config.json asks for {needed:,} in the encoder alone",
            remedy="Fetch or export the model again",
        )


def _refuse_untied_decoder(folder: Path, found: dict[str, Tensor]) -> None:
    """This encoder's decoder is the word embedding; a folder with another one cannot be represented."""
    decoder = found.get("cls.predictions.decoder.weight")
    words = found.get("bert.embeddings.word_embeddings.weight")
    if decoder is not None and words is not None and not torch.equal(decoder, words):
        raise UserError(
            f"{folder} has a masked-word decoder of its own, apart from its word embedding",
            remedy="Give a model with tied embeddings, as BERT was published",
        )


def _read_weights(folder: Path) -> dict[str, Tensor]:
    path = folder / "model.safetensors"
    if not path.is_file():
        remedy = "Give a folder with model.safetensors"
        if (folder / "pytorch_model.bin").is_file():
            remedy = (
                "Its pytorch_model.bin is a pickle, which can run code and is not opened here: convert it with "
                "transformers (model.save_pretrained writes safetensors)"
            )
        raise UserError(f"{folder} has no model.safetensors", remedy=remedy)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read: {error}", remedy="Fetch or export the model again") from None


def _modern_name(name: str) -> str:
    """Their name with the `bert.` prefix and without TensorFlow's gamma and beta."""
    if name.startswith(("embeddings.", "encoder.", "pooler.")):
        name = f"bert.{name}"
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
