"""`config.json` of a Hugging Face folder: every setting that changes what the model computes is applied or refused.

Applied: `_FIELDS`. Refused with any other value: `_REQUIRED`. Without effect on a BERT encoder, its heads for
pre-training or SQuAD, or a task whose classes lambert knows: `_WITHOUT_EFFECT`. `transformers` reads no other setting;
one of another name is ignored as there, and the log says so.
"""

from __future__ import annotations

import functools
import logging
import re
from pathlib import Path
from typing import Any

from lambert.errors import UserError
from lambert.model import modernbert_config_file
from lambert.model.architectures import CONFIGS
from lambert.model.bert import BertConfig
from lambert.model.modernbert import ModernBertConfig
from lambert.model.weight_files import damaged
from lambert.utils.hub import CONFIG_FILE
from lambert.utils.io import SETTINGS_BYTES, read_json

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
    "classifier_dropout": "classifier_dropout",
}
_FRACTIONS = (
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"),
    *("layer_norm_eps", "initializer_range", "norm_eps", "embedding_dropout", "attention_dropout"),
)
_NEEDED = ("vocabulary_size", "layers", "hidden_size", "attention_heads")
# What this encoder computes; any other value means another model. `gelu_python` is the same function.
_REQUIRED: dict[str, tuple[Any, ...]] = {
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "is_encoder_decoder": (False,),
    "pruned_heads": ({},),
    "quantization_config": (),
    "per_layer_config": ({},),
    "adapters": (),
}
_REQUIRED_OF_BERT: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("gelu", "gelu_python"),
    "position_embedding_type": ("absolute",),
}
_WITHOUT_EFFECT = {
    "model_type",
    # the file itself, and what a call returns
    *("architectures", "auto_map", "transformers_version", "torch_dtype", "dtype", "torchscript", "return_dict"),
    *("output_attentions", "output_hidden_states", "output_past", "use_bfloat16", "tokenizer_class", "prefix", "name"),
    # how, not what, is computed
    *("chunk_size_feed_forward", "gradient_checkpointing", "use_cache", "attn_implementation", "tie_encoder_decoder"),
    # tasks: lambert's are its own
    *("id2label", "label2id", "num_labels", "_num_labels", "problem_type", "finetuning_task", "task_specific_params"),
    "language",
    # decoders and generation
    *("bos_token_id", "eos_token_id", "sep_token_id", "decoder_start_token_id", "cross_attention_hidden_size"),
    *("max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups", "diversity_penalty"),
    *("temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size"),
    *("encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences", "output_scores", "suppress_tokens"),
    *("return_dict_in_generate", "forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values"),
    *("exponential_decay_length_penalty", "begin_suppress_tokens", "tf_legacy_loss"),
    # BERT's first release
    *("directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers"),
    *("pooler_size_per_head", "pooler_type"),
}
log = logging.getLogger("lambert")


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
    is_modern = settings.get("model_type") == "modernbert"
    names = modernbert_config_file.FIELDS if is_modern else _FIELDS
    known_names = {*names.values(), *_required(settings), *_WITHOUT_EFFECT}
    if is_modern:
        known_names |= modernbert_config_file.WITHOUT_EFFECT
    _say_unknown(path, tuple(sorted(settings.keys() - known_names)))
    if missing := [names[ours] for ours in _NEEDED if names[ours] not in settings]:
        raise damaged(f"{path} lacks {', '.join(missing)}")
    for theirs in names.values():
        value = settings.get(theirs)
        kind, wanted = _kind(theirs)
        if value is not None and (isinstance(value, bool) != (kind is bool) or not isinstance(value, kind)):
            raise damaged(f"{path}: {theirs} is {value!r}, not {wanted}")
    known = {ours: settings[theirs] for ours, theirs in names.items() if theirs in settings}
    if is_modern:
        known |= {"feed_forward_size": 1_152, **known, **modernbert_config_file.more_fields(path, settings)}
    known.setdefault("feed_forward_size", 4 * settings["hidden_size"])
    try:
        return CONFIGS["modernbert" if is_modern else "bert"](**known)
    except UserError as error:
        what = re.sub(rf"\b({'|'.join(names)})\b", lambda ours: names[ours[0]], error.what)
        raise UserError(f"{path}: {what}", remedy=error.remedy) from None


def _required(settings: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    is_modern = settings.get("model_type") == "modernbert"
    return _REQUIRED | (modernbert_config_file.REQUIRED if is_modern else _REQUIRED_OF_BERT)


def _kind(theirs: str) -> tuple[Any, str]:
    """The type of a setting, and what an error calls it."""
    if theirs == "tie_word_embeddings":
        return bool, "true or false"
    if theirs in _FRACTIONS:
        return (int, float), "a number"
    return int, "a whole number"


def config_settings(config: BertConfig, architecture: str) -> dict[str, Any]:
    """The content of `config.json`.

    Args:
        architecture: name of the class in `transformers`.
    """
    if isinstance(config, ModernBertConfig):
        return modernbert_config_file.settings_of(config, architecture)
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


@functools.cache  # a folder is read several times
def _say_unknown(path: Path, names: tuple[str, ...]) -> None:
    if unknown := [name for name in names if not name.startswith("_")]:
        log.warning(f"{path}: no setting of BERT, and ignored as by transformers: {', '.join(map(repr, unknown[:9]))}")


def _refuse_other_models(path: Path, settings: dict[str, Any]) -> None:
    if settings.get("model_type", "bert") not in CONFIGS:
        raise UserError(
            f"{path}: model_type is {settings['model_type']!r}, not {' or '.join(map(repr, CONFIGS))}",
            remedy="Give a model of the original BERT or the ModernBERT family",
        )
    for name, possible in _required(settings).items():
        if name in settings and settings[name] not in possible:
            wanted = repr(possible[0]) if possible else "absent"
            raise UserError(
                f"{path}: {name} is {settings[name]!r}, not {wanted}",
                remedy="Give a model of the original BERT or ModernBERT family, or take out a setting that its "
                "weights do not need",
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
