"""Which of the motion world's places a picture shows, by the colours at its left and right edges."""

from functools import lru_cache

import numpy as np
from PIL import Image

from rcv.world.backgrounds import BACKGROUNDS, paint
from rcv.world.palette import lab
from rcv.world.rules import SIZE
from rcv.world.scene import TABLE

EDGE = 12
"""Columns on each side, of 64: subjects rarely reach there, and the median of a row passes over limbs that do."""
_VARIANTS = 12


def place_of(image, theme):
    """Return the background whose rendered variants are nearest to the picture, row by row.

    Parameters
    ----------
    image : uint8 array [H,W,3]
        Seen at 64x64 pixels.
    theme : str
        Decides the light (day, night, rain) and whether a cliff stands in the place.

    Returns
    -------
    str
        By chance right once in ten.
    """
    seen = np.asarray(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BOX))
    names, profiles = _profiles(theme)
    return names[int(np.linalg.norm(profiles - _profile(seen), axis=-1).mean(1).argmin())]


def _profile(image):
    """CIELAB colour [64,3] of each row's edges."""
    return lab(np.median(np.concatenate([image[:, :EDGE], image[:, -EDGE:]], axis=1), axis=1))


@lru_cache(maxsize=8)
def _profiles(theme):
    """Names and profiles [n,64,3] of variants of every place."""
    light, cliff = TABLE[theme].light, theme == "waterfalls"
    size = (2 * SIZE, 2 * SIZE)
    names, profiles = [], []
    for name in BACKGROUNDS:
        for seed in range(_VARIANTS):
            image = paint(name, light, size, seed, 0.13 * seed, cliff=cliff).reduce(2)
            names.append(name)
            profiles.append(_profile(np.asarray(image)))
    return names, np.stack(profiles)
