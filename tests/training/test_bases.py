"""Base models that are missing, incomplete or of another kind: refused by name, with nothing written."""

import json
import shutil

import pytest

from rcv.training import FinetuneConfig, finetune


@pytest.fixture
def copy(base, tmp_path):
    return shutil.copytree(base, tmp_path / "base")


def refusal(base, quick, tmp_path):
    config = FinetuneConfig(**{**quick, "base": str(base)}, output=tmp_path / "run")
    with pytest.raises((ValueError, OSError)) as error:
        finetune(config, show_progress=False)
    assert not (tmp_path / "run").exists()
    return str(error.value)


def test_no_such_folder(quick, tmp_path):
    assert f"{tmp_path / 'nowhere'}: no such folder" in refusal(tmp_path / "nowhere", quick, tmp_path)


def test_an_empty_folder(quick, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "model_index.json" in refusal(tmp_path / "empty", quick, tmp_path)


@pytest.mark.parametrize("name", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_part(copy, quick, tmp_path, name):
    shutil.rmtree(copy / name)
    assert name in refusal(copy, quick, tmp_path)


@pytest.mark.parametrize(
    "name", ["unet/diffusion_pytorch_model.safetensors", "vae/config.json", "text_encoder/model.safetensors"]
)
def test_a_missing_file(copy, quick, tmp_path, name):
    (copy / name).unlink()
    assert name.split("/")[0] in refusal(copy, quick, tmp_path)


@pytest.mark.parametrize(
    "name", ["unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"]
)
def test_a_damaged_file(copy, quick, tmp_path, name):
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: len(content) // 2])
    assert name.split("/")[0] in refusal(copy, quick, tmp_path)


def test_a_part_instead_of_a_whole(copy, quick, tmp_path):
    assert "single component" in refusal(copy / "unet", quick, tmp_path)


def test_another_kind_of_pipeline(copy, quick, tmp_path):
    index = json.loads((copy / "model_index.json").read_text())
    index |= {
        "_class_name": "StableDiffusion3Pipeline",
        "unet": [None, None],
        "transformer": ["diffusers", "SD3"],
    }
    (copy / "model_index.json").write_text(json.dumps(index))
    said = refusal(copy, quick, tmp_path)
    assert "StableDiffusion3Pipeline" in said and "expected a Stable Diffusion 1.x or 2.x" in said
