"""Fill-mask: the tokens that a model predicts for [MASK]."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tokenizers import Tokenizer

from lambert.errors import UserError
from lambert.model.heads import PreTrainingModel
from lambert.utils.tokenizer_calls import dropped_characters, encode
from lambert.utils.tokenizer_family import shown_tokens

_MASK, _UNKNOWN = "[MASK]", "[UNK]"


@dataclass(frozen=True)
class Candidate:
    """A prediction for one [MASK]."""

    word: str
    """A vocabulary entry; of byte-level BPE the text that it stands for, with the space before it."""
    probability: float


def unknown_words(tokenizer: Tokenizer, text: str) -> list[str]:
    """The parts of `text` that become [UNK], as they are written there; not an [UNK] that stands in it."""
    (encoded,) = encode(tokenizer, [text], special=True)
    unknown = tokenizer.token_to_id(_UNKNOWN)
    parts = [text[slice(*at)] for token, at in zip(encoded.ids, encoded.offsets, strict=True) if token == unknown]
    return [part for part in parts if part != _UNKNOWN]


def dropped_from(tokenizer: Tokenizer, text: str) -> list[str]:
    """The characters of `text` that give no token, such as "U+200C", in order."""
    dropped = dropped_characters(tokenizer, text)
    return [f"U+{ord(character):04X}" for character in dict.fromkeys(text) if character in dropped]


@torch.no_grad()
def fill_mask(model: PreTrainingModel, tokenizer: Tokenizer, text: str, *, top_k: int = 5) -> list[list[Candidate]]:
    """The `top_k` likeliest tokens for each [MASK] in `text`, best first. Puts the model into evaluation mode.

    Raises:
        UserError: `text` has no [MASK] or more tokens than the model has positions, `top_k` is below 1, or the
            tokenizer's vocabulary is larger than the model's.
    """
    if top_k < 1:
        raise UserError(f"{top_k} candidates for a [MASK]", remedy="Ask for at least 1")
    limit = model.config.maximum_positions
    refuse_more_tokens(model, tokenizer)
    entries = tokenizer.get_vocab_size()
    (encoded,) = encode(tokenizer, [text], special=True)
    ids = encoded.ids
    mask_id = tokenizer.token_to_id(_MASK)
    masked = [index for index, token_id in enumerate(ids) if token_id == mask_id]
    if not masked:
        raise UserError(f"no {_MASK} in {text!r}", remedy=f"Write {_MASK} where a token is to be predicted")
    if len(ids) > limit:
        raise UserError(f"the text {text[:40]!r} has {len(ids)} tokens", remedy=f"Shorten it to {limit} tokens")
    token_ids = torch.tensor([ids])
    logits, _ = model.eval()(token_ids, torch.zeros_like(token_ids), None, torch.tensor(masked))
    # Rows beyond the vocabulary are padding.
    best = logits[:, :entries].float().softmax(-1).topk(min(top_k, entries))
    return [
        [Candidate(*one) for one in zip(shown_tokens(tokenizer, tokens), probabilities, strict=True)]
        for tokens, probabilities in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def refuse_more_tokens(model: PreTrainingModel, tokenizer: Tokenizer) -> None:
    """Check that the model has a row for each token.

    Raises:
        UserError: the vocabulary is larger than the embedding.
    """
    entries, rows = tokenizer.get_vocab_size(), model.config.vocabulary_size
    if entries > rows:
        raise UserError(
            f"the tokenizer has {entries:,} tokens, the model {rows:,}",
            remedy="Use the vocabulary that the model was trained with",
        )
