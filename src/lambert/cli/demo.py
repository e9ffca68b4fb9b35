"""`lambert demo`: the full pipeline on text from the Python installation, in a few minutes on two cores."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambert.cli.demo_classifier import classify, write_labels
from lambert.cli.demo_uses import embed, export
from lambert.cli.prepare import say_summary
from lambert.cli.pretrain import results_of
from lambert.cli.subcommand import Subcommand, say
from lambert.errors import UserError
from lambert.utils.formatting import perplexity, shell_command

if TYPE_CHECKING:
    from lambert.training.train_output import TrainOutput

VOCABULARY_SIZE = 2_048
SAMPLES = 130_000
BATCH_SIZE = 64
THREADS = 1
"""Two are an eighth faster (25 and 22 ms a step), but ten times slower beside other work (docs/performance.md)."""
LEARNED_RATIO = 2.0
SENTENCES = (
    "Return the [MASK] of elements in the list.",
    "If the file cannot be [MASK], an error is raised.",
    "The default value is [MASK].",
    "Raise an exception if the argument is not a [MASK].",
    "See the [MASK] for more details.",
)


@dataclass(frozen=True, kw_only=True)
class Demo(Subcommand):
    """Pre-train a small BERT on Python's own documentation and use it: corpus, plan, both phases, evaluation, report;
    a classifier, sentence vectors, an export."""

    out: Path = Path("runs/demo")
    """Folder of the run; corpus, classifier, vectors and export go beside it. The same command resumes it, or shows its
    results."""
    architecture: str = "bert"
    """bert or modernbert."""
    fresh: bool = False
    """Start from scratch."""

    def run(self) -> dict[str, Any]:
        """Results: those of `pretrain`, `filled`, `classifier`, `embeddings` and `export`. Exit code 1 unless the model
        is twice as accurate as the unigram baseline."""
        from lambert.api.training import pretrain
        from lambert.corpus.build import build_corpus
        from lambert.corpus.python_docs import python_documents

        corpus = self._beside("-corpus")
        if not corpus.exists():
            say("Collecting English from Python's own documentation …")
            documents = list(
                python_documents(processes=min(4, os.cpu_count() or 1))
            )  # collected once: building reads the documents more than once
            built = build_corpus(lambda: documents, corpus, vocab_size=VOCABULARY_SIZE, validation_fraction=0.05)
            assert built.summary is not None
            say_summary(built.summary)
            write_labels(documents, self._labels)
        output = self._finished() or pretrain(
            corpus,
            out=self.out,
            command=shell_command(*self.as_command("demo")),
            model="tiny",
            architecture=self.architecture,
            batch_size=BATCH_SIZE,
            optimizer="muon",
            samples=SAMPLES,
            sequence_lengths=(16, 32),
            dropout=0.0,
            threads=THREADS,
            fresh=self.fresh,
        )
        results = results_of(output)
        if not results["finished"]:
            return results
        return results | self._show(results)

    def _finished(self) -> TrainOutput | None:
        """The outcome of a finished run of this architecture, if it is not to start from scratch."""
        from lambert.model.architectures import architecture_of
        from lambert.model.huggingface import model_folder
        from lambert.training.checkpoint.format import finished_steps
        from lambert.training.checkpoint.recorded_recipe import settings_of
        from lambert.training.train_output import TrainOutput

        try:
            settings = settings_of(self.out)
            model_folder(self.out)
        except UserError:
            return None
        done = finished_steps(self.out)[:1] == [settings.total_steps]
        if self.fresh or not done or architecture_of(settings.model) != self.architecture:
            return None
        return TrainOutput(self.out, settings.total_steps, True, settings.total_steps, None, 0.0, 0)

    def _show(self, results: dict[str, Any]) -> dict[str, Any]:
        from lambert.api.models import open_model
        from lambert.model.fill import fill_mask
        from lambert.report import write_report
        from lambert.runlog.schema import JOURNAL_FILE
        from lambert.runlog.writer import Journal

        evaluation = results["evaluation"] or _recorded_evaluation(self.out)
        exit_code = 0
        if evaluation is not None:
            ratio = evaluation["mlm_accuracy"] / max(evaluation["unigram_accuracy"], 1e-9)
            has_learned = ratio >= LEARNED_RATIO and evaluation["mlm_loss"] < evaluation["unigram_loss"]
            exit_code = 0 if has_learned else 1
            say(
                f"Validation set: MLM loss {evaluation['mlm_loss']:.2f}, perplexity "
                f"{perplexity(evaluation['mlm_loss'])}, accuracy {100 * evaluation['mlm_accuracy']:.1f} %; unigram "
                f"baseline: loss {evaluation['unigram_loss']:.2f}, perplexity "
                f"{perplexity(evaluation['unigram_loss'])}, accuracy {100 * evaluation['unigram_accuracy']:.1f} %"
            )
            say(
                f"That is {ratio:.1f} times the accuracy of the unigram baseline"
                + ("." if has_learned else ": so short a run rarely beats it.")
            )
        model, tokenizer = open_model(self.out)
        filled = []
        with Journal(self.out / JOURNAL_FILE) as journal:
            for text in SENTENCES:
                candidates = [asdict(one) for one in fill_mask(model, tokenizer, text)[0]]
                say(f"  {text:55} {', '.join(one['word'] for one in candidates)}")
                filled.append({"text": text, "candidates": candidates})
                journal.write("fill", filled[-1])
        write_report([self.out], self.out / "report.html")
        classifier = embeddings = None
        if self._labels.is_file():
            classifier = classify(self.out, self._labels, self._beside("-classifier"))
            embeddings = embed(self.out, self._labels, self._beside("-vectors.npy"))
        exported = export(self._beside("-classifier") if classifier else self.out, self._beside("-export"))
        say("Next, with your own text:")
        say("  lambert prepare FOLDER --out my-corpus")
        say("  lambert plan --corpus my-corpus --hours 1")
        say("  lambert pretrain --corpus my-corpus --hours 1 --out runs/mine")
        say("and its SQuAD F1 (fetches the official files, or name your own with --train and --dev):")
        squad = shell_command("lambert", "squad", self.out, "--out", "runs/demo-squad", "--train-questions", "2000")
        say(f"  {squad}")
        uses = {"classifier": classifier, "embeddings": embeddings, "export": exported}
        return {"evaluation": evaluation, "filled": filled, **uses, "exit_code": exit_code}

    @property
    def _labels(self) -> Path:
        return self._beside("-labels.csv")

    def _beside(self, ending: str) -> Path:
        return self.out.with_name(self.out.name + ending)


def _recorded_evaluation(run: Path) -> dict[str, Any] | None:
    """The last evaluation of a run that finished earlier."""
    from lambert.runlog.reader import read_run

    final = read_run(run).final
    return None if final is None else {name: value for name, value in asdict(final).items() if name != "step"}
