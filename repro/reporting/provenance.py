"""Where a page's numbers come from: runs, commits, devices, checksums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from repro.records.schema import OK
from repro.records.store import Run
from repro.reporting.cells import STATUS_WORDS, Cell, stale
from repro.reporting.formatting import ABSENT, compact, count, duration, score, table
from repro.reporting.scores import run_digest

RUN_HEADERS = (
    *("row", "seed", "AUC", "log loss", "validation AUC", "best epoch", "training time", "to best epoch"),
    *("compilation", "evaluation", "peak memory", "run", "scores sha256"),
)


def runs_table(rows: Iterable[tuple[str, Cell]]) -> str:
    """Every run behind a table, one line each; superseded ones too, which no cell counts."""
    lines = []
    for label, cell in rows:
        lines += [_run_line(label, run, superseded=False) for run in cell.runs]
        lines += [_run_line(label, run, superseded=True) for run in cell.superseded]
    return table(RUN_HEADERS, lines)


def provenance(runs: Sequence[Run]) -> str:
    """The closing section of a page: commits, devices, code and data checksums, versions of all its runs."""
    if not runs:
        return "## Provenance\n\nNo records."
    records = [run.record for run in runs]
    facts = {
        "git commit": (_commit(record["git"]) for record in records),
        "device": (f"{r['device']['count']} × {r['device']['name']}" for r in records),
        "code_sha256": (f"`{record['code_sha256']}`" for record in records),
        "data sha256": (
            f"{r['config']['dataset']}, protocol {r['config']['protocol']}: `{r['data']['sha256']}`"
            for r in records
        ),
        "versions": (versions(record["environment"]) for record in records),
    }
    lines = [
        (what, value, count(number))
        for what, values in facts.items()
        for value, number in sorted(Counter(values).items())
    ]
    return "## Provenance\n\n" + table(("what", "value", "runs"), lines)


def versions_of_code(rows: Iterable[tuple[str, Cell]]) -> list[str]:
    """A paragraph that says which rows were trained by which code; empty where all by the same."""
    found: dict[str, list[str]] = {}
    for label, cell in rows:
        for sha in sorted({run.record["git"]["sha"] or "no git" for run in cell.ok}):
            found.setdefault(sha[:10], []).append(label)
    if len(found) < 2:
        return []
    said = " — ".join(f"`{sha}`: {compact(labels)}" for sha, labels in found.items())
    return [f"Times are of several versions of the code, by commit: {said}."]


def _run_line(label: str, run: Run, superseded: bool) -> tuple[str, ...]:
    record = run.record
    time, peak = record["time"], record["memory"]["peak_gib"]
    ok = run.status == OK
    result = score(record["metrics"]["auc"]) if ok else STATUS_WORDS[run.status]
    if superseded or stale(run):
        result += ", stale, not counted" if superseded else ", stale"
    best = time["best_epoch"]
    return (
        label,
        str(record["config"]["seed"]),
        result,
        score(record["metrics"]["log_loss"]) if ok else ABSENT,
        score(record["validation"][best]["auc"]) if best is not None else ABSENT,
        f"{best + 1} of {time['epochs']}" if best is not None else ABSENT,
        duration(time["train_s"]),
        duration(time["train_to_best_s"]),
        duration(time["compile_s"]),
        duration(time["eval_s"]),
        ABSENT if peak is None else f"{peak:.2f} GiB",
        f"`{run.run_id}`",
        f"`{run_digest(run)}`" if ok else ABSENT,
    )


def _commit(git: Mapping[str, object]) -> str:
    if git["sha"] is None:
        return "none (no git)"
    return f"`{git['sha']}`" + (", with uncommitted changes" if git["dirty"] else "")


def versions(environment: Mapping[str, str | None]) -> str:
    """Versions in a record's environment, in words."""
    return ", ".join(f"{name} {version}" for name, version in sorted(environment.items()) if version)
