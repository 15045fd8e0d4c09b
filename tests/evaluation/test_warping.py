"""Optical flow, what of it is trusted, and warping error, on cases with known answers."""

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from rcv.evaluation import warping
from rcv.evaluation.flow import dis_flow, trusted, warp
from rcv.evaluation.warping import (
    evalcrafter_warping_error,
    homography_warping_error,
    measure_warping,
)
from rcv.video import read_video
from rcv.world import render_clip, sample_scene
from tests.evaluation.conftest import texture

REAL = sorted(Path(os.environ.get("RCV_TEST_VIDEOS", "nowhere")).glob("*/*.m[pk][4v]"))


def constant(right, down, size=32):
    return np.broadcast_to(np.float32([right, down]), (size, size, 2)).copy()


def test_warping_by_a_whole_pixel_flow_fetches_those_pixels():
    image = texture(32).astype(np.float32)
    warped = warp(image, constant(3, 2))
    np.testing.assert_allclose(warped[:-2, :-3], image[2:, 3:], atol=1e-4)
    assert (warped[-1] == 0).all() and (warped[:, -1] == 0).all()


def test_warping_by_half_a_pixel_interpolates():
    image = np.zeros((4, 4), np.float32)
    image[:, 2] = 1
    np.testing.assert_allclose(warp(image, constant(0.5, 0, 4))[:, 1], 0.5)


def test_flow_of_a_translation_is_the_translation(translation):
    first, second = translation(2, right=3, down=-2)
    flow = dis_flow(first, second)
    assert flow.shape == (64, 64, 2) and flow.dtype == np.float32
    np.testing.assert_allclose(np.median(flow, axis=(0, 1)), [3, -2], atol=0.02)
    assert np.abs(flow - [3, -2])[8:-8, 8:-8].max() < 0.3


def test_flow_that_leads_back_is_trusted_and_the_border_that_leaves_is_not():
    valid = trusted(constant(2, 0), constant(-2, 0))
    assert valid[:, :-2].all() and not valid[:, -2:].any()


def test_flow_that_does_not_lead_back_is_occluded():
    # |w + f|^2 = 1 > 0.01 (4 + 1) + 0.5, and just below the bound: 0.49 < 0.01 (4 + 1.69) + 0.5
    assert not trusted(constant(2, 0), constant(-1, 0)).any()
    assert trusted(constant(2, 0), constant(-1.3, 0))[:, :-2].all()


def test_where_motion_changes_is_a_boundary():
    forward = constant(0, 0)
    forward[:, 16:] = [1, 0]
    valid = trusted(forward, -forward)
    assert not valid[:, 15].any()  # the forward difference is taken there
    assert valid[:, :15].all() and valid[:, 17:-1].all()


def test_an_exact_translation_has_no_warping_error(translation):
    frames = translation(4, right=2, down=1)
    found = measure_warping(frames)
    assert found.error < 1e-4
    assert found.covered > 0.85
    assert found.motion == pytest.approx(100 * np.hypot(2, 1) / 64, rel=0.05)
    # outside the borders even without a mask
    for now, later in pairwise(frames):
        left = warp(later.astype(np.float32), dis_flow(now, later)) - now
        assert ((left / 255) ** 2)[8:-8, 8:-8].mean() < 1e-4


def test_a_still_video_scores_0_and_its_motion_tells_on_it():
    frames = np.repeat(texture(48)[None], 3, 0)
    found = measure_warping(frames)
    assert (found.error, found.motion, found.covered) == (0, 0, 1)
    assert evalcrafter_warping_error(frames) == 0
    assert homography_warping_error(np.repeat(texture(128)[None], 2, 0)) == 0


def test_the_error_is_the_mean_square_per_channel():
    def no_flow(first, second):
        return np.zeros((*first.shape[:2], 2), np.float32)

    frames = np.zeros((3, 24, 24, 3), np.uint8)
    frames[1, ..., 0] = 51  # 0.2 in one of three channels
    assert measure_warping(frames, no_flow).error == pytest.approx(0.04 / 3)
    # half the size keeps a flat frame; the channels are summed
    assert evalcrafter_warping_error(frames, no_flow) == pytest.approx(0.04)


def test_pairs_that_nothing_is_left_of_are_left_out_and_none_is_nan():
    calls = []

    def lost_at_first(first, second):
        calls.append(1)
        return constant(100 if len(calls) <= 2 else 0, 0, 16)

    frames = np.zeros((3, 16, 16, 3), np.uint8)
    frames[2] = 51
    found = measure_warping(frames, lost_at_first)
    assert found.error == pytest.approx(0.04) and found.covered == 0.5
    assert np.isnan(measure_warping(frames, lambda a, b: constant(100, 0, 16)).error)


def test_keypoints_find_the_homography_of_a_translation():
    big = texture(200, seed=1)
    matrix = warping.find_homography(big[10:170, 10:170], big[10:170, 14:174])
    x, y, w = matrix @ [80, 80, 1]
    np.testing.assert_allclose([x / w, y / w], [76, 80], atol=0.5)


def test_the_paper_counts_black_borders_and_sums_channels(monkeypatch):
    monkeypatch.setattr(
        warping, "find_homography", lambda now, later: np.float64([[1, 0, -4], [0, 1, 0], [0, 0, 1]])
    )
    big = texture(48)
    frames = np.stack([big[:40, :40], big[:40, 4:44]])
    # moved by its homography, the first frame is black in 4 of 40 columns, and right elsewhere
    border = (frames[1][:, -4:].astype(float) ** 2).sum(-1).mean() * 4 / 40
    assert homography_warping_error(frames) == pytest.approx(border)


def test_flat_frames_have_no_homography():
    assert np.isnan(homography_warping_error(np.zeros((2, 64, 64, 3), np.uint8)))


def test_frames_that_are_too_small_are_refused():
    assert np.isnan(evalcrafter_warping_error(np.zeros((2, 16, 40, 3), np.uint8)))
    with pytest.raises(ValueError, match="8x40 are too small for optical flow"):
        measure_warping(np.zeros((2, 8, 40, 3), np.uint8))


def test_shuffled_frames_of_the_motion_world_rank_worse():
    frames = render_clip(sample_scene("horse running", 5), 8, 64).frames
    shuffled = frames[[0, 4, 1, 6, 2, 7, 3, 5]]
    assert measure_warping(shuffled).error > measure_warping(frames).error


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="RCV_TEST_VIDEOS names no folder of folders of clips")
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_shuffled_frames_of_real_clips_rank_worse(path):
    frames = read_video(path, indices=range(0, 45, 3)).frames[:, ::2, ::2]
    order = np.random.default_rng(0).permutation(len(frames))
    assert measure_warping(frames[order]).error > measure_warping(frames).error
