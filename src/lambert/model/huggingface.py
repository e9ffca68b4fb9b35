"""Reading and writing Hugging Face folders: `config.json` and `model.safetensors`, as `transformers` does.

The tokenizer files beside them belong to `corpus/vocabulary.py`. Weights are safetensors only, so loading runs no code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lambert.errors import UserError
from lambert.model.bert import BertConfig, BertModel
from lambert.utils import hub
from lambert.utils.io import SETTINGS_BYTES, atomic_write, read_json, share, unwritable

Model = TypeVar("Model", bound=nn.Module)

# Our module path → theirs; `_their_names` matches `blocks.N`.
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
# Copies that `transformers` once wrote beside the tensors they copy, and a list of 0, 1, 2, …
_COPIES = ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias", "bert.embeddings.position_ids")
# What this encoder computes; any other value means another architecture.
_REQUIRED_SETTINGS = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}


@dataclass(frozen=True)
class LoadReport:
    """Where a folder's weights and the model did not match."""

    freshly_initialised: list[str]
    """Our names of the parameters without weights in the folder: usually a head's."""
    unused: list[str]
    """The folder's tensors that the model does not have."""


def _their_names(ours: str) -> list[str]:
    """`transformers`' names of our parameter: one, or several that ours concatenates along its first dimension."""
    module, _, parameter = ours.rpartition(".")
    block = re.fullmatch(r"encoder\.blocks\.(\d+)\.(.+)", module)
    if block:
        return [f"bert.encoder.layer.{block[1]}.{theirs}.{parameter}" for theirs in _BLOCK_MODULES[block[2]]]
    return [f"{_MODULES[module]}.{parameter}"]


def model_folder(path: Path) -> Path:
    """The Hugging Face folder of a run, the folder itself, or the one into which a model of the Hub is fetched.

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
    exported = path / "huggingface"
    if exported.is_dir():
        return exported
    if (path / "journal.jsonl").exists() and not (path / "config.json").exists():
        raise UserError(f"the run {path} has no finished model yet", remedy="Finish the run or export a checkpoint")
    return path


def huggingface_state(model: nn.Module) -> dict[str, Tensor]:
    """The weights under `transformers`' names; the tensors are not copied."""
    state: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        theirs = _their_names(name)
        state.update(zip(theirs, parameter.detach().chunk(len(theirs)), strict=True))
    return state


def save_model(model: nn.Module, folder: Path) -> None:
    """Write `config.json` and `model.safetensors` of a model with a `config`; creates `folder`.

    The name of its class must be that of the architecture in `transformers`. The tied decoder is left out, as
    `transformers` does: loading ties it again.
    """
    config = cast(BertConfig, model.config)
    settings: dict[str, Any] = {
        "architectures": [type(model).__name__],
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
            share(partial)  # safetensors creates files that only their owner can read
    except (OSError, SafetensorError) as error:
        raise unwritable(error, path, remedy="Choose another folder") from None


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
        raise _damaged(f"{path} cannot be read: {error}") from None
    if not isinstance(settings, dict):
        raise _damaged(f"{path} is not a JSON object")
    for key, needed in _REQUIRED_SETTINGS.items():
        found = settings.get(key, needed if key != "model_type" else None)
        if found != needed:
            raise UserError(
                f"{path}: {key} is {found!r}, not {needed!r}",
                remedy="Give a model of the original BERT family",
            )
    missing = [
        theirs
        for ours, theirs in _CONFIG_FIELDS.items()
        if theirs not in settings and ours in ("vocabulary_size", "layers", "hidden_size", "attention_heads")
    ]
    if missing:
        raise _damaged(f"{path} lacks {', '.join(missing)}")
    for theirs in _CONFIG_FIELDS.values():
        value = settings.get(theirs, 0)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _damaged(f"{path}: {theirs} is {value!r}, not a number")
    known = {ours: settings[theirs] for ours, theirs in _CONFIG_FIELDS.items() if theirs in settings}
    known.setdefault("feed_forward_size", 4 * settings["hidden_size"])
    return BertConfig(**known)


def load_model(
    folder: Path, head: Callable[[BertConfig], Model], *, dropout: float | None = None
) -> tuple[Model, LoadReport]:
    """Build `head` with the weights of a Hugging Face BERT folder.

    A head that the folder lacks keeps its random initialization and is named in the report; a missing encoder weight is
    an error.

    Args:
        dropout: overrides the folder's `hidden_dropout_prob`.

    Raises:
        UserError: the folder, its config or its weights are missing or damaged, or shapes differ.
    """
    config = read_config(folder)
    if dropout is not None:
        config = BertConfig(**{**config.__dict__, "dropout": dropout})
    weights = folder / "model.safetensors"
    found = {_modern_name(name): tensor for name, tensor in _read_weights(weights).items()}
    _refuse_larger_model(weights, config, found)
    model = head(config)
    _refuse_untied_decoder(folder, found)
    if "cls.predictions.decoder.bias" in found:  # the only one in some folders
        found.setdefault("cls.predictions.bias", found["cls.predictions.decoder.bias"])
    for name in _COPIES:
        found.pop(name, None)
    fresh: list[str] = []
    for name, parameter in model.named_parameters():
        names = _their_names(name)
        for theirs, part in zip(names, parameter.data.chunk(len(names)), strict=True):
            weight = found.pop(theirs, None)
            if weight is None:
                if name.startswith("encoder."):
                    raise _damaged(f"{weights} lacks {theirs}")
                fresh.append(name)
            elif weight.shape != part.shape:
                wanted = tuple(part.shape)
                raise _damaged(f"{weights}: {theirs} has shape {tuple(weight.shape)}, config.json implies {wanted}")
            else:
                part.copy_(weight)
    return model, LoadReport(freshly_initialised=fresh, unused=sorted(found))


def _damaged(what: str) -> UserError:
    return UserError(what, remedy="Fetch or export the model again")


def _refuse_larger_model(weights: Path, config: BertConfig, found: dict[str, Tensor]) -> None:
    """A config of sizes beyond the weights could exhaust memory."""
    with torch.device("meta"):
        needed = sum(parameter.numel() for parameter in BertModel(config).parameters())
    held = sum(tensor.numel() for tensor in found.values())
    if needed > held:
        raise _damaged(f"{weights} has {held:,} parameters, config.json implies {needed:,} in the encoder alone")


def _refuse_untied_decoder(folder: Path, found: dict[str, Tensor]) -> None:
    """This model's decoder is the word embedding; one that differs cannot be loaded."""
    decoder = found.get("cls.predictions.decoder.weight")
    words = found.get("bert.embeddings.word_embeddings.weight")
    if decoder is not None and words is not None and not torch.equal(decoder, words):
        raise UserError(
            f"{folder} has an MLM decoder that is not tied to its word embedding",
            remedy="Give a model with tied embeddings, as BERT was published",
        )


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        remedy = "Give a folder with model.safetensors"
        if path.with_name("pytorch_model.bin").is_file():
            remedy = (
                "Its pytorch_model.bin is a pickle, which can run code: convert it with transformers, whose "
                "model.save_pretrained writes safetensors"
            )
        raise UserError(f"{path.parent} has no {path.name}", remedy=remedy)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _damaged(f"{path} cannot be read: {error}") from None


def _modern_name(name: str) -> str:
    """Their name with the `bert.` prefix and without TensorFlow's gamma and beta."""
    if name.startswith(("embeddings.", "encoder.", "pooler.")):
        name = f"bert.{name}"
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
