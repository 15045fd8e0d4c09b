"""The evaluation counts what the rules see, in the captions' order, and does not depend on batching."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from rcv.world import evaluate, held_out_scenes, render_clip
from rcv.world.evaluate import evaluate_model


class Painter:
    """Stands for a pipeline: draws what `scene_of` says for a caption, and records how it was called."""

    def __init__(self, scene_of):
        self.scene_of, self.calls = scene_of, []

    def __call__(self, captions, num_inference_steps, guidance_scale, generator, output_type):
        self.calls.append((len(captions), num_inference_steps, guidance_scale))
        self.noise = [torch.rand(1, generator=g).item() for g in generator]
        images = [render_clip(self.scene_of[c], frames=1, start=0.3).frames[0] for c in captions]
        return type("Drawn", (), {"images": np.stack(images) / 255.0})


@pytest.fixture
def painted(monkeypatch):
    def with_scenes(scenes, shown):
        painter = Painter({scene.caption: other for scene, other in zip(scenes, shown, strict=True)})
        monkeypatch.setattr(evaluate, "_load", lambda path: painter)
        return painter

    return with_scenes


def test_perfect_pictures_are_right(painted, tmp_path):
    scenes = held_out_scenes(24, 5)
    painter = painted(scenes, scenes)
    report = evaluate_model(count=24, seed=5, steps=7, guidance=2.5, batch=10, output=tmp_path / "out")
    assert report.color >= 0.95 and report.shape >= 0.95
    assert painter.calls == [(10, 7, 2.5), (10, 7, 2.5), (4, 7, 2.5)]
    assert [row.caption for row in report.rows] == [scene.caption for scene in scenes]
    assert {pictures for _, _, pictures in report.by_theme().values()} == {3}
    with open(tmp_path / "out" / "verdicts.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert np.mean([int(row["color_ok"]) for row in rows]) == report.color
    assert np.mean([int(row["shape_ok"]) for row in rows]) == report.shape
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        assert sheet.size == (8 * 128, 3 * (128 + 36))


def test_pictures_of_other_captions_are_wrong(painted):
    scenes = held_out_scenes(24, 5)
    painted(scenes, scenes[1:] + scenes[:1])
    report = evaluate_model(count=24, seed=5)
    assert report.color <= 0.4 and report.shape <= 0.2


def test_noise_depends_on_the_pictures_number_and_the_seed(painted):
    scenes = held_out_scenes(3, 5)
    painter = painted(scenes, scenes)
    evaluate_model(count=3, seed=5, batch=3)
    together = painter.noise
    evaluate_model(count=3, seed=5, batch=2)
    assert painter.noise == together[2:] and len(set(together)) == 3


@pytest.mark.parametrize("name", ["count", "steps", "batch"])
def test_numbers_below_one_are_refused_by_name(name):
    with pytest.raises(ValueError, match=f"{name}=0"):
        evaluate_model(**{name: 0})
