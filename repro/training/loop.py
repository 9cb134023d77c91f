"""The training loop: every method goes through it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from itertools import islice
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from repro.evaluation.metrics import evaluate_scores
from repro.training.checkpoint import (
    BEST_FILE,
    STATE_FILE,
    CheckpointFolder,
    load_snapshot,
    snapshot,
)
from repro.training.clocks import Clocks
from repro.training.interrupts import interrupts_held_back
from repro.training.losses import DivergedError as DivergedError
from repro.training.losses import Losses
from repro.training.optimizer import cosine_with_warmup, make_optimizer
from repro.training.prefetch import loaded
from repro.training.progress import RunProgress
from repro.training.recorded import RecordedSteps
from repro.training.scoring import score_targets
from repro.training.seeds import random_state, restore_random_state
from repro.training.settings import TrainingSettings
from repro.training.state import Progress
from repro.training.stretches import StretchLength
from repro.training.task import Batch, Batches, CompiledBatches, Task


class Trainer:
    """Trains one task; resumes from its checkpoint folder when there is one.

    Args:
        task: model and batches.
        settings: of the loop.
        seed: of the order of rows (and whatever the model draws).
        checkpoints: where to save, or None.
        title: shown in front of progress lines.
    """

    def __init__(
        self,
        task: Task,
        settings: TrainingSettings,
        seed: int,
        checkpoints: CheckpointFolder | None,
        title: str,
    ) -> None:
        self.task, self.settings, self.seed, self.checkpoints = task, settings, seed, checkpoints
        mixed = "bf16" if settings.precision == "bf16" else "no"
        if AcceleratorState._shared_state and AcceleratorState().mixed_precision != mixed:
            AcceleratorState._reset_state()  # of an earlier run in this process
        self.accelerator = Accelerator(mixed_precision=mixed, cpu=not torch.cuda.is_available())
        self.device = self.accelerator.device
        self.optimizer = make_optimizer(task.model, settings)
        self.model, self.prepared_optimizer = self.accelerator.prepare(task.model, self.optimizer)
        # Epochs may differ where a row is larger than a batch: their number then depends on the order.
        batches = [len(task.train.epoch(seed, epoch)) for epoch in range(settings.max_epochs)]
        self.total_steps = sum(math.ceil(number / self.accelerator.num_processes) for number in batches)
        self.progress = Progress()
        self.clocks = Clocks(self.device)
        self.show = RunProgress(title, self.total_steps, quiet=not self.accelerator.is_main_process)
        self._best: dict[str, torch.Tensor] | None = None
        self._saved_at = time.perf_counter()
        self._losses = Losses()
        # On CUDA steps are queued without waiting for the device, and batches are built by a thread.
        self._waits = self.device.type != "cuda"
        self._stretch_length = StretchLength(self.accelerator)
        self._recorded: RecordedSteps | None = None

    def train(self) -> Progress:
        """Train to the end and restore the best epoch's parameters.

        Raises:
            DivergedError: a non-finite loss, gradient or validation score.
            CheckpointError: the checkpoint is damaged or of another configuration.
            StorageError: a checkpoint cannot be written.
            KeyboardInterrupt: after saving a checkpoint.
        """
        with self.show:
            self._resume()
            try:
                self.warm_up()
                while self.progress.epoch < self.settings.max_epochs:
                    if self.progress.stalled(self.settings.patience):
                        break
                    self._epoch()
            except KeyboardInterrupt:
                self._save()
                self.show.event("interrupted; the same command goes on from here")
                raise
        if self._best is not None:
            load_snapshot(self.accelerator.unwrap_model(self.model), self._best)
        return self.progress

    def warm_up(self, evaluation: bool = True) -> None:
        """Compile for every padded length before the first step, on a clock of its own; trains nothing.

        On one GPU the steps are also recorded as graphs (`recorded.py`).

        Args:
            evaluation: compile what scores validation and test targets too; a length that a split shares
                with another costs one forward pass.
        """
        train, scored = self.task.train, [self.task.validation, self.task.test] if evaluation else []
        keys = train.warm_up(self.device) if isinstance(train, CompiledBatches) else []
        if not keys or self.progress.epoch >= self.settings.max_epochs:
            return
        drawn = random_state()
        with interrupts_held_back(), self.clocks.run("compile"):
            self.model.train()
            batches = list(loaded(train, keys, self.device))
            batches.sort(key=lambda batch: -batch.num_padded_tokens)
            if self.device.type == "cuda" and self.accelerator.num_processes == 1:
                self._recorded = RecordedSteps(self.model)
            for batch in batches:
                if self._recorded is not None:
                    self._recorded.record(batch)
                    continue
                self.accelerator.backward(self.model(batch).loss_sum)
                self.prepared_optimizer.zero_grad(set_to_none=True)
            if self._recorded is not None:
                self.show.event(f"{self._recorded.kept} of {self._recorded.asked} shapes recorded as graphs")
            for split in scored:
                if isinstance(split, CompiledBatches):
                    model = self.accelerator.unwrap_model(self.model).eval()
                    with torch.inference_mode():
                        for batch in loaded(split, split.warm_up(self.device), self.device):
                            model(batch)
        restore_random_state(drawn)

    @property
    def replays(self) -> bool:
        """Whether steps are replayed as CUDA graphs (all but those of a shape that was not recorded)."""
        return self._recorded is not None and self._recorded.kept > 0

    def scores(self, batches: Batches) -> tuple[np.ndarray, np.ndarray]:
        """Target rows, ascending, and their scores: ((n,) int64, (n,) float32).

        Raises:
            DivergedError: a score is not finite.
        """
        return score_targets(self.accelerator.unwrap_model(self.model), batches, self.accelerator)

    def evaluate(self, batches: Batches) -> dict[str, Any]:
        """Metrics of the model on a split, timed on the evaluation clock."""
        with self.clocks.run("eval"):
            row, score = self.scores(batches)
        return evaluate_scores(self.task.label[row], score, self.task.group[row])

    def _epoch(self) -> None:
        progress, train = self.progress, self.task.train
        processes, index = self.accelerator.num_processes, self.accelerator.process_index
        keys = train.epoch(self.seed, progress.epoch)
        groups = [keys[i : i + processes] for i in range(progress.batch * processes, len(keys), processes)]
        mine = [group[min(index, len(group) - 1)] for group in groups]
        self.model.train()
        parts = [part for key in mine for part in train.split(key)]
        with closing(loaded(train, parts, self.device)) as stream:
            steps = iter(zip(mine, groups, strict=True))
            while progress.batch * processes < len(keys):
                with interrupts_held_back(), self.clocks.run("train"):
                    self._stretch(steps, stream)
                if time.perf_counter() - self._saved_at > self.settings.checkpoint_every_s:
                    self._save()
        metrics = self.evaluate(self.task.validation)
        with interrupts_held_back():
            self._finish_epoch(metrics)

    def train_on(self, keys: list[Any]) -> None:
        """Steps on these batches and nothing else, on the training clock: for measurements."""
        self.model.train()
        parts = [part for key in keys for part in self.task.train.split(key)]
        with closing(loaded(self.task.train, parts, self.device)) as stream, self.clocks.run("train"):
            for key in keys:
                self._step(key, counts=True, stream=stream)
            self._read_losses()

    def _stretch(self, steps: Iterator[tuple[Any, Any]], stream: Iterator[Batch]) -> None:
        """One step on a CPU; on CUDA about a second of them, queued without waiting for the device."""
        begin, index = time.perf_counter(), self.accelerator.process_index
        for key, group in islice(steps, 1 if self._waits else self._stretch_length.steps):
            total = sum(self.task.train.count(each) for each in group)
            self._step(key, index < len(group), total, stream)
        self._read_losses()
        if not self._waits:
            self._stretch_length.adapt(time.perf_counter() - begin)

    def _finish_epoch(self, metrics: dict[str, Any]) -> None:
        progress = self.progress
        entry = {
            "epoch": progress.epoch,
            "auc": float(metrics["auc"]),
            "log_loss": float(metrics["log_loss"]),
            "train_loss": progress.loss_sum / max(progress.targets, 1),
            "train_s": self.clocks["train"],
        }
        better = progress.is_better(entry["auc"])
        progress.history.append(entry)
        if better:
            progress.best_epoch = progress.epoch
            self._best = snapshot(self.accelerator.unwrap_model(self.model))
            if self.checkpoints is not None and self.accelerator.is_main_process:
                self.checkpoints.save(BEST_FILE, {"epoch": progress.epoch, "parameters": self._best})
        self.show.event(
            f"epoch {progress.epoch + 1} of {self.settings.max_epochs}: "
            f"train loss {entry['train_loss']:.4f}, validation AUC {entry['auc']:.4f}, "
            f"log loss {entry['log_loss']:.4f}, {self.clocks['train']:.0f} s training"
        )
        if self._recorded is not None and self._recorded.missed:
            replayed, missed = self._recorded.replayed, self._recorded.missed
            self.show.event(f"{replayed} micro-batches replayed, {missed} without a graph")
        progress.epoch, progress.batch, progress.loss_sum, progress.targets = progress.epoch + 1, 0, 0.0, 0
        self._save()

    def _step(
        self, key: Any, counts: bool, total: int | None = None, stream: Iterator[Batch] | None = None
    ) -> None:
        """One optimiser step: loss = sum over the targets of all processes / their number.

        Args:
            key: of the batch.
            counts: False where the last step has too few batches for all processes: this process then goes
                through the motions with weight zero, so that the others' gradients can be reduced.
            total: targets of all processes; None: those of the batch.
            stream: of loaded micro-batches; None: they are loaded here.
        """
        progress, settings, train = self.progress, self.settings, self.task.train
        total = train.count(key) if total is None else total
        factor = cosine_with_warmup(progress.step, self.total_steps, settings.warmup_share)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * factor
        parts, losses, tokens, padded = train.split(key), [], 0, 0
        stream = loaded(train, parts, self.device) if stream is None else stream
        for number in range(len(parts)):
            with self.clocks.run("data", inside="train") if self._waits else nullcontext():
                batch = next(stream)
            last = number == len(parts) - 1
            weight = self.accelerator.num_processes / total
            loss_sum = None if self._recorded is None else self._recorded.run(batch, weight)
            if loss_sum is None:
                with nullcontext() if last else self.accelerator.no_sync(self.model):
                    loss_sum = self.model(batch).loss_sum * float(counts)
                    self.accelerator.backward(loss_sum * weight)
            losses.append(loss_sum.detach().double())
            tokens += batch.num_tokens * counts
            padded += batch.num_padded_tokens * counts
        sums = self._sum(sum(losses[1:], losses[0]), tokens, padded)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), settings.clip_norm)
        self._losses.add(progress.step, sums, norm)
        if self._waits:
            self._read_losses()
        self.prepared_optimizer.step()
        self.prepared_optimizer.zero_grad(set_to_none=self._recorded is None)
        progress.batch += 1
        progress.step += 1
        progress.targets += total
        self.show.step(self._losses.last / total, total, tokens * self.accelerator.num_processes)

    def _sum(self, loss: torch.Tensor, *counts: int) -> torch.Tensor:
        """Loss and counts, float64 on the device, summed over all processes."""
        fill = {"dtype": torch.float64, "device": self.device}  # filled there: nothing is copied
        mine = torch.stack([loss, *(torch.full((), float(count), **fill) for count in counts)])
        return mine if self.accelerator.num_processes == 1 else self.accelerator.reduce(mine, "sum")

    def _read_losses(self) -> None:
        """Wait for the device and take up the losses of the steps since the last time."""
        losses, tokens, padded = self._losses.read()
        for loss in losses:
            self.progress.loss_sum += loss
        if self.progress.epoch == 0:
            self.progress.tokens_raw += tokens
            self.progress.tokens_padded += padded

    def _save(self) -> None:
        self._saved_at = time.perf_counter()
        if self.checkpoints is None or not self.accelerator.is_main_process:
            return
        self.progress.seconds = dict(self.clocks.seconds)
        state = {
            "progress": self.progress.__dict__,
            "parameters": snapshot(self.accelerator.unwrap_model(self.model)),
            "optimizer": self.optimizer.state_dict(),
            "random": random_state(),
        }
        self.checkpoints.save(STATE_FILE, state)

    def _resume(self) -> None:
        state = None if self.checkpoints is None else self.checkpoints.load(STATE_FILE)
        if self.checkpoints is None or state is None:
            return
        with self.checkpoints.must_fit():
            progress = Progress(**state["progress"])
            load_snapshot(self.accelerator.unwrap_model(self.model), state["parameters"])
            self.optimizer.load_state_dict(state["optimizer"])
            restore_random_state(state["random"])
            if progress.best_epoch >= 0:
                best = self.checkpoints.load(BEST_FILE)
                if best is None or best["epoch"] < progress.best_epoch:
                    raise ValueError(f"{BEST_FILE} of epoch {progress.best_epoch} is missing")
                self._best = best["parameters"]
        self.progress = progress
        self.clocks.seconds = dict(progress.seconds)
        self.show.resume(progress.step)
        self.show.event(f"going on from step {progress.step} of {self.total_steps}")
