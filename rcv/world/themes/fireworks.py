"""Bursts of fireworks: they open, sink and begin again."""

from __future__ import annotations

import math

import numpy as np

from ..canvas import Canvas, Color, Point
from ..palette import shade

SUBJECTS = (
    "round firework",
    "star firework",
    "heart firework",
    "ring firework",
    "palm firework",
    "spiral firework",
)


def sink(phase: float) -> float:
    """How far a burst has fallen at ``phase`` of its life (0 to 1), in frame heights."""
    return 0.1 * (phase % 1.0) ** 2


def _even(outline: np.ndarray, count: int) -> list[Point]:
    """``count`` points at equal distances along the closed ``outline`` [N, 2]."""
    closed = np.concatenate([outline, outline[:1]])
    way = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    at = np.arange(count) / count * way[-1]
    return list(
        zip(np.interp(at, way, closed[:, 0]).tolist(), np.interp(at, way, closed[:, 1]).tolist(), strict=True)
    )


def _star() -> list[Point]:
    turn = np.pi * np.arange(10) / 5
    radius = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    return _even(np.stack([radius * np.sin(turn), -radius * np.cos(turn)], axis=1), 30)


def _heart() -> list[Point]:
    # The well-known heart curve in sines and cosines, scaled into the unit circle.
    a = 2 * np.pi * np.arange(400) / 400
    x = 16 * np.sin(a) ** 3
    y = 13 * np.cos(a) - 5 * np.cos(2 * a) - 2 * np.cos(3 * a) - np.cos(4 * a)
    return _even(np.stack([x / 17, -(y + 2.5) / 15], axis=1), 24)


_OUTLINES = {"star firework": _star(), "heart firework": _heart()}


def draw(canvas: Canvas, subject: str, phase: float, color: Color) -> None:
    """Paint the burst ``subject`` at ``phase`` (fraction of its life, periodic) around the origin."""
    life = phase % 1.0
    radius = 0.40 * (0.5 + 0.5 * (1 - (1 - life) ** 2))
    dot = 0.055 * (1.0 - 0.35 * life)
    bright = shade(color, 1.25)
    c = canvas
    if subject == "round firework":
        for k in range(12):
            u, v = math.cos(math.pi * k / 6), math.sin(math.pi * k / 6)
            c.limb((u * radius * 0.12, v * radius * 0.12), (u * radius, v * radius), 0.018, dot, color)
        c.ellipse(0, 0, 0.07, 0.07, bright)
    elif subject == "ring firework":
        for k in range(16):
            a = math.pi * k / 8
            c.ellipse(math.cos(a) * radius, math.sin(a) * radius, dot * 1.2, dot * 1.2, color)
    elif subject in _OUTLINES:
        for x, y in _OUTLINES[subject]:
            c.ellipse(x * radius, y * radius, dot, dot, color)
    elif subject == "palm firework":
        c.limb((0, 0), (0, radius * 1.05), 0.03, 0.02, color)
        for k in range(7):
            a = math.pi * (-0.02 + 1.04 * k / 6)
            reach = [
                (
                    -math.cos(a) * radius * s,
                    -math.sin(a) * radius * 0.85 * s + radius * (0.35 + 0.4 * life) * s * s,
                )
                for s in (0.0, 0.35, 0.7, 1.0)
            ]
            c.path(reach, 0.022, dot * 1.1, color)
    else:
        for arm in range(3):
            points = []
            for k in range(9):
                s = k / 8
                a = 2 * math.pi * (arm / 3 + 0.55 * s + 0.25 * life)
                points.append(
                    (math.cos(a) * radius * (0.1 + 0.9 * s), math.sin(a) * radius * (0.1 + 0.9 * s))
                )
            c.path(points, dot * 0.7, dot * 1.15, color)
        c.ellipse(0, 0, 0.06, 0.06, bright)
