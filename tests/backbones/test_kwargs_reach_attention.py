"""What transformers hands to a registered attention function: extra arguments untouched, and no mask.

A custom attention backend relies on it, on every transformers version that is allowed.
"""

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

FAMILIES = {
    "llama": {},
    "qwen2": {"sliding_window": None},
    "qwen3": {"sliding_window": None},
    "gemma": {},
    "gemma2": {"sliding_window": 4, "softcap": 50.0},
}
BATCH, LENGTH, HEADS, KEY_HEADS, HEAD_DIM = 2, 6, 4, 2, 8
calls: list[dict] = []


def probe(module, query, key, value, attention_mask, **extra):
    """Record the call and attend to everything; adds `my_shift` if it is given."""
    calls.append(
        {
            "layer": module.layer_idx,
            "query": query,
            "key": key,
            "value": value,
            "mask": attention_mask,
            **extra,
        }
    )
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    out = torch.nn.functional.scaled_dot_product_attention(query, key, value, scale=extra["scaling"])
    return out.transpose(1, 2).contiguous() + extra.get("my_shift", 0.0), None


ALL_ATTENTION_FUNCTIONS.register("test-probe", probe)


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def model(family):
    calls.clear()
    torch.manual_seed(0)
    config = CONFIG_MAPPING[family](
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS,
        head_dim=HEAD_DIM,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
        **({"sliding_window": 4} if family == "gemma2" else {}),
    )
    return AutoModelForCausalLM.from_config(config, attn_implementation="test-probe")


def run(model, embeddings, **extra):
    positions = torch.arange(LENGTH).expand(BATCH, -1)
    return model.base_model(inputs_embeds=embeddings, position_ids=positions, use_cache=False, **extra)


def test_extra_arguments_reach_every_layer_untouched(model, family):
    plan = object()
    run(model, torch.randn(BATCH, LENGTH, 32), my_plan=plan)
    assert [call["layer"] for call in calls] == [0, 1]
    for call in calls:
        assert call["my_plan"] is plan
        assert (
            call["mask"] is None
        )  # a registered function without a mask function gets none, not a causal one
        assert call["query"].shape == (BATCH, HEADS, LENGTH, HEAD_DIM)
        assert call["key"].shape == call["value"].shape == (BATCH, KEY_HEADS, LENGTH, HEAD_DIM)
        assert call["dropout"] == 0.0
        assert call["scaling"] > 0
    for name, value in FAMILIES[family].items():
        assert calls[0][name] == value


def test_only_gemma2_alternates_windows(model, family):
    run(model, torch.randn(BATCH, LENGTH, 32))
    assert [call.get("sliding_window") for call in calls] == (
        [4, None] if family == "gemma2" else [None, None]
    )


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable.*:FutureWarning")
def test_gradients_reach_a_tensor_argument_under_gradient_checkpointing(model):
    """A tensor argument may carry gradients, layer recomputation (non-reentrant) or not."""
    embeddings, gradients = torch.randn(BATCH, LENGTH, 32), []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
        calls.clear()
        shift = torch.zeros(HEAD_DIM, requires_grad=True)
        run(model, embeddings, my_shift=shift).last_hidden_state.pow(3).sum().backward()
        gradients.append(shift.grad)
        assert [call["layer"] for call in calls] == ([0, 1, 1, 0] if checkpointing else [0, 1])
    assert gradients[0].abs().max() > 1e-3
    torch.testing.assert_close(gradients[0], gradients[1])
