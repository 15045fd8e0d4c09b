"""Frames, captions, trajectories and masks of scenes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from .backgrounds import paint
from .canvas import Canvas
from .palette import PALETTE
from .scene import TABLE, Scene
from .themes import FIT
from .themes.fireworks import sink
from .themes.rain import draw_rain

FPS = 8.0
RAIN_COLOR = (208, 224, 240)
# A travelling subject moves this far from the middle, then the camera follows it and the place scrolls.
REACH = 0.11
_PASSES_MIDDLE_AT = 1.0


@dataclass(frozen=True)
class RenderedClip:
    """A clip and the truth about it.

    Attributes
    ----------
    frames : uint8 array [F, H, W, 3]
    caption : str
    trajectory : float32 array [F, 2]
        x and y of the subject's anchor (middle of the trunk, burst or fall), as fractions of width and height.
    mask : uint8 array [F, H, W]
        255 where a pixel belongs to the subject, anti-aliased.
    phase : float32 array [F]
        Cycles of the periodic motion gone at each frame (not wrapped).
    period : float
        Seconds a cycle.
    speed : float
        Frame widths a second over the ground.
    fps : float
    """

    frames: np.ndarray
    caption: str
    trajectory: np.ndarray
    mask: np.ndarray
    phase: np.ndarray
    period: float
    speed: float
    fps: float


def render_clip(
    scene: Scene,
    frames: int = 16,
    size: int | tuple[int, int] = 64,
    fps: float = FPS,
    start: float = 0.0,
) -> RenderedClip:
    """Render a scene.

    Parameters
    ----------
    frames : int
        Number of frames; frame i shows the time ``start + i / fps`` seconds, so that clips of different
        length, rate and size show the same motion.
    size : int or (height, width)
        Pixels, at least 16; the subject's size follows the shorter side.
    start : float
        Time of the first frame in seconds.

    Raises
    ------
    ValueError
        If ``frames``, ``size`` or ``fps`` are out of range.
    """
    height, width = (size, size) if isinstance(size, (int, np.integer)) else size
    if frames < 1:
        raise ValueError(f"frames={frames}: at least 1 is needed")
    if min(height, width) < 16:
        raise ValueError(f"size={size}: height and width of at least 16 pixels are needed")
    if not fps > 0:
        raise ValueError(f"fps={fps}: it must be positive")
    pixels = np.empty((frames, height, width, 3), np.uint8)
    mask = np.empty((frames, height, width), np.uint8)
    trajectory = np.empty((frames, 2), np.float32)
    phase = np.empty(frames, np.float32)
    for i in range(frames):
        time = start + i / fps
        pixels[i], mask[i], trajectory[i] = _render_frame(scene, time, height, width)
        phase[i] = scene.motion.phase + time / scene.motion.period
    return RenderedClip(
        pixels, scene.caption, trajectory, mask, phase, scene.motion.period, scene.motion.speed, fps
    )


def place_at(scene: Scene, time: float) -> tuple[float, float, float]:
    """The anchor's x and y and the camera's way at ``time`` seconds, in frame widths and heights."""
    motion, spec = scene.motion, TABLE[scene.theme]
    turn = 2 * math.pi * (motion.phase + time / motion.period)
    if spec.motion == "travel":
        way = motion.speed * (time - _PASSES_MIDDLE_AT)
        seen = min(REACH, max(-REACH, way))
        lift = 0.025 * math.sin(2 * math.pi * (motion.phase + time / 4.0)) if spec.flying else 0.0
        return motion.x + seen, motion.y + lift, way - seen
    if spec.motion == "burst":
        return motion.x, motion.y + sink(turn / (2 * math.pi)), 0.0
    if spec.motion == "sway":
        return motion.x + 0.02 * math.sin(turn), motion.y, 0.0
    return motion.x, motion.y, 0.0


@lru_cache(maxsize=16)
def _background(theme: str, background: str, size: tuple[int, int], seed: int, offset: float) -> Image.Image:
    return paint(background, TABLE[theme].light, size, seed, offset, cliff=theme == "waterfalls")


def _subject_color(scene: Scene) -> tuple[int, int, int]:
    jitter = np.random.default_rng([scene.seed % 2**63, 3]).integers(-6, 7, 3)
    return tuple(int(v) for v in np.clip(np.array(PALETTE[scene.color]) + jitter, 0, 255))


def _render_frame(
    scene: Scene, time: float, height: int, width: int
) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    spec, motion = TABLE[scene.theme], scene.motion
    fine = 3 if min(height, width) <= 128 else 2
    big = (height * fine, width * fine)
    x, y, camera = place_at(scene, time)
    offset = round(camera * big[1]) / big[1]
    image = _background(scene.theme, scene.background, big, scene.seed % 2**63, offset).copy()
    solid = Image.new("L", (big[1], big[0]), 0)
    picture = ImageDraw.Draw(image)
    phase = motion.phase + time / motion.period
    if spec.light == "rain":
        drops = RAIN_COLOR
        draw_rain(picture, big[1], big[0], phase, scene.seed % 2**63, drops)
    factor, dx, dy = FIT.get(scene.subject, (1.0, 0.0, 0.0))
    x, y = x + dx * min(big) / big[1], y + dy * min(big) / big[0]
    scale = min(big) * motion.scale * factor
    canvas = Canvas(picture, ImageDraw.Draw(solid), (x * big[1], y * big[0]), scale)
    spec.draw(canvas, scene.subject, phase, _subject_color(scene))
    return np.asarray(image.reduce(fine)), np.asarray(solid.reduce(fine)), (x, y)
