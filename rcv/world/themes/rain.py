"""Things that stand in the rain, and the rain."""

from __future__ import annotations

import math

import numpy as np
from PIL import ImageDraw

from ..canvas import Canvas, Color
from ..palette import shade

SUBJECTS = ("umbrella", "house", "car", "sailboat", "mushroom", "tree")
_GLASS = (190, 220, 235)
DROPS = 46


def draw_rain(
    picture: ImageDraw.ImageDraw, width: int, height: int, phase: float, seed: int, color: Color
) -> None:
    """Streaks that fall one frame height (and a little) in a cycle of ``phase``; pixels of the drawing."""
    rng = np.random.default_rng([seed, 77])
    xs, ys = rng.random(DROPS), rng.random(DROPS)
    short = min(width, height)
    thick = max(1, round(short * 0.014))
    length = 0.11 * short
    for x, y in zip(xs.tolist(), ys.tolist(), strict=True):
        top = ((y + phase) % 1.0) * (height + length) - length
        left = (x * 1.15 - 0.05) * width + 0.18 * (height - top) * 0.3
        picture.line([(left, top), (left - 0.2 * length, top + length)], fill=color, width=thick)


def draw(canvas: Canvas, subject: str, phase: float, color: Color) -> None:
    """Paint ``subject``, swaying once a cycle of ``phase``, around the origin."""
    far = shade(color, 0.8)
    sway = math.sin(2 * math.pi * phase)
    c = canvas
    if subject == "umbrella":
        c = c.moved(0.0, 0.0, 0.05 * sway)
        c.limb((0, -0.1), (0, 0.3), 0.018, 0.018, far)
        c.path([(0, 0.3), (0.02, 0.34), (0.06, 0.34), (0.08, 0.3)], 0.02, 0.018, far)
        arc = [
            (0.38 * math.cos(math.pi * k / 16), 0.02 - 0.33 * math.sin(math.pi * k / 16)) for k in range(17)
        ]
        scallop = []
        for k in range(4):
            left = -0.38 + 0.19 * k
            scallop += [(left, 0.02), (left + 0.045, -0.03), (left + 0.095, -0.05), (left + 0.145, -0.03)]
        c.polygon(arc + scallop, color)
        c.limb((0, -0.3), (0, -0.37), 0.012, 0.01, color)
        c.limb((-0.01, -0.28), (-0.17, -0.03), 0.008, 0.008, far)
        c.limb((0.01, -0.28), (0.17, -0.03), 0.008, 0.008, far)
    elif subject == "house":
        c = c.moved(0.0, 0.03 + 0.004 * sway)
        c.polygon([(0.14, -0.27), (0.22, -0.27), (0.22, -0.1), (0.14, -0.1)], far)
        c.polygon([(-0.35, -0.04), (0, -0.33), (0.35, -0.04)], far)
        c.polygon([(-0.27, -0.05), (0.27, -0.05), (0.27, 0.27), (-0.27, 0.27)], color)
        c.polygon([(-0.06, 0.08), (0.06, 0.08), (0.06, 0.27), (-0.06, 0.27)], shade(color, 0.5), solid=False)
        for x in (-0.17, 0.17):
            c.polygon(
                [(x - 0.05, 0.03), (x + 0.05, 0.03), (x + 0.05, 0.12), (x - 0.05, 0.12)], _GLASS, solid=False
            )
    elif subject == "car":
        c = c.moved(0.0, 0.08 + 0.006 * sway)
        c.polygon([(-0.26, -0.05), (-0.17, -0.22), (0.12, -0.22), (0.24, -0.05)], color)
        c.polygon([(-0.19, -0.06), (-0.13, -0.175), (-0.04, -0.175), (-0.04, -0.06)], _GLASS, solid=False)
        c.polygon([(0.01, -0.06), (0.01, -0.175), (0.1, -0.175), (0.17, -0.06)], _GLASS, solid=False)
        c.limb((-0.36, 0.03), (0.36, 0.04), 0.08, 0.075, color)
        for x in (-0.22, 0.22):
            c.ellipse(x, 0.12, 0.09, 0.09, shade(color, 0.6))
            c.ellipse(x, 0.12, 0.04, 0.04, (200, 200, 205), solid=False)
    elif subject == "sailboat":
        c = c.moved(0.0, 0.03, 0.06 * sway)
        c.limb((-0.01, -0.36), (-0.01, 0.16), 0.014, 0.016, far)
        c.polygon([(0.02, -0.34), (0.3, 0.1), (0.02, 0.1)], color)
        c.polygon([(-0.04, -0.25), (-0.04, 0.1), (-0.23, 0.1)], color)
        c.polygon([(-0.36, 0.15), (0.38, 0.15), (0.27, 0.3), (-0.26, 0.3)], color)
    elif subject == "mushroom":
        c = c.moved(0.0, 0.03, 0.03 * sway)
        c.limb((0, -0.02), (0, 0.22), 0.09, 0.11, far)
        arc = [(0.35 * math.cos(math.pi * k / 16), -0.33 * math.sin(math.pi * k / 16)) for k in range(17)]
        c.polygon(arc + [(-0.28, 0.06), (0.28, 0.06)], color)
        for x, y, r in ((-0.16, -0.1, 0.045), (0.02, -0.2, 0.045), (0.17, -0.08, 0.04)):
            c.ellipse(x, y, r, r, shade(color, 1.35), solid=False)
    else:
        c.limb((0, -0.05), (0, 0.32), 0.05, 0.065, far)
        c.limb((0, 0.12), (0.13 + 0.01 * sway, 0.0), 0.03, 0.025, far)
        c = c.moved(0.012 * sway, 0.0)
        for x, y, r in ((-0.15, -0.07, 0.16), (0.16, -0.07, 0.16), (0.0, -0.2, 0.18), (0.0, -0.02, 0.15)):
            c.ellipse(x, y, r, r, color)
