"""Running horses and their kin."""

from __future__ import annotations

from ..canvas import Canvas, Color
from .quadruped import Body, draw_quadruped


def _horse(ears: str = "leaf", *extras: str) -> Body:
    return Body(
        0.30,
        0.105,
        0.11,
        0.29,
        0.038,
        (0.15, -0.21),
        (0.08, 0.065),
        0.06,
        (0.10, 0.042),
        ears,
        "flowing",
        ("crest", "long_face", *extras),
    )


BODIES: dict[str, Body] = {
    "horse": _horse(),
    "zebra": _horse("leaf", "stripes"),
    "unicorn": _horse("leaf", "horn"),
    "pegasus": _horse("leaf", "wing"),
    "donkey": Body(
        0.26,
        0.125,
        0.12,
        0.21,
        0.042,
        (0.14, -0.15),
        (0.095, 0.08),
        0.07,
        (0.10, 0.055),
        "donkey",
        "tuft",
        ("long_face",),
    ),
    "camel": Body(
        0.26,
        0.11,
        0.11,
        0.30,
        0.036,
        (0.22, -0.19),
        (0.075, 0.055),
        0.045,
        (0.07, 0.04),
        "leaf",
        "tuft",
        ("hump",),
    ),
}


def draw(canvas: Canvas, subject: str, phase: float, color: Color) -> None:
    """Paint the galloping ``subject`` at ``phase`` (cycles of its gait) around the origin."""
    draw_quadruped(canvas, BODIES[subject], phase, color, gallop=True)
