"""Table 3's page: times of control runs, means over seeds, reductions beside the paper's."""

from __future__ import annotations

from repro.reporting import table3
from repro.reporting.inputs import load_inputs
from repro.reporting.references import paper_scores

FIXED = {"reset": {"a_max": 0.5}, "position": "alibi-rotated-keys", "alibi_slope": 0.01}


def times(to_best: float, total: float, best: int = 1, epochs: int = 4) -> dict:
    entries = [{"epoch": e, "auc": 0.7, "log_loss": 0.6} for e in range(epochs)]
    return {
        "time.train_to_best_s": to_best,
        "time.train_s": total,
        "time.best_epoch": best,
        "time.epochs": epochs,
        "validation": entries,
    }


def text_of(world) -> str:
    inputs = load_inputs(world.results, world.runs, world.reports / "reference")
    return table3.render(inputs)["table3.md"].decode()


def cells_of(text: str, start: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(start)]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_reductions_are_ratios_of_mean_times_to_the_best_epoch(world) -> None:
    world.add(recipe="control", record=times(90.0, 150.0))
    world.add(recipe="control", seed=1, record=times(110.0, 190.0, best=2))
    world.add(recipe="control", method="dti", k=50, fixes=FIXED, record=times(8.0, 16.0))
    world.add(recipe="control", method="dti", k=50, record=times(10.0, 20.0))
    text = text_of(world)
    sw = cells_of(text, "| SW ")
    assert sw[2:6] == ["100.0 s", "1.00 ×", "42.5 s", "1.00 ×"] and sw[7] == "24", "1,000 tokens an epoch"
    assert sw[8:10] == ["170.0 s", "2 of 4, 3 of 4"] and sw[14] == "2"
    paper = next(line for line in text.splitlines() if line.startswith("| DTI  "))
    assert "12.50 ×" in paper and "12.95 ×" in paper
    ours = cells_of(text, "| DTI, our recipe")
    assert ours[2:8] == ["10.0 s", "10.00 ×", "5.0 s", "8.50 ×", "9.17 ×", "200"] and ours[15] == "—"


def test_the_paper_s_auc_stands_beside_ours_and_says_of_which_data(world) -> None:
    world.add(recipe="control", record=times(90.0, 150.0))
    world.add(recipe="control", method="dti", k=50, fixes=FIXED, record=times(8.0, 16.0))
    world.add(recipe="control", method="dti", k=50, record=times(10.0, 20.0))
    text = text_of(world)
    published = paper_scores(world.reports / "reference")
    assert cells_of(text, "| method ")[13] == "AUC (paper, ML-1M, 8B)"
    assert cells_of(text, "| SW ")[13] == f"{published['ml-1m', 'sw', 1].auc:.4f}"
    assert cells_of(text, "| DTI  ")[13] == f"{published['ml-1m', 'dti', 50].auc:.4f}"
    assert cells_of(text, "| DTI, our recipe")[13] == cells_of(text, "| Like rates")[13] == "—"


def test_runs_of_other_pages_and_failures_are_kept_apart(world) -> None:
    world.add(record=times(1.0, 1.0))  # recipe `paper`
    assert "Not run." in text_of(world)
    world.add(recipe="control", record=times(90.0, 150.0))
    world.add(recipe="control", method="dti", k=10, fixes=FIXED, record={"status": "diverged"})
    text = text_of(world)
    failed = cells_of(text, "| DTI  ")
    assert failed[2:6] == ["—"] * 4 and failed[7] == "—" and failed[14] == "0, diverged"
    assert " 1.0 s " not in text, "the one-epoch run is on Table 1's page"
