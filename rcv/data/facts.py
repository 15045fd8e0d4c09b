"""What a clip's file holds, found by decoding it to its end: a damaged clip is found before the training starts."""

import hashlib
import json
from dataclasses import dataclass

import av
import numpy as np
import PIL

from rcv.video import FOLDER_FPS, iter_timed_frames
from rcv.video.images import IMAGE_SUFFIXES

DECODERS = f"PyAV {av.__version__}, Pillow {PIL.__version__}"
TIME_TOLERANCE = 1e-3
"""Containers round their time stamps, Matroska to a millisecond."""


@dataclass(frozen=True)
class Facts:
    """Height and width, the time from which each frame is shown (seconds), and a digest of the file's content."""

    size: tuple[int, int]
    times: tuple[float, ...]
    content: str

    @property
    def fps(self):
        """Mean frame rate; of a single frame FOLDER_FPS."""
        shown = self.times[-1] - self.times[0]
        return (len(self.times) - 1) / shown if shown > 0 else FOLDER_FPS

    def frames_between(self, start, end):
        """Return the numbers of the frames that begin from `start` on and before `end`, in seconds of the clip."""
        times = np.asarray(self.times) - self.times[0]
        chosen = times >= start - TIME_TOLERANCE
        if end is not None:
            chosen &= times < end - TIME_TOLERANCE
        return np.flatnonzero(chosen)

    def frames_at(self, fps, numbers):
        """Return which frames are shown `fps` times a second, from the first of `numbers` to the end of the last.

        Each is the frame shown at that moment, by the time stamps: a variable frame rate becomes a constant one.
        Frames are left out where the clip has more, and come several times where it has fewer.
        """
        times = np.asarray(self.times)[numbers]
        lasts = times[-1] + 1 / self.fps - times[0]
        moments = times[0] + np.arange(max(1, int(lasts * fps + TIME_TOLERANCE))) / fps
        return numbers[np.searchsorted(times, moments + TIME_TOLERANCE, side="right") - 1]


def clip_facts(path, cache):
    """Return the Facts of a video file, a GIF or a folder of frames.

    They are kept in `cache` under the content, so that a clip is decoded once, wherever it lies.

    Raises
    ------
    ValueError
        Damaged, no video, no picture, frames of several sizes; OSError if it cannot be read.
    """
    if not path.is_dir() and not path.is_file():
        raise ValueError("neither a file nor a folder (a broken link?)")
    content = content_digest(path)
    key = f"facts of {content} by {DECODERS}"
    kept = cache.read(key)
    if kept is not None:
        said = json.loads(kept)
        return Facts(tuple(said["size"]), tuple(said["times"]), content)
    times, size = [], None
    for seconds, frame in iter_timed_frames(path):
        size = size or frame.shape[:2]
        if frame.shape[:2] != size:
            raise ValueError(
                f"frame {len(times)} is {frame.shape[:2]}, the ones before it {size} (height, width)"
            )
        times.append(max(round(seconds, 6), times[-1] if times else seconds))
    cache.write(key, json.dumps({"size": size, "times": times}).encode())
    return Facts(size, tuple(times), content)


def content_digest(path):
    """Return a digest of a file's bytes, or of the names and bytes of the images in a folder."""
    digest = hashlib.sha256()
    if not path.is_dir():
        _add(digest, path)
        return digest.hexdigest()
    for file in sorted(path.iterdir()):
        if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file():
            digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
            _add(digest, file)
    return digest.hexdigest()


def _add(digest, file):
    with open(file, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
