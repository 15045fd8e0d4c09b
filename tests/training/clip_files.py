"""Clips written for tests."""

import numpy as np

from rcv.video import write_video


def moving_square(frames, size=(32, 32), seed=0):
    """A bright square that moves over a coloured ground, uint8 [F,H,W,3]."""
    rng = np.random.default_rng(seed)
    height, width = size
    video = np.empty((frames, height, width, 3), np.uint8)
    video[:] = rng.integers(0, 120, 3)
    colour = rng.integers(140, 255, 3)
    side = height // 4
    for i in range(frames):
        left = (seed + 2 * i) % (width - side)
        top = height // 2 - side // 2
        video[i, top : top + side, left : left + side] = colour
    return video


def write_clip(folder, name, frames=8, size=(32, 32), seed=0, caption="a square moving", **options):
    """Write a clip and its caption; returns the clip's path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    write_video(path, moving_square(frames, size, seed), fps=8, **options)
    if caption is not None:
        stem = path.stem if path.suffix else path.name
        (folder / f"{stem}.txt").write_text(caption, encoding="utf-8")
    return path
