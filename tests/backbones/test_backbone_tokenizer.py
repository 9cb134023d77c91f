"""Answer tokens of several tokenizer styles, the tiny tokenizer, checksums."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from repro.backbones.tokenizer import answer_ids, load_tokenizer, tiny_tokenizer, tokenizer_sha256
from repro.errors import BackboneError


def sentencepiece_style():
    """A space mark in front of every text, as Llama 2 has it: " yes" is two tokens, "yes" is one."""
    merges = [("▁", "y"), ("▁y", "e"), ("▁ye", "s"), ("▁", "n"), ("▁n", "o")]
    pieces = ["<unk>", *"▁yesno:", *(a + b for a, b in merges)]
    backend = Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, merges, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")


def word_style(*words):
    """Whole words, everything else unknown."""
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["<unk>", *words])}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", name_or_path="words")


@pytest.mark.parametrize(
    ("tokenizer", "pieces"),
    [
        (tiny_tokenizer(), ["Ġyes", "Ġno"]),
        (sentencepiece_style(), ["▁yes", "▁no"]),
        (word_style("no", "yes"), ["yes", "no"]),
    ],
)
def test_answers_are_found(tokenizer, pieces):
    assert tokenizer.convert_ids_to_tokens(list(answer_ids(tokenizer))) == pieces


@pytest.mark.parametrize("words", [(), (" yes",), (" no",)])
def test_answers_of_several_tokens_are_refused_with_their_encodings(words):
    with pytest.raises(BackboneError, match=r"tiny byte-level tokenizer[\s\S]*' yes' -> \[[\s\S]*'no' -> \["):
        answer_ids(tiny_tokenizer(words))


@pytest.mark.parametrize("words", [(), ("yes",)])
def test_unknown_words_are_no_answers(words):
    with pytest.raises(BackboneError, match="<unk>"):
        answer_ids(word_style(*words))


@pytest.mark.parametrize("text", ["Léon: The Professional (1994)", " yes no  yes", "東京 👍\n\t"])
def test_tiny_tokenizer_gives_the_text_back(text):
    tokenizer = tiny_tokenizer()
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert max(ids) < len(tokenizer) == 263


def test_tiny_tokenizer_keeps_digits_apart_and_needs_no_package(monkeypatch):
    monkeypatch.setattr("repro.backbones.smollm2.find_gguf", lambda: pytest.fail("looked for SmolLM2"))
    tokenizer = load_tokenizer("random:tiny-qwen")
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("1995")) == list("1995")


def test_checksum_follows_what_decides_the_ids():
    assert tokenizer_sha256(tiny_tokenizer()) == tokenizer_sha256(tiny_tokenizer())
    assert tokenizer_sha256(tiny_tokenizer()) != tokenizer_sha256(tiny_tokenizer((" yes", " no", " maybe")))
