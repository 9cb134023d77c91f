"""What a backbone is made of: name, cut, tuning, precision. Part of every record; imports no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from repro.backbones.shapes import SHAPES
from repro.errors import BackboneError, ConfigError

SMOLLM2 = "smollm2-135m"
SMOLLM2_LAYERS = 30
RANDOM_PREFIX = "random:"
TUNINGS = ("full", "lora")
DTYPES = ("float32", "bfloat16", "float16")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


@dataclass(frozen=True)
class BackboneSpec:
    """A language model and how it is tuned.

    Attributes:
        name: `smollm2-135m` (from the installed package), a hub name (`Qwen/Qwen2.5-0.5B`), a local folder,
            or `random:<shape>` (random weights; shapes in `repro.backbones.shapes`).
        layers: keep only the first `layers` decoder layers (the final norm stays); None keeps all.
        tuning: `full`, or `lora` on the seven projections. Under `lora` everything else is fixed, the
            embedding table included, whatever `train_embeddings` says.
        train_embeddings: full fine-tuning also moves the token embedding table (and an LM head tied to it).
        lora_rank, lora_alpha, lora_dropout: of the LoRA adapters; unused under `full`.
        dtype: of the stored weights. Adapters and the [SUM] embedding are float32 in any case.
        revision: branch, tag or commit of a hub name.

    Raises:
        ConfigError: a field outside its range.
        BackboneError: an unknown random shape.
    """

    name: str = SMOLLM2
    layers: int | None = None
    tuning: str = "full"
    train_embeddings: bool = True
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    dtype: str = "float32"
    revision: str | None = None

    def __post_init__(self) -> None:
        def need(good: bool, field: str, expected: str) -> None:
            if not good:
                found = repr(getattr(self, field))
                raise ConfigError(f"backbone setting {field!r}", found, expected, "correct it in the tier")

        need(bool(self.name.strip()), "name", "a model name, a folder or random:<shape>")
        need(self.layers is None or self.layers >= 1, "layers", "None or at least 1")
        need(self.tuning in TUNINGS, "tuning", f"one of {', '.join(TUNINGS)}")
        need(self.lora_rank >= 1, "lora_rank", "at least 1")
        need(self.lora_alpha > 0, "lora_alpha", "above 0")
        need(0.0 <= self.lora_dropout < 1.0, "lora_dropout", "in [0, 1)")
        need(self.dtype in DTYPES, "dtype", f"one of {', '.join(DTYPES)}")
        need(
            self.revision is None or source_kind(self.name) == "hub",
            "revision",
            "None, unless name is a hub name",
        )
        if source_kind(self.name) == "random":
            shape_name(self.name)

    @property
    def title(self) -> str:
        """As reports name it, e.g. "SmolLM2-135M, dequantised Q4_1, first 6 of 30 layers"."""
        kind = source_kind(self.name)
        if kind == "smollm2":
            text, total = "SmolLM2-135M, dequantised Q4_1", SMOLLM2_LAYERS
        elif kind == "random":
            shape = SHAPES[shape_name(self.name)]
            text, total = f"{shape.title} shape, random weights", shape.arguments["num_hidden_layers"]
        else:
            text, total = Path(self.name).name if kind == "folder" else self.name, None
        if self.layers is None or self.layers == total:
            return text
        of_total = "" if total is None else f" of {total}"
        return f"{text}, first {self.layers}{of_total} layers"


def source_kind(name: str) -> str:
    """`smollm2`, `random`, `folder` or `hub`: where the weights of a name come from.

    A name is a folder when a folder of that name exists or when it cannot be a hub name (absolute, starts
    with `.` or `~`, more than one slash); otherwise it is looked up on the hub.
    """
    if name == SMOLLM2:
        return "smollm2"
    if name.startswith(RANDOM_PREFIX):
        return "random"
    if Path(name).expanduser().is_dir() or not _HUB_NAME.fullmatch(name):
        return "folder"
    return "hub"


def shape_name(name: str) -> str:
    """The shape in `random:<shape>`.

    Raises:
        BackboneError: no such shape.
    """
    shape = name.removeprefix(RANDOM_PREFIX)
    if shape not in SHAPES:
        raise BackboneError(
            f"backbone {name!r}",
            f"unknown shape {shape!r}",
            f"one of {', '.join(SHAPES)}",
            "correct the name",
        )
    return shape
