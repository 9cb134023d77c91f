"""The complete configuration of one run, and what of it a record keeps."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from baselines.method import IdMethod
from repro.backbones.spec import BackboneSpec
from repro.errors import ConfigError
from repro.methods.method import BatchSizes, SumMethod
from repro.methods.numerics import TRAINER_NUMERICS, method_numerics
from repro.prompts.templates import template_for
from repro.training.settings import TrainingSettings


@dataclass(frozen=True)
class Subset:
    """How many targets of each split a tier uses; None keeps all."""

    train_targets: int | None = None
    validation_targets: int | None = None
    test_targets: int | None = None


@dataclass(frozen=True)
class Tier:
    """A size: a named complete configuration that methods and seeds are put into.

    Attributes:
        name: `test`, `cpu`, `gpu` or `paper`.
        datasets: data sets it is meant for, the default first.
        sizes: how batches are cut for the machine.
        compiled: compile the layers (worth it on GPUs).
        loss: of the [SUM] methods: `vocabulary` (the paper's) or `answers` (over yes and no alone).
        seeds: how many seeds a table trains unless told otherwise.
    """

    name: str
    datasets: tuple[str, ...]
    backbone: BackboneSpec
    n: int
    subset: Subset
    training: TrainingSettings
    sizes: BatchSizes = field(default_factory=BatchSizes)
    compiled: bool = False
    loss: str = "vocabulary"
    seeds: int = 1
    min_context: int = 5


@dataclass(frozen=True)
class RunConfig:
    """One run: a method in a tier on a data set with a seed.

    Attributes:
        method: a [SUM] method reads the tier's n and backbone; an ID-based one brings its own history length
            and training settings, and shares the tier's targets.
        recipe: `paper` or `tuned` (whose settings the method has).
    """

    method: SumMethod | IdMethod
    recipe: str
    tier: Tier
    dataset: str
    protocol: str
    seed: int

    def __post_init__(self) -> None:
        if self.recipe not in ("paper", "tuned", "control"):
            raise ConfigError("recipe", repr(self.recipe), "paper, tuned or control", "choose one of these")

    @property
    def training(self) -> TrainingSettings:
        """Settings of the training loop for this method; defaults for what is fitted in closed form."""
        if isinstance(self.method, IdMethod):
            return self.method.training or TrainingSettings()
        return self.tier.training

    def resolved(self) -> dict[str, Any]:
        """Every setting that decides the numbers; `pipeline.py` adds content and device for the run id."""
        common = {
            "method": self.method.name,
            "recipe": self.recipe,
            "dataset": self.dataset,
            "protocol": self.protocol,
            "min_context": self.tier.min_context,
            "subset": asdict(self.tier.subset),
            "tier": self.tier.name,
            "seed": self.seed,
            "training": self._training() if self.method.trains else None,
            "numerics": {"method": method_numerics(self.method.name), "trainer": TRAINER_NUMERICS},
        }
        if isinstance(self.method, IdMethod):
            return common | self.method.resolved()
        return common | self._of_sum_method(self.method)

    def _of_sum_method(self, method: SumMethod) -> dict[str, Any]:
        prompt, backbone = method.prompt, self.tier.backbone
        return {
            "k": prompt.k,
            "n": prompt.n,
            "sum_layout": prompt.sum_layout,
            "window": prompt.window,
            "window_tokens": prompt.window_tokens,
            "instruction": prompt.instruction,
            "answers_in_context": prompt.answers_in_context,
            "template": asdict(template_for(self.dataset)),
            "loss": self.tier.loss,
            "fixes": asdict(method.fixes),
            "backbone": backbone.name,
            "backbone_settings": asdict(backbone) | {"title": backbone.title},
            "tuning": backbone.tuning if method.trains else None,
            "batch_sizes": asdict(self.tier.sizes),
            "compiled": self.tier.compiled,
            "precision": self.tier.training.precision,
        }

    def _training(self) -> dict[str, Any]:
        settings = asdict(self.training)
        settings.pop("checkpoint_every_s")  # moves no number
        return settings
