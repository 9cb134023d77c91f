"""One training step that can be timed: static buffers, and on CUDA the whole step as one graph.

The step is that of `training.loop.Trainer` (tested against it): forward pass under autocast, loss over the
number of targets, backward pass, clipped gradients, AdamW at the cosine's rate.
Small models are bound by launching kernels rather than by arithmetic; a CUDA graph launches all of them at
once, for any method alike. It needs batches of one shape and a forward pass that never waits for the device.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn

from repro.training.optimizer import cosine_with_warmup, make_optimizer
from repro.training.recorded import side_stream, tensors_of, with_tensors
from repro.training.settings import TrainingSettings

WARM_STEPS = 3  # before a graph is captured or a clock started: compilation, and the optimiser's state


class TrainingStep:
    """Steps over batches of one shape; calling it queues one.

    Args:
        model: called with a batch, returns a `ModelOutput`; in training mode.
        batch: the first one, on the model's device: a dataclass with tensors and `num_targets`.
        settings: of optimiser, clipping, schedule and precision.
        total_steps: length of the cosine; its rate is 0 from then on.
        device: where the model is.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Any,
        settings: TrainingSettings,
        total_steps: int,
        device: torch.device,
    ) -> None:
        self.model, self.settings, self.total_steps, self.device = model, settings, total_steps, device
        self._tensors = [tensor.clone() for tensor in tensors_of(batch, host=True)]
        self.batch = with_tensors(batch, iter(self._tensors), host=True)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.loss = torch.zeros((), device=device)
        self.number = 0
        self._rate = torch.zeros((), device=device)
        self._optimizer = make_optimizer(model, settings)
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate  # a tensor: a graph reads it anew every time

    def __call__(self, batch: Any) -> None:
        """One step on a batch of the same shapes; on CUDA it is queued, not waited for."""
        for own, new in zip(self._tensors, tensors_of(batch, host=True), strict=True):
            assert own.shape == new.shape, "batches of one shape"
            own.copy_(new)
        share = cosine_with_warmup(self.number, self.total_steps, self.settings.warmup_share)
        self._rate.fill_(self.settings.learning_rate * share)
        if self.graph is None:
            self._run()
        else:
            self.graph.replay()
        self.number += 1

    def warm_up(self) -> None:
        """Compile, and fill the optimiser's state; on a stream of its own, as a capture asks for."""
        if self.device.type != "cuda":
            self(self.batch)
            return
        side = side_stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_STEPS):
                self(self.batch)
        torch.cuda.current_stream().wait_stream(side)

    def capture(self) -> None:
        """From here on every step is one launch of a graph.

        CUDA only. `warm_up` comes first, and no other thread may use the device meanwhile.
        """
        for group in self._optimizer.param_groups:
            group["capturable"] = True
        self.clear_gradients()  # they then live in the graph's own memory
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._run()
        self.graph = graph

    def standing_bytes(self) -> int:
        """What stays allocated between steps: weights, buffers, optimiser state, the batch."""
        kept = [*self.model.parameters(), *self.model.buffers(), *self._tensors]
        kept += [value for state in self._optimizer.state.values() for value in state.values()]
        sizes = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in kept}
        return sum(sizes.values())

    def clear_gradients(self) -> None:
        """As at the start of a step."""
        self._optimizer.zero_grad(set_to_none=True)

    def _run(self) -> None:
        self.clear_gradients()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
            loss_sum = self.model(self.batch).loss_sum.float()
        loss = loss_sum / self.batch.num_targets
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self._optimizer.step()
        self.loss.copy_(loss.detach())


def peak_bytes(step: TrainingStep) -> int:
    """Most bytes allocated at once during a step, weights and optimiser included.

    On CUDA: `max_memory_allocated` over one step that is not captured (what a graph's private pool holds back
    counts as reserved, not as allocated). On a CPU: the same from PyTorch's record of allocations.
    """
    if step.device.type == "cuda":
        torch.cuda.synchronize()
        torch._C._cuda_clearCublasWorkspaces()  # cuBLAS keeps one for every stream that was ever used
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        step(step.batch)
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()
    from torch.autograd.profiler import profile

    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # some builds print a line whenever a profile starts
    step.clear_gradients()
    standing = step.standing_bytes()
    with profile(use_kineto=False, profile_memory=True) as record:
        step(step.batch)
    assert record.kineto_results is not None
    events = [each for each in record.kineto_results.events() if each.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda each: each.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return standing + most
