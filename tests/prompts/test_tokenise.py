"""Item texts as tokens, and the checksum that identifies them."""

from dataclasses import replace

import numpy as np
import pytest

from repro.backbones.tokenizer import answer_ids, tiny_tokenizer
from repro.data.interactions import Items
from repro.errors import DataError
from repro.prompts import tokenise
from repro.prompts.templates import Template, template_for
from repro.prompts.tokenise import TokenisedItems, tokenise_items

TOKENIZER = tiny_tokenizer()
TEMPLATE = Template("Say.", max_item_tokens=12)


def tokenised(texts: list[str], template: Template = TEMPLATE, tokenizer=TOKENIZER) -> TokenisedItems:
    items = Items(tuple(f"key {i}" for i in range(len(texts))), tuple(texts), ((),) * len(texts))
    return tokenise_items(items, tokenizer, template, answer_ids(tokenizer))


def text_of(tokens: TokenisedItems, item: int) -> str:
    return TOKENIZER.decode(tokens.tokens[tokens.offsets[item] : tokens.offsets[item + 1]])


def test_every_item_stands_on_a_line_of_its_own_and_ends_in_a_colon() -> None:
    found = tokenised(["Up", "Élan {x}"])
    assert [text_of(found, i) for i in range(2)] == ["\nUp:", "\nÉlan {x}:"]
    assert TOKENIZER.decode(found.instruction) == "Say."
    assert found.lengths.tolist() == np.diff(found.offsets).tolist()
    assert TOKENIZER.decode([found.yes_id]) == " yes" and TOKENIZER.decode([found.no_id]) == " no"


def test_a_long_text_is_cut_at_its_end_and_keeps_the_colon() -> None:
    exactly, longer = "x" * 10, "x" * 9 + "y" * 50  # with the line break and the colon: 12 and 61 tokens
    found = tokenised([exactly, longer, "Up"])
    assert [text_of(found, i) for i in range(3)] == [f"\n{exactly}:", "\n" + "x" * 9 + "y:", "\nUp:"]
    assert found.lengths.max() == TEMPLATE.max_item_tokens


def test_an_item_reads_the_same_wherever_it_stands() -> None:
    one, two = tokenised(["Up", "Toy Story"]), tokenised(["Toy Story"])
    assert text_of(one, 1) == text_of(two, 0)
    assert np.array_equal(one.tokens[one.offsets[1] :], two.tokens)


class PurePython:
    """A tokenizer without a backend in Rust."""

    def __init__(self, tokenizer) -> None:
        self.bos_token_id, self.call, self.encode = tokenizer.bos_token_id, tokenizer, tokenizer.encode
        self.unk_token_id = tokenizer.unk_token_id

    def __call__(self, text, **settings):
        return self.call(text, **settings)


def test_tokens_are_those_of_a_plain_call_whatever_the_tokenizer_was_told_before() -> None:
    texts = ["Up", "<eos> and <pad> in a title", "Élan", "a title of more than twelve tokens", "日本語", " a"]
    own = tiny_tokenizer()
    expected = tokenised(texts, tokenizer=PurePython(tiny_tokenizer()))
    own(texts, padding=True, truncation=True, max_length=3)  # the backend keeps these settings
    found = tokenised(texts, tokenizer=own)
    assert found.sha256() == expected.sha256() and np.array_equal(found.offsets, expected.offsets)
    wide = Template("Say.", max_item_tokens=100)
    ids = own(["\n" + text + ":" for text in texts], split_special_tokens=True)["input_ids"]
    assert tokenised(texts, wide, own).tokens.tolist() == [token for each in ids for token in each]


@pytest.mark.parametrize("number", [1, 4, 5, 6, 8])
def test_texts_that_are_read_some_at_a_time_give_the_same_tokens(monkeypatch, number) -> None:
    texts = [f"title {i} " + "word " * i for i in range(number)]
    expected = tokenised(texts)
    monkeypatch.setattr(tokenise, "CHUNK", 4)
    found = tokenised(texts)
    assert found.sha256() == expected.sha256() and found.offsets.tolist() == expected.offsets.tolist()


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_an_empty_text_is_refused_with_the_items_key(text) -> None:
    with pytest.raises(DataError, match="key 1") as error:
        tokenised(["Up", text])
    assert "empty" in error.value.found and error.value.fix


def test_the_checksum_changes_with_template_tokenizer_answers_and_texts() -> None:
    texts = ["Up", "Toy Story"]
    base = tokenised(texts)
    assert tokenised(texts).sha256() == base.sha256()
    others = [
        tokenised(["Up", "Toy story"]),
        tokenised(["Toy Story", "Up"]),
        tokenised(texts, replace(TEMPLATE, instruction="Say!")),
        tokenised(texts, replace(TEMPLATE, interaction="\n{text} :")),
        tokenised(texts, replace(TEMPLATE, max_item_tokens=6)),
        tokenised(texts, tokenizer=tiny_tokenizer((" yes", " no", "Toy"))),
        replace(base, yes_id=base.no_id, no_id=base.yes_id),
    ]
    assert len({base.sha256(), *(other.sha256() for other in others)}) == len(others) + 1


def test_the_template_names_what_the_data_set_holds() -> None:
    assert "next movie?" in template_for("ml-1m").instruction
    assert "next album?" in template_for("amazon-cds").instruction
    assert "next book?" in template_for("amazon-kindle").instruction
    assert "more than one of the next product?" in template_for("groceries").instruction
    assert template_for("table") == template_for("synthetic")
    assert "next item?" in template_for("table").instruction
