"""reports/figure2.*: AUC against k for SW, DTI- and DTI with bootstrap bands, beside the paper's curve.

`figure2.json` holds what is plotted and the checksums of the two images. Pixels depend on the versions of
matplotlib and FreeType, so `render.check` compares the plotted numbers with fresh ones, and the image files
with the checksums that were written together with them: data that moved, an edited, swapped or missing image
and an edited number all show, on any machine.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

from repro.evaluation.intervals import LEVEL
from repro.records.atomic import json_bytes
from repro.records.store import Run
from repro.reporting.cells import NOT_RUN, Cell, differing, setting_text
from repro.reporting.drawing import draw
from repro.reporting.figures import figure_text
from repro.reporting.formatting import bounds, page, percent, plural, score, summary, table
from repro.reporting.inputs import YOURS, Inputs
from repro.reporting.lines import Line, section_lines
from repro.reporting.methods import FLOOR
from repro.reporting.provenance import provenance
from repro.reporting.references import PAPER_DATASETS, PaperScore, paper_dataset
from repro.reporting.sections import DTI, DTI_MINUS, METHOD_TITLES, SW, Row, Section, build_sections

DIGITS = 6  # of plotted numbers: finer than any pixel, coarser than the rounding noise of another machine


def render(inputs: Inputs) -> dict[str, bytes]:
    """The page, both images and their sidecar."""
    exact = figure_data(inputs)
    data = _rounded(exact)
    images = {f"figure2.{kind}": draw(data, kind) for kind in ("png", "svg")}
    sidecar = {
        "data": data,
        "images_sha256": {name: hashlib.sha256(content).hexdigest() for name, content in images.items()},
        "renderer": {"matplotlib": matplotlib.__version__},
    }
    return {**images, "figure2.json": json_bytes(sidecar), "figure2.md": _page(inputs, exact)}


def state(inputs: Inputs) -> str:
    """How many points there are, for the index: counted, since what they show takes bootstraps."""
    number, panels, names = 0, 0, []
    for section in build_sections(inputs):
        for origin in section.origins:
            done = [row for row in section.rows(origin) if row.cell is not None and row.cell.ok]
            for device in _devices(done):
                slots = [row.slot[0] for row in done if row.cell is not None and row.cell.device == device]
                number += sum(method in (DTI_MINUS, DTI) for method in slots) + (SW in slots)
                panels += 1
                names.append(section.key.dataset)
    text = f"{plural(number, 'point')} in {plural(panels, 'panel')}"
    return summary(text, names) if panels else NOT_RUN


def figure_data(inputs: Inputs) -> dict[str, Any]:
    """What is plotted: one panel per section, origin and device that has results, and the paper's curves.

    A panel holds `floor` (AUC of the like rates) or null, `sw` (name, auc, low, high) or null, `series` of
    points (k, auc, low, high and, where there is an SW to compare with, relative, relative_low, relative_high
    in percent), and `paper`: the name of the data set whose published curve is drawn beside it.
    """
    panels = []
    for section in build_sections(inputs):
        paper, _ = paper_dataset(section.key.dataset)
        for origin in section.origins:
            done = [line for line in section_lines(section, origin) if line.auc is not None]
            floor = next((line.auc.mean for line in done if line.row.slot[0] == FLOOR and line.auc), None)
            for device in _devices([line.row for line in done]):
                lines = [line for line in done if line.own and _device(line.row) == device]
                curves = {"floor": floor, "sw": _sw(lines, device), "series": _series(lines)}
                panels.append({"title": _title(section, origin, device), "paper": paper, **curves})
    return {"panels": panels, "paper": _paper_curves(inputs.paper_scores)}


def _device(row: Row) -> str:
    return row.cell.device if row.cell is not None else ""


def _devices(rows: Sequence[Row]) -> list[str]:
    """Devices of SW, DTI- and DTI: a panel each, since points of two would lie upon each other."""
    return sorted({_device(row) for row in rows if row.slot[0] in METHOD_TITLES})


def _title(section: Section, origin: str, device: str) -> str:
    """Of a panel; the device is named where the section has several."""
    title = section.title
    if len({cell.device for cell in section.all_cells if cell.ok}) > 1:
        title += f", {device}"
    return title + (f" ({origin})" if YOURS in section.origins else "")


def _sw(lines: Sequence[Line], device: str) -> dict[str, Any] | None:
    """The SW that most points are compared with, its device in its name where that is another one."""
    used = [line.sw for line in lines if line.sw is not None]
    found = used or [line for line in lines if line.row.slot[0] == SW]
    if not found:
        return None
    labels = [line.row.label for line in found]
    line = max(found, key=lambda each: labels.count(each.row.label))
    assert line.auc is not None
    name = METHOD_TITLES[SW] + ("" if _device(line.row) == device else f", on {_device(line.row)}")
    return {"name": name, "auc": line.auc.mean, "low": line.auc.low, "high": line.auc.high}


def _series(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """DTI- and DTI, one series per setting, so that a curve changes nothing but k."""
    groups: dict[tuple[str, str], list[Line]] = defaultdict(list)
    for line in lines:
        if line.row.slot[0] in (DTI_MINUS, DTI) and line.row.cell is not None:
            groups[line.row.slot[0], str(sorted(line.row.cell.settings.items()))].append(line)
    series = []
    order = list(METHOD_TITLES)
    for key in sorted(groups, key=lambda key: (order.index(key[0]), *key)):
        cells = [group[0].row.cell for other, group in groups.items() if other[0] == key[0]]
        name = _name(groups[key][0].row.cell, [cell for cell in cells if cell])
        points = [_point(line) for line in sorted(groups[key], key=lambda line: line.row.slot[1] or 0)]
        series.append({"method": key[0], "name": name, "points": points})
    return series


def _name(cell: Cell | None, variants: Sequence[Cell]) -> str:
    assert cell is not None
    told = [f"{name} = {setting_text(cell, name)}" for name in differing(variants)]
    return ", ".join([METHOD_TITLES[cell.method], *told])


def _point(line: Line) -> dict[str, float]:
    assert line.auc is not None
    point: dict[str, float] = {"auc": line.auc.mean, "low": line.auc.low, "high": line.auc.high}
    if line.to_sw is not None and line.sw is not None and line.sw.auc is not None:
        scale, d = 100 / line.sw.auc.mean, line.to_sw.difference
        point |= {"relative": d.mean * scale, "relative_low": d.low * scale, "relative_high": d.high * scale}
    return {"k": line.row.slot[1] or 0, **point}


def _rounded(value: Any) -> Any:
    """The same tables and lists with their floats rounded."""
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return round(value, DIGITS) if isinstance(value, float) else value


def _paper_curves(
    paper: Mapping[tuple[str, str, int], PaperScore],
) -> dict[str, dict[str, list[list[float]]]]:
    """Published relative AUC by data set and method: [[k, percent], ...]."""
    curves: dict[str, dict[str, list[list[float]]]] = {dataset: {} for dataset in PAPER_DATASETS}
    for (dataset, method, k), values in sorted(paper.items()):
        if values.relative_percent is not None:
            curves[dataset].setdefault(method, []).append([k, values.relative_percent])
    return curves


def _page(inputs: Inputs, data: Mapping[str, Any]) -> bytes:
    blocks = [
        *figure_text("figure2", "AUC against k for SW, DTI- and DTI"),
        f"Left: mean AUC over seeds; bands are {100 * LEVEL:.0f} % bootstrap intervals over users and seeds. "
        "Right: AUC relative to SW in percent, bands from the paired difference to SW; dashed: the paper's "
        "values (Llama-3.1-8B-Instruct), which are comparable on this axis only. Dotted: the like rates, the "
        "floor that every method has to beat ([baselines](baselines.md)). Devices have panels of their own.",
    ]
    if not data["panels"]:
        blocks.append(
            "Not run: no record of SW, DTI- or DTI is there; the figure shows the paper's values only."
        )
    for panel in data["panels"]:
        blocks += [f"## {panel['title']}", _points_table(panel, data["paper"][panel["paper"]])]
    blocks.append(provenance(_runs(build_sections(inputs))))
    return page("DTI, Figure 2: AUC against k", "figure2", blocks)


def _points_table(panel: Mapping[str, Any], curves: Mapping[str, list[list[float]]]) -> str:
    headers = ["curve", "k", "AUC", "interval", "relative to SW", "interval (%)"]
    headers += [f"paper, {PAPER_DATASETS[panel['paper']]}"]
    floor = panel["floor"]
    lines = [("Like rates", "", "not run" if floor is None else score(floor), "", "", "", "")]
    if panel["sw"]:
        sw = panel["sw"]
        lines.append((sw["name"], "1", score(sw["auc"]), bounds(sw["low"], sw["high"]), "", "", ""))
    for series in panel["series"]:
        published = {k: value for k, value in curves.get(series["method"], [])}
        for point in series["points"]:
            relative = "relative" in point
            lines.append(
                (
                    series["name"],
                    str(point["k"]),
                    score(point["auc"]),
                    bounds(point["low"], point["high"]),
                    percent(point.get("relative")),
                    bounds(point["relative_low"], point["relative_high"], "+.2f") if relative else "",
                    percent(published.get(point["k"])),
                )
            )
    return table(headers, lines)


def _runs(sections: Sequence[Section]) -> list[Run]:
    runs = {r.path: r for s in sections for cell in s.all_cells for r in cell.ok}
    return list(runs.values())
