"""Which sections of BAHE's page the index shows, with their comparisons: computed once for all its tables."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from repro.reporting.bahe_quality_rows import Group, Pair, Row, groups, pairs
from repro.reporting.floor import gains
from repro.reporting.inputs import COMMITTED, Inputs, data_title, only


@dataclass(frozen=True)
class MainGroup:
    """The committed rows of one data set and device."""

    group: Group
    data: str  # what the data set is called, if that is known

    @property
    def title(self) -> str:
        """Data set, protocol, tier and targets, without the device."""
        title = self.group.title.removesuffix(f", {self.group.device}")
        return f"{self.data}: {title}" if self.data else title

    @property
    def rows(self) -> list[Row]:
        """Those with results."""
        return [row for row in self.group.rows[COMMITTED] if row.cell.ok]

    @cached_property
    def pairs(self) -> list[Pair]:
        """The page's comparisons, Holm-adjusted over all of them."""
        return pairs(self.rows)

    @cached_property
    def above_floor(self) -> dict[str, str]:
        """Label of each trained row of this device -> whether it is clearly above the floor."""
        found = gains(self.group.trained(COMMITTED), self.group.floor[COMMITTED])
        return {gain.label: gain.verdict for gain in found}


def main_groups(inputs: Inputs) -> list[MainGroup]:
    """The largest size of each data set, devices side by side, in the order of the page."""
    found = groups(only(inputs, COMMITTED))
    most: dict[str, int] = {}
    for group in found:
        most[group.dataset] = max(group.train_targets, most.get(group.dataset, 0))
    largest = [group for group in found if group.train_targets == most[group.dataset]]
    return [MainGroup(group, data_title(inputs, group.runs(COMMITTED))) for group in largest]
