"""Machine code that is kept on disk: when it is loaded, when it is not, and that its bits are those of compiling."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lambert import kernel_cache
from lambert.model.ops import cpu_attention_kernels, cpu_kernels
from lambert.optim.kernels import compiled

ENTRY = """
import numba
from lambert.kernel_cache import kept
from {helper} import FACTOR, shift

@numba.njit
def scaled(x):
    return FACTOR * x

@kept()
def run(x):
    return shift(scaled(x))
"""
HELPER = """
import numba
FACTOR = 2.0

@numba.njit
def shift(x):
    return x + 1.0
"""
# Prints how many functions numba has compiled, and the result.
PROGRAM = """
import numba.core.event as event
from loops import entry
with event.install_recorder("numba:compile") as recorder:
    result = entry.run(3.0)
print(sum(one.is_start for _, one in recorder.buffer), result)
"""
# A step of a small BERT and LAMB; prints the same and the bits of the weights.
STEP = """
import hashlib, torch, numba.core.event as event
from lambert.optim import LAMB
from lambert.model.ops import select_ops
torch.manual_seed(0)
dtypes = (torch.float32, torch.bfloat16)
with event.install_recorder("numba:compile") as recorder:
    digest = hashlib.sha256()
    for dtype in dtypes:
        hidden = torch.randn(6, 128).to(dtype)
        sizes = ((256, 128), (256,), (128, 256), (128,), (90, 128), (90,))
        weights = [torch.randn(*size).mul(0.1).to(dtype).requires_grad_() for size in sizes]
        w1, b1, w2, b2, table, bias = weights
        ops = select_ops(w1)
        out = ops.feed_forward(hidden, w1, b1, w2, b2, checkpoint=False)
        out = ops.add_norm(out, hidden, torch.ones(128), torch.zeros(128), 1e-12, 0.1)
        hidden, out = ops.norm(out, torch.ones(128).to(dtype), 1e-5)
        out = hidden + ops.geglu(out, w1, w2[:, :128].contiguous(), 0.0, checkpoint=False)
        cosines, sines = torch.rand(2, 6, 1, 16)
        qkv = torch.cat((out, out, out), 1)[None]
        out = ops.attention(qkv, 4, None, 0.0, checkpoint=False, rotation=(cosines, sines))[0]
        ops.mlm_cross_entropy(out, table, bias.float(), torch.arange(6))[0].backward()
        masters = [torch.nn.Parameter(weight.detach().float()) for weight in weights]
        for master, weight in zip(masters, weights):
            master.grad = torch.zeros_like(master) if weight.grad is None else weight.grad.float()
        optimizer = LAMB(masters, lr=0.1, max_grad_norm=1.0)
        for _ in range(3):
            optimizer.step()
        for master in masters:
            digest.update(master.detach().numpy().tobytes())
print(sum(one.is_start for _, one in recorder.buffer), digest.hexdigest())
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the files, not made yet; programs that a test starts use it too."""
    monkeypatch.setenv(kernel_cache.VARIABLE, str(tmp_path / "kernels"))
    return tmp_path / "kernels"


@pytest.fixture
def loops(tmp_path: Path) -> Path:
    """A package `loops` with a kernel that inlines a function of another module."""
    package = tmp_path / "loops"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "entry.py").write_text(ENTRY.format(helper="loops.helper"), encoding="utf-8")
    (package / "helper.py").write_text(HELPER, encoding="utf-8")
    return package


def start(program: str, **environment: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([environment.pop("PYTHONPATH", ""), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", **environment}
    command = [sys.executable, "-W", "error", "-c", program]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """How many functions it compiled, and its result."""
    output, errors = process.communicate(timeout=900)
    assert process.returncode == 0 and not errors, errors
    count, result = output.split()
    return int(count), result


def run(loops: Path, **environment: str) -> tuple[int, str]:
    return ended(start(PROGRAM, PYTHONPATH=str(loops.parent), **environment))


def test_the_second_process_loads_and_a_changed_source_is_compiled(folder: Path, loops: Path) -> None:
    assert run(loops) == (3, "7.0")
    assert run(loops) == (0, "7.0")
    assert folder.stat().st_mode & 0o777 == 0o700
    for old, new, result in (("x + 1.0", "x + 5.0", "11.0"), ("FACTOR = 2.0", "FACTOR = 3.0", "14.0")):
        helper = (loops / "helper.py").read_text(encoding="utf-8")
        (loops / "helper.py").write_text(helper.replace(old, new), encoding="utf-8")
        assert run(loops) == (3, result)
    assert run(loops, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="")[0] == 3, "another processor"


def test_processes_that_start_together_compile_once(folder: Path, loops: Path) -> None:
    processes = [start(PROGRAM, PYTHONPATH=str(loops.parent)) for _ in range(3)]
    assert sorted(ended(process) for process in processes) == [(0, "7.0"), (0, "7.0"), (3, "7.0")]


def test_a_damaged_file_is_replaced_and_never_an_error(folder: Path, loops: Path) -> None:
    run(loops)
    (file,) = folder.glob("run-*.kernel")
    whole = file.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for damaged in (whole[:-1], b"", flipped):
        file.write_bytes(damaged)
        assert kernel_cache.read(file.name) is None
    assert run(loops) == (3, "7.0")
    assert kernel_cache.read(file.name) is not None
    assert run(loops) == (0, "7.0")
    # A whole file whose content this numba does not understand.
    kernel_cache.write(file.name, b"something else")
    assert run(loops) == (3, "7.0")
    assert run(loops) == (0, "7.0")


@pytest.mark.parametrize("off", [{kernel_cache.VARIABLE: "off"}, {kernel_cache.VARIABLE: "/dev/null/kernels"}])
def test_without_a_folder_every_process_compiles(loops: Path, off: dict[str, str]) -> None:
    assert run(loops, **off) == run(loops, **off) == (3, "7.0")


def test_what_others_can_write_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel_cache.write("a", b"code")
    assert kernel_cache.read("a") == b"code"
    for path in (folder, folder / "a"):
        before = path.stat().st_mode
        for mode in (0o020, 0o002):
            path.chmod(before | mode)
            assert kernel_cache.read("a") is None
        path.chmod(before)
    folder.chmod(0o777)
    kernel_cache.write("b", b"code")
    assert not (folder / "b").exists(), "nor is anything written there"
    folder.chmod(0o700)
    assert kernel_cache.read("a") == b"code"
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    assert kernel_cache.read("a") is None
    with pytest.raises(OSError, match="belongs to somebody else"), kernel_cache.open_folder():
        pass


def test_only_a_plain_file_under_its_own_name_is_read(folder: Path) -> None:
    kernel_cache.write("a", b"code")
    (folder / "link").symlink_to(folder / "a")
    (folder / "copy").write_bytes((folder / "a").read_bytes())
    os.mkfifo(folder / "pipe")
    (folder / "directory").mkdir()
    for name in ("link", "copy", "pipe", "directory", "missing"):
        assert kernel_cache.read(name) is None, name
    moved = folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to(moved)
    assert kernel_cache.read("a") is None


def test_old_files_are_deleted(folder: Path) -> None:
    for name in ("old.kernel", "new.kernel", "lock"):
        kernel_cache.write(name, b"code")
    for name in ("old.kernel", "lock"):
        os.utime(folder / name, (0, 0))
    kernel_cache.write("another.kernel", b"code")
    assert {path.name for path in folder.iterdir()} == {"new.kernel", "another.kernel", "lock"}


def test_the_folder_is_in_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(kernel_cache.VARIABLE, raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    for base, expected in (("", "/home/someone/.cache"), ("not/absolute", "/home/someone/.cache"), ("/fast", "/fast")):
        monkeypatch.setenv("XDG_CACHE_HOME", base)
        assert kernel_cache.location() == Path(expected) / "lambert" / "kernels"


def test_kernels_call_only_what_is_inlined() -> None:
    """A kept function that another one called, or a sum in a function of its own, would round otherwise once loaded."""
    kept = 0
    for module in (compiled, cpu_kernels, cpu_attention_kernels):
        functions = {name: value for name, value in vars(module).items() if hasattr(value, "py_func")}
        is_kept = {name: isinstance(value._cache, kernel_cache._FunctionCache) for name, value in functions.items()}
        for name, function in functions.items():
            assert not [used for used in function.py_func.__code__.co_names if is_kept.get(used)], name
            options = function.targetoptions
            assert is_kept[name] or options.get("forceinline") or options.get("inline") == "always", name
        kept += sum(is_kept.values())
    assert kept > 10


def test_loaded_and_compiled_kernels_give_the_same_bits(folder: Path) -> None:
    """All compiled; all loaded; half loaded and half compiled, where an earlier way of keeping code drifted."""
    count, bits = ended(start(STEP))
    assert count > 20
    assert ended(start(STEP)) == (0, bits)
    for file in sorted(folder.glob("*.kernel"))[::2]:
        file.unlink()
    count, half = ended(start(STEP))
    assert count > 10 and half == bits
