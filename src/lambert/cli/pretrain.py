"""`lambert pretrain --corpus CORPUS --model NAME --batch-size B [B2] (--epochs E | --samples N) --out RUN`"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambert.cli.processes import check_count, process_count, start_processes
from lambert.cli.subcommand import Subcommand
from lambert.training.config.arguments import TrainingArguments

if TYPE_CHECKING:
    from lambert.training.train_output import TrainOutput


@dataclass(frozen=True, kw_only=True)
class Pretrain(TrainingArguments, Subcommand):
    """Pre-train a BERT in two phases. The same command again resumes from the last checkpoint."""

    corpus: Path
    """Corpus made by `lambert prepare`."""
    out: Path
    """Folder of the run; an existing run there with the same settings is resumed."""
    processes: int = 0
    """Ranks on this machine; 0 starts one for each GPU. Leave it out with torchrun."""
    restarts: int = 3
    """Times to restart all processes from the last checkpoint if one is killed."""

    def run(self) -> dict[str, Any]:
        """Results: `run`, `step`, `finished`, `evaluation`, `seconds`, `resumed_from_step`."""
        check_count("restarts", self.restarts)
        count = process_count(self.processes)
        if count > 1:
            command = self.as_command("pretrain")
            return start_processes(
                command, count, json=self.json, threads=self.threads, restarts=self.restarts, fresh=self.fresh
            )
        from lambert.api.training import pretrain

        return results_of(pretrain(self.corpus, out=self.out, arguments=self))


def results_of(output: TrainOutput) -> dict[str, Any]:
    """The results of a run for `--json`."""
    return {
        "run": str(output.out),
        "step": output.step,
        "finished": output.finished,
        "resumed_from_step": output.resumed_from_step,
        "seconds": output.seconds,
        "evaluation": None if output.evaluation is None else asdict(output.evaluation),
        "exit_code": 0 if output.finished else 128 + output.signal,
    }
