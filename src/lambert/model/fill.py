"""What a model would put in place of [MASK]."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tokenizers import Tokenizer

from lambert.errors import UserError
from lambert.model.heads import BertForPreTraining

_MASK = "[MASK]"


@dataclass(frozen=True)
class Candidate:
    """A word for a blank."""

    word: str
    probability: float


@torch.no_grad()
def fill_masks(
    model: BertForPreTraining, tokenizer: Tokenizer, text: str, *, candidates: int = 5
) -> list[list[Candidate]]:
    """The likeliest words for each [MASK] in `text`, best first.

    Raises:
        UserError: `text` has no [MASK] or is longer than the model's positions, fewer than one candidate is asked
            for, or the tokenizer has more words than the model.
    """
    if candidates < 1:
        raise UserError(f"{candidates} candidates", remedy="Ask for at least 1")
    if tokenizer.get_vocab_size() > model.config.vocabulary_size:
        raise UserError(
            f"the tokenizer has {tokenizer.get_vocab_size():,} words, the model {model.config.vocabulary_size:,}",
            remedy="Put the vocabulary beside the model that it was trained with",
        )
    mask_id = tokenizer.token_to_id(_MASK)
    ids = tokenizer.encode(text).ids
    places = [place for place, token_id in enumerate(ids) if token_id == mask_id]
    if not places:
        raise UserError(f"no {_MASK} in {text!r}", remedy=f"Write {_MASK} where a word is to be guessed")
    limit = model.config.maximum_positions
    if len(ids) > limit:
        raise UserError(f"the text has {len(ids)} tokens", remedy=f"Shorten it to {limit} tokens")
    token_ids = torch.tensor([ids])
    model.eval()
    scores, _ = model(token_ids, torch.zeros_like(token_ids), None, torch.tensor(places))
    best = scores.float().softmax(-1).topk(min(candidates, scores.shape[-1]))
    return [
        [
            Candidate(tokenizer.id_to_token(int(word)) or "", float(probability))
            for probability, word in zip(row_values, row_ids, strict=True)
        ]
        for row_values, row_ids in zip(best.values, best.indices, strict=True)
    ]
