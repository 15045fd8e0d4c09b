"""Loading a CLIP from a folder, and its features."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torchmetrics.functional.multimodal import clip_score as torchmetrics_clip_score

from rcv.evaluation.clip import load_clip
from rcv.evaluation.consistency import clip_score, clip_temp


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 256, (5, 40, 56, 3), np.uint8)


class TensorFeatures(torch.nn.Module):
    """A CLIPModel whose features are tensors: torchmetrics 1.9 does not know the objects of transformers 5."""

    def __init__(self, model):
        super().__init__()
        self.model, self.config = model, model.config

    def get_image_features(self, pixels):
        return self.model.get_image_features(pixel_values=pixels).pooler_output

    def get_text_features(self, ids, mask):
        return self.model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output


def in_torchmetrics(clip):
    return lambda: (TensorFeatures(clip.model).requires_grad_(False), clip.processor)


def test_features_have_length_1_and_depend_on_one_frame_alone(clip, frames):
    features = clip.image_features(frames)
    assert features.shape == (5, 8) and features.dtype == torch.float32
    torch.testing.assert_close(features.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(clip.image_features(frames[3:4])[0], features[3])
    texts = clip.text_features(["a red fox", "an ox"])
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(clip.text_features(["an ox"])[0], texts[1])


def test_frames_are_prepared_as_the_processor_prepares_pictures(clip, frames):
    prepared = clip.processor(images=[Image.fromarray(frame) for frame in frames], return_tensors="pt")
    with torch.no_grad():
        expected = clip.model.get_image_features(pixel_values=prepared["pixel_values"]).pooler_output
    torch.testing.assert_close(clip.image_features(frames), torch.nn.functional.normalize(expected))


def test_three_rows_of_pixels_are_not_taken_for_channels(clip):
    frames = np.zeros((1, 3, 3, 3), np.uint8)
    assert clip.image_features(frames).isfinite().all()


def test_clip_score_and_clip_temp_equal_torchmetrics(clip, frames):
    channels_first = [torch.from_numpy(frame).permute(2, 0, 1) for frame in frames]
    prompt = "a red fox"
    images, text = clip.image_features(frames), clip.text_features([prompt])[0]
    score = torchmetrics_clip_score(channels_first, [prompt] * 5, in_torchmetrics(clip))
    assert clip_score(images, text) == pytest.approx(float(score), abs=1e-3)
    temp = torchmetrics_clip_score(channels_first[:-1], channels_first[1:], in_torchmetrics(clip))
    assert clip_temp(images) == pytest.approx(float(temp), abs=1e-3)
    assert 0 < clip_temp(images) < 99.9


def test_a_prompt_longer_than_the_model_reads_is_cut_off(clip):
    long = clip.text_features(["red fox " * 50])
    assert long.isfinite().all()


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        load_clip(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("files", "part"),
    [
        (("preprocessor_config.json", "processor_config.json"), "image processor"),
        (("tokenizer.json", "vocab.json"), "tokenizer"),
        (("config.json",), "CLIP model"),
    ],
)
def test_a_clip_without_a_part_is_named(clip_folder, tmp_path, files, part):
    folder = shutil.copytree(clip_folder, tmp_path / "clip")
    for name in files:
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(ValueError, match=f"holds no {part}"):
        load_clip(folder)


def test_another_kind_of_model_and_damaged_or_missing_weights_are_refused(clip_folder, tmp_path):
    folder = shutil.copytree(clip_folder, tmp_path / "clip")
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="cannot be loaded as a CLIP model"):
        load_clip(folder)
    other = shutil.copytree(clip_folder, tmp_path / "other")
    settings = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**settings, "model_type": "siglip"}))
    with pytest.raises(ValueError, match="'siglip'"):
        load_clip(other)
    (other / "config.json").write_text(json.dumps(settings))
    weights = load_file(other / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"weights are missing: text_projection\.weight"):
        load_clip(other)


def test_a_folder_that_transformers_5_alone_wrote_loads(clip_folder, tmp_path, frames, clip):
    folder = shutil.copytree(clip_folder, tmp_path / "clip")
    (folder / "preprocessor_config.json").unlink()
    torch.testing.assert_close(load_clip(folder).image_features(frames), clip.image_features(frames))
