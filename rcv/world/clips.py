"""Folders of captioned clips of a theme, as finetuning reads them."""

import re
from pathlib import Path

import numpy as np

from rcv.video import replacing, write_video
from rcv.world.backgrounds import BACKGROUNDS
from rcv.world.palette import COLORS
from rcv.world.render import FPS, render_clip
from rcv.world.scene import SUBJECTS, get_theme_name, sample_scene


def clip_scenes(theme, count, seed=0, exclude_subject=()):
    """Return `count` scenes of a theme, the subjects in turn, no combination of subject, colour and place twice.

    Parameters
    ----------
    theme : str
    seed : int
        Other seeds give other orders, colours, places and motions.
    exclude_subject : str or sequence of str
        Subjects that are kept out, to be generated afterwards.

    Raises
    ------
    ValueError
        An unknown theme or subject (naming the nearest); no subject left; more clips than combinations.
    """
    theme = get_theme_name(theme)
    if count < 1:
        raise ValueError(f"count is {count}, expected 1 clip or more")
    if isinstance(exclude_subject, str):
        exclude_subject = (exclude_subject,)
    for subject in exclude_subject:
        sample_scene(theme, 0, subject=subject)
    subjects = [subject for subject in SUBJECTS[theme] if subject not in exclude_subject]
    if not subjects:
        raise ValueError(
            f"exclude_subject leaves no subject of {theme!r} (it has: {', '.join(SUBJECTS[theme])})"
        )
    combinations = len(subjects) * len(COLORS) * len(BACKGROUNDS)
    if count > combinations:
        raise ValueError(
            f"count is {count}, more than the {combinations} combinations of subject, colour and place"
        )
    order = np.random.default_rng([seed, 7]).permutation(len(subjects))
    scenes, seen = [], set()
    for attempt in range(100 * count + 1000):
        subject = subjects[order[len(scenes) % len(order)]]
        scene = sample_scene(theme, seed * 1_000_003 + attempt, subject=subject)
        if (combination := (scene.subject, scene.color, scene.background)) not in seen:
            seen.add(combination)
            scenes.append(scene)
            if len(scenes) == count:
                return scenes
    raise ValueError(
        f"count is {count}, more than {theme!r} has combinations that stand out from their place"
    )


def write_clips(folder, theme, count, seed=0, frames=16, size=64, fps=FPS, exclude_subject=()):
    """Write clips of a theme and their captions into a folder.

    Parameters
    ----------
    folder : path
        Made if need be. Gets NAME.mkv (FFV1: exactly the rendered pixels) and NAME.txt for each clip; other files
        in it stay. Each file appears whole or not at all, a caption before its clip.
    theme, count, seed, exclude_subject
        As `clip_scenes` takes them; the same arguments write the same clips.
    frames : int
    size : int or (height, width)
        Pixels.
    fps : float
        Frames a second: of the motion, and of the file.

    Returns
    -------
    list of pathlib.Path
        The clips.

    Raises
    ------
    ValueError
        As `clip_scenes` and `render_clip`.
    OSError
        The folder cannot be written (no permission, full disk, a file of that name); names the file.
    """
    folder = Path(folder)
    paths = []
    for number, scene in enumerate(clip_scenes(theme, count, seed, exclude_subject)):
        clip = render_clip(scene, frames, size, fps)
        name = re.sub(r"\W+", "-", f"{number:02d} {scene.caption}")
        with replacing(folder / f"{name}.txt") as part:
            part.write_text(scene.caption + "\n", encoding="utf-8")
        paths.append(write_video(folder / f"{name}.mkv", clip.frames, fps, lossless=True))
    return paths
