"""Half precision: a finetune follows float32's, and large logits make no NaN. On the CPU, by the torch backend."""

import pytest
import torch

from rcv import ops
from rcv.ops import FrameTable, frame_attention
from rcv.training import FinetuneConfig, finetune
from tests.models.small import small_inputs, small_unet
from tests.tiny import TEXT_WIDTH

HEAD_DIM, LARGE = 40, 200.0


def run(settings, output, **changes):
    return finetune(FinetuneConfig(**{**settings, **changes}, output=output), show_progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["recurrent", "paper", "streaming", "tune-a-video"])
def test_a_finetune_in_half_precision_follows_float32_within_2_percent(quick, tmp_path, preset):
    settings = {**quick, "preset": preset, "steps": 40, "eval_draws": 8, "checkpoint_every": 10}
    full = run(settings, tmp_path / "fp32", precision="fp32")
    half = run(settings, tmp_path / "fp16", precision="fp16")
    assert half.losses == pytest.approx(full.losses, rel=0.02)
    assert half.eval_losses == pytest.approx(full.eval_losses, rel=0.02)
    assert full.eval_losses[40] < 0.95 * full.eval_losses[0]  # there was something to follow


@pytest.fixture
def torch_backend():
    with ops.backend("torch"):
        yield


def test_attention_over_logits_of_200_is_finite_and_right(torch_backend):
    """Half of the pairs point the same way and half against each other: logits of +-200, gradients of both pools."""
    frames, tokens, heads = 3, 16, 2
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(HEAD_DIM, generator=generator).sign()
    length = (LARGE / HEAD_DIM**0.5) ** 0.5  # direction . direction = HEAD_DIM, times HEAD_DIM**-0.5

    def signed(*shape):
        return length * direction * torch.randn(*shape, 1, generator=generator).sign()

    q, first, memory = (signed(1, f, tokens, heads) for f in (frames, 1, frames - 1))
    logits = torch.einsum("bfnhd,bgmhd->bhfngm", q, first) * HEAD_DIM**-0.5
    assert logits.min() == pytest.approx(-LARGE, rel=1e-4) and logits.max() == pytest.approx(LARGE, rel=1e-4)
    values = [torch.randn(1, f, tokens, heads, HEAD_DIM, generator=generator) for f in (1, frames - 1)]
    grad = torch.randn(q.shape, generator=generator)

    def outputs(dtype):
        leaves = [t.half().to(dtype).requires_grad_() for t in (q, first, memory, *values)]
        pools = [(leaves[1], leaves[3]), (leaves[2], leaves[4])]
        out = frame_attention(leaves[0], pools, FrameTable.first_memory(frames))
        return [out, *torch.autograd.grad(out, leaves, grad.half().to(dtype))]

    for half, exact in zip(outputs(torch.float16), outputs(torch.float64), strict=True):
        assert torch.isfinite(half).all()
        torch.testing.assert_close(half.double(), exact, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("preset", ["recurrent", "paper", "tune-a-video"])
def test_a_unet_with_logits_of_200_has_finite_outputs_and_gradients(torch_backend, preset):
    """The first block's queries are scaled until its logits at head dim 40 reach 200; then all in half precision."""
    unet = small_unet(preset, block_out_channels=(80, 160), attention_head_dim=[2, 4])
    block = unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1
    inputs = small_inputs()

    def logits():
        seen = {}

        def keep_first(layer, _, output):
            seen.setdefault(layer, output)

        hooks = [layer.register_forward_hook(keep_first) for layer in (block.to_q, block.to_k)]
        with torch.no_grad():
            unet(*inputs)
        for hook in hooks:
            hook.remove()
        q, k = (seen[layer].flatten(0, -2).unflatten(-1, (2, HEAD_DIM)) for layer in (block.to_q, block.to_k))
        return torch.einsum("nhd,mhd->hnm", q, k) * HEAD_DIM**-0.5

    with torch.no_grad():
        block.to_q.weight *= LARGE / logits().abs().max()
    found = logits()
    assert found.abs().max().item() == pytest.approx(LARGE, rel=1e-3) and found.min() < 0 < found.max()
    unet.set_precision(torch.float16)
    sample, timestep, text = small_inputs(dtype=torch.float16)
    assert text.shape[-1] == TEXT_WIDTH
    output = unet(sample, timestep, text).sample
    assert output.dtype == torch.float16 and torch.isfinite(output).all()
    output.float().square().mean().backward()
    gradients = {name: p.grad for name, p in unet.named_parameters() if p.requires_grad}
    assert all(torch.isfinite(grad).all() for grad in gradients.values() if grad is not None)
    assert block.to_q.weight.grad is not None
