"""What `bahe-efficiency` measures: shapes, text lengths and the steps at each, by tier."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from repro.backbones.shapes import SHAPES
from repro.backbones.spec import RANDOM_PREFIX, BackboneSpec, shape_name
from repro.costs.text_samples import behaviours_per_sample
from repro.errors import ConfigError
from repro.experiments.tiers import cpu_precision, tier_named
from repro.training.settings import TrainingSettings

LENGTHS = (1024, 2048, 512, 4096, 8192)  # the claim's first: what a run that is cut off should have


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        backbones: with LoRA; weights are random.
        text_tokens: of a sample, in the order of measurement.
        behaviour_tokens: of every behaviour; ml-100k's have 16 on average.
        other_sizes: BAHE is measured with these too, at `sized_lengths`.
        batch: samples per step.
        table_behaviours: distinct behaviours in the table.
        layer_cut: share of BAHE's layers that are frozen.
        compiled: layers compiled; on both sides. graphs: so are steps captured as graphs, on CUDA.
        repeats: of every row. seconds: that each lasts, in `least_steps` to 100 steps.
    """

    backbones: tuple[BackboneSpec, ...]
    text_tokens: tuple[int, ...] = LENGTHS
    behaviour_tokens: int = 16
    other_sizes: tuple[int, ...] = (8, 32)
    sized_lengths: tuple[int, ...] = (1024, 2048, 4096)
    batch: int = 16
    table_behaviours: int = 16_384
    layer_cut: float = 0.5
    training: TrainingSettings = field(default_factory=lambda: TrainingSettings(precision="bf16"))
    compiled: bool = True
    graphs: bool = True
    repeats: int = 3
    seconds: float = 0.5
    least_steps: int = 4

    def sizes_at(self, text_tokens: int) -> list[int]:
        """Tokens per behaviour that BAHE is measured with at a length."""
        return [self.behaviour_tokens, *(self.other_sizes if text_tokens in self.sized_lengths else ())]


def gpu_plan() -> Plan:
    """Both shapes at every length, in about six minutes on an H100."""
    return Plan((_lora("smollm2-135m", "bfloat16"), _lora("qwen2.5-1.5b", "bfloat16")))


def cpu_plan() -> Plan:
    """Two CPU cores, about three minutes: SmolLM2's first layers, short texts."""
    return Plan(
        (_lora("smollm2-135m", "float32", layers=4),),
        text_tokens=(128, 256, 512, 1024),
        sized_lengths=(256,),
        table_behaviours=2048,
        training=TrainingSettings(precision=cpu_precision()),
        compiled=False,
        seconds=1.0,
        least_steps=1,
    )


def test_plan() -> Plan:
    """Seconds: a tiny model."""
    return replace(
        cpu_plan(),
        backbones=(_lora("tiny-llama", "float32", rank=4),),
        text_tokens=(64, 128),
        other_sizes=(8,),
        sized_lengths=(64,),
        batch=4,
        table_behaviours=128,
        training=TrainingSettings(),
        repeats=2,
        seconds=0.0,
    )


PLANS = {"test": test_plan, "cpu": cpu_plan, "gpu": gpu_plan, "paper": gpu_plan}


def plan_named(
    tier: str | None,
    shapes: str | None = None,
    lengths: str | None = None,
    behaviour_tokens: int | None = None,
    graphs: bool = True,
) -> tuple[str, Plan]:
    """A tier's name (None: gpu where there is a GPU, else cpu) and plan, with what the command line chose.

    Args:
        shapes, lengths: comma-separated, measured in their order; None: the plan's.
        behaviour_tokens: of every behaviour; None: the plan's sizes.
        graphs: False launches every kernel by itself, on both sides.

    Raises:
        ConfigError: no such tier; a shape that its plan does not have; a length that is no whole number of
            behaviours, is beyond a model's positions, or needs more behaviours than the table has.
    """
    name = tier_named(tier).name
    plan = replace(PLANS[name](), graphs=graphs)
    if behaviour_tokens is not None:
        if behaviour_tokens < 1:
            fix = "pass another number to --behaviour-tokens"
            raise ConfigError("tokens of a behaviour", str(behaviour_tokens), "at least 1", fix)
        plan = replace(plan, behaviour_tokens=behaviour_tokens, other_sizes=())
    if shapes is not None:
        plan = replace(plan, backbones=_chosen(plan, shapes))
    if lengths is not None:
        plan = replace(plan, text_tokens=_whole_numbers(lengths))
    for tokens in plan.text_tokens:
        _check_length(plan, tokens)
    return name, plan


def _chosen(plan: Plan, shapes: str) -> tuple[BackboneSpec, ...]:
    known = {shape_name(spec.name): spec for spec in plan.backbones}
    names = [name.strip() for name in shapes.split(",")]
    for name in names:
        if name not in known:
            expected, fix = f"one of {', '.join(known)}", "pass one of these to --shapes"
            raise ConfigError("shape", repr(name), expected, fix)
    return tuple(known[name] for name in names)


def _whole_numbers(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        expected, fix = "whole numbers from 1, comma-separated", "write --lengths 1024,2048"
        raise ConfigError("text lengths", repr(text), expected, fix)
    return numbers


def _check_length(plan: Plan, tokens: int) -> None:
    where, fix = f"text of {tokens:,} tokens", "choose shorter ones with --lengths"
    for size in plan.sizes_at(tokens):
        needed = plan.batch * behaviours_per_sample(tokens, size)
        if needed >= plan.table_behaviours:
            expected = f"less than the table's {plan.table_behaviours:,}"
            raise ConfigError(where, f"{needed:,} behaviours in a batch", expected, fix)
    for spec in plan.backbones:
        positions = SHAPES[shape_name(spec.name)].arguments["max_position_embeddings"]
        if tokens > positions:
            raise ConfigError(where, f"a text for {spec.name}", f"at most {positions:,} positions", fix)


def _lora(name: str, dtype: str, layers: int | None = None, rank: int = 64) -> BackboneSpec:
    """A shape with random weights and the adapters of the quality runs."""
    return BackboneSpec(
        RANDOM_PREFIX + name, layers, tuning="lora", lora_rank=rank, lora_alpha=2 * rank, dtype=dtype
    )
