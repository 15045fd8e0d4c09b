"""Frames brought to a size without changing their aspect: resize to cover it, then crop."""

import numpy as np
from PIL import Image


def covering_size(size, target):
    """Return the smallest (height, width) of the aspect of `size` that covers `target`."""
    scale = max(want / have for have, want in zip(size, target, strict=True))
    return tuple(max(want, round(have * scale)) for have, want in zip(size, target, strict=True))


def resize(frame, size):
    """Return an uint8 [H,W,3] frame in another (height, width): bicubic, over the shrunk pixels' whole area."""
    if frame.shape[:2] == tuple(size):
        return frame
    return np.asarray(Image.fromarray(frame).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def center_crop(frames, size):
    """Return the middle (height, width) of uint8 frames [F,H,W,3], as a view."""
    top, left = ((have - want) // 2 for have, want in zip(frames.shape[1:3], size, strict=True))
    return frames[:, top : top + size[0], left : left + size[1]]


def fit(frames, size):
    """Return uint8 frames [F,H,W,3] in (height, width): the aspect is kept, what stands out is cut off evenly."""
    covering = covering_size(frames.shape[1:3], size)
    return center_crop(np.stack([resize(frame, covering) for frame in frames]), size)
