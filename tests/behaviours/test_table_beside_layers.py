"""A table's vectors beside those that the lower layers compute inside a step, of the same behaviours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from behaviour_cases import many, tiny

from repro.behaviours.encoding import BehaviourEncoder
from repro.behaviours.table import fill, look_up, open_table
from repro.methods.bahe.model import LowerLayers
from repro.methods.bahe.vectors import TextVectors

LAYERS = 2
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
def test_a_table_holds_what_the_layers_of_a_step_compute(folder, device, precision, pooling) -> None:
    """Both pad a behaviour to the same length; how many stand in a batch differs."""
    backbone = tiny()
    backbone.model.to(device)
    behaviours = many(backbone)
    encoder = BehaviourEncoder(backbone, LAYERS, pooling, precision)
    table = open_table(folder, encoder.fingerprint, encoder.width)
    fill(table, behaviours, encoder)
    lower = LowerLayers(backbone, LAYERS, pooling, trained=False)
    source, rng = TextVectors(behaviours), np.random.default_rng(0)
    for count in (len(behaviours), 40, 1):
        chosen = rng.permutation(len(behaviours))[:count]
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            in_step = lower(source.load(chosen, device)).float().cpu().numpy()
        stored = look_up(table, behaviours, chosen)
        if (device, precision) == ("cpu", "fp32"):
            assert np.array_equal(stored, in_step)
            continue
        apart = np.linalg.norm(stored - in_step, axis=1) / np.linalg.norm(in_step, axis=1)
        assert apart.max() <= 1e-2
