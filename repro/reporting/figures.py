"""Figures of all pages but `figure2`: lines on axes, with a sidecar of the plotted numbers."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from repro.records.atomic import json_bytes
from repro.reporting.drawing import METADATA, STYLE

COLOURS = ("#1b6ca8", "#d95f02", "#2e7d32", "#7b3294", "#444444", "#b8860b", "#c2185b")
DIGITS = 6  # significant ones of a plotted number


def figure_files(name: str, panels: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
    """`name`.png, `name`.svg and `name`.json with what they show.

    A panel has a title, x and y (labels) and `lines`: name, style ("line" for what was counted or measured,
    "dashed" for theory), points [[x, y], ...] in the order to join them, at will `bounds` [[low, high], ...]
    of an interval around each, `failed` {"OOM": [x, ...]} for what has no value, and the number of a `colour`
    (else they take turns). Its axes are `log` (both logarithmic, ticks where points are) or not (y from
    zero); `log_x` and `signed` (y is a difference: zero is marked) are for one axis each. `room`: how far a
    y axis from zero reaches beyond the largest value, as a share of it.
    """
    data = {"panels": [_rounded(panel) for panel in panels]}
    images = {f"{name}.{kind}": _drawn(json.dumps(data), kind) for kind in ("png", "svg")}
    sidecar = {
        "data": data,
        "images_sha256": {file: hashlib.sha256(content).hexdigest() for file, content in images.items()},
        "renderer": {"matplotlib": matplotlib.__version__},
    }
    return {**images, f"{name}.json": json_bytes(sidecar)}


def figure_text(name: str, shows: str) -> list[str]:
    """Blocks that put a page's figure in and say where its numbers are."""
    return [
        f"![{shows}]({name}.png)",
        f"The same as [SVG]({name}.svg); the plotted numbers are in [{name}.json]({name}.json).",
    ]


@lru_cache(maxsize=8)  # a page is often rendered again without a change
def _drawn(data: str, kind: str) -> bytes:
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's matplotlibrc must not change the figure
        matplotlib.rcParams.update(STYLE)
        sink = io.BytesIO()
        _figure(json.loads(data)["panels"]).savefig(sink, format=kind, dpi=150, metadata=METADATA[kind])
    return sink.getvalue()


def _figure(panels: Sequence[Mapping[str, Any]]) -> Figure:
    num_rows = max(1, -(-len(panels) // 2))
    figure = Figure(figsize=(9.5, 0.3 + 3.5 * num_rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(num_rows, 2, squeeze=False).flatten()
    for axis, panel in zip(axes, panels, strict=False):
        _panel(axis, panel)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    return figure


def _panel(axes: Axes, panel: Mapping[str, Any]) -> None:
    if panel.get("signed"):
        axes.axhline(0.0, color="#444444", linewidth=1.0)
    for number, line in enumerate(panel["lines"]):
        _line(axes, line, COLOURS[line.get("colour", number) % len(COLOURS)])
    if panel["log"]:
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(sorted({x for line in panel["lines"] for x in _places(line)}))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        _plain_ticks(axes.yaxis)
    elif panel.get("log_x"):
        axes.set_xscale("log")
        _plain_ticks(axes.xaxis)
    if not panel["log"] and not panel.get("signed"):
        axes.set_ylim(bottom=0)  # a difference of some per cent must not look like a slope
        if "room" in panel:
            axes.set_ylim(
                top=(1 + panel["room"]) * max(y for line in panel["lines"] for _, y in line["points"])
            )
    axes.set_title(panel["title"], fontsize=9, loc="left")
    axes.set_xlabel(panel["x"])
    axes.set_ylabel(panel["y"])
    axes.legend(loc="best")


def _line(axes: Axes, line: Mapping[str, Any], colour: str) -> None:
    """Its points, their intervals, and at the upper edge what failed where."""
    dashed = line["style"] == "dashed"
    style: dict[str, Any] = (
        {"linestyle": "--", "linewidth": 1.1} if dashed else {"marker": "o", "markersize": 4}
    )
    points = line["points"]
    axes.plot([x for x, _ in points], [y for _, y in points], label=line["name"], color=colour, **style)
    for (x, _), (low, high) in zip(points, line.get("bounds", []), strict=False):
        axes.vlines(x, low, high, color=colour, linewidth=1.0)
    for word, places in line.get("failed", {}).items():
        for x in places:
            axes.text(
                x, 0.97, word, transform=axes.get_xaxis_transform(), color=colour, ha="center", va="top"
            )


def _places(line: Mapping[str, Any]) -> list[float]:
    """Where a line has a value or failed."""
    return [x for x, _ in line["points"]] + [x for places in line.get("failed", {}).values() for x in places]


def _plain_ticks(axis: Axis) -> None:
    """1, 2 and 5 of each decade in plain digits, fewer over many decades."""
    low, high = axis.get_view_interval()
    steps = (1, 2, 5) if high / low < 500 else (1,)
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _rounded(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
