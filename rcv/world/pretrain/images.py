"""Training images: single frames of scenes at random times, with their captions; held-out combinations left out."""

import json
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import numpy as np

from rcv.world.backgrounds import BACKGROUNDS
from rcv.world.palette import COLORS
from rcv.world.render import FPS, render_clip
from rcv.world.scene import SUBJECTS, THEMES, sample_scene

CHUNK = 500
SECONDS = 3.0
"""Frames are drawn from this much of a clip's start: longer than 16 frames at 8 a second."""
SUBJECT_INDEX = {pair: number for number, pair in enumerate((t, s) for t in THEMES for s in SUBJECTS[t])}


def training_scene(index, seed):
    """Return the scene of training image `index` and the time in seconds that it shows."""
    scene = sample_scene(THEMES[index % len(THEMES)], seed * 10_000_019 + index, held_out=False)
    return scene, float(np.random.default_rng([seed, 6, index]).random() * SECONDS)


def render_images(folder, count, size, seed, workers, progress=None):
    """Return `count` images, uint8 [count, size, size, 3] mapped from a file, and their scenes.

    Rendered on first use into FOLDER/images.npy; a file that another count, size or seed made is rendered anew.

    Parameters
    ----------
    progress : callable, optional
        Called with the number of images done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file, note = folder / "images.npy", folder / "images.json"
    wanted = {"count": count, "size": size, "seed": seed, "seconds": SECONDS, "fps": FPS}
    if not (file.exists() and note.exists() and json.loads(note.read_text()) == wanted):
        note.unlink(missing_ok=True)
        temporary = folder / "images.tmp.npy"
        images = np.lib.format.open_memmap(temporary, "w+", np.uint8, (count, size, size, 3))
        starts = range(0, count, CHUNK)
        render = partial(_render_chunk, count=count, size=size, seed=seed)
        # spawn: a fork of a process whose PyTorch has threads may hang
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for start, chunk in zip(starts, pool.map(render, starts), strict=True):
                images[start : start + len(chunk)] = chunk
                if progress is not None:
                    progress(start + len(chunk))
        images.flush()
        os.replace(temporary, file)
        note.write_text(json.dumps(wanted))
    return np.load(file, mmap_mode="r"), [training_scene(index, seed)[0] for index in range(count)]


def _render_chunk(start, count, size, seed):
    images = []
    for index in range(start, min(start + CHUNK, count)):
        scene, time = training_scene(index, seed)
        images.append(render_clip(scene, frames=1, size=size, start=time).frames[0])
    return np.stack(images)


def attributes(scene):
    """Return what a caption names, as numbers: subject (of all themes), colour, background."""
    subject = SUBJECT_INDEX[scene.theme, scene.subject]
    return subject, COLORS.index(scene.color), BACKGROUNDS.index(scene.background)
