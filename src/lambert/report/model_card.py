"""The model card of a run: `README.md` beside its weights, with the metadata that the Hugging Face Hub reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lambert.report.columns import sequences_seen
from lambert.report.tables import command, flat
from lambert.runlog.reader import Run, read_run
from lambert.runlog.records import Evaluation
from lambert.utils import formatting
from lambert.utils.io import write_text

CARD = "README.md"
_MOST_OF_CURVE = 8
_USE_OF_VECTORS = (
    "```python\nfrom sentence_transformers import SentenceTransformer\n\n"
    'vectors = SentenceTransformer("PATH_OR_NAME_OF_THIS_FOLDER").encode(["one text", "another"])\n```\n\n'
    "The encoder was not trained to compare texts: `lambert embed-train FOLDER texts.txt --out OUT` does that."
)
_CLASSES = {"bert": "BertForPreTraining", "modernbert": "ModernBertForMaskedLM"}


def write_model_card(
    run: Path, folder: Path, *, step: int | None = None, watts: float | None = None, sentence_vectors: bool = False
) -> Path:
    """Write the card of a run into a folder with its model and return the file.

    Args:
        run: of which recipe and journal tell.
        step: of the checkpoint; None: the last.
        watts: what the machine draws, for the energy.
        sentence_vectors: the folder is one of sentence-transformers.

    Raises:
        UserError: the run cannot be read.
        OSError: the card cannot be written.
    """
    text = render(read_run(run), name=run.name, step=step, watts=watts, sentence_vectors=sentence_vectors)
    write_text(folder / CARD, text)
    return folder / CARD


def render(
    run: Run, *, name: str, step: int | None = None, watts: float | None = None, sentence_vectors: bool = False
) -> str:
    """The card as Markdown."""
    last = int(run.steps[-1])
    shown = last if step is None else step
    evaluation = _evaluation(run, shown)
    parts = [
        _metadata(evaluation, sentence_vectors=sentence_vectors),
        f"# {name}",
        _opening(run, shown, last),
        "## Use\n\n" + (_USE_OF_VECTORS if sentence_vectors else _use(run)),
        "## Evaluation\n\n" + _evaluated(evaluation) + _curve(run, shown),
        "## Training data\n\n" + _data(run),
        "## Training\n\n" + _training(run, watts),
        "## Limits\n\n" + _limits(),
        "## Made with\n\n" + _made_with(run),
    ]
    return "\n\n".join(parts) + "\n"


def _evaluation(run: Run, step: int) -> Evaluation | None:
    """The last one up to a step."""
    before = [one for one in run.evaluations if one.step <= step]
    return before[-1] if before else None


def _metadata(evaluation: Evaluation | None, *, sentence_vectors: bool) -> str:
    """YAML as the Hub reads it. Language and license are for the model's owner to say."""
    library = "sentence-transformers" if sentence_vectors else "transformers"
    task = "sentence-similarity" if sentence_vectors else "fill-mask"
    lines = ["---", f"library_name: {library}", f"pipeline_tag: {task}", "tags:", "- lambert", f"- {task}"]
    lines += ["# language: en", "# license: the license of your model, which depends on its text"]
    if evaluation is not None:
        lines += ["metrics:", "- perplexity"]
    return "\n".join([*lines, "---"])


def _architecture(run: Run) -> str:
    model = run.recipe.get("model")
    return str(model.get("architecture", "bert")) if isinstance(model, dict) else "bert"


def _opening(run: Run, step: int, last: int) -> str:
    model = run.recipe.get("model")
    sizes: Mapping[str, Any] = model if isinstance(model, dict) else {}
    architecture = {"bert": "BERT", "modernbert": "ModernBERT"}.get(_architecture(run), _architecture(run))
    parameters = run.header.get("parameters")
    count = f", {formatting.large(float(parameters))} parameters" if isinstance(parameters, int) else ""
    text = (
        f"A {architecture} encoder with {sizes.get('layers', '?')} layers of width {sizes.get('hidden_size', '?')}"
        f"{count} and {formatting.count(sizes.get('vocabulary_size'))} vocabulary entries, "
        f"pre-trained to predict masked tokens, for {formatting.count(step)} steps."
    )
    return text if step == last else f"{text} A checkpoint: the run has {formatting.count(last)} steps so far."


def _use(run: Run) -> str:
    kind = _CLASSES.get(_architecture(run), "AutoModelForMaskedLM")
    return (
        "```python\nfrom transformers import pipeline\n\n"
        'fill = pipeline("fill-mask", "PATH_OR_NAME_OF_THIS_FOLDER")\n'
        'fill(f"A sentence with a {fill.tokenizer.mask_token} word.")\n```\n\n'
        f"The weights are those of `{kind}`. To fine-tune it on your own labels: "
        "`lambert finetune FOLDER labels.csv --out OUT`, or any script of `transformers`."
    )


def _evaluated(evaluation: Evaluation | None) -> str:
    if evaluation is None:
        return "The run was not evaluated on held-out text."
    rows = [
        ("", "model", "baseline"),
        ("---", "---", "---"),
        (
            "masked-token loss, nats",
            formatting.loss(evaluation.mlm_loss),
            _or_dash(evaluation.unigram_loss, formatting.loss),
        ),
        (
            "perplexity",
            formatting.perplexity(evaluation.mlm_loss),
            _or_dash(evaluation.unigram_loss, formatting.perplexity),
        ),
        (
            "masked-token accuracy",
            formatting.percent(evaluation.mlm_accuracy),
            _or_dash(evaluation.unigram_accuracy, formatting.percent),
        ),
    ]
    if np.isfinite(evaluation.nsp_accuracy):
        pairs = (
            formatting.percent(evaluation.nsp_accuracy),
            _or_dash(evaluation.nsp_majority_accuracy, formatting.percent),
        )
        rows.append(("next-sentence accuracy", *pairs))
    return (
        f"On held-out text at step {formatting.count(evaluation.step)}, {formatting.count(evaluation.masked_tokens)} "
        "masked tokens, each behind [MASK]. The baseline always predicts by the frequency of tokens in the training "
        "text.\n\n" + markdown_table(rows)
    )


def _curve(run: Run, step: int) -> str:
    """Held-out losses along the run up to a step, at most eight, evenly."""
    measured = [one for one in run.evaluations if one.step <= step]
    if len(measured) < 2:
        return ""
    places = np.unique(np.linspace(0, len(measured) - 1, _MOST_OF_CURVE).round().astype(int))
    rows = [("step", "loss", "accuracy"), ("---",) * 3]
    rows += [
        (formatting.count(one.step), formatting.loss(one.mlm_loss), formatting.percent(one.mlm_accuracy))
        for one in (measured[place] for place in places)
    ]
    return f"\n\nAlong the run, on held-out text:\n\n{markdown_table(rows)}"


def _or_dash(value: float, show: Any) -> str:
    return str(show(value)) if np.isfinite(value) else formatting.MISSING


def _data(run: Run) -> str:
    corpus = run.header.get("corpus")
    tokens = corpus.get("tokens") if isinstance(corpus, dict) else None
    amount = f"{formatting.large(float(tokens))} tokens. " if isinstance(tokens, int) else ""
    return (
        f"{amount}Say here what the text is, where it comes from, what it leaves out, and under which terms it may be "
        "used: the run knows only its tokens."
    )


def _training(run: Run, watts: float | None) -> str:
    """Phases with the reasons of their numbers, time and energy."""
    phases = [("phase", "length", "batch", "steps", "peak rate", "warm-up steps"), ("---",) * 6]
    phases += [
        (
            str(one.number),
            formatting.count(one.sequence_length),
            formatting.count(one.batch_size),
            formatting.count(one.steps),
            f"{one.peak_learning_rate:.3g}",
            formatting.count(one.warmup_steps),
        )
        for one in run.phases
    ]
    recipe = {name: value for name, value in run.recipe.items() if name in ("optimizer", "betas", "weight_decay")}
    chosen = "; ".join(f"{label.replace('_', ' ')} {value}" for label, value in flat(recipe))
    examples = run.recipe.get("examples")
    masked = examples.get("mlm_probability") if isinstance(examples, dict) else None
    if isinstance(masked, int | float):
        chosen += f"; {formatting.percent(float(masked))} of the tokens masked"
    hours = run.training_seconds / 3_600
    host = run.header.get("host")
    machine = f" on {host.get('processor', 'a machine')}" if isinstance(host, dict) else ""
    chosen += f"; precision {run.header.get('precision', '?')}; seed {run.header.get('seed', '?')}"
    sequences = formatting.large(float(sequences_seen(run)[-1]))
    text = f"{markdown_table(phases)}\n\n{chosen}.\n\n"
    text += f"{sequences} sequences in {formatting.duration(run.training_seconds)}{machine}."
    if watts is not None:
        text += f" At {watts:g} watts: {hours * watts / 1_000:.3g} kWh."
    if (given := command(run.recipe)) is not None:
        text += f"\n\n```\n{given}\n```"
    return text


def _limits() -> str:
    return (
        "The model repeats what its text says, errors and prejudice included. It was not tested for any use. It "
        "predicts masked tokens; other uses need fine-tuning, and measuring."
    )


def _made_with(run: Run) -> str:
    versions = [f"{name} {run.header[name]}" for name in ("lambert", "torch", "python") if name in run.header]
    return f"{', '.join(versions)}."


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells, the second of them dashes, as a table of Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
