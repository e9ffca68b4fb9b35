"""LAMB inside other people's training loops: the same weights as in a loop written out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import accelerate
import torch
import transformers

from lambert.optim import LAMB


def model() -> transformers.BertForSequenceClassification:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    return transformers.BertForSequenceClassification(config)


ROWS = [{"input_ids": [(7 * i + j) % 50 for j in range(6)], "labels": i % 2} for i in range(12)]


def loss_of(trained: torch.nn.Module, rows: list[dict[str, Any]]) -> torch.Tensor:
    ids = torch.tensor([row["input_ids"] for row in rows])
    loss: torch.Tensor = trained(ids, labels=torch.tensor([row["labels"] for row in rows])).loss
    return loss


def by_hand(batch_size: int) -> torch.nn.Module:
    trained = model()
    optimizer = LAMB.from_preset("bert", trained, lr=0.01)
    for start in range(0, len(ROWS), batch_size):
        optimizer.zero_grad()
        loss_of(trained, ROWS[start : start + batch_size]).backward()
        optimizer.step()
    return trained


def check(trained: torch.nn.Module, expected: torch.nn.Module) -> None:
    for theirs, ours in zip(trained.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(theirs, ours)


def test_the_trainer_of_transformers_takes_it(tmp_path: Path) -> None:
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=4,
        num_train_epochs=1,
        max_grad_norm=0.0,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        train_sampling_strategy="sequential",
    )
    trained = model()
    optimizer = LAMB.from_preset("bert", trained, lr=0.01)
    constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    transformers.Trainer(trained, arguments, train_dataset=ROWS, optimizers=(optimizer, constant)).train()
    assert {float(state["step"]) for state in optimizer.state.values()} == {3.0}
    check(trained, by_hand(batch_size=4))


def test_accelerate_takes_it_and_accumulates() -> None:
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    trained = model()
    trained, optimizer = accelerator.prepare(trained, LAMB.from_preset("bert", trained, lr=0.01))
    for start in range(0, len(ROWS), 2):
        with accelerator.accumulate(trained):
            accelerator.backward(loss_of(trained, ROWS[start : start + 2]))
            optimizer.step()
            optimizer.zero_grad()
    check(trained, by_hand(batch_size=4))
