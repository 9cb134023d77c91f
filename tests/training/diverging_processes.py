"""Two processes that train the toy task and meet a NaN; a script for the test beside it.

`python diverging_processes.py` writes the exit code of each process to stdout: 0 if it ended with a
DivergedError of step 4, the signal's number below zero if it was still waiting after `LIMIT_S`.
"""

from __future__ import annotations

import json
import math
import signal

import pytest
from forked_runs import exits, fork, free_port, join_processes
from toy_task import ToyOutput, toy_task

from repro.training import stretches
from repro.training.loop import DivergedError, Trainer
from repro.training.settings import TrainingSettings

LIMIT_S = 45


def meet_nan(rank: int, port: int) -> None:
    """Losses are read after stretches of 1, 2, 4, ... steps; by its own clock the second would read each."""
    signal.alarm(LIMIT_S)
    join_processes(rank, 2, port)
    stretches.STRETCH_S = (1e9, 1e-9)[rank]
    task = toy_task(num_train=160)
    forward, calls = task.model.forward, []

    def wrapped(batch):
        output = forward(batch)
        calls.append(None)
        return ToyOutput(output.loss_sum * (math.nan if len(calls) == 5 else 1.0), output.score)

    if rank == 0:
        task.model.forward = wrapped
    trainer = Trainer(task, TrainingSettings(learning_rate=1e-2, max_epochs=2), 0, None, "toy")
    trainer._waits = False
    with pytest.raises(DivergedError, match="at step 4"):
        trainer.train()


if __name__ == "__main__":
    address = free_port()
    print(json.dumps(exits([fork(lambda rank=rank: meet_nan(rank, address)) for rank in range(2)])))
