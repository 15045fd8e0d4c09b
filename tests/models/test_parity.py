"""Agreement with the published programs, recorded (../shared/golden) and restated here in plain PyTorch."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from rcv.models import VideoUNet
from rcv.models.attention import FirstAttention, TemporalAttention
from rcv.models.presets import get_preset
from rcv.models.state import FrameCount
from tests import parity
from tests.models.small import randomise, small_inputs, small_unet

RECORDINGS = sorted(Path(__file__).parents[2].joinpath("../shared/golden").glob("*.safetensors"))


@pytest.mark.skipif(not RECORDINGS, reason="no recordings of the published programs in ../shared/golden")
def test_recorded_outputs_of_the_published_programs(capsys):
    assert parity.main([str(file) for file in RECORDINGS]) == 0
    assert "output" in capsys.readouterr().out


def set_eps(unet, kind, eps):
    for name, module in unet.named_modules():
        if isinstance(module, kind) and (
            kind is torch.nn.LayerNorm or ("attentions" in name) == (eps == 1e-5)
        ):
            module.eps = eps


MISTAKES = {
    "LayerNorm epsilon": lambda unet: set_eps(unet, torch.nn.LayerNorm, 1e-6),
    "ResNet GroupNorm epsilon": lambda unet: set_eps(unet, torch.nn.GroupNorm, 1e-6),
    "transformer GroupNorm epsilon": lambda unet: set_eps(unet, torch.nn.GroupNorm, 1e-5),
    "last norm per frame": lambda unet: setattr(unet.conv_norm_out, "__class__", torch.nn.GroupNorm),
}


@pytest.mark.skipif(not RECORDINGS, reason="no recordings of the published programs in ../shared/golden")
@pytest.mark.parametrize("mistake", [None, *MISTAKES])
def test_parity_fails_on_small_mistakes(mistake):
    """The limits catch a wrong epsilon in one kind of norm, so that passing them means something."""
    record = load_file(RECORDINGS[-1])
    meta = json.loads(RECORDINGS[-1].with_suffix(".json").read_text())
    unet = VideoUNet.from_config(meta["config"], preset=meta["preset"])
    unet.load_state_dict({k.removeprefix("state."): v for k, v in record.items() if k.startswith("state.")})
    if mistake is not None:
        MISTAKES[mistake](unet)
    errors = parity.call_errors(unet, record)
    assert all(error <= parity.LIMITS[part] for part, error in errors.items()) == (mistake is None)


def test_a_recording_of_another_shape_round_trips(tmp_path):
    """The checker reads configurations with 3D block names, lists of heads, linear projections, v prediction."""
    config = {
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": 2,
        "block_out_channels": [8, 16, 24],
        "down_block_types": ["CrossAttnDownBlock3D", "CrossAttnDownBlock3D", "DownBlock3D"],
        "mid_block_type": "UNetMidBlock3DCrossAttn",
        "up_block_types": ["UpBlock3D", "CrossAttnUpBlock3D", "CrossAttnUpBlock3D"],
        "norm_num_groups": 4,
        "cross_attention_dim": 16,
        "attention_head_dim": [1, 2, 3],
        "use_linear_projection": True,
        "upcast_attention": True,
        "_class_name": "UNet3DConditionModel",
    }
    ddim = {
        "num_inference_steps": 2,
        "guidance_scale": 5.0,
        "eta": 0,
        "scheduler": {
            "beta_schedule": "scaled_linear",
            "clip_sample": False,
            "prediction_type": "v_prediction",
        },
    }
    unet = randomise(VideoUNet.from_config(config, preset="published"))
    sample, timestep, text = small_inputs(batch=2, frames=3, height=6, width=10)
    record = {"sample": sample, "timestep": timestep, "encoder_hidden_states": text}
    with torch.no_grad():
        record["output"] = unet(sample, timestep, text).sample
        record["ddim.latents"], record["ddim.cond"], record["ddim.uncond"] = (
            sample[:1].clone(),
            text[:1].clone(),
            text[1:].clone(),
        )
        call = {**ddim, **{k.removeprefix("ddim."): v for k, v in record.items() if k.startswith("ddim.")}}
        record["ddim.sampled"] = parity.sample_ddim(unet, call)
    state = {f"state.{name}": value.clone() for name, value in unet.state_dict().items()}
    file = tmp_path / "other.safetensors"
    file.with_suffix(".json").write_text(json.dumps({"preset": "published", "config": config, "ddim": ddim}))
    save_file({**{k: v.contiguous() for k, v in record.items()}, **state}, file)
    assert parity.main([str(file)]) == 0
    record["output"][0, 0, 0, 0, 0] += 1e-3
    save_file({**{k: v.contiguous() for k, v in record.items()}, **state}, file)
    assert parity.main([str(file)]) == 1


def plain_attention(attn, z, key_tokens):
    """The first attention of one video by the formulas: z [F,N,C], key_tokens(i) [M,C] of frame i."""
    outputs = []
    for i in range(len(z)):
        q, k, v = attn.to_q(z[i]), attn.to_k(key_tokens(i)), attn.to_v(key_tokens(i))
        heads = []
        for q_h, k_h, v_h in zip(*(part.chunk(attn.heads, -1) for part in (q, k, v)), strict=True):
            heads.append((q_h @ k_h.T / q_h.shape[-1] ** 0.5).softmax(-1) @ v_h)
        outputs.append(attn.to_out[0](torch.cat(heads, -1)))
    return torch.stack(outputs)


def first_attention(preset, width=12, heads=2, frames=5, seed=0):
    """A block's first attention alone, with random weights, for `frames` frames."""
    torch.manual_seed(seed)
    count = FrameCount()
    count.value = frames
    attn = FirstAttention(query_dim=width, heads=heads, dim_head=width // heads)
    attn.inflate(get_preset(preset), count, "block")
    return attn


@pytest.mark.parametrize("preset", ["tune-a-video", "recurrent"])
def test_first_attention_starts_as_sparse_causal_attention(preset):
    """`tune-a-video` always, `recurrent` at its start values: keys are [first ; former], former of frame 1 itself."""
    attn = first_attention(preset)
    z = torch.randn(2, 5, 7, 12)
    expected = torch.stack(
        [plain_attention(attn, v, lambda i, v=v: torch.cat((v[0], v[max(i - 1, 0)]))) for v in z]
    )
    torch.testing.assert_close(attn(z.flatten(0, 1)).view_as(z), expected, rtol=0, atol=1e-6)


def test_recurrent_unet_starts_as_tune_a_video():
    """Same 2D weights, same norms: the whole UNet's output agrees to 1e-5 at step 0."""
    baseline = get_preset("tune-a-video")
    per_frame = {**vars(baseline), "group_norm": "per_frame"}
    tune, ours = small_unet(per_frame), small_unet("recurrent")
    fit = ours.load_state_dict(tune.state_dict(), strict=False)
    assert not fit.unexpected_keys and all("attn1.memory" in name for name in fit.missing_keys)
    inputs = small_inputs(batch=2, frames=5)
    with torch.no_grad():
        a, b = tune(*inputs).sample, ours(*inputs).sample
    assert (a - b).abs().max() <= 1e-5 * a.abs().max()


def test_first_frame_attention():
    attn = first_attention("first-frame")
    z = torch.randn(5, 7, 12)
    torch.testing.assert_close(attn(z), plain_attention(attn, z, lambda i: z[0]), rtol=0, atol=1e-6)


def test_published_attention_is_the_repository_as_it_runs():
    """[first; former; memory], zero memory at frame 1, frame 1's attention output as "first" from frame 3 on."""
    attn = first_attention("published")
    torch.nn.init.normal_(attn.memory_update_layer.weight, std=0.3)
    torch.nn.init.normal_(attn.memory_update_layer.bias, std=0.3)
    z = torch.randn(5, 7, 12)
    w, b = attn.memory_update_layer.weight, attn.memory_update_layer.bias
    to_out, attn.to_out[0] = attn.to_out[0], torch.nn.Identity()
    m, outputs = torch.zeros(7, 12), []
    for i in range(5):
        keys = torch.cat((z[0] if i < 2 else outputs[0], z[max(i - 1, 0)], m))
        outputs.append(plain_attention(attn, z[i : i + 1], lambda _, keys=keys: keys)[0])
        m = F.relu(m @ w[:, :12].T + outputs[-1] @ w[:, 12:].T + b)
    attn.to_out[0] = to_out
    torch.testing.assert_close(attn(z), to_out(torch.stack(outputs)), rtol=0, atol=1e-6)


def test_paper_attention_is_its_formulas():
    """h by tanh, m = W_ho h + b_a of strictly past frames, a logit bias per head on the memory slot."""
    attn = first_attention("paper", heads=1)
    memory = attn.memory
    for parameter in (memory.w_ho.weight, memory.w_ho.bias, memory.w_zh.bias):
        torch.nn.init.normal_(parameter, std=0.3)
    z = torch.randn(5, 7, 12)
    h, expected = torch.zeros(7, 12), []
    for i in range(5):
        q, k, v = attn.to_q(z[i]), attn.to_k(z[0]), attn.to_v(z[0])
        logits = q @ k.T / 12**0.5
        if i:
            m = h @ memory.w_ho.weight.T + memory.w_ho.bias
            logits = torch.cat((logits, q @ attn.to_k(m).T / 12**0.5 - 4.0), -1)
            v = torch.cat((v, attn.to_v(m)))
        expected.append(attn.to_out[0](logits.softmax(-1) @ v))
        h = torch.tanh(h @ memory.w_hh.T + z[i] @ memory.w_zh.weight.T + memory.w_zh.bias)
    torch.testing.assert_close(attn(z), torch.stack(expected), rtol=0, atol=1e-6)


def test_temporal_attention_is_self_attention_over_a_tokens_frames():
    torch.manual_seed(0)
    attn = TemporalAttention(query_dim=12, heads=2, dim_head=6)
    attn.frames = FrameCount()
    attn.frames.value = 5
    x = torch.randn(2, 5, 7, 12)
    expected = torch.stack(
        [plain_attention(attn, v.transpose(0, 1), lambda i, v=v: v[:, i]).transpose(0, 1) for v in x]
    )
    torch.testing.assert_close(attn(x.flatten(0, 1)).view_as(x), expected, rtol=0, atol=1e-6)
