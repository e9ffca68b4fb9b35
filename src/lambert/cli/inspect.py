"""`lambert inspect CORPUS`"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tyro

from lambert.cli.subcommand import Subcommand, say
from lambert.corpus.judgement import shares
from lambert.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Inspect(Subcommand):
    """Show statistics of a corpus: lengths, lost characters, duplicates, train/held-out overlap, sample examples."""

    only_prints: ClassVar[bool] = True

    corpus: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CORPUS")]
    """Corpus made by `lambert prepare`."""
    out: Path | None = None
    """Also write a page with charts, such as corpus.html."""
    lengths: tuple[int, ...] = (128, 512)
    """Sequence lengths for the statistics of examples."""
    pairs: str = "nsp"
    """nsp, sop or none, as for pretrain."""
    masking: str = "token"
    """token, whole_word or span, as for pretrain."""
    mlm_probability: float = 0.15
    """Fraction of the tokens that are masked."""
    verify: bool = False
    """First check every file against the SHA-256 in the manifest."""

    def run(self) -> dict[str, Any]:
        """Results: `corpus`, `text`, `examples` and `to_read`."""
        from lambert.corpus.inspection import text_statistics
        from lambert.corpus.store import Corpus
        from lambert.data.inspection import example_statistics, sample_examples
        from lambert.data.objective import ObjectiveConfig
        from lambert.training.config.phase_recipe import LONGEST_SEQUENCE, SHORTEST_SEQUENCE

        kind = ObjectiveConfig(self.pairs, self.masking, self.mlm_probability)
        wrong = [length for length in self.lengths if not SHORTEST_SEQUENCE <= length <= LONGEST_SEQUENCE]
        if wrong or not self.lengths:
            raise UserError(
                f"sequences of {wrong} tokens",
                remedy=f"Give lengths from {SHORTEST_SEQUENCE} to {LONGEST_SEQUENCE:,}, such as --lengths 128 512",
            )
        corpus = Corpus.open(self.corpus)
        if self.verify:
            corpus.verify()
            say("Every file has the SHA-256 of its manifest.")
        facts = {
            "corpus": {"path": str(self.corpus), "fingerprint": corpus.fingerprint, "kind": asdict(kind)},
            "text": text_statistics(corpus),
            "examples": example_statistics(corpus, kind, self.lengths),
            "to_read": sample_examples(corpus, kind, self.lengths[0]),
        }
        for line in text_lines(facts):
            say(line)
        if self.out is not None:
            from lambert.report import write_corpus_page

            say(f"Page: {write_corpus_page(facts, self.out)}")
        return facts


def text_lines(facts: dict[str, Any]) -> list[str]:
    """The facts as lines for a terminal."""
    text = facts["text"]
    lines = []
    for name, split in text["splits"].items():
        lines.append(
            f"{name.replace('_', '-'):9} {split['documents']:>11,} documents {split['sentences']:>12,} sentences "
            f"{split['tokens']:>14,} tokens, {split['vocabulary_used']:,} entries used"
        )
    if text["counts"]:
        lines.append(f"text      {shares(text['counts'])}")
    lines.append("")
    lines.append(f"{'training text':26}{'mean':>9}" + "".join(f"{'p' + name:>9}" for name in _SHOWN))
    for name in ("tokens_per_sentence", "sentences_per_document", "tokens_per_document"):
        lengths = text["splits"]["train"][name]
        values = "".join(f"{lengths['quantiles'].get(percent, 0):>9,}" for percent in _SHOWN)
        lines.append(f"{name.replace('_', ' '):26}{lengths['mean']:>9,.1f}{values}")
    duplicates, overlap = text["duplicates"], text["overlap"]
    lines += [
        "",
        f"duplicates: {duplicates['documents']:,} documents ({duplicates['near_documents']:,} with near-duplicates); "
        f"{_share(duplicates['sentences'], duplicates)} of the "
        "sentences of 8 tokens or more are repeats",
        f"overlap: {overlap['held_out_documents_in_training']:,} held-out documents "
        f"({overlap['held_out_documents_near_training']:,} with near-duplicates) and "
        f"{_share(overlap['held_out_sentences_in_training'], overlap)} of the held-out sentences are in the training "
        "text",
        "",
    ]
    for at in facts["examples"]:
        lines += _example_lines(at)
    if text["repeated_sentences"]:
        lines += ["", "most repeated sentences:"]
        lines += [f"{entry['count']:>9,}  {entry['sentence'][:100]}" for entry in text["repeated_sentences"]]
    lines += ["", f"examples to read (length {facts['examples'][0]['sequence_length']}):"]
    for number, example in enumerate(facts["to_read"], start=1):
        label = ", negative pair" if example["is_random_next"] else ""
        lines += [f"{number:>3}. {example['text']}", f"     masked{label}: {' '.join(example['masked'])}"]
    return lines


_SHOWN = ("0", "10", "50", "90", "99", "100")


def _share(count: int, counts: dict[str, int]) -> str:
    total = next(value for name, value in counts.items() if name.endswith("_counted"))
    return f"{100 * count / max(1, total):.2f} %"


def _example_lines(at: dict[str, Any]) -> list[str]:
    rates = ", ".join(
        f"{label} {100 * at[name]['actual']:.2f} % ({100 * at[name]['target']:g} %)"
        for name, label in _RATES.items()
        if name in at
    )
    return [
        f"length {at['sequence_length']}: {at['examples_per_epoch']:,} examples per epoch, "
        f"{at['tokens_per_example']:.1f} tokens each, row utilization {100 * at['fill']:.1f} %",
        f"  actual (target) over {at['examples_measured']:,} examples: {rates}",
    ]


_RATES = {
    "mlm_probability": "masked",
    "as_mask": "shown as [MASK]",
    "as_random": "replaced at random",
    "as_original": "kept",
    "is_random_next": "negative pairs",
}
