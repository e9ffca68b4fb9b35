"""A tag for each word of a text: named entities and the like.

The first token of a word has the word's tag, as in `transformers`' run_ner.py, and the word is given the tag that is
likeliest there. A text that is too long becomes several sequences, which end between words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from lambert.corpus.encoding import plain_text_tokenizer
from lambert.corpus.vocabulary import special_tokens
from lambert.finetune.inputs import IGNORED, Encoded, SequenceBatch
from lambert.finetune.labelled.sequences import LabelledSettings
from lambert.finetune.labelled.task import OUTSIDE, TaggedText, Task
from lambert.finetune.loop import Rows, TaskPreset
from lambert.model.heads import token_classification_model
from lambert.training.step.train_step import TaskOutput
from lambert.utils.tokenizer_calls import encode

_SPECIAL_TOKENS = 2


@dataclass(frozen=True, eq=False)
class TaggedSequence(Encoded):
    """Words of a text that fit into one sequence."""

    example: int
    """Index of the text."""
    words: NDArray[np.int64]
    """Indices of the words that have a token here."""
    positions: NDArray[np.int64]
    """Position of the first token of each."""


def encode_texts(
    examples: Sequence[TaggedText], tokenizer: Tokenizer, settings: LabelledSettings
) -> list[TaggedSequence]:
    """One sequence for each text, or several for a long one. Words of which no token is left have none."""
    plain, specials = plain_text_tokenizer(tokenizer), special_tokens(tokenizer)
    most = settings.sequence_length - _SPECIAL_TOKENS
    encoded = encode(plain, [example.text for example in examples], special=False)
    sequences = []
    for index, (example, tokens) in enumerate(zip(examples, encoded, strict=True)):
        owners = _words_of_tokens(example, tokens.offsets)
        for first, end in _pieces(owners, most):
            begins = np.flatnonzero(np.diff(owners[first:end], prepend=owners[first - 1] if first else -1) > 0)
            words, positions = owners[first:end][begins], begins + 1
            if not len(words):  # the middle of a long word
                continue
            ids = [specials.classify, *tokens.ids[first:end], specials.separate]
            target = np.full(len(ids), IGNORED)
            target[positions] = np.array(example.tags, dtype=np.int64)[words]
            sequences.append(TaggedSequence(np.array(ids), len(ids), target, index, words, positions))
    return sequences


def _words_of_tokens(example: TaggedText, offsets: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """The word of each token, by its last character; a token outside all words has that before it, −1 at first."""
    ends = np.array([end for _, end in example.words], dtype=np.int64)
    begins = np.array([begin for begin, _ in example.words], dtype=np.int64)
    last = np.array([end - 1 for _, end in offsets], dtype=np.int64)
    owners = np.searchsorted(ends, last, side="right")
    inside = (owners < len(ends)) & (begins[np.minimum(owners, len(ends) - 1)] <= last)
    owners = np.where(inside, owners, -1)
    return np.maximum.accumulate(owners) if len(owners) else owners


def _pieces(owners: NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """Ranges of at most so many tokens, which begin at a word unless one word has more."""
    first, total = 0, len(owners)
    while first < total:
        end = min(first + most, total)
        if end < total:
            cut = end
            while cut > first + 1 and owners[cut] == owners[cut - 1]:
                cut -= 1
            end = cut if cut > first + 1 else end
        yield first, end
        first = end


def tag_logits(model: nn.Module, batch: SequenceBatch) -> Tensor:
    """[B, S, tags] float32."""
    logits: Tensor = model(batch.token_ids, batch.segment_ids, batch.attention_mask).float()
    return logits


def tag_loss(logits: Tensor, batch: SequenceBatch) -> TaskOutput:
    """Cross-entropy of the tags, summed over the words."""
    flat, targets = logits.flatten(0, 1), batch.targets.flatten()
    correct = ((flat.argmax(-1) == targets) & (targets != IGNORED)).sum()
    loss = functional.cross_entropy(flat, targets, ignore_index=IGNORED, reduction="sum")
    return TaskOutput({"sequence": loss}, {"sequence": correct})


def best_tags(
    examples: Sequence[TaggedText], sequences: Sequence[TaggedSequence], rows: Rows, settings: LabelledSettings,
    *, outside: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """`labels`: for each text the likeliest tag of every word, and of a word without a token `outside`; `losses`: the
    mean of minus the log-probability of the given tags."""
    labels = [[outside] * len(example.words) for example in examples]
    sums = np.zeros((2, len(examples)))
    for index, logits in rows:
        one = sequences[index]
        values = logits[one.positions].astype(np.float64)
        given = np.array(examples[one.example].tags)[one.words]
        losses = np.logaddexp.reduce(values, -1) - np.take_along_axis(values, given[:, None], -1)[:, 0]
        sums[:, one.example] += losses.sum(), len(losses)
        for word, tag in zip(one.words.tolist(), values.argmax(-1).tolist(), strict=True):
            labels[one.example][word] = tag
    return {"labels": labels, "losses": (sums[0] / np.maximum(sums[1], 1)).tolist()}


def tag_preset(task: Task) -> TaskPreset:
    """The fine-tuning of a task whose labels are tags of words."""
    head = partial(token_classification_model, classes=task.classes)
    outside = task.labels.index(OUTSIDE) if OUTSIDE in task.labels else 0
    decode = partial(best_tags, outside=outside)
    return TaskPreset(task.name, head, encode_texts, tag_logits, tag_loss, decode, lambda example: [example.text])
