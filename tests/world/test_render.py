"""Rendered clips: the same pixels for the same scene, subjects inside the frame, truth that agrees with the pixels."""

import numpy as np
import pytest

from rcv.world import PALETTE, SUBJECTS, THEMES, render_clip, sample_scene
from rcv.world.palette import color_distance


def test_the_same_scene_gives_the_same_pixels():
    scene = sample_scene("horse running", 5)
    first, second = render_clip(scene, frames=3), render_clip(scene, frames=3)
    assert np.array_equal(first.frames, second.frames)
    assert first.frames.shape == (3, 64, 64, 3) and first.frames.dtype == np.uint8


@pytest.mark.parametrize("theme", THEMES)
def test_something_moves_and_clips_differ(theme):
    clip, other = (render_clip(sample_scene(theme, seed), frames=6).frames.astype(int) for seed in (1, 2))
    assert np.abs(np.diff(clip, axis=0)).mean(axis=(1, 2, 3)).min() > 0.2
    assert np.abs(clip - other).mean() > 5


def test_length_rate_and_start_show_one_motion():
    scene = sample_scene("animal walking", 1)
    slow, fast = render_clip(scene, frames=4, fps=4), render_clip(scene, frames=7, fps=8)
    assert np.array_equal(slow.frames, fast.frames[::2])
    late = render_clip(scene, frames=2, fps=4, start=0.5)
    assert np.array_equal(slow.frames[2:], late.frames)


def test_sizes_show_one_motion():
    scene = sample_scene("birds flying", 2)
    small, large = render_clip(scene, frames=3, size=48), render_clip(scene, frames=3, size=96)
    assert np.allclose(small.trajectory, large.trajectory)
    halved = large.frames.reshape(3, 48, 2, 48, 2, 3).mean(axis=(2, 4))
    assert np.abs(halved - small.frames).mean() < 6


def test_odd_sizes():
    clip = render_clip(sample_scene("raining", 0), frames=2, size=(37, 101))
    assert clip.frames.shape == (2, 37, 101, 3) and clip.mask.shape == (2, 37, 101)


@pytest.mark.parametrize("theme", THEMES)
def test_every_subject_stays_inside_the_frame(theme):
    for subject in SUBJECTS[theme]:
        for seed in (0, 1):
            mask = render_clip(sample_scene(theme, seed, subject=subject), frames=8, fps=4).mask > 127
            assert mask.mean(axis=(1, 2)).min() > 0.01, subject
            edge = mask[:, 0].sum() + mask[:, :, 0].sum() + mask[:, :, -1].sum()
            assert edge <= 0.02 * mask.sum(), subject


@pytest.mark.parametrize("theme", THEMES)
def test_the_mask_is_where_the_colour_is(theme):
    for seed in range(6):
        scene = sample_scene(theme, seed)
        clip = render_clip(scene, frames=2)
        inside = clip.frames[clip.mask == 255]
        near = color_distance(inside, np.array(PALETTE[scene.color])) < 30
        assert near.mean() > 0.6, scene.caption


@pytest.mark.parametrize(
    "theme", ["animal walking", "human running", "birds flying", "helicopter flying", "raining"]
)
def test_the_trajectory_follows_the_mask(theme):
    for seed in range(4):
        clip = render_clip(sample_scene(theme, seed), frames=8, fps=4)
        weights = clip.mask.astype(float)
        columns = np.arange(64) + 0.5
        x = (weights.sum(1) * columns).sum(1) / weights.sum((1, 2)) / 64
        moved_by_mask, moved = x - x.mean(), clip.trajectory[:, 0] - clip.trajectory[:, 0].mean()
        assert np.abs(moved_by_mask - moved).max() < 0.06


def test_the_phase_advances_by_the_period():
    clip = render_clip(sample_scene("fireworks", 0), frames=5, fps=10)
    assert np.allclose(np.diff(clip.phase), 0.1 / clip.period, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "said"), [({"frames": 0}, "frames"), ({"size": 8}, "size"), ({"fps": 0}, "fps")]
)
def test_what_cannot_be_rendered_is_named(arguments, said):
    with pytest.raises(ValueError, match=said):
        render_clip(sample_scene("fireworks", 0), **arguments)
