"""What trains: every recurrent parameter moves, in half precision too; the published memory stays dead."""

import dataclasses

import pytest
import torch

from rcv.models import Preset, get_preset
from tests.models.small import randomise, small_inputs, small_unet, training_steps

COMBINATIONS = [
    dataclasses.replace(
        get_preset("recurrent"),
        name=f"{cell}-{drive}-{base}",
        cell=cell,
        drive=drive,
        base=base,
        logit_bias=-4.0 if base == "none" else None,
    )
    for cell in ("rnn", "mingru", "rglru")
    for drive in ("input", "feedback")
    for base in ("none", "former")
]
RECURRENT = [
    get_preset("paper"),
    dataclasses.replace(get_preset("paper"), name="paper-relu", activation="relu"),
    get_preset("recurrent"),
    *COMBINATIONS,
]


def recurrent_parameters(unet):
    return {
        name: p.detach().clone()
        for name, p in unet.named_parameters()
        if "attn1.memory" in name or "logit_bias" in name
    }


@pytest.mark.parametrize("preset", RECURRENT, ids=lambda preset: preset.name)
def test_every_recurrent_parameter_moves_within_three_steps(preset):
    unet = small_unet(preset)
    before = recurrent_parameters(unet)
    training_steps(unet, steps=3)
    assert len(before) >= 3 * 4  # weights, W_ho and biases of three or more blocks
    still = [name for name, value in recurrent_parameters(unet).items() if torch.equal(value, before[name])]
    assert not still


@pytest.mark.parametrize("preset", RECURRENT, ids=lambda preset: preset.name)
def test_every_recurrent_parameter_moves_in_half_precision(preset):
    """Frozen weights in float16, masters in float32, a loss scale of 2^16: gradients neither vanish nor overflow."""
    unet = small_unet(preset).set_precision(torch.float16)
    before = recurrent_parameters(unet)
    gradients = training_steps(unet, steps=3, loss_scale=2.0**16)
    assert all(torch.isfinite(value).all() for value in gradients.values())
    still = [name for name, value in recurrent_parameters(unet).items() if torch.equal(value, before[name])]
    assert not still
    if preset.activation == "tanh":  # relu units that no token opens have no gradient in any precision
        read_outs = [value for name, value in gradients.items() if name.endswith("memory.w_ho.weight")]
        assert read_outs and all((value != 0).float().mean() >= 0.99 for value in read_outs)


@pytest.mark.parametrize("preset", ["paper", "recurrent"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gradients_are_those_of_float32(preset, dtype):
    """Same weights, same inputs: the direction of every trained weight's gradient survives the precision."""
    exact = training_steps(randomise(small_unet(preset)), steps=1)
    half = training_steps(randomise(small_unet(preset)).set_precision(dtype), steps=1, loss_scale=2.0**16)
    assert half.keys() == exact.keys()
    for name, value in half.items():
        assert value.dtype == torch.float32
        similarity = torch.cosine_similarity(value.flatten(), exact[name].flatten(), dim=0)
        assert similarity > (0.999 if dtype == torch.float16 else 0.97), name


def test_frozen_weights_stay_and_trained_names_move():
    unet = small_unet("recurrent")
    before = {name: p.detach().clone() for name, p in unet.named_parameters()}
    training_steps(unet)
    trained = set(unet.trained_names())
    moved = {name for name, p in unet.named_parameters() if not torch.equal(p, before[name])}
    assert moved == trained
    assert {name.split("transformer_blocks.0.")[1].rsplit(".", 1)[0] for name in trained} == {
        "attn1.to_q", "attn2.to_q", "attn_temp.to_q", "attn_temp.to_k", "attn_temp.to_v", "attn_temp.to_out.0",
        "attn1.memory.w_zh", "attn1.memory.w_ho", "attn1.memory.w_gate",
    }  # fmt: skip


@pytest.mark.parametrize("preset", ["paper", "recurrent"])
def test_frame_order_changes_the_output_after_training(preset):
    """Exchanging later frames is not merely exchanging their predictions."""
    unet = small_unet(preset)
    sample, timestep, text = small_inputs(frames=5)
    order = [0, 3, 1, 4, 2]

    def equivariance_error():
        with torch.no_grad():
            plain = unet(sample, timestep, text).sample[:, :, order]
            permuted = unet(sample[:, :, order], timestep, text).sample
        return ((plain - permuted).abs().max() / plain.abs().max()).item()

    training_steps(unet, steps=3, learning_rate=1e-2)
    assert equivariance_error() > 1e-4


def test_first_frame_attention_alone_has_no_order():
    """The counterpart: without memory or former frame later frames may be exchanged."""
    unet = small_unet(dataclasses.replace(get_preset("first-frame"), temporal_attention=True))
    training_steps(unet, steps=3, learning_rate=1e-2)
    sample, timestep, text = small_inputs(frames=5)
    order = [0, 3, 1, 4, 2]
    with torch.no_grad():
        plain = unet(sample, timestep, text).sample[:, :, order]
        permuted = unet(sample[:, :, order], timestep, text).sample
    torch.testing.assert_close(permuted, plain, rtol=0, atol=1e-5 * plain.abs().max().item())


def test_the_published_memory_never_trains():
    """All-zero weights before a ReLU: the gradient is exactly 0, so the published recurrence stays dead for ever."""
    unet = small_unet("published")
    gradients = training_steps(unet, steps=3)
    memory = {name: value for name, value in gradients.items() if "memory_update_layer" in name}
    assert len(memory) == 2 * 4
    assert all(torch.equal(value, torch.zeros_like(value)) for value in memory.values())
    assert all((p == 0).all() for name, p in unet.named_parameters() if "memory_update_layer" in name)
    assert any(value.abs().max() > 0 for name, value in gradients.items() if "attn1.to_q" in name)


def test_the_papers_zero_start_never_trains():
    """W_hh = W_zh = W_ho = 0, as the paper has it, keeps the recurrence at exactly 0; ours has one zero factor."""
    unet = small_unet("paper")
    with torch.no_grad():
        for name, p in unet.named_parameters():
            if name.endswith(("memory.w_hh", "memory.w_zh.weight")):
                p.zero_()
    gradients = training_steps(unet, steps=2)
    for name, value in gradients.items():
        if name.endswith(("w_hh", "w_zh.weight", "w_zh.bias", "w_ho.weight")):
            assert not value.any(), name


def test_presets_train_what_they_say():
    assert not [
        name for name in small_unet("first-frame").trained_names() if "attn2" in name or "memory" in name
    ]
    own = Preset(name="mine", attends=("first", "former"), trained=("attn1.to_k", "norm_temp"))
    assert {name.split("transformer_blocks.0.")[1] for name in small_unet(own).trained_names()} == {
        "attn1.to_k.weight",
        "norm_temp.weight",
        "norm_temp.bias",
    }
    training_steps(small_unet(own).set_precision(torch.bfloat16), steps=1)
