"""Figures of the cost pages: lines on axes, with a sidecar of the plotted numbers as `figure2` has."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from repro.records.atomic import json_bytes
from repro.reporting.drawing import METADATA, STYLE

COLOURS = ("#1b6ca8", "#d95f02", "#2e7d32", "#7b3294", "#444444", "#b8860b")
DIGITS = 6  # significant ones of a plotted number


def figure_files(name: str, panels: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
    """`name`.png, `name`.svg and `name`.json with what they show.

    A panel has a title, x and y (labels), `log` (both axes logarithmic) and `lines`: name, style ("line" for
    what was counted, "dashed" for theory), points [[x, y], ...]. `room`, of a panel that is not logarithmic:
    how far its y axis reaches beyond the largest value, as a share of it.
    """
    data = {"panels": [_rounded(panel) for panel in panels]}
    images = {f"{name}.{kind}": _drawn(json.dumps(data), kind) for kind in ("png", "svg")}
    sidecar = {
        "data": data,
        "images_sha256": {file: hashlib.sha256(content).hexdigest() for file, content in images.items()},
        "renderer": {"matplotlib": matplotlib.__version__},
    }
    return {**images, f"{name}.json": json_bytes(sidecar)}


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
    colours = iter(COLOURS * 3)
    for line in panel["lines"]:
        dashed = line["style"] == "dashed"
        style: dict[str, Any] = (
            {"linestyle": "--", "linewidth": 1.1} if dashed else {"marker": "o", "markersize": 4}
        )
        x, y = zip(*line["points"], strict=True)
        axes.plot(x, y, label=line["name"], color=next(colours), **style)
    if panel["log"]:
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks([x for x, _ in panel["lines"][0]["points"]])
        axes.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
    else:
        axes.set_ylim(bottom=0)  # a difference of some per cent must not look like a slope
        if "room" in panel:
            axes.set_ylim(
                top=(1 + panel["room"]) * max(y for line in panel["lines"] for _, y in line["points"])
            )
    axes.set_title(panel["title"], fontsize=9, loc="left")
    axes.set_xlabel(panel["x"])
    axes.set_ylabel(panel["y"])
    axes.legend(loc="best")


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _rounded(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
