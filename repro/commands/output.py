"""What commands do with their results: render pages, publish runs. Imports only when it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from repro import paths


def render(*pages: str, own: bool = True) -> None:
    """Render pages (all if none is named) from committed and, if wanted, own records."""
    from repro.reporting import render_all

    runs = paths.runs_dir() if own else None
    render_all(paths.results_dir(), runs, paths.reports_dir(), list(pages) or None)


def say_rendered(pages: Sequence[str] = ("README",)) -> None:
    """Name the files of pages that were rendered; by default the index."""
    typer.echo(f"rendered: {', '.join(str(paths.reports_dir() / f'{page}.md') for page in pages)}")


def root_of(publish: bool) -> Path:
    """Where measurements go: `results/` with `publish`, from a clean tree alone, else the user's own runs."""
    if not publish:
        return paths.runs_dir()
    require_clean_tree()
    return paths.results_dir()


def require_clean_tree() -> None:
    """Refuse `--publish` on a dirty tree before anything is trained."""
    from repro.records.publish import require_clean_tree

    require_clean_tree()


def publish_runs(runs: list) -> None:  # type: ignore[type-arg]
    """Copy finished runs to results/."""
    from repro.records.publish import publish

    publish(runs, paths.results_dir())
