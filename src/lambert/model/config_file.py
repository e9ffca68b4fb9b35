"""`config.json` of a Hugging Face folder: every setting that changes what the model computes is applied or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lambert.errors import UserError
from lambert.model.bert import BertConfig
from lambert.model.weight_files import damaged
from lambert.utils.io import SETTINGS_BYTES, read_json

CONFIG_FILE = "config.json"

# Our field → theirs.
_FIELDS = {
    "vocabulary_size": "vocab_size",
    "layers": "num_hidden_layers",
    "hidden_size": "hidden_size",
    "attention_heads": "num_attention_heads",
    "feed_forward_size": "intermediate_size",
    "maximum_positions": "max_position_embeddings",
    "segment_types": "type_vocab_size",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "layer_norm_epsilon": "layer_norm_eps",
    "initializer_range": "initializer_range",
    "pad_token_id": "pad_token_id",
    "tied_decoder": "tie_word_embeddings",
}
_NEEDED = ("vocabulary_size", "layers", "hidden_size", "attention_heads")
# What this encoder computes; any other value means another model. `gelu_python` is the same function.
_REQUIRED: dict[str, tuple[Any, ...]] = {
    "model_type": ("bert",),
    "hidden_act": ("gelu", "gelu_python"),
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "pruned_heads": ({},),
    "quantization_config": (),
}


def read_config(folder: Path) -> BertConfig:
    """The model configuration in `folder/config.json`.

    Raises:
        UserError: no such file, not JSON, a field missing, or not a BERT this encoder computes.
    """
    path = folder / CONFIG_FILE
    try:
        written = read_json(path, SETTINGS_BYTES)
    except FileNotFoundError:
        raise UserError(
            f"{folder} has no config.json", remedy="Give a Hugging Face BERT folder or a finished run"
        ) from None
    except (OSError, ValueError) as error:
        raise damaged(f"{path} cannot be read: {error}") from None
    if not isinstance(written, dict):
        raise damaged(f"{path} is not a JSON object")
    settings = {name: value for name, value in written.items() if value is not None}
    _refuse_other_models(path, settings)
    if missing := [_FIELDS[ours] for ours in _NEEDED if _FIELDS[ours] not in settings]:
        raise damaged(f"{path} lacks {', '.join(missing)}")
    for ours, theirs in _FIELDS.items():
        value, is_flag = settings.get(theirs), ours == "tied_decoder"
        if value is not None and (isinstance(value, bool) != is_flag or not isinstance(value, (int, float))):
            raise damaged(f"{path}: {theirs} is {value!r}, not {'true or false' if is_flag else 'a number'}")
    known = {ours: settings[theirs] for ours, theirs in _FIELDS.items() if theirs in settings}
    known.setdefault("feed_forward_size", 4 * settings["hidden_size"])
    return BertConfig(**known)


def config_settings(config: BertConfig, architecture: str) -> dict[str, Any]:
    """The content of `config.json`.

    Args:
        architecture: name of the class in `transformers`.
    """
    settings: dict[str, Any] = {
        "architectures": [architecture],
        "model_type": "bert",
        "hidden_act": "gelu",
        "position_embedding_type": "absolute",
        **{theirs: getattr(config, ours) for ours, theirs in _FIELDS.items()},
    }
    if config.attention_dropout is None:
        settings[_FIELDS["attention_dropout"]] = config.dropout
    return settings


def _refuse_other_models(path: Path, settings: dict[str, Any]) -> None:
    for name, possible in _REQUIRED.items():
        if name in settings and settings[name] not in possible:
            wanted = repr(possible[0]) if possible else "absent"
            raise UserError(
                f"{path}: {name} is {settings[name]!r}, not {wanted}",
                remedy="Give a model of the original BERT family",
            )
    code = settings.get("auto_map")
    if isinstance(code, dict) and any(name.startswith("AutoModel") for name in code):
        raise UserError(f"{path}: auto_map names code of its own", remedy="Give a model of the original BERT family")
    # The first published folders say nothing of their type; the names of their tensors do.
    classes = settings.get("architectures", [])
    if "model_type" not in settings and any(not str(one).startswith("Bert") for one in classes):
        raise UserError(
            f"{path}: architectures is {classes!r}, not a class of BERT",
            remedy="Give a model of the original BERT family",
        )
