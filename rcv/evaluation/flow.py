"""Optical flow between frames, and where it can be trusted."""

import numpy as np

from rcv.evaluation.opencv import cv2

FINE_SIDE = 256
"""Shorter side, in pixels, to which smaller frames are enlarged (by a whole factor) before their flow is estimated."""
LEAST_SIDE = 12
"""Shortest side that OpenCV's estimator takes."""


def dis_flow(first, second):
    """Return the flow from one uint8 [H,W,3] frame to another: float32 [H,W,2], pixels to the right and down.

    Dense inverse search (Kroeger et al., 2016) with OpenCV's medium preset: needs no weights. Small frames are
    enlarged first: at 64x64 the preset starts too coarse for thin limbs, and the error left after warping real
    motion falls from 1.9e-3 to 2.6e-4.

    Raises
    ------
    ValueError
        A side of fewer than 12 pixels.
    """
    height, width = first.shape[:2]
    if min(height, width) < LEAST_SIDE:
        raise ValueError(
            f"frames of {height}x{width} are too small for optical flow: 12 pixels a side are needed"
        )
    factor = -(-FINE_SIDE // min(height, width))
    gray = [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in (first, second)]
    if factor > 1:
        gray = [cv2.resize(g, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC) for g in gray]
    estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow = estimator.calc(*gray, None)
    if factor > 1:
        flow = cv2.resize(flow, (width, height), interpolation=cv2.INTER_AREA) / factor
    return flow


def warp(image, flow):
    """Return [H,W,...] sampled bilinearly at each pixel's target under `flow` [H,W,2], 0 outside of the image."""
    height, width = flow.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return cv2.remap(image, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR)


def trusted(forward, backward):
    """Return bool [H,W]: pixels whose flow can be followed, by Lai et al. (2018).

    Left out are occlusions, where there and back again ends elsewhere (|w + f|^2 > 0.01 (|w|^2 + |f|^2) + 0.5 with w
    the backward flow at f's target), motion boundaries (|df/dx|^2 + |df/dy|^2 > 0.01 |f|^2 + 0.002, forward
    differences), and pixels whose target lies outside of the frame.

    Parameters
    ----------
    forward, backward : float32 array [H,W,2]
        From this frame to the next one, and from that one to this.
    """
    back = warp(backward, forward)
    occluded = _squares(back + forward) > 0.01 * (_squares(back) + _squares(forward)) + 0.5
    across, down = np.zeros_like(forward), np.zeros_like(forward)
    across[:, :-1] = np.diff(forward, axis=1)
    down[:-1] = np.diff(forward, axis=0)
    boundary = _squares(across) + _squares(down) > 0.01 * _squares(forward) + 0.002
    height, width = forward.shape[:2]
    y, x = np.mgrid[:height, :width]
    x, y = x + forward[..., 0], y + forward[..., 1]
    inside = (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
    return inside & ~occluded & ~boundary


def _squares(vectors):
    return (vectors**2).sum(-1)
