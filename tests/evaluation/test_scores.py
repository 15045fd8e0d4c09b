"""All metrics of one video: keys, NaN with a reason, what is refused."""

import math

import numpy as np
import pytest

from rcv.evaluation.scores import METRICS, video_scores


def test_every_metric_is_a_float_of_a_video_with_its_prompt(clip, translation):
    scores = video_scores(translation(3), "a red fox", clip)
    assert list(scores) == list(METRICS)
    assert all(type(value) is float for value in scores.values())
    undefined = {name for name, value in scores.items() if math.isnan(value)}
    assert undefined == set(scores.reasons) <= {"warping_error_homography"}
    assert scores["warping_error"] < 1e-4 < scores["motion"]


def test_a_still_video_is_as_consistent_as_can_be_and_does_not_move(clip, translation):
    scores = video_scores(np.repeat(translation(1), 3, 0), "a red fox", clip)
    assert scores["clip_temp"] == pytest.approx(100)
    assert scores["background_consistency"] == pytest.approx(1)
    assert (scores["flicker"], scores["warping_error"], scores["motion"]) == (1, 0, 0)


def test_one_frame_has_a_score_and_nothing_that_compares_frames(clip, translation):
    scores = video_scores(translation(1), "a red fox", clip)
    assert not math.isnan(scores["clip_score"])
    for name in METRICS:
        if name != "clip_score":
            assert math.isnan(scores[name]) and scores.reasons[name] == "one frame only"


def test_without_a_prompt_faithfulness_alone_is_undefined(clip, translation):
    scores = video_scores(translation(2), None, clip)
    assert math.isnan(scores["clip_score"]) and scores.reasons["clip_score"] == "no prompt"
    assert not math.isnan(scores["clip_temp"])


def test_floats_score_as_their_8_bit_frames(clip, translation):
    frames = translation(2)
    assert video_scores(frames / 255, "a", clip)["clip_temp"] == video_scores(frames, "a", clip)["clip_temp"]


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.full((2, 16, 16, 3), np.nan), "NaN"),
        (np.zeros((2, 16, 16)), "shape"),
        (np.zeros((0, 16, 16, 3), np.uint8), "at least one frame"),
        (np.zeros((2, 16, 16, 3), np.int64), "dtype int64"),
        (np.zeros((2, 4, 4, 3), np.uint8), "too small"),
    ],
)
def test_what_is_no_video_is_refused_by_name(clip, frames, message):
    with pytest.raises(ValueError, match=message):
        video_scores(frames, "a", clip)
