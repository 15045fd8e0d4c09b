"""Whether what moves in place moves as the theme does: gait, wing beat, rotor, burst, falling water."""

from functools import lru_cache

import numpy as np

from rcv.world.render import render_clip
from rcv.world.rules import SIZE
from rcv.world.scene import SHAPE_OF, TABLE, Scene, colors_for

PHASES = 16
"""Silhouettes over a cycle."""
SHIFT = 12
"""Pixels by which a silhouette may be moved, each way."""
ORDERS = 24
"""Orders of the frames that chance is measured on."""
FALLS = np.arange(1.0, 13.5, 0.5)
"""Pixels a frame that water may fall; faster, and it would be taken for another streak."""
MOST_LAG = 26


def reference_scenes(theme, subject, background="meadow"):
    """Return one Scene for each cycle length of the theme: the clips that everything is compared with."""
    color, wanted, scenes = colors_for(theme, background)[0], set(TABLE[theme].periods), []
    for seed in range(1000):
        scene = Scene(theme, subject, color, background, seed)
        if scene.motion.period in wanted:
            wanted.remove(scene.motion.period)
            scenes.append(scene)
    return scenes


def gait(masks, theme, subject, fps):
    """Return how far a subject's silhouettes go through its cycle at one of the theme's rates, chance taken off.

    Frame i is compared with silhouettes of the cycle's phases; a steady cycle of rate r from phase p predicts
    overlap S[i, p + r i]. The best rate and phase of the theme's range are compared with what the same frames reach in
    other orders, on average: a still or shuffled video is at 0, and one that runs backwards below.

    Parameters
    ----------
    masks : bool array [F,64,64]
    fps : float

    Returns
    -------
    float
        Difference of mean overlaps (intersection over union).
    """
    overlaps = np.stack([_overlaps(mask, theme, SHAPE_OF.get(subject, subject)) for mask in masks])
    best = _steady(overlaps, theme, fps)
    rng = np.random.default_rng(0)
    chance = [_steady(overlaps[rng.permutation(len(overlaps))], theme, fps) for _ in range(ORDERS)]
    return float(best - np.mean(chance))


def fall(frames, speeds):
    """Return how much more what changes moves down than up, at one of `speeds`, chance taken off.

    Parameters
    ----------
    frames : uint8 array [F,64,64,3]
    speeds : sequence of float
        Pixels a frame that the theme's water falls by.

    Returns
    -------
    float
        Difference of correlations: frames with those one and two later, moved down and moved up; less what the same
        frames reach in other orders, on average. 0 for a still video.
    """
    correlations = _correlations(frames)
    rng = np.random.default_rng(0)
    orders = [rng.permutation(len(frames)) for _ in range(ORDERS)]
    chance = np.mean([_down_over_up(correlations, order, speeds) for order in orders])
    return float(_down_over_up(correlations, np.arange(len(frames)), speeds) - chance)


def fall_speeds(theme, subject, fps):
    """Return the speeds, pixels a frame, at which rendered clips of the subject correlate most, and those between."""
    peaks = []
    for scene in reference_scenes(theme, subject):
        clip = render_clip(scene, max(4, round(2 * fps)), SIZE, fps)
        correlations, order = _correlations(clip.frames), np.arange(len(clip.frames))
        peaks.append(FALLS[int(np.argmax([_moved(correlations, order, speed) for speed in FALLS]))])
    return FALLS[(min(peaks) - 0.5 <= FALLS) & (max(peaks) + 0.5 >= FALLS)]


def _down_over_up(correlations, order, speeds):
    down = max(_moved(correlations, order, speed) for speed in speeds)
    return down - max(_moved(correlations, order, -speed) for speed in speeds)


def _moved(correlations, order, speed):
    """Mean correlation of frames in this order with those one and two later, moved by `speed` pixels a frame."""
    parts = []
    for later in (1, 2):
        lag = MOST_LAG + round(speed * later)
        parts.append(correlations[lag, order[:-later], order[later:]].mean())
    return float(np.mean(parts))


def _correlations(frames):
    """Correlation [2*MOST_LAG+1,F,F] of frame i with frame j moved down by -MOST_LAG to MOST_LAG pixels.

    What stays is taken off; frames in which nothing changes correlate with none.
    """
    light = np.asarray(frames, dtype=np.float64).mean(-1)
    moving = light - light.mean(0)
    correlations = []
    for lag in range(-MOST_LAG, MOST_LAG + 1):
        a, b = (
            (moving[:, : SIZE - lag], moving[:, lag:])
            if lag >= 0
            else (moving[:, -lag:], moving[:, : SIZE + lag])
        )
        a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
        scale = np.sqrt((a**2).sum(1)[:, None] * (b**2).sum(1)[None])
        correlations.append(np.where(scale < 1.0, 0.0, a @ b.T / np.maximum(scale, 1.0)))
    return np.stack(correlations)


def _steady(overlaps, theme, fps):
    """The largest mean of overlaps [F,PHASES] along a steady cycle, over the theme's rates and all starts."""
    spec = TABLE[theme]
    rates = np.linspace(0.9 / max(spec.periods), 1.1 / min(spec.periods), 15) / fps
    frames = np.arange(len(overlaps))
    at = (rates[:, None, None] * frames + np.arange(PHASES)[None, :, None] / PHASES) * PHASES
    low = np.floor(at).astype(int)
    part = at - low
    along = overlaps[frames, low % PHASES] * (1 - part) + overlaps[frames, (low + 1) % PHASES] * part
    return float(along.mean(-1).max())


def _overlaps(mask, theme, subject):
    """Intersection over union [PHASES] of a mask with the subject's silhouettes, over sizes and shifts."""
    transforms, sizes = _silhouettes(theme, subject)
    shared = np.fft.irfft2(np.fft.rfft2(mask.astype(np.float32)) * transforms, s=mask.shape)
    near = np.r_[0 : SHIFT + 1, -SHIFT:0]
    shared = shared[..., near, :][..., near].max((-2, -1))
    return (shared / np.maximum(1.0, sizes + mask.sum() - shared)).max(0)


@lru_cache(maxsize=64)
def _silhouettes(theme, subject):
    """Fourier transforms [3,PHASES,64,33] and sizes [3,PHASES] of the subject's masks, phase 0 first."""
    masks = []
    for scene in reference_scenes(theme, subject):
        period = scene.motion.period
        start = (1.0 - scene.motion.phase) * period
        clip = render_clip(scene, PHASES, SIZE, fps=PHASES / period, start=start)
        masks.append(clip.mask > 64)  # a pixel that the subject covers by a quarter already stands out
    masks = np.stack(masks).astype(np.float32)
    return np.fft.rfft2(masks).conj(), masks.sum((-2, -1))
