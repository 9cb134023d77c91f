"""FLOPs of DIN and SASRec per target, in closed form and by both counters on the real modules.

Both read histories of n places and compute every place, padded ones too, so the count is that of a full
history. Attention of SASRec counts visible pairs: n (n + 1) / 2 in all blocks but the last, n there, since
only the newest place's state is read. Everything is trained and every vector has a gradient, so a product
trains at 3 x its forward cost; the batch statistics of Dice, products with the rows' shares, have no product
in their gradient.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch

from baselines.din import DIN, DinSettings
from baselines.histories import Catalogue, IdBatch
from baselines.layers import IdModel
from baselines.sasrec import SASRec, SasRecSettings
from repro.costs.attention_op import redirected_attention
from repro.costs.closed_form import Cost, Work
from repro.costs.counted_models import Counted, count_module

BATCH = 256  # targets of the counted step; FLOPs per target do not depend on it


def _product(size: int, part: str = "linear layers") -> Work:
    """A product of `size` multiply-adds whose factors both have gradients."""
    return Work(part, 2 * size, 4 * size)


def _mlp(sizes: Sequence[int]) -> list[Work]:
    return [_product(i * o) for i, o in itertools.pairwise([*sizes, 1])]


def din_cost(settings: DinSettings, n: int) -> Cost:
    """One target of DIN with a history of n.

    Local activation unit, at each of the n places: two E x U1 products (the difference's share is folded into
    the past's), the rest of its layers, one logit; one E x U1 product for the target; the weighted sum n E.
    Then the network on [target, interest]. Every Dice takes a mean and a mean square.
    """
    width, units = settings.item_dim + settings.category_dim, settings.attention_units
    works = [_product(2 * n * width * units[0]), _product(width * units[0])]
    works += [_product(n * i * o) for i, o in itertools.pairwise([*units, 1])]
    works.append(_product(n * width, "attention"))
    works += _mlp([2 * width, *settings.hidden])
    dice = n * sum(units) + sum(settings.hidden)
    return Cost((*works, Work("linear layers", 4 * dice)))


def sasrec_pairs(settings: SasRecSettings, n: int) -> list[int]:
    """Visible pairs of every block for one target."""
    return [n * (n + 1) // 2] * (settings.blocks - 1) + [n]


def sasrec_cost(settings: SasRecSettings, n: int) -> Cost:
    """One target of SASRec with a history of n: E x E products for query, keys and values (2), output, inner
    and outer layer; in the last block all but keys and values for the newest place alone. Then the head."""
    width, works = settings.item_dim + settings.category_dim, []
    for number, pairs in enumerate(sasrec_pairs(settings, n)):
        queries = 1 if number == settings.blocks - 1 else n
        works.append(_product((4 * queries + 2 * n) * width * width))
        works.append(_product(2 * pairs * width, "attention"))
    return Cost((*works, *_mlp([3 * width, *settings.hidden])))


def count_id_model(model: IdModel, n: int, pairs: Sequence[int] = ()) -> Counted:
    """Both counts of one training step of `BATCH` targets, per step, on the meta device.

    Args:
        pairs: visible pairs per target of every attention call, in order.
    """
    model = model.to("meta").train()

    def numbers(*shape: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
        return torch.zeros(*shape, dtype=dtype, device="meta")

    class Step(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, item: Any, past: Any, answer: Any, label: Any) -> Any:
            out = self.model(IdBatch(item, past, answer, label, target_row=None))  # type: ignore[arg-type]
            return out.loss_sum, out.score

    inputs = [numbers(BATCH), numbers(BATCH, n), numbers(BATCH, n), numbers(BATCH, dtype=torch.float32)]
    return count_module(
        Step(),
        inputs,
        lambda out: out[0],
        lambda: redirected_attention([BATCH * each for each in pairs]),
    )


def id_rows(catalogue: Catalogue, contexts: Sequence[int]) -> list[dict[str, Any]]:
    """DIN and SASRec at their default settings: method, n, counter and FLOPs per target."""
    rows = []
    for n in contexts:
        for name, cost, model, pairs in (
            ("din", din_cost(DinSettings(), n), DIN(catalogue, n, DinSettings()), []),
            (
                "sasrec",
                sasrec_cost(SasRecSettings(), n),
                SASRec(catalogue, n, SasRecSettings()),
                sasrec_pairs(SasRecSettings(), n),
            ),
        ):
            counted = count_id_model(model, n, pairs)
            for counter, forward, train in (
                ("closed_form", cost.forward, cost.train),
                ("fvcore", counted.fvcore_forward / BATCH, None),
                ("torch", counted.torch_forward / BATCH, counted.torch_train / BATCH),
            ):
                rows.append(
                    {"method": name, "n": n, "counter": counter}
                    | {"forward_flops_per_target": forward, "train_flops_per_target": train}
                )
    return rows
