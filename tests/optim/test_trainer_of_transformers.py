"""LAMB inside `transformers.Trainer`: the same weights as in a loop written out."""

from __future__ import annotations

from pathlib import Path

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


def test_the_trainer_of_transformers_takes_it(tmp_path: Path) -> None:
    rows = [{"input_ids": [(7 * i + j) % 50 for j in range(6)], "labels": i % 2} for i in range(12)]
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
    transformers.Trainer(trained, arguments, train_dataset=rows, optimizers=(optimizer, constant)).train()
    assert {float(state["step"]) for state in optimizer.state.values()} == {3.0}

    by_hand = model()
    again = LAMB.from_preset("bert", by_hand, lr=0.01)
    for start in range(0, 12, 4):
        batch = rows[start : start + 4]
        ids = torch.tensor([row["input_ids"] for row in batch])
        loss = by_hand(ids, labels=torch.tensor([row["labels"] for row in batch])).loss
        again.zero_grad()
        loss.backward()
        again.step()
    for ours, theirs in zip(by_hand.parameters(), trained.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
