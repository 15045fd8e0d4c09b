"""Where a subject goes: its centre over time against the path of a theme of the motion world."""

from dataclasses import dataclass

import numpy as np

from rcv.world.render import REACH
from rcv.world.scene import TABLE

SPEEDS = np.linspace(-0.16, 0.16, 129)
"""Speeds that are tried, frame widths a second to the right."""
POSITION_FREE, POSITION_SCALE = 0.05, 0.15
"""How far the mean place may lie from the rendered subject's, and over what distance more of it costs all."""
WOBBLE_SCALE = 0.03
"""Over what distance a residual above the rendered subject's own costs all: two pixels of 64."""
LEAST_SEEN = 0.5


@dataclass(frozen=True)
class Course:
    """How a centre moves.

    Attributes
    ----------
    speed : float
        Frame widths a second to the right, by the least squares of the theme's path.
    wobble : float
        Root mean square distance from that path, frame widths.
    mean : (float, float)
    seen : float
        Share of frames with a centre.
    """

    speed: float
    wobble: float
    mean: tuple[float, float]
    seen: float


def course_of(centers, theme, fps):
    """Return the Course of centres [F,2] (nan where nothing was found), or None where fewer than half are found.

    A travelling subject is fitted by the renderer's path: it passes the middle after a second and stays within REACH of
    it, then the camera follows.
    """
    centers = np.asarray(centers, dtype=np.float64)
    found = np.isfinite(centers).all(1)
    if found.sum() < max(2, LEAST_SEEN * len(centers)):
        return None
    times, x, y = np.arange(len(centers))[found] / fps, centers[found, 0], centers[found, 1]
    speeds = SPEEDS if TABLE[theme].motion == "travel" else np.zeros(1)
    paths = np.clip(speeds[:, None] * (times - 1.0), -REACH, REACH)
    offsets = x - paths
    residual = offsets - offsets.mean(1, keepdims=True)
    best = int((residual**2).mean(1).argmin())
    wobble = float(np.sqrt((residual[best] ** 2).mean() + y.var()))
    return Course(float(speeds[best]), wobble, (float(x.mean()), float(y.mean())), float(found.mean()))


def course_score(course, reference, theme):
    """Return in [0,1] how well a Course (or None) is one of the theme's; `reference` is rendered clips' mean Course.

    The product of four: the speed lies in the theme's range (0 at a standstill and at twice the highest), the path is
    as straight as the rendered one's, the place is the rendered one's, and the share of frames with a centre.
    """
    if course is None:
        return 0.0
    speed, low_high = 1.0, TABLE[theme].speeds
    if TABLE[theme].motion == "travel":
        low, high = low_high
        below, above = (low - course.speed) / low, (course.speed - high) / high
        speed = _left(max(below, above, 0.0))
    straight = _left(max(0.0, course.wobble - 1.5 * reference.wobble) / WOBBLE_SCALE)
    away = float(np.hypot(*np.subtract(course.mean, reference.mean)))
    place = _left(max(0.0, away - POSITION_FREE) / POSITION_SCALE)
    return course.seen * speed * straight * place


def _left(cost):
    return max(0.0, 1.0 - cost)
