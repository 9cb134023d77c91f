"""Commands that show what is there: pages against their records, prompts, the help."""

from __future__ import annotations

import pytest


def test_report_check_names_a_page_that_was_edited(command, own_folders) -> None:
    """Pages are compared with what the committed records alone give."""
    assert command("report")[0] == 0
    assert command("report", "--check")[0] == 0
    page = own_folders / "reports" / "table1.md"
    page.write_text(page.read_text() + "edited\n")
    code, _, err = command("report", "--check")
    assert code == 1
    assert "table1.md" in err


def test_what_check_advises_mends_a_page_that_shows_own_runs(command, own_folders) -> None:
    assert command("table1", "--tier", "test", "--dataset", "synthetic", "--rows", "zero-shot")[0] == 0
    assert command("report")[0] == 0
    code, _, err = command("report", "--check")
    assert code == 1 and "nox -s report -- --committed" in err
    assert command("report", "--committed")[0] == 0
    assert command("report", "--check")[0] == 0


@pytest.mark.parametrize("kind", ["sw", "streaming"])
def test_show_prompt(command, kind) -> None:
    code, out, err = command("show-prompt", "--tier", "test", "--dataset", "synthetic", "--kind", kind)
    assert code == 0, err
    assert "SUM" in out


def test_help_names_every_command(command) -> None:
    code, out, _ = command("--help")
    assert code == 0
    for name in ("table1", "table2", "figure2", "report", "show-prompt", "select", "bench-attention"):
        assert name in out
