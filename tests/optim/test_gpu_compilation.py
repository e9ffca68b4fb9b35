"""The Triton loops compiled for real GPUs, without one: registers, spills, and how wide loads and stores are."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

triton = pytest.importorskip("triton", reason="Triton is not made for this system")
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
pytestmark = [
    pytest.mark.skipif(
        not all((TOOLS / tool).exists() for tool in ("ptxas", "cuobjdump")),
        reason="this Triton comes without NVIDIA's ptxas and cuobjdump",
    ),
    pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION"),
]
POINTERS = {
    "numbers": "*fp32", "partial": "*fp32", "found_inf": "*fp32", "values": "*fp64", "sums": "*fp64",
    "chunk_layer": "*i32", "row_of_layer": "*i32", "first": "i32",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


def compiled(name: str, capability: int, constants: dict[str, Any], warps: int, folder: Path) -> tuple[Any, ...]:
    """Registers, bytes of stack and local memory, and how often each kind of access to global memory occurs."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from lambert.optim.kernels import triton_loops

    kernel = getattr(triton_loops, name)
    names = [parameter.name for parameter in kernel.params]
    types = {own: "constexpr" if own in constants else POINTERS.get(own, "*i64") for own in names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, own in enumerate(names) if types[own].startswith("*")}
    values = {(names.index(own),): value for own, value in constants.items()}
    source = ASTSource(fn=kernel, signature=types, constexprs=values, attrs=aligned)
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})
    cubin = folder / "kernel.cubin"
    cubin.write_bytes(made.asm["cubin"])
    said = subprocess.run(
        [TOOLS / "cuobjdump", "--dump-resource-usage", cubin], capture_output=True, text=True, check=True
    ).stdout
    (usage,) = re.findall(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", said)
    return (*map(int, usage), Counter(re.findall(r"(?:ld|st)\.global[.\w]*", made.asm["ptx"])))


@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize("gradient", ["float32", "bfloat16", None])
def test_aligned_layers_are_read_16_bytes_at_a_time_without_spills(
    capability: int, gradient: str | None, tmp_path: Path
) -> None:
    """`None` is the second sweep, which reads no gradient."""
    from lambert.optim.kernels.triton_loops import CHUNK, WARPS

    constants: dict[str, Any] = {"size": CHUNK, "is_aligned": True}
    if gradient is not None:
        constants["gradient_type"] = getattr(triton.language, gradient)
    name = "apply_update" if gradient is None else "update_moments"
    registers, stack, local, accesses = compiled(name, capability, constants, WARPS, tmp_path)
    assert (stack, local) == (0, 0) and registers <= 128, "two blocks of 256 threads for each multiprocessor"
    per_thread = CHUNK // (32 * WARPS)
    read = {"float32": 4 + 3 * 4, "bfloat16": 2 + 3 * 4, None: 3 * 4}[gradient]  # bytes an element
    assert accesses["ld.global.v4.b32"] == per_thread * read // 16
    assert accesses["st.global.v4.b32"] == per_thread * (4 if gradient is None else 8) // 16
    narrow = {kind: count for kind, count in accesses.items() if ".v4." not in kind}
    assert sum(narrow.values()) <= 20, f"only numbers and addresses: {narrow}"


@pytest.mark.parametrize("capability", [80, 90, 100])
def test_the_other_loops_compile_without_spills(capability: int, tmp_path: Path) -> None:
    from lambert.optim.kernels.triton_loops import CHUNK, VALUES, WARPS

    halves = {"size": CHUNK, "is_aligned": False, "gradient_type": triton.language.float16}
    for name, constants, warps in (
        ("update_moments", halves, WARPS),
        ("apply_update", {"size": CHUNK, "is_aligned": False}, WARPS),
        ("add_up", {"size": 1_024}, 4),
        ("prepare", {"value_columns": VALUES}, 1),
    ):
        _, stack, local, _ = compiled(name, capability, constants, warps, tmp_path)
        assert (stack, local) == (0, 0), name
