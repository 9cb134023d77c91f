"""Drawing Figure 2 from its plotted numbers; the same numbers and versions give the same bytes."""

from __future__ import annotations

import io
import json
import textwrap
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from repro.reporting.methods import FLOOR
from repro.reporting.references import PAPER_DATASETS, STAND_IN
from repro.reporting.sections import KS, METHOD_TITLES, SW

COLOURS = {FLOOR: "#4d9221", "sw": "#444444", "dti-minus": "#d95f02", "dti": "#1b6ca8"}
TITLE_WIDTH = 62  # characters that fit above a panel
MARKERS = ("o", "s", "^", "D", "v", "P")  # one per setting of a method
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "figure2",  # else element ids are random
    "svg.fonttype": "path",  # else the viewer's fonts decide the layout
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
}
METADATA: dict[str, dict[str, None]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}


def draw(data: Mapping[str, Any], kind: str) -> bytes:
    """An image ("png" or "svg") of `figure2.figure_data`'s numbers, without date or version inside."""
    return _drawn(json.dumps(data), kind)


@lru_cache(
    maxsize=8
)  # a table's pages are rendered after each run, and most runs leave some of them as they are
def _drawn(data: str, kind: str) -> bytes:
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's matplotlibrc must not change the figure
        matplotlib.rcParams.update(STYLE)
        figure = _figure(json.loads(data))
        sink = io.BytesIO()
        figure.savefig(sink, format=kind, dpi=150, metadata=METADATA[kind])
    return sink.getvalue()


def _figure(data: Mapping[str, Any]) -> Figure:
    panels = data["panels"]
    num_rows = max(1, len(panels))
    figure = Figure(figsize=(9.5, 0.3 + 3.5 * num_rows), layout="constrained")
    FigureCanvasAgg(figure)
    if not panels:
        _draw_relative(
            figure.subplots(), {"title": "Not run", "series": [], "paper": STAND_IN}, data["paper"]
        )
        return figure
    axes = figure.subplots(num_rows, 2, squeeze=False)
    for (left, right), panel in zip(axes, panels, strict=True):
        _draw_auc(left, panel)
        _draw_relative(right, panel, data["paper"])
    return figure


def _draw_auc(axes: Axes, panel: Mapping[str, Any]) -> None:
    """AUC against k; SW, which has k = 1, as a horizontal line."""
    if panel["floor"] is not None:
        axes.axhline(panel["floor"], color=COLOURS[FLOOR], linewidth=1.2, linestyle=":", label="Like rates")
    sw = panel["sw"]
    if sw:
        axes.axhline(sw["auc"], color=COLOURS[SW], linewidth=1.2, label=sw["name"])
        axes.axhspan(sw["low"], sw["high"], color=COLOURS[SW], alpha=0.10, linewidth=0)
    for series, marker in _marked(panel["series"]):
        points = series["points"]
        _curve(axes, points, ("auc", "low", "high"), series["method"], marker, series["name"])
    axes.set_title(textwrap.fill(panel["title"], TITLE_WIDTH), fontsize=9, loc="left")
    _finish(axes, panel, "AUC")


def _draw_relative(axes: Axes, panel: Mapping[str, Any], curves: Mapping[str, Any]) -> None:
    """AUC relative to SW, with the paper's dashed: different models and data meet on this axis only."""
    name = panel["sw"]["name"] if panel.get("sw") else METHOD_TITLES[SW]
    axes.axhline(0.0, color=COLOURS[SW], linewidth=1.2, label=name)
    for series, marker in _marked(panel["series"]):
        points = [point for point in series["points"] if "relative" in point]
        names = ("relative", "relative_low", "relative_high")
        _curve(axes, points, names, series["method"], marker, series["name"])
    for method, points in sorted(
        curves[panel["paper"]].items(), key=lambda item: list(COLOURS).index(item[0])
    ):
        label = f"{METHOD_TITLES[method]}, paper, {PAPER_DATASETS[panel['paper']]}, 8B"
        style: dict[str, Any] = {"color": COLOURS[method], "linestyle": "--", "linewidth": 1.1, "alpha": 0.8}
        axes.plot([p[0] for p in points], [p[1] for p in points], label=label, **style)
    axes.set_title("relative to SW", fontsize=9, loc="left")
    _finish(axes, panel, "relative AUC (%)")


def _curve(
    axes: Axes,
    points: list[dict[str, float]],
    names: tuple[str, str, str],
    method: str,
    marker: str,
    label: str,
) -> None:
    if not points:
        return
    ks = [point["k"] for point in points]
    mean, low, high = ([point[name] for point in points] for name in names)
    style: dict[str, Any] = {"color": COLOURS[method], "marker": marker, "markersize": 4, "linewidth": 1.5}
    axes.plot(ks, mean, label=label, **style)
    if len(points) == 1:  # a band of one point cannot be seen
        axes.vlines(ks, low, high, color=COLOURS[method], linewidth=1.0)
    axes.fill_between(ks, low, high, color=COLOURS[method], alpha=0.15, linewidth=0)


def _marked(series: list[dict[str, Any]]) -> list[tuple[dict[str, Any], str]]:
    """Each series with a marker of its own among those of its method."""
    counts: dict[str, int] = {}
    marked = []
    for each in series:
        number = counts.setdefault(each["method"], 0)
        counts[each["method"]] += 1
        marked.append((each, MARKERS[number % len(MARKERS)]))
    return marked


def _finish(axes: Axes, panel: Mapping[str, Any], label: str) -> None:
    ks = sorted({*KS, *(int(point["k"]) for series in panel["series"] for point in series["points"])})
    axes.set_xticks(ks)
    axes.set_xlim(0, ks[-1] + ks[0])
    axes.set_xlabel("k, targets per streaming prompt")
    axes.set_ylabel(label)
    axes.legend(loc="best")
