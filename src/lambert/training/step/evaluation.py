"""Evaluation on a fixed validation set: the same held-out sequences at every evaluation, for every run on a corpus."""

from __future__ import annotations

from lambert.corpus.store import Corpus
from lambert.data.dataloader import SampleStream, example_source
from lambert.data.objective import ObjectiveConfig
from lambert.model.heads import PreTrainingModel
from lambert.training.config.precision import Precision
from lambert.training.config.unigram import UnigramBaseline
from lambert.training.malloc import release_free_memory
from lambert.training.step.pretraining_loss import Evaluation, evaluate

_SEED = 0
_PHASE = 0
_BATCH_TOKENS = 2_048
"""Small, since the logits of all masked tokens are in memory at once: 8,192 took a quarter more memory with mini."""


class Validator:
    """Evaluates models on the validation set, next to the unigram baseline.

    Every masked token is replaced by [MASK]. In training a tenth keep the original token, and a model that only copies
    those looks far better than the unigram baseline without having learned anything.

    Args:
        samples: at most so many sequences; 0 turns evaluation off.
    """

    def __init__(self, corpus: Corpus, kind: ObjectiveConfig, *, samples: int) -> None:
        self._corpus = corpus
        # The sentence-pair objective is the run's own; masking is the same for every run.
        self._kind = ObjectiveConfig(pairing=kind.pairing)
        self._samples = samples
        self._unigram: UnigramBaseline | None = None
        self._streams: dict[int, SampleStream] = {}

    def measure(self, model: PreTrainingModel, sequence_length: int, precision: Precision) -> Evaluation | None:
        """Evaluate at one sequence length; None without held-out text or with `samples` 0."""
        if not self._samples or not self._corpus.split("held_out").sentence_count:
            return None
        if self._unigram is None:
            self._unigram = UnigramBaseline(self._corpus.split("train").token_counts())
        stream = self._stream(sequence_length)
        count = self.sample_count(sequence_length, self._samples)
        size = max(1, _BATCH_TOKENS // sequence_length)
        batches = (stream.batch(first, min(size, count - first)) for first in range(0, count, size))
        evaluation = evaluate(model, batches, self._unigram, precision=precision)
        release_free_memory()  # of shapes that training does not have
        return evaluation

    def sample_count(self, sequence_length: int, samples: int) -> int:
        """Number of sequences used, at most `samples`."""
        return min(len(self._stream(sequence_length).examples), samples)

    def _stream(self, sequence_length: int) -> SampleStream:
        if sequence_length not in self._streams:
            self._streams[sequence_length] = SampleStream(
                example_source(
                    self._corpus,
                    "held_out",
                    sequence_length=sequence_length,
                    seed=_SEED,
                    phase=_PHASE,
                    objective=self._kind,
                    all_masked=True,
                )
            )
        return self._streams[sequence_length]
