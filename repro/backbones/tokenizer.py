"""Tokenizers: loading without weights, answer tokens, and the small one that tiny random models have."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from repro.backbones.shapes import SHAPES
from repro.backbones.spec import shape_name, source_kind
from repro.errors import BackboneError

ANSWERS = (" yes", " no")


def load_tokenizer(name: str, revision: str | None = None) -> Any:
    """The tokenizer of a backbone; reads no weights.

    `random:` shapes have no tokenizer of their own: the tiny ones get `tiny_tokenizer()`, the real ones
    SmolLM2's, whose 49,152 ids fit into every larger table.

    Args:
        name: as in `BackboneSpec.name`.
        revision: of a hub name.

    Raises:
        BackboneError: not found, not readable, or only usable with remote code.
    """
    kind = source_kind(name)
    if kind == "random" and SHAPES[shape_name(name)].tiny:
        return tiny_tokenizer()
    if kind in ("random", "smollm2"):
        from transformers import PreTrainedTokenizerFast

        from repro.backbones.smollm2 import tokenizer_folder

        # Ten times as fast as AutoTokenizer, which builds the tokenizer from its parts again.
        return PreTrainedTokenizerFast.from_pretrained(str(tokenizer_folder()))
    from repro.backbones.sources import TOKENIZER_FILES, model_folder

    return load_folder_tokenizer(str(model_folder(name, revision, TOKENIZER_FILES)), name)


def load_folder_tokenizer(folder: str, name: str) -> Any:
    """The tokenizer in a folder; `name` is what error messages call it.

    Raises:
        BackboneError: as `load_tokenizer`.
    """
    from transformers import AutoTokenizer

    from repro.backbones.quiet import quiet_transformers

    try:
        with quiet_transformers():
            return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, ImportError, KeyError, TypeError) as error:
        expected = (
            "tokenizer files that transformers reads without remote code (tokenizer.json, or its parts)"
        )
        raise BackboneError(
            f"tokenizer of {name!r}", str(error).strip(), expected, "complete the folder"
        ) from error


def answer_ids(tokenizer: Any) -> tuple[int, int]:
    """Token ids of yes and no as they follow an item's text.

    " yes" and " no" with their space are tried first (byte-level tokenizers: the space is part of the token),
    then "yes" and "no" (sentencepiece tokenizers that put a space in front of every text, as Llama 2's).

    Raises:
        BackboneError: neither pair is two different single tokens.
    """
    tried = []
    for words in (ANSWERS, tuple(word.strip() for word in ANSWERS)):
        encoded = [tokenizer.encode(word, add_special_tokens=False) for word in words]
        ids = [e[0] for e in encoded if len(e) == 1 and e[0] != tokenizer.unk_token_id]
        if len(ids) == 2 and ids[0] != ids[1]:
            return ids[0], ids[1]
        pieces = (
            f"{word!r} -> {tokenizer.convert_ids_to_tokens(e)}"
            for word, e in zip(words, encoded, strict=True)
        )
        tried.append(", ".join(pieces))
    raise BackboneError(
        f"tokenizer {tokenizer.name_or_path or type(tokenizer).__name__!r}",
        "; ".join(tried),
        "yes and no as one token each",
        "choose another backbone: an answer is one token, and its score one softmax over yes and no",
    )


def tokenizer_sha256(tokenizer: Any) -> str:
    """Checksum of everything that decides how text becomes ids."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(text.encode()).hexdigest()


def tiny_tokenizer(words: Sequence[str] = ANSWERS) -> Any:
    """A byte-level tokenizer of 263 ids, with SmolLM2's rules (single digits, no prefix space).

    Ids: 0 padding, 1 end of text, 2..257 the bytes, then the merges that make each of `words` one token.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from repro.backbones.smollm2 import restore_digits

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pieces = ["<pad>", "<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges: list[tuple[str, str]] = []
    for word in words:
        symbols = byte_level.pre_tokenize_str(word)[0][0]
        for end in range(2, len(symbols) + 1):
            if symbols[:end] not in pieces:
                pieces.append(symbols[:end])
                merges.append((symbols[: end - 1], symbols[end - 1]))
    backend = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges))
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="<eos>",
        name_or_path="tiny byte-level tokenizer",
    )
    restore_digits(tokenizer)
    return tokenizer
