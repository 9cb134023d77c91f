"""Dice, local activation, GRU, cross network, pooling and exact search against slow versions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from id_cases import build, make_id_data
from torch import Tensor, nn

from baselines.dcnv2 import CrossNetwork, pooled
from baselines.dice import Dice, DiceInTraining
from baselines.din import LocalActivation
from baselines.histories import Catalogue
from baselines.layers import InteractionEncoder
from baselines.sim import ExactSearch

B, N, E = 4, 5, 3
MASK = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]], dtype=torch.bool)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def assert_same(fast: Callable, slow: Callable, *inputs: Tensor, module: nn.Module | None = None) -> None:
    """Values, and gradients with respect to the inputs and the module's parameters."""
    parameters = list(module.parameters()) if module is not None else []
    results = []
    for function in (fast, slow):
        leaves = [each.clone().requires_grad_() for each in inputs]
        value = function(*leaves)
        loss = (value * draw(*value.shape, seed=9)).sum()
        results.append((value, *torch.autograd.grad(loss, [*leaves, *parameters])))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def new_dice() -> Dice:
    dice = Dice(E).double()
    dice.alpha.data.copy_(torch.tensor([0.3, -0.2, 0.0]))
    return dice


def test_dice_is_equation_9_over_real_positions() -> None:
    dice = new_dice()

    def slow(x: Tensor) -> Tensor:
        real = torch.stack([x[b, i] for b in range(B) for i in range(N) if MASK[b, i]])
        mean = real.mean(dim=0)
        var = ((real - mean) ** 2).mean(dim=0)
        p = 1 / (1 + torch.exp(-(x - mean) / torch.sqrt(var + dice.eps)))
        return (p * x + (1 - p) * dice.alpha * x)[MASK]

    assert_same(lambda x: dice(x, MASK)[MASK], slow, 2 + 3 * draw(B, N, E), module=dice)


def test_dice_without_mask_counts_all_and_keeps_moving_averages_as_batch_norm_does() -> None:
    dice, norm = new_dice(), nn.BatchNorm1d(E, eps=1e-9, momentum=0.01, affine=False).double()
    for seed in range(3):
        x = 1 + 2 * draw(7, E, seed=seed)
        p = torch.sigmoid(norm(x))
        torch.testing.assert_close(dice(x), p * x + (1 - p) * dice.alpha * x, rtol=0, atol=1e-9)
    torch.testing.assert_close(dice.running_mean, norm.running_mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(dice.running_var, norm.running_var, rtol=0, atol=1e-12)
    dice.eval(), norm.eval()
    x = draw(1, E, seed=5)
    p = torch.sigmoid(norm(x))
    torch.testing.assert_close(dice(x), p * x + (1 - p) * dice.alpha * x, rtol=0, atol=1e-9)


def test_dice_of_a_batch_of_one_halves() -> None:
    dice, x = new_dice(), draw(1, E)
    torch.testing.assert_close(dice(x), x * (1 + dice.alpha) / 2, rtol=0, atol=1e-4)


def test_dice_of_padding_alone_is_finite_and_leaves_the_averages_alone() -> None:
    dice = new_dice()
    value = dice(torch.zeros(B, N, E, dtype=torch.float64), torch.zeros(B, N, dtype=torch.bool))
    assert torch.isfinite(value).all() and torch.isfinite(dice.running_mean).all()


@pytest.mark.parametrize("softmax", [False, True])
def test_local_activation_is_that_of_the_parts_side_by_side(softmax) -> None:
    torch.manual_seed(0)
    unit = LocalActivation(E, (6, 4), softmax).double()

    def slow(target: Tensor, past: Tensor) -> Tensor:
        t = target[:, None].expand_as(past)
        x = unit.first(torch.cat([t, past, t - past, t * past], dim=-1))
        x = unit.activations[0](x, MASK)
        weight = unit.out(unit.activations[1](unit.rest[0](x), MASK))[..., 0]
        rows = []
        for b in range(B):
            real = weight[b][MASK[b]]
            real = torch.softmax(real, dim=0) if softmax else real
            rows.append((real[:, None] * past[b][MASK[b]]).sum(dim=0))
        return torch.stack(rows)

    def fast(target: Tensor, past: Tensor) -> Tensor:
        return unit(target, past, MASK)

    assert_same(fast, slow, draw(B, E), draw(B, N, E, seed=1), module=unit)


def test_gru_state_is_that_of_each_history_alone() -> None:
    model = build("gru4rec-two-layers", make_id_data([4]), n=N)

    def slow(past: Tensor) -> Tensor:
        zero = torch.zeros(1, model.gru.hidden_size, dtype=past.dtype)
        states = [model.gru(past[b][MASK[b]][None])[0][:, -1] if MASK[b].any() else zero for b in range(B)]
        return torch.cat(states)

    assert_same(lambda past: model.last_state(past, MASK), slow, draw(B, N, 8), module=model.gru)


@given(layers=st.integers(1, 4), rank=st.sampled_from([None, 1, 2]))
def test_cross_network_is_its_equation(layers, rank) -> None:
    network = CrossNetwork(E, layers, rank).double()
    matrices = []
    for layer in network.layers:
        if rank is None:
            matrices.append((layer.weight, layer.bias))
        else:
            assert layer[0].weight.shape == (rank, E)
            matrices.append((layer[1].weight @ layer[0].weight, layer[1].bias))

    def slow(x_0: Tensor) -> Tensor:
        x = x_0
        for weight, bias in matrices:
            x = torch.stack([x_0[b] * (weight.detach() @ x[b] + bias.detach()) + x[b] for b in range(len(x))])
        return x

    assert_same(network, slow, draw(B, E))


def test_pooling_means_the_members_and_gives_zero_for_an_empty_group() -> None:
    past, members = draw(B, N, E), torch.stack([MASK, ~MASK], dim=1)

    def slow(past: Tensor) -> Tensor:
        zero = torch.zeros(E, dtype=past.dtype)
        groups = [past[b][members[b, g]] for b in range(B) for g in range(2)]
        return torch.stack([each.mean(dim=0) if len(each) else zero for each in groups]).view(B, 2, E)

    assert_same(lambda past: pooled(past, members), slow, past)


def test_exact_search_is_multi_head_attention_over_what_was_found() -> None:
    torch.manual_seed(0)
    unit = ExactSearch(E, heads=2, head_dim=4).double()

    def slow(target: Tensor, found: Tensor) -> Tensor:
        rows = []
        for b in range(B):
            real = found[b][MASK[b]]
            for head in range(2):
                part = slice(4 * head, 4 * head + 4)
                query = unit.query.weight[part] @ target[b] + unit.query.bias[part]
                weight = torch.softmax(real @ unit.key.weight[part].T @ query / 2, dim=0)
                rows.append(weight @ real)
        return torch.stack(rows).view(B, 2 * E)

    assert_same(lambda t, found: unit(t, found, MASK), slow, draw(B, E), draw(B, N, E, seed=1), module=unit)


def test_encoder_puts_an_item_beside_the_mean_of_its_categories() -> None:
    data = make_id_data([6], seed=4)
    encoder = InteractionEncoder(Catalogue.of(data), 4, 3, init_std=1.0)
    items = encoder.items()
    names = sorted({name for each in data.items.categories for name in each})
    assert items.shape == (len(data.items) + 1, encoder.width) and not items[0].any()
    for number, categories in enumerate(data.items.categories, start=1):
        vectors = [encoder.category.weight[names.index(name) + 1] for name in categories]
        mean = torch.stack(vectors).mean(dim=0) if vectors else torch.zeros(3)
        torch.testing.assert_close(items[number], torch.cat([encoder.item.weight[number], mean]))


@pytest.mark.parametrize("rows", [1, 7])
def test_dices_written_out_gradient_is_the_numerical_one(rows):
    torch.manual_seed(0)
    x = torch.randn(rows, 3, dtype=torch.double, requires_grad=True)
    alpha = torch.tensor([0.2, -0.3, 0.5], dtype=torch.double, requires_grad=True)
    share = (torch.arange(rows) % 3 != 1).double()
    share /= share.sum()

    def dice(x, alpha):
        mean = share @ x.detach()
        var = share @ x.detach().square() - mean.square()
        return DiceInTraining.apply(x, alpha, share, mean, torch.rsqrt(var + 1e-2))

    assert torch.autograd.gradcheck(dice, (x, alpha))
