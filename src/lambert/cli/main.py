"""`lambert SUBCOMMAND …`: parse, run, print results as JSON if asked, exit."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from io import StringIO, TextIOWrapper
from pathlib import Path

import tyro

from lambert import __version__
from lambert.api.messages import log_lines, printed_messages, unbreakable
from lambert.cli.arguments import read_arguments
from lambert.cli.compare import Compare
from lambert.cli.demo import Demo
from lambert.cli.doctor import Doctor
from lambert.cli.embed import Embed
from lambert.cli.embed_eval import EmbedEval
from lambert.cli.embed_train import EmbedTrain
from lambert.cli.export import Export
from lambert.cli.fill import Fill
from lambert.cli.finetune import Finetune
from lambert.cli.glue import Glue
from lambert.cli.inspect import Inspect
from lambert.cli.plan import Plan
from lambert.cli.prepare import Prepare
from lambert.cli.pretrain import Pretrain
from lambert.cli.report import Report
from lambert.cli.squad import Squad
from lambert.cli.subcommand import PRINTED, Subcommand
from lambert.cli.sweep import SweepRuns
from lambert.cli.track import Track
from lambert.cli.usage import usage_error
from lambert.errors import (
    EXIT_INTERRUPTED,
    LaunchError,
    PeerLost,
    UserError,
    missing_package,
    unknown_name,
    was_interrupted,
)
from lambert.training.distributed.env import check as check_launcher
from lambert.training.distributed.env import is_first_process, is_one_of_several, process_rank
from lambert.utils.io import why_unwritable
from lambert.utils.memory import is_out_of_memory, memory_words

SUBCOMMANDS: dict[str, Callable[..., Subcommand]] = {
    "demo": Demo,
    "prepare": Prepare,
    "inspect": Inspect,
    "plan": Plan,
    "pretrain": Pretrain,
    "sweep": SweepRuns,
    "finetune": Finetune,
    "compare": Compare,
    "squad": Squad,
    "glue": Glue,
    "fill": Fill,
    "embed": Embed,
    "embed-train": EmbedTrain,
    "embed-eval": EmbedEval,
    "export": Export,
    "report": Report,
    "track": Track,
    "doctor": Doctor,
}
DESCRIPTION = (
    "Pre-train BERT encoders on your own text with LAMB, at any batch size. "
    "Start with `lambert demo`; `lambert SUBCOMMAND --help` explains every option. Counts may be written 32,768, 1e6 "
    "or 512M; k is 1,024 in batch sizes, sequence lengths and numbers of chips or ranks, and 1,000 in all others."
)
EXIT_USER_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 done, 1 a check failed, 2 wrong input, 3 the run could not continue (its last checkpoint is complete), 4
    another rank was lost, 128 + signal stopped by a signal.
    """
    argv = sys.argv[1:] if arguments is None else list(arguments)
    if "OMP_WAIT_POLICY" not in os.environ:  # both are read when torch is loaded: docs/performance.md, "Waiting"
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    if is_one_of_several():  # lambert says which rank is lost; PyTorch adds C++ stack traces, read when it is loaded
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal or file that is not UTF-8 shows ? for √
            stream.reconfigure(errors="replace")
    if argv == ["--version"]:
        print(f"lambert {__version__}")
        return 0
    with unbreakable("stderr"):
        return _run(argv)


def _run(argv: list[str]) -> int:
    try:
        check_launcher()
        subcommand, notes = parse(argv)
        # What a command makes does not depend on who reads its words.
        with unbreakable(*["stdout"] * (not subcommand.only_prints)), printed_messages(reword=with_flags):
            if is_first_process():
                log_lines(notes)
            results = subcommand.run()
        if subcommand.json and not results.get(PRINTED) and is_first_process():
            print(json.dumps(results), flush=True)
    except UserError as error:
        if _is_news(error):
            print(f"lambert: {with_flags(str(error))}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        print(f"lambert: {missing_package(error)}", file=sys.stderr)
        return EXIT_USER_ERROR
    except (KeyboardInterrupt, MemoryError, RuntimeError, ImportError) as error:
        if was_interrupted(error):
            print("lambert: interrupted", file=sys.stderr)
            return EXIT_INTERRUPTED
        if not is_out_of_memory(error):
            raise
        remedy = "Free some, raise a limit on it (`ulimit -v`), or use a smaller model or batch"
        print(f"lambert: {memory_words(error)}. {remedy}.", file=sys.stderr)
        return EXIT_USER_ERROR
    except BrokenPipeError:
        # The reader closed the pipe (`lambert … | head`): exit silently.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        at = Path(error.filename) if isinstance(error.filename, str) else None
        why = error.strerror if at is None else why_unwritable(error, at)
        print(f"lambert: {why}: {at or 'while writing the output'}", file=sys.stderr)
        return EXIT_USER_ERROR
    return int(results.get("exit_code", 0))


_ARGUMENTS = {field.name for subcommand in SUBCOMMANDS.values() for field in dataclasses.fields(subcommand)}  # type: ignore[arg-type]


def with_flags(text: str) -> str:
    """Turn the arguments in library messages, `batch_size` or `fresh=True`, into flags.

    >>> with_flags("Give another `out`, or `fresh=True`, to `lambert report`")
    'Give another --out, or --fresh, to `lambert report`'
    """

    def flag(match: re.Match[str]) -> str:
        return f"--{match[1].replace('_', '-')}" if match[1] in _ARGUMENTS else match[0]

    return re.sub(r"`([a-z][a-z_]*)(?:=True)?`", flag, text)


def end() -> None:
    """Run the command line and exit with its code.

    One of several ranks exits at once: cleaning up its connections could wait for other ranks, or abort.
    """
    code = main()
    if is_one_of_several():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _is_news(error: UserError) -> bool:
    """Whether this rank prints the error: rank 0 does, others only for errors of their own."""
    own = isinstance(error, (PeerLost, LaunchError)) or f"process {process_rank()} " in error.what
    return is_first_process() or own


def parse(argv: list[str]) -> tuple[Subcommand, list[str]]:
    """Parse `argv` into a subcommand with its options, and notes to print; `--help` prints and exits.

    Raises:
        UserError: invalid arguments.
    """
    name = argv[0] if argv and not argv[0].startswith("-") else ""
    if name and name not in SUBCOMMANDS:
        raise unknown_name("subcommand", name, SUBCOMMANDS)
    own = [name] if name else []
    words, notes = read_arguments(name, argv[len(own) :], SUBCOMMANDS)
    stderr = StringIO()
    try:
        with redirect_stderr(stderr):
            subcommand: Subcommand = tyro.extras.subcommand_cli_from_dict(
                SUBCOMMANDS,
                prog="lambert",
                description=DESCRIPTION,
                args=[*own, *words],
                config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes, tyro.conf.DisallowNone),
            )
    except SystemExit as ended:
        if not ended.code:
            raise
        raise usage_error(stderr.getvalue(), name) from None
    return subcommand, notes
