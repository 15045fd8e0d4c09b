"""The motion world's CLIP in the package: size, precision, and how well it tells unseen frames apart."""

import pytest
import torch
from safetensors import safe_open

from rcv.evaluation.clip import load_clip
from rcv.world import model
from rcv.world.model import clip_path
from rcv.world.retrieval import measure_retrieval


def test_the_package_holds_a_clip_of_at_most_10_megabytes():
    files = [file for file in clip_path().iterdir() if file.is_file()]
    assert {file.suffix for file in files} <= {".json", ".txt", ".safetensors"}
    assert sum(file.stat().st_size for file in files) <= 10_000_000
    with safe_open(clip_path() / "model.safetensors", "pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 (safe_open is no dict)
            assert tensors.get_tensor(name).dtype in (torch.float16, torch.int64), name
            assert tensors.get_tensor(name).isfinite().all(), name


def test_a_missing_clip_is_said_with_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(model, "FOLDER", tmp_path)
    with pytest.raises(FileNotFoundError, match="rcv world pretrain-clip"):
        load_clip()


@pytest.mark.slow
def test_it_tells_unseen_frames_apart():
    found = measure_retrieval(load_clip(), groups=1)
    assert found.frames == 64
    assert found.color >= 0.9 and found.place >= 0.9
