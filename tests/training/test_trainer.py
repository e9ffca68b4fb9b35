"""Whole runs: their output; stopping, killing and resuming change no bit."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors import safe_open
from tokenizers import Tokenizer

import warm
from lambert.cli.main import main
from lambert.corpus.build import build_corpus
from lambert.corpus.store import Corpus
from lambert.data.objective import ObjectiveConfig
from lambert.errors import Interrupted, UserError
from lambert.export.api import ExportResult, export_model
from lambert.model.heads import BertForPreTraining
from lambert.training.checkpoint import export
from lambert.training.checkpoint.export_check import differences_in_transformers
from lambert.training.checkpoint.format import finished_steps, load_checkpoint
from lambert.training.config.arguments import TrainingArguments
from lambert.training.config.precision import Precision
from lambert.training.config.resolve import resolve_config
from lambert.training.config.starting_model import starting_model
from lambert.training.config.trainer_options import TrainerOptions
from lambert.training.config.training_config import TrainingConfig, refuse_other_config
from lambert.training.distributed.process_group import ProcessGroup
from lambert.training.loop import TrainingLoop


def events(run: Path, kind: str = "") -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    return [line for line in lines if not kind or line["event"] == kind]


def fingerprint(run: Path) -> str:
    return hashlib.sha256((run / "huggingface" / "model.safetensors").read_bytes()).hexdigest()


def test_a_run_writes_what_it_promises(tmp_path: Path, make_run: Any, settings: TrainingConfig) -> None:
    run = tmp_path / "run"
    trainer_options = TrainerOptions(evaluation_samples=16, evaluations_per_phase=2, trust_ratios_per_phase=3)
    outcome = make_run(run, trainer_options=trainer_options).train()
    assert outcome.finished and outcome.step == settings.total_steps == 10
    steps = events(run, "step")
    assert [step["step"] for step in steps] == list(range(1, 11))
    assert [step["phase"] for step in steps] == [1] * 9 + [2]
    phases = events(run, "phase")
    assert [(p["first_step"], p["steps"], p["sequence_length"]) for p in phases] == [(1, 9, 32), (10, 1, 64)]
    # The learning rate of every phase starts its warm-up from zero again.
    assert steps[0]["learning_rate"] == pytest.approx(0.01 / max(1, phases[0]["warmup_steps"]))
    assert [e["step"] for e in events(run, "evaluation")] == [5, 9, 10]
    ratios = events(run, "trust_ratios")
    assert [e["step"] for e in ratios] == [3, 6, 9, 10]
    assert "encoder.blocks.0.attention.query_key_value.weight[2]" in ratios[0]["trust_ratios"]
    assert "encoder.embeddings.layer_norm.weight" not in ratios[0]["trust_ratios"]
    assert events(run, "end")[-1]["reason"] == "finished"
    recipe = tomllib.loads((run / "recipe.toml").read_text())
    assert recipe["model"]["hidden_size"] == 32 and recipe["phases"][1]["sequence_length"] == 64
    assert (run / "latest").read_text() == "step-10\n"
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"step-9", "step-10"}


def test_words_that_their_neighbours_determine_are_learned(tmp_path: Path) -> None:
    """Every sentence cycles once through the same words, so masked tokens can be inferred from the others."""
    circle = [f"{a}{b}" for a in "bdfgklmn" for b in "aeiou"]
    starts = [(7 * place) % len(circle) for place in range(400)]
    sentences = [" ".join((circle + circle)[start : start + 12]) + "." for start in starts]
    text = tmp_path / "circle.txt"
    text.write_text("\n\n".join("\n".join(sentences[i : i + 8]) for i in range(0, len(sentences), 8)))
    build_corpus([text], tmp_path / "corpus", vocab_size=200, validation_fraction=0.3)
    corpus = Corpus.open(tmp_path / "corpus")
    request = TrainingArguments(
        model="2x64", batch_size=(64,), samples=64 * 300, sequence_lengths=(16, 16), dropout=0.0
    )
    settings = resolve_config(request, corpus)
    outcome = TrainingLoop(tmp_path / "run", settings, starting_model(settings, None, corpus), corpus).train()
    assert outcome.evaluation is not None
    assert outcome.evaluation.masked_tokens > 100 and outcome.evaluation.unigram_accuracy < 0.2
    assert outcome.evaluation.mlm_accuracy > 0.6


def test_saving_leaves_other_peoples_folders_alone(tmp_path: Path, make_run: Any) -> None:
    run = tmp_path / "run"
    mine = run / "checkpoints" / "step-2-mine"
    trainer = make_run(run)
    checkpoint = trainer.state.checkpoint

    def keep_a_copy(facts: Any) -> Any:
        mine.mkdir(parents=True, exist_ok=True)
        return checkpoint(facts)

    trainer.state.checkpoint = keep_a_copy
    trainer.train()
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"step-9", "step-10", "step-2-mine"}


def test_transformers_opens_the_exported_folder(tmp_path: Path, make_run: Any) -> None:
    run = tmp_path / "run"
    make_run(run).train()
    model = transformers.AutoModelForPreTraining.from_pretrained(run / "huggingface").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(run / "huggingface")
    text = "Bada [MASK] fefi komu."
    encoded = tokenizer(text, return_tensors="pt")
    theirs = model(**encoded).prediction_logits[0].softmax(-1)
    fill = transformers.pipeline("fill-mask", model=str(run / "huggingface"))
    from lambert.corpus.tokenizer_files import load_vocabulary
    from lambert.model.fill import fill_mask
    from lambert.model.heads import BertForPreTraining
    from lambert.model.huggingface import load_model

    ours, _ = load_model(run / "huggingface", BertForPreTraining)
    (words,) = fill_mask(ours, load_vocabulary(run / "huggingface", cased=False), text, top_k=5)
    place = encoded["input_ids"][0].tolist().index(tokenizer.mask_token_id)
    assert words[0].probability == pytest.approx(theirs[place].max().item(), rel=1e-5)
    assert [word.word for word in words] == [guess["token_str"] for guess in fill(text)]


@pytest.mark.parametrize("stop_after", [1, 5, 9])
def test_stopped_and_gone_on_is_the_same_run(tmp_path: Path, make_run: Any, stop_after: int) -> None:
    make_run(tmp_path / "whole").train()
    run = tmp_path / "stopped"
    trainer = make_run(run)
    train_one = trainer._launcher.launch

    def stop_soon(*arguments: Any, **options: Any) -> Any:
        if trainer.state.step + 1 == stop_after:
            trainer.request_stop()
        return train_one(*arguments, **options)

    trainer._launcher.launch = stop_soon
    outcome = trainer.train()
    assert (outcome.step, outcome.finished) == (stop_after, False)
    assert events(run, "end")[-1]["reason"] == "interrupted"
    resumed = make_run(run).train()
    assert (resumed.resumed_from_step, resumed.finished) == (stop_after, True)
    assert fingerprint(run) == fingerprint(tmp_path / "whole")


@pytest.mark.parametrize(
    "changed",
    [
        {"optimizer": "adamw"},
        {"precision": Precision.BFLOAT16_MASTER},
        {"precision": Precision.BFLOAT16_AUTOCAST},
    ],
)
def test_every_optimizer_and_precision_goes_on_bit_for_bit(
    tmp_path: Path, make_run: Any, changed: dict[str, Any]
) -> None:
    make_run(tmp_path / "whole", **changed).train()
    run = tmp_path / "stopped"
    trainer = make_run(run, **changed)
    trainer.request_stop()
    trainer.train()
    trainer = make_run(run, **changed)
    step = trainer._launcher.launch

    def fail_later(*arguments: Any, **options: Any) -> Any:
        if trainer.state.step == 5:
            raise RuntimeError("power cut")
        return step(*arguments, **options)

    trainer._launcher.launch = fail_later
    with pytest.raises(RuntimeError):
        trainer.train()
    assert make_run(run, **changed).train().resumed_from_step == 4
    assert fingerprint(run) == fingerprint(tmp_path / "whole")


def _train_for_long(corpus_path: str, run: str) -> None:
    corpus = Corpus.open(Path(corpus_path))
    request = TrainingArguments(
        model="2x32", batch_size=(8,), samples=800, sequence_lengths=(32, 64), learning_rate=0.01
    )
    settings = resolve_config(request, corpus)
    options = TrainerOptions(checkpoint_steps=3, evaluation_samples=0)
    TrainingLoop(Path(run), settings, starting_model(settings, None, corpus), corpus, trainer_options=options).train()


@pytest.mark.integration
def test_killed_at_five_moments_ends_in_the_same_weights(tmp_path: Path, small_corpus: Corpus) -> None:
    assert warm.code_of(warm.start(_train_for_long, str(small_corpus.path), str(tmp_path / "whole"))) == 0
    run = tmp_path / "killed"
    journal = run / "journal.jsonl"
    for kill in range(5):
        process = warm.start(_train_for_long, str(small_corpus.path), str(run))
        wanted = 15 + 17 * kill  # a line count of the journal that the run has not reached yet
        while not (journal.exists() and len(events_of_a_living_run(journal, "step")) >= wanted):
            assert process.is_alive()
            time.sleep(0.002)
        process.kill()
        assert warm.code_of(process) == -signal.SIGKILL
    assert warm.code_of(warm.start(_train_for_long, str(small_corpus.path), str(run))) == 0
    assert len(events_of_a_living_run(run / "journal.jsonl", "run")) == 6  # beside which a kill leaves half a line
    assert fingerprint(run) == fingerprint(tmp_path / "whole")


def events_of_a_living_run(journal: Path, kind: str) -> list[bytes]:
    return [line for line in journal.read_bytes().splitlines() if line.startswith(b'{"event": "%s"' % kind.encode())]


def test_other_settings_are_refused_with_the_difference(tmp_path: Path, make_run: Any) -> None:
    run = tmp_path / "run"
    make_run(run).train()
    with pytest.raises(UserError, match=r"`seed` 1 \(the run has 0\)") as refused:
        make_run(run, seed=1).train()
    assert "`fresh=True`" in str(refused.value)
    assert make_run(run, seed=1, fresh=True).train().resumed_from_step == 0


def test_a_run_whose_journal_has_another_format_is_not_resumed(tmp_path: Path, make_run: Any) -> None:
    make_run(tmp_path).train()
    journal = tmp_path / "journal.jsonl"
    before = journal.read_text().replace('"format_version": 2', '"format_version": 1')
    journal.write_text(before)
    with pytest.raises(UserError, match="journal format 1; this version of lambert reads format 2 only"):
        make_run(tmp_path).train()
    assert journal.read_text() == before
    assert make_run(tmp_path, fresh=True).train().finished


def test_the_same_command_on_a_finished_run_changes_nothing(tmp_path: Path, make_run: Any) -> None:
    run = tmp_path / "run"
    make_run(run).train()
    before = fingerprint(run)
    again = make_run(run).train()
    assert again.finished and again.resumed_from_step == 10
    assert fingerprint(run) == before


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path, make_run: Any) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for fresh in (False, True):
        with pytest.raises(UserError, match=r"no recipe\.toml"):
            make_run(tmp_path, fresh=fresh).train()
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_two_runs_in_one_folder_are_refused(tmp_path: Path, make_run: Any) -> None:
    run = tmp_path / "run"
    first = make_run(run)
    step = first._launcher.launch
    refusals = []

    def start_another(*arguments: Any, **options: Any) -> Any:
        for fresh in (False, True):
            with pytest.raises(UserError, match="another process is training"):
                make_run(run, fresh=fresh).train()
            refusals.append(fresh)
        return step(*arguments, **options)

    first._launcher.launch = start_another
    assert first.train().finished and len(refusals) == 20
    assert make_run(run, fresh=True).train().finished  # the lock is gone with its run


@pytest.mark.parametrize("left", ["recipe.toml.partial", "lock", "latest.partial"])
def test_what_a_killed_start_leaves_does_not_block_the_folder(tmp_path: Path, make_run: Any, left: str) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / left).write_text("")
    assert make_run(run).train().finished


def test_fresh_deletes_only_what_a_run_writes(tmp_path: Path, make_run: Any) -> None:
    run = tmp_path / "run"
    make_run(run).train()
    (run / "notes.txt").write_text("mine")
    make_run(run, fresh=True, seed=2).train()
    assert (run / "notes.txt").read_text() == "mine"


def test_an_unfinished_run_can_be_exported(tmp_path: Path, make_run: Any) -> None:
    run = tmp_path / "run"
    trainer = make_run(run)
    trainer.request_stop()
    trainer.train()
    with pytest.raises(UserError, match="no checkpoint yet"):
        export_model(run, tmp_path / "out")
    make_run(run).train()
    assert export_model(run, tmp_path / "out") == ExportResult(
        str(tmp_path / "out"), step=10, checked_with_transformers=True
    )
    name = "model.safetensors"
    assert (tmp_path / "out" / name).read_bytes() == (run / "huggingface" / name).read_bytes()
    with pytest.raises(UserError, match="exists already"):
        export_model(run, tmp_path / "out")
    with pytest.raises(UserError, match="neither a run nor a model"):
        export_model(tmp_path, tmp_path / "other")


def test_an_earlier_checkpoint_that_was_kept_can_be_exported(tmp_path: Path, make_run: Any) -> None:
    run = tmp_path / "run"
    make_run(run, trainer_options=TrainerOptions(keep_last=1, keep_every=4)).train()
    with pytest.raises(UserError, match=r"no checkpoint of step 6, but of 0, 4, 8, 10.*keep-every"):
        export_model(run, tmp_path / "out", step=6)
    assert export_model(run, tmp_path / "out", step=4).step == 4
    saved = load_checkpoint(run, 4).tensors["model"]
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as exported:
        words = exported.get_tensor("bert.embeddings.word_embeddings.weight")
    assert any(torch.equal(words, tensor) for name, tensor in saved.items() if "embedding" in name)


def test_a_checkpoint_holds_weights_moments_and_hashes(tmp_path: Path, make_run: Any) -> None:
    run = tmp_path / "run"
    trainer = make_run(run)
    trainer.train()
    saved = load_checkpoint(run, 10).tensors
    assert set(saved) == {"model", "optimizer"}
    name = "encoder.blocks.1.feed_forward.expand.weight"
    assert torch.equal(saved["model"][name], dict(trainer.state.model.named_parameters())[name])
    assert {key.rpartition("/")[2] for key in saved["optimizer"]} == {"step", "exp_avg", "exp_avg_sq"}
    files = {path.name for path in (run / "checkpoints" / "step-10").iterdir()}
    assert files == {"model.safetensors", "optimizer.safetensors", "manifest.json"}


def _train_in_processes(rank: int, count: int, rendezvous: str, corpus_path: str, run: str) -> None:
    from lambert.training.config.arguments import TrainingArguments
    from lambert.training.config.resolve import resolve_config
    from lambert.training.config.starting_model import starting_model
    from lambert.training.loop import TrainingLoop

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=count)
    corpus = Corpus.open(Path(corpus_path))
    request = TrainingArguments(
        model="2x32",
        optimizer="lamb",
        batch_size=(8,),
        samples=80,
        sequence_lengths=(32, 64),
        micro_batch_size=4,
        learning_rate=0.01,
    )
    settings = resolve_config(request, corpus)
    trainer = TrainingLoop(
        Path(run),
        settings,
        starting_model(settings, None, corpus),
        corpus,
        trainer_options=TrainerOptions(evaluation_samples=16, evaluations_per_phase=1),
        processes=ProcessGroup(rank, count),
    )
    step = trainer._launcher.launch

    def stop_after_three(*arguments: Any, **options: Any) -> Any:
        if rank == 1 and trainer.state.step == 2:
            trainer.request_stop()  # one rank gets the request, all stop after the same step
        return step(*arguments, **options)

    trainer._launcher.launch = stop_after_three  # type: ignore[method-assign]
    trainer.train()
    torch.distributed.destroy_process_group()


@pytest.mark.integration
def test_two_processes_stop_together_and_end_near_one(tmp_path: Path, small_corpus: Corpus, make_run: Any) -> None:
    run = tmp_path / "two"
    for sitting in range(2):
        warm.run_all(_train_in_processes, 2, str(tmp_path / f"meet-{sitting}"), str(small_corpus.path), str(run))
        if sitting == 0:
            assert finished_steps(run)[0] == 3
    assert finished_steps(run)[0] == 10
    make_run(tmp_path / "one").train()
    one, two = (load_checkpoint(tmp_path / name, 10).tensors["model"] for name in ("one", "two"))
    for name, weight in one.items():
        if not name.endswith("key.bias"):  # its exact gradient is zero: rounding alone
            assert torch.linalg.vector_norm(two[name] - weight) <= 1e-5 * torch.linalg.vector_norm(weight), name
    # The noise of the gradient is that of the first micro-batch in both, which is all that the first of two has.
    noise_of_one, noise_of_two = (events(tmp_path / name, "noise") for name in ("one", "two"))
    assert [event["step"] for event in noise_of_two] == list(range(1, 11))
    for field in ("noise", "signal", "noise_scale", "standard_error"):
        figures = [[event[field] or -1 for event in run] for run in (noise_of_one, noise_of_two)]
        assert figures[0] == pytest.approx(figures[1], rel=1e-3), field


def test_more_processes_than_micro_batches_are_refused(
    tmp_path: Path, settings: TrainingConfig, small_corpus: Corpus
) -> None:
    from lambert.training.config.starting_model import starting_model
    from lambert.training.loop import TrainingLoop

    model = starting_model(settings, None, small_corpus)
    with pytest.raises(UserError, match="3 ranks for 2 micro-batches"):
        TrainingLoop(tmp_path / "run", settings, model, small_corpus, processes=ProcessGroup(0, 3))


def test_the_second_phase_warms_up_again_from_zero(small_corpus: Corpus) -> None:
    from lambert.training.config.arguments import TrainingArguments
    from lambert.training.config.phase import phases_of
    from lambert.training.config.resolve import resolve_config

    request = TrainingArguments(
        model="1x32",
        batch_size=(2,),
        samples=400,
        sequence_lengths=(32, 64),
        learning_rate=0.01,
        warmup_ratio=0.5,
    )
    first, second = phases_of(resolve_config(request, small_corpus))
    assert (first.first_step, first.last_step, second.first_step, second.last_step) == (1, 180, 181, 200)
    assert [second.learning_rate(step) for step in range(181, 191)] == pytest.approx([0.001 * k for k in range(1, 11)])
    assert first.learning_rate(180) < 0.0002 and second.learning_rate(200) < 0.001


def test_windows_and_spans_train_without_a_question_about_the_next_sentence(
    tmp_path: Path, small_corpus: Corpus
) -> None:
    request = TrainingArguments(
        model="1x32",
        batch_size=(8,),
        samples=80,
        sequence_lengths=(16, 32),
        pairs="none",
        masking="whole_word",
    )
    settings = resolve_config(request, small_corpus)
    trainer = TrainingLoop(tmp_path / "run", settings, starting_model(settings, None, small_corpus), small_corpus)
    outcome = trainer.train()
    assert outcome.finished and outcome.evaluation is not None
    assert outcome.evaluation.nsp_loss is None
    steps = events(tmp_path / "run", "step")
    assert all(step["nsp_loss"] is None and step["loss"] == step["mlm_loss"] for step in steps)
    recorded = tomllib.loads((tmp_path / "run" / "recipe.toml").read_text())["examples"]
    assert recorded == {"pairing": "none", "masking": "whole_word", "mlm_probability": 0.15}
    with pytest.raises(UserError, match=r"`pairs` nsp \(the run has none\)"):
        refuse_other_config(tmp_path / "run", replace(settings, examples=ObjectiveConfig()))


def stopped_run(run: Path, make_run: Any, **changed: Any) -> None:
    """A run stopped after its fourth step."""
    trainer = make_run(run, **changed)
    train_one = trainer._launcher.launch

    def stop_soon(*arguments: Any, **options: Any) -> Any:
        if trainer.state.step == 3:
            trainer.request_stop()
        return train_one(*arguments, **options)

    trainer._launcher.launch = stop_soon
    assert trainer.train().step == 4


def test_micro_batches_may_change_at_a_resume(tmp_path: Path, make_run: Any, settings: TrainingConfig) -> None:
    """The global batch keeps its size, results are equal up to rounding, and the recipe records the change."""
    model = replace(settings.model, dropout=0.0)  # where it falls depends on the micro-batch
    make_run(tmp_path / "whole", model=model).train()
    run = tmp_path / "run"
    stopped_run(run, make_run, model=model)
    outcome = make_run(run, model=model, micro_batch_sizes=(2, 8)).train()
    assert outcome.finished and outcome.resumed_from_step == 4
    assert tomllib.loads((run / "recipe.toml").read_text())["micro_batch_sizes"] == [2, 8]
    whole, changed = (load_checkpoint(folder, 10).tensors["model"] for folder in (tmp_path / "whole", run))
    for name, weight in whole.items():
        if not name.endswith("value.bias"):
            assert torch.linalg.vector_norm(changed[name] - weight) <= 1e-5 * torch.linalg.vector_norm(weight), name


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"threads": 2}, r"`threads` 2 \(the run has 1\)"),
        ({"micro_batch_sizes": (2, 4)}, r"`micro_batch_size` 2 4 \(the run has 4 2\)"),
        ({"deterministic": False}, r"no `deterministic` \(the run has it\)"),
        ({"precision": Precision.BFLOAT16_MASTER}, r"`precision` bfloat16-master \(the run has float32\)"),
    ],
)
def test_a_deterministic_run_holds_fixed_what_its_bits_depend_on(
    tmp_path: Path, make_run: Any, changed: dict[str, Any], expected: str
) -> None:
    run = tmp_path / "run"
    stopped_run(run, make_run, deterministic=True, threads=1)
    before = (run / "recipe.toml").read_text()
    with pytest.raises(UserError, match=expected):
        make_run(run, **{"deterministic": True, "threads": 1, **changed}).train()
    assert (run / "recipe.toml").read_text() == before
    assert make_run(run, deterministic=True, threads=1).train().finished


def test_a_run_that_is_moved_stops_and_goes_on_in_its_new_place(tmp_path: Path, make_run: Any) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    with pytest.raises(Interrupted, match="was moved, renamed or deleted"):
        for step in make_run(run, optimizer="adamw"):
            if step.step == 5:
                run.rename(elsewhere)
    assert not run.exists() and 2 in finished_steps(elsewhere)
    saved = finished_steps(elsewhere)[0]
    output = make_run(elsewhere, optimizer="adamw").train()
    assert output.finished and output.resumed_from_step == saved


def test_a_lock_file_that_is_deleted_lets_no_second_run_in(tmp_path: Path, make_run: Any) -> None:
    run = tmp_path / "run"
    for step in make_run(run, optimizer="adamw"):
        if step.step == 5:
            (run / "lock").unlink()
            with pytest.raises(UserError, match="another process is training in"):
                make_run(run, optimizer="adamw").train()
    assert events(run, "end")[-1]["reason"] == "finished"


def test_whoever_may_read_the_run_may_read_all_of_it(tmp_path: Path, make_run: Any) -> None:
    before = os.umask(0o002)
    try:
        make_run(tmp_path / "run", optimizer="adamw").train()
    finally:
        os.umask(before)
    files = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert len(files) > 10
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in files} == {file.name: "0o664" for file in files}


@pytest.mark.parametrize("mends", [True, False])
def test_an_export_names_the_class_that_takes_the_rules_as_they_are_where_berts_is_another(
    mends: bool, tmp_path: Path, make_run: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A transformers whose BertTokenizer gives other ids than ours."""

    def asked(model: BertForPreTraining, tokenizer: Tokenizer, folder: Path) -> list[str] | None:
        written = json.loads((folder / "tokenizer_config.json").read_text())
        if written["tokenizer_class"] == "BertTokenizer" or not mends:
            return ["ids"]
        return differences_in_transformers(model, tokenizer, folder)

    monkeypatch.setattr(export, "differences_in_transformers", asked)
    make_run(tmp_path / "run").train()
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "out")]) == (0 if mends else 2)
    assert (tmp_path / "out").exists() == mends
    said = " ".join("".join(capsys.readouterr()).split())
    if mends:
        assert "names PreTrainedTokenizerFast" in said and "lambert and transformers give the same ids" in said
        assert not (tmp_path / "out" / "vocab.txt").exists()
    else:
        assert "reads other ids from the export" in said
