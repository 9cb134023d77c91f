"""A section's shared configuration in words, and the settings in which its rows differ; all from records."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from repro.records.store import Run
from repro.reporting.cells import Cell, differing, flatten, plain, setting_text
from repro.reporting.formatting import compact, count, folded, listed, plural, table
from repro.reporting.sections import METHOD_TITLES, Row, Section

TUNING_WORDS = {"full": "full fine-tuning", "lora": "LoRA", None: "untrained"}
# Said in words below, where all rows share them; the rest is listed by name.
SPOKEN = {
    "training.max_epochs": "epochs at most: {}",
    "training.learning_rate": "learning rate: {}",
    "training.batch_targets": "targets per step: {}",
    "training.precision": "precision: {}",
}

FINGERPRINTS = (
    "`backbone_sha256` is of weights, tokenizer, layers and dtype; what two values in committed records "
    "mean: [backbones](../docs/backbones.md)."
)


def configuration(section: Section) -> str:
    """Bullets: model, data, context, training, devices; folded, every other setting that all rows share."""
    key, cells = section.key, section.all_cells
    shared = shared_settings(cells)
    spoken = [words.format(plain(shared[name])) for name, words in SPOKEN.items() if name in shared]
    bullets = {
        "Model": f"{key.backbone_title}; {TUNING_WORDS[key.tuning]}",
        "Data": _data(section),
        "Context": f"n = {key.n} interactions",
        "Training": ", ".join(spoken),
        "Device": "; ".join(_devices(section)),
    }
    text = "\n".join(f"- {name}: {text}." for name, text in bullets.items() if text)
    others = _others(section, shared)
    hidden = folded("Other settings that all rows share", f"{others}.") if others else []
    return "\n\n".join([text, *hidden])


def shared_settings(cells: Sequence[Cell]) -> dict[str, str]:
    """Settings that have the same value in every cell."""
    first, *others = [cell.settings for cell in cells]
    return {name: value for name, value in first.items() if all(each.get(name) == value for each in others)}


def differences(section: Section) -> str:
    """Table of the settings that are not the same in all rows; empty if there are none."""
    rows = _unique_rows(section)
    names = differing([cell for _, cell in rows])
    devices = len({cell.device for _, cell in rows}) > 1 and len(section.origins) == 1
    holders: dict[str, list[str]] = defaultdict(list)
    for label, cell in rows:
        told = [f"`{name}` = {setting_text(cell, name)}" for name in names if name in cell.settings]
        told += [f"device = {cell.device}"] if devices else []
        holders[", ".join(told)].append(label)
    if len(holders) < 2:
        return ""
    lines = [(compact(labels), settings) for settings, labels in holders.items()]
    note = f"\n\n{FINGERPRINTS}" if "backbone_sha256" in names else ""
    return "Settings that differ between rows:\n\n" + table(["rows", "settings"], lines) + note


def _data(section: Section) -> str:
    key = section.key
    runs = [run for cell in section.all_cells for run in cell.ok]
    targets = (
        f"{count(key.train_targets)} training, {count(key.validation_targets)} validation and "
        f"{count(key.test_targets)} test targets"
    )
    text = f"{key.dataset}, protocol {key.protocol}; {targets}"
    if not runs:
        return text
    left_out = runs[0].record["metrics"]["gauc_users_left_out"]
    return f"{text}, the latter of {_test_users(runs[0])} ({count(left_out)} of one class, left out of GAUC)"


def _test_users(run: Run) -> str:
    return plural(len(np.unique(run.targets().group)), "user")


def _devices(section: Section) -> list[str]:
    found = {origin: sorted({cell.device for cell in section.cells[origin]}) for origin in section.origins}
    if len(found) == 1:
        return [listed(names) for names in found.values()]
    return [f"{origin}: {listed(names)}" for origin, names in found.items()]


def _others(section: Section, shared: Mapping[str, str]) -> str:
    backbone = json.loads(section.key.backbone)
    for spoken in ("title", "tuning"):
        backbone.pop(spoken, None)
    settings = flatten({"backbone": backbone}) | {k: v for k, v in shared.items() if k not in SPOKEN}
    return ", ".join(f"`{name}` = {plain(value)}" for name, value in sorted(settings.items()))


def _unique_rows(section: Section) -> list[tuple[str, Cell]]:
    """Rows of SW, DTI- and DTI, each label once, whatever its origin."""
    rows: dict[str, Row] = {}
    for origin in section.origins:
        for row in section.rows(origin):
            if row.cell is not None and row.slot[0] in METHOD_TITLES:
                rows.setdefault(row.label, row)
    return [(row.label, row.cell) for row in rows.values() if row.cell is not None]
