"""The page's parts other than pictures: tiles, tables, lists. Every text that came from a file is escaped."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape

import numpy as np

from lambert.report import words
from lambert.report.charts import colour_of, sequences_seen
from lambert.report.facts import flat, inline, mean_speed, model_words
from lambert.report.journal import Evaluation, Fill, Noise
from lambert.report.read import Run

Rows = Iterable[tuple[str, str]]
_MOST_EVALUATIONS = 40


def tiles(run: Run) -> str:
    """The headline: what was reached beside what guessing reaches, and what it cost."""
    entries: list[tuple[str, str, str]] = []
    final = run.final
    if final is not None:
        entries += [_loss_tile(final), _accuracy_tile(final)]
    else:
        last = float(run.series["masked_word_loss"][-1])
        entries.append(("Last training loss", words.loss(last), "masked words; no held-out evaluation"))
    seconds = run.training_seconds
    sequences = float(sequences_seen(run)[-1])
    beside = f"{words.count(run.steps[-1])} steps" + (f", {words.large(sequences)} sequences" if sequences else "")
    entries.append(("Training time", words.duration(seconds), beside))
    speed = mean_speed(run, "tokens_per_second")
    if np.isfinite(speed):
        sequences_speed = mean_speed(run, "sequences_per_second")
        beside = f"tokens a second; {words.number(sequences_speed)} sequences a second"
        entries.append(("Mean throughput", words.count(speed), beside))
    cells = (
        f'<div class="tile"><dt>{escape(name)}</dt><dd><div class="value">{escape(value)}</div>'
        f'<div class="beside">{escape(beside)}</div></dd></div>'
        for name, value, beside in entries
    )
    return f'<dl class="tiles">{"".join(cells)}</dl>'


def _loss_tile(final: Evaluation) -> tuple[str, str, str]:
    reference = f"guessing from word frequencies: {words.loss(final.unigram_loss)}"
    known = np.isfinite(final.unigram_loss)
    return (
        "Held-out masked-word loss",
        words.loss(final.masked_word_loss),
        reference if known else "nats a word",
    )


def _accuracy_tile(final: Evaluation) -> tuple[str, str, str]:
    times = words.times(final.masked_word_accuracy, final.unigram_accuracy)
    beside = f"always the commonest word: {words.percent(final.unigram_accuracy)}"
    if times:
        beside = f"{times} that of always guessing the commonest word ({words.percent(final.unigram_accuracy)})"
    known = np.isfinite(final.unigram_accuracy)
    return (
        "Held-out accuracy",
        words.percent(final.masked_word_accuracy),
        beside if known else "of masked words",
    )


def fills(examples: Sequence[Fill]) -> str:
    """Masked sentences with the likeliest words as bars."""
    blocks = []
    for example in examples:
        sentence = escape(example.text).replace("[MASK]", '<span class="mask">[MASK]</span>')
        bars = "".join(
            f'<dt>{escape(word)}</dt><dd><span class="track"><span class="bar"'
            f' style="width:{100 * min(max(np.nan_to_num(share), 0.0), 1.0):.1f}%"></span></span>'
            f'<span class="share">{words.percent(share)}</span></dd>'
            for word, share in example.candidates
        )
        blocks.append(f'<div class="fill"><p>{sentence}</p><dl class="bars">{bars}</dl></div>')
    return f'<div class="fills">{"".join(blocks)}</div>'


def evaluations(run: Run) -> str:
    """Held-out figures over steps; of a long list the first, the last and evenly spaced ones between."""
    chosen = list(run.evaluations)
    if len(chosen) > _MOST_EVALUATIONS:
        places = np.unique(np.linspace(0, len(chosen) - 1, _MOST_EVALUATIONS).round().astype(int))
        chosen = [chosen[place] for place in places]
    head = ["Step", "Masked-word loss", "Accuracy", "Next-sentence loss", "Accuracy", "Masked words"]
    rows = [
        [
            words.count(e.step), words.loss(e.masked_word_loss), words.percent(e.masked_word_accuracy),
            words.loss(e.next_sentence_loss), words.percent(e.next_sentence_accuracy),
            words.count(e.masked_words),
        ]
        for e in chosen
    ]  # fmt: skip
    final = run.evaluations[-1]
    beside = (
        f"Beside it: guessing from word frequencies, loss {words.loss(final.unigram_loss)}; always the"
        f" commonest word, {words.percent(final.unigram_accuracy)}."
        + (
            f" Always the commoner answer about the next sentence: {words.percent(final.next_sentence_commonest)}."
            if np.isfinite(final.next_sentence_commonest)
            else ""
        )
    )
    known = np.isfinite(final.unigram_loss) or np.isfinite(final.unigram_accuracy)
    return (f'<p class="note">{escape(beside)}</p>' if known else "") + grid(head, rows)


def phases(run: Run) -> str:
    """The phases as planned."""
    head = [
        "Phase",
        "Sequence length",
        "Batch size",
        "Steps",
        "From step",
        "Peak learning rate",
        "Warm-up steps",
        *["Noise scale"] * bool(run.noise),
    ]
    rows = [
        [
            str(p.number), words.count(p.sequence_length), words.count(p.batch_size), words.count(p.steps),
            words.count(p.first_step), words.number(p.peak_learning_rate), words.count(p.warmup_steps),
            *[_noise(run.last_noise(p.number))] * bool(run.noise),
        ]
        for p in run.phases
    ]  # fmt: skip
    return grid(head, rows)


def _noise(noise: Noise | None) -> str:
    """The noise scale with its standard error, in sequences."""
    if noise is None or not np.isfinite(noise.noise_scale):
        return words.MISSING
    return f"{words.count(noise.noise_scale)} ± {words.count(noise.standard_error)}"


def comparison(runs: Sequence[Run]) -> str:
    """One row a run, the best held-out figures in bold."""
    head = [
        "Run", "Held-out loss", "Accuracy", "Commonest word", "Batch size", "Steps", "Training time",
        "Tokens / s", "Model", "Optimizer",
    ]  # fmt: skip
    finals = [run.final for run in runs]
    losses = [final.masked_word_loss if final else np.nan for final in finals]
    accuracies = [final.masked_word_accuracy if final else np.nan for final in finals]
    rows, best = [], set()
    for run, final in zip(runs, finals, strict=True):
        batches = ", ".join(words.count(phase.batch_size) for phase in run.phases) or words.MISSING
        rows.append([
            run.name,
            words.loss(final.masked_word_loss if final else None),
            words.percent(final.masked_word_accuracy if final else None),
            words.percent(final.unigram_accuracy if final else None),
            batches,
            words.count(run.steps[-1]),
            words.duration(run.training_seconds),
            words.count(mean_speed(run, "tokens_per_second")),
            model_words(run),
            inline(run.header.get("optimizer")),
        ])  # fmt: skip
    if np.isfinite(losses).any():
        best.add((int(np.nanargmin(losses)), 1))
    if np.isfinite(accuracies).any():
        best.add((int(np.nanargmax(accuracies)), 2))
    return grid(head, rows, texts={0, 8, 9}, best=best, swatches=True)


def differences(runs: Sequence[Run]) -> str:
    """The recipe's settings that are not the same in all runs; "" where none differ."""
    settings = [dict(flat(run.recipe)) for run in runs]
    names = dict.fromkeys(name for table in settings for name in table if name != "command")
    rows = []
    for name in names:
        values = [table.get(name, words.MISSING) for table in settings]
        if len(set(values)) > 1:
            rows.append([name, *values])
    return grid(["Setting", *(run.name for run in runs)], rows, texts=set(range(len(runs) + 1))) if rows else ""


def settings_tables(recipe: Mapping[str, object]) -> str:
    """recipe.toml as one table a section; `command` has a place of its own on the page."""
    top: dict[str, object] = {}
    sections: list[tuple[str, Mapping[str, object]]] = [("", top)]
    for name, value in recipe.items():
        if isinstance(value, dict):
            sections.append((name, value))
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            sections += [(f"{name} {place}", item) for place, item in enumerate(value, start=1)]
        elif name != "command":
            top[name] = value
    return "".join(settings(flat(section), caption=name) for name, section in sections if section)


def settings(rows: Rows, caption: str = "") -> str:
    """Names and values, two columns."""
    heading = f"<caption>{escape(caption)}</caption>" if caption else ""
    body = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in rows)
    return f'<div class="scroll"><table class="settings">{heading}<tbody>{body}</tbody></table></div>' if body else ""


def grid(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    texts: Collection[int] = (),
    best: set[tuple[int, int]] | None = None,
    swatches: bool = False,
) -> str:
    """A table; the columns in `texts` hold words, the others numbers, set to the right."""

    def cell(row: int, column: int, text: str) -> str:
        classes = ["number"] * (column not in texts) + ["best"] * ((row, column) in (best or ()))
        swatch = f'<span class="swatch" style="background:var(--{colour_of(row)})"></span>'
        return f'<td class="{" ".join(classes)}">{swatch if swatches and column == 0 else ""}{escape(text)}</td>'

    titles = "".join(
        f'<th scope="col" class="{"" if column in texts else "number"}">{escape(title)}</th>'
        for column, title in enumerate(head)
    )
    body = "".join(
        f"<tr>{''.join(cell(row, column, text) for column, text in enumerate(values))}</tr>"
        for row, values in enumerate(rows)
    )
    table = f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll">{table}</div>'
