"""Faithfulness to the prompt and consistency over time: metrics of CLIP features, and of neighbouring pixels."""

from itertools import pairwise

import numpy as np


def clip_score(images, text):
    """Return 100 times the mean cosine of frames' features [F,D] to a prompt's [D], not below 0.

    CLIPScore (Hessel et al., 2021) with the scale of torchmetrics, the mean over frames as in EvalCrafter.
    """
    return max(0.0, 100 * float((images @ text).mean()))


def clip_temp(images):
    """Return 100 times the mean cosine of neighbouring frames' features [F,D], F at least 2 (EvalCrafter)."""
    return 100 * float((images[1:] * images[:-1]).sum(-1).mean())


def background_consistency(images):
    """Return the mean, in [0,1], of each later frame's likeness to the frame before it and to the first.

    Likeness is the cosine of features [F,D], not below 0; F at least 2 (VBench, Huang et al., 2024).
    """
    later = images[1:]
    before = (later * images[:-1]).sum(-1).clamp(min=0)
    first = (later @ images[0]).clamp(min=0)
    return float(((before + first) / 2).mean())


def flicker(frames):
    """Return 1 minus the mean absolute difference of neighbouring frames over 255: 1 for a still video (VBench).

    `frames` is uint8 [F,H,W,3], F at least 2.
    """
    return 1 - float(np.mean([np.abs(a.astype(np.int16) - b).mean() for a, b in pairwise(frames)])) / 255
