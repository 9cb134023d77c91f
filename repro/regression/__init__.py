"""The regression gate: whether any committed number, prompt or AUC moved. Start at `gate.py`."""
