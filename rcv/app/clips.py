"""Clips as the app shows them before a run: a strip of frames each, captions, and problems."""

import base64
import html
import io
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from rcv.data.cache import open_cache
from rcv.data.entries import ClipsError
from rcv.data.folders import folder_entries
from rcv.data.survey import survey
from rcv.video import read_video
from rcv.video.fitting import resize
from rcv.world import render_clip
from rcv.world.clips import clip_scenes

STRIP_FRAMES = 6
STRIP_HEIGHT = 96


def folder_strips(config):
    """Return the clips of a ClipsConfig's folder or table as the trainer would find them.

    Returns
    -------
    (list of (uint8 [H,W,3], str), list of str)
        A strip of frames and a line for every clip that can be read; a sentence for every problem that would keep
        a run from starting.
    """
    if config.size is None and not config.buckets:  # the base's own is not known yet, and shows nothing more
        config = config.model_copy(update={"size": (STRIP_HEIGHT, STRIP_HEIGHT)})
    source, cache = config.clips.expanduser(), open_cache(config.cache)
    try:
        found = survey(source, config.shapes(), config.stride, config.fps, cache)
    except ClipsError as error:
        return [], list(error.problems)
    problems = list(dict.fromkeys(problem for one in found for problem in one.problems))
    return [(_taken(one), _line(one)) for one in found if one.facts is not None], problems


def _taken(found):
    """The strip of a Surveyed clip: of the frames that count."""
    numbers = np.asarray(found.clip.indices if found.clip else range(len(found.facts.times)))
    numbers = numbers[np.linspace(0, len(numbers) - 1, min(STRIP_FRAMES, len(numbers))).astype(int)]
    return _strip(read_video(found.entry.path, indices=numbers).frames)


def _line(found):
    said = found.as_dict()
    height, width = said["size"]
    shape = f"{said['frames']} frames, {said['fps']:g} a second, {height}x{width}"
    return f"{said['name']}: {said['caption'] or 'no caption'} ({shape})"


def theme_strips(config, seed):
    """Return a strip and the caption of every clip that a run with this seed would render of a ClipsConfig's theme."""
    scenes = clip_scenes(config.theme, config.clip_count, seed, config.exclude_subject)
    frames = (config.frames - 1) * config.stride + 1
    return [(_strip(render_clip(scene, frames, STRIP_HEIGHT).frames), scene.caption) for scene in scenes]


def contact_sheet(strips):
    """Return the HTML of strips, each with its line of text under it, which is shown as it is written."""
    figures = []
    for strip, text in strips:
        picture = io.BytesIO()
        Image.fromarray(strip).save(picture, format="PNG")
        source = f"data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}"
        line = html.escape(text)
        figures.append(f'<figure><img src="{source}" alt="{line}"><figcaption>{line}</figcaption></figure>')
    return "".join(figures)


def keep_uploads(files, caption, folder):
    """Copy uploaded clips and captions into a new folder under `folder` and return it.

    Parameters
    ----------
    files : sequence of path
        Clips, and NAME.txt beside NAME.mp4.
    caption : str
        Written for the clips that come without one; none if empty.
    """
    if not files:
        raise ValueError("no files were uploaded; drop clips and their NAME.txt into the field")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    kept = Path(tempfile.mkdtemp(prefix="clips-", dir=folder))
    for file in files:
        name = re.sub(r"[/\\\0]", "-", Path(file).name).lstrip(".")
        if (kept / name).exists():
            raise ValueError(f"two of the files are called {name}; rename one of them")
        shutil.copyfile(file, kept / name)
    if caption.strip():
        for entry in folder_entries(kept):
            text = entry.path.with_suffix(".txt")
            if not text.exists():
                text.write_text(caption.strip() + "\n", encoding="utf-8")
    return kept


def _strip(frames):
    """Some of the frames, uint8 [F,H,W,3], side by side: [96,W',3]."""
    if len(frames) > STRIP_FRAMES:
        frames = frames[np.linspace(0, len(frames) - 1, STRIP_FRAMES).astype(int)]
    width = max(1, round(frames.shape[2] * STRIP_HEIGHT / frames.shape[1]))
    return np.concatenate([resize(frame, (STRIP_HEIGHT, width)) for frame in frames], axis=1)
