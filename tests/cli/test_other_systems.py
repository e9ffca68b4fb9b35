"""The command line on a system that lacks what only Linux has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LACKING = """
import builtins, ctypes, errno, io, os, pathlib, platform, signal, stat, sys

for name in ("SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"):
    delattr(signal, name)
for name in ("sched_getaffinity", "posix_fadvise", "killpg", "setsid", "getloadavg", "fork"):
    delattr(os, name)
platform.libc_ver = lambda *arguments: ("", "")
real_fsync, real_open, real_cdll = os.fsync, io.open, ctypes.CDLL

def fsync(descriptor):
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        raise OSError(errno.EINVAL, "folders cannot be synced")
    if os.O_ACCMODE & __import__("fcntl").fcntl(descriptor, 3) == os.O_RDONLY:
        raise OSError(errno.EBADF, "not open for writing")
    real_fsync(descriptor)

def open_(file, *arguments, **options):
    if str(file).startswith(("/proc/", "/sys/")):
        raise FileNotFoundError(errno.ENOENT, "no such system", str(file))
    return real_open(file, *arguments, **options)

def cdll(name, *arguments, **options):
    if name is None:
        raise TypeError("no main library")
    return real_cdll(name, *arguments, **options)

os.fsync, io.open, builtins.open, ctypes.CDLL = fsync, open_, open_, cdll
"""

COMMANDS = """
from lambert.cli.main import main
folder = sys.argv[1]
try:
    main(["--help"])
except SystemExit as ended:
    assert not ended.code
for line in (
    "prepare {0}/text.txt --out {0}/corpus --vocab-size 120 --validation-fraction .2 --workers 1",
    "pretrain --corpus {0}/corpus --out {0}/run --model 1x32 --optimizer adamw --batch-size 4 --samples 24 "
    "--sequence-lengths 16 --micro-batch-size 4 --evaluation-samples 4",
    "doctor --folder {0}",
):
    assert main(line.format(folder).split()) == 0, line
assert main(["fill", folder + "/run", "the cat [MASK]."]) == 0
import lambert.training.distributed.launcher, lambert.experiments.runner
print("all done")
"""


@pytest.mark.integration
def test_what_only_linux_has_is_not_needed(tmp_path: Path) -> None:
    text = "\n\n".join(f"The cat number {number} sat. Then the dog {number} ran away." for number in range(60))
    (tmp_path / "text.txt").write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", LACKING + COMMANDS, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0 and done.stdout.endswith("all done\n"), done.stdout[-2_000:] + done.stderr[-4_000:]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_output_that_is_not_utf8_is_no_error(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    from lambert.cli.main import main

    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    assert main(["plan", "--batch-size", "64", "--samples", "10000", "--no-probe"]) == 0
    sys.stdout.flush()
    printed = sys.stdout.buffer.getvalue()  # type: ignore[attr-defined]
    assert b"\xb7" in printed or encoding == "ascii"
    assert b" ?(B/S)" in printed
