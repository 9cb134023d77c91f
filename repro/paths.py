"""Where things live: the project root, committed results, a user's own runs, the cache."""

from __future__ import annotations

import os
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parent.parent


def results_dir() -> Path:
    """Committed records of real runs (read-only for a training session)."""
    return PROJECT_ROOT / "results"


def runs_dir() -> Path:
    """A user's own runs and checkpoints; ignored by git. `REPRO_RUNS_DIR` moves it."""
    return Path(os.environ.get("REPRO_RUNS_DIR", PROJECT_ROOT / "runs"))


def reports_dir() -> Path:
    """Rendered pages and `reference/` (published values). `REPRO_REPORTS_DIR` moves it."""
    return Path(os.environ.get("REPRO_REPORTS_DIR", PROJECT_ROOT / "reports"))


def cache_dir() -> Path:
    """Prepared data and converted weights; safe to delete. `REPRO_CACHE_DIR` moves it."""
    return Path(os.environ.get("REPRO_CACHE_DIR", PROJECT_ROOT / ".cache"))
