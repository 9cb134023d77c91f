"""Commands that train the runs of a table or figure and render its page."""

from __future__ import annotations

import signal

import pytest
from command_cases import TABLE1

from baselines.rates import Rates
from repro.commands import output
from repro.methods.sum_model import SumModel
from repro.pipeline import Workshop


def test_table1_trains_renders_and_does_not_train_again(command, own_folders, monkeypatch) -> None:
    code, out, err = command(*TABLE1, "--rows", "headline")
    assert code == 0, err
    assert "table1.md" in out
    page = (own_folders / "reports" / "table1.md").read_text()
    assert "synthetic" in page
    records = sorted((own_folders / "runs" / "test" / "synthetic").glob("*/record.json"))
    assert [path.parent.name.rsplit("-", 2)[0] for path in records] == [
        *("constant", "dti-k50-n4", "dti-minus-k50-n4", "item-rate", "rates-4-n4", "rates"),
        *("sw-k1-n4", "user-rate", "zero-shot-k1-n4"),
    ]
    times = [path.stat().st_mtime_ns for path in records]
    for model in (SumModel, Rates):
        monkeypatch.setattr(model, "forward", lambda *arguments: pytest.fail("trained again"))
    assert command(*TABLE1, "--rows", "headline")[0] == 0
    assert [path.stat().st_mtime_ns for path in records] == times
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert (own_folders / "reports" / "table1.md").read_text() == page


def test_the_page_is_rendered_after_each_row(command, monkeypatch) -> None:
    done: list[str] = []

    def run(self, config) -> None:
        done.append(config.method.name)
        self.num_trained += config.method.name != "constant"

    monkeypatch.setattr(Workshop, "run", run)
    monkeypatch.setattr(output, "render", lambda *pages: done.append(f"render {' '.join(pages)}"))
    assert command("figure2", *TABLE1[1:], "--rows", "sw,dti-5", "--seeds", "2")[0] == 0
    page = "render table1 figure2"
    floor = ("rates", "rates-4", "constant", "user-rate", "item-rate")
    methods = (*floor, "sw", "sw", "dti", "dti")
    steps = [step for method in methods for step in (method, page)]
    steps.remove(page)
    assert sorted(done) == sorted(steps) and done[-1] == page
    after = done.index("constant") + 1
    assert done[after] == "user-rate", "what was finished already changes no page"


def test_figure2_uses_the_runs_of_table1(command, own_folders, monkeypatch) -> None:
    assert command(*TABLE1, "--rows", "dti-50")[0] == 0
    monkeypatch.setattr(SumModel, "forward", lambda *arguments: pytest.fail("trained again"))
    code, out, err = command("figure2", *TABLE1[1:], "--rows", "dti-50")
    assert code == 0, err
    assert "figure2.md" in out
    assert (own_folders / "reports" / "figure2.md").exists()
