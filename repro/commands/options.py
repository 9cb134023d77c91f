"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

TierOption = Annotated[
    str | None, typer.Option(help="test, cpu, gpu or paper; default: gpu if there is one, else cpu.")
]
DatasetOption = Annotated[str | None, typer.Option(help="Data set; default: the tier's first.")]
ProtocolOption = Annotated[str | None, typer.Option(help="dti, rella or per-user; default: the data set's.")]
DataDirOption = Annotated[
    Path | None, typer.Option(help="Folder (table: file) with the data set's source files.")
]
RowsOption = Annotated[str | None, typer.Option(help="Rows or groups, comma-separated; default: all.")]
SeedsOption = Annotated[int | None, typer.Option(help="Seeds per row; default: the tier's.")]
PublishOption = Annotated[
    bool, typer.Option("--publish", help="Copy the finished runs to results/ afterwards.")
]
ShareOption = Annotated[
    str | None, typer.Option(help="i/n: make every n-th run from the i-th on; for one process per GPU.")
]
