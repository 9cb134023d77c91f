"""How pages name the methods that are no [SUM] methods, and in which order they stand."""

from __future__ import annotations

import re

ZERO_SHOT, FLOOR = "zero-shot", "rates"
# Three like rates, one of them alone, or none: nobody needs a model of taste for these.
FLOOR_TITLES = {
    FLOOR: "Like rates",
    "constant": "Constant",
    "user-rate": "User's like rate alone",
    "item-rate": "Item's like rate alone",
}
MODEL_TITLES = {"din": "DIN", "sasrec": "SASRec", "dcnv2": "DCNv2", "sim": "SIM", "gru4rec": "GRU4Rec"}
ID_TITLES = FLOOR_TITLES | MODEL_TITLES


def family(method: str) -> str:
    """`rates-20`, the like rates with an LLM's knowledge of the user, is of the family `rates`."""
    return re.sub(rf"^{FLOOR}-\d+$", FLOOR, method)


def is_floor(method: str) -> bool:
    """Whether a method is one of the like rates."""
    return family(method) in FLOOR_TITLES


def id_title(method: str, n: int | None) -> str:
    """Name without history length, unless that is what the method is named after."""
    title = ID_TITLES[family(method)]
    return title if method in ID_TITLES else f"{title} of the last {n}"
