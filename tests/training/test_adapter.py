"""Adapter files: trained weights alone, what they say of themselves, what is refused."""

import errno
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from rcv.models import VideoUNet
from rcv.training import OutputError, adapter, read_adapter, save_adapter
from tests.tiny import tiny_unet


@pytest.fixture(scope="module")
def unet():
    return VideoUNet.from_config(tiny_unet().config, preset="recurrent")


def test_the_file_holds_the_trained_weights_and_nothing_else(unet, tmp_path):
    file = save_adapter(unet, tmp_path / "run", base="a base", prompts=["a fox"], steps=3)
    assert file == tmp_path / "run" / "adapter.safetensors"
    weights, description = read_adapter(tmp_path / "run")
    assert sorted(weights) == sorted(unet.trained_names())
    assert all(torch.equal(weights[name], tensor) for name, tensor in unet.adapter_state_dict().items())
    assert (description["preset"], description["base"], description["prompts"]) == (
        "recurrent",
        "a base",
        ["a fox"],
    )
    with safe_open(file, framework="pt") as opened:
        assert opened.metadata()["preset"] == "recurrent"
        assert json.loads(opened.metadata()["description"]) == description
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["adapter.safetensors"]


def test_half_precision_is_stored_when_asked_for(unet, tmp_path):
    weights, _ = read_adapter(save_adapter(unet, tmp_path / "a.safetensors", dtype=torch.float16))
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}


def test_a_failing_disk_leaves_the_former_file(unet, tmp_path, monkeypatch):
    file = save_adapter(unet, tmp_path, steps=1)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(adapter, "save_file", full)
    with pytest.raises(
        OutputError, match=r"could not be written.*No space left.*start the same command again"
    ):
        save_adapter(unet, tmp_path, steps=2)
    assert read_adapter(file)[1]["steps"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["adapter.safetensors"]


def test_what_is_no_adapter_is_refused(unet, tmp_path):
    with pytest.raises(
        FileNotFoundError, match="does not exist; expected a file or folder that `rcv finetune`"
    ):
        read_adapter(tmp_path / "nowhere")
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="not an adapter that rcv wrote"):
        read_adapter(tmp_path / "other.safetensors")
    file = save_adapter(unet, tmp_path / "cut.safetensors")
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ValueError, match="damaged or not a safetensors file"):
        read_adapter(file)


def test_a_newer_format_is_refused(unet, tmp_path, monkeypatch):
    monkeypatch.setattr(adapter, "FORMAT_VERSION", 2)
    file = save_adapter(unet, tmp_path)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="has format 2, this rcv reads up to 1"):
        read_adapter(file)


def test_an_adapter_is_as_readable_as_other_files(unet, tmp_path):
    (tmp_path / "other").write_text("")
    save_adapter(unet, tmp_path)
    assert (tmp_path / "adapter.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode
