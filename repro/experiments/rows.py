"""Rows of a table by name, as the command line picks them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

from repro.errors import ConfigError

Each = TypeVar("Each")


def pick_rows(
    selection: str | None, rows: Collection[str], groups: Mapping[str, Collection[str]]
) -> list[str]:
    """Row names of a comma-separated selection of rows and groups, each once; None is the group `all`.

    Raises:
        ConfigError: an unknown row.
    """
    names: list[str] = []
    for part in ("all" if selection is None else selection).split(","):
        for name in groups.get(part.strip(), (part.strip(),)):
            if name not in rows:
                known = f"groups {', '.join(groups)}; rows {', '.join(rows)}"
                raise ConfigError("rows", repr(name), known, "pass some of these to --rows, comma-separated")
            if name not in names:
                names.append(name)
    return names


def share_of(everything: Sequence[Each], share: str | None) -> list[Each]:
    """A process's share of runs or trials: of "2/4" every fourth, from the second on; None is all.

    Raises:
        ConfigError: not two whole numbers i/n with 1 <= i <= n.
    """
    if share is None:
        return list(everything)
    found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", share)
    if found is None or int(found[1]) > int(found[2]):
        expected = "i/n with 1 <= i <= n, e.g. 1/4"
        raise ConfigError("share", repr(share), expected, "give each of n processes its own number i")
    return list(everything[int(found[1]) - 1 :: int(found[2])])


def is_first_share(share: str | None) -> bool:
    """Whether what is made once, whatever the number of shares, belongs to this one."""
    return share is None or share.split("/")[0] == "1"
