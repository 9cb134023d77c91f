"""Rows of a table by name, as the command line picks them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from repro.errors import ConfigError


def pick_rows(
    selection: str | None, rows: Collection[str], groups: Mapping[str, Collection[str]]
) -> list[str]:
    """Row names of a comma-separated selection of rows and groups, each once; None is the group `all`.

    Raises:
        ConfigError: an unknown row.
    """
    names: list[str] = []
    for part in (selection or "all").split(","):
        for name in groups.get(part.strip(), (part.strip(),)):
            if name not in rows:
                known = f"groups {', '.join(groups)}; rows {', '.join(rows)}"
                raise ConfigError("rows", repr(name), known, "pass some of these to --rows, comma-separated")
            if name not in names:
                names.append(name)
    return names
