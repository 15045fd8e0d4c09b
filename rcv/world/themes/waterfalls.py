"""Waterfalls before a cliff."""

from __future__ import annotations

import math

import numpy as np

from ..canvas import Canvas, Color, Point
from ..palette import shade

SUBJECTS = ("tall waterfall", "wide waterfall", "twin waterfall", "stepped waterfall", "winding waterfall")
TOP, BOTTOM = -0.36, 0.27


def _columns(subject: str) -> list[tuple[list[Point], float, float]]:
    """Centre lines of the falling water with the half width at the top and at the foot."""
    if subject == "tall waterfall":
        return [([(0, TOP), (0, BOTTOM)], 0.115, 0.135)]
    if subject == "wide waterfall":
        return [([(0, TOP + 0.14), (0, BOTTOM)], 0.33, 0.35)]
    if subject == "twin waterfall":
        return [
            ([(-0.2, TOP + 0.04), (-0.2, BOTTOM)], 0.085, 0.1),
            ([(0.2, TOP + 0.04), (0.2, BOTTOM)], 0.085, 0.1),
        ]
    if subject == "stepped waterfall":
        return [
            ([(-0.2, TOP), (-0.2, -0.12)], 0.12, 0.12),
            ([(-0.03, -0.13), (-0.03, 0.08)], 0.16, 0.16),
            ([(0.14, 0.07), (0.14, BOTTOM)], 0.19, 0.19),
        ]
    line = [
        (0.17 * math.sin(2 * math.pi * s), TOP + (BOTTOM - TOP) * s) for s in np.linspace(0, 1, 15).tolist()
    ]
    return [(line, 0.085, 0.12)]


def draw_cliff(canvas: Canvas, colors: tuple[Color, Color]) -> None:
    """Paint the rock behind the water."""
    rock, dark = colors
    canvas.polygon(
        [
            (-0.6, 0.4),
            (-0.52, -0.27),
            (-0.4, -0.35),
            (-0.2, -0.38),
            (0.22, -0.39),
            (0.42, -0.34),
            (0.5, -0.24),
            (0.6, 0.4),
        ],
        rock,
        solid=False,
    )
    for x, y, r in ((-0.42, -0.1, 0.05), (0.43, -0.12, 0.045), (-0.44, 0.14, 0.045), (0.44, 0.12, 0.05)):
        canvas.ellipse(x, y, r, r * 0.6, dark, solid=False)


def draw(canvas: Canvas, subject: str, phase: float, color: Color) -> None:
    """Paint the water ``subject``, its streaks fallen by ``phase`` cycles, and its pool around the origin."""
    bright, dark = shade(color, 1.25), shade(color, 0.85)
    c = canvas
    c.ellipse(0, BOTTOM + 0.08, 0.44, 0.1, color)
    for number, (line, top, foot) in enumerate(_columns(subject)):
        count = len(line)
        halves = [top + (foot - top) * k / (count - 1) for k in range(count)]
        left = [(x - w, y) for (x, y), w in zip(line, halves, strict=True)]
        right = [(x + w, y) for (x, y), w in zip(line, halves, strict=True)]
        c.polygon(left + right[::-1], color)
        _streaks(c, line, halves, phase + 0.31 * number, bright, dark)
        if subject == "stepped waterfall" and number < 2:
            c.ellipse(line[-1][0] + 0.05, line[-1][1] + 0.02, halves[-1] + 0.06, 0.045, color)
    for k in range(5):
        x = -0.3 + 0.15 * k
        y = BOTTOM + 0.08 + 0.02 * math.sin(2 * math.pi * (phase + k / 5))
        c.ellipse(x, y, 0.045, 0.014, bright)


def _streaks(
    c: Canvas, line: list[Point], halves: list[float], phase: float, bright: Color, dark: Color
) -> None:
    """Light and dark dashes that run down the column and come back at its top after one cycle."""
    ys = np.array([y for _, y in line])
    xs = np.array([x for x, _ in line])
    ws = np.array(halves)
    y0, y1 = float(ys[0]), float(ys[-1])
    lanes = max(2, round(float(ws[0]) / 0.045))
    for lane in range(lanes):
        across = (lane + 0.5) / lanes * 2 - 1
        for k in range(2):
            s = (phase + k / 2 + lane * 0.382) % 1.0
            start, end = y0 + (y1 - y0) * s, y0 + (y1 - y0) * min(1.0, s + 0.2)
            a = (float(np.interp(start, ys, xs) + across * np.interp(start, ys, ws) * 0.9), start)
            b = (float(np.interp(end, ys, xs) + across * np.interp(end, ys, ws) * 0.9), end)
            c.limb(a, b, 0.016, 0.012, bright if (lane + k) % 2 else dark)
