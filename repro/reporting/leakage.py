"""Leakage on reports/bahe_open.md: what targets in streaming prompts know from beyond their windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from repro.evaluation.intervals import LEVEL
from repro.methods.bahe.settings import lower_layers
from repro.reporting.bahe_quality_rows import groups
from repro.reporting.bahe_sweeps import known_layers
from repro.reporting.cells import NOT_RUN
from repro.reporting.formatting import bounds, count, listed, plural, score, signed, table
from repro.reporting.inputs import ORIGINS, YOURS, Inputs
from repro.reporting.provenance import versions

Row = dict[str, Any]
HEADING = "6. Leakage of DTI over BAHE"
NO_LEAK = "nothing can leak: all in the window"
TITLES = {"dti": "DTI", "dti-bahe": "DTI over BAHE"}
LEGEND = (
    "Planted data: a label repeats the one exactly so many interactions back, all else is a coin flip, so "
    "AUC 0.5 is all that can be had without that label. Streaming prompts of k targets, users that nobody "
    "trained on. Up to n interactions back every window shows the label: the control, which says whether a "
    "model learns to look there. Beyond n no window shows it: what is above 0.5 has leaked through states. A "
    "layer that reads across interactions carries a label n further, so U of them reach n × U back; "
    "*beyond reach* marks distances that no information can come from. Within reach, 0.5 says that this "
    "training has not found the way, not that there is none. *Alone* are the same targets in the test "
    "format, which shows their window and nothing else: a model that has learned from the leak finds nothing "
    "there. SW and BAHE train on such prompts only, so nothing can leak into theirs."
)


def section(inputs: Inputs) -> list[str]:
    """Blocks of the section, without its heading."""
    blocks = [LEGEND]
    for origin in ORIGINS:
        for file in inputs.leakage[origin]:
            own = f" ({origin})" if origin == YOURS else ""
            for device, backbone in dict.fromkeys((row["device"], row["backbone"]) for row in file.rows):
                rows = [row for row in file.rows if (row["device"], row["backbone"]) == (device, backbone)]
                blocks += [
                    f"{backbone}, trained from scratch, {device}{own}; `leakage/{file.path.name}`, "
                    f"{versions(file.environment)}.",
                    _table(rows),
                    _summary(rows),
                ]
    if len(blocks) == 1:
        blocks.append(f"DTI and DTI over BAHE: {NOT_RUN}.")
    return [*blocks, *_of_quality_rows(inputs)]


def quality_line(inputs: Inputs) -> str:
    """Legend of the quality page: how far its streaming rows reach, and what that removes; empty without."""
    found = _streaming_rows(inputs)
    if not found:
        return ""
    said: dict[str, dict[str, list[str]]] = {}
    for name, layers, n, k in found:
        row = said.setdefault(f"{name}, {layers} × {n} = {count(layers * n)} back", {})
        removed = _removes(layers, n, k)
        row.setdefault(removed if removed == NO_LEAK else f"the depth removes {removed}", []).append(str(k))
    rows = [
        f"{name}, {', '.join(f'at k = {listed(ks)} {what}' for what, ks in verdicts.items())}"
        for name, verdicts in said.items()
    ]
    return (
        "in streaming prompts of training, states can carry labels from beyond a target's window, as far "
        "back as layers across interactions × n; test prompts show the window alone. The rows below: "
        f"{'; '.join(rows)}. Measured on planted data: [bahe_open](bahe_open.md#{_anchor(HEADING)})."
    )


def _anchor(heading: str) -> str:
    return heading.lower().replace(".", "").replace(" ", "-")


def _streaming_rows(inputs: Inputs) -> list[tuple[str, int, int, int]]:
    """(row, layers across interactions, n, k) of the quality page, where the number of layers is known."""
    found = set()
    for group in groups(inputs):
        for cell in (row.cell for origin in ORIGINS for row in group.rows[origin]):
            if cell.method in TITLES and cell.k is not None:
                config = cell.config
                total = config["backbone_settings"].get("layers") or known_layers(config["backbone"])
                if total is not None:
                    cut = (config.get("behaviours") or {}).get("layer_cut") or 0.0
                    found.add((TITLES[cell.method], total - lower_layers(cut, total), config["n"], cell.k))
    return sorted(found)


def _of_quality_rows(inputs: Inputs) -> list[str]:
    """Reach of the streaming rows of the quality page beside what their prompts show; empty without any."""
    found = _streaming_rows(inputs)
    if not found:
        return []
    lines = [
        (name, str(layers), str(n), str(k), count(layers * n), count(n + k - 1), _removes(layers, n, k))
        for name, layers, n, k in found
    ]
    headers = (
        "row", "layers across interactions", "n", "k", "reach, layers × n", "furthest in a prompt",
        "the depth removes",
    )  # fmt: skip
    text = (
        "The depth removes a leak only from beyond layers × n; a prompt's last target has nothing further "
        "back than n + k - 1 interactions, and where that is within reach, nothing is removed. At k = 1 all "
        "of a prompt lies in the window of its target, so nothing can leak. The "
        "streaming rows of [BAHE's quality page](bahe.md):"
    )
    return [text, table(headers, lines)]


def _removes(layers: int, n: int, k: int) -> str:
    reach, furthest = layers * n, n + k - 1
    if furthest <= n:
        return NO_LEAK
    return "nothing" if reach >= furthest else f"what lies {count(reach + 1)} or more back"


def _table(rows: Sequence[Row]) -> str:
    headers = (
        "row", "layers across interactions", "n", "k", "reach, layers × n", "signal at distance", "seed",
        "AUC, streaming", f"{100 * LEVEL:.0f} % interval", "above 0.5", "AUC, alone",
        "AUC of whoever sees the label", "training / test targets",
    )  # fmt: skip
    lines = []
    for row in sorted(rows, key=lambda row: (row["method"], -row["layers"], row["distance"], row["seed"])):
        lines.append(
            (
                title(row),
                str(row["layers"]),
                str(row["n"]),
                str(row["k"]),
                str(row["layers"] * row["n"]),
                f"{row['distance']}, {_visibility(row)}",
                str(row["seed"]),
                score(row["streaming_auc"]),
                bounds(row["streaming_low"], row["streaming_high"]),
                signed(row["streaming_auc"] - 0.5),
                score(row["window_auc"]),
                score(row["best_auc"]),
                f"{count(row['train_targets'])} / {count(row['test_targets'])}",
            )
        )
    return table(headers, lines)


def title(row: Row) -> str:
    """Method and, for BAHE, the share of its layers that read a behaviour alone."""
    cut = row["layer_cut"]
    return TITLES[row["method"]] + ("" if cut is None else f", {100 * cut:.0f} % of the layers cached")


def _visibility(row: Row) -> str:
    if row["distance"] <= row["n"]:
        return "in the window"
    return "beyond the window" if row["distance"] <= row["n"] * row["layers"] else "beyond reach"


def _summary(rows: Sequence[Row]) -> str:
    """Per method, the distances beyond the window at which every seed shows a leak."""
    sentences = []
    beyond = [(title(row), row["distance"]) for row in rows if row["distance"] > row["n"]]
    seeds = sorted({beyond.count(each) for each in beyond}) or [0]
    for name in dict.fromkeys(title(row) for row in rows):
        own = [row for row in rows if title(row) == name and row["distance"] > row["n"]]
        distances = sorted({row["distance"] for row in own})
        leaking = [d for d in distances if all(_leaks(row) for row in own if row["distance"] == d)]
        if not own:
            text = NOT_RUN
        elif leaking:
            text = f"leaks from {listed([str(d) for d in leaking])} interactions back"
        else:
            text = "no leak is seen"
        sentences.append(f"- {name}: {text}.")
    number = plural(seeds[-1], "seed")
    if seeds[0] < seeds[-1]:
        number = f"{count(seeds[0])} to {number}"
    rule = (
        f"Intervals above 0.5 and above the AUC alone, with every seed ({number} a row), beyond the window:\n"
    )
    return "\n".join([rule, *sentences])


def _leaks(row: Row) -> bool:
    return bool(row["streaming_low"] > max(0.5, row["window_auc"]))
