"""Motion truth on rendered clips, whose truth is known, and on what is wrong with them."""

import numpy as np
import pytest

from rcv.evaluation.course import course_of
from rcv.evaluation.motion import motion_truth
from rcv.evaluation.place import place_of
from rcv.world import BACKGROUNDS, THEMES, render_clip, sample_scene


def wrongs(frames):
    order = np.random.default_rng(5).permutation(len(frames))
    return {
        "reversed": frames[::-1],
        "shuffled": frames[order],
        "still": np.repeat(frames[5:6], len(frames), 0),
    }


@pytest.fixture(scope="module")
def fox():
    return render_clip(sample_scene("animal walking", 2001, subject="fox"), 16)


@pytest.fixture(scope="module")
def fox_truth(fox):
    return motion_truth(fox.frames, fox.caption)


def test_a_rendered_clip_is_true(fox, fox_truth):
    assert fox_truth.score > 0.8
    assert (fox_truth.subject, fox_truth.place, fox_truth.course) == (1, 1, 1)
    assert fox_truth.speed == pytest.approx(fox.speed, abs=0.015)
    assert len(fox_truth.subject_by_frame) == 16


def test_a_walk_backwards_shuffled_or_at_a_standstill_is_not(fox):
    truths = {name: motion_truth(frames, fox.caption) for name, frames in wrongs(fox.frames).items()}
    assert all(truth.score < 0.2 for truth in truths.values()), truths
    assert truths["reversed"].speed == pytest.approx(-fox.speed, abs=0.015)
    assert truths["still"].speed == 0
    assert all(truth.subject == 1 and truth.place == 1 for truth in truths.values())


def test_content_is_measured_apart_from_movement(fox, fox_truth):
    other = fox.caption.replace("fox", "giraffe")
    truth = motion_truth(fox.frames, other)
    assert truth.subject <= 0.5 and truth.place == 1 and truth.score < 0.7 * fox_truth.score
    place = next(b for b in ("snow", "desert") if b not in fox.caption)
    caption = fox.caption.replace(sample_scene("animal walking", 2001, subject="fox").background, place)
    moved = motion_truth(fox.frames, caption) if caption != fox.caption else None
    assert moved is None or moved.place == 0


def test_water_falls_down():
    clip = render_clip(sample_scene("waterfalls", 2002, subject="tall waterfall"), 16)
    truth = motion_truth(clip.frames, clip.caption)
    worse = {name: motion_truth(f, clip.caption) for name, f in wrongs(clip.frames).items()}
    assert truth.score > 0.7
    assert np.isnan(truth.speed)
    assert worse["reversed"].score == worse["still"].score == 0
    assert worse["shuffled"].score < 0.5 * truth.score


@pytest.mark.slow
@pytest.mark.parametrize("theme", THEMES)
def test_every_theme_tells_true_clips_from_wrong_ones(theme):
    scores = {}
    for seed in range(3000, 3004):
        clip = render_clip(sample_scene(theme, seed), 16)
        other = render_clip(sample_scene(THEMES[(THEMES.index(theme) + 3) % 8], seed), 16).frames
        for name, frames in {"true": clip.frames, **wrongs(clip.frames), "other theme": other}.items():
            scores.setdefault(name, []).append(motion_truth(frames, clip.caption).score)
    means = {name: np.mean(values) for name, values in scores.items()}
    assert means["true"] > 0.75, means
    # a rotor turns the same both ways, and seen from the side a burst sinks little: their course and sawtooth tell
    assert all(mean < 0.4 * means["true"] for name, mean in means.items() if name != "true"), means


def test_places_are_told_apart_by_their_edges():
    for number, place in enumerate(BACKGROUNDS):
        scene = sample_scene("horse running", 100 + number, background=place)
        assert place_of(render_clip(scene, 1, size=(64, 96)).frames[0], "horse running") == place


def test_a_course_needs_half_of_the_frames_and_finds_the_speed():
    x = 0.4 + 0.06 * np.arange(12) / 8
    centers = np.stack([x, np.full(12, 0.5)], axis=1)
    assert course_of(centers, "horse running", 8).speed == pytest.approx(0.06, abs=0.002)
    centers[:4] = np.nan
    seen = course_of(centers, "horse running", 8)
    assert seen.seen == pytest.approx(8 / 12) and seen.speed == pytest.approx(0.06, abs=0.002)
    centers[:7] = np.nan
    assert course_of(centers, "horse running", 8) is None


@pytest.mark.parametrize(
    ("frames", "caption", "fps", "said"),
    [
        (np.zeros((4, 8, 8, 3)), "a red fox walking in the desert", 8, "float64"),
        (np.zeros((1, 8, 8, 3), np.uint8), "a red fox walking in the desert", 8, "one picture"),
        (np.zeros((4, 8, 8, 3), np.uint8), "a red fox walking in the desert", 0, "fps=0"),
        (np.zeros((4, 8, 8, 3), np.uint8), "a submarine", 8, "submarine"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_name(frames, caption, fps, said):
    with pytest.raises(ValueError, match=said):
        motion_truth(frames, caption, fps)


def test_black_frames_show_nothing():
    truth = motion_truth(np.zeros((16, 64, 64, 3), np.uint8), "a red fox walking in the snow")
    assert truth.score == 0 and truth.subject == 0 and truth.place == 0
