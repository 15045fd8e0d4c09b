"""How far a video's background wanders from its first frame, by frame: a number for colour, one for structure."""

from dataclasses import dataclass

import numpy as np

BORDER = 4
"""The structure is read on a ring of a quarter of the height and width: subjects keep to the middle."""


@dataclass(frozen=True)
class Drift:
    """Distances of every frame to the first, [F] each.

    Attributes
    ----------
    colour : ndarray
        Median over pixels of the mean absolute difference of the channels, in levels of 255. A subject that covers
        less than half of the picture, wherever it is, does not move a median.
    structure : ndarray
        1 minus the correlation of the luminance on the border with the first frame's: 0 for the same pattern, 1 for
        an unrelated one. Blind to brightness and contrast. 0 where both are flat, 1 where one is.
    """

    colour: np.ndarray
    structure: np.ndarray

    def over(self, first, last):
        """Return (colour, structure), means over frames `first` to `last`, counted from 1, both included."""
        return tuple(float(d[first - 1 : last].mean()) for d in (self.colour, self.structure))


def drift(frames):
    """Return the Drift of a video, uint8 [F,H,W,3]."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise ValueError(f"frames is {frames.dtype} {list(frames.shape)}, expected uint8 [F,H,W,3]")
    first, border = frames[0].astype(np.float32), _border(*frames.shape[1:3])
    pattern = _pattern(first, border)
    colour, structure = [], []
    for frame in frames:  # one at a time: a long video is not held as floats
        frame = frame.astype(np.float32)
        colour.append(np.median(np.abs(frame - first).mean(-1)))
        structure.append(1 - _correlation(_pattern(frame, border), pattern))
    return Drift(np.array(colour), np.array(structure))


def _border(height, width):
    inside = np.zeros((height, width), bool)
    inside[height // BORDER : height - height // BORDER, width // BORDER : width - width // BORDER] = True
    return ~inside


def _pattern(frame, border):
    luminance = frame @ np.array([0.299, 0.587, 0.114], np.float32)
    values = luminance[border]
    return values - values.mean()


def _correlation(a, b):
    flat = [float(np.abs(x).max()) < 0.5 for x in (a, b)]  # half a level: what rounding leaves
    if any(flat):
        return 1.0 if all(flat) else 0.0
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))
