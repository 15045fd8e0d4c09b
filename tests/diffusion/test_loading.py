"""from_base: what it reads, and what it says of models that are of another kind, incomplete or pickled."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from rcv.diffusion import VideoPipeline
from rcv.training import save_adapter

WEIGHTS = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}


@pytest.fixture
def copied(base, tmp_path):
    """A copy of the base that a test may damage."""
    return shutil.copytree(base, tmp_path / "sd")


@pytest.fixture
def adapter(loaded, tmp_path):
    """An adapter of the preset tune-a-video with one weight changed, and that weight's name."""
    pipe = VideoPipeline(**loaded.components)
    name = next(name for name in pipe.unet.trained_names() if name.endswith("attn1.to_q.weight"))
    weight = pipe.unet.get_parameter(name)
    before = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(0.125)
    file = save_adapter(pipe.unet, tmp_path / "run", base="embedded", frames=3)
    with torch.no_grad():
        weight.copy_(before)
    return file, name


def edit_index(folder, **entries):
    file = folder / "model_index.json"
    index = json.loads(file.read_text())
    file.write_text(json.dumps({**index, **entries}))


def test_precision_and_default_preset(base):
    pipe = VideoPipeline.from_base(base, dtype=torch.float16)
    assert pipe.unet.preset.name == "recurrent"
    assert pipe.unet.dtype == pipe.vae.dtype == pipe.text_encoder.dtype == torch.float16
    assert VideoPipeline.from_base(base).vae.dtype == torch.float32


@pytest.mark.parametrize("by", ["file", "folder"])
def test_an_adapter_brings_its_weights_and_preset(base, adapter, by):
    file, name = adapter
    pipe = VideoPipeline.from_base(base, adapter=file if by == "file" else file.parent)
    assert pipe.unet.preset.name == "tune-a-video"
    assert (pipe.unet.get_parameter(name) == 0.125).all()


def test_an_adapter_of_another_preset_or_base(base, adapter, tmp_path):
    file, _ = adapter
    with pytest.raises(
        ValueError, match=r"preset is 'paper', but the adapter .* was trained with 'tune-a-video'"
    ):
        VideoPipeline.from_base(base, preset="paper", adapter=file)
    weights = load_file(file)
    weights.pop(sorted(weights)[0])
    save_file(weights, tmp_path / "part.safetensors", metadata={"preset": "tune-a-video"})
    with pytest.raises(ValueError, match=r"does not fit preset 'tune-a-video' .*1 missing"):
        VideoPipeline.from_base(base, adapter=tmp_path / "part.safetensors")


@pytest.mark.parametrize("kind", ["missing", "pickle", "cut"])
def test_what_is_no_adapter(base, adapter, tmp_path, kind):
    path = tmp_path / {"missing": "nothing", "pickle": "adapter.bin", "cut": "cut.safetensors"}[kind]
    if kind == "pickle":
        torch.save({}, path)
    if kind == "cut":
        path.write_bytes(adapter[0].read_bytes()[:1000])
    said = {
        "missing": "does not exist",
        "pickle": "not a .safetensors file",
        "cut": "not a readable safetensors",
    }
    with pytest.raises(ValueError, match=f"adapter: .*{path.name}.* {said[kind]}"):
        VideoPipeline.from_base(base, adapter=path)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            {"unet": ["diffusers", "UNet3DConditionModel"]},
            "unet is a UNet3DConditionModel, expected UNet2DCond",
        ),
        (
            {"_class_name": "FluxPipeline", "unet": None},
            "is a FluxPipeline without unet, expected a Stable Diff",
        ),
        ({"text_encoder": ["transformers", "T5EncoderModel"]}, "text_encoder is a T5EncoderModel"),
        ({"text_encoder_2": ["transformers", "CLIPTextModelWithProjection"]}, "two text encoders"),
        ({"scheduler": ["diffusers", "NoSuchScheduler"]}, "diffusers has no scheduler 'NoSuchScheduler'"),
    ],
)
def test_models_of_another_kind(copied, entries, message):
    edit_index(copied, **entries)
    with pytest.raises(ValueError, match=message):
        VideoPipeline.from_base(copied)


def test_paths_that_hold_no_model(base, tmp_path):
    with pytest.raises(ValueError, match="nowhere: no such folder; expected a Stable Diffusion"):
        VideoPipeline.from_base(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"holds no model_index\.json, expected"):
        VideoPipeline.from_base(tmp_path)
    with pytest.raises(ValueError, match="holds a single component"):
        VideoPipeline.from_base(base / "unet")
    with pytest.raises(ValueError, match="is a file, expected"):
        VideoPipeline.from_base(base / "unet" / WEIGHTS["unet"])
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        VideoPipeline.from_base(tmp_path)


@pytest.mark.parametrize("part", ["vae", "text_encoder", "unet", "tokenizer", "scheduler"])
def test_a_missing_folder(copied, part):
    shutil.rmtree(copied / part)
    with pytest.raises(ValueError, match=f"the folder {part} is missing"):
        VideoPipeline.from_base(copied)


@pytest.mark.parametrize("part", WEIGHTS)
@pytest.mark.parametrize("damage", ["gone", "cut", "lacks one"])
def test_missing_and_damaged_weights(copied, part, damage):
    """Never filled in at random, as the libraries do with a warning."""
    file = copied / part / WEIGHTS[part]
    if damage == "gone":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        weights = load_file(file)
        weights.pop(sorted(weights)[5])
        save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=part):
        VideoPipeline.from_base(copied)


@pytest.mark.parametrize("file", ["tokenizer/tokenizer.json", "scheduler/scheduler_config.json"])
def test_missing_small_files(copied, file):
    (copied / file).unlink()
    with pytest.raises(ValueError, match=file.split("/")[0]):
        VideoPipeline.from_base(copied)


@pytest.mark.parametrize("part", ["vae", "unet"])
def test_pickles_are_read_only_when_asked_for(copied, loaded, part):
    file = copied / part / WEIGHTS[part]
    torch.save(load_file(file), file.with_suffix(".bin"))
    file.unlink()
    with pytest.raises(ValueError, match=rf"{part}.*\.bin is a pickle"):
        VideoPipeline.from_base(copied)
    pipe = VideoPipeline.from_base(copied, preset="tune-a-video", allow_pickle=True)
    expected, given = (next(getattr(p, part).parameters()) for p in (loaded, pipe))
    assert torch.equal(expected, given)
