"""The tiers: one function each that returns a complete frozen configuration. A tier is a size."""

from __future__ import annotations

from dataclasses import replace

from repro.backbones.spec import BackboneSpec
from repro.errors import ConfigError
from repro.experiments.run_config import Subset, Tier
from repro.methods.method import BatchSizes
from repro.training.settings import TrainingSettings


def cpu_precision() -> str:
    """bf16 where the processor multiplies it natively (twice as fast there), fp32 elsewhere."""
    import torch

    capability = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if capability else "fp32"


def cpu_tier() -> Tier:
    """Two CPU cores, all of Table 1 in 20 minutes: SmolLM2's first layers, short context, some of ml-100k."""
    return Tier(
        name="cpu",
        datasets=("ml-100k",),
        backbone=BackboneSpec(layers=4, train_embeddings=False),
        n=10,
        subset=Subset(train_targets=3600, validation_targets=250, test_targets=1000),
        training=TrainingSettings(
            learning_rate=4e-4, max_epochs=1, batch_targets=64, precision=cpu_precision()
        ),
    )


def test_tier() -> Tier:
    """Seconds: a tiny random model on a few targets; what the test suite runs."""
    return Tier(
        name="test",
        datasets=("ml-100k", "synthetic"),
        backbone=BackboneSpec(name="random:tiny-llama"),
        n=4,
        subset=Subset(train_targets=96, validation_targets=48, test_targets=48),
        training=TrainingSettings(learning_rate=1e-3, max_epochs=2, batch_targets=16, checkpoint_every_s=0.0),
    )


def gpu_tier() -> Tier:
    """One GPU: all of ml-100k or ml-1m, all 30 layers of SmolLM2, the paper's context length."""
    return Tier(
        name="gpu",
        datasets=("ml-100k", "ml-1m"),
        backbone=BackboneSpec(),
        n=20,
        subset=Subset(),
        training=TrainingSettings(
            learning_rate=2e-4, max_epochs=1, batch_targets=1024, eval_batch_targets=1024, precision="bf16",
            checkpoint_every_s=300.0,
        ),
        sizes=BatchSizes(max_tokens=65_536, text_multiple=512, sum_multiple=64),
        compiled=True,
        seeds=3,
    )  # fmt: skip


def paper_tier() -> Tier:
    """The paper's appendix: Llama-3.1-8B-Instruct with LoRA, ten epochs, patience 2; several GPUs."""
    backbone = BackboneSpec(
        name="meta-llama/Llama-3.1-8B-Instruct", tuning="lora", dtype="bfloat16", train_embeddings=False
    )
    gpu = gpu_tier()
    return replace(
        gpu,
        name="paper",
        datasets=("ml-1m", "amazon-cds", "amazon-kindle"),
        backbone=backbone,
        training=replace(gpu.training, max_epochs=10),
        # With the last row reaching over and room for [SUM]s: on ml-1m at most 12,800 places for k up to 50,
        # with longer item texts more.
        sizes=replace(gpu.sizes, max_tokens=10_240),
    )


TIERS = {"cpu": cpu_tier, "gpu": gpu_tier, "paper": paper_tier, "test": test_tier}


def tier_named(name: str | None) -> Tier:
    """A tier by name; None is `gpu` where there is a GPU, else `cpu`.

    Raises:
        ConfigError: no such tier.
    """
    if name is None:
        import torch

        name = "gpu" if torch.cuda.is_available() else "cpu"
    if name not in TIERS:
        raise ConfigError("tier", repr(name), f"one of {', '.join(TIERS)}", "pass one of these to --tier")
    return TIERS[name]()
