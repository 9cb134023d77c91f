"""Runs of BAHE with one thing changed, beside BAHE itself: groups of comparable cells, and their table."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from repro.evaluation.intervals import LEVEL, Interval, holm, smallest_detectable_difference
from repro.methods.bahe.settings import BAHE, BaheMethod, bahe
from repro.records.run_id import canonical_json
from repro.records.store import Run
from repro.reporting.cells import NOT_RUN, Cell, build_cells, comparable_times
from repro.reporting.claims import ALPHA, ALPHA_TEXT, MIN_SEEDS, POWER, POWER_TEXT
from repro.reporting.formatting import (
    ABSENT,
    bounds,
    count,
    duration,
    folded,
    p_value,
    plural,
    ratio,
    score,
    signed,
    table,
)
from repro.reporting.inputs import ORIGINS, YOURS, Inputs
from repro.reporting.lines import auc_text, seeds_text
from repro.reporting.methods import FLOOR
from repro.reporting.provenance import runs_table, versions_of_code
from repro.reporting.scores import auc_interval, difference, run_digest

BEHAVIOURS = "behaviours"  # the part of a configuration that variants differ in
INTERVAL = f"{100 * LEVEL:.0f} % interval"
TABLE_COST = (  # of `table_build_s`, for the legend of every page that shows it
    "what encoding all behaviours of the data set costs on this device: their number times the seconds per "
    f"behaviour of the fillings made on it by then, whichever run made them; {ABSENT} without a table or "
    "where no such filling is known"
)
SAME = "the same scores"
PAIRED = "Differences are over the seeds that both rows have, which may be fewer than a mean is over."
HEADERS = (
    "row", "seeds", "AUC", INTERVAL, "AUC − BAHE's", INTERVAL, "p (Holm)", "smallest detectable",
    "training time", "of BAHE's", "step, ms", "table build", "peak memory",
)  # fmt: skip


@dataclass(frozen=True)
class Group:
    """Cells of one tier, data set, backbone, training and device, by the name of their variant."""

    title: str
    cells: dict[str, Cell]
    floor: Cell | None  # the like rates on the same targets

    @property
    def runs(self) -> list[Run]:
        """All runs behind the group."""
        return [run for cell in self.cells.values() for run in (*cell.runs, *cell.superseded)]


def settings_of(source: BaheMethod | Cell) -> dict[str, Any]:
    """What tells variants apart; the names of the sequences are the data set's and are left out."""
    config = source.resolved() if isinstance(source, BaheMethod) else source.config
    return {key: value for key, value in config[BEHAVIOURS].items() if key != "sequences"}


def variant_groups(
    inputs: Inputs, order: Sequence[str], name_of: Callable[[Cell], str | None]
) -> list[Group]:
    """The cells of `bahe` that are one of the variants, grouped by all else.

    Args:
        order: names of the variants, as a group has them.
        name_of: which variant a cell is; None for another one.
    """
    found: dict[str, dict[str, Cell]] = defaultdict(dict)
    titles: dict[str, str] = {}
    floors = [
        cell
        for origin in ORIGINS
        for cell in build_cells(r for r in inputs.runs[origin] if r.record["config"]["method"] == FLOOR)
        if cell.ok
    ]
    for origin in ORIGINS:
        for cell in build_cells(r for r in inputs.runs[origin] if r.record["config"]["method"] == BAHE):
            name = name_of(cell)
            if name is None:
                continue
            key = _everything_else(cell, origin)
            found[key][name] = cell
            titles[key] = _title(cell, origin)
    return [
        Group(titles[key], {name: cells[name] for name in order if name in cells}, _floor(cells, floors))
        for key, cells in sorted(found.items(), key=lambda pair: (titles[pair[0]], pair[0]))
    ]


def _floor(cells: Mapping[str, Cell], floors: Sequence[Cell]) -> Cell | None:
    own = next(iter(cells.values())).runs[0].record["data"]
    same = ("sha256", "test_targets")
    return next((f for f in floors if all(f.runs[0].record["data"][k] == own[k] for k in same)), None)


def floor_line(group: Group, num_columns: int) -> tuple[str, ...]:
    """The like rates as the first line of a table whose third column is the AUC."""
    line = ("Like rates, the floor", seeds_text(group.floor), auc_text(group.floor))
    return *line, *[ABSENT] * (num_columns - len(line))


def full_method() -> BaheMethod:
    """BAHE as it is; what `settings_of` keeps of it does not depend on n."""
    return bahe(1)


def _everything_else(cell: Cell, origin: str) -> str:
    left_out = (BEHAVIOURS, "recipe", "seed", "numerics")
    config = {key: value for key, value in cell.config.items() if key not in left_out}
    sequences = cell.config[BEHAVIOURS]["sequences"]
    data = cell.runs[0].record["data"]
    targets = [data[name] for name in ("sha256", "train_targets", "validation_targets", "test_targets")]
    return canonical_json([origin, config, sequences, targets, cell.device])


def _title(cell: Cell, origin: str) -> str:
    config, data = cell.config, cell.runs[0].record["data"]
    sizes = f"{count(data['train_targets'])} training, {count(data['test_targets'])} test targets"
    title = (
        f"{config['dataset']}, protocol {config['protocol']}, tier {config['tier']} ({sizes}), "
        f"{config['backbone_settings']['title']}, n = {config['n']}, {cell.device}"
    )
    return f"{title} ({origin})" if origin == YOURS else title


def step_ms(cell: Cell) -> float:
    """Mean over runs of training time per optimiser step.

    Every target is a sample, and a batch holds `batch_targets` of them.
    """
    records = [run.record for run in cell.ok]
    per_epoch = [
        math.ceil(each["data"]["train_targets"] / each["config"]["training"]["batch_targets"])
        for each in records
    ]
    steps = [number * each["time"]["epochs"] for number, each in zip(per_epoch, records, strict=True)]
    times = [each["time"]["train_s"] for each in records]
    return mean(1000 * seconds / number for seconds, number in zip(times, steps, strict=True))


def comparisons(group: Group, reference: str) -> dict[str, tuple[Interval, float]]:
    """By variant: AUC minus the reference's, and its Holm-adjusted p-value over the group's variants.

    Over the seeds that both have, if there are any: both sides then differ in nothing else. A variant with
    the very scores of the reference is left out: nothing is to be tested there.
    """
    base = group.cells.get(reference)
    if base is None or not base.ok:
        return {}
    left_out = {reference, *unchanged(group, reference)}
    others = {name: cell for name, cell in group.cells.items() if name not in left_out and cell.ok}
    found = {name: difference(*_of_same_seeds(cell.ok, base.ok)) for name, cell in others.items()}
    adjusted = holm([each.p_value for each in found.values()])
    return {name: (each, p) for (name, each), p in zip(found.items(), adjusted, strict=True)}


def unchanged(group: Group, reference: str) -> list[str]:
    """Variants with the reference's seeds and, seed by seed, its scores to the last bit."""
    base = group.cells.get(reference)
    if base is None or not base.ok:
        return []
    return [name for name, cell in group.cells.items() if cell is not base and _same_scores(cell, base)]


def _same_scores(cell: Cell, other: Cell) -> bool:
    """Seed by seed; the scores themselves are read only where the records' metrics agree."""
    runs, others = ({run.record["config"]["seed"]: run for run in each.ok} for each in (cell, other))
    if runs.keys() != others.keys():
        return False
    pairs = [(runs[seed], others[seed]) for seed in runs]
    return all(one.record["metrics"] == two.record["metrics"] for one, two in pairs) and all(
        run_digest(one) == run_digest(two) for one, two in pairs
    )


def _of_same_seeds(runs: Sequence[Run], others: Sequence[Run]) -> tuple[Sequence[Run], Sequence[Run]]:
    seeds, other_seeds = ({run.record["config"]["seed"] for run in each} for each in (runs, others))
    shared = seeds & other_seeds or seeds | other_seeds
    chosen = ([run for run in each if run.record["config"]["seed"] in shared] for each in (runs, others))
    return next(chosen), next(chosen)


def variant_table(group: Group, titles: Mapping[str, str], reference: str) -> str:
    """One line per variant, "not run" where there is no record."""
    compared, base = comparisons(group, reference), group.cells.get(reference)
    same = unchanged(group, reference)
    lines = [floor_line(group, len(HEADERS))]
    for name, title in titles.items():
        cell = group.cells.get(name)
        if cell is None or not cell.ok:
            text = auc_text(cell)
            lines.append((title, seeds_text(cell), text, *[ABSENT] * (len(HEADERS) - 3)))
            continue
        auc, seconds = auc_interval(cell.ok), cell.mean("time", "train_s")
        base_s = base.mean("time", "train_s") if base is not None and comparable_times(cell, base) else None
        peak = cell.mean("memory", "peak_gib")
        lines.append(
            (
                title,
                seeds_text(cell),
                auc_text(cell),
                bounds(auc.low, auc.high),
                *((SAME, *[ABSENT] * 3) if name in same else _difference(compared.get(name))),
                _seconds(cell),
                ratio(seconds / base_s) if seconds and base_s else ABSENT,
                f"{step_ms(cell):,.1f}",
                duration(cell.mean("time", "table_build_s")),
                ABSENT if peak is None else f"{peak:.2f} GiB",
            )
        )
    return table(HEADERS, lines)


def _seconds(cell: Cell) -> str:
    """Mean training time, and lowest to highest of several seeds."""
    values, text = cell.values("time", "train_s"), duration(cell.mean("time", "train_s"))
    if len(values) < 2 or text == ABSENT:
        return text
    return f"{text} ({duration(min(values))} to {duration(max(values))})"


def _difference(found: tuple[Interval, float] | None) -> tuple[str, str, str, str]:
    if found is None:
        return ABSENT, ABSENT, ABSENT, ABSENT
    interval, p = found
    sides = bounds(interval.low, interval.high, "+.4f")
    return signed(interval.mean), sides, p_value(p), score(_detectable(interval))


def _detectable(difference: Interval) -> float:
    """Smallest true difference that the row's own test finds with the stated power."""
    return smallest_detectable_difference(difference.se, alpha=ALPHA, power=POWER)


def told_apart(group: Group, titles: Mapping[str, str], reference: str) -> str:
    """What the group's table can detect and which rows it tells apart from the reference."""
    compared = comparisons(group, reference)
    if not compared and unchanged(group, reference):
        return ""
    if not compared:
        return f"Nothing can be compared with {titles[reference]} yet, so nothing is claimed."
    limits = [_detectable(interval) for interval, _ in compared.values()]
    low, high = score(min(limits)), score(max(limits))
    spread = f"{low} AUC" if low == high else f"between {low} and {high} AUC, depending on the row"
    users = next(iter(compared.values()))[0].num_users
    apart = [titles[name] for name, (_, p) in compared.items() if p < ALPHA]
    few = min(each.num_seeds for each, _ in compared.values()) < MIN_SEEDS
    text = (
        f"The smallest detectable difference is {spread} ({plural(users, 'test user')}, two-sided test at "
        f"{ALPHA_TEXT} before Holm, power {POWER_TEXT}); a smaller one is likely to stay unseen. "
        f"{'Of these runs, told' if few else 'Told'} apart from *{titles[reference]}*, after Holm: "
        f"{'; '.join(apart) or 'none'}."
    )
    if few:
        text += (
            f" With fewer than {MIN_SEEDS} seeds in common that says nothing of the methods: what another "
            "course of training would change comes on top."
        )
    return text


def caveats(group: Group, titles: Mapping[str, str]) -> list[str]:
    """What a reader of the group's table must know: rows below the floor, times of several code versions."""
    having = [cell for cell in group.cells.values() if cell.ok]
    floor = None if group.floor is None else group.floor.mean("metrics", "auc")
    said = []
    if floor is not None and having and all((cell.mean("metrics", "auc") or 0.0) < floor for cell in having):
        epochs = plural(max(cell.most_epochs for cell in having), "epoch")
        said.append(
            f"Every row is below the like rates ({score(floor)}) after at most {epochs}: an order of them "
            "may be one of how fast they learn, not of how well."
        )
    return said + versions_of_code([(titles[name], cell) for name, cell in group.cells.items()])


def runs_details(group: Group, titles: Mapping[str, str]) -> list[str]:
    """Every run of the group, folded away."""
    runs = runs_table((titles[name], cell) for name, cell in group.cells.items())
    return folded("Runs", runs)


def not_run(titles: Sequence[str]) -> str:
    """The paragraph of a section without any record."""
    return f"{', '.join(titles)}: {NOT_RUN}."
