"""Commands that measure on this machine, or count, and render a page of it."""

from __future__ import annotations

from command_cases import files_below


def test_table2_and_report(command, own_folders) -> None:
    code, out, err = command("table2", "--dataset", "synthetic")
    assert code == 0, err
    assert "synthetic-rella.json" in out
    assert (own_folders / "reports" / "table2.md").exists()
    assert command("report")[0] == 0
    assert {"table1.md", "table2.md", "figure2.md", "README.md"} <= files_below(own_folders / "reports")


def test_bahe_efficiency_measures_and_renders(command, own_folders) -> None:
    chosen = ("--tier", "test", "--lengths", "64", "--behaviour-tokens", "8")
    code, out, err = command("bahe-efficiency", *chosen)
    assert code == 0, err
    assert "bahe, 64 tokens" in out and "llm_ctr, 64 tokens" in out
    assert len(list((own_folders / "runs" / "bahe").glob("efficiency-test-tiny-llama-*.json"))) == 1
    page = (own_folders / "reports" / "bahe_efficiency.md").read_text(encoding="utf-8")
    assert "tiny-llama shape" in page and "behaviours of 8 tokens" in page
