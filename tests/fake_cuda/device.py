"""The fake GPU: a dispatch mode that counts what a program asks of its device, and the parts of `torch.cuda` it uses.

Import it after `build.load`.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn import functional
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
GPU = torch.device("cuda", 0)
DOWNLOADED = 0.0
"""What every floating-point number read from the device is."""
_NO_LAUNCH = frozenset((
    *("alias", "as_strided", "detach", "device", "empty", "empty_like", "empty_strided", "expand", "lift_fresh"),
    *("new_empty", "new_empty_strided", "permute", "reshape", "select", "set_", "slice", "split", "split_with_sizes"),
    *("squeeze", "t", "transpose", "unbind", "unfold", "unsqueeze", "view", "_reshape_alias", "_unsafe_view"),
))  # fmt: skip
_INDEXES = ("index", "index_put_", "embedding", "embedding_dense_backward")
_SYNC = ("nonzero", "masked_select", "_unique2", "unique_dim", "is_nonzero")


class DeviceMismatch(AssertionError):
    """An operation got tensors of two devices; a real GPU raises or synchronizes."""


class FakeGpu(TorchDispatchMode):
    """While active, tensors on "cuda" are fake. Counters map (kind, place in lambert) to a number.

    `launches`: operations that start a kernel; those inside a compiled block count as one in each direction.
    `syncs`: reads that wait for the device. `uploads` and `downloads`: copies, by kind.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.launches: Counter[str] = Counter()
        self.syncs: Counter[tuple[str, str]] = Counter()
        self.uploads: Counter[tuple[str, str]] = Counter()
        self.downloads: Counter[tuple[str, str]] = Counter()
        self.attention: Counter[str] = Counter()
        self.seeds: list[int] = []
        """What the device's generator was seeded with."""
        self.compiled: str | None = None
        """The compiled block that is running."""
        self._pinned: dict[int, torch.Tensor] = {}

    def totals(self) -> dict[str, int]:
        """The counters' sums."""
        counters = {name: getattr(self, name) for name in ("launches", "syncs", "uploads", "downloads")}
        return {name: sum(counter.values()) for name, counter in counters.items()}

    def launch(self, name: str) -> None:
        """Count one launch, unless a compiled block holds it."""
        if self.compiled is None or "gradient_reduction" in place():
            self.launches[name] += 1

    def pin(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy in page-locked memory; `tensor` itself if it is there."""
        if self.is_pinned(tensor):
            return tensor
        copy = tensor.clone()
        self._pinned[copy.untyped_storage().data_ptr()] = copy  # kept, so that no other tensor gets its address
        return copy

    def is_pinned(self, tensor: torch.Tensor) -> bool:
        """Whether `tensor` lies in page-locked memory."""
        return tensor.untyped_storage().data_ptr() in self._pinned

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        if kwargs.get("pin_memory"):
            return self.pin(func(*args, **{**kwargs, "pin_memory": False}))
        on_gpu = any(_on_gpu(leaf) for leaf in leaves)
        if not on_gpu:
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if func is aten._local_scalar_dense.default:
            self.syncs["item", place()] += 1
            return _scalar(args[0].dtype)
        if func in (aten._to_copy.default, aten.copy_.default):
            crossed = self._copy(func, args, kwargs)
            if crossed is not None:
                return crossed
        if name in _SYNC:
            self.syncs[name, place()] += 1
        if func in (aten.equal.default, aten.allclose.default):
            self.syncs[name, place()] += 1
            return True
        self._check_devices(name, leaves)
        if name not in _NO_LAUNCH:
            self.launch(name)
        with self.fake:
            return func(*args, **kwargs)

    def _copy(self, func: Any, args: Any, kwargs: Any) -> torch.Tensor | None:
        """A copy between host and device; None where it stays on the device."""
        if func is aten.copy_.default:
            to, source = args[0], args[1]
            non_blocking = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
        else:
            device = kwargs.get("device")
            to, source, non_blocking = None, args[0], kwargs.get("non_blocking", False)
            if device is None or torch.device(device).type == source.device.type:
                return None
        if to is not None and to.device.type == source.device.type:
            return None
        how = "non_blocking" if non_blocking else "blocking"
        if source.device.type == "cpu":
            kind = "pinned" if self.is_pinned(source) else "pageable"
            if source.dim() or kind == "pageable":
                self.uploads[f"{kind} {how}", place()] += 1
            if to is not None:
                return to
            with self.fake:
                dtype = kwargs.get("dtype") or source.dtype
                return torch.empty_strided(source.shape, source.stride(), dtype=dtype, device=GPU)
        if to is not None:
            kind = "pinned" if self.is_pinned(to) else "pageable"
            counter = self.downloads if kind == "pinned" and non_blocking else self.syncs
            counter[f"copy to {kind} memory, {how}", place()] += 1
            return to.fill_(_scalar(to.dtype))
        self.syncs["copy to the host", place()] += 1
        dtype = kwargs.get("dtype") or source.dtype
        return torch.full(source.shape, _scalar(dtype), dtype=dtype)

    def _check_devices(self, name: str, leaves: list[Any]) -> None:
        """A real kernel takes one device's tensors, and numbers: CPU tensors without dimensions."""
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        devices = {tensor.device.type for tensor in tensors if tensor.dim() > 0}
        if len(devices) > 1 or (name in _INDEXES and len({tensor.device.type for tensor in tensors}) > 1):
            shapes = ", ".join(f"{list(tensor.shape)} on {tensor.device.type}" for tensor in tensors)
            raise DeviceMismatch(f"{name} got {shapes} at {place()}")


def place() -> str:
    """The two innermost lines of lambert's own code."""
    frames = [frame for frame in traceback.extract_stack() if "/src/lambert/" in frame.filename]
    return " < ".join(f"{frame.filename.split('/src/lambert/')[1]}:{frame.lineno}" for frame in reversed(frames[-2:]))


def _on_gpu(leaf: Any) -> bool:
    return isinstance(leaf, FakeTensor) or (isinstance(leaf, torch.device) and leaf.type == "cuda")


def _scalar(dtype: torch.dtype) -> Any:
    return True if dtype == torch.bool else DOWNLOADED if dtype.is_floating_point else 0


class _Event:
    """A CUDA event; waiting for it is a sync of the host with the past."""

    gpu: FakeGpu

    def __init__(self, enable_timing: bool = False) -> None:
        self.enable_timing = enable_timing

    def record(self, stream: Any = None) -> None:
        """Nothing to record."""

    def query(self) -> bool:
        """Always over."""
        return True

    def synchronize(self) -> None:
        """Counted."""
        self.gpu.syncs["event", place()] += 1

    def elapsed_time(self, end: Any) -> float:
        """One millisecond."""
        return 1.0


class _Stream:
    cuda_stream = 0

    def wait_stream(self, other: Any) -> None:
        """Nothing runs."""

    def synchronize(self) -> None:
        """Nothing runs."""


class _Properties:
    name, total_memory, major, minor, multi_processor_count = "NVIDIA H100 80GB HBM3", 80 * 2**30, 9, 0, 132


def install(gpu: FakeGpu) -> None:
    """Put the fake GPU in place of `torch.cuda`, and follow compiled blocks, attention and Triton's kernels."""
    _foreach_utils._foreach_supported_types.append(FakeTensor)
    torch._C._set_only_lift_cpu_tensors(True)
    torch.version.cuda = "13.0"
    torch.backends.cuda.is_built = lambda: True

    def synchronize(device: Any = None) -> None:
        gpu.syncs["torch.cuda.synchronize", place()] += 1

    generator = torch.Generator
    torch.Generator = lambda device="cpu": generator("cpu")  # type: ignore[assignment,misc]
    _Event.gpu = gpu
    replaced: dict[str, Any] = {
        "Event": _Event,
        "Stream": _Stream,
        "current_stream": lambda device=None: _Stream(),
        "synchronize": synchronize,
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "set_device": lambda device: None,
        "current_device": lambda: 0,
        "_exchange_device": lambda device: 0,
        "_maybe_exchange_device": lambda device: 0,
        "is_current_stream_capturing": lambda: False,
        "get_device_properties": lambda device=None: _Properties,
        "get_device_capability": lambda device=None: (9, 0),
        "get_device_name": lambda device=None: _Properties.name,
        "get_arch_list": lambda: ["sm_80", "sm_90"],
        "mem_get_info": lambda device=None: (70 * 2**30, 80 * 2**30),
        "empty_cache": lambda: None,
        "reset_peak_memory_stats": lambda device=None: None,
        "max_memory_allocated": lambda device=None: 2**20,
        "is_bf16_supported": lambda *args, **kwargs: True,
        "manual_seed_all": gpu.seeds.append,
        "get_rng_state": lambda device="cuda": torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": lambda state, device="cuda": None,
        "_lazy_init": lambda: None,
    }
    for name, value in replaced.items():
        setattr(torch.cuda, name, value)
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    torch.Tensor.pin_memory = lambda self, device=None: gpu.pin(self)  # type: ignore[method-assign]
    torch.Tensor.is_pinned = lambda self, device=None: gpu.is_pinned(self)  # type: ignore[method-assign]
    FakeTensor.tolist = _tolist(gpu)  # type: ignore[method-assign]
    _follow_moves()
    _follow_attention(gpu)
    _follow_compiled(gpu)


def _tolist(gpu: FakeGpu) -> Callable[[torch.Tensor], Any]:
    def tolist(self: torch.Tensor) -> Any:
        """One copy for all numbers, as on a real device."""
        gpu.syncs["tolist", place()] += 1
        return torch.full(self.shape, _scalar(self.dtype), dtype=self.dtype).tolist()

    return tolist


def _follow_moves() -> None:
    swap = torch.utils.swap_tensors

    def swap_tensors(one: torch.Tensor, other: torch.Tensor) -> None:
        if isinstance(one, FakeTensor):
            one.data = other.data
        else:
            swap(one, other)

    torch.utils.swap_tensors = swap_tensors


def _follow_attention(gpu: FakeGpu) -> None:
    real = functional.scaled_dot_product_attention

    def attend(query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, **kwargs: Any) -> Any:
        if not isinstance(query, FakeTensor):
            return real(query, key, value, attn_mask, dropout_p, **kwargs)
        if torch.is_autocast_enabled("cuda"):
            query, key, value = (tensor.to(torch.bfloat16) for tensor in (query, key, value))
        mask = "none" if attn_mask is None else str(attn_mask.dtype).removeprefix("torch.")
        gpu.attention[f"{query.dtype}, mask {mask}"] += 1
        if attn_mask is not None:
            if attn_mask.dtype == torch.bool:
                attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill_(~attn_mask, float("-inf"))
            shape = (*query.shape[:3], key.shape[2])
            attn_mask = attn_mask.expand(shape)
        keeps = torch.is_grad_enabled() and query.requires_grad
        efficient = aten._scaled_dot_product_efficient_attention
        return efficient(query, key, value, attn_mask, keeps, dropout_p, False)[0]

    functional.scaled_dot_product_attention = attend


def _follow_compiled(gpu: FakeGpu) -> None:
    """A compiled module runs eagerly; its operations count as one launch forward and one backward."""

    def enter(name: str) -> None:
        gpu.compiled = None
        gpu.launch(name)
        gpu.compiled = name

    def leave(*_: Any) -> None:
        gpu.compiled = None

    def compile_module(module: torch.nn.Module, *args: Any, **kwargs: Any) -> None:
        forward: Callable[..., Any] = module.forward
        name = f"compiled {type(module).__name__}"

        def compiled(hidden: torch.Tensor, *rest: Any, **named: Any) -> Any:
            if gpu.compiled is not None or not _on_gpu(hidden):
                return forward(hidden, *rest, **named)
            grad = hidden.requires_grad and torch.is_grad_enabled()
            enter(name)
            inner = hidden.view_as(hidden)
            result = forward(inner, *rest, **named)
            leave()
            outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor) and leaf.requires_grad]
            if grad and outputs:
                outputs[0].register_hook(lambda gradient: enter(f"{name}, backward"))
                inner.register_hook(leave)
            return result

        module.forward = compiled  # type: ignore[method-assign]

    torch.nn.Module.compile = compile_module  # type: ignore[method-assign]
