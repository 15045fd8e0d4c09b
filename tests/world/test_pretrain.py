"""Training of the embedded model with tiny settings: all stages, resumption, and what each stage promises."""

import json
import shutil
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTokenizer

from rcv.training.log import Record, read_log
from rcv.world import THEMES, held_out_scenes, is_held_out, render_clip, vocabulary
from rcv.world.pretrain import PretrainConfig, run
from rcv.world.pretrain.autoencoder import build_autoencoder, encode, pixels, standardize
from rcv.world.pretrain.images import training_scene
from rcv.world.pretrain.loop import learning_rate_at
from rcv.world.pretrain.run import pretrain
from rcv.world.pretrain.text import build_tokenizer, tokenize
from rcv.world.scene import all_captions

STEPS = 6


def tiny(output, **changes):
    """Settings that go through all stages in seconds; images 32x32."""
    return PretrainConfig(
        **{
            "output": output, "images": 48, "size": 32, "workers": 1, "checkpoint_every": 2,
            "vae_widths": [8, 8, 8], "vae_steps": STEPS, "vae_batch": 4,
            "vocabulary": 700, "text_width": 32, "text_layers": 1, "text_steps": STEPS,
            "widths": [16, 32], "heads": [2, 2], "steps": STEPS, "batch": 4, **changes,
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """OUTPUT of a whole tiny run."""
    output = tmp_path_factory.mktemp("world") / "run"
    assert pretrain(tiny(output), show_progress=False) == output / "model"
    return output


@pytest.fixture
def rendered(trained, tmp_path):
    """A fresh OUTPUT that holds the images already."""
    output = tmp_path / "run"
    output.mkdir()
    for name in ("images.npy", "images.json"):
        shutil.copy(trained / name, output)
    return output


def weights(folder):
    return {
        f"{file.parent.name}/{name}": tensor
        for file in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }


def test_a_run_writes_model_losses_curves_and_settings(trained):
    for stage in ("autoencoder", "text", "denoiser"):
        assert [record.step for record in read_log(trained / f"{stage}.csv", Record)] == [
            *range(1, STEPS + 1)
        ]
    assert (trained / "losses.png").read_bytes().startswith(b"\x89PNG")
    assert PretrainConfig.read_yaml(trained / "config.yaml") == tiny(trained)
    suffixes = {file.suffix for file in (trained / "model").rglob("*") if file.is_file()}
    assert suffixes <= {".json", ".txt", ".safetensors"}
    assert {tensor.dtype for tensor in weights(trained / "model").values()} <= {torch.float16, torch.int64}


def test_the_parts_load_as_diffusers_and_transformers_classes(trained):
    model = trained / "model"
    vae = AutoencoderKL.from_pretrained(model, subfolder="vae")
    unet = UNet2DConditionModel.from_pretrained(model, subfolder="unet")
    text = CLIPTextModel.from_pretrained(model, subfolder="text_encoder")
    tokenizer = CLIPTokenizer.from_pretrained(model, subfolder="tokenizer")
    scheduler = DDIMScheduler.from_pretrained(model, subfolder="scheduler")
    assert vae.config.latent_channels == unet.config.in_channels == unet.config.out_channels == 4
    assert unet.config.sample_size * 2 ** (len(vae.config.block_out_channels) - 1) == vae.config.sample_size
    assert unet.config.cross_attention_dim == text.config.hidden_size
    assert text.config.max_position_embeddings == tokenizer.model_max_length <= 32
    assert len(tokenizer) == text.config.vocab_size == 700
    assert scheduler.config.prediction_type == "v_prediction" and not scheduler.config.clip_sample
    # diffusers takes attention_head_dim for the number of heads
    assert unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1.heads == 2


def test_the_pipeline_draws(trained):
    pipe = StableDiffusionPipeline.from_pretrained(trained / "model", dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    image = pipe("a red fox", num_inference_steps=2, output_type="np").images
    assert image.shape == (1, 32, 32, 3) and np.isfinite(image).all()


@pytest.mark.parametrize(("stage", "step"), [("autoencoder", 3), ("text", 1), ("denoiser", 5)])
def test_an_interrupted_run_goes_on_to_the_same_weights(trained, rendered, monkeypatch, stage, step):
    config = tiny(rendered)
    with monkeypatch.context() as patch:

        def stop(self, at, done, total, loss=None):
            if (at, done) == (stage, step):
                raise KeyboardInterrupt

        patch.setattr(run.stage_progress, "__call__", stop)
        with pytest.raises(KeyboardInterrupt):
            pretrain(config, show_progress=False)
    assert not (rendered / "model").exists()
    pretrain(config, show_progress=False)
    expected, found = weights(trained / "model"), weights(rendered / "model")
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name
    assert [r.loss for r in read_log(rendered / f"{stage}.csv", Record)] == [
        r.loss for r in read_log(trained / f"{stage}.csv", Record)
    ]


def test_other_settings_in_the_same_folder_are_refused_by_name(trained):
    with pytest.raises(ValueError, match=r"steps was 6 and is 7.*another folder"):
        pretrain(tiny(trained, steps=7), show_progress=False)


def test_another_seed_gives_another_model(trained, rendered):
    for name in ("images.npy", "images.json"):
        (rendered / name).unlink()
    pretrain(tiny(rendered, seed=1, images=8), show_progress=False)
    first, second = weights(trained / "model"), weights(rendered / "model")
    assert not torch.equal(first["unet/conv_in.weight"], second["unet/conv_in.weight"])


def test_heads_and_widths_must_agree(tmp_path):
    with pytest.raises(ValueError, match="heads names 1 levels and widths 2"):
        tiny(tmp_path, heads=[2])


def test_training_scenes_leave_held_out_combinations_out_and_take_the_themes_in_turn():
    scenes = [training_scene(index, seed)[0] for seed in (0, 3) for index in range(2000)]
    assert not any(is_held_out(scene) for scene in scenes)
    assert set(Counter(scene.theme for scene in scenes).values()) == {len(scenes) // len(THEMES)}
    assert not {scene.caption for scene in scenes} & {scene.caption for scene in held_out_scenes(64)}


def test_images_show_their_scenes(trained):
    images = np.load(trained / "images.npy")
    for index in (0, 13, 47):
        scene, time = training_scene(index, 0)
        assert np.array_equal(images[index], render_clip(scene, frames=1, size=32, start=time).frames[0])


def test_standardized_latents_have_unit_scale_and_decode_to_the_same_pictures(trained):
    images = np.load(trained / "images.npy")
    torch.manual_seed(0)
    vae = build_autoencoder(tiny(trained)).eval()
    with torch.no_grad():
        before = vae.decode(vae.encode(pixels(images[:4])).latent_dist.mean).sample
        standardize(vae, images)
        after = vae.decode(vae.encode(pixels(images[:4])).latent_dist.mean).sample
    latents = encode(vae, images)
    # bfloat16 autocast, where the CPU has it, rounds to 3 digits
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(4), atol=0.02, rtol=0)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(4), atol=0.02, rtol=0)
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-3)
    assert vae.config.scaling_factor == 1


def test_learning_rate_warms_up_holds_and_cools_down_to_nothing():
    rates = [learning_rate_at(step, 1000, 0.5) for step in range(1000)]
    assert rates[0] == 0.005 and rates[100] == rates[599] == 0.5
    assert max(rates) == 0.5 and 0 < rates[-1] <= 0.5 / 400 * 1.01
    assert all(a >= b for a, b in pairwise(rates[600:]))


class TestTokenizer:
    """CLIP's format, any text."""

    @pytest.fixture(scope="class")
    def tokenizer(self):
        return build_tokenizer(1500)

    def test_size(self, tokenizer):
        assert len(tokenizer) == 1500
        assert sorted(tokenizer.get_vocab().values()) == [*range(1500)]

    def test_another_run_numbers_the_tokens_alike(self, tokenizer):
        assert build_tokenizer(1500).get_vocab() == tokenizer.get_vocab()

    def test_words_of_captions_are_one_token(self, tokenizer):
        for word in vocabulary():
            assert len(tokenizer.tokenize(word)) == 1, word

    def test_captions_are_not_cut(self, tokenizer):
        ids = tokenizer(list(all_captions())).input_ids
        assert max(map(len, ids)) <= tokenizer.model_max_length <= 32
        assert {row[0] for row in ids} == {tokenizer.bos_token_id}
        assert {row[-1] for row in ids} == {tokenizer.eos_token_id}

    def test_case_and_spaces_do_not_matter(self, tokenizer):
        first, second = tokenizer(["a red fox", "  A  Red\tFOX "]).input_ids
        assert first == second

    @pytest.mark.parametrize("text", ["xylophone quasar", "größe 猫 🦊", "ab-cd, 42!"])
    def test_unknown_words_fall_apart_into_bytes_and_come_back(self, tokenizer, text):
        ids = tokenizer(text).input_ids
        assert ids.count(tokenizer.eos_token_id) == 1
        decoded = tokenizer.decode(ids, skip_special_tokens=True)
        assert decoded.replace(" ", "") == text.replace(" ", "")

    def test_too_long_text_is_cut_with_the_end_kept(self, tokenizer):
        ids = tokenize(tokenizer, ["fox " * 100])
        assert ids.shape == (1, tokenizer.model_max_length) and ids[0, -1] == tokenizer.eos_token_id

    def test_written_files_give_the_same_tokens(self, trained):
        folder = trained / "model" / "tokenizer"
        loaded = CLIPTokenizer.from_pretrained(folder)
        texts = ["a red fox walking in the desert", "größe 猫 quasar"]
        assert loaded(texts).input_ids == build_tokenizer(700)(texts).input_ids
        vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
        assert vocab == loaded.get_vocab()
        rebuilt = CLIPTokenizer(vocab=vocab, merges=[tuple(line.split()) for line in lines])
        assert rebuilt(texts).input_ids == loaded(texts).input_ids
