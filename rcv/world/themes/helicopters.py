"""Flying machines with rotors."""

from __future__ import annotations

import math

from ..canvas import Canvas, Color
from ..palette import shade

SUBJECTS = ("helicopter", "chinook", "drone", "toy helicopter")
_GLASS = (175, 215, 235)


def _rotor(c: Canvas, x: float, y: float, length: float, phase: float, color: Color) -> None:
    # A two-bladed rotor seen from the side shows its projected length.
    reach = length * (0.35 + 0.65 * abs(math.cos(math.pi * phase)))
    c.limb((x - reach, y), (x + reach, y), 0.022, 0.022, color)
    c.ellipse(x, y, 0.03, 0.03, color)


def draw(canvas: Canvas, subject: str, phase: float, color: Color) -> None:
    """Paint the machine ``subject`` at ``phase`` (half turns of its rotor) around the origin."""
    far = shade(color, 0.78)
    c = canvas
    if subject == "helicopter":
        c = c.moved(-0.02, 0.02, 0.06)
        c.limb((0.0, -0.02), (-0.4, -0.08), 0.08, 0.03, color)
        c.polygon([(-0.37, -0.07), (-0.47, -0.2), (-0.41, -0.2), (-0.32, -0.08)], color)
        c.ellipse(0.11, 0.02, 0.22, 0.145, color)
        c.polygon(
            [(0.15, -0.07), (0.22, -0.06), (0.29, 0.0), (0.29, 0.04), (0.15, 0.04)], _GLASS, solid=False
        )
        c.limb((0.07, -0.1), (0.07, -0.19), 0.025, 0.02, color)
        _skids(c, -0.06, 0.28, 0.22, far)
        _rotor(c, 0.07, -0.2, 0.40, phase, far)
    elif subject == "chinook":
        c.limb((-0.3, 0.03), (0.3, 0.05), 0.12, 0.115, color)
        c.polygon([(-0.42, 0.0), (-0.4, -0.2), (-0.24, -0.2), (-0.18, -0.02)], color)
        c.polygon([(0.22, 0.0), (0.26, -0.13), (0.36, -0.13), (0.4, 0.02)], color)
        c.polygon([(0.3, -0.03), (0.37, -0.02), (0.4, 0.05), (0.3, 0.05)], _GLASS, solid=False)
        for x in (-0.15, -0.02, 0.11):
            c.ellipse(x, 0.01, 0.028, 0.028, _GLASS, solid=False)
        for x in (-0.26, 0.24):
            c.ellipse(x, 0.17, 0.045, 0.045, far)
        _rotor(c, -0.32, -0.22, 0.2, phase, far)
        _rotor(c, 0.31, -0.16, 0.2, phase + 0.5, far)
    elif subject == "drone":
        for dx, dy in ((-0.31, -0.15), (0.31, -0.15), (-0.34, 0.13), (0.34, 0.13)):
            c.limb((0, 0), (dx, dy), 0.045, 0.035, color if dy > 0 else far)
            wide = 0.07 + 0.07 * abs(math.cos(math.pi * (phase + (dx > 0) / 2)))
            c.ellipse(dx, dy - 0.045, wide, 0.04, far if dy < 0 else color)
        c.ellipse(0, 0.01, 0.16, 0.105, color)
        c.ellipse(0.03, 0.06, 0.035, 0.035, _GLASS, solid=False)
    else:
        c = c.moved(0.03, 0.03)
        c.limb((-0.1, 0.0), (-0.3, -0.03), 0.06, 0.035, color)
        c.ellipse(-0.31, -0.05, 0.075, 0.075, color)
        c.ellipse(0.04, 0.0, 0.2, 0.2, color)
        c.ellipse(0.11, -0.04, 0.085, 0.085, _GLASS, solid=False)
        c.limb((0.04, -0.18), (0.04, -0.27), 0.025, 0.02, color)
        _skids(c, -0.1, 0.2, 0.27, far)
        _rotor(c, 0.04, -0.28, 0.27, phase, far)


def _skids(c: Canvas, x0: float, x1: float, y: float, color: Color) -> None:
    c.limb((x0, y), (x1, y), 0.02, 0.02, color)
    for x in (x0 + 0.08, x1 - 0.1):
        c.limb((x, y), (x, y - 0.1), 0.016, 0.016, color)
