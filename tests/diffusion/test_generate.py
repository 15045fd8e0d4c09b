"""From settings to files: what `rcv generate` and `rcv invert` do."""

import subprocess
import sys

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file, save_file

from rcv.diffusion.config import GenerateConfig, InvertConfig
from rcv.diffusion.generate import generate, invert, output_paths
from rcv.training import save_adapter
from rcv.video import read_video, write_video
from tests.diffusion.conftest import quiet


@pytest.fixture
def config(base, tmp_path):
    def config(**settings):
        quick = {
            "prompts": ["a fox"],
            "base": str(base),
            "frames": 2,
            "steps": 2,
            "output": tmp_path / "v.mkv",
        }
        return GenerateConfig(**{**quick, **settings})

    return config


@pytest.fixture
def adapter(base, tmp_path):
    """An adapter that names its base, size, frames and noise, as `finetune` writes it."""
    from rcv.diffusion import VideoPipeline

    pipe = quiet(VideoPipeline.from_base(base, preset="tune-a-video"))
    noise = {"strategy": "shared", "alpha": 0.3, "form": "paper"}
    save_adapter(pipe.unet, tmp_path / "run", base=str(base), frames=3, size=[24, 40], noise=noise)
    return tmp_path / "run"


@pytest.fixture
def clip(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (6, 40, 48, 3), dtype=np.uint8)
    return write_video(tmp_path / "clip.mkv", frames, lossless=True)


def test_a_video_and_its_settings(config, tmp_path):
    steps = []
    output = tmp_path / "new" / "v.gif"
    assert generate(config(output=output, fps=10, scale=3), lambda *given: steps.append(given)) == [output]
    video = read_video(output)
    assert video.frames.shape == (2, 96, 96, 3) and video.fps == pytest.approx(10)
    assert steps == [(1, 2), (2, 2)]
    saved = yaml.safe_load((tmp_path / "new" / "v.yaml").read_text())
    assert (saved["height"], saved["frames"], saved["preset"]) == (32, 2, "recurrent")
    assert (saved["noise"], saved["noise_alpha"]) == ("independent", 0.5)
    assert saved["guidance_scale"] == 7.5


def test_the_embedded_model_takes_less_guidance(config, tmp_path):
    output = tmp_path / "v.png"
    generate(config(base=None, steps=1, output=output))
    assert yaml.safe_load(output.with_suffix(".yaml").read_text())["guidance_scale"] == 3
    generate(config(base=None, steps=1, guidance_scale=6, output=output))
    assert yaml.safe_load(output.with_suffix(".yaml").read_text())["guidance_scale"] == 6


def test_the_saved_settings_repeat_the_video(config, tmp_path):
    first = tmp_path / "first" / "v.png"
    generate(config(output=first, noise="shared", seed=4))
    settings = yaml.safe_load(first.with_suffix(".yaml").read_text())
    second = tmp_path / "second.png"
    generate(GenerateConfig(**{**settings, "output": second}))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"preset": "streaming", "frames": 18}, (16, "carry")),
        ({"preset": "streaming", "frames": 5, "window": 3}, (3, "carry")),
        ({"preset": "recurrent", "frames": 6, "window": 5, "window_overlap": 2}, (5, "blend")),
        ({"preset": "recurrent", "frames": 3}, (None, None)),
    ],
)
def test_long_videos_are_made_in_windows(config, tmp_path, monkeypatch, settings, expected):
    from rcv.models import VideoUNet

    seen, forward = [], VideoUNet.forward

    def counting(self, sample, *args, **kwargs):
        seen.append(sample.shape[2])
        return forward(self, sample, *args, **kwargs)

    monkeypatch.setattr(VideoUNet, "forward", counting)
    output = tmp_path / "v"  # a folder of frames: H.264 would make several levels of one
    generate(config(steps=1, noise_beyond="shuffled", hold=0.5, output=output, **settings))
    assert len(read_video(output).frames) == settings["frames"]
    assert max(seen) <= (expected[0] or settings["frames"])
    saved = yaml.safe_load(output.with_suffix(".yaml").read_text())
    assert (saved["window"], saved["window_mode"]) == expected
    again, other = tmp_path / "again", tmp_path / "other"
    generate(GenerateConfig(**{**saved, "output": again}))
    generate(GenerateConfig(**{**saved, "seed": saved["seed"] + 1, "output": other}))
    # pixels at the edge between two levels may be rounded either way: sums differ with where memory lies
    assert _difference(again, output) < 0.25 < 2 < _difference(other, output)


def _difference(one, other):
    """Mean absolute difference of two videos' pixels, in levels of 255."""
    return np.abs(read_video(one).frames.astype(int) - read_video(other).frames).mean()


def test_a_window_is_as_long_as_what_the_adapter_was_trained_on(base, tmp_path):
    from rcv.diffusion import VideoPipeline

    unet = VideoPipeline.from_base(base, preset="streaming").unet
    said = {"a": {"frames": 24}, "b": {"frames": 64, "window": 20}, "c": {"frames": 3}}
    windows = {}
    for name, trained in said.items():
        save_adapter(unet, tmp_path / name, base=str(base), **trained)
        config = GenerateConfig(adapter=tmp_path / name, frames=99).with_adapter_defaults()
        windows[name] = config.window
    assert windows == {"a": 24, "b": 20, "c": 16}
    assert GenerateConfig(adapter=tmp_path / "b", window=8).with_adapter_defaults().window == 8


def test_several_videos_get_a_seed_and_a_file_each(config, tmp_path):
    steps = []
    settings = {"prompts": ["a fox", "a bear"], "videos_per_prompt": 2, "batch_size": 3}
    files = generate(config(output=tmp_path / "many", **settings), lambda *given: steps.append(given))
    assert [file.name for file in files] == [
        "many-00-a-fox",
        "many-01-a-fox",
        "many-02-a-bear",
        "many-03-a-bear",
    ]
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    (alone,) = generate(config(prompts=["a bear"], seed=2, output=tmp_path / "alone"))
    videos = [read_video(file).frames.astype(int) for file in files]
    assert np.abs(videos[2] - read_video(alone).frames).max() <= 1
    assert np.abs(videos[0] - videos[1]).max() > 5


def test_an_adapter_fills_in_what_is_left_open(adapter, tmp_path):
    output = tmp_path / "v.mkv"
    generate(GenerateConfig(prompts=["a fox"], adapter=adapter, steps=1, output=output))
    assert read_video(output).frames.shape == (3, 24, 40, 3)
    saved = yaml.safe_load(output.with_suffix(".yaml").read_text())
    assert saved["preset"] == "tune-a-video"
    assert (saved["noise"], saved["noise_alpha"], saved["noise_form"]) == ("shared", 0.3, "paper")


def test_what_is_given_goes_before_the_adapter(adapter):
    given = GenerateConfig(adapter=adapter, frames=5, height=32, width=32, noise="independent", base="mine")
    taken = given.with_adapter_defaults()
    assert (taken.frames, taken.height, taken.width, taken.base) == (5, 32, 32, "mine")
    assert taken.noise_config() == given.noise_config()
    assert GenerateConfig().with_adapter_defaults() == GenerateConfig()


@pytest.mark.parametrize("scheduler", ["dpm++", "pndm"])
def test_a_scheduler_by_name(config, tmp_path, scheduler):
    generate(config(output=tmp_path / "own"))
    generate(config(output=tmp_path / "other", scheduler=scheduler))
    assert not np.array_equal(read_video(tmp_path / "own").frames, read_video(tmp_path / "other").frames)


def test_invert_then_generate(config, base, clip, tmp_path):
    latents = tmp_path / "latents.safetensors"
    model = {"base": str(base), "preset": "tune-a-video", "steps": 4}
    assert invert(InvertConfig(video=clip, frames=3, stride=2, output=latents, **model)) == latents
    assert load_file(latents)["latents"].shape == (1, 4, 3, 8, 8)
    assert yaml.safe_load(latents.with_suffix(".yaml").read_text())["height"] == 32
    output = tmp_path / "guided.mkv"
    generate(config(latents=latents, frames=None, output=output, **model))
    assert read_video(output).frames.shape == (3, 32, 32, 3)
    with pytest.raises(ValueError, match=r"frames is 2, but the latents in .* are for 3; leave frames out"):
        generate(config(latents=latents))


def test_the_adapters_size_gives_way_to_latents(adapter, tmp_path):
    import torch

    save_file({"latents": torch.zeros(1, 4, 2, 8, 8)}, tmp_path / "l.safetensors")
    settings = {"adapter": adapter, "latents": tmp_path / "l.safetensors", "output": tmp_path / "v.mkv"}
    generate(GenerateConfig(prompts=["a fox"], steps=1, **settings))
    assert read_video(tmp_path / "v.mkv").frames.shape == (2, 32, 32, 3)


def test_a_first_frame_from_a_clip(config, clip, tmp_path):
    plain, first = tmp_path / "plain", tmp_path / "first"
    generate(config(output=plain))
    generate(config(output=first, first_frame=clip))
    given = read_video(clip, [0]).frames[0, 4:36, 8:40]
    assert not np.array_equal(read_video(plain).frames[0], read_video(first).frames[0])
    assert given.shape == read_video(first).frames[0].shape


def test_a_users_file_of_settings_is_not_replaced(config, tmp_path):
    mine = tmp_path / "v.yaml"
    mine.write_text("steps: 2  # my note\n")
    for _ in range(2):
        generate(config())
    assert mine.read_text() == "steps: 2  # my note\n"
    assert yaml.safe_load((tmp_path / "v-settings.yaml").read_text())["steps"] == 2
    mine.unlink()
    generate(config(seed=1))
    generate(config(seed=2))
    assert yaml.safe_load(mine.read_text())["seed"] == 2


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"prompts": []}, ValueError, "no prompt was given"),
        ({"prompts": [" "]}, ValueError, "no prompt was given"),
        ({"output": "v.mp5"}, ValueError, "unknown suffix; expected .mp4"),
        ({"latents": "nothing.safetensors"}, ValueError, "latents: .* is not a file that `rcv invert` wrote"),
        ({"first_frame": "nothing.png"}, FileNotFoundError, "nothing.png"),
        ({"height": 30}, ValueError, "height is 30, expected a multiple of 4"),
        ({"base": "nowhere-at-all"}, ValueError, "nowhere-at-all: no such folder"),
        ({"adapter": "nowhere-at-all"}, ValueError, "adapter: nowhere-at-all does not exist"),
        ({"device": "gpu"}, ValueError, "device: 'gpu' cannot be used here"),
        (
            {"window": 1, "window_mode": "carry"},
            ValueError,
            "preset 'recurrent' carries no state .* mode 'blend'",
        ),
        ({"frames": 9, "window": 5, "window_overlap": 4}, ValueError, "overlap is 4, expected 0 to 3"),
    ],
)
def test_mistakes_cost_no_step(config, tmp_path, monkeypatch, settings, error, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        generate(config(**settings), lambda *_: pytest.fail("a step was taken"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise": "shard"}, "did you mean 'shared'"),
        ({"noise_form": "papr"}, "did you mean 'paper'"),
        ({"scheduler": "dim"}, "did you mean 'ddim'"),
        ({"precision": "fp8"}, "known: fp32, fp16, bf16"),
        ({"preset": "recurent"}, "recurrent"),
        ({"stepps": 3}, "did you mean 'steps'"),
        ({"window": 0}, "greater than or equal to 1"),
        ({"window": 9, "frames": 8}, "window is 9, more than the 8 frames of a video; leave window out"),
        ({"window_mode": "blended"}, "unknown window_mode 'blended', did you mean 'blend'"),
        ({"noise_beyond": "fersh"}, "did you mean 'fresh'"),
        ({"hold": 2}, "less than or equal to 1"),
    ],
)
def test_unknown_names(settings, message):
    with pytest.raises(ValueError, match=message):
        GenerateConfig(**settings)


def test_clips_that_cannot_be_inverted(base, clip, tmp_path):
    def attempt(**settings):
        invert(
            InvertConfig(**{"base": str(base), "output": tmp_path / "l.safetensors", "steps": 1, **settings})
        )

    with pytest.raises(ValueError, match="no video was given"):
        attempt()
    with pytest.raises(ValueError, match="frame 15 was asked for, but the video has 6 frames"):
        attempt(video=clip)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(clip.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"cut.mkv"):
        attempt(video=cut, frames=2)
    with pytest.raises(ValueError, match=r"latents are written as .safetensors"):
        attempt(video=clip, frames=2, output=tmp_path / "l.pt")
    assert not (tmp_path / "l.safetensors").exists()


def test_output_names(tmp_path):
    assert output_paths(tmp_path / "a.b.gif", ["x"]) == [tmp_path / "a.b.gif"]
    names = [path.name for path in output_paths(tmp_path / "v.gif", ["A Fox, running!", "狐", "x" * 99])]
    assert names == ["v-00-a-fox-running.gif", "v-01.gif", f"v-02-{'x' * 40}.gif"]


def test_settings_come_without_pytorch():
    program = "import sys, rcv.diffusion.config as c; c.GenerateConfig.model_fields; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
