"""The table of differences to SW, on every page that compares rows with it."""

from __future__ import annotations

from collections.abc import Sequence

from repro.evaluation.intervals import LEVEL
from repro.reporting.cells import differing
from repro.reporting.claims import NO_LOSS_DATASETS, detectable, no_loss_text
from repro.reporting.formatting import ABSENT, bounds, p_value, score, signed, table
from repro.reporting.lines import Line
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
    """With which SW each row is compared, where there are several."""
    sws = [line.row.cell for line in lines if line.row.slot[0] == SW and line.auc is not None]
    cells = [cell for cell in sws if cell is not None]
    settings, devices = differing(cells), {cell.device for cell in cells}
    if len(cells) < 2:
        return ""
    if len(devices) < 2:
        text = "in several settings: each row is compared with the one closest in settings."
    elif not settings:
        text = "of several devices: each row is compared with the one of its own device, where there is one."
    else:
        text = (
            "in several settings and of several devices: each row is compared with the one closest in "
            "settings, of equally close ones with that of its own device."
        )
    return f"SW has records {text}\n\n"
