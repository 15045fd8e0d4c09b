"""Warping error in three conventions, and how much moves: motion that a still video wins without."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from rcv.evaluation.flow import LEAST_SIDE, dis_flow, trusted, warp
from rcv.evaluation.opencv import cv2


@dataclass(frozen=True)
class Warping:
    """What optical flow says of a video of two frames or more.

    Attributes
    ----------
    error : float
        Mean squared difference, per channel with pixels in [0, 1], of a frame and the next one warped back to it, over
        the pixels that `flow.trusted` leaves (Lai et al., 2018), then over pairs; NaN if no pair has such a pixel.
    motion : float
        Mean length of the flow, over all pixels and pairs, in per cent of the frame's shorter side a frame.
    covered : float
        Share of pixels, in [0, 1], that the error is measured on.
    """

    error: float
    motion: float
    covered: float


def measure_warping(frames, flow=dis_flow):
    """Return the Warping of uint8 frames [F,H,W,3], F at least 2.

    Parameters
    ----------
    flow : callable
        flow(first, second) -> float32 [H,W,2], such as `flow.dis_flow`.
    """
    errors, lengths, shares = [], [], []
    for now, later in pairwise(frames):
        forward, backward = flow(now, later), flow(later, now)
        valid = trusted(forward, backward)
        lengths.append(np.linalg.norm(forward, axis=-1).mean())
        shares.append(valid.mean())
        if valid.any():
            difference = warp(_unit_range(later), forward) - _unit_range(now)
            errors.append((difference[valid] ** 2).mean())
    return Warping(
        error=float(np.mean(errors)) if errors else float("nan"),
        motion=100 * float(np.mean(lengths)) / min(frames.shape[1:3]),
        covered=float(np.mean(shares)),
    )


def evalcrafter_warping_error(frames, flow=dis_flow):
    """Return the warping error in EvalCrafter's convention: half the size, squares summed over the three channels.

    NaN where half the size is too small for optical flow.
    """
    if min(frames.shape[1:3]) < 2 * LEAST_SIDE:
        return float("nan")
    half = np.stack([cv2.resize(frame, None, fx=0.5, fy=0.5) for frame in frames])
    return 3 * measure_warping(half, flow).error


def homography_warping_error(frames):
    """Return the paper's warping error, or NaN where no pair of frames has a homography.

    ORB keypoints of neighbouring frames, matched by brute force, give a homography by RANSAC; the earlier frame is
    warped by it, and squared differences of 8-bit pixels to the later one are summed over channels and averaged over
    all pixels, black borders included. Pairs without four matches or a solution are left out.
    """
    errors = []
    for now, later in pairwise(frames):
        matrix = find_homography(now, later)
        if matrix is not None:
            warped = cv2.warpPerspective(now, matrix, (now.shape[1], now.shape[0]))
            errors.append(((warped.astype(np.float64) - later) ** 2).sum(-1).mean())
    return float(np.mean(errors)) if errors else float("nan")


def find_homography(now, later):
    """Return the homography [3,3] from the pixels of one uint8 frame to another's, or None if there is none."""
    orb = cv2.ORB_create()
    (points, words), (targets, other) = (orb.detectAndCompute(frame, None) for frame in (now, later))
    if words is None or other is None:
        return None
    matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(words, other)
    if len(matches) < 4:
        return None
    source = np.float32([points[match.queryIdx].pt for match in matches])
    target = np.float32([targets[match.trainIdx].pt for match in matches])
    return cv2.findHomography(source, target, cv2.RANSAC, 5.0)[0]


def _unit_range(frame):
    return frame.astype(np.float32) / 255
