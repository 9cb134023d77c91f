"""The gate as a whole: records, prompts, behaviours, retrained runs, pages; and renewing its references."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from repro import paths
from repro.errors import ReproError
from repro.pipeline import Workshop
from repro.regression.behaviours import BehaviourProbe, behaviour_state, compare_behaviours
from repro.regression.committed import check_committed
from repro.regression.findings import Finding, Verdict, exact
from repro.regression.flops import check_flops
from repro.regression.prompts import PromptProbe, compare_prompts, prompt_state
from repro.regression.references import BEHAVIOURS, PROMPTS, SCORES, UPDATE, read_reference, write_reference
from repro.regression.retraining import METRICS, Configs, retrain, train_reference
from repro.regression.score_list import check_score_list, list_problems, score_checksums
from repro.reporting import check as check_pages
from repro.reporting.formatting import ABSENT, bounds, score, signed


@dataclass(frozen=True)
class Look:
    """A state of the untrained program, and its reference.

    Attributes:
        name: of the reference.
        state: looks, and returns the reference's content.
        compare: reference, state -> lines of the table.
    """

    name: str
    state: Callable[[], dict[str, Any]]
    compare: Callable[[dict[str, Any], dict[str, Any]], list[Finding]]

    def check(self, references: Path) -> list[Finding]:
        """Its lines; one that fails where there is no reference or nothing can be looked at."""
        try:
            reference = read_reference(references, self.name)
            state = self.state()
        except ReproError as error:
            return [Finding(self.name, Verdict.NOT_RUN, note=str(error))]
        if reference is None:
            return [Finding(self.name, Verdict.NOT_RUN, note=f"no reference: {UPDATE}")]
        return self.compare(reference, state)

    def update(self, references: Path) -> Iterator[str]:
        """Renew the reference; says what changed.

        Raises:
            ReproError: bad data or weights, or the file cannot be written.
        """
        before, state = _readable(references, self.name), self.state()
        if before is None:
            yield f"{self.name}: new"
        else:
            yield from (f"{f.metric}: {f.verdict}, {f.new}" for f in self.compare(before, state))
        write_reference(references, self.name, state)


@dataclass(frozen=True)
class Gate:
    """What is compared with what.

    Attributes:
        results, reports: committed records (references among them) and pages.
        rows: runs to train again, by the name of their reference.
        probe: data, model and prompt formats to look at.
        behaviours: data, model and methods over behaviours to look at.
        seeds: length of a reference list.
        data_dir: source files of data that no package carries, if they are here.
    """

    results: Path
    reports: Path
    rows: Mapping[str, Configs]
    probe: PromptProbe
    behaviours: BehaviourProbe
    seeds: int
    data_dir: Path | None = None

    @property
    def references(self) -> Path:
        """Folder of the reference files."""
        return self.results / "references"

    @property
    def published(self) -> Path:
        """Folder of the published values."""
        return paths.PROJECT_ROOT / "reports" / "reference"

    def check(self, workshop: Workshop) -> Iterator[Finding]:
        """Everything, line by line; a part that cannot run is a line that fails."""
        yield from check_committed(self.results, self.published, self.data_dir)
        yield from check_score_list(self.results)
        yield from check_flops(self.results, self.data_dir)
        differences = check_pages(self.results, None, self.reports)
        yield exact("pages against records", ABSENT, differences)
        for look in self._looks(workshop):
            yield from look.check(self.references)
        for name, configs in self.rows.items():
            try:
                reference = read_reference(self.references, name)
            except ReproError as error:
                yield Finding(name, Verdict.NOT_RUN, note=str(error))
                continue
            yield from retrain(name, reference, configs, workshop)

    def _looks(self, workshop: Workshop) -> list[Look]:
        return [
            Look(PROMPTS, lambda: prompt_state(self.probe, workshop), compare_prompts),
            Look(BEHAVIOURS, lambda: behaviour_state(self.behaviours, workshop), compare_behaviours),
        ]

    def update(self, workshop: Workshop) -> Iterator[str]:
        """Renew every reference; says what each was and has become.

        Raises:
            ReproError: bad data or weights, a run that did not end well, or a file cannot be written.
        """
        for look in self._looks(workshop):
            yield from look.update(self.references)
        listed = (_readable(self.references, SCORES) or {"scores": {}})["scores"]
        checksums = score_checksums(self.results)
        yield f"{SCORES}: {len(checksums)} runs, {len(list_problems(listed, checksums))} new, gone or changed"
        write_reference(self.references, SCORES, {"scores": checksums})
        for name, configs in self.rows.items():
            before = _readable(self.references, name)
            after = write_reference(self.references, name, train_reference(configs(self.seeds), workshop))
            yield difference(name, before, after)


def difference(name: str, before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> str:
    """Mean and range of each metric in two reference files."""

    def summary(reference: Mapping[str, Any] | None, metric: str) -> tuple[float, str, str]:
        if reference is None:
            return np.nan, ABSENT, ABSENT
        values = [run[metric] for run in reference["runs"]]
        return float(np.mean(values)), score(float(np.mean(values))), bounds(min(values), max(values))

    rows = []
    for metric, title in METRICS.items():
        old, new = summary(before, metric), summary(after, metric)
        change = ABSENT if before is None else signed(new[0] - old[0])
        rows.append((f"{name}, {title}", *old[1:], *new[1:], change))
    header = ("metric", "old mean", "old range", "new mean", "new range", "change")
    return tabulate(rows, header, tablefmt="github", disable_numparse=True)


def _readable(folder: Path, name: str) -> dict[str, Any] | None:
    """A reference that is to be replaced; a damaged one counts as none."""
    try:
        return read_reference(folder, name)
    except ReproError:
        return None
