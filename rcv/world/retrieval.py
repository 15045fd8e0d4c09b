"""How well a CLIP model tells frames of the motion world apart: by colour, subject and place, and among captions."""

from dataclasses import dataclass

import numpy as np
import torch

from rcv.world.backgrounds import BACKGROUNDS
from rcv.world.palette import COLORS
from rcv.world.render import render_clip
from rcv.world.scene import SUBJECTS, caption_of, held_out_scenes

GROUP = 64
SECONDS = 3.0
"""Frames are drawn from this much of a clip's start, as for training."""


@dataclass(frozen=True)
class Retrieval:
    """Shares, in [0, 1], of frames whose own caption is the nearest of several.

    Attributes
    ----------
    color, subject, place : float
        Among captions that differ in nothing else: 11 colours, the 4 to 11 subjects of the theme, 10 places.
    caption : float
        Among the captions of 64 frames of all themes.
    frames : int
    """

    color: float
    subject: float
    place: float
    caption: float
    frames: int


def measure_retrieval(clip, groups=4, seed=0, size=64):
    """Return the Retrieval of an ImageTextModel on rendered frames of held-out combinations, 64 a group.

    Parameters
    ----------
    clip : rcv.evaluation.clip.ImageTextModel
    groups : int
    seed : int
        Of the scenes and the times that the frames show.
    size : int
        Pixels a side of the frames.

    Raises
    ------
    ValueError
        More frames than combinations are held out.
    """
    scenes = held_out_scenes(groups * GROUP, seed)
    starts = np.random.default_rng([seed, 8]).random(len(scenes)) * SECONDS
    frames = [
        render_clip(scene, frames=1, size=size, start=start).frames[0]
        for scene, start in zip(scenes, starts, strict=True)
    ]
    images = clip.image_features(np.stack(frames))
    captions = clip.text_features([scene.caption for scene in scenes])
    right = {
        name: _exchange_resisted(clip, images, scenes, name) for name in ("color", "subject", "background")
    }
    grouped = zip(images.split(GROUP), captions.split(GROUP), strict=True)
    nearest = torch.cat([(i @ t.T).argmax(1) for i, t in grouped])
    return Retrieval(
        color=right["color"],
        subject=right["subject"],
        place=right["background"],
        caption=float((nearest == torch.arange(len(scenes)) % GROUP).float().mean()),
        frames=len(scenes),
    )


def _exchange_resisted(clip, images, scenes, name):
    """Return the share of images that are nearer to their caption than to all those with another `name`."""
    captions, owners = [], []
    for number, scene in enumerate(scenes):
        told = {n: getattr(scene, n) for n in ("theme", "subject", "color", "background")}
        values = {"color": COLORS, "background": BACKGROUNDS, "subject": SUBJECTS[scene.theme]}[name]
        # its own first: where none is nearer, it is the nearest
        values = sorted(values, key=lambda value, own=told[name]: value != own)
        captions += [caption_of(**{**told, name: value}) for value in values]
        owners += [number] * len(values)
    cosines = (clip.text_features(captions) * images[owners]).sum(-1)
    owners = torch.tensor(owners)
    return float(np.mean([int(cosines[owners == i].argmax()) == 0 for i in range(len(scenes))]))
