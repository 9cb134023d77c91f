"""The table of differences to SW, on every page that compares rows with it."""

from __future__ import annotations

from collections.abc import Sequence

from repro.evaluation.intervals import LEVEL
from repro.reporting.cells import differing
from repro.reporting.claims import NO_LOSS_DATASETS, detectable, no_loss_text
from repro.reporting.formatting import ABSENT, bounds, compact, p_value, score, signed, table
from repro.reporting.lines import Line
from repro.reporting.methods import is_floor
from repro.reporting.sections import SW

INTERVAL = f"{100 * LEVEL:.0f} % interval"


def differences_table(dataset: str, lines: Sequence[Line]) -> str:
    """AUC of every line minus SW's, with what that can tell; a sentence where there is nothing to compare."""
    with_no_loss = dataset in NO_LOSS_DATASETS
    headers = ["row", "AUC − AUC of SW", INTERVAL, "SE", "p", "p (Holm)", "p (DeLong, one seed)"]
    headers += ["smallest detectable"] + (["no loss"] if with_no_loss else [])
    rows = []
    for line in lines:
        if line.to_sw is None:
            continue
        d = line.to_sw.difference
        rows.append(
            [
                line.row.label,
                signed(d.mean),
                bounds(d.low, d.high, "+.4f"),
                score(d.se),
                p_value(d.p_value),
                ABSENT if line.holm_p is None else p_value(line.holm_p),
                p_value(line.to_sw.delong.p_value),
                score(detectable(line)),
            ]
            + ([no_loss_text(line)] if with_no_loss else [])
        )
    if not rows:
        return "Not run: SW and another row are needed."
    return _sw_choice(lines) + table(headers, rows)


def _sw_choice(lines: Sequence[Line]) -> str:
    """With which SW rows are compared, where that is not the only one or one of another device."""
    found = [_several(lines), _elsewhere(lines)]
    text = " ".join(each for each in found if each)
    return f"{text}\n\n" if text else ""


def _several(lines: Sequence[Line]) -> str:
    sws = [line.row.cell for line in lines if line.row.slot[0] == SW and line.auc is not None]
    cells = [cell for cell in sws if cell is not None]
    settings, devices = differing(cells), {cell.device for cell in cells}
    if len(cells) < 2:
        return ""
    if len(devices) < 2:
        return "SW has records in several settings: each row is compared with the one closest in settings."
    if not settings:
        return "SW has records of several devices: each row is compared with the one of its own device."
    return (
        "SW has records in several settings and of several devices: each row is compared with the one "
        "closest in settings, of equally close ones with that of its own device."
    )


def _elsewhere(lines: Sequence[Line]) -> str:
    """Which rows are compared with an SW of another device than their own; the floor's is no part of it."""
    labels = [
        line.row.label
        for line in lines
        if line.to_sw is not None and line.sw is not None and not is_floor(line.row.slot[0])
        if line.row.cell is not None and line.sw.row.cell is not None
        if line.row.cell.device != line.sw.row.cell.device
    ]
    return f"Compared with an SW of another device: {compact(labels)}." if labels else ""
