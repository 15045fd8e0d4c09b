"""Drawings of the subjects, one module a theme, and the table of the themes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..canvas import Canvas, Color
from . import animals, birds, fireworks, helicopters, horses, humans, rain, waterfalls


@dataclass(frozen=True)
class Theme:
    """What a theme shows and how it moves.

    Attributes
    ----------
    subjects
        Names of the subjects.
    draw
        ``draw(canvas, subject, phase, color)``.
    phrases
        Caption templates over ``{thing}`` (article, colour and subject) and ``{place}``.
    flying
        Whether places read "over the desert" instead of "in the desert".
    motion
        "travel" (moves to the right), "sway" (stays, swings a little), "burst" (sinks, begins again), "still".
    periods
        Choices of the cycle's length, in seconds.
    speeds
        Range of the speed: travelled frame widths a second for "travel"; elsewhere 0.
    height
        Height of the subject's centre in frame heights (0 at the top).
    light
        "day", "night" or "rain": how the background is lit.
    """

    subjects: tuple[str, ...]
    draw: Callable[[Canvas, str, float, Color], None]
    phrases: tuple[str, ...]
    flying: bool
    motion: str
    periods: tuple[float, ...]
    speeds: tuple[float, float]
    height: float
    light: str = "day"


TABLE: dict[str, Theme] = {
    "animal walking": Theme(
        tuple(animals.BODIES),
        animals.draw,
        ("{thing} walking {place}", "{thing} is walking {place}"),
        False,
        "travel",
        (0.75, 1.0, 1.25),
        (0.04, 0.07),
        0.56,
    ),
    "human running": Theme(
        tuple(humans.MEASURES),
        humans.draw,
        ("{thing} running {place}", "{thing} is running {place}"),
        False,
        "travel",
        (0.625, 0.75, 0.875),
        (0.06, 0.08),
        0.54,
    ),
    "birds flying": Theme(
        birds.SUBJECTS,
        birds.draw,
        ("{thing} flying {place}", "{thing} is flying {place}"),
        True,
        "travel",
        (0.75, 1.0, 1.25),
        (0.05, 0.08),
        0.46,
    ),
    "fireworks": Theme(
        fireworks.SUBJECTS,
        fireworks.draw,
        ("{thing} {place}", "{thing} exploding {place}"),
        True,
        "burst",
        (1.0, 1.25, 1.5),
        (0.0, 0.0),
        0.44,
        "night",
    ),
    "helicopter flying": Theme(
        helicopters.SUBJECTS,
        helicopters.draw,
        ("{thing} flying {place}", "{thing} is flying {place}"),
        True,
        "travel",
        (0.5, 0.625, 0.75),
        (0.05, 0.08),
        0.46,
    ),
    "horse running": Theme(
        tuple(horses.BODIES),
        horses.draw,
        ("{thing} running {place}", "{thing} is running {place}"),
        False,
        "travel",
        (0.625, 0.75, 0.875),
        (0.06, 0.08),
        0.54,
    ),
    "raining": Theme(
        rain.SUBJECTS,
        rain.draw,
        ("{thing} in the rain {place}", "rain falling on {thing} {place}"),
        False,
        "sway",
        (0.75, 1.0, 1.25),
        (0.0, 0.0),
        0.52,
        "rain",
    ),
    "waterfalls": Theme(
        waterfalls.SUBJECTS,
        waterfalls.draw,
        ("{thing} {place}", "{thing} flowing {place}"),
        False,
        "still",
        (0.75, 1.0, 1.25),
        (0.0, 0.0),
        0.52,
    ),
}

# Size factor and shift (x, y; shorter sides of the frame) of the travelling subjects, measured over their cycles so
# that each fits in the frame with room to move, those on foot with their feet at 0.87 of the height.
FIT: dict[str, tuple[float, float, float]] = {
    "dog": (0.98, -0.059, -0.004),
    "cat": (1.1, -0.027, 0.013),
    "fox": (0.93, -0.019, 0.059),
    "bear": (0.93, -0.084, -0.016),
    "elephant": (0.77, -0.054, 0.002),
    "giraffe": (0.87, -0.039, 0.005),
    "rabbit": (1.12, -0.045, 0.041),
    "lion": (0.93, -0.019, 0.031),
    "pig": (0.98, -0.069, 0.075),
    "turtle": (1.12, -0.095, 0.086),
    "tiger": (1.1, -0.027, 0.013),
    "man": (0.94, 0.019, -0.159),
    "woman": (1.01, 0.02, -0.165),
    "child": (1.09, 0.016, -0.052),
    "robot": (0.84, 0.013, -0.056),
    "alien": (0.84, 0.013, -0.04),
    "astronaut": (0.92, 0.018, -0.084),
    "sparrow": (1.12, -0.006, 0.062),
    "eagle": (0.88, 0.004, -0.004),
    "swan": (1.03, -0.062, 0.082),
    "parrot": (0.99, 0.064, 0.005),
    "owl": (0.99, 0.005, 0.015),
    "toucan": (1.0, -0.06, 0.075),
    "helicopter": (0.9, 0.0, -0.018),
    "chinook": (0.8, 0.007, 0.016),
    "drone": (0.92, 0.0, 0.037),
    "toy helicopter": (1.11, 0.0, -0.017),
    "horse": (0.9, -0.032, -0.012),
    "zebra": (0.9, -0.032, -0.012),
    "unicorn": (0.89, -0.031, -0.008),
    "pegasus": (0.9, -0.032, -0.012),
    "donkey": (0.94, -0.042, 0.039),
    "camel": (0.89, -0.044, -0.017),
}

# Subjects that share another subject's silhouette.
SHAPE_OF = {"tiger": "cat", "zebra": "horse"}
