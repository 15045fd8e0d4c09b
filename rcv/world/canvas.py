"""A drawing surface in scene units that paints a picture and the subject's mask at once."""

from __future__ import annotations

import math

import numpy as np
from PIL import ImageDraw

Color = tuple[int, int, int]
Point = tuple[float, float]

_CIRCLE = [(math.cos(2 * math.pi * k / 28), math.sin(2 * math.pi * k / 28)) for k in range(28)]
_HALF = [(math.cos(math.pi * k / 10), math.sin(math.pi * k / 10)) for k in range(11)]


class Canvas:
    """Paints shapes given in local units (x right, y down) through a rotation, scale and shift.

    Parameters
    ----------
    picture : ImageDraw
        Of an RGB image.
    mask : ImageDraw or None
        Of an L image; every shape painted with ``solid=True`` is added to it.
    origin : (float, float)
        Pixel of the local origin.
    scale : float
        Pixels a local unit.
    angle : float
        Rotation in radians, clockwise on the screen.
    """

    def __init__(
        self,
        picture: ImageDraw.ImageDraw,
        mask: ImageDraw.ImageDraw | None,
        origin: Point,
        scale: float,
        angle: float = 0.0,
    ):
        self.picture, self.mask = picture, mask
        self.origin, self.scale, self.angle = origin, scale, angle
        self._a, self._b = scale * math.cos(angle), scale * math.sin(angle)

    def moved(self, x: float, y: float, angle: float = 0.0, scale: float = 1.0) -> Canvas:
        """A canvas whose origin lies at local (x, y), turned by ``angle`` and scaled by ``scale``."""
        return Canvas(self.picture, self.mask, self._pixel(x, y), self.scale * scale, self.angle + angle)

    def _pixel(self, x: float, y: float) -> Point:
        return (
            self.origin[0] + self._a * x - self._b * y,
            self.origin[1] + self._b * x + self._a * y,
        )

    def polygon(self, points: list[Point], color: Color, solid: bool = True) -> None:
        """Fill a polygon of local points."""
        a, b = self._a, self._b
        ox, oy = self.origin
        pixels = [(ox + a * x - b * y, oy + b * x + a * y) for x, y in points]
        self.picture.polygon(pixels, fill=color)
        if solid and self.mask is not None:
            self.mask.polygon(pixels, fill=255)

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, color: Color, angle: float = 0.0, solid: bool = True
    ) -> None:
        """Fill an ellipse of radii rx, ry around (x, y), turned by ``angle``."""
        c, s = math.cos(angle), math.sin(angle)
        self.polygon(
            [(x + rx * u * c - ry * v * s, y + rx * u * s + ry * v * c) for u, v in _CIRCLE], color, solid
        )

    def limb(self, start: Point, end: Point, r0: float, r1: float, color: Color, solid: bool = True) -> None:
        """Fill a tapered stroke with round ends of radii r0 at ``start`` and r1 at ``end``."""
        turn = math.atan2(end[1] - start[1], end[0] - start[0])
        c, s = math.cos(turn), math.sin(turn)
        points = [(start[0] + r0 * (-v * c - u * s), start[1] + r0 * (-v * s + u * c)) for u, v in _HALF]
        points += [(end[0] + r1 * (v * c + u * s), end[1] + r1 * (v * s - u * c)) for u, v in _HALF]
        self.polygon(points, color, solid)

    def path(self, points: list[Point], r0: float, r1: float, color: Color, solid: bool = True) -> None:
        """Limbs along ``points``, the radius going from r0 to r1."""
        radii = np.linspace(r0, r1, len(points)).tolist()
        for k in range(len(points) - 1):
            self.limb(points[k], points[k + 1], radii[k], radii[k + 1], color, solid)
