"""A tiny CLIP and videos with known motion."""

import cv2
import numpy as np
import pytest

from rcv.evaluation.clip import load_clip
from tests.tiny import make_tiny_clip


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    return make_tiny_clip(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="session")
def clip(clip_folder):
    return load_clip(clip_folder)


def texture(size, seed=0):
    """Return smooth noise, uint8 [size,size,3], over the whole range."""
    noise = np.random.default_rng(seed).standard_normal((size, size, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return np.interp(smooth, (smooth.min(), smooth.max()), (0, 255)).astype(np.uint8)


@pytest.fixture(scope="session")
def translation():
    """Return a function: uint8 [F,64,64,3] of a texture that moves by whole pixels (right, down) a frame."""

    def make(frames=4, right=2, down=1):
        big = texture(64 + 16)
        starts = [(8 - i * down, 8 - i * right) for i in range(frames)]
        return np.stack([big[y : y + 64, x : x + 64] for y, x in starts])

    return make
