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
