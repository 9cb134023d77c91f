"""Layers of the baselines with fixed weights and inputs, and what comes out of them.

The oracles (tests/oracles) compare it with other libraries' layers, the golden tests (tests/baselines) with
what those libraries gave when golden.json was written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from baselines.dcnv2 import CrossNetwork
from baselines.dice import Dice
from baselines.din import LocalActivation
from baselines.sasrec import SasRecBlock, causal_visibility

GOLDEN = Path(__file__).parent / "baselines" / "golden.json"
Values = dict[str, Tensor]

B, N, E, HEADS, UNITS = 3, 4, 4, 2, (3, 2)
REAL = torch.ones(B, N, dtype=torch.bool)
PADDED = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 1]], dtype=torch.bool)
ONE_EMPTY = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]], dtype=torch.bool)


def wave(shape: tuple[int, ...], number: int) -> Tensor:
    """Fixed numbers in (-1, 1), drawn by no random generator; `number` tells tensors apart."""
    count = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64)
    return torch.sin(count * (0.7 + 0.31 * number)).reshape(shape).float()


def filled(layer: nn.Module) -> nn.Module:
    """The layer with a wave in every parameter and statistic; variances are positive."""
    for number, (name, tensor) in enumerate(layer.state_dict().items()):
        values = wave(tuple(tensor.shape), number)
        tensor.copy_(values**2 + 0.5 if name.endswith("running_var") else values)
    return layer


@dataclass(frozen=True)
class Case:
    """Attributes:
    layer: makes our layer. inputs: by argument name. training: its mode.
    """

    layer: Callable[[], nn.Module]
    inputs: Values
    training: bool

    def outcome(self, substitute: Callable[[nn.Module], Callable[..., Tensor]] | None = None) -> Values:
        """Output, gradients of inputs and parameters (of the output against a wave), statistics afterwards.

        Args:
            substitute: given our layer, returns what is called in its place and computes with its tensors.
        """
        layer = filled(self.layer()).train(self.training)
        given = {
            name: tensor.clone().requires_grad_(tensor.is_floating_point())
            for name, tensor in self.inputs.items()
        }
        output = (substitute(layer) if substitute else layer)(**given)
        (output * wave(tuple(output.shape), 99)).sum().backward()
        sources = {name: tensor for name, tensor in given.items() if tensor.requires_grad}
        values = {"output": output.detach()}
        for name, tensor in (sources | dict(layer.named_parameters())).items():
            assert tensor.grad is not None, f"{name} has no gradient"
            values[f"gradient {name}"] = tensor.grad
        return values | {f"afterwards {name}": tensor.clone() for name, tensor in layer.named_buffers()}


def _dice(training: bool) -> Case:
    return Case(lambda: Dice(UNITS[0]), {"x": wave((5, UNITS[0]), 20) * 3}, training)


def _attention(softmax: bool, mask: Tensor, training: bool) -> Case:
    inputs = {"target": wave((B, E), 20), "past": wave((B, N, E), 21), "mask": mask}
    return Case(lambda: LocalActivation(E, UNITS, softmax), inputs, training)


def _sasrec(queries: int) -> Case:
    visible = causal_visibility(PADDED)[:, N - queries :]
    return Case(lambda: SasRecBlock(E, HEADS, 0.0), {"x": wave((B, N, E), 20), "visible": visible}, True)


CASES: dict[str, Case] = {
    "dice, training": _dice(True),
    "dice, evaluation": _dice(False),
    "din attention, training, no padding": _attention(False, REAL, True),
    "din attention, training, padding": _attention(False, ONE_EMPTY, True),
    "din attention, evaluation, padding": _attention(False, ONE_EMPTY, False),
    "din attention, softmax, training, no padding": _attention(True, REAL, True),
    "din attention, softmax, evaluation, padding": _attention(True, PADDED, False),
    "sasrec block, all positions": _sasrec(N),
    "sasrec block, newest position": _sasrec(1),
    "dcnv2 cross network": Case(lambda: CrossNetwork(E, 2, None), {"x_0": wave((B, E), 20)}, True),
}


def assert_same(found: Values, expected: Values) -> None:
    """Equal names, and numbers equal within what float32 leaves of them.

    Only gradients that are zero in exact arithmetic (a bias before a softmax, the keys' bias) need `atol`.
    """
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(
            found[name], tensor, rtol=2e-5, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


def read_golden() -> dict[str, Values]:
    """Committed values of the peers by case."""
    cases = json.loads(GOLDEN.read_text())["cases"]
    return {case: {name: torch.tensor(v) for name, v in values.items()} for case, values in cases.items()}


def write_golden(peers: dict[str, str], cases: dict[str, Values]) -> None:
    """Replace the committed values; one line per tensor, so that a change can be read in a diff."""

    def rounded(tensor: Tensor) -> list:
        flat = [float(f"{value:.8g}") for value in tensor.flatten().tolist()]
        return torch.tensor(flat, dtype=torch.float64).reshape(tensor.shape).tolist()

    lines = []
    for case, values in cases.items():
        tensors = [f"   {json.dumps(name)}: {json.dumps(rounded(v))}" for name, v in values.items()]
        lines.append(f"  {json.dumps(case)}: {{\n" + ",\n".join(tensors) + "\n  }")
    text = f'{{\n "peers": {json.dumps(peers)},\n "cases": {{\n' + ",\n".join(lines) + "\n }\n}\n"
    GOLDEN.write_text(text, encoding="utf-8")
