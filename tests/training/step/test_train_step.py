"""The step: the loss of the global batch does not depend on micro-batches and ranks."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import warm
from lambert.corpus.store import Corpus
from lambert.data.dataloader import PretrainingBatch, SampleStream, example_source
from lambert.model.bert import BertConfig
from lambert.model.heads import BertForPreTraining
from lambert.optim import LAMB, parameter_groups
from lambert.training.config.precision import Precision
from lambert.training.distributed.gradient_reduction import BufferedGradients
from lambert.training.distributed.process_group import ProcessGroup
from lambert.training.step.pretraining_loss import pretraining_task
from lambert.training.step.train_state import prepare_model
from lambert.training.step.train_step import TaskOutput, train_step


@dataclass(frozen=True)
class Toy:
    """Rows for a linear classifier, with an uneven number of terms in each micro-batch."""

    inputs: Tensor
    labels: Tensor

    def counts(self) -> dict[str, int]:
        return {"label": len(self.labels), "ones": int((self.labels == 1).sum())}

    def to(self, device: torch.device) -> Toy:
        return self


def toy_task(model: nn.Module, batch: Toy) -> TaskOutput:
    """Trained on all labels; the part of label 1 is only measured."""
    scores, ones = model(batch.inputs), batch.labels == 1
    losses = functional.cross_entropy(scores, batch.labels, reduction="none")
    right = scores.argmax(-1) == batch.labels
    return TaskOutput(
        {"label": losses.sum(), "ones": losses[ones].sum().detach()},
        {"label": right.sum(), "ones": (right & ones).sum()},
    )


def toy_step(sizes: list[int], *, max_grad_norm: float | None = None) -> tuple[nn.Linear, object]:
    torch.manual_seed(0)
    model = nn.Linear(6, 3, dtype=torch.float64)
    inputs = torch.randn(sum(sizes), 6, dtype=torch.float64)
    labels = torch.randint(0, 3, (sum(sizes),))
    parts = [Toy(i, t) for i, t in zip(inputs.split(sizes), labels.split(sizes), strict=True)]
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    result = train_step(
        model,
        optimizer,
        parts,
        task=toy_task,
        learning_rate=0.5,
        max_grad_norm=max_grad_norm,
        dropout_seeds=range(len(parts)),
    )
    return model, result


def test_uneven_micro_batches_make_the_same_step_as_one() -> None:
    whole, result = toy_step([12])
    for sizes in ([1, 11], [5, 4, 3], [1] * 12):
        parts, other = toy_step(sizes)
        torch.testing.assert_close(parts.weight, whole.weight, rtol=1e-12, atol=1e-14)
        assert other.loss == pytest.approx(result.loss, rel=1e-12)
        assert other.accuracies == result.accuracies


def test_a_batch_without_terms_changes_nothing() -> None:
    after, result = toy_step([0])
    assert result.applied and result.loss == 0 and result.gradient_norm == 0
    torch.manual_seed(0)
    assert torch.equal(after.weight, nn.Linear(6, 3, dtype=torch.float64).weight)


def test_the_step_is_gradient_descent_by_hand() -> None:
    torch.manual_seed(0)
    model = nn.Linear(6, 3, dtype=torch.float64)
    inputs, labels = torch.randn(4, 6, dtype=torch.float64), torch.randint(0, 3, (4,))
    loss, ones = functional.cross_entropy(model(inputs), labels), labels == 1
    (gradient,) = torch.autograd.grad(loss, model.weight)
    expected = model.weight.detach() - 0.5 * gradient
    stepped, result = toy_step([4])
    torch.testing.assert_close(stepped.weight, expected)
    assert result.loss == pytest.approx(loss.item())
    of_ones = functional.cross_entropy(model(inputs[ones]), labels[ones]).item()
    assert result.losses == {"label": pytest.approx(loss.item()), "ones": pytest.approx(of_ones)}
    inputs, labels = inputs[~ones], labels[~ones]
    rest = train_step(
        model, torch.optim.SGD(model.parameters(), lr=1.0), [Toy(inputs, labels)], task=toy_task, learning_rate=0.5,
        max_grad_norm=None, dropout_seeds=[0],
    )  # fmt: skip
    assert math.isfinite(rest.loss) and math.isnan(rest.losses["ones"]) and rest.applied


def test_a_group_may_have_a_fraction_of_the_learning_rate() -> None:
    model = nn.Linear(6, 3)
    groups = [{"params": [model.weight]}, {"params": [model.bias], "lr_scale": 0.25}]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    batch = Toy(torch.randn(4, 6), torch.tensor([0, 1, 2, 1]))
    before = model.bias.detach().clone()
    functional.cross_entropy(model(batch.inputs), batch.labels, reduction="mean").backward()
    assert model.bias.grad is not None
    gradient = model.bias.grad.clone()
    optimizer.zero_grad()
    train_step(model, optimizer, [batch], task=toy_task, learning_rate=0.5, max_grad_norm=None, dropout_seeds=[0])
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.125]
    torch.testing.assert_close(model.bias.detach(), before - 0.125 * gradient)


def test_clipping_bounds_the_whole_gradient() -> None:
    free, before = toy_step([12])
    clipped, _ = toy_step([12], max_grad_norm=before.gradient_norm / 4)
    torch.manual_seed(0)
    start = nn.Linear(6, 3, dtype=torch.float64)
    torch.testing.assert_close(
        start.weight - clipped.weight, (start.weight - free.weight) / 4, rtol=1e-5, atol=0
    )  # torch adds 1e-6 to the norm


def pretraining_batches(corpus: Corpus, step: int, *, batch: int, micro: int) -> list[PretrainingBatch]:
    stream = SampleStream(example_source(corpus, "train", sequence_length=64, seed=0, phase=1))
    return [stream.batch(step * batch + start, micro) for start in range(0, batch, micro)]


def bert(corpus: Corpus, *, dropout: float) -> BertForPreTraining:
    torch.manual_seed(3)
    return BertForPreTraining(
        BertConfig(
            vocabulary_size=corpus.vocabulary_size,
            layers=2,
            hidden_size=32,
            attention_heads=2,
            feed_forward_size=64,
            dropout=dropout,
        )
    )


def train(corpus: Corpus, *, micro: int, steps: int = 20, dropout: float = 0.0) -> dict[str, Tensor]:
    model = bert(corpus, dropout=dropout)
    optimizer = LAMB(parameter_groups(model, weight_decay=0.01))
    for step in range(steps):
        batches = pretraining_batches(corpus, step, batch=32, micro=micro)
        train_step(
            model,
            optimizer,
            batches,
            task=pretraining_task,
            learning_rate=0.01,
            max_grad_norm=1.0,
            dropout_seeds=[1000 * step + place for place in range(len(batches))],
        )
    return {name: p.detach() for name, p in model.named_parameters()}


def test_micro_batch_size_does_not_change_the_weights(small_corpus: Corpus) -> None:
    """Micro-batches of 8, 16 and 32 at one global batch: within 1e-5 relative after 20 steps."""
    weights = {micro: train(small_corpus, micro=micro) for micro in (8, 16, 32)}
    for micro in (8, 16):
        for name, whole in weights[32].items():
            difference = torch.linalg.vector_norm(weights[micro][name] - whole)
            if name.endswith("key.bias"):  # attention does not depend on it: its gradient is rounding alone
                assert difference < 1e-6
                continue
            assert difference <= 1e-5 * torch.linalg.vector_norm(whole), (micro, name)


def test_dropout_depends_on_its_seed_alone(small_corpus: Corpus) -> None:
    torch.manual_seed(1)
    first = train(small_corpus, micro=16, steps=2, dropout=0.1)
    torch.manual_seed(2)
    torch.rand(5)
    again = train(small_corpus, micro=16, steps=2, dropout=0.1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    without = train(small_corpus, micro=16, steps=2, dropout=0.0)
    assert any(not torch.equal(first[name], without[name]) for name in first)


def _one_process(rank: int, count: int, rendezvous: str, corpus_path: str, out: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=count)
    processes = ProcessGroup(rank, count)
    corpus = Corpus.open(Path(corpus_path))
    model = bert(corpus, dropout=0.1)
    optimizer = LAMB(parameter_groups(model, weight_decay=0.01))
    gradients = BufferedGradients([(parameter, parameter) for parameter in model.parameters()], processes)
    first_norms = []
    for step in range(4):
        batches = pretraining_batches(corpus, step, batch=24, micro=8)
        places = processes.rank_range(len(batches))
        result = train_step(
            model,
            optimizer,
            [batches[place] for place in places],
            task=pretraining_task,
            learning_rate=0.01,
            max_grad_norm=1.0,
            dropout_seeds=[1000 * step + place for place in places],
            processes=processes,
            gradients=gradients,
            measures_first=True,
        )
        first_norms.append(result.first_norm)
    Path(f"{out}.norms-{rank}").write_text(json.dumps(first_norms))
    if processes.is_main_process:
        torch.nn.utils.parameters_to_vector(model.parameters()).detach().numpy().tofile(out)
    torch.distributed.destroy_process_group()


@pytest.mark.integration
def test_two_processes_make_the_same_weights_as_one(small_corpus: Corpus, tmp_path: Path) -> None:
    """Three micro-batches on two ranks: equal to a single rank up to rounding."""
    results = []
    for count in (1, 2):
        out = tmp_path / f"weights-{count}"
        warm.run_all(_one_process, count, str(tmp_path / f"meet-{count}"), str(small_corpus.path), str(out))
        results.append(torch.from_file(str(out), size=out.stat().st_size // 4))
    difference = torch.linalg.vector_norm(results[0] - results[1]) / torch.linalg.vector_norm(results[0])
    assert difference < 1e-6
    # All ranks get the gradient norm of the first micro-batch, which only rank 0 computes.
    one, first, second = (
        json.loads((tmp_path / f"weights-{name}").read_text()) for name in ("1.norms-0", "2.norms-0", "2.norms-1")
    )
    assert first == second == pytest.approx(one, rel=1e-5) and min(one) > 0


@pytest.mark.parametrize("precision", [Precision.BFLOAT16_AUTOCAST, Precision.BFLOAT16_MASTER])
def test_bfloat16_stays_near_float32(small_corpus: Corpus, precision: Precision) -> None:
    losses = {}
    for chosen in (Precision.FLOAT32, precision):
        model = bert(small_corpus, dropout=0.0)
        working = prepare_model(model, chosen, weight_decay=0.01)
        optimizer, master = LAMB(working.groups), working.master
        for step in range(4):
            batches = pretraining_batches(small_corpus, step, batch=16, micro=8)
            result = train_step(
                model,
                optimizer,
                batches,
                task=pretraining_task,
                learning_rate=0.02,
                max_grad_norm=1.0,
                dropout_seeds=[0, 1],
                precision=chosen,
                master=master,
                gradients=working.gradients,
            )
        losses[chosen] = result.loss
        assert math.isfinite(result.loss)
        if master is not None:
            assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
            assert {p.dtype for p in working.names} == {torch.float32}
    assert losses[precision] == pytest.approx(losses[Precision.FLOAT32], rel=0.01)
    assert losses[precision] != losses[Precision.FLOAT32]
