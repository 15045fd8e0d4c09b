"""Folders of captioned clips: every file is checked before training starts, samples are cut by the draws."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from rcv.training.draws import clip_at, draw_generator
from rcv.video import iter_frames, read_video
from rcv.video.fitting import covering_size, resize
from rcv.video.images import IMAGE_SUFFIXES

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts"),
    *(".wmv", ".flv", ".ogv", ".3gp", ".mjpeg", ".y4m"),
)
CACHE_BYTES = 2**30
EXPECTED = "video files, GIFs or folders of frames, each with its caption beside it in NAME.txt"


class ClipsError(ValueError):
    """A folder of clips that cannot be trained on. `problems` holds one sentence a problem."""

    def __init__(self, folder, problems):
        self.problems = tuple(problems)
        lines = "\n".join(f"  {problem}" for problem in self.problems)
        count = f"{len(self.problems)} problem{'s' if len(self.problems) > 1 else ''}"
        super().__init__(f"clips: {count} in {folder}; nothing was written:\n{lines}")


@dataclass(frozen=True)
class Clip:
    """One clip: its caption, number of frames, size after resizing, and a digest of its content and caption."""

    name: str
    path: Path
    caption: str
    frames: int
    size: tuple[int, int]
    digest: str


@dataclass(frozen=True)
class Sample:
    """Which part of which clip one sample takes: numbers only, so that it can be a key."""

    clip: int
    start: int
    top: int
    left: int


class ClipFolder:
    """The clips of a folder, checked, resized to cover `size` with their aspect kept, and cut on demand.

    Parameters
    ----------
    folder : path
        Holds video files, GIFs and folders of frames, each with its caption in NAME.txt (UTF-8). Hidden files and
        files that are neither are left alone.
    frames, stride : int
        A sample is `frames` frames, every `stride`-th of the clip from a random start.
    size : (int, int)
        Height and width of a sample. Frames are resized (antialiased) until they cover it; what is more is cut off.
    crop : {"random", "center"}
        Where it is cut off.
    cache_bytes : int
        Resized clips are kept in memory until they fill this much; the others are decoded for each sample.

    Raises
    ------
    ClipsError
        Lists every clip that is damaged, empty, not a video, or too short, every caption that is missing, empty or
        not UTF-8, and names used twice; or says that the folder is missing, unreadable or holds no clip.
    """

    def __init__(self, folder, frames, size, stride=1, crop="random", cache_bytes=CACHE_BYTES):
        self.folder, self.frames, self.stride, self.crop = Path(folder), frames, stride, crop
        self.size = tuple(size)
        self.span = (frames - 1) * stride + 1
        self._cache, self._cache_left = {}, cache_bytes
        paths, problems = find_clips(self.folder)
        clips = []
        for path in paths:
            caption, trouble = read_caption(path)
            problems += trouble
            clip, trouble = self._check(path, caption, index=len(clips))
            problems += trouble
            clips.append(clip)
        if problems:
            raise ClipsError(self.folder, problems)
        self.clips = tuple(clips)

    def __len__(self):
        return len(self.clips)

    @property
    def captions(self):
        """Return the captions in the clips' order."""
        return [clip.caption for clip in self.clips]

    def digests(self):
        """Return {name: digest of content and caption}: what a resumed run compares."""
        return {clip.name: clip.digest for clip in self.clips}

    def subset(self, numbers):
        """Return a ClipFolder of these clips alone, which shares what is decoded."""
        part = copy.copy(self)
        part.clips = tuple(self.clips[number] for number in numbers)
        part._cache = {k: self._cache[number] for k, number in enumerate(numbers) if number in self._cache}
        return part

    def sample(self, seed, step, index, samples_per_step):
        """Return the Sample number `index` of optimizer step `step`; a function of these numbers alone."""
        number = clip_at(seed, step * samples_per_step + index, len(self.clips))
        return self.cut(number, draw_generator(seed, "cut", step, index))

    def cut(self, number, generator):
        """Return a Sample of clip `number`: its start, and the place of a random crop, drawn from `generator`."""
        clip = self.clips[number]
        start = _draw_below(clip.frames - self.span + 1, generator)
        spare = [have - want for have, want in zip(clip.size, self.size, strict=True)]
        if self.crop == "random":
            top, left = (_draw_below(pixels + 1, generator) for pixels in spare)
        else:
            top, left = (pixels // 2 for pixels in spare)
        return Sample(number, start, top, left)

    def frame_indices(self, sample):
        """Return the numbers of the clip's frames that `sample` takes."""
        return range(sample.start, sample.start + self.span, self.stride)

    def pixels(self, sample):
        """Return the frames of `sample`: float32 [F,3,H,W] in [-1, 1]."""
        clip, indices = self.clips[sample.clip], self.frame_indices(sample)
        cached = self._cache.get(sample.clip)
        if cached is not None:
            frames = cached[list(indices)]
        else:
            decoded = read_video(clip.path, indices=indices).frames
            frames = np.stack([resize(frame, clip.size) for frame in decoded])
        height, width = self.size
        cut = frames[:, sample.top : sample.top + height, sample.left : sample.left + width]
        return torch.from_numpy(np.ascontiguousarray(cut)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)

    def _check(self, path, caption, index):
        """Decode a clip to its end: its Clip (None if it has a problem) and the problems."""
        try:
            if not path.is_dir() and not path.is_file():
                raise ValueError("neither a file nor a folder (a broken link?)")
            count, size, resized = 0, None, []
            for frame in iter_frames(path):
                if size is None:
                    shape, size = frame.shape, covering_size(frame.shape[:2], self.size)
                if frame.shape != shape:
                    raise ValueError(
                        f"frame {count} is {frame.shape[:2]}, the ones before it {shape[:2]} (height, width)"
                    )
                count += 1
                if resized is not None:
                    resized.append(resize(frame, size))
                    if len(resized) * resized[0].nbytes > self._cache_left:
                        resized = None
            if count < self.span:
                stride = f" with stride {self.stride}" if self.stride > 1 else ""
                raise ValueError(
                    f"{count} frames, fewer than the {self.span} that a sample of {self.frames}{stride} spans"
                )
            digest = content_digest(path, caption)
        except Exception as error:  # whatever a decoder throws at a hostile file is that file's problem
            reason = str(error).removeprefix(f"{path}: ") or type(error).__name__
            return None, [f"{path.name}: {reason}"]
        if resized is not None:
            self._cache[index] = np.stack(resized)
            self._cache_left -= self._cache[index].nbytes
        return Clip(path.name, path, caption, count, size, digest), []


def find_clips(folder):
    """Return the clips of a folder in the order of their names, and the problems that need no decoding."""
    if not folder.exists():
        raise ClipsError(folder, ["no such folder"])
    if not folder.is_dir():
        raise ClipsError(folder, [f"this is a file; expected a folder of {EXPECTED}"])
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        paths = [entry for entry in entries if _is_clip(entry)]
    except OSError as error:
        raise ClipsError(folder, [f"the folder cannot be read ({error.strerror})"]) from error
    if not paths:
        others = ", ".join(entry.name for entry in entries[:5])
        found = f"only {others}{', ...' if len(entries) > 5 else ''}" if entries else "nothing"
        raise ClipsError(folder, [f"no clip: the folder holds {found}; expected {EXPECTED}"])
    names = {}
    for path in paths:
        names.setdefault(caption_path(path).name.lower(), []).append(path.name)
    shared = [
        f"{' and '.join(clips)}: same name, so they would share one caption; rename all but one"
        for clips in names.values()
        if len(clips) > 1
    ]
    return paths, shared


def _is_clip(path):
    if path.suffix.lower() == ".txt":
        return False
    if path.is_dir():
        has_images = any(file.suffix.lower() in IMAGE_SUFFIXES for file in path.iterdir())
        return has_images or caption_path(path).exists()
    return path.suffix.lower() in VIDEO_SUFFIXES or caption_path(path).exists()


def caption_path(path):
    """Return where the caption of a clip stands: NAME.txt beside it."""
    return path.with_name((path.name if path.is_dir() else path.stem) + ".txt")


def read_caption(path):
    """Return the caption of a clip, white space collapsed, and the problems with it."""
    file = caption_path(path)
    try:
        caption = " ".join(file.read_text(encoding="utf-8-sig").split())
    except FileNotFoundError:
        return None, [f"{path.name}: no caption; write what it shows into {file.name}"]
    except UnicodeDecodeError as error:
        return None, [f"{file.name}: not UTF-8 (byte {error.start}); save the caption as UTF-8 text"]
    except OSError as error:
        return None, [f"{file.name}: cannot be read ({error.strerror})"]
    return caption, [] if caption else [f"{file.name}: the caption is empty; write what {path.name} shows"]


def content_digest(path, caption):
    """Return a digest of a clip's bytes and caption."""
    digest = hashlib.sha256((caption or "").encode())
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    for file in files:
        digest.update(file.name.encode() + b"\0" if path.is_dir() else b"")
        with open(file, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]


def _draw_below(count, generator):
    return int(torch.randint(count, (), generator=generator))
