"""2D UNets from folders, pipelines and single files; what is refused, and with which words."""

import json
import shutil

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from rcv.models import VideoUNet
from tests.models.small import small_inputs
from tests.tiny import UNET_CONFIG, make_tiny_sd, tiny_unet, tiny_vae

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A 2D UNet and the folder it was saved to."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("base") / "unet"
    unet = tiny_unet().eval()
    unet.save_pretrained(folder)
    return unet, folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of the saved folder, to be damaged."""
    return shutil.copytree(saved[1], tmp_path / "unet")


def assert_first_frame_is_the_2d_unets(video, unet):
    """Frame 1 attends to itself alone, so that a freshly inflated model draws it as its original does."""
    sample, timestep, text = small_inputs(batch=2, frames=3)
    with torch.no_grad():
        given = video(sample, timestep, text).sample[:, :, 0]
        expected = unet(sample[:, :, 0], timestep, text).sample
    torch.testing.assert_close(given, expected, rtol=0, atol=2e-6 * expected.abs().max().item())


def test_a_unet_folder(saved):
    unet, folder = saved
    video = VideoUNet.from_pretrained_2d(folder)
    assert video.preset.name == "recurrent" and video.dtype == torch.float32
    assert not any(p.is_meta for p in video.parameters())
    assert {name for name, p in video.named_parameters() if p.requires_grad} == set(video.trained_names())
    assert_first_frame_is_the_2d_unets(video, unet)


def test_a_pipeline_folder(tmp_path):
    base = make_tiny_sd(tmp_path / "sd")
    unet = UNet2DConditionModel.from_pretrained(base / "unet")
    for arguments in ({}, {"subfolder": "unet"}):
        assert_first_frame_is_the_2d_unets(
            VideoUNet.from_pretrained_2d(base, preset="first-frame", **arguments), unet
        )


def test_precision_is_that_of_the_frozen_weights(saved):
    video = VideoUNet.from_pretrained_2d(saved[1], dtype=torch.float16)
    trained = set(video.trained_names())
    assert {p.dtype for name, p in video.named_parameters() if name in trained} == {torch.float32}
    assert {p.dtype for name, p in video.named_parameters() if name not in trained} == {torch.float16}
    assert video(*small_inputs()).sample.dtype == torch.float16


def test_a_variant(saved, tmp_path):
    saved[0].save_pretrained(tmp_path, variant="fp16")
    assert_first_frame_is_the_2d_unets(VideoUNet.from_pretrained_2d(tmp_path, variant="fp16"), saved[0])
    with pytest.raises(ValueError, match=r"has no weights .*expected diffusion_pytorch_model.safetensors"):
        VideoUNet.from_pretrained_2d(tmp_path)


def test_shards(saved, tmp_path):
    saved[0].save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert_first_frame_is_the_2d_unets(VideoUNet.from_pretrained_2d(tmp_path), saved[0])


def test_a_single_file_with_a_local_configuration(saved, folder, tmp_path):
    file = tmp_path / "model.safetensors"
    shutil.copy(folder / WEIGHTS, file)
    assert_first_frame_is_the_2d_unets(VideoUNet.from_pretrained_2d(file, config=folder), saved[0])
    with pytest.raises(ValueError, match="single file, whose architecture stands elsewhere: pass config"):
        VideoUNet.from_pretrained_2d(file)


def test_a_single_file_in_the_original_layout(saved, folder, tmp_path):
    """The names that CompVis checkpoints use, with other models' weights beside the UNet's."""
    state = {original_name(name): value for name, value in load_file(folder / WEIGHTS).items()}
    assert len(state) == len(saved[0].state_dict())
    save_file(
        {**state, "first_stage_model.decoder.conv_in.bias": torch.zeros(4)}, tmp_path / "sd.safetensors"
    )
    assert_first_frame_is_the_2d_unets(
        VideoUNet.from_pretrained_2d(tmp_path / "sd.safetensors", config=folder), saved[0]
    )


def original_name(name):
    """Name of a weight of the tiny UNet (two levels, one layer each) in the original layout."""
    blocks = {
        "conv_in": "input_blocks.0.0",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
        "down_blocks.0.resnets.0": "input_blocks.1.0",
        "down_blocks.0.attentions.0": "input_blocks.1.1",
        "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
        "down_blocks.1.resnets.0": "input_blocks.3.0",
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
        "up_blocks.0.resnets.0": "output_blocks.0.0",
        "up_blocks.0.resnets.1": "output_blocks.1.0",
        "up_blocks.0.upsamplers.0": "output_blocks.1.1",
        "up_blocks.1.resnets.0": "output_blocks.2.0",
        "up_blocks.1.attentions.0": "output_blocks.2.1",
        "up_blocks.1.resnets.1": "output_blocks.3.0",
        "up_blocks.1.attentions.1": "output_blocks.3.1",
    }
    parts = {
        "norm1": "in_layers.0",
        "conv1": "in_layers.2",
        "time_emb_proj": "emb_layers.1",
        "norm2": "out_layers.0",
        "conv2": "out_layers.3",
        "conv_shortcut": "skip_connection",
    }
    block = next(block for block in blocks if name.startswith(f"{block}."))
    rest = name.removeprefix(f"{block}.")
    if ".resnets." in block:
        part, kind = rest.rsplit(".", 1)
        rest = f"{parts[part]}.{kind}"
    return f"model.diffusion_model.{blocks[block]}.{rest}"


def test_pickles_are_refused_unless_asked_for(saved, folder, tmp_path):
    (folder / WEIGHTS).unlink()
    torch.save(saved[0].state_dict(), folder / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match=r"is a pickle, which can run code .*--allow-pickle"):
        VideoUNet.from_pretrained_2d(folder)
    assert_first_frame_is_the_2d_unets(VideoUNet.from_pretrained_2d(folder, allow_pickle=True), saved[0])

    file = tmp_path / "model.ckpt"
    torch.save({"state_dict": saved[0].state_dict()}, file)
    with pytest.raises(ValueError, match="is a pickle"):
        VideoUNet.from_pretrained_2d(file, config=folder)
    video = VideoUNet.from_pretrained_2d(file, config=folder, allow_pickle=True)
    assert_first_frame_is_the_2d_unets(video, saved[0])


class Malicious:
    def __reduce__(self):
        return print, ("executed",)


def test_code_in_a_pickle_is_never_run(folder, tmp_path, capsys):
    file = tmp_path / "model.ckpt"
    torch.save({"conv_in.weight": Malicious()}, file)
    with pytest.raises(ValueError, match="cannot be read as weights"):
        VideoUNet.from_pretrained_2d(file, config=folder, allow_pickle=True)
    assert "executed" not in capsys.readouterr().out


def test_missing_and_damaged_files(folder, tmp_path):
    with pytest.raises(ValueError, match="nowhere does not exist; expected a folder in diffusers' layout"):
        VideoUNet.from_pretrained_2d(tmp_path / "nowhere")
    with pytest.raises(
        ValueError, match=r"has no config.json \(no such folder\)|no config.json .found: no such folder"
    ):
        VideoUNet.from_pretrained_2d(folder, subfolder="unett")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"has no config.json \(found: nothing\)"):
        VideoUNet.from_pretrained_2d(tmp_path / "empty")

    weights = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ValueError, match="cannot be read"):
        VideoUNet.from_pretrained_2d(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(
        ValueError, match=r"has no weights \(found: config.json\); expected diffusion_pytorch_model"
    ):
        VideoUNet.from_pretrained_2d(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is not valid JSON"):
        VideoUNet.from_pretrained_2d(folder)
    (tmp_path / "notes.txt").write_text("not a checkpoint")
    with pytest.raises(ValueError, match=r"is no checkpoint; expected \.safetensors"):
        VideoUNet.from_pretrained_2d(tmp_path / "notes.txt")


def test_weights_that_do_not_fit_the_configuration(folder):
    state = load_file(folder / WEIGHTS)
    save_file({**state, "extra": torch.zeros(1)}, folder / WEIGHTS)
    with pytest.raises(ValueError, match="1 unexpected keys, such as extra"):
        VideoUNet.from_pretrained_2d(folder)
    state.pop("conv_in.bias")
    save_file(state, folder / WEIGHTS)
    with pytest.raises(ValueError, match=r"1 missing keys, such as conv_in\.bias"):
        VideoUNet.from_pretrained_2d(folder)
    save_file({**state, "conv_in.bias": torch.zeros(3)}, folder / WEIGHTS)
    with pytest.raises(ValueError, match=r"conv_in\.bias"):
        VideoUNet.from_pretrained_2d(folder)


def test_a_single_file_that_does_not_fit(folder, tmp_path):
    state = load_file(folder / WEIGHTS)
    save_file({k: v for k, v in state.items() if k != "conv_out.bias"}, tmp_path / "short.safetensors")
    with pytest.raises(ValueError, match=r"does not fit .*: 1 missing, such as conv_out\.bias"):
        VideoUNet.from_pretrained_2d(tmp_path / "short.safetensors", config=folder)
    save_file(tiny_vae().state_dict(), tmp_path / "vae.safetensors")
    with pytest.raises(ValueError, match=r"vae.safetensors (cannot be read as|does not fit)"):
        VideoUNet.from_pretrained_2d(tmp_path / "vae.safetensors", config=folder)


def test_models_of_another_kind(tmp_path):
    tiny_vae().save_pretrained(tmp_path / "vae")
    with pytest.raises(
        ValueError, match="holds a AutoencoderKL, not a UNet2DConditionModel; expected the UNet of"
    ):
        VideoUNet.from_pretrained_2d(tmp_path / "vae")
    (tmp_path / "video").mkdir()
    VideoUNet.from_config(tiny_unet().config).save_pretrained(tmp_path / "video")
    with pytest.raises(ValueError, match=r"already a video UNet; load it with VideoUNet.from_pretrained"):
        VideoUNet.from_pretrained_2d(tmp_path / "video")
    tiny_unet(only_cross_attention=True).save_pretrained(tmp_path / "upscaler")
    with pytest.raises(ValueError, match="lack a self-attention"):
        VideoUNet.from_pretrained_2d(tmp_path / "upscaler")
    config = {**tiny_unet().config, "_class_name": "UNet3DConditionModel"}
    (tmp_path / "tune").mkdir()
    (tmp_path / "tune" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="`rcv convert` makes a VideoUNet of it"):
        VideoUNet.from_pretrained_2d(tmp_path / "tune")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"addition_embed_type": "text", "encoder_hid_dim": 16},
            "addition_embed_type='text'",
        ),
        ({"dual_cross_attention": True}, "dual_cross_attention=True"),
        (
            {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "mid_block_type": None},
            "no transformer block",
        ),
        (
            {"down_block_types": ("AttnDownBlock2D", "CrossAttnDownBlock2D")},
            "an attention outside its transformer blocks",
        ),
    ],
    ids=["sdxl", "dual", "unconditional", "attn-block"],
)  # fmt: skip
def test_configurations_of_other_families(config, message):
    with pytest.raises(ValueError, match=message):
        VideoUNet.from_config({**UNET_CONFIG, **config})


def test_an_unknown_preset_fails_before_anything_is_read(tmp_path):
    with pytest.raises(ValueError, match="unknown preset 'recurent', did you mean 'recurrent'"):
        VideoUNet.from_pretrained_2d(tmp_path / "nowhere", preset="recurent")


def test_a_vae_is_not_taken_for_a_configuration(folder, tmp_path):
    tiny_vae().save_pretrained(tmp_path / "vae")
    assert AutoencoderKL.load_config(tmp_path / "vae")["_class_name"] == "AutoencoderKL"
    with pytest.raises(ValueError, match="holds a AutoencoderKL"):
        VideoUNet.from_pretrained_2d(folder / WEIGHTS, config=tmp_path / "vae")
