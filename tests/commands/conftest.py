"""Every documented command: in this process where that shows the same, else as a process of its own."""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

import pytest
from command_cases import ROOT
from rich.console import Console

from repro import cli, paths


@pytest.fixture
def own_folders(tmp_path, monkeypatch) -> Path:
    """Runs, reports and cache below tmp_path; committed results too, which are empty."""
    for name in ("runs", "reports", "cache"):
        monkeypatch.setenv(f"REPRO_{name.upper()}_DIR", str(tmp_path / name))
    shutil.copytree(ROOT / "reports" / "reference", tmp_path / "reports" / "reference")
    monkeypatch.setattr(paths, "results_dir", lambda: tmp_path / "results")
    return tmp_path


@pytest.fixture
def command(own_folders, monkeypatch, capsys):
    """Runs `python -m repro ARGUMENTS` in this process: exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        errors = io.StringIO()
        monkeypatch.setattr(cli, "error_console", Console(file=errors, highlight=False))
        monkeypatch.setattr(sys, "argv", ["repro", *arguments])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        captured = capsys.readouterr()
        return code, captured.out, captured.err + errors.getvalue()

    return run


@pytest.fixture
def on_the_processor(monkeypatch) -> None:
    """Nothing runs on a GPU, where there is one."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
