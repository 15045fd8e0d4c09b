"""Named colours of the motion world and distances between colours in CIELAB."""

from __future__ import annotations

import numpy as np

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (215, 30, 40),
    "orange": (250, 140, 20),
    "yellow": (250, 225, 40),
    "green": (35, 150, 60),
    "blue": (30, 80, 220),
    "purple": (125, 45, 175),
    "pink": (250, 130, 195),
    "white": (248, 248, 248),
    "black": (22, 22, 26),
    "brown": (115, 66, 32),
    "gray": (128, 128, 132),
}
COLORS: tuple[str, ...] = tuple(PALETTE)

_XYZ_FROM_RGB = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE_D65 = np.array([0.95047, 1.0, 1.08883])


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB (D65) of sRGB values.

    Parameters
    ----------
    rgb : array [..., 3]
        sRGB, 0 to 255.

    Returns
    -------
    float64 array [..., 3]
        L in 0..100, a, b.

    Notes
    -----
    IEC 61966-2-1 for sRGB, CIE 15:2004 for L*a*b*.
    """
    srgb = np.asarray(rgb, dtype=np.float64) / 255.0
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _XYZ_FROM_RGB.T / _WHITE_D65
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack(
        [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1
    )


def color_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """CIE76 distance between sRGB colours ``a`` and ``b`` ([..., 3], 0 to 255), broadcast over leading axes."""
    return np.linalg.norm(lab(a) - lab(b), axis=-1)


def shade(color: tuple[int, int, int], factor: float) -> tuple[int, int, int]:
    """``color`` darkened (factor < 1, towards black) or lightened (factor > 1, towards white)."""
    if factor <= 1:
        return tuple(int(c * factor) for c in color)
    return tuple(int(c + (255 - c) * (factor - 1)) for c in color)
