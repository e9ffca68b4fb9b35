"""The page's tiles, tables and lists, and what a run records about itself as text. All HTML is escaped."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from html import escape
from itertools import pairwise

import numpy as np

from lambert.report.columns import evenly_spaced, sequences_seen
from lambert.report.document import tiles
from lambert.runlog.reader import Run
from lambert.runlog.records import Evaluation, Fill, Noise, number_or_none
from lambert.utils import formatting

Rows = Iterable[tuple[str, str]]
_EVALUATED = (
    ("MLM loss", "mlm_loss", formatting.loss),
    ("Perplexity", "mlm_loss", formatting.perplexity),
    ("Unigram baseline", "unigram_loss", formatting.loss),
    ("MLM accuracy", "mlm_accuracy", formatting.percent),
    ("Most frequent token", "unigram_accuracy", formatting.percent),
    ("NSP loss", "nsp_loss", formatting.loss),
    ("NSP accuracy", "nsp_accuracy", formatting.percent),
    ("Majority class", "nsp_majority_accuracy", formatting.percent),
    ("Masked tokens", "masked_tokens", formatting.count),
)
_MOST_EVALUATIONS, _MOST_INCIDENTS, _MOST_FILLS = 40, 60, 6


def run_tiles(run: Run) -> str:
    """The headline: the result beside its baseline, and what it cost."""
    entries: list[tuple[str, str, str]] = []
    final = run.final
    if final is not None:
        entries += [_loss_tile(final), _accuracy_tile(final)]
    else:
        last = float(run.series["mlm_loss"][-1])
        entries.append(("Last training loss", formatting.loss(last), "all masked tokens; no held-out evaluation"))
    sequences = float(sequences_seen(run)[-1])
    amount = f"{formatting.count(run.steps[-1])} steps" + f", {formatting.large(sequences)} sequences" * bool(sequences)
    entries.append(("Training time", formatting.duration(run.training_seconds), amount))
    speed = mean_speed(run, "tokens_per_second")
    if np.isfinite(speed):
        each = f"tokens per second; {formatting.number(mean_speed(run, 'sequences_per_second'))} sequences per second"
        entries.append(("Mean throughput", formatting.count(speed), each))
    return tiles(entries)


def _loss_tile(final: Evaluation) -> tuple[str, str, str]:
    note = f"nats per [MASK] token; perplexity {formatting.perplexity(final.mlm_loss)}"
    if np.isfinite(final.unigram_loss):
        baseline = formatting.perplexity(final.unigram_loss)
        note += f". Unigram baseline: {formatting.loss(final.unigram_loss)}, perplexity {baseline}"
    return "Held-out MLM loss", formatting.loss(final.mlm_loss), note


def _accuracy_tile(final: Evaluation) -> tuple[str, str, str]:
    note = "of [MASK] tokens"
    if np.isfinite(final.unigram_accuracy):
        times = formatting.times(final.mlm_accuracy, final.unigram_accuracy)
        note = f"most-frequent-token baseline: {formatting.percent(final.unigram_accuracy)}"
        note = f"{times} the {note}" if times else note
    return "Held-out MLM accuracy", formatting.percent(final.mlm_accuracy), note


def fills(run: Run) -> str:
    """Masked sentences with the most likely tokens as bars, and earlier predictions where there are some."""
    blocks = []
    for example in run.last_fills:
        sentence = escape(example.text).replace("[MASK]", '<span class="mask">[MASK]</span>')
        bars = "".join(
            f'<dt>{escape(word)}</dt><dd><span class="track"><span class="bar"'
            f' style="width:{100 * min(max(np.nan_to_num(probability), 0.0), 1.0):.1f}%"></span></span>'
            f'<span class="share">{formatting.percent(probability)}</span></dd>'
            for word, probability in example.candidates
        )
        history = [fill for fill in run.fills if fill.text == example.text]
        blocks.append(f'<div class="fill"><p>{sentence}</p><dl class="bars">{bars}</dl>{_over_time(history)}</div>')
    return f'<div class="fills">{"".join(blocks)}</div>'


def _over_time(examples: Sequence[Fill]) -> str:
    """The predictions for one sentence at some of the steps it was filled in at."""
    if len(examples) < 2:
        return ""
    rows = [
        [
            formatting.count(example.step),
            ", ".join(f"{word} {formatting.percent(probability)}" for word, probability in example.candidates[:3]),
        ]
        for example in evenly_spaced(examples, _MOST_FILLS)
    ]
    return grid(["Step", "Most likely tokens"], rows, texts={1})


def evaluations(run: Run) -> str:
    """Metrics on the validation set over steps, each beside its baseline: the validation set of a phase is its own.

    Of a long list the first, the last and evenly spaced ones between. Columns without any value are left out.
    """
    shown = evenly_spaced(run.evaluations, _MOST_EVALUATIONS)
    lengths = {e.step: phase.sequence_length for phase in run.phases for e in shown if e.step in phase}
    columns = {
        "Step": [formatting.count(e.step) for e in shown],
        "Sequence length": [formatting.count(lengths.get(e.step)) for e in shown],
    }
    for title, name, text in _EVALUATED:
        values = [getattr(e, name) for e in shown]
        if np.isfinite(values).any():
            columns[title] = list(map(text, values))
    return grid(list(columns), list(zip(*columns.values(), strict=True)))


def phases(run: Run) -> str:
    """The phases as planned, with the noise scale where it was measured."""
    noisy = bool(run.noise)
    head = ["Phase", "Sequence length", "Batch size", "Steps", "First step", "Peak learning rate", "Warm-up steps"]
    rows = [
        [
            str(p.number), formatting.count(p.sequence_length), formatting.count(p.batch_size),
            formatting.count(p.steps), formatting.count(p.first_step), formatting.number(p.peak_learning_rate),
            formatting.count(p.warmup_steps), *[_noise(run.last_noise(p.number))] * noisy,
        ]
        for p in run.phases
    ]  # fmt: skip
    return grid(head + ["Noise scale"] * noisy, rows)


def _noise(noise: Noise | None) -> str:
    """The noise scale with its standard error, in sequences."""
    if noise is None or not np.isfinite(noise.noise_scale):
        return formatting.MISSING
    return f"{formatting.count(noise.noise_scale)} ± {formatting.count(noise.standard_error)}"


def outcome(run: Run) -> str:
    """Actual time and memory beside their predictions, phase by phase."""
    actual = run.outcome or {}
    predicted = actual.get("predicted")
    predicted = predicted if isinstance(predicted, dict) else {}

    def row(name: str, prediction: object, value: float | None, text: Callable[[float | None], str]) -> list[str]:
        known = number_or_none(prediction)
        error = f"{100 * (known / value - 1):+.1f} %" if known and value else formatting.MISSING
        return [name, text(known), text(value), error]

    rows = [row("Time", predicted.get("seconds"), number_or_none(actual.get("seconds")), formatting.duration)]
    by_phase = predicted.get("phase_seconds")
    for phase, prediction in zip(run.phases, by_phase if isinstance(by_phase, list) else (), strict=False):
        recorded = float(np.nansum(run.series["seconds"][run.series["phase"] == phase.number]))
        rows.append(row(f"Steps of phase {phase.number}", prediction, recorded, formatting.duration))
    if memory := number_or_none(actual.get("memory_bytes")):
        rows.append(row("Peak memory", predicted.get("memory_bytes"), memory, formatting.size))
    return grid(["", "Predicted", "Actual", "Error"], rows, texts={0})


def incidents(run: Run) -> str:
    """The incidents in order; of very many the first and the last."""
    half = _MOST_INCIDENTS // 2
    found = list(run.incidents)
    shown = found if len(found) <= _MOST_INCIDENTS else found[:half] + found[-half:]
    rows = [[formatting.count(one.step), one.kind.replace("_", "-"), one.text] for one in shown]
    left_out = len(found) - len(shown)
    note = f'<p class="note">{formatting.count(left_out)} in between are left out.</p>' if left_out else ""
    return grid(["Step", "Incident", ""], rows, texts={1, 2}) + note


def settings_tables(recipe: Mapping[str, object]) -> str:
    """recipe.toml as one table for each section; the page shows `command` elsewhere."""
    top: dict[str, object] = {}
    sections: list[tuple[str, Mapping[str, object]]] = [("", top)]
    for name, value in recipe.items():
        if isinstance(value, dict):
            sections.append((name, value))
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            sections += [(f"{name} {number}", item) for number, item in enumerate(value, start=1)]
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
    """A table; the columns in `texts` hold text, the others numbers, aligned right.

    `leads` is HTML for each row, placed before the text of its first cell.
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


def machine_rows(run: Run) -> list[tuple[str, str]]:
    """Machine, software and corpus, from the `run` event."""
    header, host = run.header, run.header.get("host")
    rows = []
    for name, value in host.items() if isinstance(host, dict) else ():
        shown = formatting.size(value) if name.endswith("_bytes") and isinstance(value, int) else inline(value)
        rows.append((name.removesuffix("_bytes").replace("_", " "), shown))
    peak = number_or_none(header.get("peak_matmul_flops_per_second"))
    if peak is not None:
        rows.append(("matmul throughput", f"{formatting.number(peak / 1e9)} GFLOP/s per rank"))
    for name in ("precision", "world_size", "deterministic", "micro_batch_size", "seed", "lambert", "torch", "python"):
        if name in header:
            rows.append((name.replace("_", " "), inline(header[name])))
    corpus = header.get("corpus")
    rows += flat({"corpus": corpus}) if isinstance(corpus, dict) else []
    execution = header.get("execution")
    if isinstance(execution, dict):
        rows += [(f"execution: {name.replace('_', ' ')}", inline(value)) for name, value in execution.items()]
    return rows


def model_text(run: Run) -> str:
    """The model's name and sizes, where the journal gives them."""
    model = run.header.get("model")
    if not isinstance(model, dict):
        return str(model) if model else formatting.MISSING
    name = model.get("name") or model.get("preset")
    layers, width = model.get("layers"), model.get("hidden_size", model.get("width"))
    sizes = f"({layers} layers, hidden size {width})" if layers and width else ""
    return " ".join(str(part) for part in (name, sizes) if part) or formatting.MISSING


def command(recipe: Mapping[str, object]) -> str | None:
    """The command that started the run, where recipe.toml records it."""
    recorded = recipe.get("command")
    if isinstance(recorded, list):
        return formatting.shell_command(*map(str, recorded))
    return recorded if isinstance(recorded, str) and recorded.strip() else None


def flat(values: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    """Nested tables as dotted names and text; a table with a `value` is that value with its reasons."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, dict) and "value" in value and not any(isinstance(v, dict) for v in value.values()):
            reasons = "; ".join(inline(reason) for key, reason in value.items() if key != "value")
            rows.append((f"{prefix}{name}", inline(value["value"]) + (f" ({reasons})" if reasons else "")))
        elif isinstance(value, dict):
            rows += flat(value, f"{prefix}{name}.")
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            for number, item in enumerate(value, start=1):
                rows += flat(item, f"{prefix}{name} {number}.")
        else:
            rows.append((f"{prefix}{name}", inline(value)))
    return rows


def ranges(numbers: Sequence[int], most: int = 8) -> str:
    """Line numbers as text: 3, 7–9 and so on."""
    starts = [numbers[0], *(after for before, after in pairwise(numbers) if after != before + 1)]
    parts = []
    for start in starts[:most]:
        stop = start
        while stop + 1 in numbers:
            stop += 1
        parts.append(str(start) if stop == start else f"{start}–{stop}")
    return ", ".join(parts) + (" and others" if len(starts) > most else "")


def inline(value: object) -> str:
    """A value of a setting as text on one line."""
    if value is None:
        return formatting.MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return formatting.count(value) if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        text = f"{value:.6g}".replace("e-0", "e-")
        return text if set(text) & set(".en") else f"{text}.0"  # 1.0, as recipe.toml has it
    if isinstance(value, dict):
        return ", ".join(f"{name} {inline(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(inline(item) for item in value)
    return str(value) or formatting.MISSING


def mean_speed(run: Run, column: str) -> float:
    """Mean over time, not over steps: the amount divided by the seconds it took."""
    speed, seconds = run.series[column], run.series["seconds"]
    known = np.isfinite(speed) & np.isfinite(seconds)
    total = float(seconds[known].sum())
    if total > 0:
        return float((speed * seconds)[known].sum() / total)
    finite = speed[np.isfinite(speed)]
    return float(finite.mean()) if len(finite) else float("nan")
