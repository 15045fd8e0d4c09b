"""Metrics of features and pixels on cases with known answers."""

import math

import numpy as np
import pytest
import torch

from rcv.evaluation.consistency import background_consistency, clip_score, clip_temp, flicker


def on_circle(*degrees):
    return torch.tensor([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees])


def test_clip_score_is_the_mean_cosine_times_100_and_not_below_0():
    text = on_circle(0)[0]
    assert clip_score(on_circle(60, -60), text) == pytest.approx(50)
    assert clip_score(on_circle(0, 90), text) == pytest.approx(50)
    assert clip_score(on_circle(120, 180), text) == 0


def test_clip_temp_compares_neighbours_alone():
    assert clip_temp(on_circle(0, 60, 120)) == pytest.approx(50)
    assert clip_temp(on_circle(0, 60, 0, 60)) == pytest.approx(50)
    assert clip_temp(on_circle(10, 10, 10)) == pytest.approx(100)


def test_background_consistency_compares_with_the_first_and_the_one_before():
    # frame 2: to the first 0.5, to the one before 0.5; frame 3: to the first cos 120 counts as 0, to the one before 0.5
    expected = ((0.5 + 0.5) / 2 + (0 + 0.5) / 2) / 2
    assert background_consistency(on_circle(0, 60, 120)) == pytest.approx(expected)
    assert background_consistency(on_circle(30, 30)) == pytest.approx(1)


def test_flicker_is_1_for_a_still_video_and_falls_by_the_change():
    still = np.full((3, 4, 5, 3), 100, np.uint8)
    assert flicker(still) == 1
    changing = still.copy()
    changing[1] = 151
    assert flicker(changing) == pytest.approx(1 - 51 / 255)
    darker = np.stack([np.full((4, 5, 3), 255, np.uint8), np.zeros((4, 5, 3), np.uint8)])
    assert flicker(darker) == 0
