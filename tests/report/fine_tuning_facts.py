"""What a fine-tuning on SQuAD v2.0 writes into squad.json."""

from __future__ import annotations

from typing import Any


def finetune_facts() -> dict[str, Any]:
    """What a fine-tuning of five classes writes into finetune.json."""
    text = "a film that is neither long nor short " * 9
    score = {"precision": 91.25, "recall": 88.0, "f1": 89.6}
    return {
        "task": "reviews", "kind": "classification", "train_examples": 12_345, "dev_examples": 1_234,
        "metrics": {"macro_f1": 89.6}, "metric_intervals": {"macro_f1": None}, "majority_baseline": {"macro_f1": 8.0},
        "random_weights": False,
        "settings": {"epochs": 3}, "trials": [], "published": [],
        "seeds": [{"seed": 0, "metrics": {"macro_f1": 89.6}, "train_loss": 0.5, "seconds": 9.0, "curve": []}],
        "data": {"examples_by_label": {"very good": 9_876, "neither good nor bad": 2_469}},
        "details": {
            "classes": [{"label": name, **score, "examples": 1_234} for name in ("very good", "neither good nor bad")],
            "errors": [{"text": text, "given": "neither good nor bad", "predicted": "very good", "loss": 3.21}] * 4,
        },
    }  # fmt: skip


def squad_facts(seeds: int = 3) -> dict[str, Any]:
    """With long words, markup in texts, and a learning rate that diverged."""
    scores = [{"exact_match": 60.0 + seed, "f1": 70.0 + seed} for seed in range(seeds)]
    return {
        "version": "2.0",
        "exact_match": 61.0, "exact_match_interval": [58.5, 63.5], "f1": 71.0, "f1_interval": [68.5, 73.5],
        "has_answer": {"exact_match": 50.0, "f1": 60.0, "questions": 5_928},
        "no_answer": {"exact_match": 72.0, "f1": 72.0, "questions": 5_945},
        "best_exact_match": 62.0, "best_f1": 72.5,
        "train_questions": 130_319, "dev_questions": 11_873, "random_weights": False,
        "confidence": 0.95, "best_seed": 2,
        "tuning": {"held_out": "44 of 442 articles", "trials": [
            {"learning_rate": 3e-5, "exact_match": 60.0, "f1": 70.0, "problem": None},
            {"learning_rate": 1.0, "exact_match": None, "f1": None, "problem": "the loss became nan at step 1"}]},
        "settings": {"learning_rate": 3e-5, "epochs": 2},
        "seeds": [
            {"seed": seed, "train_loss": 1.5, "seconds": 3_600.0, **one,
             "curve": [[step, 5.0 / (1 + step + seed)] for step in range(1, 40)]}
            for seed, one in enumerate(scores)
        ],
        "details": {
            "by_question_word": [{"label": "what", "questions": 9_000, "exact_match": 61.0, "f1": 71.0}],
            "by_answer_length": [{"label": "no answer", "questions": 5_945, "exact_match": 72.0, "f1": 72.0}],
            "errors": [
                {"question": "<b>Who?</b>", "passage": "w" * 200, "given": [], "predicted": "<script>alert(1)</script>",
                 "f1": 0.0, "probability": None},
                {"question": "Where?", "passage": "…in the town…", "given": ["here", "there"], "predicted": "",
                 "f1": 0.0, "probability": 0.25},
            ],
        },
    }  # fmt: skip
