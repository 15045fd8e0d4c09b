"""VideoUNet as a diffusers model: shapes, configurations, saving, checkpointing, PEFT, EMA, what it refuses."""

import dataclasses
from collections import Counter
from pathlib import Path

import accelerate
import pytest
import torch
from diffusers.models import Transformer2DModel
from diffusers.training_utils import EMAModel
from torch.utils._python_dispatch import TorchDispatchMode

import rcv.models
from rcv.models import PRESETS, VideoUNet, get_preset
from rcv.models.attention import VideoAttention
from rcv.models.blocks import VideoTransformerBlock
from rcv.models.offload import OffloadedTensors
from rcv.models.recompute import keeping_attention, keeping_inputs
from rcv.ops import frame_attention
from rcv.planning.live_bytes import LiveBytes
from tests.models.small import randomise, small_inputs, small_unet, training_steps
from tests.tiny import UNET_CONFIG


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("batch", "frames", "height", "width"), [(2, 3, 8, 8), (1, 1, 6, 5), (1, 2, 7, 11)])
def test_shapes(preset, batch, frames, height, width):
    """Any frame count from one on, and sizes that the levels do not divide."""
    sample, timestep, text = small_inputs(batch, frames, height, width)
    unet = small_unet(preset)
    output = unet(sample, timestep, text).sample
    assert output.shape == sample.shape and torch.isfinite(output).all()
    (as_tuple,) = unet(sample, timestep, text, return_dict=False)
    assert torch.equal(as_tuple, output)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_batch_is_its_videos(preset):
    """Each video sees its own timestep, text and first frame."""
    unet = randomise(small_unet(preset))
    sample, timestep, text = small_inputs(batch=2, frames=3)
    assert timestep[0] != timestep[1]
    with torch.no_grad():
        together = unet(sample, timestep, text).sample
        alone = torch.cat([unet(sample[i : i + 1], timestep[i], text[i : i + 1]).sample for i in range(2)])
    torch.testing.assert_close(together, alone, rtol=0, atol=3e-6 * alone.abs().max().item())


@pytest.mark.parametrize("preset", ["paper", "recurrent", "published", "tune-a-video"])
def test_later_frames_reach_earlier_ones_only_through_time_attention(preset):
    """The first attention is causal: with norms per frame and temporal attention at its start, the past is fixed."""
    unet = small_unet(dataclasses.replace(get_preset(preset), group_norm="per_frame"))
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if "memory" in name:
                parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    sample, timestep, text = small_inputs(frames=5)
    changed = sample.clone()
    changed[:, :, 3] += 1
    with torch.no_grad():
        difference = (unet(sample, timestep, text).sample - unet(changed, timestep, text).sample).abs()
    by_frame = difference.amax((0, 1, 3, 4))
    assert by_frame[:3].max() == 0
    assert by_frame[3:].min() > 1e-5


@pytest.mark.parametrize("temporal", [True, False])
def test_first_frame_preset_with_and_without_temporal_attention(temporal):
    unet = small_unet(dataclasses.replace(get_preset("first-frame"), temporal_attention=temporal))
    assert any("attn_temp" in name for name in unet.trained_names()) == temporal
    assert any("norm_temp" in name for name in unet.state_dict()) == temporal
    training_steps(unet, steps=2)


def test_sd2_configuration():
    """Linear projections, upcast attention, heads per block, no mid-block surprise: in half precision as well."""
    config = {
        "block_out_channels": (16, 32, 32),
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "attention_head_dim": [2, 4, 8],
        "use_linear_projection": True,
        "upcast_attention": True,
    }
    unet = small_unet("recurrent", **config)
    heads = [block.attn1.heads for block in unet.modules() if type(block).__name__ == "VideoTransformerBlock"]
    assert heads == [2, 4, 4, 4, 2, 2, 8]
    inputs = small_inputs(batch=2, frames=3)
    exact = unet(*inputs).sample
    for dtype in (torch.float16, torch.bfloat16):
        half = small_unet("recurrent", **config).set_precision(dtype)(*inputs).sample.float()
        assert (half - exact).abs().max() <= 0.05 * exact.abs().max()


def test_3d_block_names_are_those_of_their_2d_originals():
    named = {
        "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
        "up_block_types": ["UpBlock3D", "CrossAttnUpBlock3D"],
        "mid_block_type": "UNetMidBlock3DCrossAttn",
    }
    unet = small_unet("tune-a-video", **named)
    assert unet.state_dict().keys() == small_unet("tune-a-video").state_dict().keys()
    assert unet.config.mid_block_type == "UNetMidBlock2DCrossAttn"


@pytest.mark.parametrize("preset", PRESETS)
def test_save_and_load(preset, tmp_path):
    unet = randomise(small_unet(preset)).eval()
    unet.save_pretrained(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    loaded = VideoUNet.from_pretrained(tmp_path)
    assert loaded.preset == unet.preset == get_preset(preset)
    assert {name for name, p in loaded.named_parameters() if p.requires_grad} == set(unet.trained_names())
    inputs = small_inputs(frames=3)
    assert torch.equal(loaded(*inputs).sample, unet(*inputs).sample)


def test_load_in_half_precision(tmp_path):
    """A saved half-precision model keeps its float32 masters bit by bit."""
    unet = randomise(small_unet("recurrent")).set_precision(torch.float16)
    unet.save_pretrained(tmp_path)
    loaded = VideoUNet.from_pretrained(tmp_path, torch_dtype=torch.float16)
    assert loaded.dtype == torch.float16
    for name, value in unet.state_dict().items():
        assert loaded.state_dict()[name].dtype == value.dtype
        assert torch.equal(loaded.state_dict()[name], value)


def test_a_preset_of_ones_own_survives_saving(tmp_path):
    own = dataclasses.replace(get_preset("recurrent"), name="mine", cell="rglru", drive="feedback")
    small_unet(own).save_pretrained(tmp_path)
    assert VideoUNet.from_pretrained(tmp_path).preset == own


def test_a_2d_unet_is_not_loaded_as_a_video_unet(tmp_path):
    from tests.tiny import tiny_unet

    tiny_unet().save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"holds a UNet2DConditionModel, not a saved VideoUNet; .*from_pretrained_2d"
    ):
        VideoUNet.from_pretrained(tmp_path)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("mode", ["selective", "full", "offload"])
def test_gradient_checkpointing_gives_the_same_gradients(preset, mode):
    """Also when another call with another frame count comes between forward and backward."""

    def gradients(mode):
        unet = randomise(small_unet(preset))
        unet.set_gradient_checkpointing(mode)
        sample, timestep, text = small_inputs(batch=2, frames=3)
        loss = unet(sample, timestep, text).sample.square().mean()
        with torch.no_grad():
            unet(*small_inputs(frames=2))
        loss.backward()
        return {name: p.grad for name, p in unet.named_parameters() if p.grad is not None}

    plain, checkpointed = gradients("none"), gradients(mode)
    assert plain.keys() == checkpointed.keys()
    for name, value in plain.items():
        torch.testing.assert_close(
            checkpointed[name], value, rtol=0, atol=1e-6 * value.abs().max().item() + 1e-12
        )


@pytest.mark.parametrize(("mode", "share"), [("selective", 0.65), ("full", 0.4)])
def test_gradient_checkpointing_keeps_less(mode, share):
    def kept(mode):
        unet = small_unet("recurrent")
        unet.set_gradient_checkpointing(mode)
        sample, timestep, text = small_inputs(frames=4)
        with LiveBytes(unet.parameters()) as live:
            before = live.current
            loss = unet(sample, timestep, text).sample.mean()
            return live.current - before, loss  # the loss holds what is kept

    assert kept(mode)[0] < share * kept("none")[0]


def test_gradient_checkpointing_modes_follow_each_other():
    unet = small_unet("recurrent")
    for mode in ("full", "offload", "selective", "none", "offload", "full"):
        unet.set_gradient_checkpointing(mode)
        assert unet.is_gradient_checkpointing == (mode in ("full", "offload"))
        assert isinstance(unet.offloaded, OffloadedTensors) == (mode == "offload")
        assert len(unet._forward_hooks) == len(unet._forward_pre_hooks) == (mode == "offload")
        inside = {"selective": keeping_attention, "offload": keeping_inputs}.get(mode)
        blocks = [module for module in unet.modules() if isinstance(module, VideoTransformerBlock)]
        assert blocks
        assert all(block.recomputing is inside for block in blocks)
        wholes = [module for module in unet.modules() if isinstance(module, Transformer2DModel)]
        assert all(module.gradient_checkpointing == (mode == "full") for module in wholes)
    with pytest.raises(
        ValueError, match="unknown gradient checkpointing 'selectiv', did you mean 'selective'"
    ):
        unet.set_gradient_checkpointing("selectiv")


class Calls(TorchDispatchMode):
    """Calls by operation."""

    def __enter__(self):
        self.counts = Counter()
        super().__enter__()
        return self.counts

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func.name()] += 1
        return func(*args, **(kwargs or {}))


def test_attention_runs_once_under_selective_recomputation():
    """The backward of a block finds what attention returned and does not call it again."""

    def calls(mode):
        unet = small_unet("recurrent")
        unet.set_gradient_checkpointing(mode)
        with Calls() as calls:
            unet(*small_inputs(frames=4)).sample.mean().backward()
        return calls["rcv::frame_attention"], calls["rcv::mingru_scan"]

    once = calls("none")
    assert calls("selective") == (once[0], 2 * once[1])
    assert calls("full") == calls("offload") == (2 * once[0], 2 * once[1])


@pytest.mark.parametrize("preset", ["tune-a-video", "paper", "recurrent"])
def test_tokens_are_kept_instead_of_their_keys_and_values(preset, monkeypatch):
    """Projecting again in the backward changes no gradient, and what a forward keeps by a width per token or more."""

    def kept_and_gradients():
        unet, storages = randomise(small_unet(preset)), {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        sample, timestep, text = small_inputs(frames=9)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = unet(sample.requires_grad_(), timestep, text).sample
        output.square().mean().backward()
        gradients = {name: p.grad for name, p in unet.named_parameters() if p.grad is not None}
        return sum(storages.values()), {**gradients, "sample": sample.grad}

    kept, gradients = kept_and_gradients()

    def plainly(attn, q, first, tokens, table, logit_bias=None):
        pools = [pool for pool in (first, attn._key_value(tokens)) if pool]
        return frame_attention(q, pools, table, logit_bias=logit_bias, scale=attn.scale)

    monkeypatch.setattr(VideoAttention, "_attend_tokens", plainly)
    kept_plainly, gradients_plainly = kept_and_gradients()
    tokens = 8 * (3 * 16 * 8 * 8 + 32 * 4 * 4)  # of 8 past frames, channels included, in all first attentions
    assert kept_plainly - kept >= 0.9 * 4 * tokens
    assert gradients.keys() == gradients_plainly.keys()
    for name, value in gradients_plainly.items():
        torch.testing.assert_close(
            gradients[name], value, rtol=0, atol=2e-6 * value.abs().max().item() + 1e-12
        )


def test_keys_that_train_are_not_projected_again():
    """A preset of one's own or PEFT may train to_k: its weights get their gradients."""
    own = dataclasses.replace(get_preset("recurrent"), name="mine", trained=("attn1.to_k", "attn1.to_v"))
    gradients = training_steps(small_unet(own), steps=1)
    assert len(gradients) == 2 * 4 and all(value.abs().max() > 0 for value in gradients.values())


def test_adapter_state_dict_round_trip():
    trained = randomise(small_unet("recurrent"))
    state = trained.adapter_state_dict()
    assert list(state) == trained.trained_names()
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in state.items())
    other = small_unet("recurrent")
    other.load_adapter_state_dict(state)
    inputs = small_inputs(frames=3)
    assert torch.equal(other(*inputs).sample, trained(*inputs).sample)
    half = small_unet("recurrent").set_precision(torch.float16)
    half.load_adapter_state_dict(state)
    assert all(value.dtype == torch.float32 for value in half.adapter_state_dict().values())


def test_adapters_that_do_not_fit():
    state = small_unet("recurrent").adapter_state_dict()
    with pytest.raises(
        ValueError, match=r"does not fit preset 'tune-a-video' .*: \d+ unexpected, such as .*attn1.memory"
    ):
        small_unet("tune-a-video").load_adapter_state_dict(state)
    with pytest.raises(
        ValueError, match=r"preset 'paper' .*\d+ missing, such as .*logit_bias; \d+ unexpected"
    ):
        small_unet("paper").load_adapter_state_dict(state)
    with pytest.raises(ValueError, match=r"\d+ of another shape, such as down_blocks"):
        small_unet("recurrent", block_out_channels=(24, 32)).load_adapter_state_dict(state)


def test_peft_adapters():
    peft = pytest.importorskip("peft")
    unet = small_unet("recurrent")
    names = unet.trained_names()
    state = {name: value.clone() for name, value in unet.adapter_state_dict().items()}
    inputs = small_inputs(frames=3)
    before = unet(*inputs).sample
    unet.add_adapter(peft.LoraConfig(r=2, target_modules=["attn1.to_q", "attn2.to_k", "attn_temp.to_v"]))
    torch.testing.assert_close(unet(*inputs).sample, before)

    def trainable():
        return {name for name, p in unet.named_parameters() if p.requires_grad}

    assert trainable() and all("lora" in name for name in trainable())
    training_steps(unet)
    tuned = unet(*inputs).sample
    assert (tuned - before).abs().max() > 1e-4
    assert unet.trained_names() == names
    assert all(torch.equal(value, state[name]) for name, value in unet.adapter_state_dict().items())
    scaled = unet(*inputs, cross_attention_kwargs={"scale": 0.0}).sample
    torch.testing.assert_close(scaled, before)

    unet.freeze_untrained()  # both then: the preset's set and the LoRA
    assert any("lora" in name for name in trainable()) and any("w_ho" in name for name in trainable())
    unet.set_precision(torch.bfloat16)
    assert (unet(*inputs).sample.float() - tuned).abs().max() <= 0.1 * tuned.abs().max()
    training_steps(unet, steps=1)
    small_unet("recurrent").load_adapter_state_dict(unet.adapter_state_dict())


def test_ema(tmp_path):
    unet = small_unet("recurrent")
    ema = EMAModel(unet.parameters(), decay=0.5, model_cls=VideoUNet, model_config=unet.config)
    start = unet.adapter_state_dict()[
        "up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    ].clone()
    training_steps(unet)
    ema.step(unet.parameters())
    ema.save_pretrained(tmp_path)
    averaged = EMAModel.from_pretrained(tmp_path, VideoUNet)
    copy = VideoUNet.from_config(unet.config)
    averaged.copy_to(copy.parameters())
    weight = copy.adapter_state_dict()["up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.weight"]
    assert copy.preset == unet.preset
    assert not torch.equal(weight, start)
    assert torch.equal(
        copy(*small_inputs()).sample, VideoUNet.from_pretrained(tmp_path)(*small_inputs()).sample
    )


def test_wrong_inputs():
    unet = small_unet()
    sample, timestep, text = small_inputs(batch=2, frames=3)
    with pytest.raises(ValueError, match=r"sample has shape \(2, 4, 8, 8\), expected \[B,C,F,H,W\] with C=4"):
        unet(sample[:, :, 0], timestep, text)
    with pytest.raises(ValueError, match=r"sample has shape \(2, 3, 4, 8, 8\), expected"):
        unet(sample.transpose(1, 2), timestep, text)
    with pytest.raises(ValueError, match=r"encoder_hidden_states has shape \(6, 7, 16\), expected \[2,L,C\]"):
        unet(sample, timestep, text.repeat_interleave(3, 0))
    with pytest.raises(ValueError, match=r"timestep has shape \(3,\), expected a number or \[2\]"):
        unet(sample, torch.tensor([1, 2, 3]), text)
    with pytest.raises(ValueError, match="does not take attention_mask"):
        unet(sample, timestep, text, attention_mask=torch.ones(2, 7))
    with pytest.raises(ValueError, match=r"rcv\.set_backend chooses"):
        unet.set_attn_processor(None)


def test_xformers_for_the_vae_leaves_the_unet_alone():
    unet = small_unet()
    inputs = small_inputs()
    before = unet(*inputs).sample
    unet.set_use_memory_efficient_attention_xformers(True)
    assert torch.equal(unet(*inputs).sample, before)


@pytest.mark.slow
def test_one_compiled_graph():
    """torch.compile sees through the operations, forward and backward, without a break."""
    unet, inputs = small_unet("recurrent"), small_inputs(frames=3)
    compiled = torch.compile(unet, backend="aot_eager", fullgraph=True)
    gradients = []
    for model in (unet, compiled):
        unet.zero_grad()
        model(*inputs).sample.square().mean().backward()
        gradients.append({name: p.grad.clone() for name, p in unet.named_parameters() if p.grad is not None})
    for name, value in gradients[0].items():
        torch.testing.assert_close(
            gradients[1][name], value, rtol=0, atol=1e-6 * value.abs().max().item() + 1e-12
        )


@pytest.mark.parametrize("preset", PRESETS)
def test_sequential_offload(preset):
    """Weights that are only there while their own module runs suffice."""
    unet, inputs = randomise(small_unet(preset)), small_inputs(frames=3)
    with torch.no_grad():
        before = unet(*inputs).sample
        accelerate.cpu_offload(unet, execution_device=torch.device("cpu"))
        assert unet.conv_in.weight.is_meta
        assert torch.equal(unet(*inputs).sample, before)


def test_class_labels_are_one_a_video():
    unet = small_unet(num_class_embeds=5)
    sample, timestep, text = small_inputs(batch=2, frames=3)
    a = unet(sample, timestep, text, class_labels=torch.tensor([1, 2])).sample
    b = unet(sample, timestep, text, class_labels=torch.tensor([1, 3])).sample
    assert torch.equal(a[0], b[0]) and not torch.equal(a[1], b[1])


def test_the_model_code_stays_small():
    """VideoUNet, its blocks and attentions: 600 lines. Cells, norms, presets and file reading are apart."""
    folder = Path(rcv.models.__file__).parent
    files = ("unet", "blocks", "layers", "attention")
    assert sum(len((folder / f"{name}.py").read_text().splitlines()) for name in files) <= 600


def test_default_preset_is_recurrent():
    assert VideoUNet.from_config(UNET_CONFIG).preset == get_preset("recurrent")
    assert VideoUNet(**UNET_CONFIG, preset="paper").preset.name == "paper"
