"""The rules on pixels: right on what is there, wrong on what is not. Measured figures: docs/motion-world.md."""

import time

import cv2
import numpy as np
import pytest
from PIL import ImageDraw

from rcv.world import COLORS, PALETTE, SUBJECTS, THEMES, held_out_scenes, render_clip
from rcv.world.backgrounds import paint
from rcv.world.rules import judge, judge_video
from rcv.world.scene import SHAPE_OF, TABLE, caption_of

SCENES = held_out_scenes(64, seed=7)


def empty_place(scene):
    """The scene's place without the subject, three times as large."""
    cliff = scene.theme == "waterfalls"
    return paint(scene.background, TABLE[scene.theme].light, (192, 192), scene.seed, cliff=cliff)


def shapes(theme):
    return {SHAPE_OF.get(subject, subject) for subject in SUBJECTS[theme]}


def pictures():
    """(scene, picture) of every scene at three times."""
    return [
        (scene, render_clip(scene, 1, start=start).frames[0]) for scene in SCENES for start in (0.2, 1.3, 2.1)
    ]


def soft_and_noisy(image, rng):
    soft = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1.0)
    return np.clip(soft + rng.normal(0, 8, image.shape), 0, 255).astype(np.uint8)


def rates(pairs):
    verdicts = [judge(image, scene.caption) for scene, image in pairs]
    return tuple(
        np.mean([getattr(verdict, name) for verdict in verdicts]) for name in ("color_ok", "shape_ok")
    )


def test_true_pictures_pass():
    color, shape = rates(pictures())
    assert color >= 0.99 and shape >= 0.97


def test_soft_and_noisy_pictures_pass():
    rng = np.random.default_rng(0)
    color, shape = rates([(scene, soft_and_noisy(image, rng)) for scene, image in pictures()])
    assert color >= 0.95 and shape >= 0.95


@pytest.mark.parametrize("soft", [False, True])
def test_another_colour_is_rejected(soft):
    rng = np.random.default_rng(2)
    for number, scene in enumerate(SCENES):
        other = [color for color in COLORS if color != scene.color][number % (len(COLORS) - 1)]
        image = render_clip(scene, frames=1).frames[0]
        verdict = judge(
            soft_and_noisy(image, rng) if soft else image,
            caption_of(scene.theme, scene.subject, other, scene.background),
        )
        assert not verdict.color_ok and verdict.color == scene.color


@pytest.mark.parametrize("soft", [False, True])
def test_another_shape_of_the_theme_is_rejected(soft):
    rng = np.random.default_rng(3)
    accepted = []
    for scene in SCENES:
        image = render_clip(scene, frames=1).frames[0]
        image = soft_and_noisy(image, rng) if soft else image
        for other in shapes(scene.theme) - {scene.shape}:
            told = caption_of(scene.theme, other, scene.color, scene.background)
            accepted.append(judge(image, told).shape_ok)
    assert np.mean(accepted) <= 0.05


@pytest.mark.parametrize("kind", ["ellipse", "rectangle"])
def test_a_plain_blob_passes_no_more_often_than_chance(kind):
    accepted = []
    for scene in SCENES:
        rows, columns = np.nonzero(render_clip(scene, 1, size=192).mask[0] > 127)
        image = empty_place(scene)
        box = (columns.min(), rows.min(), columns.max(), rows.max())
        getattr(ImageDraw.Draw(image), kind)(box, fill=PALETTE[scene.color])
        verdict = judge(np.asarray(image.reduce(3)), scene.caption)
        assert verdict.color_ok, scene.caption
        accepted.append(verdict.shape_ok)
    assert np.mean(accepted) <= np.mean([1 / len(shapes(theme)) for theme in THEMES])


@pytest.mark.parametrize("kind", ["empty place", "noise", "gray"])
def test_a_picture_without_the_subject_fails(kind):
    rng = np.random.default_rng(1)
    for scene in SCENES[:16]:
        image = {
            "empty place": np.asarray(empty_place(scene).reduce(3)),
            "noise": rng.integers(0, 256, (64, 64, 3)).astype(np.uint8),
            "gray": np.full((64, 64, 3), 127, np.uint8),
        }[kind]
        assert not judge(image, scene.caption).shape_ok, scene.caption


def test_sizes_other_than_64_are_judged():
    scene = SCENES[0]
    verdict = judge(render_clip(scene, frames=1, size=128).frames[0], scene.caption)
    assert verdict.color_ok and verdict.shape_ok


def test_a_video_s_centers_follow_the_subject():
    scene = next(scene for scene in SCENES if scene.theme == "human running")
    clip = render_clip(scene, frames=8, fps=4)
    x = np.array([verdict.center[0] for verdict in judge_video(clip.frames, scene.caption)])
    assert np.abs((x - x.mean()) - (clip.trajectory[:, 0] - clip.trajectory[:, 0].mean())).max() < 0.06


def test_judging_is_quick():
    scene = SCENES[5]
    image = render_clip(scene, frames=1).frames[0]
    judge(image, scene.caption)
    started = time.process_time()
    for _ in range(5):
        judge(image, scene.caption)
    assert time.process_time() - started < 5 * 0.2


def test_captions_of_another_world_are_refused():
    with pytest.raises(ValueError, match="describes no scene"):
        judge(np.zeros((64, 64, 3), np.uint8), "an astronaut riding a horse")


def test_pixels_of_another_form_are_refused():
    with pytest.raises(ValueError, match="float64"):
        judge(np.zeros((64, 64, 3)), SCENES[0].caption)
