"""Walking animals."""

from __future__ import annotations

from ..canvas import Canvas, Color
from .quadruped import Body, draw_quadruped

BODIES: dict[str, Body] = {
    "dog": Body(
        0.30, 0.10, 0.115, 0.24, 0.04, (0.13, -0.15), (0.10, 0.09), 0.075, (0.10, 0.045), "floppy", "up"
    ),
    "cat": Body(
        0.30, 0.10, 0.10, 0.20, 0.036, (0.13, -0.12), (0.115, 0.105), 0.07, (0.0, 0.0), "pointed", "tall"
    ),
    "fox": Body(
        0.26, 0.085, 0.09, 0.21, 0.034, (0.12, -0.11), (0.10, 0.085), 0.065, (0.13, 0.018), "pointed", "bushy"
    ),
    "bear": Body(
        0.30, 0.19, 0.18, 0.21, 0.07, (0.19, -0.10), (0.125, 0.115), 0.12, (0.07, 0.055), "round", "none"
    ),
    "elephant": Body(
        0.26,
        0.20,
        0.19,
        0.25,
        0.068,
        (0.18, -0.10),
        (0.13, 0.13),
        0.12,
        (0.0, 0.0),
        "big",
        "tuft",
        ("trunk",),
    ),
    "giraffe": Body(
        0.23, 0.10, 0.11, 0.28, 0.036, (0.19, -0.42), (0.085, 0.06), 0.045, (0.07, 0.035), "knobs", "tuft"
    ),
    "rabbit": Body(
        0.17, 0.16, 0.12, 0.13, 0.045, (0.14, -0.13), (0.105, 0.095), 0.07, (0.03, 0.05), "long", "stub"
    ),
    "lion": Body(
        0.32,
        0.105,
        0.12,
        0.22,
        0.045,
        (0.14, -0.11),
        (0.105, 0.10),
        0.09,
        (0.05, 0.05),
        "none",
        "tuft",
        ("mane",),
    ),
    "pig": Body(
        0.26, 0.17, 0.16, 0.13, 0.04, (0.17, -0.04), (0.115, 0.11), 0.11, (0.07, 0.055), "leaf", "curl"
    ),
    "turtle": Body(
        0.26,
        0.06,
        0.06,
        0.13,
        0.045,
        (0.22, -0.05),
        (0.09, 0.075),
        0.045,
        (0.0, 0.0),
        "none",
        "point",
        ("shell",),
    ),
}
# Subjects drawn with another subject's silhouette; they differ inside it (stripes).
BODIES["tiger"] = Body(
    *(getattr(BODIES["cat"], f) for f in Body.__dataclass_fields__ if f != "extras"), ("stripes",)
)


def draw(canvas: Canvas, subject: str, phase: float, color: Color) -> None:
    """Paint the animal ``subject`` at ``phase`` (cycles of its gait) around the origin."""
    draw_quadruped(canvas, BODIES[subject], phase, color)
