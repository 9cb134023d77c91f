"""ID-based CTR models, one readable file each; `registry.py` lists them.

They read item ids, categories and past answers. `method.py` says what makes one of them, `histories.py` cuts
their batches; training, scores and records are those of every other method.
"""

PUBLISHED_HISTORY = 30  # history length of the published values on ml-1m
