"""The page of a fine-tuning on SQuAD from its facts alone."""

from __future__ import annotations

import json
import re

from lambert.report import squad_page
from report.fine_tuning_facts import squad_facts


def text_of(page: str) -> str:
    """Without markup, scripts and styles."""
    page = re.sub(r"<(script|style).*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


def test_scores_kinds_of_questions_and_errors() -> None:
    page = squad_page.render(squad_facts())
    text = text_of(page)
    assert "Fine-tuning on SQuAD v2.0 130,319 training questions, measured on 11,873 others, 3 seeds." in text
    assert "mean 61.00 71.00 95 % confidence interval 58.50 to 63.50 68.50 to 73.50" in text
    assert "exact match 62.00, F1 72.50" in text and "F1 without an answer 72.00 5,945 questions" in text
    assert "44 of 442 articles" in text and "the loss became nan at step 1" in text
    assert "no answer 5,945 72.00 72.00" in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; 0 –" in text and "here; there no answer 0 25" in text
    assert "<b>Who" not in page and "<script>alert" not in page
    charts = json.loads(re.search(r'id="charts">(.*?)</script>', page, flags=re.DOTALL)[1])["charts"]  # type: ignore[index]
    rows = charts["loss"]["spec"]["data"]["values"]
    assert len(rows) == 3 * 39 and rows[0] == {"of": "seed 0", "step": 1, "loss": 2.5}


def test_one_seed_of_before_the_curve_was_kept() -> None:
    facts = squad_facts(1) | {"exact_match_interval": None, "f1_interval": None, "tuning": None, "best_f1": None}
    facts["seeds"][0]["curve"] = []
    text = text_of(page := squad_page.render(facts))
    assert "1 seed." in text and "one seed" in text and "interval" not in text and "best threshold" not in text
    assert "Training loss 0" not in text and "<script" not in page and "<h2>Training loss" not in page
