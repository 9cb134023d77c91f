"""What tests of several commands share: arguments, the files of a folder, a command as its own process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from report_cases import table_rows

ROOT = Path(__file__).resolve().parents[2]
TABLE1 = ("table1", "--tier", "test", "--dataset", "synthetic")


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def start(own_folders: Path, *arguments: str, code: str = "") -> subprocess.Popen:
    """A real `python -m repro` that finds no committed results either; `code` runs first."""
    results = str(own_folders / "results")
    empty = (
        f"from pathlib import Path\nfrom repro import paths\npaths.results_dir = lambda: Path({results!r})"
    )
    program = f"{code}\n{empty}\nfrom repro.cli import main\nmain()"
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def table_below(page: str, heading: str) -> list[dict[str, str]]:
    """Rows of the one table below a heading, as {header: cell}."""
    (section,) = [part for part in page.split("\n## ") if part.startswith(f"{heading}\n")]
    return table_rows(section)
