"""The complete configuration of one run, and what of it a record keeps."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from baselines.method import IdMethod
from repro.backbones.spec import BackboneSpec
from repro.data.interactions import DERIVED_SEQUENCES
from repro.errors import ConfigError
from repro.methods.bahe.settings import BaheMethod
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
        method: a [SUM] method reads the tier's n and backbone; one that reads behaviours the tier's backbone,
            with adapters; an ID-based one brings its own history length and training settings, and shares the
            tier's targets.
        recipe: `paper` or `tuned` (whose settings the method has).
    """

    method: SumMethod | IdMethod | BaheMethod
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

    @property
    def with_backbone(self) -> Tier:
        """The tier with the backbone as the method tunes it: one that reads behaviours brings adapters."""
        if not isinstance(self.method, BaheMethod):
            return self.tier
        rank = self.method.lora_rank
        lora = replace(self.tier.backbone, tuning="lora", lora_rank=rank, lora_alpha=2 * rank)
        return replace(self.tier, backbone=lora)

    def with_sequences_of(self, names: tuple[str, ...]) -> RunConfig:
        """The run with the sequences that its data set names, if it names some and the method has the usual.

        Liked, disliked and recent are for data that does not say more of an interaction than its answer.
        """
        method = self.method
        if not isinstance(method, BaheMethod) or not names or method.sequences != DERIVED_SEQUENCES:
            return self
        return replace(self, method=replace(method, sequences=names))

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
        if isinstance(self.method, BaheMethod):
            return common | self.method.resolved() | self._of_language_model()
        return common | self._of_sum_method(self.method) | self._of_language_model()

    def _of_sum_method(self, method: SumMethod) -> dict[str, Any]:
        prompt = method.prompt
        return {
            "k": prompt.k,
            "n": prompt.n,
            "sum_layout": prompt.sum_layout,
            "window": prompt.window,
            "window_tokens": prompt.window_tokens,
            "instruction": prompt.instruction,
            "answers_in_context": prompt.answers_in_context,
            "loss": self.tier.loss,
            "fixes": asdict(method.fixes),
        }

    def _of_language_model(self) -> dict[str, Any]:
        backbone = self.with_backbone.backbone
        return {
            "template": asdict(template_for(self.dataset)),
            "backbone": backbone.name,
            "backbone_settings": asdict(backbone) | {"title": backbone.title},
            "tuning": backbone.tuning if self.method.trains else None,
            "batch_sizes": asdict(self.tier.sizes),
            "compiled": self.tier.compiled,
            "precision": self.tier.training.precision,
        }

    def _training(self) -> dict[str, Any]:
        settings = asdict(self.training)
        settings.pop("checkpoint_every_s")  # moves no number
        return settings
