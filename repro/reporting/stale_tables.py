"""Tables that age on reports/bahe_open.md: AUC against what keeping a table fresh costs."""

from __future__ import annotations

from repro.behaviours.drift import KINDS
from repro.evaluation.intervals import Interval
from repro.experiments.bahe_variants import NO_DRIFT, STALE, stale_name
from repro.reporting.bahe_variants import (
    INTERVAL,
    PAIRED,
    SAME,
    Group,
    caveats,
    comparisons,
    floor_line,
    full_method,
    not_run,
    runs_details,
    settings_of,
    told_apart,
    unchanged,
    variant_groups,
)
from repro.reporting.cells import NOT_RUN, Cell
from repro.reporting.formatting import ABSENT, bounds, count, p_value, signed, table
from repro.reporting.inputs import Inputs
from repro.reporting.lines import auc_text, seeds_text

LEGEND = (
    "Planted change on real interactions. Time is the data set's own: its N interactions in order. Half of "
    "the items change their text four times each, at rows drawn once for all runs. *revised*: a new text "
    'says the same behind the words "revision 2: "; *revealed*: an item begins as "untitled", every change '
    "makes more of its words known, the last one all. A target reads its history and its candidate as the "
    "table has them at its own row: in the versions of the last refresh. A step is as many interactions as "
    "an optimiser step has targets. A refresh encodes the texts that the table lacks, so what came and "
    "went between two refreshes costs nothing. The first row reads the data's own texts all the time: the "
    "last ones of *revealed*, the first ones of *revised*, so *revised, never refreshed* is that row once "
    "more, seed by seed. Differences are to the table of the same kind that is refreshed in every step: "
    f"what an older table loses; Holm adjusts within a kind. {PAIRED} *Build and refreshes*: seconds to "
    "encode those behaviours, the first build included: their number times the seconds per behaviour of the "
    "fillings made on this device by then, whichever run made them, so rows of as many behaviours may "
    "differ; no refresh was timed by itself. *Over training time*: these seconds over those of training, "
    f"which do not hold them. Lowest to highest over seeds; {ABSENT} where no such filling is known."
)
HEADERS = (
    "row", "seeds", "AUC", "AUC − refreshed every step", INTERVAL, "p (Holm)",
    "interactions between refreshes", "behaviours encoded", "build and refreshes, s", "over training time",
)  # fmt: skip


def _title(kind: str, steps: int | None) -> str:
    if steps is None:
        return f"{kind}, never refreshed"
    return f"{kind}, refreshed every {'step' if steps == 1 else f'{count(steps)} steps'}"


TITLES = {NO_DRIFT: "texts do not change", **{name: _title(*each) for name, each in STALE.items()}}


def stale_groups(inputs: Inputs) -> list[Group]:
    """BAHE with texts that change; BAHE alone is no comparison."""
    found = variant_groups(inputs, [NO_DRIFT, *STALE], _name_of)
    return [group for group in found if set(group.cells) != {NO_DRIFT}]


def section(groups: list[Group]) -> list[str]:
    """Blocks of the section, without its heading."""
    if not groups:
        return [LEGEND, not_run(list(TITLES.values()))]
    blocks = [LEGEND]
    for group in groups:
        blocks += [f"### {group.title}", _table(group)]
        blocks += [told_apart(of_kind(group, kind), TITLES, stale_name(kind, 1)) for kind in KINDS]
        blocks += caveats(group, TITLES) + runs_details(group, TITLES)
    return blocks


def _name_of(cell: Cell) -> str | None:
    plain, own = settings_of(full_method()), settings_of(cell)
    drift = own["drift"]
    if own | {"drift": None} != plain:
        return None
    if drift is None:
        return NO_DRIFT
    every, batch = drift["refresh_every"], cell.config["training"]["batch_targets"]
    steps = None if every is None else every / batch
    return next((name for name, each in STALE.items() if each == (drift["kind"], steps)), None)


def of_kind(group: Group, kind: str) -> Group:
    """The variants of one kind of change."""
    cells = {name: cell for name, cell in group.cells.items() if STALE.get(name, ("",))[0] == kind}
    return Group(group.title, cells, group.floor)


def _table(group: Group) -> str:
    compared: dict[str, tuple[Interval, float]] = {}
    same: list[str] = []
    for kind in KINDS:
        compared |= comparisons(of_kind(group, kind), stale_name(kind, 1))
        same += unchanged(of_kind(group, kind), stale_name(kind, 1))
    lines = [floor_line(group, len(HEADERS))]
    for name, title in TITLES.items():
        cell = group.cells.get(name)
        if cell is None:
            lines.append((title, "0", NOT_RUN, *[ABSENT] * (len(HEADERS) - 3)))
            continue
        encoded, drift = cell.mean("data", "behaviours_encoded"), settings_of(cell)["drift"]
        every = None if drift is None else drift["refresh_every"]
        gain = [SAME if name in same else ABSENT, *[ABSENT] * 2]
        if name in compared:
            found, p = compared[name]
            gain = [signed(found.mean), bounds(found.low, found.high, "+.4f"), p_value(p)]
        counts = (None if number is None else count(round(number)) for number in (every, encoded))
        texts = (*(text or ABSENT for text in counts), *_seconds(cell))
        lines.append((title, seeds_text(cell), auc_text(cell), *gain, *texts))
    return table(HEADERS, lines)


def _seconds(cell: Cell) -> tuple[str, str]:
    """Of encoding, and as a share of training time; lowest to highest over seeds that have both."""
    times = [(run.record["time"].get("table_build_s"), run.record["time"].get("train_s")) for run in cell.ok]
    known = [(table_s, train_s) for table_s, train_s in times if table_s is not None and train_s]
    if not known:
        return ABSENT, ABSENT
    return (
        _range([table_s for table_s, _ in known], ",.2f"),
        _range([table_s / train_s for table_s, train_s in known], ".1%"),
    )


def _range(values: list[float], form: str) -> str:
    ends = dict.fromkeys((f"{min(values):{form}}", f"{max(values):{form}}"))
    return " to ".join(ends)
