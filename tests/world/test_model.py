"""The embedded model: what lies in the package, and how well it draws unseen combinations."""

import json

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors import safe_open
from transformers import CLIPTextModel, CLIPTokenizer

from rcv.world import model, model_path
from rcv.world.evaluate import evaluate_model

PARTS = {
    "vae": AutoencoderKL,
    "unet": UNet2DConditionModel,
    "text_encoder": CLIPTextModel,
}


def test_a_missing_model_is_said_with_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(model, "FOLDER", tmp_path)
    with pytest.raises(FileNotFoundError, match="rcv world pretrain"):
        model_path()


def test_the_package_holds_text_and_safetensors_of_at_most_25_megabytes():
    files = [file for file in model_path().rglob("*") if file.is_file()]
    assert {file.suffix for file in files} <= {".json", ".txt", ".safetensors"}
    assert sum(file.stat().st_size for file in files) <= 25_000_000


def test_weights_are_finite_and_in_half_precision():
    for file in model_path().rglob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (safe_open is no dict)
                tensor = tensors.get_tensor(name)
                assert tensor.dtype in (torch.float16, torch.int64), name
                assert tensor.isfinite().all(), name


@pytest.mark.parametrize("part", PARTS)
def test_parts_load_alone_without_missing_weights(part):
    loaded, info = PARTS[part].from_pretrained(model_path(), subfolder=part, output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"]
    assert sum(weight.numel() for weight in loaded.parameters()) > 100_000


def test_sizes_fit_together():
    vae = AutoencoderKL.load_config(model_path(), subfolder="vae")
    unet = UNet2DConditionModel.load_config(model_path(), subfolder="unet")
    text = json.loads((model_path() / "text_encoder" / "config.json").read_text())
    tokenizer = CLIPTokenizer.from_pretrained(model_path(), subfolder="tokenizer")
    assert vae["sample_size"] == 64 == unet["sample_size"] * 2 ** (len(vae["block_out_channels"]) - 1)
    assert unet["in_channels"] == unet["out_channels"] == vae["latent_channels"]
    assert unet["cross_attention_dim"] == text["hidden_size"] <= 128
    assert tokenizer.model_max_length == text["max_position_embeddings"] <= 32
    assert 1000 <= len(tokenizer) <= 2000


def test_the_caption_decides_what_is_drawn():
    pipe = StableDiffusionPipeline.from_pretrained(model_path(), dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)

    def mean_color(caption):
        generator = torch.Generator().manual_seed(3)
        image = pipe(
            caption, num_inference_steps=8, guidance_scale=3.0, generator=generator, output_type="np"
        )
        return image.images[0].mean((0, 1))

    night = mean_color("a red rabbit walking at night")
    snow = mean_color("a red rabbit walking in the snow")
    assert snow.mean() > night.mean() + 0.3


@pytest.mark.slow
def test_unseen_combinations_have_the_right_colour_and_shape():
    report = evaluate_model(count=64, seed=0)
    assert len({row.caption for row in report.rows}) == 64
    assert report.color >= 0.90
    assert report.shape >= 0.80
