"""Four-legged bodies: the walking animals and the running horses."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..canvas import Canvas, Color
from ..palette import shade


@dataclass(frozen=True)
class Body:
    """Measures of a four-legged body, in units of the shorter side of the frame.

    ``length`` joins hips and shoulders, ``rear`` and ``front`` are the body's radii there; ``head`` is the
    head's centre relative to the shoulders; ``snout`` is (length, radius); ears and tails are named kinds.
    """

    length: float
    rear: float
    front: float
    leg: float
    leg_width: float
    head: tuple[float, float]
    head_size: tuple[float, float]
    neck: float
    snout: tuple[float, float]
    ears: str
    tail: str
    extras: tuple[str, ...] = ()


# Phase offsets of the hind and fore legs, (near hind, near fore, far hind, far fore), in cycles.
WALK = (0.0, 0.25, 0.5, 0.75)
GALLOP = (0.0, 0.55, 0.1, 0.65)


def draw_quadruped(canvas: Canvas, body: Body, phase: float, color: Color, gallop: bool = False) -> None:
    """Paint ``body``, facing right with the middle of its trunk at the origin, at ``phase`` (cycles)."""
    far = shade(color, 0.78)
    turn = 2 * math.pi * phase
    lift = 0.022 * math.sin(turn) if gallop else 0.008 * math.sin(2 * turn)
    body_canvas = canvas.moved(0.0, lift, 0.07 * math.sin(turn + 0.8) if gallop else 0.0)
    half = body.length / 2
    offsets = GALLOP if gallop else WALK
    for leg, (offset, x) in enumerate(zip(offsets, (-half, half, -half, half), strict=True)):
        if leg >= 2:
            x += 0.05
            _leg(body_canvas, body, x, phase + offset, far, gallop)
    _tail(body_canvas, body, turn, color)
    c = body_canvas
    if "wing" in body.extras:
        _wing(c, turn, far, -0.06)
    c.limb((-half, 0), (half, 0), body.rear, body.front, color)
    if "hump" in body.extras:
        c.ellipse(-0.02, -body.rear * 0.75, 0.11, 0.13, color)
    if "shell" in body.extras:
        dome = [(-half - 0.13, 0.07), (-half - 0.09, -0.1), (-half + 0.02, -0.2), (0, -0.24)]
        c.polygon(dome + [(-x, y) for x, y in reversed(dome)], color)
        c.polygon([(-0.1, -0.04), (-0.05, -0.14), (0.05, -0.14), (0.1, -0.04)], far)
    for x, offset in ((-half, offsets[0]), (half, offsets[1])):
        _leg(c, body, x, phase + offset, color, gallop)
    _head(c, body, half, turn, color, far)
    if "stripes" in body.extras:
        for k in range(4):
            x = -half + body.length * (k + 0.5) / 4
            c.limb((x, -body.rear * 0.85), (x - 0.015, body.rear * 0.4), 0.014, 0.008, shade(color, 0.72))
    if "wing" in body.extras:
        _wing(c, turn, shade(color, 0.88), 0.02)


def _leg(canvas: Canvas, body: Body, x: float, phase: float, color: Color, gallop: bool) -> None:
    turn = 2 * math.pi * phase
    swing = (0.75 if gallop else 0.42) * math.sin(turn)
    bend = (1.3 if gallop else 0.7) * max(0.0, math.cos(turn))
    hip_y = body.rear * 0.45
    upper = body.leg * 0.5
    knee = (x + upper * math.sin(swing), hip_y + upper * math.cos(swing))
    lower = swing - bend
    foot = (knee[0] + upper * math.sin(lower), knee[1] + upper * math.cos(lower))
    w = body.leg_width
    canvas.limb((x, hip_y), knee, w * 1.15, w, color)
    canvas.limb(knee, foot, w, w * 0.85, color)
    canvas.limb(foot, (foot[0] + w * 0.8, foot[1]), w * 0.85, w * 0.7, color)


def _tail(c: Canvas, body: Body, turn: float, color: Color) -> None:
    x, y = -body.length / 2 - body.rear * 0.75, -body.rear * 0.4
    sway = 0.03 * math.sin(turn)
    kind = body.tail
    if kind == "up":
        c.path([(x, y), (x - 0.06, y - 0.06), (x - 0.07 + sway, y - 0.15)], 0.03, 0.022, color)
    elif kind == "tall":
        points = [(x, y), (x - 0.07, y - 0.05), (x - 0.09, y - 0.17), (x - 0.05 + sway, y - 0.27)]
        c.path(points, 0.03, 0.026, color)
    elif kind == "bushy":
        c.limb((x + 0.02, y), (x - 0.08, y + 0.03 + sway), 0.03, 0.075, color)
        c.limb((x - 0.08, y + 0.03 + sway), (x - 0.19, y + 0.0 + sway), 0.075, 0.02, color)
    elif kind == "stub":
        c.ellipse(x - 0.01, y, 0.05, 0.05, color)
    elif kind == "tuft":
        tip = (x - 0.1 + sway, y + 0.18)
        c.path([(x, y), (x - 0.08, y + 0.03), tip], 0.02, 0.018, color)
        c.ellipse(*tip, 0.035, 0.05, color)
    elif kind == "curl":
        c.path(
            [(x + 0.02, y), (x - 0.05, y - 0.03), (x - 0.07, y - 0.09), (x - 0.02, y - 0.1)],
            0.018,
            0.015,
            color,
        )
    elif kind == "flowing":
        c.limb((x + 0.03, y), (x - 0.08, y + 0.02 + sway), 0.03, 0.05, color)
        c.limb((x - 0.08, y + 0.02 + sway), (x - 0.16, y + 0.14 + 2 * sway), 0.05, 0.015, color)
    elif kind == "point":
        c.limb((x, y + 0.08), (x - 0.06, y + 0.13 + sway), 0.025, 0.01, color)


def _wing(c: Canvas, turn: float, color: Color, x: float) -> None:
    tip = -0.16 - 0.15 * math.sin(turn)
    c.polygon(
        [
            (x + 0.08, -0.03),
            (x - 0.02, tip * 0.8 - 0.03),
            (x - 0.18, tip - 0.06),
            (x - 0.2, tip * 0.6),
            (x - 0.12, -0.02),
        ],
        color,
    )


def _head(c: Canvas, body: Body, half: float, turn: float, color: Color, far: Color) -> None:
    nod = 0.012 * math.sin(turn)
    hx, hy = half + body.head[0], body.head[1] + nod
    rx, ry = body.head_size
    if "mane" in body.extras:
        c.ellipse(hx - 0.03, hy + 0.01, 0.17, 0.18, far)
    c.limb((half, -body.front * 0.3), (hx - rx * 0.3, hy + ry * 0.2), body.front * 0.75, body.neck, color)
    if "crest" in body.extras:
        c.limb((half - 0.08, -body.front * 0.8), (hx - rx * 0.9, hy - ry * 0.6), 0.04, 0.035, far)
    _ears(c, body, hx, hy, color, far, behind=True)
    length, radius = body.snout
    down = 0.45 if "long_face" in body.extras else 0.2
    if length:
        tip = (hx + rx * 0.5 + length, hy + ry * 0.25 + length * down)
        c.limb((hx + rx * 0.2, hy + ry * 0.2), tip, ry * 0.75, radius, color)
        c.ellipse(tip[0] + radius * 0.5, tip[1] - radius * 0.3, 0.014, 0.014, (25, 25, 30), solid=False)
    c.ellipse(hx, hy, rx, ry, color)
    _ears(c, body, hx, hy, color, far, behind=False)
    if "trunk" in body.extras:
        points = [
            (hx + rx * 0.6, hy + 0.02),
            (hx + rx + 0.05, hy + 0.1),
            (hx + rx + 0.055, hy + 0.2),
            (hx + rx + 0.11 + nod, hy + 0.27),
        ]
        c.path(points, 0.055, 0.028, color)
        c.limb((hx + rx * 0.6, hy + 0.1), (hx + rx + 0.13, hy + 0.11), 0.016, 0.008, (250, 245, 225))
    if "horn" in body.extras:
        c.polygon(
            [(hx - 0.015, hy - ry * 0.6), (hx + 0.15, hy - ry - 0.2), (hx + 0.055, hy - ry * 0.3)], color
        )
    c.ellipse(hx + rx * 0.35, hy - ry * 0.2, 0.026, 0.026, (252, 252, 252), solid=False)
    c.ellipse(hx + rx * 0.42, hy - ry * 0.2, 0.015, 0.017, (20, 20, 25), solid=False)


def _ears(c: Canvas, body: Body, hx: float, hy: float, color: Color, far: Color, behind: bool) -> None:
    rx, ry = body.head_size
    kind = body.ears
    if kind == "pointed" and behind:
        for x, tint in ((hx + rx * 0.35, far), (hx - rx * 0.5, color)):
            c.polygon(
                [(x - 0.05, hy - ry * 0.55), (x - 0.005, hy - ry - 0.095), (x + 0.05, hy - ry * 0.6)], tint
            )
    elif kind == "round" and behind:
        for x, tint in ((hx + rx * 0.45, far), (hx - rx * 0.55, color)):
            c.ellipse(x, hy - ry * 0.85, 0.045, 0.045, tint)
    elif kind == "long" and behind:
        c.limb((hx + 0.01, hy - ry * 0.6), (hx + 0.03, hy - ry - 0.19), 0.025, 0.03, far)
        c.limb((hx - 0.045, hy - ry * 0.6), (hx - 0.075, hy - ry - 0.19), 0.028, 0.033, color)
    elif kind == "leaf" and behind:
        for x, tint in ((hx + 0.01, far), (hx - 0.035, color)):
            c.polygon(
                [(x - 0.03, hy - ry * 0.4), (x - 0.01, hy - ry - 0.06), (x + 0.03, hy - ry * 0.4)], tint
            )
    elif kind == "donkey" and behind:
        c.limb((hx, hy - ry * 0.5), (hx + 0.03, hy - ry - 0.13), 0.022, 0.024, far)
        c.limb((hx - 0.04, hy - ry * 0.5), (hx - 0.07, hy - ry - 0.13), 0.025, 0.027, color)
    elif kind == "knobs" and behind:
        for x, tint in ((hx + 0.025, far), (hx - 0.03, color)):
            c.limb((x, hy - ry * 0.5), (x + 0.005, hy - ry - 0.06), 0.014, 0.022, tint)
    elif kind == "floppy" and not behind:
        c.limb((hx - rx * 0.5, hy - ry * 0.6), (hx - rx * 1.0, hy + ry * 0.75), 0.035, 0.05, far)
    elif kind == "big" and not behind:
        c.ellipse(hx - rx * 0.85, hy + 0.02, 0.105, 0.15, far)
