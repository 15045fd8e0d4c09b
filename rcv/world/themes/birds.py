"""Flying birds."""

from __future__ import annotations

import math

from ..canvas import Canvas, Color, Point
from ..palette import shade

SUBJECTS = ("sparrow", "eagle", "swan", "parrot", "owl", "toucan")
_EYE = (20, 20, 25)


def draw(canvas: Canvas, subject: str, phase: float, color: Color) -> None:
    """Paint the bird ``subject`` at ``phase`` (cycles of its wing beat) around the origin."""
    flap = math.sin(2 * math.pi * phase)
    c = canvas.moved(0.0, 0.015 * flap)
    far = shade(color, 0.78)
    if subject == "eagle":
        _eagle(c, flap, color, far)
    elif subject == "owl":
        _owl(c, flap, color, far)
    else:
        _side_view(c.moved(0.0, 0.03, -0.08), subject, flap, color, far)


def _wing(c: Canvas, root: Point, flap: float, length: float, chord: float, color: Color) -> None:
    x, y = root
    lift = -length * (0.35 + 0.65 * flap)
    c.polygon(
        [
            (x + chord * 0.55, y),
            (x + chord * 0.1, y + lift * 0.75),
            (x - chord * 0.55, y + lift),
            (x - chord * 0.85, y + lift * 0.7),
            (x - chord * 0.7, y + lift * 0.2),
            (x - chord * 0.45, y + 0.03),
        ],
        color,
    )


def _side_view(c: Canvas, subject: str, flap: float, color: Color, far: Color) -> None:
    _wing(c, (0.05, -0.03), flap, 0.33, 0.25, far)
    if subject == "sparrow":
        c.polygon([(-0.15, -0.05), (-0.34, -0.09), (-0.34, 0.06), (-0.15, 0.07)], color)
        c.ellipse(0, 0, 0.22, 0.155, color)
        head, r = (0.2, -0.08), 0.105
        beak = [(0.28, -0.12), (0.37, -0.06), (0.28, -0.03)]
    elif subject == "swan":
        c.polygon([(-0.15, -0.06), (-0.32, -0.06), (-0.2, 0.06)], color)
        c.ellipse(-0.03, 0.01, 0.23, 0.12, color)
        c.path([(0.13, 0.0), (0.25, -0.03), (0.30, -0.13), (0.33, -0.24)], 0.06, 0.04, color)
        head, r = (0.355, -0.25), 0.065
        beak = [(0.39, -0.28), (0.48, -0.22), (0.39, -0.21)]
    elif subject == "parrot":
        c.polygon([(-0.1, -0.05), (-0.48, 0.14), (-0.46, 0.22), (-0.34, 0.22), (-0.08, 0.09)], color)
        c.ellipse(0.02, 0, 0.2, 0.12, color, angle=0.1)
        head, r = (0.2, -0.09), 0.105
        beak = [(0.25, -0.16), (0.35, -0.12), (0.34, 0.02), (0.26, -0.03)]
    else:
        c.polygon([(-0.13, -0.04), (-0.33, -0.0), (-0.33, 0.08), (-0.13, 0.07)], color)
        c.ellipse(-0.02, 0, 0.19, 0.125, color)
        head, r = (0.14, -0.09), 0.1
        beak = [(0.18, -0.19), (0.36, -0.18), (0.47, -0.05), (0.45, -0.0), (0.36, -0.05), (0.2, -0.03)]
    c.polygon(beak, shade(color, 0.9))
    c.ellipse(*head, r, r, color)
    c.ellipse(head[0] + r * 0.3, head[1] - r * 0.2, 0.03, 0.03, (252, 252, 252), solid=False)
    c.ellipse(head[0] + r * 0.4, head[1] - r * 0.2, 0.017, 0.017, _EYE, solid=False)
    _wing(c, (-0.02, 0.0), flap, 0.36, 0.27, shade(color, 0.85))


def _eagle(c: Canvas, flap: float, color: Color, far: Color) -> None:
    for side in (-1, 1):
        lift = -0.04 - 0.17 * flap
        points = [
            (0.03, -0.08),
            (0.2, -0.12 + lift * 0.6),
            (0.36, -0.1 + lift),
            (0.47, -0.02 + lift * 1.25),
            (0.42, 0.03 + lift),
            (0.41, 0.07 + lift),
            (0.33, 0.06 + lift * 0.9),
            (0.31, 0.11 + lift * 0.8),
            (0.22, 0.09 + lift * 0.6),
            (0.03, 0.11),
        ]
        c.polygon([(side * x, y) for x, y in points], far if side < 0 else shade(color, 0.88))
    c.polygon([(-0.04, 0.1), (0.04, 0.1), (0.12, 0.27), (0.04, 0.3), (-0.04, 0.3), (-0.12, 0.27)], color)
    c.ellipse(0, 0.03, 0.085, 0.17, color)
    c.ellipse(0.01, -0.15, 0.07, 0.07, color)
    c.polygon([(0.05, -0.19), (0.13, -0.15), (0.12, -0.1), (0.05, -0.12)], shade(color, 0.9))
    c.ellipse(0.035, -0.165, 0.018, 0.018, _EYE, solid=False)


def _owl(c: Canvas, flap: float, color: Color, far: Color) -> None:
    for side in (-1, 1):
        lift = -0.03 - 0.19 * flap
        points = [
            (0.1, -0.09),
            (0.27, -0.09 + lift),
            (0.4, 0.0 + lift * 1.2),
            (0.32, 0.1 + lift * 0.8),
            (0.14, 0.15),
        ]
        c.polygon([(side * x, y) for x, y in points], far)
    c.ellipse(0, 0.04, 0.185, 0.23, color)
    for side in (-1, 1):
        c.polygon([(side * 0.16, -0.1), (side * 0.155, -0.29), (side * 0.03, -0.17)], color)
        c.ellipse(side * 0.075, -0.07, 0.06, 0.06, (252, 252, 252), solid=False)
        c.ellipse(side * 0.07, -0.07, 0.028, 0.028, _EYE, solid=False)
    c.polygon([(-0.025, -0.03), (0.025, -0.03), (0, 0.03)], far)
