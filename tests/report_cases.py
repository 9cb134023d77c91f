"""What tests of several report pages share: changes that make a record, and a table read back."""

from __future__ import annotations

UNTRAINED = {
    "time.best_epoch": None,
    "time.epochs": 0,
    "time.train_s": None,
    "time.train_to_best_s": None,
    "validation": [],
}
NO_LLM = {"backbone": None, "backbone_settings": None, "tuning": None, "k": None, "fixes": None}


def table(text, heading, number=0):
    """Rows of a table below a heading, as {first cell: {header: cell}}."""
    block = text.split(f"### {heading}\n")[1 + number].split("\n#")[0]
    return {next(iter(row.values())): row for row in table_rows(block)}


def table_rows(block):
    """Rows of the one table of a block, as {header: cell}."""
    lines = [line for line in block.splitlines() if line.startswith("|")]
    headers, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(headers, row, strict=True)) for row in rows]
