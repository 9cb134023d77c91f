"""What a table can tell and what it cannot, in generated sentences."""

from __future__ import annotations

from collections.abc import Sequence

from repro.evaluation.intervals import LEVEL, NO_LOSS_MARGIN, no_loss, smallest_detectable_difference
from repro.reporting.formatting import ABSENT, bounds, compact, listed, plural, score, signed
from repro.reporting.lines import Line
from repro.reporting.sections import DTI, SW

MIN_SEEDS = 3  # for a statement about a method, not about single runs
NO_LOSS_DATASETS = ("ml-1m",)  # enough test users for the margin
ALPHA, POWER = 1 - LEVEL, 0.8
LEVEL_TEXT, ALPHA_TEXT, POWER_TEXT = (f"{100 * share:.0f} %" for share in (LEVEL, ALPHA, POWER))


def claims(dataset: str, lines: Sequence[Line]) -> str:
    """Paragraphs below a table: what it can detect, what it shows, what it does not."""
    compared = [line for line in lines if line.own and line.to_sw is not None]
    if not compared:
        return "No row can be compared with SW yet, so nothing is claimed."
    paragraphs = [_detectable(compared), _above_zero_shot(lines), _told_apart(compared)]
    paragraphs.append(_no_loss(compared) if dataset in NO_LOSS_DATASETS else _no_claim(compared))
    paragraphs.append(_few_seeds(lines))
    return "\n\n".join(text for text in paragraphs if text)


def detectable(line: Line) -> float:
    """Smallest true difference to SW that this row's test finds with the stated power."""
    assert line.to_sw is not None
    return smallest_detectable_difference(line.to_sw.difference.se, alpha=ALPHA, power=POWER)


def no_loss_text(line: Line) -> str:
    """ "yes", "not shown", or what is missing for a statement."""
    if line.to_sw is None:
        return ABSENT
    if line.to_sw.difference.num_seeds < MIN_SEEDS:
        return f"needs {MIN_SEEDS} seeds"
    return "yes" if no_loss(line.to_sw.difference) else "not shown"


def _detectable(compared: Sequence[Line]) -> str:
    values = [detectable(line) for line in compared]
    users = compared[0].to_sw.difference.num_users  # type: ignore[union-attr]
    spread = f"{score(max(values))} AUC"
    if len(values) > 1:
        spread = f"between {score(min(values))} and {score(max(values))} AUC, depending on the row"
    return (
        f"**The smallest difference to SW that this run can detect is {spread}** (two-sided test at "
        f"{ALPHA_TEXT}, power {POWER_TEXT}, from the standard error of the paired difference over "
        f"{plural(users, 'test user')}). A smaller difference is likely to stay unseen.{_single(compared)}"
    )


def _single(compared: Sequence[Line]) -> str:
    """The warning that belongs to a number from single runs."""
    if all(line.to_sw.difference.num_seeds > 1 for line in compared):  # type: ignore[union-attr]
        return ""
    return (
        " For a row or an SW of one seed that is between these very models: what another course of training "
        "would change comes on top."
    )


def _above_zero_shot(lines: Sequence[Line]) -> str:
    """The untrained model against SW and against DTI at its largest k."""
    largest = max(
        (line.row.slot[1] or 0 for line in lines if line.row.slot[0] == DTI and line.auc), default=0
    )
    shown = []
    for line in lines:
        if line.to_zero_shot is not None and line.row.slot in ((SW, 1), (DTI, largest)):
            d = line.to_zero_shot.difference
            shown.append(f"{line.row.label}: {signed(d.mean)} {bounds(d.low, d.high, '+.4f')}")
    if not shown:
        return ""
    return f"AUC minus that of the zero-shot model, with {LEVEL_TEXT} interval: {'; '.join(shown)}."


def _told_apart(compared: Sequence[Line]) -> str:
    groups: dict[str, list[str]] = {"above": [], "below": [], "not told apart from": []}
    for line in compared:
        assert line.to_sw is not None and line.holm_p is not None
        side = "above" if line.to_sw.difference.mean > 0 else "below"
        groups[side if line.holm_p < ALPHA else "not told apart from"].append(line.row.label)
    parts = [f"- {name} SW: {compact(labels)}." for name, labels in groups.items() if labels]
    return "\n".join([f"By AUC, after Holm's adjustment at {ALPHA_TEXT}:\n", *parts])


def _no_loss(compared: Sequence[Line]) -> str:
    rows = [line.row.label for line in compared if no_loss_text(line) == "yes"]
    return f"{_definition()} It holds for: {compact(rows)}." if rows else f"{_definition()} No row shows it."


def _no_claim(compared: Sequence[Line]) -> str:
    bound = min(line.to_sw.difference.lower_bound for line in compared)  # type: ignore[union-attr]
    return (
        f'That a row is not told apart from SW is no claim of "no loss". {_definition()} '
        f"It is claimed on {listed(NO_LOSS_DATASETS)} only, never here: the largest loss that a row leaves "
        f"possible (one-sided {LEVEL_TEXT}) is {score(max(0.0, -bound))} AUC."
    )


def _definition() -> str:
    return (
        f'"No loss" means that the one-sided {LEVEL_TEXT} bound of the paired AUC difference lies above '
        f"{-NO_LOSS_MARGIN}, a margin stated before the runs, with at least {MIN_SEEDS} seeds on either side."
    )


def _few_seeds(lines: Sequence[Line]) -> str:
    few = [line for line in lines if line.own and line.auc and line.auc.num_seeds < MIN_SEEDS]
    if not few:
        return ""
    return (
        f"Rows with fewer than {MIN_SEEDS} seeds: {compact([line.row.label for line in few])}. They describe "
        "these runs, not the methods; with one seed, intervals and p-values hold the share of the users "
        "only, not that of another course of training."
    )
