"""Training of the motion world's CLIP with tiny settings: all stages, resumption, what is held against what."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPModel, CLIPProcessor

from rcv.evaluation.clip import load_clip
from rcv.training.log import Record, read_log
from rcv.world import render_clip
from rcv.world.pretrain import ClipConfig
from rcv.world.pretrain import run as pretrain_run
from rcv.world.pretrain.clip import (
    augmented,
    build_clip,
    exchanged_captions,
    is_trained_on,
    pretrain_clip,
    text_states,
    train_clip,
)
from rcv.world.pretrain.text import build_text_model, build_tokenizer
from rcv.world.scene import all_captions, parse_caption, sample_scene

STEPS = 4


def tiny(output, **changes):
    """Settings that go through all stages in seconds; images 32x32."""
    return ClipConfig(
        **{
            "output": output, "images": 16, "size": 32, "workers": 1, "checkpoint_every": 2,
            "vocabulary": 700, "text_width": 32, "text_layers": 1, "text_steps": 2,
            "patch": 16, "width": 32, "layers": 1, "embedding": 16, "steps": STEPS, "batch": 4, **changes,
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """OUTPUT of a whole tiny run."""
    output = tmp_path_factory.mktemp("clip") / "run"
    assert pretrain_clip(tiny(output), show_progress=False) == output / "clip"
    return output


def test_a_run_writes_a_clip_that_loads_with_its_processor(trained):
    assert [record.step for record in read_log(trained / "clip.csv", Record)] == [*range(1, STEPS + 1)]
    folder = trained / "clip"
    weights = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} <= {torch.float16, torch.int64}
    assert {file.suffix for file in folder.iterdir()} <= {".json", ".txt", ".safetensors"}
    clip = load_clip(folder)
    frames = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    assert clip.image_features(frames).shape == (2, 16)
    assert isinstance(CLIPModel.from_pretrained(folder), CLIPModel)
    processor = CLIPProcessor.from_pretrained(folder)
    torch.testing.assert_close(
        processor(images=[frames[0]], return_tensors="pt")["pixel_values"][0],
        torch.from_numpy(frames[0]).permute(2, 0, 1).float() / 127.5 - 1,
    )


def test_a_stopped_run_goes_on_to_the_same_weights(trained, tmp_path, monkeypatch):
    output = tmp_path / "run"
    output.mkdir()
    for name in ("images.npy", "images.json"):
        shutil.copy(trained / name, output)
    with monkeypatch.context() as patch:

        def stop(self, at, done, total, loss=None):
            if (at, done) == ("clip", 3):
                raise KeyboardInterrupt

        patch.setattr(pretrain_run.stage_progress, "__call__", stop)
        with pytest.raises(KeyboardInterrupt):
            pretrain_clip(tiny(output), show_progress=False)
    assert not (output / "clip").exists()
    pretrain_clip(tiny(output), show_progress=False)
    expected = load_file(trained / "clip" / "model.safetensors")
    found = load_file(output / "clip" / "model.safetensors")
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_other_settings_in_the_same_folder_and_cut_patches_are_refused(trained, tmp_path):
    with pytest.raises(ValueError, match=r"steps was 4 and is 5.*another folder"):
        pretrain_clip(tiny(trained, steps=5), show_progress=False)
    with pytest.raises(ValueError, match="size 32 is not a multiple of patch 12"):
        tiny(tmp_path, patch=12)


def test_captions_are_held_against_those_with_one_thing_exchanged():
    captions = all_captions()
    exchanged = exchanged_captions(captions)
    assert (
        len(exchanged) == len(captions) and 20 < exchanged.shape[1] <= 10 + 9 + 10
    )  # colours, places, animals
    for number in (0, 4321, len(captions) - 1):
        told = parse_caption(captions[number])
        others = [parse_caption(captions[i]) for i in exchanged[number].tolist() if i >= 0]
        assert len(others) >= 5
        assert len({tuple(other.values()) for other in others}) == len(others)
        for other in others:
            assert sum(other[name] != told[name] for name in told) == 1 and other["theme"] == told["theme"]
            assert is_trained_on(**other)


def test_text_states_are_those_of_the_whole_padded_prompt(tmp_path):
    config = tiny(tmp_path)
    tokenizer = build_tokenizer(config.vocabulary)
    torch.manual_seed(0)
    clip = build_clip(build_text_model(tokenizer, config), config)
    captions = ["a red fox walking in the desert", "rain"]
    ids = tokenizer(captions, padding="max_length", max_length=24, return_tensors="pt").input_ids
    with torch.no_grad():
        expected = clip.text_model(input_ids=ids).pooler_output
    torch.testing.assert_close(text_states(clip, tokenizer, captions), expected, atol=1e-5, rtol=1e-5)


def test_training_images_stay_like_themselves():
    images = np.stack([render_clip(sample_scene(None, seed), 1, 32).frames[0] for seed in range(6)])
    pixels = augmented(images, torch.Generator().manual_seed(0))
    assert pixels.shape == (6, 3, 32, 32) and pixels.dtype == torch.float32
    assert torch.equal(pixels, augmented(images, torch.Generator().manual_seed(0)))
    means = torch.from_numpy(images).float().mean((1, 2)) / 127.5 - 1
    assert (pixels.mean((2, 3)) - means).abs().max() < 0.25


@pytest.mark.slow
def test_training_tells_a_few_frames_apart(tmp_path):
    config = tiny(
        tmp_path, steps=150, batch=8, text_width=64, width=64, layers=2, patch=8, learning_rate=3e-3
    )
    scenes = [sample_scene("animal walking", seed, held_out=False) for seed in range(8)]
    images = np.stack([render_clip(scene, 1, 32).frames[0] for scene in scenes])
    tokenizer = build_tokenizer(config.vocabulary)
    torch.manual_seed(0)
    clip = build_clip(build_text_model(tokenizer, config), config)
    train_clip(clip, images, [scene.caption for scene in scenes], tokenizer, config)
    losses = [record.loss for record in read_log(tmp_path / "clip.csv", Record)]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
