"""Run folders → HTML pages and pictures. Reads files only and never imports torch.

The functions import their modules when called, so that training does not pay for the charts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "write_corpus_page",
    "write_finetune_page",
    "write_loss_curve",
    "write_model_card",
    "write_model_comparison",
    "write_report",
    "write_squad_page",
]


def write_report(runs: Sequence[Path], out: Path) -> Path:
    """See `lambert.report.page.write_report`."""
    from lambert.report import page

    return page.write_report(runs, out)


def write_corpus_page(facts: Mapping[str, Any], out: Path) -> Path:
    """See `lambert.report.corpus_page.write_corpus_page`."""
    from lambert.report import corpus_page

    return corpus_page.write_corpus_page(facts, out)


def write_finetune_page(facts: Mapping[str, Any], out: Path) -> Path:
    """See `lambert.report.finetune_page.write_finetune_page`."""
    from lambert.report import finetune_page

    return finetune_page.write_finetune_page(facts, out)


def write_squad_page(facts: Mapping[str, Any], out: Path) -> Path:
    """See `lambert.report.squad_page.write_squad_page`."""
    from lambert.report import squad_page

    return squad_page.write_squad_page(facts, out)


def write_model_card(
    run: Path, folder: Path, *, step: int | None = None, watts: float | None = None, sentence_vectors: bool = False
) -> Path:
    """See `lambert.report.model_card.write_model_card`."""
    from lambert.report import model_card

    return model_card.write_model_card(run, folder, step=step, watts=watts, sentence_vectors=sentence_vectors)


def write_model_comparison(facts: Mapping[str, Any], out: Path) -> Path:
    """See `lambert.report.model_comparison.write_model_comparison`."""
    from lambert.report import model_comparison

    return model_comparison.write_model_comparison(facts, out)


def write_loss_curve(run: Path, out: Path) -> Path:
    """See `lambert.report.pictures.write_loss_curve`."""
    from lambert.report import pictures

    return pictures.write_loss_curve(run, out)
