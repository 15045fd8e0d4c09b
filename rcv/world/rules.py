"""Rules on pixels that say which subject and colour a picture of the motion world shows.

No learning: what stands out from the place that the caption names is the subject; its colour is the palette colour that
most of it is nearest to, its shape the rendered silhouette of the theme that overlaps it most.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from .backgrounds import paint
from .palette import COLORS, PALETTE, lab, shade
from .render import render_clip
from .scene import SHAPE_OF, SUBJECTS, TABLE, Scene, colors_for, parse_caption

SIZE = 64
STANDS_OUT = 20.0
"""CIE76 distance from every colour that the place shows at that height."""
SHADES = (1.0, 0.78, 0.88)
"""Far limbs and wings are drawn in these shades of the subject's colour."""
LEAST_OVERLAP = 0.7
"""Intersection over union below which a shape is none of the theme's: lower, and plain ellipses pass above chance."""
SHIFT = 10
"""Pixels by which a silhouette may be moved, each way."""
_SEEDS = 16
_TIMES = 12


@dataclass(frozen=True)
class Verdict:
    """What a picture shows, and whether its caption says so.

    Attributes
    ----------
    color, shape : str or None
        The palette colour and the silhouette (named by its first subject) that were recognised; None if nothing
        stands out from the place, or it overlaps no silhouette by 0.7.
    color_ok, shape_ok : bool
    overlap : float
        Intersection over union with the best silhouette.
    center : (float, float)
        Mean x and y of what stands out, as fractions of width and height; nan if nothing does.
    """

    color: str | None
    shape: str | None
    color_ok: bool
    shape_ok: bool
    overlap: float
    center: tuple[float, float]


def judge(image, caption):
    """Judge one picture by its caption.

    Parameters
    ----------
    image : uint8 array [H,W,3]
        Seen at 64x64 pixels.
    caption : str
        Of the motion world, as `parse_caption` reads it.

    Returns
    -------
    Verdict
        By chance the colour is right once in eleven, the shape once in the theme's number of silhouettes.

    Raises
    ------
    ValueError
        For a caption of another world, or pixels of another form.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image has dtype {image.dtype} and shape {image.shape}, expected uint8 [H,W,3]")
    told = parse_caption(caption)
    seen = np.asarray(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BOX))
    mask = foreground(seen, told["theme"], told["background"])
    if mask.sum() < 0.01 * mask.size:
        return Verdict(None, None, False, False, 0.0, (float("nan"), float("nan")))
    color = _color(lab(seen[mask]))
    shape, overlap = _shape(mask, told["theme"])
    wanted = SHAPE_OF.get(told["subject"], told["subject"])
    y, x = np.nonzero(mask)
    center = (float(x.mean() + 0.5) / SIZE, float(y.mean() + 0.5) / SIZE)
    shape = shape if overlap >= LEAST_OVERLAP else None
    return Verdict(color, shape, color == told["color"], shape == wanted, overlap, center)


def judge_video(frames, caption):
    """Return the Verdict of every frame of uint8 [F,H,W,3]; their centers are the subject's trajectory."""
    return [judge(frame, caption) for frame in frames]


def foreground(image, theme, background):
    """Return bool [64,64]: what stands out from the place; specks are left out (drops of rain, stars).

    `image` is uint8 [64,64,3].
    """
    distance = np.full((SIZE, SIZE), np.inf)
    colors = lab(image)
    for row, palette in enumerate(_place_colors(theme, background)):
        distance[row] = np.linalg.norm(colors[row][:, None] - palette[None], axis=-1).min(1)
    return _without_specks(distance > STANDS_OUT)


@lru_cache(maxsize=128)
def _place_colors(theme, background):
    """CIELAB colours [n,3] that a place shows at each row, or within two rows of it, over many of its variants."""
    light, cliff = TABLE[theme].light, theme == "waterfalls"
    variants = [
        np.asarray(paint(background, light, (2 * SIZE, 2 * SIZE), seed, 0.13 * seed, cliff=cliff).reduce(2))
        for seed in range(_SEEDS)
    ]
    # in steps of 6 levels, three channels in one number: unique numbers are found 20 times faster than unique rows
    red, green, blue = np.moveaxis(np.stack(variants, axis=1).astype(np.int32) // 6, -1, 0)
    packed = (red << 16) + (green << 8) + blue
    found = []
    for row in range(SIZE):
        colors, counts = np.unique(packed[max(0, row - 2) : row + 3], return_counts=True)
        common = colors[counts >= 12]
        found.append(lab(np.stack([common >> 16, common >> 8 & 255, common & 255], axis=-1) * 6 + 3))
    return tuple(found)


def _without_specks(mask):
    """Opening by a 2x2 square, then growth back into the mask: thin drops go, limbs that touch a body stay."""
    core = mask[:-1, :-1] & mask[1:, :-1] & mask[:-1, 1:] & mask[1:, 1:]
    grown = np.zeros_like(mask)
    for dy in (0, 1):
        for dx in (0, 1):
            grown[dy : dy + SIZE - 1, dx : dx + SIZE - 1] |= core
    padded = np.pad(grown, 1)
    around = [
        padded[1 + dy : 1 + dy + SIZE, 1 + dx : 1 + dx + SIZE] for dy in (-1, 0, 1) for dx in (-1, 0, 1)
    ]
    return mask & np.logical_or.reduce(around)


@lru_cache(maxsize=1)
def _prototypes():
    pairs = [(number, shade(PALETTE[name], s)) for number, name in enumerate(COLORS) for s in SHADES]
    return np.array([number for number, _ in pairs]), lab(np.array([color for _, color in pairs]))


def _color(pixels):
    """The palette colour that most CIELAB pixels [n,3] are nearest to."""
    numbers, prototypes = _prototypes()
    nearest = np.linalg.norm(pixels[:, None] - prototypes[None], axis=-1).argmin(1)
    return COLORS[np.bincount(numbers[nearest], minlength=len(COLORS)).argmax()]


@lru_cache(maxsize=16)
def _silhouettes(theme):
    """Shape names, and the Fourier transforms and sizes of their masks over the motion's cycle."""
    names, masks = [], []
    for subject in dict.fromkeys(SHAPE_OF.get(subject, subject) for subject in SUBJECTS[theme]):
        for seed in range(3):
            scene = Scene(theme, subject, colors_for(theme, "meadow")[0], "meadow", seed)
            clip = render_clip(scene, _TIMES, SIZE, fps=_TIMES / scene.motion.period)
            # a pixel that the subject covers by a quarter already stands out
            masks += list(clip.mask > 64)
            names += [subject] * _TIMES
    masks = np.stack(masks).astype(np.float32)
    return names, np.fft.rfft2(masks).conj(), masks.sum((1, 2))


def _shape(mask, theme):
    """The silhouette that overlaps `mask` most, over shifts of up to 10 pixels, and its intersection over union."""
    names, transforms, sizes = _silhouettes(theme)
    shared = np.fft.irfft2(np.fft.rfft2(mask.astype(np.float32)) * transforms, s=mask.shape)
    near = np.r_[0 : SHIFT + 1, -SHIFT:0]
    shared = shared[:, near][:, :, near].max((1, 2))
    overlap = shared / (sizes + mask.sum() - shared)
    best = int(overlap.argmax())
    return names[best], float(overlap[best])
