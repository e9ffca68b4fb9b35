"""LeNet on MNIST with LAMB, LARS, AdamW or SGD: data, model, optimizer and one training run, to take over.

`mnist_batch_sizes.py` compares batch sizes with it.
"""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lambert.optim import LAMB, LARS, parameter_groups


class LeNet(nn.Sequential):
    """LeNet-5 without padding: (N, 1, 28, 28) → logits (N, 10). ReLU after the pooling gives the same, faster."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 6, 5), nn.MaxPool2d(2), nn.ReLU(),
            nn.Conv2d(6, 16, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(),
            nn.Linear(256, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
        )  # fmt: skip


def make_optimizer(name: str, model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """Biases get no weight decay, and with LAMB and LARS no trust ratio; PyTorch's own ignore the latter."""
    if name == "LAMB":
        return LAMB(parameter_groups(model, weight_decay=0.01), lr=lr)
    if name == "LARS":
        return LARS(parameter_groups(model, weight_decay=1e-4), lr=lr, momentum=0.9)
    if name == "AdamW":
        return torch.optim.AdamW(parameter_groups(model, weight_decay=0.01), lr=lr)
    return torch.optim.SGD(parameter_groups(model, weight_decay=1e-4), lr=lr, momentum=0.9)


@dataclass(frozen=True)
class Data:
    """Images (N, 1, 28, 28), standardized, and labels (N)."""

    images: Tensor
    labels: Tensor

    def part(self, begin: int, end: int) -> Data:
        return Data(self.images[begin:end], self.labels[begin:end])


@dataclass(frozen=True)
class Run:
    """What makes a run what it is."""

    optimizer: str
    batch_size: int
    constant: float
    """c of the peak learning rate c / √steps."""
    seed: int
    epochs: int
    train_images: int
    """The first so many are trained on. The rest is what the run is measured on, or the test set where none is left."""

    @property
    def steps(self) -> int:
        """Batches go over the borders of epochs, so that all batch sizes see the same number of images."""
        return self.epochs * self.train_images // self.batch_size

    @property
    def learning_rate(self) -> float:
        return self.constant / math.sqrt(self.steps)


def train(run: Run, data: Data) -> nn.Module:
    """The model after the last step."""
    torch.manual_seed(run.seed)
    model = LeNet().to(memory_format=torch.channels_last)
    optimizer = make_optimizer(run.optimizer, model, run.learning_rate)
    warm_up = max(1, run.steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm_up, (run.steps - step) / max(1, run.steps - warm_up))
    )
    order = torch.cat([torch.randperm(len(data.labels)) for _ in range(run.epochs)])
    for batch in order.split(run.batch_size)[: run.steps]:
        cross_entropy(model(data.images[batch]), data.labels[batch]).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return model


@torch.no_grad()
def measure(model: nn.Module, data: Data) -> dict[str, float | None]:
    """Accuracy in percent, and loss in nats: None where it is not finite."""
    logits = torch.cat([model(images) for images in data.images.split(1_000)])
    loss = float(cross_entropy(logits, data.labels))
    accuracy = 100 * float((logits.argmax(1) == data.labels).double().mean())
    return {"accuracy": accuracy, "loss": loss if math.isfinite(loss) else None}


def read_idx(folder: Path, name: str, dimensions: int) -> np.ndarray:
    """An IDX file of bytes, packed or not.

    Raises:
        SystemExit: it is missing or malformed; the message says which file and why.
    """
    path = next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)
    if path is None:
        raise SystemExit(f"{folder} has neither {name} nor {name}.gz; give the folder with the four files as --data")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            magic, sizes = file.read(4), file.read(4 * dimensions)
            shape = np.frombuffer(sizes[: len(sizes) // 4 * 4], ">u4").tolist()
            if magic != bytes([0, 0, 8, dimensions]) or len(shape) != dimensions:
                raise ValueError(f"it does not begin as an IDX file of bytes in {dimensions} dimension(s)")
            content = file.read(min(math.prod(shape), 2**30) + 1)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise SystemExit(f"{path} cannot be read: {error}; get the file again") from None
    if len(content) != math.prod(shape):
        what = "more" if len(content) > math.prod(shape) else f"{len(content):,}"
        raise SystemExit(f"{path} says {math.prod(shape):,} bytes, and has {what}; get the file again")
    return np.frombuffer(content, np.uint8).reshape(shape)


def read_data(folder: Path, part: str) -> Data:
    """`part` is train or t10k.

    Raises:
        SystemExit: a file is missing or malformed, or the two do not belong together.
    """
    images, labels = read_idx(folder, f"{part}-images-idx3-ubyte", 3), read_idx(folder, f"{part}-labels-idx1-ubyte", 1)
    if images.shape != (len(labels), 28, 28) or not len(labels) or labels.max() > 9:
        raise SystemExit(
            f"{folder}, {part}: images {images.shape} and {len(labels):,} labels are not MNIST's, which are as many "
            "images of 28 × 28 pixels as labels from 0 to 9; get both files again"
        )
    pixels = torch.from_numpy(images.astype(np.float32)).sub_(33.3).div_(78.6)  # mean and deviation of training pixels
    return Data(pixels[:, None], torch.from_numpy(labels.astype(np.int64)))
