"""One process of several that fill a table; a script for `accelerate launch` in the test beside it.

`fill_in_processes.py FOLDER CHUNK VICTIM DEADLY_CALL` writes what this process did to FOLDER-<rank>.json.
Process number VICTIM kills itself at its DEADLY_CALL-th call of the encoder (0: never).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from accelerate import PartialState
from behaviour_cases import many, tiny

from repro.behaviours import build
from repro.behaviours.encoding import BehaviourEncoder
from repro.behaviours.lance_table import LanceTable
from repro.behaviours.table import open_table


def main(folder: Path, chunk: int, victim: int, deadly_call: int) -> None:
    build.CHUNK = chunk
    state = PartialState(cpu=True)
    backbone = tiny()
    behaviours, encoder = many(backbone), BehaviourEncoder(backbone, 2)
    if state.is_last_process:  # it comes late to a table that it saw missing
        exists, create = LanceTable._exists, LanceTable._create
        LanceTable._exists = lambda table: False
        LanceTable._create = lambda table: (
            setattr(LanceTable, "_exists", exists),
            time.sleep(1),
            create(table),
        )
    table = open_table(folder, encoder.fingerprint, encoder.width)
    encode, calls = encoder.encode, []

    def counted(tokens):
        calls.append(len(tokens))
        if state.process_index == victim and len(calls) == deadly_call:
            os.kill(os.getpid(), signal.SIGKILL)
        return encode(tokens)

    encoder.encode = counted
    missing = build.fill_in_parallel(table, behaviours, encoder)
    result = {"missing": missing, "encoded": calls, "rows": len(table), "version": table.version}
    Path(f"{folder}-{state.process_index}.json").write_text(json.dumps(result))
    state.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
