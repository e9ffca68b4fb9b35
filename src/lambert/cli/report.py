"""`lambert report RUN… --out FILE`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from lambert.cli.subcommand import Subcommand, say


@dataclass(frozen=True, kw_only=True)
class Report(Subcommand):
    """Write one self-contained HTML page about one run, or a comparison of several."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUNS")]
    """Run folders."""
    out: Path
    """The HTML file to write."""

    def run(self) -> dict[str, Any]:
        """Results: `report`, the page's path, and its `bytes`."""
        from lambert.report import write_report

        page = write_report(list(self.runs), self.out)
        say(f"Report: {page}")
        return {"report": str(page), "bytes": page.stat().st_size}
