"""Distinct behaviours: the same tokens as in a prompt, shared texts once."""

from __future__ import annotations

import numpy as np
import pytest
from behaviour_cases import TEMPLATE, TITLES, make_behaviours, tiny

from repro.data.interactions import Items
from repro.errors import DataError
from repro.prompts.templates import Template
from repro.prompts.tokenise import tokenise_items


def test_tokens_are_those_of_a_prompt() -> None:
    backbone = tiny()
    behaviours = make_behaviours(backbone)
    items = Items(("0", "1", "2", "3"), TITLES, ((),) * 4)
    answers = (backbone.yes_id, backbone.no_id)
    tokenised = tokenise_items(items, backbone.tokenizer, TEMPLATE, answers)
    for item in range(4):
        own = tokenised.tokens[tokenised.offsets[item] : tokenised.offsets[item + 1]].tolist()
        numbers = np.array([behaviours.alone[item], *behaviours.answered[item]])
        alone, no, yes = (ids.tolist() for ids in behaviours.tokens_of(numbers))
        assert (alone, no, yes) == (own, [*own, backbone.no_id], [*own, backbone.yes_id])
        decoded = [backbone.tokenizer.decode(ids) for ids in (alone, no, yes)]
        assert behaviours.texts_of(numbers) == decoded


ODD = ("Up", "Heat", "Up", "Up: yes", "<eos> in a title", "Élan", "日本語", "a longer title, Drama", "Heat")


def one_by_one(titles, template: Template) -> dict[str, list]:
    """What `behaviours_of` gives, behaviour by behaviour."""
    whole = tiny()
    found: dict[str, list[int]] = {}

    def number_of(title: str, ending: int | None) -> int:
        text = template.interaction.format(text=title)
        ids = whole.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        if len(ids) > template.max_item_tokens:
            ids = ids[: template.max_item_tokens - 1] + ids[-1:]
        if ending is not None:
            text, ids = text + whole.tokenizer.decode([ending]), [*ids, ending]
        assert found.setdefault(text, ids) == ids
        return list(found).index(text)

    answered = [[number_of(title, ending) for ending in (whole.no_id, whole.yes_id)] for title in titles]
    alone = [number_of(title, None) for title in titles]
    return {"text": list(found), "tokens": list(found.values()), "answered": answered, "alone": alone}


@pytest.mark.parametrize("titles", [TITLES, ODD, ODD[::-1], ("Up",), ("Up", "Up")])
@pytest.mark.parametrize("limit", [6, 48])
def test_all_at_once_is_one_by_one(titles, limit) -> None:
    template = Template(instruction="", max_item_tokens=limit)
    found, expected = make_behaviours(tiny(), titles, template), one_by_one(titles, template)
    assert list(found.text) == expected["text"]
    assert [ids.tolist() for ids in found.tokens_of(np.arange(len(found)))] == expected["tokens"]
    assert found.answered.tolist() == expected["answered"] and found.alone.tolist() == expected["alone"]
    kinds = [array.dtype for array in (found.tokens, found.offsets, found.answered, found.alone)]
    assert kinds == [np.int32, *[np.int64] * 3]


def test_one_text_with_two_token_sequences_is_noticed() -> None:
    """An item whose text ends as an answer does, and is one token there and several here."""
    template = Template(instruction="", interaction="{text}", max_item_tokens=4)
    with pytest.raises(AssertionError, match="two token sequences"):
        make_behaviours(tiny(), ("some film", "some film yes"), template)


def test_a_text_that_two_items_share_stands_once() -> None:
    behaviours = make_behaviours(tiny())
    assert len(behaviours) == len(behaviours.lengths) == 3 * 3 == len(set(behaviours.text))
    assert behaviours.alone[0] == behaviours.alone[3] != behaviours.alone[1]
    assert behaviours.answered[0].tolist() == behaviours.answered[3].tolist()
    assert len(set(behaviours.answered[:3].flatten()) | set(behaviours.alone[:3])) == 9


def test_a_long_text_is_cut_as_in_a_prompt_and_keeps_its_own_key() -> None:
    template = Template(instruction="", max_item_tokens=8)
    titles = ("the same beginning, then this", "the same beginning, then that")
    behaviours = make_behaviours(tiny(), titles, template)
    assert behaviours.lengths[behaviours.alone].tolist() == [8, 8]
    assert behaviours.lengths[behaviours.answered].tolist() == [[9, 9], [9, 9]]
    assert len(behaviours) == 6, "told apart by their whole texts"


def test_an_empty_text_is_refused() -> None:
    with pytest.raises(DataError, match="item 1: its text is empty"):
        make_behaviours(tiny(), ("Alien", "  "))
