"""Hugging Face folders of many kinds, as people have them: `FOLDERS` maps a name to what makes one."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import NFC, BertNormalizer, Lowercase, Sequence
from tokenizers.pre_tokenizers import BertPreTokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz"
ENTRIES = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "[", "]", *LETTERS, "ä", "ö", "東", "京"),
    *(f"##{letter}" for letter in (*LETTERS, "ö")),
    *("der", "mann", "möchte", "mochte", "the"),
]
CASED = [*ENTRIES, *LETTERS.upper(), *(f"##{letter}" for letter in LETTERS.upper()), "Mann"]
LINES = ["Der Mann möchte schön.", "東京der", "mann the covid [ENT].", "mo\u0308chte [MASK]"]
WEIGHTS, CONFIG = "model.safetensors", "config.json"
DECODER, BIAS = "cls.predictions.decoder", "cls.predictions.bias"


def folder(
    path: Path,
    *,
    entries: list[str] = ENTRIES,
    rows: int | None = None,
    model: str = "BertForPreTraining",
    tokenizer_config: dict[str, Any] | None = None,
    shards: bool = False,
    files: dict[str, Any] | None = None,
    **config: Any,
) -> Path:
    """A folder that transformers wrote, with a vocab.txt; every weight is random, so that none is zero or one."""
    torch.manual_seed(7)
    settings = transformers.BertConfig(
        vocab_size=rows or len(entries), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, **{"max_position_embeddings": 64, **config},
    )  # fmt: skip
    theirs = getattr(transformers, model)(settings)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    theirs.save_pretrained(path, max_shard_size="20KB" if shards else "1GB")
    (path / "vocab.txt").write_text("".join(f"{entry}\n" for entry in entries), encoding="utf-8")
    written = {"tokenizer_config.json": tokenizer_config or {"do_lower_case": True}, **(files or {})}
    for name, content in written.items():
        (path / name).write_text(json.dumps(content))
    return path


def with_config(path: Path, *without: str, **settings: Any) -> Path:
    """The folder with other settings in config.json."""
    config = json.loads((path / CONFIG).read_text()) | settings
    (path / CONFIG).write_text(json.dumps({name: value for name, value in config.items() if name not in without}))
    return path


def with_setting(path: Path, *, name: str, value: Any) -> Path:
    return with_config(folder(path), **{name: value})


def with_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """The folder with other tensors."""
    tensors = load_file(path / WEIGHTS)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path / WEIGHTS, {"format": "pt"})
    return path


def with_tokenizer_json(path: Path, config: dict[str, Any] | None, normalizer: Any, *added: AddedToken) -> Path:
    """The folder with rules in tokenizer.json in place of vocab.txt."""
    entries = (path / "vocab.txt").read_text(encoding="utf-8").split()
    tokenizer = Tokenizer(WordPiece({entry: number for number, entry in enumerate(entries)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, BertPreTokenizer()
    tokenizer.add_special_tokens(entries[:5])
    tokenizer.add_tokens(list(added))
    tokenizer.post_processor = transformers.BertTokenizer(vocab=dict(tokenizer.get_vocab()))._tokenizer.post_processor
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "vocab.txt").unlink()
    (path / "tokenizer_config.json").unlink()
    if config is not None:
        names = ("pad", "unk", "cls", "sep", "mask")
        tokens = {f"{name}_token": f"[{name.upper()}]" for name in names}
        inputs = {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
        (path / "tokenizer_config.json").write_text(json.dumps({**tokens, **inputs, **config}))
    return path


def decoder_bias_only(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{DECODER}.bias"] = tensors.pop(BIAS) + 3


def decoder_of_its_own(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{DECODER}.weight"] = torch.randn(tensors["bert.embeddings.word_embeddings.weight"].shape)


def old_names(tensors: dict[str, torch.Tensor]) -> None:
    for name in list(tensors):
        old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        tensors[old] = tensors.pop(name)


def other_prefix(tensors: dict[str, torch.Tensor]) -> None:
    for name in list(tensors):
        tensors[name.replace("bert.", "roberta.")] = tensors.pop(name)


def quantized(tensors: dict[str, torch.Tensor]) -> None:
    tensors["bert.encoder.layer.0.output.dense.weight"] = torch.ones(16, 32, dtype=torch.int8)


def one_layer_more(tensors: dict[str, torch.Tensor]) -> None:
    tensors.update({n.replace("layer.1", "layer.2"): t.clone() for n, t in tensors.items() if "layer.1" in n})


def half(tensors: dict[str, torch.Tensor]) -> None:
    tensors.update({name: tensor.half() for name, tensor in tensors.items()})


def pickled(path: Path, *, old: bool = False) -> Path:
    """The folder with pickles in place of safetensors, which may be of PyTorch before 1.6."""
    for file in path.glob("*.safetensors"):
        name = file.stem.replace("model", "pytorch_model") + ".bin"
        torch.save(load_file(file), path / name, _use_new_zipfile_serialization=not old)
        file.unlink()
    if (index := path / f"{WEIGHTS}.index.json").exists():
        text = index.read_text().replace("model-", "pytorch_model-").replace(".safetensors", ".bin")
        (path / "pytorch_model.bin.index.json").write_text(text)
        index.unlink()
    return path


def sharing(path: Path) -> Path:
    """A pickle with the decoder, as older transformers wrote one: a tensor that shares the memory of another."""
    tensors = load_file(path / WEIGHTS)
    tensors |= {
        f"{DECODER}.weight": tensors["bert.embeddings.word_embeddings.weight"],
        f"{DECODER}.bias": tensors[BIAS],
    }
    torch.save({name: torch.nn.Parameter(tensor) for name, tensor in tensors.items()}, path / "pytorch_model.bin")
    (path / WEIGHTS).unlink()
    return path


def both(path: Path) -> Path:
    """Pickles beside safetensors, with other numbers."""
    tensors = {name: tensor + 1 for name, tensor in load_file(path / WEIGHTS).items()}
    torch.save(tensors, path / "pytorch_model.bin")
    return path


def with_pickle(path: Path, content: object) -> Path:
    (path / WEIGHTS).unlink()
    torch.save(content, path / "pytorch_model.bin")
    return path


def without(path: Path, *names: str) -> Path:
    for name in names:
        (path / name).unlink()
    return path


def without_a_shard(path: Path) -> Path:
    sorted(path.glob("model-*.safetensors"))[1].unlink()
    return path


def escaping_shard(path: Path) -> Path:
    index = path / f"{WEIGHTS}.index.json"
    content = json.loads(index.read_text())
    first = min(content["weight_map"])
    content["weight_map"][first] = "../outside.safetensors"
    index.write_text(json.dumps(content))
    return path


LOWER, KEPT = BertNormalizer(lowercase=True), BertNormalizer(lowercase=True, strip_accents=False)
FAST = {"tokenizer_class": "PreTrainedTokenizerFast"}
ADDED = {"[ENT]": len(ENTRIES), "covid": len(ENTRIES) + 1}
TOKENS = (AddedToken("[ENT]", special=True), AddedToken("covid"))
Make = Callable[[Path], Path]
EQUAL: dict[str, Make] = {
    "uncased": folder,
    "cased": lambda path: folder(path, entries=CASED, tokenizer_config={"do_lower_case": False}),
    "accents kept": lambda path: folder(path, tokenizer_config={"do_lower_case": True, "strip_accents": False}),
    "accents stripped": lambda path: folder(path, tokenizer_config={"do_lower_case": False, "strip_accents": True}),
    "Chinese in words": lambda path: folder(path, tokenizer_config={"tokenize_chinese_chars": False}),
    "added tokens": lambda path: folder(path, rows=len(ENTRIES) + 2, files={"added_tokens.json": ADDED}),
    "added tokens in tokenizer.json": lambda path: with_tokenizer_json(
        folder(path, rows=len(ENTRIES) + 2), FAST, LOWER, *TOKENS
    ),
    "accents kept, tokenizer.json": lambda path: with_tokenizer_json(folder(path), FAST, KEPT),
    "NFC, tokenizer.json": lambda path: with_tokenizer_json(folder(path), FAST, Sequence([NFC(), Lowercase()])),
    "tokenizer.json without settings": lambda path: with_tokenizer_json(folder(path), None, LOWER),
    "padded": lambda path: folder(path, rows=128),
    "padded, added tokens": lambda path: folder(path, rows=128, files={"added_tokens.json": ADDED}),
    "sharded": lambda path: folder(path, shards=True),
    "sharded, cased": lambda path: folder(path, entries=CASED, tokenizer_config={"do_lower_case": False}, shards=True),
    "untied": lambda path: folder(path, tie_word_embeddings=False),
    "untied, padded": lambda path: folder(path, tie_word_embeddings=False, rows=128),
    "one segment type": lambda path: folder(path, type_vocab_size=1),
    "three segment types": lambda path: folder(path, type_vocab_size=3),
    "32 positions": lambda path: folder(path, max_position_embeddings=32),
    "attention dropout": lambda path: folder(path, attention_probs_dropout_prob=0.0),
    "classifier dropout": lambda path: folder(path, classifier_dropout=0.3),
    "feed-forward in chunks": lambda path: folder(path, chunk_size_feed_forward=1),
    "settings without effect": lambda path: with_config(
        folder(path), pooler_type="first_token_transform", directionality="bidi", num_beams=4, unheard_of=[1]
    ),
    "no type": lambda path: with_config(folder(path), "model_type", "architectures"),
    "no settings of the tokenizer": lambda path: without(folder(path), "tokenizer_config.json"),
    "other epsilon": lambda path: folder(path, layer_norm_eps=1e-3),
    "masked words only": lambda path: folder(path, model="BertForMaskedLM"),
    "decoder's bias": lambda path: with_tensors(folder(path), decoder_bias_only),
    "old names": lambda path: with_tensors(folder(path), old_names),
    "half precision": lambda path: with_tensors(folder(path), half),
    "pickled": lambda path: pickled(folder(path)),
    "pickled long ago": lambda path: pickled(folder(path), old=True),
    "pickled in shards": lambda path: pickled(folder(path, shards=True)),
    "pickled with copies": lambda path: sharing(folder(path)),
    "pickled and not": lambda path: both(folder(path)),
    "gelu by its old name": lambda path: folder(path, hidden_act="gelu_python"),
}
REFUSED: dict[str, tuple[Make, str]] = {
    "encoder only": (lambda path: folder(path, model="BertModel"), "no MLM head"),
    "a pickled list": (lambda path: with_pickle(folder(path), [torch.ones(2)]), "holds list, not tensors"),
    "a pickled text": (lambda path: with_pickle(folder(path), {"a": "b"}), "'a' in it is not a dense tensor"),
    "a pickled terabyte": (
        lambda path: with_pickle(folder(path), {"a": torch.ones(1).expand(1 << 40)}), "more memory than three times",
    ),
    "a pickled tensor without numbers": (
        lambda path: with_pickle(folder(path), {"a": torch.ones(2, device="meta")}), "'a' in it is not a dense tensor",
    ),
    "a shard is missing": (lambda path: without_a_shard(folder(path, shards=True)), "not in the folder"),
    "a shard elsewhere": (lambda path: escaping_shard(folder(path, shards=True)), "not in the folder"),
    "decoder unlike the words": (lambda path: with_tensors(folder(path), decoder_of_its_own), "tie_word_embeddings"),
    "tokenizer.json against its settings": (
        lambda path: with_tokenizer_json(folder(path), {"do_lower_case": True}, KEPT), "strip_accents is False",
    ),
    "more words than rows": (lambda path: folder(path, files={"added_tokens.json": ADDED}), "tokens, the model"),
    "tanh in gelu": (lambda path: folder(path, hidden_act="gelu_new"), "hidden_act"),
    **{
        name: (partial(with_setting, name=name, value=value), name)
        for name, value in {
            "model_type": "electra", "hidden_act": "relu", "position_embedding_type": "relative_key",
            "is_decoder": True, "add_cross_attention": True, "is_encoder_decoder": True, "pruned_heads": {"0": [1]},
            "per_layer_config": {"0": {"hidden_act": "relu"}}, "quantization_config": {"bits": 8}, "adapters": {"a": 1},
            "classifier_dropout": 1.5, "hidden_dropout_prob": 1, "vocab_size": 41.5,
            "num_attention_heads": 3, "tie_word_embeddings": 1, "layer_norm_eps": "1e-12",
        }.items()
    },
    "code of its own": (lambda path: with_config(folder(path), auto_map={"AutoModel": "own.Model"}), "auto_map"),
    "quantized tensors": (lambda path: with_tensors(folder(path), quantized), "int8"),
    "other family, no type": (
        lambda path: with_config(folder(path), "model_type", architectures=["RobertaModel"]), "architectures",
    ),
    "other names": (lambda path: with_tensors(folder(path), other_prefix), "lack bert.embeddings"),
    "a layer too many": (lambda path: with_tensors(folder(path), one_layer_more), "config.json has no place"),
}  # fmt: skip
