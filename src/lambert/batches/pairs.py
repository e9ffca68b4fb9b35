"""Sentence pairs for next-sentence prediction, with BERT's semantics, by index.

google-research/bert's `create_pretraining_data.py` walks a document once and writes its examples down. Here the
*cut* of every document into runs of sentences is fixed per (seed, phase), so that examples can be counted and
indexed; the split into A and B, the random partner and the masks are drawn afresh in each pass. Example i of
pass e is a pure function of (corpus, seed, phase, e, i).

One consequence, beside BERT: sentences that lose their place to a random partner are not put back, so a pass
leaves about a quarter of the text unseen, another quarter in each pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lambert.batches.masking import mask_words, prediction_count
from lambert.corpus.store import Split, TokenArray
from lambert.corpus.vocabulary import SpecialTokens
from lambert.errors import UserError

SHORT_SEQUENCE_PROBABILITY = 0.1
RANDOM_NEXT_PROBABILITY = 0.5
SPECIAL_TOKENS_PER_PAIR = 3
_OTHER_DOCUMENT_TRIES = 10


@dataclass(frozen=True)
class Example:
    """One sequence: [CLS] A [SEP] B [SEP] with its hidden words."""

    token_ids: NDArray[np.int32]
    """[S] ids after masking; S is at most the sequence length, nothing is padded."""
    second_segment_start: int
    """Where B begins; earlier tokens are segment 0, later ones segment 1."""
    masked_positions: NDArray[np.int64]
    """[M] rising."""
    masked_labels: NDArray[np.int32]
    """[M] ids that stood there."""
    is_random_next: bool
    """B was taken from elsewhere."""


class PairSource:
    """The examples of one split at one sequence length.

    Args:
        split: sentences of token ids, grouped by document.
        special: ids of [CLS], [SEP] and [MASK].
        vocabulary_size: range of the random words.
        sequence_length: most tokens in an example, special ones included; at least 8.
        seed, phase: with the split these name every example.
        all_masked: hide every chosen word behind [MASK] in place of BERT's 80/10/10; for measuring.

    Raises:
        UserError: the split has no text.
    """

    def __init__(
        self,
        split: Split,
        special: SpecialTokens,
        *,
        vocabulary_size: int,
        sequence_length: int,
        seed: int,
        phase: int,
        all_masked: bool = False,
    ) -> None:
        assert sequence_length >= 8
        if split.sentence_count == 0:
            raise UserError(f"the {split.name} part of the corpus is empty", remedy="Prepare a corpus from more text")
        self.split = split
        self.special = special
        self.vocabulary_size = vocabulary_size
        self.sequence_length = sequence_length
        self.seed = seed
        self.phase = phase
        self.all_masked = all_masked
        self._first, self._stop, self._target = _cut(split, sequence_length, seed, phase)

    def __len__(self) -> int:
        """Examples in one pass."""
        return len(self._first)

    def example(self, pass_number: int, index: int) -> Example:
        """Example `index` (from 0) of pass `pass_number` (from 0)."""
        # Philox is counter-based: key and counter name the draw, nothing has to be run up to it.
        bits = np.random.Philox(key=[self.seed, self.phase], counter=[0, 0, pass_number, index])
        random = np.random.Generator(bits)
        a, b, is_random_next = self._segments(int(index), random)
        room = self.sequence_length - SPECIAL_TOKENS_PER_PAIR
        a, b = _truncate(a, b, room, random)
        middle = 1 + len(a)
        token_ids = np.full(len(a) + len(b) + SPECIAL_TOKENS_PER_PAIR, self.special.separate, np.int32)
        token_ids[0] = self.special.classify
        token_ids[1:middle] = a
        token_ids[middle + 1 : -1] = b
        words = np.arange(1, len(token_ids) - 2)
        words[middle - 1 :] += 1  # step over the [SEP] between A and B
        positions, labels = mask_words(
            token_ids,
            words,
            prediction_count(len(token_ids), self.sequence_length),
            mask_id=self.special.mask,
            vocabulary_size=self.vocabulary_size,
            random=random,
            all_masked=self.all_masked,
        )
        return Example(token_ids, middle + 1, positions, labels, is_random_next)

    def _segments(self, index: int, random: np.random.Generator) -> tuple[TokenArray, TokenArray, bool]:
        """Ids of A and B before truncation, and whether B is random."""
        first, stop, target = int(self._first[index]), int(self._stop[index]), int(self._target[index])
        offsets = self.split.sentence_offsets
        has_own_next = stop - first >= 2
        a_stop = first + int(random.integers(1, stop - first)) if has_own_next else stop
        a = self.split.tokens(int(offsets[first]), int(offsets[a_stop]))
        if has_own_next and random.random() >= RANDOM_NEXT_PROBABILITY:
            return a, self.split.tokens(int(offsets[a_stop]), int(offsets[stop])), False
        wanted = max(1, target - len(a))
        return a, self._random_segment(first, wanted, random), True

    def _random_segment(self, sentence: int, wanted_tokens: int, random: np.random.Generator) -> TokenArray:
        """Whole sentences, `wanted_tokens` or a little more, from a random place of another document."""
        documents = self.split.document_offsets
        own = int(np.searchsorted(documents, sentence, side="right")) - 1
        other = own
        for _ in range(_OTHER_DOCUMENT_TRIES):
            other = int(random.integers(self.split.document_count))
            if other != own:
                break
        start = int(random.integers(documents[other], documents[other + 1]))
        offsets = self.split.sentence_offsets
        stop = int(np.searchsorted(offsets, offsets[start] + wanted_tokens, side="left"))
        stop = min(max(stop, start + 1), int(documents[other + 1]))
        return self.split.tokens(int(offsets[start]), int(offsets[stop]))


def _cut(
    split: Split, sequence_length: int, seed: int, phase: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
    """Every document as runs of whole sentences: first sentence, sentence after the last, target length.

    As BERT: a run ends at the sentence that brings it to the target or at the end of its document, and the
    target, room for all tokens but the special ones, is for a tenth of the documents a random shorter one.
    """
    longest = sequence_length - SPECIAL_TOKENS_PER_PAIR
    offsets, documents = split.sentence_offsets, split.document_offsets
    random = np.random.Generator(np.random.Philox(key=[seed, phase], counter=[0, 1, 0, 0]))
    is_short = random.random(split.document_count) < SHORT_SEQUENCE_PROBABILITY
    targets = np.where(is_short, random.integers(2, longest + 1, split.document_count), longest)
    reach = np.searchsorted(offsets, offsets[:-1] + longest, side="left")
    first: list[int] = []
    stop: list[int] = []
    target_of: list[int] = []
    for document in range(split.document_count):
        sentence, end, target = int(documents[document]), int(documents[document + 1]), int(targets[document])
        while sentence < end:
            if target == longest:
                after = int(reach[sentence])
            else:
                after = int(np.searchsorted(offsets, offsets[sentence] + target, side="left"))
            after = min(max(after, sentence + 1), end)
            first.append(sentence)
            stop.append(after)
            target_of.append(target)
            sentence = after
    return np.array(first, np.int64), np.array(stop, np.int64), np.array(target_of, np.int32)


def _truncate(a: TokenArray, b: TokenArray, room: int, random: np.random.Generator) -> tuple[TokenArray, TokenArray]:
    """Shorten the longer of the two, token by token, until both fit; each token goes from front or back at random.

    BERT flips a coin for each token; the number of heads is drawn here at once.
    """
    excess = len(a) + len(b) - room
    if excess <= 0:
        return a, b
    # The longer one gives first; once they are level they give in turn, B first.
    level = abs(len(a) - len(b))
    shared = max(0, excess - level)
    from_longer = min(excess, level)
    from_a = shared // 2 + (from_longer if len(a) > len(b) else 0)
    from_b = shared - shared // 2 + (from_longer if len(a) <= len(b) else 0)
    shortened = []
    for segment, removed in ((a, from_a), (b, from_b)):
        front = int(random.binomial(removed, 0.5))
        shortened.append(segment[front : len(segment) - (removed - front)])
    return shortened[0], shortened[1]
