"""The training loop: every method goes through it."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from repro.evaluation.metrics import evaluate_scores
from repro.training.checkpoint import (
    BEST_FILE,
    STATE_FILE,
    CheckpointFolder,
    load_snapshot,
    snapshot,
    trained_parameters,
)
from repro.training.clocks import Clocks
from repro.training.interrupts import interrupts_held_back
from repro.training.progress import RunProgress
from repro.training.seeds import random_state, restore_random_state
from repro.training.settings import TrainingSettings
from repro.training.task import Batches, Task


class DivergedError(Exception):
    """A loss, gradient or score is not finite; of the first two raised before the optimiser steps."""


@dataclass
class Progress:
    """Where a training stands; everything here is stored in checkpoints.

    Attributes:
        epoch, batch: next batch to train on. step: optimiser steps taken.
        history: per finished epoch {"epoch", "auc", "log_loss", "train_loss", "train_s"}.
        best_epoch: epoch with the best validation AUC so far, -1 before the first.
        loss_sum, targets: of the epoch so far. tokens_raw, tokens_padded: of the first epoch. All four
            are sums over all processes.
        seconds: the clocks.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best_epoch: int = -1
    loss_sum: float = 0.0
    targets: int = 0
    tokens_raw: int = 0
    tokens_padded: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def best(self) -> dict[str, float]:
        """Validation entry of the best epoch."""
        return self.history[self.best_epoch]

    def stalled(self, patience: int) -> bool:
        """Whether the last `patience` epochs brought no better validation AUC."""
        return self.best_epoch >= 0 and len(self.history) - 1 - self.best_epoch >= patience


def cosine_with_warmup(step: int, total: int, warmup_share: float) -> float:
    """Factor on the learning rate: linear to 1 over the warm-up, then half a cosine down to 0 at `total`."""
    warmup = math.ceil(total * warmup_share)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))


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
        self.accelerator = Accelerator(mixed_precision=mixed, cpu=not torch.cuda.is_available())
        self.device = self.accelerator.device
        self.optimizer = _optimizer(task, settings)
        self.model, self.prepared_optimizer = self.accelerator.prepare(task.model, self.optimizer)
        # Epochs may differ where a row is larger than a batch: their number then depends on the order.
        batches = [len(task.train.epoch(seed, epoch)) for epoch in range(settings.max_epochs)]
        self.total_steps = sum(math.ceil(number / self.accelerator.num_processes) for number in batches)
        self.progress = Progress()
        self.clocks = Clocks(self.device)
        self.show = RunProgress(title, self.total_steps, quiet=not self.accelerator.is_main_process)
        self._best: dict[str, torch.Tensor] | None = None
        self._saved_at = time.perf_counter()

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

    def scores(self, batches: Batches) -> tuple[np.ndarray, np.ndarray]:
        """Target rows, ascending, and their scores: ((n,) int64, (n,) float32).

        Raises:
            DivergedError: a score is not finite.
        """
        # Not through the wrapper of several processes: they may have unequal numbers of batches here.
        model = self.accelerator.unwrap_model(self.model).eval()
        mine = batches.in_order()[self.accelerator.process_index :: self.accelerator.num_processes]
        rows: list[np.ndarray] = []
        scores: list[np.ndarray] = []
        with torch.inference_mode():
            for key in [part for whole in mine for part in batches.split(whole)]:
                batch = batches.load(key, self.device)
                score = model(batch).score
                rows.append(batch.target_row)
                scores.append(score[: batch.num_targets].float().cpu().numpy())
        pairs = gather_object([(np.concatenate(rows), np.concatenate(scores))] if rows else [])
        row = np.concatenate([pair[0] for pair in pairs])
        score_ = np.concatenate([pair[1] for pair in pairs])
        if not np.isfinite(score_).all():
            raise DivergedError(f"{np.count_nonzero(~np.isfinite(score_))} scores are not finite")
        order = np.argsort(row)
        return row[order], score_[order]

    def evaluate(self, batches: Batches) -> dict[str, Any]:
        """Metrics of the model on a split, timed on the evaluation clock."""
        with self.clocks.run("eval"):
            row, score = self.scores(batches)
        return evaluate_scores(self.task.label[row], score, self.task.group[row])

    def _epoch(self) -> None:
        progress, settings = self.progress, self.settings
        processes, index = self.accelerator.num_processes, self.accelerator.process_index
        keys = self.task.train.epoch(self.seed, progress.epoch)
        self.model.train()
        while progress.batch * processes < len(keys):
            group = keys[progress.batch * processes : (progress.batch + 1) * processes]
            with interrupts_held_back(), self.clocks.run("train"):
                self._step(group[min(index, len(group) - 1)], counts=index < len(group))
            if time.perf_counter() - self._saved_at > settings.checkpoint_every_s:
                self._save()
        metrics = self.evaluate(self.task.validation)
        with interrupts_held_back():
            self._finish_epoch(metrics)

    def _finish_epoch(self, metrics: dict[str, Any]) -> None:
        progress = self.progress
        entry = {
            "epoch": progress.epoch,
            "auc": float(metrics["auc"]),
            "log_loss": float(metrics["log_loss"]),
            "train_loss": progress.loss_sum / max(progress.targets, 1),
            "train_s": self.clocks["train"],
        }
        progress.history.append(entry)
        if progress.best_epoch < 0 or entry["auc"] > progress.best()["auc"]:
            progress.best_epoch = progress.epoch
            self._best = snapshot(self.accelerator.unwrap_model(self.model))
            if self.checkpoints is not None and self.accelerator.is_main_process:
                self.checkpoints.save(BEST_FILE, {"epoch": progress.epoch, "parameters": self._best})
        self.show.event(
            f"epoch {progress.epoch + 1} of {self.settings.max_epochs}: "
            f"train loss {entry['train_loss']:.4f}, validation AUC {entry['auc']:.4f}, "
            f"log loss {entry['log_loss']:.4f}, {self.clocks['train']:.0f} s training"
        )
        progress.epoch, progress.batch, progress.loss_sum, progress.targets = progress.epoch + 1, 0, 0.0, 0
        self._save()

    def _step(self, key: Any, counts: bool) -> None:
        """One optimiser step: loss = sum over the targets of all processes / their number.

        Args:
            key: of the batch.
            counts: False where the last step has too few batches for all processes: this process then goes
                through the motions with weight zero, so that the others' gradients can be reduced.
        """
        progress, settings = self.progress, self.settings
        total = int(self._sum(self.task.train.count(key) if counts else 0)[0])
        factor = cosine_with_warmup(progress.step, self.total_steps, settings.warmup_share)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * factor
        parts, loss_value, tokens, padded = self.task.train.split(key), 0.0, 0, 0
        for number, part in enumerate(parts):
            with self.clocks.run("data", inside="train"):
                batch = self.task.train.load(part, self.device)
            last = number == len(parts) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                loss_sum = self.model(batch).loss_sum * float(counts)
                self.accelerator.backward(loss_sum * (self.accelerator.num_processes / total))
            loss_value += float(loss_sum.detach())
            tokens += batch.num_tokens * counts
            padded += batch.num_padded_tokens * counts
        loss_value, *sizes = self._sum(loss_value, tokens, padded)
        tokens, padded = int(sizes[0]), int(sizes[1])
        norm = float(self.accelerator.clip_grad_norm_(self.model.parameters(), settings.clip_norm))
        if not math.isfinite(loss_value) or not math.isfinite(norm):
            raise DivergedError(f"loss {loss_value}, gradient norm {norm} at step {progress.step}")
        self.prepared_optimizer.step()
        self.prepared_optimizer.zero_grad(set_to_none=True)
        progress.batch += 1
        progress.step += 1
        progress.loss_sum += loss_value
        progress.targets += total
        if progress.epoch == 0:
            progress.tokens_raw += tokens
            progress.tokens_padded += padded
        self.show.step(loss_value / total, total, tokens)

    def _sum(self, *values: float) -> list[float]:
        """Each value summed over all processes, so that all of them take the same decisions."""
        if self.accelerator.num_processes == 1:
            return list(values)
        mine = torch.tensor(values, dtype=torch.float64, device=self.device)
        return self.accelerator.reduce(mine, "sum").tolist()

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


def _optimizer(task: Task, settings: TrainingSettings) -> torch.optim.AdamW:
    """AdamW; matrices decay, vectors (norms, biases, the [SUM] embedding) do not."""
    parameters = list(trained_parameters(task.model).values())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    betas = (settings.beta1, settings.beta2)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=betas, fused=True)
