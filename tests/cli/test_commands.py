"""The `rcv` command as a user meets it: whole runs on tiny models, and what it says about mistakes."""

import json

import pytest
import yaml

from tests.tiny import make_tiny_sd
from tests.training.clip_files import write_clip


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_tiny_sd(tmp_path_factory.mktemp("base") / "sd")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for seed in range(3):
        write_clip(folder, f"{seed}.mp4", frames=6, seed=seed)
    return folder


@pytest.fixture
def quick(base, clips):
    return ["--base", base, "--clips", clips, "--frames", 3, "--size", "32", "--steps", 2]


def test_help_lists_every_command(rcv):
    status, out, _ = rcv("--help")
    assert status == 0
    for name in (
        *("finetune", "generate", "invert", "convert", "export", "push", "clips", "plan"),
        *("app", "study", "evaluate", "world", "bench", "doctor"),
    ):
        assert name in out


@pytest.mark.parametrize("name", ["finetune", "generate", "invert", "convert", "export", "push"])
def test_help_of_a_command_shows_an_example(rcv, name):
    status, out, _ = rcv(name, "--help")
    assert status == 0
    assert f"rcv {name} " in out


def test_finetune_then_generate(rcv, quick, base, tmp_path):
    run = tmp_path / "run"
    status, out, err = rcv("finetune", *quick, "--output", run)
    assert status == 0, err
    assert (run / "adapter.safetensors").is_file()
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert (saved["steps"], saved["frames"], saved["preset"]) == (2, 3, "recurrent")

    video = tmp_path / "video.gif"
    arguments = ["--adapter", run, "--base", base, "--frames", 3, "--steps", 2, "--output", video]
    status, out, err = rcv("generate", "a red fox", *arguments)
    assert status == 0, err
    assert str(video) in out
    from rcv.video import read_video

    assert read_video(video).frames.shape[0] == 3
    assert yaml.safe_load(video.with_suffix(".yaml").read_text())["prompts"] == ["a red fox"]


def test_finetune_then_export_and_push(rcv, quick, base, tmp_path, monkeypatch):
    run = tmp_path / "run"
    assert rcv("finetune", *quick, "--output", run)[0] == 0
    status, out, err = rcv("export", run, "--lora", "--rank", 1)
    assert status == 0, err
    assert (run / "lora" / "pytorch_lora_weights.safetensors").is_file()
    assert "8 layers of rank 1 at most hold" in out and "(attn1.memory, attn_temp)" in out
    status, out, err = rcv("export", run, tmp_path / "whole")
    assert status == 0, err
    video = tmp_path / "video.gif"
    status, _, err = rcv(
        "generate", "a fox", "--base", out.split()[-1], "--frames", 2, "--steps", 1, "--output", video
    )
    assert status == 0, err

    status, _, err = rcv("export", run, "--rank", 1)
    assert status == 1 and "give --lora with it" in err
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    status, _, err = rcv("push", run, "walking")
    assert status == 1 and "HF_HUB_OFFLINE is set" in err and "Traceback" not in err


def test_adapters_are_mixed_by_weight(rcv, quick, tmp_path, caplog):
    for seed in (0, 1):
        assert rcv("finetune", *quick, "--steps", 1, "--seed", seed, "--output", tmp_path / str(seed))[0] == 0
    adapters = ["--adapter", f"{tmp_path / '0'}:0.7", "--adapter", tmp_path / "1"]
    status, _, err = rcv("generate", "a fox", *adapters, "--steps", 1, "--output", tmp_path / "v.gif")
    assert status == 0, err
    assert "trained with different seeds" in caplog.text
    status, _, err = rcv(
        "generate", "a fox", "--adapter", f"{tmp_path / '0'}:-1", "--output", tmp_path / "v.gif"
    )
    assert status == 1 and "add up to -1, expected more than 0" in err


def test_the_saved_configuration_repeats_the_run(rcv, quick, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert rcv("finetune", *quick, "--output", first)[0] == 0
    status, _, err = rcv("finetune", "--config", first / "config.yaml", "--output", second)
    assert status == 0, err
    assert _losses(first) == _losses(second)


def test_invert_then_generate(rcv, base, clips, tmp_path):
    latents = tmp_path / "latents.safetensors"
    model = ["--base", base, "--preset", "tune-a-video", "--steps", 2]
    status, _, err = rcv("invert", clips / "0.mp4", *model, "--frames", 4, "--output", latents)
    assert status == 0, err
    video = tmp_path / "video.mp4"
    status, _, err = rcv("generate", "a cat", *model, "--latents", latents, "--output", video)
    assert status == 0, err
    from rcv.video import read_video

    assert read_video(video).frames.shape[0] == 4


def test_several_prompts_give_several_files(rcv, base, tmp_path):
    arguments = ["--base", base, "--frames", 2, "--steps", 1, "--output", tmp_path / "v.gif"]
    status, _, err = rcv("generate", "a fox", "a bear", *arguments)
    assert status == 0, err
    assert sorted(path.name for path in tmp_path.glob("*.gif")) == ["v-00-a-fox.gif", "v-01-a-bear.gif"]
    assert (tmp_path / "v-01-a-bear.txt").read_text() == "a bear\n"  # what `rcv evaluate` scores it by


def test_doctor_prints_tables_and_json(rcv):
    status, out, _ = rcv("doctor")
    assert status == 0
    assert "frame_attention" in out
    status, out, _ = rcv("doctor", "--json")
    assert status == 0
    assert "frame_attention" in json.dumps(json.loads(out))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["finetune", "--stepss", "3"], "--steps"),
        (["finetune", "--preset", "recurent"], "recurrent"),
        (["finetune", "--theme", "animal walkin"], "animal walking"),
        (["generate", "a fox", "--noise", "shard"], "shared"),
        (["generate", "a fox", "--scheduler", "dim"], "ddim"),
        (["generate"], "prompt"),
        (["invert"], "video"),
        (["fintune"], "finetune"),
    ],
)
def test_a_mistake_names_what_was_meant(rcv, arguments, said):
    status, _, err = rcv(*arguments)
    assert status != 0
    assert said in err
    assert "Traceback" not in err


def test_an_unknown_key_of_a_file_suggests_the_nearest(rcv, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("stps: 3\n")
    status, _, err = rcv("finetune", "--config", file)
    assert status != 0
    assert "stps" in err and "'steps'" in err


def test_a_missing_base_is_named(rcv, clips, tmp_path):
    missing = tmp_path / "nowhere"
    status, _, err = rcv("finetune", "--base", missing, "--clips", clips, "--output", tmp_path / "run")
    assert status == 1
    assert str(missing) in err
    assert not (tmp_path / "run").exists()


def test_brackets_in_an_error_are_printed_as_they_are(rcv, base, clips, tmp_path):
    """Rich reads [word] as markup unless told otherwise: a folder's name must survive."""
    folder = tmp_path / "my[bold]clips"
    status, _, err = rcv("finetune", "--base", base, "--clips", folder, "--output", tmp_path / "run")
    assert status == 1
    assert "my[bold]clips" in err


def test_an_adapter_of_another_kind_is_refused(rcv, base, tmp_path):
    weights = base / "unet" / "diffusion_pytorch_model.safetensors"
    status, _, err = rcv("generate", "a fox", "--base", base, "--adapter", weights)
    assert status == 1
    assert "adapter" in err


def _losses(run):
    rows = (run / "losses.csv").read_text().splitlines()
    column = rows[0].split(",").index("loss")
    return [row.split(",")[column] for row in rows[1:]]
