"""SASRec: its block against PyTorch's own attention in the authors' wiring, causal masking, positions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from id_cases import build, cut, make_id_data
from torch import nn

from baselines.sasrec import SasRecBlock, causal_visibility

WIDTH, HEADS, LENGTH = 8, 2, 6
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 1]], dtype=torch.bool)


def new_block() -> SasRecBlock:
    torch.manual_seed(0)
    block = SasRecBlock(WIDTH, HEADS, dropout=0.0).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    return block


def authors_block(block: SasRecBlock, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Each sequence alone, without its padding, through `nn.MultiheadAttention`: list of (length, E)."""
    attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).double()
    attention.in_proj_weight = nn.Parameter(torch.cat([block.query.weight, block.key_value.weight]))
    attention.in_proj_bias = nn.Parameter(torch.cat([block.query.bias, block.key_value.bias]))
    attention.out_proj = block.attention_out
    results = []
    for sequence, real in zip(x, mask, strict=True):
        alone = sequence[real][None]
        query = block.attention_norm(alone)
        future = torch.ones(alone.shape[1], alone.shape[1], dtype=torch.bool).triu(1)
        attended, _ = attention(query, alone, alone, attn_mask=future)
        y = block.forward_norm(query + attended)
        results.append((y + F.linear(F.relu(block.inner(y)), block.outer.weight, block.outer.bias))[0])
    return torch.cat(results)


def test_block_is_that_of_the_authors_values_and_gradients() -> None:
    block = new_block()
    inputs = [torch.randn(3, LENGTH, WIDTH, dtype=torch.float64).requires_grad_() for _ in range(2)]
    inputs[1].data.copy_(inputs[0].data)
    ours = block(inputs[0], causal_visibility(MASK))[MASK]
    theirs = authors_block(block, inputs[1], MASK)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    weight = torch.randn_like(ours)
    (ours * weight).sum().backward()
    (theirs * weight).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=0, atol=1e-12)


def test_the_last_positions_alone_are_those_of_all() -> None:
    block, visible = new_block(), causal_visibility(MASK)
    x = torch.randn(3, LENGTH, WIDTH, dtype=torch.float64)
    torch.testing.assert_close(block(x, visible[:, -2:]), block(x, visible)[:, -2:], rtol=0, atol=1e-12)


def test_a_position_sees_itself_and_what_is_real_before_it() -> None:
    visible = causal_visibility(MASK)
    for sequence in range(3):
        for query in range(LENGTH):
            for key in range(LENGTH):
                expected = query == key or (key < query and bool(MASK[sequence, key]))
                assert bool(visible[sequence, query, key]) == expected


@pytest.mark.parametrize("changed", range(LENGTH))
def test_a_change_moves_no_earlier_state(changed) -> None:
    block, visible = new_block(), causal_visibility(MASK)
    x = torch.randn(3, LENGTH, WIDTH, dtype=torch.float64)
    before = block(x, visible)
    x[:, changed] += 1.0
    moved = (block(x, visible) - before).abs().amax(dim=-1) > 1e-9
    later = torch.arange(LENGTH) > changed
    for sequence in range(3):
        reached = later if MASK[sequence, changed] else torch.zeros_like(later)
        assert torch.equal(moved[sequence], reached | (torch.arange(LENGTH) == changed))


def test_without_any_history_the_state_is_zero() -> None:
    data = make_id_data([4])
    model = build("sasrec", data, n=5)
    past, mask = torch.zeros(2, 5, 8, dtype=torch.float64), torch.zeros(2, 5, dtype=torch.bool)
    assert not model.last_state(past, mask).any()


def test_order_matters() -> None:
    data = make_id_data([9])
    model = build("sasrec", data, n=6).eval()
    batch = cut("sasrec", data, np.array([data.user_rows[6]]), 6)
    order = torch.tensor([1, 0, 2, 3, 4, 5])
    assert batch.past_item[0, 0] != batch.past_item[0, 1]
    swapped = replace(batch, past_item=batch.past_item[:, order], past_answer=batch.past_answer[:, order])
    assert not torch.allclose(model.logit(batch), model.logit(swapped), atol=1e-6)
