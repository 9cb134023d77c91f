"""The floor's section for each device apart: Holm's adjustment must not grow with devices that ran a row."""

from __future__ import annotations

from collections.abc import Sequence

from repro.reporting.cells import Cell
from repro.reporting.floor import floor_section


def floor_sections(rows: Sequence[tuple[str, Cell]], floor: Sequence[Cell]) -> str:
    """`floor_section` of the rows of every device, under its name where there are several."""
    devices = dict.fromkeys(cell.device for _, cell in rows)
    if len(devices) < 2:
        return floor_section(rows, floor)
    parts = []
    for device in devices:
        of_device = [(label, cell) for label, cell in rows if cell.device == device]
        parts += [f"**{device}:**", floor_section(of_device, floor)]
    return "\n\n".join(parts)
