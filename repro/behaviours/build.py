"""Filling a table by several processes under `accelerate launch`: behaviours partitioned by their text.

Each process encodes its part and writes it into the table's folder; the first one then makes what all have
written one version of the table. Processes on several machines need a folder that they share.
"""

from __future__ import annotations

import hashlib
from contextlib import nullcontext

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from repro.behaviours.encoding import BehaviourEncoder
from repro.behaviours.lance_table import LanceTable
from repro.behaviours.table import CHUNK, BehaviourTable, check_encoder, fill, missing_behaviours
from repro.behaviours.texts import Behaviours


def partition_of(text: str, partitions: int) -> int:
    """Which of `partitions` a behaviour belongs to; a function of its text alone, on every machine."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % partitions


def processes() -> PartialState:
    """The processes of this launch, as accelerate knows them."""
    return PartialState(cpu=not torch.cuda.is_available())


def fill_in_parallel(table: BehaviourTable, behaviours: Behaviours, encoder: BehaviourEncoder) -> int:
    """As `fill`, the work shared by all processes; each returns how many were missing and sees the result.

    Every process calls this with the same behaviours and an encoder of the same weights on its own device. A
    table in memory belongs to one process: there each encodes everything for itself.

    Raises:
        As `fill`.
    """
    state = processes()
    if state.num_processes == 1 or not isinstance(table, LanceTable):
        return fill(table, behaviours, encoder)
    check_encoder(table, behaviours, encoder)
    state.wait_for_everyone()  # all have opened the table: nobody waits for the lock that is taken now
    with table.exclusive() if state.is_main_process else nullcontext():
        state.wait_for_everyone()
        table.refresh()
        missing = missing_behaviours(table, behaviours)
        texts = behaviours.texts_of(missing)
        part = np.array([partition_of(text, state.num_processes) for text in texts], dtype=np.int64)
        longest = int(np.bincount(part, minlength=1).max())  # all processes take part in every round
        own = missing[part == state.process_index]
        for start in range(0, longest, CHUNK):
            chunk = own[start : start + CHUNK]
            vectors = encoder.encode(behaviours.tokens_of(chunk))
            written = gather_object(table.write(behaviours.texts_of(chunk), vectors))
            if state.is_main_process:
                table.commit(written)
            state.wait_for_everyone()
            table.refresh()
    return len(missing)
