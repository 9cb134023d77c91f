"""One run from its configuration to its record: data -> prompts -> method -> training -> scores -> store.

What several runs share (prepared data, tokens, loaded weights) is made once per process.
"""

from __future__ import annotations

import copy
import os
import re
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from baselines.method import IdMethod
from baselines.registry import id_task
from repro import paths
from repro.backbones.decoder import check_against_own_forward, check_layers
from repro.backbones.loading import Backbone, group_of, load_backbone
from repro.backbones.spec import BackboneSpec
from repro.backbones.tokenizer import answer_ids, load_tokenizer
from repro.data import TEST, TRAIN, VALIDATION, PreparedData, default_protocol, load_prepared, take_subset
from repro.evaluation.metrics import evaluate_scores
from repro.experiments.floor import with_floor
from repro.experiments.run_config import RunConfig, Tier
from repro.experiments.table1 import table1_runs
from repro.experiments.tiers import tier_named
from repro.methods.bahe.filled_table import tables_folder
from repro.methods.bahe.settings import BaheMethod
from repro.methods.bahe.task import bahe_task
from repro.methods.sum_batches import batches_of
from repro.methods.sum_model import SumModel
from repro.prompts.templates import template_for
from repro.prompts.tokenise import TokenisedItems, tokenise_items
from repro.records.columns import storable
from repro.records.environment import device_name
from repro.records.run_id import run_id
from repro.records.schema import FINISHED
from repro.records.store import Run, RunStore, user_store
from repro.run_record import record_of
from repro.training.checkpoint import CheckpointFolder
from repro.training.loop import DivergedError, Trainer
from repro.training.seeds import seed_everything
from repro.training.state import Progress
from repro.training.task import Task


@dataclass(frozen=True)
class LoadedData:
    """A tier's share of a data set.

    Attributes:
        data: with the tier's targets. canonical: (test targets,) int64, place of each in the protocol's
            canonical test order.
    """

    data: PreparedData
    canonical: np.ndarray


@dataclass
class Workshop:
    """Loads what runs share, once.

    Args:
        data_dir: folder of the data set's source files, where it needs one.
        store: where records go.
        device: None picks CUDA where there is one.
        tables: folder of behaviour tables, which runs share; None: each run fills its own, in memory.

    Attributes:
        num_trained: runs that were made here, as against those found finished.
    """

    data_dir: Path | None = None
    store: RunStore = field(default_factory=user_store)
    device: torch.device = field(
        default_factory=lambda: torch.device(
            f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
        )
    )
    tables: Path | None = field(default_factory=lambda: tables_folder(paths.cache_dir()))
    num_trained: int = field(default=0, init=False)
    _data: dict[tuple[Any, ...], LoadedData] = field(default_factory=dict)
    _items: dict[tuple[str, str], TokenisedItems] = field(default_factory=dict)
    _backbones: dict[Any, Backbone] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # cuDNN's attention builds a graph for every new shape, 3.5 ms each time, and our blocks change shape.
        torch.backends.cuda.enable_cudnn_sdp(False)

    def run(self, config: RunConfig) -> Run:
        """Train and test, unless this run is finished already; an interrupted one goes on.

        Raises:
            ReproError: bad input.
            KeyboardInterrupt: after saving a checkpoint.
        """
        config, loaded = self._loaded(config)
        resolved = self.resolved(config, loaded)
        name = run_id(resolved, self.device_name)
        checkpoints = CheckpointFolder(self.store.runs / "checkpoints" / name, name)
        found = self.store.find(config.tier.name, config.dataset, name)
        if found is not None and found.status in FINISHED:
            checkpoints.delete()  # left behind by a kill right after the record was written
            if is_first_process():
                print(f"{name}: finished already", file=sys.stderr)
            return found
        self.num_trained += 1
        self._say_if_slow(config)
        self._save_targets(config, loaded)  # before training: other targets under this name are an error
        task = self.task(config, loaded)
        seed_everything(config.seed)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        trainer = Trainer(
            task, config.training, config.seed, checkpoints if config.method.trains else None, name
        )
        status, progress, metrics, scores = "ok", Progress(), {}, None
        try:
            if config.method.trains:
                progress = trainer.train()
            with trainer.clocks.run("test"):
                row, scores = trainer.scores(task.test)
            scores = storable(scores)
            metrics = evaluate_scores(task.label[row], scores, task.group[row])
            trainer.show.event(f"test AUC {metrics['auc']:.4f}, log loss {metrics['log_loss']:.4f}")
        except DivergedError as error:
            status, progress = "diverged", trainer.progress
            trainer.show.event(str(error))
        except torch.OutOfMemoryError:
            status, progress = "out_of_memory", trainer.progress
            trainer.show.event("out of memory")
        saved = None
        if trainer.accelerator.is_main_process:
            record = record_of(config, resolved, self.device_name, status, task, trainer, progress, metrics)
            saved = self.store.save(record, scores)
            checkpoints.delete()
        trainer.accelerator.wait_for_everyone()
        trainer.accelerator.free_memory()
        found = saved or self.store.find(config.tier.name, config.dataset, name)
        assert found is not None, "the main process has written the record"
        return found

    def _say_if_slow(self, config: RunConfig) -> None:
        """One line where a language model of a GPU's tier is about to run without one: it can take days."""
        slow = config.tier.compiled and self.device.type == "cpu" and not isinstance(config.method, IdMethod)
        if slow and is_first_process():
            print(f"tier {config.tier.name} is meant for a GPU, and there is none: slow", file=sys.stderr)

    def name(self, config: RunConfig) -> str:
        """The run id that a configuration has here."""
        return run_id(self.resolved(*self._loaded(config)), self.device_name)

    def _loaded(self, config: RunConfig) -> tuple[RunConfig, LoadedData]:
        """Its data, and the configuration with what only the data say."""
        loaded = self.load(config.tier, config.dataset, config.protocol)
        return config.with_sequences_of(loaded.data.sequences), loaded

    def _save_targets(self, config: RunConfig, loaded: LoadedData) -> None:
        if not is_first_process():
            return
        test = loaded.data.targets(TEST)
        user, label = loaded.data.interactions.user[test], loaded.data.interactions.label[test]
        self.store.save_targets(
            config.dataset, config.protocol, config.tier.name, user, label, loaded.canonical
        )

    def resolved(self, config: RunConfig, loaded: LoadedData) -> dict[str, Any]:
        """The configuration with the content it is applied to: another table or model file is another run."""
        content: dict[str, Any] = {
            "data_sha256": loaded.data.sha256,
            "processes": int(os.environ.get("WORLD_SIZE", 1)),
        }
        if not isinstance(config.method, IdMethod):
            content["backbone_sha256"] = self.backbone(config.with_backbone, config.seed).fingerprint
        return config.resolved() | content

    def validate(self, config: RunConfig) -> dict[str, float] | None:
        """Train without storing anything; the best epoch's validation metrics, None if it diverged.

        Raises:
            torch.OutOfMemoryError: the device is too small.
        """
        config, loaded = self._loaded(config)
        task = self.task(config, loaded)
        task = replace(task, test=task.validation)  # nothing of the test split is loaded, to compile neither
        seed_everything(config.seed)
        trainer = Trainer(task, config.training, config.seed, None, "selection")
        try:
            return trainer.train().best()
        except DivergedError:
            return None
        finally:
            trainer.accelerator.free_memory()

    @property
    def device_name(self) -> str:
        """As records and run ids have it."""
        return device_name(str(self.device) if self.device.type == "cuda" else None)

    def load(self, tier: Tier, dataset: str, protocol: str) -> LoadedData:
        """Prepared data with the tier's targets."""
        key = (tier.subset, tier.min_context, dataset, protocol)
        if key not in self._data:
            full = load_prepared(dataset, protocol, self.data_dir, min_context=tier.min_context)
            subset = tier.subset
            data = take_subset(full, subset.train_targets, subset.validation_targets, subset.test_targets)
            canonical = np.searchsorted(full.targets(TEST), data.targets(TEST))
            self._data[key] = LoadedData(data, canonical)
        return self._data[key]

    def tokens(self, config: RunConfig, loaded: LoadedData) -> TokenisedItems:
        """Item texts as the tier's backbone reads them."""
        key = (config.tier.backbone.name, loaded.data.source_sha256 + config.protocol)
        if key not in self._items:
            backbone = self.backbone(config.tier)
            answers = (backbone.yes_id, backbone.no_id)
            template = template_for(config.dataset)
            self._items[key] = tokenise_items(loaded.data.items, backbone.tokenizer, template, answers)
        return self._items[key]

    def prompt_parts(
        self, tier: Tier, dataset: str, protocol: str
    ) -> tuple[PreparedData, TokenisedItems, Any]:
        """Data, tokens and tokenizer, without loading weights."""
        tokenizer = load_tokenizer(tier.backbone.name, tier.backbone.revision)
        data = load_prepared(dataset, protocol, self.data_dir, min_context=tier.min_context)
        return (
            data,
            tokenise_items(data.items, tokenizer, template_for(dataset), answer_ids(tokenizer)),
            tokenizer,
        )

    def backbone(self, tier: Tier, seed: int = 0) -> Backbone:
        """The tier's backbone as loaded, on the CPU; runs train a copy. The seed draws LoRA's adapters."""
        key = (tier.backbone, seed if tier.backbone.tuning == "lora" else 0)
        if key not in self._backbones:
            backbone = load_backbone(tier.backbone, seed=key[1])
            check_layers(backbone.layers, backbone.config)
            check_against_own_forward(backbone)
            self._backbones[key] = backbone
        return self._backbones[key]

    def task(self, config: RunConfig, loaded: LoadedData) -> Task:
        """Model and batches of a run, on this workshop's device; the backbone is a copy."""
        if isinstance(config.method, IdMethod):
            return id_task(config.method, loaded.data, config.seed, self.device)
        if isinstance(config.method, BaheMethod):
            return self._bahe_task(config, config.method, loaded)
        tier, training = config.tier, config.training
        backbone = copy.deepcopy(self.backbone(tier, config.seed))
        group = group_of(backbone)
        shared = (loaded.data, self.tokens(config, loaded), config.method)
        return Task(
            model=SumModel(backbone, tier.loss, tier.compiled).to(self.device),
            train=batches_of(*shared, TRAIN, training.batch_targets, group, tier.sizes),
            validation=batches_of(*shared, VALIDATION, training.eval_batch_targets, group, tier.sizes),
            test=batches_of(*shared, TEST, training.eval_batch_targets, group, tier.sizes),
            label=loaded.data.interactions.label,
            group=loaded.data.interactions.user,
        )

    def _bahe_task(self, config: RunConfig, method: BaheMethod, loaded: LoadedData) -> Task:
        tier = config.with_backbone
        return bahe_task(
            method,
            loaded.data,
            self.backbone(tier, config.seed),
            template_for(config.dataset),
            config.training,
            tier.sizes,
            tier.compiled,
            config.seed,
            self.device,
            self.tables,
        )


def is_first_process() -> bool:
    """Under `accelerate launch` one process writes targets and pages; alone, this one does."""
    return os.environ.get("RANK", "0") == "0"


def run_own_model(
    backbone: BackboneSpec,
    tier: str | None = None,
    dataset: str | None = None,
    rows: str = "headline",
    seeds: int = 1,
    data_dir: Path | None = None,
) -> list[Run]:
    """Rows of Table 1 with another language model; `nox -s report` then shows them in a section of their own.

    Args:
        backbone: the model and its tuning.
        tier: whose data, context length and training settings to take; the new tier is named after both.
        dataset, rows, seeds, data_dir: as on the command line.

    Raises:
        ReproError: bad input.
    """
    base = tier_named(tier)
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{base.name}-{backbone.name}").strip("-")
    chosen = dataset or base.datasets[0]
    own = replace(base, name=name, backbone=backbone)
    workshop = Workshop(data_dir)
    return [
        workshop.run(config)
        for config in with_floor(table1_runs)(own, chosen, default_protocol(chosen), rows, seeds)
    ]
