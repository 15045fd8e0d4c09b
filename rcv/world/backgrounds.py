"""Places: flat, quiet backgrounds that scroll and repeat every two frame widths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .canvas import Canvas, Color
from .palette import COLORS, PALETTE, color_distance, shade
from .themes.waterfalls import draw_cliff


@dataclass(frozen=True)
class Place:
    """Colours of a place; ``features`` names what stands in it, ``prepositions`` is (on foot, flying)."""

    sky: Color
    ground: Color
    accent: Color
    features: tuple[str, ...]
    prepositions: tuple[str, str]


PLACES: dict[str, Place] = {
    "meadow": Place(
        (150, 205, 240),
        (150, 210, 115),
        (135, 198, 105),
        ("cloud", "hill"),
        ("in the meadow", "over the meadow"),
    ),
    "desert": Place(
        (250, 228, 180),
        (226, 188, 128),
        (234, 200, 145),
        ("sun", "hill"),
        ("in the desert", "over the desert"),
    ),
    "snow": Place(
        (165, 195, 222), (236, 242, 248), (135, 170, 170), ("pine",), ("in the snow", "over the snow")
    ),
    "beach": Place(
        (150, 212, 238), (238, 218, 165), (90, 180, 210), ("sea", "cloud"), ("on the beach", "over the beach")
    ),
    "night": Place((28, 34, 76), (42, 62, 70), (232, 228, 195), ("moon", "star"), ("at night", "at night")),
    "sunset": Place(
        (252, 165, 120), (105, 72, 100), (255, 205, 120), ("lowsun",), ("at sunset", "at sunset")
    ),
    "forest": Place(
        (185, 222, 190), (120, 152, 95), (100, 135, 95), ("trunk",), ("in the forest", "over the forest")
    ),
    "mountains": Place(
        (195, 218, 240),
        (165, 190, 145),
        (150, 160, 185),
        ("peak",),
        ("in the mountains", "over the mountains"),
    ),
    "city": Place(
        (205, 210, 220), (105, 108, 116), (165, 172, 190), ("building",), ("in the city", "over the city")
    ),
    "mars": Place((236, 192, 165), (196, 112, 82), (180, 98, 70), ("crater",), ("on mars", "over mars")),
}
BACKGROUNDS: tuple[str, ...] = tuple(PLACES)
# Least CIE76 distance between a subject's colour and the large areas behind it.
CONTRAST = 30.0
PERIOD = 2.0
CLIFF: tuple[Color, Color] = ((150, 138, 128), (135, 123, 114))


def lit(color: Color, light: str) -> Color:
    """``color`` by day, at night or in the rain."""
    if light == "night":
        return tuple(int(0.2 * c + o) for c, o in zip(color, (6, 8, 28), strict=True))
    if light == "rain":
        return tuple(int(0.72 * c + 0.28 * o) for c, o in zip(color, (125, 135, 150), strict=True))
    return color


def large_areas(background: str, light: str, cliff: bool) -> list[Color]:
    """Colours of the areas that a subject is seen against."""
    place = PLACES[background]
    colors = [place.sky, place.ground]
    if any(f in ("sea", "building", "peak", "trunk") for f in place.features):
        colors.append(place.accent)
    if cliff:
        colors = [CLIFF[0], place.sky, place.ground]
    return [lit(c, light) for c in colors]


def allowed_colors(background: str, light: str, cliff: bool = False) -> tuple[str, ...]:
    """Palette names that stand out from every large area of the background."""
    areas = np.array(large_areas(background, light, cliff))
    return tuple(
        name for name in COLORS if float(color_distance(np.array(PALETTE[name]), areas).min()) >= CONTRAST
    )


def paint(
    background: str, light: str, size: tuple[int, int], seed: int, offset: float = 0.0, cliff: bool = False
) -> Image.Image:
    """An RGB picture of a place.

    Parameters
    ----------
    size : (height, width)
        In pixels.
    offset : float
        How far the camera has moved to the right, in frame widths.
    """
    height, width = size
    place = PLACES[background]
    rng = np.random.default_rng([seed, 11])
    horizon = 0.62 + 0.05 * float(rng.random())
    tint = 1.0 + 0.05 * (float(rng.random()) - 0.5)
    sky, ground, accent = (
        lit(tuple(min(255, int(v * tint)) for v in c), light) for c in (place.sky, place.ground, place.accent)
    )
    image = Image.new("RGB", (width, height), sky)
    picture = ImageDraw.Draw(image)
    canvas = Canvas(picture, None, (0.0, 0.0), float(min(height, width)))
    aspect = (width / min(height, width), height / min(height, width))
    line = horizon * aspect[1]
    below = [(0.0, line), (aspect[0], line), (aspect[0], aspect[1]), (0.0, aspect[1])]
    for feature in place.features:
        _FEATURES[feature](canvas, rng, aspect, line, offset, accent, sky)
    canvas.polygon(below, ground)
    if "crater" in place.features:
        for x, y in zip(_xs(rng, 5, aspect, offset), rng.random(5).tolist(), strict=True):
            canvas.ellipse(x, line + 0.05 + 0.28 * y, 0.07, 0.02, accent)
    if cliff:
        middle = canvas.moved(0.5 * aspect[0], 0.52 * aspect[1])
        draw_cliff(middle, tuple(lit(c, light) for c in CLIFF))
    return image


def _xs(rng: np.random.Generator, count: int, aspect: tuple[float, float], offset: float) -> list[float]:
    """Places of ``count`` features spread over the period, seen from ``offset``, in canvas units."""
    spread = (np.arange(count) + 0.7 * rng.random(count)) / count * PERIOD
    return (((spread - offset + 0.4) % PERIOD - 0.4) * aspect[0]).tolist()


def _cloud(c: Canvas, rng, aspect, line, offset, accent, sky) -> None:
    color = shade(sky, 1.45)
    for x, y in zip(_xs(rng, 4, aspect, offset), rng.random(4).tolist(), strict=True):
        c.ellipse(x, 0.07 + 0.06 * y, 0.1, 0.028, color)
        c.ellipse(x + 0.03, 0.05 + 0.06 * y, 0.05, 0.03, color)


def _hill(c: Canvas, rng, aspect, line, offset, accent, sky) -> None:
    for x, y in zip(_xs(rng, 4, aspect, offset), rng.random(4).tolist(), strict=True):
        c.ellipse(x, line + 0.03, 0.36, 0.08 + 0.05 * y, accent)


def _sun(c: Canvas, rng, aspect, line, offset, accent, sky) -> None:
    c.ellipse(aspect[0] * (0.1 + 0.06 * float(rng.random())), 0.11, 0.065, 0.065, shade(sky, 1.5))


def _lowsun(c: Canvas, rng, aspect, line, offset, accent, sky) -> None:
    c.ellipse(aspect[0] * (0.35 + 0.3 * float(rng.random())), line - 0.02, 0.17, 0.17, accent)


def _moon(c: Canvas, rng, aspect, line, offset, accent, sky) -> None:
    x = aspect[0] * (0.09 + 0.05 * float(rng.random()))
    c.ellipse(x, 0.1, 0.06, 0.06, accent)
    c.ellipse(x + 0.03, 0.085, 0.05, 0.05, sky)


def _star(c: Canvas, rng, aspect, line, offset, accent, sky) -> None:
    for x, y in zip(_xs(rng, 18, aspect, offset), rng.random(18).tolist(), strict=True):
        c.ellipse(x, 0.03 + 0.5 * y, 0.009, 0.009, shade(accent, 0.75))


def _sea(c: Canvas, rng, aspect, line, offset, accent, sky) -> None:
    c.polygon([(0, line - 0.14), (aspect[0], line - 0.14), (aspect[0], line), (0, line)], accent)


def _pine(c: Canvas, rng, aspect, line, offset, accent, sky) -> None:
    for x, y in zip(_xs(rng, 7, aspect, offset), rng.random(7).tolist(), strict=True):
        h = 0.16 + 0.08 * y
        c.polygon([(x - 0.07, line), (x, line - h), (x + 0.07, line)], accent)


def _trunk(c: Canvas, rng, aspect, line, offset, accent, sky) -> None:
    for x, y in zip(_xs(rng, 7, aspect, offset), rng.random(7).tolist(), strict=True):
        c.limb((x, line), (x, line - 0.4), 0.025, 0.02, accent)
        c.ellipse(x, line - 0.42 - 0.06 * y, 0.14, 0.12, accent)


def _peak(c: Canvas, rng, aspect, line, offset, accent, sky) -> None:
    for x, y in zip(_xs(rng, 5, aspect, offset), rng.random(5).tolist(), strict=True):
        h = 0.28 + 0.12 * y
        c.polygon([(x - 0.3, line), (x, line - h), (x + 0.3, line)], accent)
        c.polygon(
            [(x - 0.07, line - h * 0.77), (x, line - h), (x + 0.07, line - h * 0.77)], shade(accent, 1.6)
        )


def _building(c: Canvas, rng, aspect, line, offset, accent, sky) -> None:
    for x, y in zip(_xs(rng, 9, aspect, offset), rng.random(9).tolist(), strict=True):
        top = line - 0.14 - 0.3 * y
        c.polygon(
            [(x - 0.09, line), (x - 0.09, top), (x + 0.09, top), (x + 0.09, line)],
            shade(accent, 0.95 + 0.05 * y),
        )


def _crater(c: Canvas, rng, aspect, line, offset, accent, sky) -> None:
    for x in _xs(rng, 3, aspect, offset):
        c.ellipse(x, line + 0.02, 0.25, 0.06, accent)


_FEATURES = {
    "cloud": _cloud,
    "hill": _hill,
    "sun": _sun,
    "lowsun": _lowsun,
    "moon": _moon,
    "star": _star,
    "sea": _sea,
    "pine": _pine,
    "trunk": _trunk,
    "peak": _peak,
    "building": _building,
    "crater": _crater,
}
