"""The drift metric on videos whose drift is known."""

import json

import numpy as np
import pytest

from benchmarks import long_video
from benchmarks.drift import drift
from rcv.training import save_adapter


def scene(frames=6, size=32):
    """A textured background with a square that moves through the middle, uint8 [F,H,W,3]."""
    background = np.random.default_rng(0).integers(60, 180, (size, size, 3), dtype=np.uint8)
    video = np.repeat(background[None], frames, 0)
    for i in range(frames):
        video[i, 12:20, 8 + i : 16 + i] = 255
    return video


def test_a_subject_that_moves_is_no_drift():
    found = drift(scene())
    assert not found.colour.any() and np.abs(found.structure).max() < 1e-6


def test_colour_and_structure_drift_are_told_apart():
    brighter = scene()
    brighter[3:] = np.minimum(brighter[3:], 215) + 20
    found = drift(brighter)
    assert not found.colour[:3].any()
    assert found.colour[3:] == pytest.approx(20, abs=0.5)
    assert np.abs(found.structure).max() < 0.01

    other = scene()
    other[3:] = np.random.default_rng(1).integers(60, 180, other[3:].shape, dtype=np.uint8)
    found = drift(other)
    assert found.structure[3:] == pytest.approx(np.ones(3), abs=0.15)
    assert found.over(1, 3) == (0, pytest.approx(0, abs=1e-6))
    assert found.over(4, 6)[0] > 20


def test_flat_frames():
    video = np.full((2, 16, 16, 3), 100, np.uint8)
    assert drift(video).structure.tolist() == [0, 0]
    video[1, 0] = 200
    assert drift(video).structure.tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"frames is float64 \[2, 16, 16, 3\], expected uint8"):
        drift(video / 255.0)


def test_the_report_of_long_videos(tmp_path):
    from rcv.diffusion import VideoPipeline
    from rcv.world import model_path

    unet = VideoPipeline.from_base(model_path(), preset="streaming").unet
    save_adapter(unet, tmp_path, noise={"strategy": "shared", "alpha": 0.3, "form": "paper"})
    arguments = ["--adapter", str(tmp_path), "--output", str(tmp_path / "out"), "--frames", "2", "3"]
    long_video.main([*arguments, "--window", "2", "--steps", "1", "--hold", "0.5"])
    short, long = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (short["frames"], long["frames"]) == (2, 3)
    assert long["peak_live_mib"] >= short["peak_live_mib"] > 20
    assert (tmp_path / "out" / "streaming-carry-hold0.5-3.mp4").is_file()
