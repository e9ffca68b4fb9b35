"""A tokenizer in the form of ModernBERT's published one, and text that tells tokenizers apart."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

TEXT = (
    "The quick brown fox jumps over the lazy dog. The dog sleeps, and the fox isn't there; it's 3.14 miles away!",
    'A café in São Paulo opened at 10:30 (on Monday). "Nobody came", they said. The cook slept.',
    "東京で日本銀行が金を貸した。中国很好。很好！国中人很多。",
    "Он читает книгу о море. Книга о море лежит на столе.",
)
ODD = (
    *("e\u0301", "\u00e9", "a\u0308\u0301", "\u1e9b\u0323", "🙂", "👨\u200d👩\u200d👧", "🇩🇪", "中国", "日本語"),
    *("한국어", "हिन्दी", "\t", "\t\t", "  ", "   ", " " * 9, "\n", "\r\n", "\u00a0", "\u3000", "\u200b", "\ufeff"),
    *("\x00", "\x07", "\x1f", "\x7f", "\x85", "\u2028", "\u0301", "\U0010ffff", "\ue000", "\ufffd", "[MASK]"),
    *("\u200c", " [MASK]", "[SEP]", "[UNK]", "[PAD]", "[unused1]", "isn't", "it's", "'", "(", "fox", " the", "The"),
    *("10:30", "---", "…", "“”", "Ġthe", "##s", "ﬁ", "İ", "ẞ"),
)  # fmt: skip


def odd_lines(count: int) -> list[str]:
    """Lines of odd pieces, with and without spaces between them; the same at every call."""
    draw, lines = random.Random(5), []
    for _ in range(count):
        pieces = [draw.choice((*ODD, *draw.choice(TEXT).split())) for _ in range(draw.randint(0, 8))]
        lines.append(draw.choice(("", " ", "  ")).join(pieces))
    return lines


def published_tokenizer(**model: Any) -> Tokenizer:
    """Byte-level BPE with ModernBERT's rules, special tokens behind the others, runs of spaces and unused entries.

    Made by the library alone; `model` are further settings of the BPE model.
    """
    learner = Tokenizer(BPE())
    learner.normalizer, learner.pre_tokenizer = normalizers.NFC(), pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    learner.train_from_iterator(TEXT, BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False))
    learned = json.loads(learner.to_str())["model"]
    entries = ["|||IP_ADDRESS|||", "<|padding|>", *sorted(learned["vocab"], key=learned["vocab"].__getitem__)]
    merges = [tuple(pair) for pair in learned["merges"]]
    tokenizer = Tokenizer(BPE({entry: number for number, entry in enumerate(entries)}, merges, **model))
    tokenizer.normalizer, tokenizer.pre_tokenizer = learner.normalizer, learner.pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    spaces = [" " * length for length in range(24, 1, -1)]
    tokenizer.add_tokens([AddedToken(text, normalized=True) for text in ("|||IP_ADDRESS|||", *spaces)])
    special = ("<|padding|>", "<|endoftext|>", "[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")
    tokenizer.add_special_tokens([AddedToken(text, special=True, lstrip=text == "[MASK]") for text in special])
    tokenizer.add_tokens([AddedToken(f"[unused{number}]", normalized=True) for number in range(5)])
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ends
    )
    tokenizer.enable_truncation(512)
    return tokenizer


def published_folder(folder: Path, *, rows: int = 512) -> Path:
    """A ModernBERT folder that `transformers` wrote: more rows than entries, as the published one has."""
    import transformers

    torch.manual_seed(1)
    tokenizer = published_tokenizer()
    config = transformers.ModernBertConfig(
        vocab_size=rows, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, global_attn_every_n_layers=3, local_attention=16, reference_compile=False,
        **{f"{name}_token_id": tokenizer.token_to_id(f"[{name.upper()}]") for name in ("pad", "cls", "sep")},
        bos_token_id=tokenizer.token_to_id("[CLS]"), eos_token_id=tokenizer.token_to_id("[SEP]"),
    )  # fmt: skip
    transformers.ModernBertForMaskedLM(config).save_pretrained(folder)
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "cls", "sep", "pad", "mask")}
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=64, model_input_names=["input_ids", "attention_mask"], **names
    )
    wrapped.save_pretrained(folder)
    return folder
