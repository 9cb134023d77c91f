"""The words of a prompt: one instruction, one line per interaction, one answer token.

A prompt reads (answers of the context included, [SUM] last)::

    Given the user's earlier ratings, will the user like the next movie? Answer yes or no.
    Toy Story (1995), Animation, Children's, Comedy: yes
    GoldenEye (1995), Action, Adventure, Thriller:[SUM]

Ids, demographics, timestamps and gaps are never part of a prompt (DTI appendix, "remove all pure ID fields").
"""

from __future__ import annotations

from dataclasses import dataclass

SUM_TOKEN = "[SUM]"
_NOUNS = {
    "ml-100k": "movie",
    "ml-1m": "movie",
    "amazon-cds": "album",
    "amazon-kindle": "book",
}


@dataclass(frozen=True)
class Template:
    """How text becomes prompt pieces; each is tokenised alone, so a text has the same tokens everywhere.

    Attributes:
        instruction: first words of every prompt.
        interaction: format of one interaction; `{text}` is the item text of the data layer.
        max_item_tokens: an item text longer than this is cut at the end (the closing ":" is kept).
    """

    instruction: str
    interaction: str = "\n{text}:"
    max_item_tokens: int = 64


def template_for(dataset: str) -> Template:
    """The template of a data set; unknown names (own tables) speak of an "item"."""
    if dataset == "groceries":
        question = "Given the household's earlier purchases, will it buy more than one of the next product?"
    else:
        noun = _NOUNS.get(dataset, "item")
        question = f"Given the user's earlier ratings, will the user like the next {noun}?"
    return Template(instruction=f"{question} Answer yes or no.")
