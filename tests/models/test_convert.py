"""Published checkpoints, pickles as their programs wrote them, as VideoUNet folders."""

import json

import pytest
import torch

from rcv.models import VideoUNet, convert, load_published
from tests.models.small import randomise, small_inputs, small_unet
from tests.tiny import UNET_CONFIG, tiny_unet

CONFIG_3D = {
    **UNET_CONFIG,
    "_class_name": "UNet3DConditionModel",
    "_diffusers_version": "0.11.1",
    "down_block_types": ["CrossAttnDownBlock3D", "DownBlock3D"],
    "mid_block_type": "UNetMidBlock3DCrossAttn",
    "up_block_types": ["UpBlock3D", "CrossAttnUpBlock3D"],
}


def write_checkpoint(folder, preset, state=None, config=CONFIG_3D):
    """Write a checkpoint as the published programs do, and return the model that it holds."""
    unet = randomise(small_unet(preset)).eval()
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(unet.state_dict() if state is None else state, folder / "diffusion_pytorch_model.bin")
    return unet


@pytest.mark.parametrize("preset", ["tune-a-video", "published"])
def test_a_pickled_folder_becomes_a_video_unet(preset, tmp_path):
    unet = write_checkpoint(tmp_path / "run" / "unet", preset)
    convert(tmp_path / "run", tmp_path / "out", allow_pickle=True)
    assert (tmp_path / "out" / "diffusion_pytorch_model.safetensors").is_file()
    converted = VideoUNet.from_pretrained(tmp_path / "out")
    assert converted.preset.name == preset
    inputs = small_inputs(frames=3)
    assert torch.equal(converted(*inputs).sample, unet(*inputs).sample)


def test_precision_is_the_checkpoints(tmp_path):
    write_checkpoint(tmp_path / "unet", "tune-a-video", small_unet("tune-a-video").half().state_dict())
    assert load_published(tmp_path / "unet", allow_pickle=True).dtype == torch.float16


def test_a_single_file_and_data_parallel_names(tmp_path):
    unet = randomise(small_unet("published"))
    state = {f"module.{name}": value for name, value in unet.state_dict().items()}
    write_checkpoint(tmp_path / "unet", "published", {"state_dict": state})
    loaded = load_published(tmp_path / "unet" / "diffusion_pytorch_model.bin", allow_pickle=True)
    assert all(torch.equal(value, unet.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_pickles_are_refused_unless_asked_for(tmp_path):
    write_checkpoint(tmp_path / "unet", "published")
    with pytest.raises(ValueError, match=r"is a pickle, which can run code .*--allow-pickle"):
        convert(tmp_path / "unet", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_published_checkpoint(tmp_path):
    write_checkpoint(tmp_path / "2d", "published", tiny_unet().state_dict())
    with pytest.raises(ValueError, match=r"neither attn_temp nor memory_update_layer.*from_pretrained_2d"):
        load_published(tmp_path / "2d", allow_pickle=True)
    write_checkpoint(tmp_path / "lamp", "published", {"conv_in.conv1d.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="weights of LAMP"):
        load_published(tmp_path / "lamp", allow_pickle=True)
    write_checkpoint(tmp_path / "named", "published")
    with pytest.raises(
        ValueError, match=r"not a checkpoint of preset 'tune-a-video': 8 unexpected, such as .*memory_update"
    ):
        load_published(tmp_path / "named", "tune-a-video", allow_pickle=True)
    write_checkpoint(tmp_path / "list", "published", [torch.zeros(1)])
    with pytest.raises(ValueError, match="holds no state dict of tensors"):
        load_published(tmp_path / "list", allow_pickle=True)
    with pytest.raises(ValueError, match="does not exist"):
        load_published(tmp_path / "nowhere")
    torch.save({}, tmp_path / "alone.pt")
    with pytest.raises(ValueError, match=r"has no config\.json beside it"):
        load_published(tmp_path / "alone.pt", allow_pickle=True)
