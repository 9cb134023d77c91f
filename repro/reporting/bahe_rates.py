"""On which data set the learning rate of each row of reports/bahe.md was chosen, from the trials' files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from repro.reporting.bahe_quality_rows import DTI_BAHE, FAMILY_TITLES, Group, Row, trains_longer
from repro.reporting.formatting import compact, plural
from repro.reporting.inputs import Inputs
from repro.reporting.sections import DTI, SW

TRIAL_FAMILIES = {SW: "sw", DTI: "dti-tuned"}  # of this page's rows, as results/selection names them


@dataclass(frozen=True)
class Search:
    """Trials of a row's method on one data set.

    Attributes:
        best: learning rate of the best validation AUC. page: that lists them; empty: this one.
    """

    dataset: str
    trials: int
    best: float
    page: str


def selection_k() -> int:
    """Targets per row in the trials of DTI over BAHE."""
    from repro.experiments.bahe import SELECTION_K  # here: importing reports imports nothing that trains

    return SELECTION_K


def rates_text(inputs: Inputs, group: Group, rows: Sequence[Row]) -> str:
    """Whose rates were chosen on the group's data set, whose on another, and whose on none."""
    found: dict[tuple[str, int, str] | None, list[str]] = {}
    for row in rows:
        rate = (row.cell.config["training"] or {}).get("learning_rate")
        if rate is not None:
            search = next((s for s in _searches(inputs, group, row) if s.best == rate), None)
            key = None if search is None else (search.dataset, search.trials, search.page)
            found.setdefault(key, []).append(row.label)
    parts = []
    datasets = dict.fromkeys(key[0] for key in found if key is not None)
    for dataset in sorted(datasets, key=lambda name: name != group.dataset):
        sides = [(key, labels) for key, labels in found.items() if key is not None and key[0] == dataset]
        said = " — ".join(_side(key, labels) for key, labels in sides)
        where = "this data set" if dataset == group.dataset else f"{dataset}, not on this data set"
        parts.append(f"chosen on {where}: {said}")
    if None in found:
        parts.append(f"chosen on no data set: {compact(found[None])}")
    text = f"Learning rates {'. Rates '.join(parts)}."
    if len(parts) > 1 or len({key[1] for key in found if key is not None}) > 1:
        text += " A difference between rows of these kinds may be the rate's."
    other_k = [row.label for row in rows if row.slot[0] == DTI_BAHE and row.slot[1] != selection_k()]
    if other_k and group.tier in {name.partition("-")[0] for name in inputs.bahe_trials}:
        text += f" {compact(other_k)}: trials were at k = {selection_k()} only."
    if datasets and any(trains_longer(row) for row in rows):
        text += " Trials had as many epochs as the rows that name none."
    return text if found else ""


def _side(key: tuple[str, int, str], labels: Sequence[str]) -> str:
    _, trials, page = key
    each = " per method" if len(labels) > 1 else ""
    where = f"[{page}]({page}.md)" if page else "below"
    return f"{compact(labels)} ({plural(trials, 'trial')}{each}, {where})"


def _searches(inputs: Inputs, group: Group, row: Row) -> Iterator[Search]:
    """Searches of the row's method at the group's tier, the one on the group's data set first."""
    method = row.cell.method  # the strongest ID-based model has a slot of that name
    if method in FAMILY_TITLES:
        files, family, key, page, end = inputs.bahe_trials, method, "family", "", ""
    elif method in TRIAL_FAMILIES:
        files, family, key, page, end = inputs.trials, TRIAL_FAMILIES[method], "family", "table1", ""
    else:
        files, family, key, page, end = inputs.baseline_trials, method, "model", "baselines", f"-{method}"
    start = f"{group.tier}-"
    names = [name for name in files if name.startswith(start) and name.endswith(end)]
    for name in sorted(names, key=lambda name: name != f"{start}{group.dataset}{end}"):
        trials = [trial for trial in files[name]["rows"] if trial[key] == family]
        scored = [trial for trial in trials if trial["validation_auc"] is not None]
        if scored:
            best = max(scored, key=lambda trial: trial["validation_auc"])["learning_rate"]
            dataset = name.removeprefix(start).removesuffix(end)
            yield Search(dataset, len(trials), best, page)
