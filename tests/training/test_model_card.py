"""The model card of a run: what it says, hostile captions, licences, cards of others."""

import json

import pytest
import yaml
from huggingface_hub import ModelCard
from PIL import Image

from rcv.models import VideoUNet
from rcv.training import FinetuneConfig, save_adapter
from rcv.training.model_card import write_model_card
from rcv.training.samples import PROMPTS
from tests.tiny import tiny_unet

CLIPS = {
    "a|b.mp4": {"caption": "a | b\n---\n<script>alert(1)</script>", "digest": "0123"},
    "c.mp4": {"caption": "it's ``` here", "digest": "4567"},
}


@pytest.fixture(scope="module")
def unet():
    return VideoUNet.from_config(tiny_unet().config, preset="recurrent")


@pytest.fixture
def run(unet, tmp_path):
    """Function of settings and of what the adapter says: a folder as a run leaves it, without training."""

    def run(trained_on="embedded", **settings):
        captions = [clip["caption"] for clip in CLIPS.values()]
        said = {
            "base": trained_on,
            "base_digest": "feed",
            "clips": CLIPS,
            "prompts": captions,
            "frames": 3,
            "seed": 7,
        }
        save_adapter(unet, tmp_path, steps=9, **said)
        given = {"steps": 9, "frames": 3, "size": (32, 32), "seed": 7, **settings}
        FinetuneConfig(**given).write_yaml(tmp_path / "config.yaml")
        (tmp_path / "eval_losses.csv").write_text("step,eval_loss\n0,0.5\n9,0.25\n")
        return tmp_path

    return run


def test_a_card_says_what_the_adapter_is(run):
    card = ModelCard.load(write_model_card(run()))
    data = card.data
    assert (data.library_name, data.license, data.pipeline_tag) == (
        "rcv-video",
        "apache-2.0",
        "text-to-video",
    )
    assert data.base_model is None
    assert "recurrent" in data.tags
    for said in (
        *("| base | embedded, digest `feed` |", "| steps | 9 |", "| seed | 7 |", "| size | 32x32 |"),
        *("| loss of fixed draws | 0.5000 before, 0.2500 after |", "| torch | 2.", "`0123`", "`4567`"),
        *("rcv generate", "VideoPipeline.from_base(rcv.world.model_path(), adapter=", "num_frames=3"),
    ):
        assert said in card.text, said


def test_captions_cannot_break_the_card(run):
    card = ModelCard.load(write_model_card(run()))
    assert "<script>" not in card.text
    assert "| a\\|b.mp4 | a \\| b --- &lt;script>alert(1)&lt;/script> | `0123` |" in card.text
    assert card.text.count("```") == 4
    assert card.text.count("\n---\n") == 0


def test_a_prompt_is_one_argument_of_a_shell(run, tmp_path):
    import shlex

    folder = run()
    sample = folder / "samples" / "step-000009"
    sample.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(sample / "video.gif")
    prompt = 'it\'s $HOME; "quoted"'
    (sample / PROMPTS).write_text('video.gif,"' + prompt.replace('"', '""') + '"\n')
    card = ModelCard.load(write_model_card(folder))
    assert card.data.widget == [{"text": prompt, "output": {"url": "samples/step-000009/video.gif"}}]
    assert "](samples/step-000009/video.gif)" in card.text
    (command,) = (line for line in card.text.splitlines() if line.startswith("rcv generate"))
    assert shlex.split(command)[2] == prompt


def test_samples_are_those_of_the_adapter_s_weights(run):
    folder = run()
    for step in (5, 12):  # with patience the run went on behind its best step, 9
        sample = folder / "samples" / f"step-{step:06d}"
        sample.mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(sample / "video.gif")
        (sample / PROMPTS).write_text("video.gif,a fox\n")
    text = ModelCard.load(write_model_card(folder)).text
    assert "## Samples after step 5\n" in text and "step-000005/video.gif" in text
    assert "step-000012" not in text


def test_a_base_of_the_hub_is_named_and_a_path_is_not(run, tmp_path):
    card = ModelCard.load(
        write_model_card(run("CompVis/stable-diffusion-v1-4", base="CompVis/x", clips=tmp_path))
    )
    assert card.data.base_model == "CompVis/stable-diffusion-v1-4"
    assert "--base CompVis/stable-diffusion-v1-4" in card.text
    secret = tmp_path / "home-of-ann" / "sd"
    secret.mkdir(parents=True)
    card = ModelCard.load(write_model_card(run(str(secret), base=str(secret), clips=tmp_path)))
    assert card.data.base_model is None
    assert "home-of-ann" not in card.text and "--base PATH/TO/sd" in card.text


def test_licences_come_from_base_and_clips_and_the_user(run, tmp_path):
    base, clips = tmp_path / "base", tmp_path / "clips"
    for folder in (base, clips):
        folder.mkdir()
    settings = {"base": str(base), "clips": clips}
    card = ModelCard.load(write_model_card(run(str(base), **settings)))
    assert card.data.license == "unknown" and "`rcv push --license NAME` writes it down" in card.text
    (base / "README.md").write_text("---\nlicense: creativeml-openrail-m\n---\n")
    (clips / "LICENSE.txt").write_text("CC0")
    card = ModelCard.load(write_model_card(run(str(base), **settings), "cc-by-4.0"))
    assert "| the base | creativeml-openrail-m |" in card.text
    assert "| the clips | see LICENSE.txt beside the clips |" in card.text
    assert card.data.license == "cc-by-4.0" and "Nobody has said" not in card.text
    assert ModelCard.load(write_model_card(run(str(base), **settings))).data.license == "cc-by-4.0"


@pytest.mark.parametrize(
    "text", ["# My notes\n", "---\nlibrary_name: other\n---\n", "---\n: [\n---\n", "\xff"]
)
def test_another_readme_is_left_alone(run, text):
    folder = run()
    (folder / "README.md").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"README\.md is not .*; it was left as it is"):
        write_model_card(folder)
    assert (folder / "README.md").read_bytes() == text.encode("latin-1")


def test_the_metadata_is_yaml_whatever_the_prompts(run):
    text = write_model_card(run()).read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("\n---\n")[0].removeprefix("---\n"))
    assert json.dumps(front)
