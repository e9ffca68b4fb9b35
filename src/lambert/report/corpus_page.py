"""One self-contained HTML page about a corpus, from the statistics of `lambert inspect`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from lambert.report.document import document, tiles, writable, write
from lambert.report.pictures import histogram
from lambert.report.spec import Spec
from lambert.report.tables import grid
from lambert.utils import formatting

Facts = Mapping[str, Any]


def write_corpus_page(facts: Facts, out: Path) -> Path:
    """Writes the page and returns its path.

    Args:
        facts: the output of `lambert inspect --json`.

    Raises:
        UserError: `out` cannot be written.
    """
    return write(writable(Path(out)), render(facts).encode("utf-8", errors="replace"))


def render(facts: Facts) -> str:
    """The page as a string."""
    text, charts = facts["text"], _charts(facts)
    title = f"Corpus {Path(facts['corpus']['path']).name}"
    body = (
        f'<header><p class="eyebrow">lambert corpus</p><h1>{escape(title)}</h1>{_tiles(facts)}</header>'
        f"<h2>Lengths</h2>{_figures(charts)}"
        f"<h2>Splits</h2>{_splits(text['splits'])}"
        f"<h2>Examples</h2>{_rates(facts['examples'])}"
    )
    if text["repeated_sentences"]:
        rows = [[formatting.count(entry["count"]), entry["sentence"]] for entry in text["repeated_sentences"]]
        body += f"<h2>Most repeated sentences</h2>{grid(['Times', 'Sentence'], rows, texts={1})}"
    body += f"<h2>Examples to read</h2>{''.join(map(_example, facts['to_read']))}"
    fingerprint = f"<footer><p>Fingerprint {escape(str(facts['corpus']['fingerprint']))}</p></footer>"
    drawn = {name: {"spec": spec, "tables": [], "height": 300} for name, (_, _, spec) in charts.items()}
    return document(title, body + fingerprint, {"charts": drawn, "tables": {}, "axes": {}, "colours": {}})


def _tiles(facts: Facts) -> str:
    train, duplicates = facts["text"]["splits"]["train"], facts["text"]["duplicates"]
    overlap = facts["text"]["overlap"]
    repeated = duplicates["sentences"] / max(1, duplicates["sentences_counted"])
    known = overlap["held_out_sentences_in_training"] / max(1, overlap["held_out_sentences_counted"])
    counts = facts["text"]["counts"]
    return tiles([
        ("Training text", formatting.large(train["tokens"]),
         f"tokens in {formatting.count(train['documents'])} documents"),
        ("[UNK]", _share(counts, "unknown_characters"),
         f"of the characters; {_share(counts, 'marks_dropped')} are stripped marks, "
         f"{_share(counts, 'dropped_characters')} dropped"),
        ("Duplicates", formatting.percent(repeated),
         f"of the sentences; {formatting.count(duplicates['documents'])} documents, "
         f"{formatting.count(duplicates['near_documents'])} with near-duplicates"),
        ("Held-out overlap", formatting.percent(known), "of the held-out sentences are in the training text"),
    ])  # fmt: skip


def _share(counts: Mapping[str, int], name: str) -> str:
    """Of the characters; a dash for a corpus of before they were counted."""
    return f"{100 * counts[name] / max(1, counts['characters']):.3g} %" if name in counts else "–"


def _charts(facts: Facts) -> dict[str, tuple[str, str, Spec]]:
    """Title, caption and specification of each chart, by its name."""
    train = facts["text"]["splits"]["train"]
    doubling = "Each bar covers twice the range of the one before it."
    shown = [
        ("Tokens in a sentence", doubling, "sentences", train["tokens_per_sentence"]["histogram"]),
        ("Tokens in a document", doubling, "documents", train["tokens_per_document"]["histogram"]),
    ]
    for at in facts["examples"]:
        title = f"Tokens in an example of at most {at['sequence_length']}"
        shown.append((title, "Special tokens included.", "examples", at["histogram"]))
    return {
        f"lengths-{index}": (title, caption, histogram(counts, y=what, x="tokens, from"))
        for index, (title, caption, what, counts) in enumerate(shown)
    }


def _figures(charts: Mapping[str, tuple[str, str, Spec]]) -> str:
    figures = (
        f"<figure><h3>{escape(title)}</h3><figcaption>{caption}</figcaption>"
        f'<div class="chart" data-chart="{name}"></div></figure>'
        for name, (title, caption, _) in charts.items()
    )
    return f'<div class="pair">{"".join(figures)}</div>'


def _splits(splits: Mapping[str, Facts]) -> str:
    head = ["", *(name.replace("_", "-") for name in splits)]
    rows = [
        [label, *(formatting.count(split[key]) for split in splits.values())]
        for label, key in (
            ("Documents", "documents"),
            ("Sentences", "sentences"),
            ("Tokens", "tokens"),
            ("Vocabulary entries used", "vocabulary_used"),
        )
    ]
    rows += [
        [f"{label}, mean", *(formatting.number(split[key]["mean"]) for split in splits.values())]
        for label, key in (
            ("Tokens in a sentence", "tokens_per_sentence"),
            ("Sentences in a document", "sentences_per_document"),
        )
    ]
    return grid(head, rows, texts={0})


def _rates(examples: Sequence[Facts]) -> str:
    head = ["", *(f"length {at['sequence_length']}" for at in examples), "target"]
    rows = [
        ["Examples per epoch", *(formatting.count(at["examples_per_epoch"]) for at in examples), ""],
        ["Row utilization", *(formatting.percent(at["fill"]) for at in examples), ""],
        ["Masked tokens per example", *(formatting.number(at["masked_tokens_per_example"]) for at in examples), ""],
    ]
    for label, key in (
        ("Masked tokens", "mlm_probability"),
        ("Masked tokens shown as [MASK]", "as_mask"),
        ("Masked tokens replaced at random", "as_random"),
        ("Masked tokens kept", "as_original"),
        ("Negative pairs (NSP or SOP)", "is_random_next"),
    ):
        if key in examples[0]:
            target = formatting.percent(examples[0][key]["target"])
            rows.append([label, *(formatting.percent(at[key]["actual"]) for at in examples), target])
    note = (
        "A lone sentence has no next one, so slightly more than half of BERT's pairs are negative. The cap on masked "
        "tokens per example (20 at length 128) is slightly above the masking probability."
    )
    return f'{grid(head, rows, texts={0})}<p class="note">{escape(note)}</p>'


def _example(example: Facts) -> str:
    shown = escape(example["text"]).replace("[MASK]", '<span class="mask">[MASK]</span>')
    beside = "Negative pair. " if example["is_random_next"] else ""
    hidden = escape(" ".join(example["masked"]))
    return f'<div class="fill"><p>{shown}</p><p class="note">{beside}Masked: {hidden}</p></div>'
