"""The published way of running the programs computes what the presets compute, and keeps what it is said to keep."""

import json

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.published import SOFTMAX, published_way
from rcv.models import VideoUNet
from rcv.models.presets import get_preset
from tests import parity
from tests.models.small import randomise, small_inputs, small_unet
from tests.models.test_parity import RECORDINGS

PRESETS = ("tune-a-video", "published")
FLOAT64_LIMIT = 1e-11


def output_and_gradients(unet, inputs):
    """Output, and the gradients of the trained weights by name, under a loss that weighs every element."""
    unet.zero_grad()
    output = unet(*inputs).sample
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    (weights * output).sum().backward()
    return output.detach(), {n: p.grad.clone() for n, p in unet.named_parameters() if p.grad is not None}


def assert_agree(given, expected, output_limit, gradient_limit):
    assert parity.relative_error(given[0], expected[0]) <= output_limit
    assert given[1].keys() == expected[1].keys() != set()
    floor = parity.SMALLEST_GRADIENT * max(value.abs().max().item() for value in expected[1].values())
    for name, value in expected[1].items():
        assert parity.relative_error(given[1][name], value, floor) <= gradient_limit, name


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
@pytest.mark.parametrize("softmax", SOFTMAX)
@pytest.mark.parametrize("preset", PRESETS)
def test_output_and_gradients_are_the_presets(preset, softmax, frames):
    unet = randomise(small_unet(preset)).double()
    inputs = small_inputs(batch=2, frames=frames, dtype=torch.float64)
    expected = output_and_gradients(unet, inputs)
    given = output_and_gradients(published_way(unet, softmax), inputs)
    assert_agree(given, expected, FLOAT64_LIMIT, FLOAT64_LIMIT)


@pytest.mark.parametrize("softmax", SOFTMAX)
@pytest.mark.parametrize("preset", PRESETS)
def test_float32_agrees_within_the_parity_limits(preset, softmax):
    unet = randomise(small_unet(preset))
    inputs = small_inputs(batch=2, frames=5, height=6, width=10)
    expected = output_and_gradients(unet, inputs)
    given = output_and_gradients(published_way(unet, softmax), inputs)
    assert_agree(given, expected, parity.LIMITS["output"], parity.LIMITS["gradients"])


@pytest.mark.skipif(not RECORDINGS, reason="no recordings of the published programs")
@pytest.mark.parametrize("softmax", SOFTMAX)
@pytest.mark.parametrize("file", RECORDINGS, ids=lambda file: file.stem)
def test_recorded_calls_of_the_published_programs(file, softmax):
    record = load_file(file)
    meta = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    unet = VideoUNet.from_config(meta["config"], preset=meta["preset"]).eval()
    unet.load_state_dict({k.removeprefix("state."): v for k, v in record.items() if k.startswith("state.")})
    errors = parity.call_errors(published_way(unet, softmax), record)
    assert "output" in errors
    assert all(error <= parity.LIMITS[part] for part, error in errors.items()), errors


@pytest.mark.parametrize("preset", PRESETS)
def test_weights_and_state_dict_are_shared(preset):
    unet = small_unet(preset)
    twin = published_way(unet)
    ours, theirs = unet.state_dict(), twin.state_dict()
    assert list(ours) == list(theirs)
    assert all(ours[name].data_ptr() == theirs[name].data_ptr() for name in ours)
    assert {id(p) for p in unet.parameters() if p.requires_grad} == {
        id(p) for p in twin.parameters() if p.requires_grad
    }


def test_the_original_stays_as_it_is():
    unet = randomise(small_unet("published"))
    inputs = small_inputs(frames=3)
    before = unet(*inputs).sample
    classes = [type(module) for module in unet.modules()]
    published_way(unet)(*small_inputs(frames=5))
    assert [type(module) for module in unet.modules()] == classes
    assert torch.equal(unet(*inputs).sample, before)


@pytest.mark.parametrize("preset", PRESETS)
def test_gradient_checkpointing_keeps_gradients(preset):
    unet = randomise(small_unet(preset)).double().train()
    inputs = small_inputs(frames=3, dtype=torch.float64)
    expected = output_and_gradients(unet, inputs)
    unet.enable_gradient_checkpointing()
    twin = published_way(unet)
    assert twin.is_gradient_checkpointing
    assert_agree(output_and_gradients(twin, inputs), expected, FLOAT64_LIMIT, FLOAT64_LIMIT)


def test_norms_per_frame_are_left_alone():
    preset = {**vars(get_preset("tune-a-video")), "group_norm": "per_frame"}
    unet = randomise(small_unet(preset)).double()
    inputs = small_inputs(frames=4, dtype=torch.float64)
    expected = output_and_gradients(unet, inputs)
    assert_agree(output_and_gradients(published_way(unet), inputs), expected, FLOAT64_LIMIT, FLOAT64_LIMIT)


def kept_sizes(unet, inputs):
    """Element counts of the distinct tensors that autograd keeps of one call."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        unet(*inputs)
    return [tensor.numel() for tensor in kept.values()]


@pytest.mark.parametrize(("preset", "slots", "calls"), [("tune-a-video", 2, 1), ("published", 3, 5)])
def test_probabilities_are_kept_once_and_only_without_sdpa(preset, slots, calls):
    """One matrix of probabilities for each call of an attention: a straw man would keep logits as well."""
    frames, tokens = 5, 9 * 13
    unet = small_unet(preset, cross_attention_dim=16)
    inputs = small_inputs(frames=frames, height=9, width=13)
    attentions = sum(name.endswith("attn1") and "mid" not in name for name, _ in unet.named_modules())
    probabilities = frames // calls * unet.config.attention_head_dim * tokens * slots * tokens
    assert kept_sizes(published_way(unet), inputs).count(probabilities) == attentions * calls
    assert probabilities not in kept_sizes(published_way(unet, "sdpa"), inputs)
    assert probabilities not in kept_sizes(unet, inputs)


@pytest.mark.parametrize("preset", ["recurrent", "paper", "first-frame"])
def test_presets_without_a_published_program_are_refused(preset):
    with pytest.raises(ValueError, match=preset):
        published_way(small_unet(preset))


def test_unknown_softmax_is_refused():
    with pytest.raises(ValueError, match="'flash', expected one of 'baddbmm', 'sdpa'"):
        published_way(small_unet("published"), "flash")
