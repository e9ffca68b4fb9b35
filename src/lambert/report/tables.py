"""The page's parts other than pictures: tiles, tables, lists. Every text that came from a file is escaped."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape

import numpy as np

from lambert.report.columns import sequences_seen
from lambert.report.facts import flat, mean_speed
from lambert.runlog.reader import Run
from lambert.runlog.records import Evaluation, Fill, Noise, number_or_none
from lambert.utils import formatting

Rows = Iterable[tuple[str, str]]
_MOST_EVALUATIONS, _MOST_MARKS, _MOST_FILLS = 40, 60, 6


def tiles(run: Run) -> str:
    """The headline: what was reached beside what guessing reaches, and what it cost."""
    entries: list[tuple[str, str, str]] = []
    final = run.final
    if final is not None:
        entries += [_loss_tile(final), _accuracy_tile(final)]
    else:
        last = float(run.series["masked_word_loss"][-1])
        entries.append(("Last training loss", formatting.loss(last), "masked words; no held-out evaluation"))
    seconds = run.training_seconds
    sequences = float(sequences_seen(run)[-1])
    beside = f"{formatting.count(run.steps[-1])} steps" + (
        f", {formatting.large(sequences)} sequences" if sequences else ""
    )
    entries.append(("Training time", formatting.duration(seconds), beside))
    speed = mean_speed(run, "tokens_per_second")
    if np.isfinite(speed):
        sequences_speed = mean_speed(run, "sequences_per_second")
        beside = f"tokens a second; {formatting.number(sequences_speed)} sequences a second"
        entries.append(("Mean throughput", formatting.count(speed), beside))
    cells = (
        f'<div class="tile"><dt>{escape(name)}</dt><dd><div class="value">{escape(value)}</div>'
        f'<div class="beside">{escape(beside)}</div></dd></div>'
        for name, value, beside in entries
    )
    return f'<dl class="tiles">{"".join(cells)}</dl>'


def _loss_tile(final: Evaluation) -> tuple[str, str, str]:
    reference = f"guessing from word frequencies: {formatting.loss(final.unigram_loss)}"
    known = np.isfinite(final.unigram_loss)
    return (
        "Held-out masked-word loss",
        formatting.loss(final.masked_word_loss),
        reference if known else "nats a word",
    )


def _accuracy_tile(final: Evaluation) -> tuple[str, str, str]:
    times = formatting.times(final.masked_word_accuracy, final.unigram_accuracy)
    beside = f"always the commonest word: {formatting.percent(final.unigram_accuracy)}"
    if times:
        beside = f"{times} that of always guessing the commonest word ({formatting.percent(final.unigram_accuracy)})"
    known = np.isfinite(final.unigram_accuracy)
    return (
        "Held-out accuracy",
        formatting.percent(final.masked_word_accuracy),
        beside if known else "of masked words",
    )


def fills(run: Run) -> str:
    """Masked sentences with the likeliest words as bars; where they were filled in more than once, also how before."""
    blocks = []
    for example in run.last_fills:
        sentence = escape(example.text).replace("[MASK]", '<span class="mask">[MASK]</span>')
        bars = "".join(
            f'<dt>{escape(word)}</dt><dd><span class="track"><span class="bar"'
            f' style="width:{100 * min(max(np.nan_to_num(share), 0.0), 1.0):.1f}%"></span></span>'
            f'<span class="share">{formatting.percent(share)}</span></dd>'
            for word, share in example.candidates
        )
        before = [fill for fill in run.fills if fill.text == example.text]
        blocks.append(f'<div class="fill"><p>{sentence}</p><dl class="bars">{bars}</dl>{_over_time(before)}</div>')
    return f'<div class="fills">{"".join(blocks)}</div>'


def _over_time(examples: Sequence[Fill]) -> str:
    """The likeliest words of one sentence after some of the steps it was filled in at."""
    if len(examples) < 2:
        return ""
    places = np.unique(np.linspace(0, len(examples) - 1, _MOST_FILLS).round().astype(int))
    rows = [
        [
            formatting.count(examples[place].step),
            ", ".join(f"{word} {formatting.percent(share)}" for word, share in examples[place].candidates[:3]),
        ]
        for place in places
    ]
    return grid(["Step", "Likeliest words"], rows, texts={1})


def evaluations(run: Run) -> str:
    """Held-out figures over steps; of a long list the first, the last and evenly spaced ones between."""
    chosen = list(run.evaluations)
    if len(chosen) > _MOST_EVALUATIONS:
        places = np.unique(np.linspace(0, len(chosen) - 1, _MOST_EVALUATIONS).round().astype(int))
        chosen = [chosen[place] for place in places]
    head = ["Step", "Masked-word loss", "Accuracy", "Next-sentence loss", "Accuracy", "Masked words"]
    rows = [
        [
            formatting.count(e.step),
            formatting.loss(e.masked_word_loss),
            formatting.percent(e.masked_word_accuracy),
            formatting.loss(e.next_sentence_loss),
            formatting.percent(e.next_sentence_accuracy),
            formatting.count(e.masked_words),
        ]
        for e in chosen
    ]
    final = run.evaluations[-1]
    beside = (
        f"Beside it: guessing from word frequencies, loss {formatting.loss(final.unigram_loss)}; always the"
        f" commonest word, {formatting.percent(final.unigram_accuracy)}."
        + (
            f" Always the commoner answer about the next sentence: {formatting.percent(final.next_sentence_commonest)}."
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
            str(p.number),
            formatting.count(p.sequence_length),
            formatting.count(p.batch_size),
            formatting.count(p.steps),
            formatting.count(p.first_step),
            formatting.number(p.peak_learning_rate),
            formatting.count(p.warmup_steps),
            *[_noise(run.last_noise(p.number))] * bool(run.noise),
        ]
        for p in run.phases
    ]
    return grid(head, rows)


def _noise(noise: Noise | None) -> str:
    """The noise scale with its standard error, in sequences."""
    if noise is None or not np.isfinite(noise.noise_scale):
        return formatting.MISSING
    return f"{formatting.count(noise.noise_scale)} ± {formatting.count(noise.standard_error)}"


def outcome(run: Run) -> str:
    """What a run took beside what was predicted, phase by phase."""
    taken = run.outcome or {}
    predicted = taken.get("predicted")
    predicted = predicted if isinstance(predicted, dict) else {}
    seconds, memory = (number_or_none(taken.get(name)) for name in ("seconds", "memory_bytes"))
    before, room = (number_or_none(predicted.get(name)) for name in ("seconds", "memory_bytes"))
    rows = [["Time", formatting.duration(before), formatting.duration(seconds), _off(before, seconds)]]
    by_phase = predicted.get("phase_seconds")
    for phase, guess in zip(run.phases, by_phase if isinstance(by_phase, list) else (), strict=False):
        recorded = float(np.nansum(run.series["seconds"][run.series["phase"] == phase.number]))
        rows.append(
            [
                f"Steps of phase {phase.number}",
                formatting.duration(number_or_none(guess)),
                formatting.duration(recorded),
                _off(number_or_none(guess), recorded),
            ]
        )
    if memory:
        rows.append(["Peak memory", formatting.size(room), formatting.size(memory), _off(room, memory)])
    return grid(["", "Predicted", "Actual", "Off by"], rows, texts={0})


def _off(predicted: float | None, actual: float | None) -> str:
    """How far a prediction was from what came, in percent of the latter."""
    if not predicted or not actual:
        return formatting.MISSING
    return f"{100 * (predicted / actual - 1):+.1f} %"


def marks(run: Run) -> str:
    """What befell the run, in order; of very many the first and the last."""
    half = _MOST_MARKS // 2
    shown = list(run.marks) if len(run.marks) <= _MOST_MARKS else [*run.marks[:half], *run.marks[-half:]]
    rows = [[formatting.count(mark.step), mark.kind.replace("_", "-"), mark.text] for mark in shown]
    left_out = len(run.marks) - len(shown)
    note = f'<p class="note">{formatting.count(left_out)} in between are left out.</p>' if left_out else ""
    return grid(["Step", "What", ""], rows, texts={1, 2}) + note


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
    leads: Sequence[str] = (),
) -> str:
    """A table; the columns in `texts` hold words, the others numbers, set to the right.

    `leads` are pieces of HTML, one for each row, that come before the text of its first cell.
    """

    def cell(row: int, column: int, text: str) -> str:
        classes = ["number"] * (column not in texts) + ["best"] * ((row, column) in (best or ()))
        lead = leads[row] if leads and column == 0 else ""
        shown = f"<label>{lead}{escape(text)}</label>" if lead else escape(text)
        return f'<td class="{" ".join(classes)}">{shown}</td>'

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
