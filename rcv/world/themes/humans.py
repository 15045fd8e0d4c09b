"""Running figures, seen from the side."""

from __future__ import annotations

import math

from ..canvas import Canvas, Color, Point
from ..palette import shade

# subject: (torso length, torso radius, leg length, limb radius, head radius)
MEASURES: dict[str, tuple[float, float, float, float, float]] = {
    "man": (0.25, 0.085, 0.36, 0.045, 0.095),
    "woman": (0.22, 0.07, 0.34, 0.042, 0.095),
    "child": (0.17, 0.08, 0.22, 0.045, 0.155),
    "robot": (0.24, 0.10, 0.30, 0.045, 0.12),
    "alien": (0.20, 0.055, 0.30, 0.034, 0.15),
    "astronaut": (0.22, 0.12, 0.28, 0.07, 0.15),
}


def draw(canvas: Canvas, subject: str, phase: float, color: Color) -> None:
    """Paint the runner ``subject`` at ``phase`` (cycles of two steps) around the origin (the belly)."""
    torso, radius, leg, limb, head = MEASURES[subject]
    far = shade(color, 0.78)
    turn = 2 * math.pi * phase
    c = canvas.moved(0.0, 0.02 * math.cos(2 * turn))
    lean = 0.18
    hip = (-0.02, torso * 0.42)
    neck = (hip[0] + torso * math.sin(lean), hip[1] - torso * math.cos(lean))
    shoulder = (neck[0] - 0.01, neck[1] + 0.03)
    arm = leg * 0.8
    _arm(c, shoulder, arm, turn, limb, far)
    _leg(c, hip, leg, turn + math.pi, limb, far)
    if subject == "astronaut":
        c.polygon(
            [
                (neck[0] - 0.24, neck[1]),
                (neck[0] - 0.05, neck[1] - 0.02),
                (hip[0] - 0.05, hip[1]),
                (hip[0] - 0.22, hip[1] - 0.02),
            ],
            far,
        )
    if subject == "robot":
        x, y = (hip[0] + neck[0]) / 2, (hip[1] + neck[1]) / 2
        w, h = 0.125, torso / 2 + 0.045
        c.polygon([(x - w, y - h), (x + w, y - h), (x + w, y + h), (x - w, y + h)], color)
        c.polygon(
            [(x - 0.02, y - 0.06), (x + 0.09, y - 0.06), (x + 0.09, y + 0.02), (x - 0.02, y + 0.02)], far
        )
    else:
        c.limb(hip, neck, radius, radius, color)
    _leg(c, hip, leg, turn, limb, color)
    if subject == "woman":
        swing = 0.02 * math.sin(2 * turn)
        c.polygon(
            [
                (hip[0] + 0.05, hip[1] - 0.1),
                (hip[0] + 0.17, hip[1] + 0.15),
                (hip[0] - 0.22, hip[1] + 0.15 + swing),
                (hip[0] - 0.06, hip[1] - 0.1),
            ],
            color,
        )
    _head(c, subject, (neck[0] + 0.02, neck[1] - head * 0.8), head, turn, color, far)
    _arm(c, shoulder, arm, turn + math.pi, limb, shade(color, 0.88))


def _leg(c: Canvas, hip: Point, length: float, turn: float, radius: float, color: Color) -> None:
    swing = 0.15 + 0.75 * math.sin(turn)
    bend = 0.25 + 1.25 * max(0.0, math.cos(turn + 0.3))
    half = length / 2
    knee = (hip[0] + half * math.sin(swing), hip[1] + half * math.cos(swing))
    foot = (knee[0] + half * math.sin(swing - bend), knee[1] + half * math.cos(swing - bend))
    c.limb(hip, knee, radius * 1.2, radius, color)
    c.limb(knee, foot, radius, radius * 0.85, color)
    toe = swing - bend + 1.3
    c.limb(
        foot,
        (foot[0] + 0.05 * math.sin(toe), foot[1] + 0.05 * math.cos(toe)),
        radius * 0.85,
        radius * 0.6,
        color,
    )


def _arm(c: Canvas, shoulder: Point, length: float, turn: float, radius: float, color: Color) -> None:
    swing = 0.95 * math.sin(turn)
    half = length / 2
    elbow = (shoulder[0] + half * math.sin(swing), shoulder[1] + half * math.cos(swing))
    hand = (elbow[0] + half * math.sin(swing + 1.4), elbow[1] + half * math.cos(swing + 1.4))
    c.limb(shoulder, elbow, radius * 0.9, radius * 0.8, color)
    c.limb(elbow, hand, radius * 0.8, radius * 0.75, color)


def _head(c: Canvas, subject: str, at: Point, r: float, turn: float, color: Color, far: Color) -> None:
    x, y = at
    eye = (20, 20, 25)
    if subject == "robot":
        y -= 0.03
        c.limb((x, y - r), (x, y - r - 0.07), 0.014, 0.014, color)
        c.ellipse(x, y - r - 0.08, 0.03, 0.03, color)
        c.polygon(
            [(x - r, y - r * 0.9), (x + r, y - r * 0.9), (x + r, y + r * 0.8), (x - r, y + r * 0.8)], color
        )
        c.ellipse(x + r * 0.45, y - 0.01, 0.035, 0.035, (252, 252, 252), solid=False)
        c.ellipse(x + r * 0.5, y - 0.01, 0.017, 0.017, eye, solid=False)
    elif subject == "alien":
        y -= 0.03
        for dx in (-0.09, 0.09):
            c.limb((x + dx * 0.5, y - r * 0.6), (x + dx, y - r * 0.9 - 0.09), 0.014, 0.012, color)
            c.ellipse(x + dx, y - r * 0.9 - 0.09, 0.03, 0.03, color)
        c.ellipse(x, y, r * 1.1, r * 0.95, color)
        c.ellipse(x + r * 0.45, y, 0.045, 0.06, eye, angle=0.3, solid=False)
    elif subject == "astronaut":
        y -= 0.02
        c.ellipse(x, y, r, r, color)
        c.ellipse(x + r * 0.35, y, r * 0.55, r * 0.5, (60, 75, 100), solid=False)
    else:
        if subject == "woman":
            sway = 0.03 * math.sin(2 * turn)
            c.path(
                [(x - r * 0.7, y - r * 0.3), (x - r - 0.05, y + sway), (x - r - 0.08, y + 0.13 + sway)],
                0.045,
                0.022,
                far,
            )
        c.ellipse(x, y, r, r, color)
        if subject == "man":
            c.polygon(
                [
                    (x - r, y - r * 0.35),
                    (x - r * 0.8, y - r * 1.15),
                    (x + r * 0.8, y - r * 1.15),
                    (x + r * 1.0, y - r * 0.5),
                    (x + r * 1.75, y - r * 0.3),
                    (x + r * 1.75, y - r * 0.1),
                    (x, y - r * 0.15),
                ],
                far,
            )
        c.ellipse(x + r * 0.5, y + 0.005, 0.02, 0.024, eye, solid=False)
