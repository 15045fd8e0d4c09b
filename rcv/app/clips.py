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

from rcv.training.clips import ClipFolder, ClipsError, find_clips, read_caption
from rcv.video import probe, read_video
from rcv.video.fitting import resize
from rcv.world import render_clip
from rcv.world.clips import clip_scenes

STRIP_FRAMES = 6
STRIP_HEIGHT = 96


def folder_strips(config):
    """Return the clips of a ClipsConfig's folder as the trainer would find them.

    Returns
    -------
    (list of (uint8 [H,W,3], str), list of str)
        A strip of frames and a line for every clip that can be read; a sentence for every problem that would keep
        a run from starting.
    """
    folder = config.clips.expanduser()
    size = config.size or (STRIP_HEIGHT, STRIP_HEIGHT)
    try:
        paths, _ = find_clips(folder)
    except ClipsError as error:
        return [], list(error.problems)
    try:
        ClipFolder(folder, config.frames, size, config.stride, cache_bytes=0)
        problems = []
    except ClipsError as error:
        problems = list(error.problems)
    strips = []
    for path in paths:
        caption, _ = read_caption(path)
        try:
            info = probe(path)
            taken = np.linspace(0, info.frames - 1, min(STRIP_FRAMES, info.frames)).astype(int)
            strip = _strip(read_video(path, indices=taken).frames)
        except (ValueError, OSError):  # among the problems already
            continue
        told = f"{info.frames} frames, {info.fps:g} a second, {info.height}x{info.width}"
        strips.append((strip, f"{path.name}: {caption or 'no caption'} ({told})"))
    return strips, problems


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
        for clip in find_clips(kept)[0]:
            text = clip.with_suffix(".txt")
            if not text.exists():
                text.write_text(caption.strip() + "\n", encoding="utf-8")
    return kept


def _strip(frames):
    """Some of the frames, uint8 [F,H,W,3], side by side: [96,W',3]."""
    if len(frames) > STRIP_FRAMES:
        frames = frames[np.linspace(0, len(frames) - 1, STRIP_FRAMES).astype(int)]
    width = max(1, round(frames.shape[2] * STRIP_HEIGHT / frames.shape[1]))
    return np.concatenate([resize(frame, (STRIP_HEIGHT, width)) for frame in frames], axis=1)
