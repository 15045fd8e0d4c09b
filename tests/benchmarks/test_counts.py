"""What a training step does, in counts that no machine's mood changes: a slow path cannot creep in unseen."""

import pytest
import torch
from torch.nn import functional as F

from benchmarks.counts import counting
from rcv.models.presets import PRESETS
from tests.models.small import small_inputs, small_unet

TORCH = "2.13"
"""The version that the pins are for: another one may divide the same work into other calls."""
PINS = {
    # preset: calls, FLOPs, bytes copied, bytes kept for the backward; 5 frames of 8x8 of tests' small UNet, float32
    "recurrent": (969, 147_401_728, 875_324, 1_691_968),
    "streaming": (993, 147_401_728, 875_324, 1_691_968),
    "paper": (1631, 154_512_384, 948_444, 1_575_424),
    "tune-a-video": (1426, 146_140_160, 876_604, 1_432_000),
    "published": (2229, 165_129_216, 1_552_444, 2_077_120),
    "first-frame": (579, 118_556_672, 502_588, 952_512),
}
SLACK = 1.02
EXPLAINED = {
    "cat in up_blocks": "the UNet's skip connections",
    "cat in time_proj": "sine and cosine of the timestep",
    "clone in attentions": "the image layout of a transformer's output, for the convolution after it",
    "clone in root": "the output's frames, unfolded from the batch; the timesteps of the frames",
    "clone in backward": "a gradient laid out for a product",
    "clone in norm": "a statistic of a few numbers a group, repeated for its channels",
    "clone in attn1.memory": "a state that outlives its scan",
    "copy_ in attn1.memory": "the states of a scan, written where the products after it read them",
    "stack in attn1": "the biases of two slots, a number a head",
    "copy_ in attn_temp": "the output of batched products, in the layout of the projection after them",
    "copy_ in backward": "the same for gradients",
    "_to_copy in time_proj": "the timestep in float32",
    "_to_copy in upsamplers": "the positions of a nearest-neighbour upsampling",
}


def a_training_step(preset, frames=5):
    """Counts of one forward and backward of a small UNet."""
    unet = small_unet(preset).train()
    sample, timestep, text = small_inputs(frames=frames)
    with counting(unet) as counts:
        unet(sample, timestep, text).sample.square().mean().backward()
    return counts


@pytest.fixture(scope="module")
def steps():
    return {preset: a_training_step(preset) for preset in PRESETS}


def test_a_known_program():
    x, w, k = torch.randn(4, 6), torch.randn(6, 8, requires_grad=True), torch.randn(1, 2, 5, 3)
    with counting() as counts:
        y = x @ w
        torch.cat([y, y]).sigmoid().sum().backward()
        F.scaled_dot_product_attention(k[:, :, :3], k, k)
    assert counts.calls["mm"] == 2  # no gradient of x is asked for
    assert counts.flops == 2 * (2 * 4 * 6 * 8) + 4 * 2 * 3 * 5 * 3
    assert counts.copies == {("cat", (8, 8), "backward"): 8 * 8 * 4}
    assert counts.kept == 4 * (4 * 6 + 8 * 8)  # x, and the sigmoid's output


def test_work_inside_an_operation_is_seen():
    from rcv.ops import FrameTable, frame_attention

    q = torch.randn(1, 3, 4, 2, 8)
    with counting() as counts:
        frame_attention(q, [(q[:, :1], q[:, :1])], FrameTable.first(3))
    assert counts.flops == 4 * q.numel() * 4
    assert not any("rcv" in name or name == "frame_attention" for name in counts.calls)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_training_step_does_no_more_than_it_did(preset, steps):
    if not torch.__version__.startswith(TORCH):
        pytest.skip(f"the pins are for PyTorch {TORCH}")
    counts = steps[preset]
    seen = (counts.dispatched, counts.flops, counts.copied, counts.kept)
    for name, now, pinned in zip(
        ("calls", "FLOPs", "bytes copied", "bytes kept"), seen, PINS[preset], strict=True
    ):
        assert now <= pinned * SLACK, f"{name} grew from {pinned} to {now}"
        assert now * SLACK >= pinned, (
            f"{name} fell from {pinned} to {now}: lower the pin to keep what was gained"
        )


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "published"])
def test_every_copy_of_a_training_step_is_explained(preset, steps):
    parts = (
        "attn1.memory",
        "attn1",
        "attn_temp",
        "norm",
        "upsamplers",
        "time_proj",
        "attentions",
        "up_blocks",
        "backward",
    )
    unexplained = {}
    for (name, shape, where), size in steps[preset].copies.items():
        kind = next((part for part in parts if part in where), where or "root")
        if f"{name} in {kind}" not in EXPLAINED:
            unexplained[name, shape, where] = size
    assert not unexplained


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "published"])
def test_attention_neither_concatenates_nor_expands(preset, steps):
    in_attention = [key for key in steps[preset].copies if key[2].endswith(("attn1", "attn2"))]
    assert not [key for key in in_attention if len(key[1]) > 2]  # [H,S] is a bias, tokens have more axes


@pytest.mark.parametrize("preset", PRESETS)
def test_work_and_memory_grow_with_the_frames_and_no_faster(preset):
    few, many = a_training_step(preset, 6), a_training_step(preset, 12)
    assert many.flops <= 2.1 * few.flops  # temporal attention alone is quadratic, and small
    assert many.kept <= 2.05 * few.kept
    assert many.copied <= 2.05 * few.copied
