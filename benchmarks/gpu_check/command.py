"""Twelve checks of lambert on one GPU, some 21 minutes in all (docs/gpu.md).

    python benchmarks/gpu_check                           # the stages that have no result yet, or a bad one
    python benchmarks/gpu_check --only attention 6        # these, again
    python benchmarks/gpu_check --from 9                  # this and all after it, again
    python benchmarks/gpu_check --small --device cpu      # a rehearsal without a GPU
    python benchmarks/gpu_check --make-archive check.tar.gz --text TEXTS --squad TRAIN.json DEV.json

Each stage prints one line of JSON, which is also kept in the folder of results; a table against the targets comes last.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu_check import carried, driver
from gpu_check.stages import STAGES, Settings, Stage, stage_of
from gpu_check.table import table

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked for; returns 0 if every stage is ok, 1 if not, 2 for a wrong argument."""
    options = _parser().parse_args(argv)
    sys.path.append(str(carried.unpacked(ROOT)))
    if options.stage or options.train:
        carried.stand_in()
    if options.stage:
        return _run_one(options)
    if options.train:
        from gpu_check.runs import train_here

        return train_here(options.train)
    if options.make_archive:
        return _make_archive(options)
    stages = _chosen(options)
    missing = [str(folder) for folder in _needed(options.data) if not folder.exists()]
    if missing:
        return _refuse(f"{', '.join(missing)} is missing", "give --data, or make an archive with --make-archive")
    results = options.results.resolve()
    environment = driver.environment_of(ROOT, results, options.device)
    program = [*_program(options), *_shared(options)]
    try:
        driver.run_stages(stages, program, results, environment, lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        print("gpu_check: stopped; the same command resumes at that stage", file=sys.stderr)
    lines = driver.read_lines(results)
    print(table(lines, small=options.small))
    return 0 if all(lines.get(stage.number, {}).get("ok") for stage in STAGES) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpu_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", type=_stage, metavar="STAGE", help="numbers or names, again")
    parser.add_argument("--from", dest="first", type=_stage, metavar="STAGE", help="this and all after it, again")
    parser.add_argument(
        "--results", type=Path, default=Path("gpu_check_results"), help="folder of lines, logs and runs"
    )
    parser.add_argument("--data", type=Path, default=ROOT / "gpu_check_data", help="folder with corpus/ and squad/")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="a rehearsal: sizes whose numbers mean nothing")
    parser.add_argument("--through", type=shlex.split, default=[], help="words that start a stage, for a profiler")
    archive = parser.add_argument_group("the archive for the machine with the GPU, made on any other")
    archive.add_argument("--make-archive", type=Path, metavar="FILE", help="write FILE, a .tar.gz below 64 MiB")
    archive.add_argument("--text", type=Path, nargs="+", help="files or folders of text for the corpus")
    archive.add_argument("--squad", type=Path, nargs=2, metavar=("TRAIN", "DEV"), help="SQuAD files, sampled")
    archive.add_argument("--vocab", help="a vocabulary; without it one of 30,522 entries is learned")
    archive.add_argument("--wheels", type=Path, help="folder of wheels for packages that the machine lacks")
    archive.add_argument("--megabytes", type=int, default=25, help="size of the corpus's tokens")
    parser.add_argument("--stage", type=_stage, help=argparse.SUPPRESS)
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    return parser


def _stage(word: str) -> Stage:
    found = stage_of(word)
    if found is None:
        known = ", ".join(f"{stage.number} {stage.name}" for stage in STAGES)
        raise argparse.ArgumentTypeError(f"no stage {word!r}; there are {known}")
    return found


def _chosen(options: argparse.Namespace) -> list[Stage]:
    if options.only:
        return sorted(set(options.only), key=lambda stage: stage.number)
    if options.first:
        return [stage for stage in STAGES if stage.number >= options.first.number]
    return driver.open_stages(options.results)


def _needed(data: Path) -> list[Path]:
    return [data / "corpus", data / "squad" / "train.json", data / "squad" / "dev.json"]


def _program(options: argparse.Namespace) -> list[str]:
    return options.through or [sys.executable, str(HERE)]


def _shared(options: argparse.Namespace) -> list[str]:
    words = ["--results", str(options.results.resolve()), "--data", str(options.data.resolve())]
    words += ["--device", options.device, *["--small"] * options.small]
    return [*words, *(["--through", shlex.join(options.through)] if options.through else [])]


def _run_one(options: argparse.Namespace) -> int:
    """One stage, in this process."""
    from gpu_check.report import Report, described

    stage: Stage = options.stage
    report = Report(driver.line_path(options.results, stage), stage.number, stage.name)
    try:
        stage.function()(_settings(options, stage), report)
    except Exception as error:
        import traceback

        traceback.print_exc()
        report.problems.append(described(error))
    report.save(finished=True)
    return 0


def _settings(options: argparse.Namespace, stage: Stage) -> Settings:
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("PyTorch sees no GPU; `--small --device cpu` rehearses without one")
    device = torch.device("cuda", 0) if options.device == "cuda" else torch.device("cpu")
    work, program = options.results / "work", _program(options)
    return Settings(device, options.small, options.data, work, program, stage.limit)


def _make_archive(options: argparse.Namespace) -> int:
    """Write the archive and say its size."""
    from gpu_check.archive import make_archive
    from lambert.errors import UserError

    given: dict[str, Any] = {"text": options.text, "squad": options.squad, "vocab": options.vocab}
    if not options.text or not options.squad:
        return _refuse("an archive needs a corpus and questions", "give --text and --squad")
    try:
        said = make_archive(options.make_archive, ROOT, **given, wheels=options.wheels, megabytes=options.megabytes)
    except (UserError, OSError) as error:
        return _refuse(str(error), "change that and repeat the command")
    print(said)
    return 0


def _refuse(what: str, remedy: str) -> int:
    print(f"gpu_check: {what}; {remedy}", file=sys.stderr)
    return 2
