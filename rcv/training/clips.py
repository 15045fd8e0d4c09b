"""Clips to train on: every one is checked before training starts, samples are cut by the draws."""

from __future__ import annotations

import copy
import logging
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from rcv.data.buckets import Bucket
from rcv.data.cache import Cache
from rcv.data.entries import ClipsError
from rcv.data.survey import survey
from rcv.training.draws import clip_at, draw_generator
from rcv.video import iter_frames
from rcv.video.fitting import resize

CACHE_BYTES = 2**30
CROP_PLACES = 5
"""Places of a random crop along a side: few, so that the latents of a frame come again."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """Which part of which clip one sample takes: numbers only, so that it can be a key."""

    clip: int
    start: int
    top: int
    left: int
    mirrored: bool = False


class ClipFolder:
    """The clips of a folder or table, checked, resized to cover their bucket with their aspect kept, cut on demand.

    Parameters
    ----------
    folder : path
        Holds video files, GIFs and folders of frames, each with its caption in NAME.txt (UTF-8), or lists clips as
        JSONL or CSV: `rcv.data.sources.read_entries`.
    frames, stride : int
        A sample is `frames` frames, every `stride`-th of the clip from a random start.
    size : (int, int)
        Height and width of a sample. Frames are resized (antialiased) until they cover it; what is more is cut off.
    crop : {"center", "random"}
        What is kept.
    cache_bytes : int
        Resized clips are kept in memory until they fill this much; the others are decoded for each sample.
    buckets : list of Bucket
        Several shapes of samples instead of `frames` and `size`; all samples of a step are of one.
    fps : float, optional
        Frames a second at which clips are sampled; their own if left out.
    flip : float
        Probability that a sample is mirrored.
    skip_broken : bool
        Leave clips with problems out, with a warning that names them, instead of raising.
    cache : Cache, optional
        Where what is found out about clips is kept, so that a clip is decoded to its end once.

    Raises
    ------
    ClipsError
        Lists every clip that is damaged, empty, not a video, or too short, every caption that is missing, empty or
        not UTF-8, and names used twice; or says that the folder is missing, unreadable or holds no clip.
    """

    def __init__(
        self,
        folder,
        frames,
        size,
        stride=1,
        crop="center",
        cache_bytes=CACHE_BYTES,
        *,
        buckets=(),
        fps=None,
        flip=0.0,
        skip_broken=False,
        cache=None,
    ):
        self.folder, self.stride, self.crop, self.flip = Path(folder), stride, crop, flip
        self.disk = Cache(None) if cache is None else cache
        shapes = list(buckets) or [Bucket(frames, *size)]
        self.surveyed = survey(self.folder, shapes, stride, fps, self.disk)
        self.clips = tuple(found.clip for found in self.surveyed if found.clip is not None)
        problems = list(dict.fromkeys(line for found in self.surveyed for line in found.problems))
        if problems and (not skip_broken or not self.clips):
            raise ClipsError(self.folder, problems)
        if problems:
            listed = "\n".join(f"  {problem}" for problem in problems)
            logger.warning("%s: trained without what has problems:\n%s", self.folder, listed)
        self._drawn = _drawn_by_bucket(self.clips)
        self._kept, self._left, self._room = {}, cache_bytes, threading.Lock()
        self._decoding = [threading.Lock() for _ in self.clips]

    def __len__(self):
        return len(self.clips)

    @property
    def captions(self):
        """Return the captions in the clips' order."""
        return [clip.caption for clip in self.clips]

    def digests(self):
        """Return {name: digest of content, caption, part and repeats}: what a resumed run compares."""
        return {clip.name: clip.digest for clip in self.clips}

    def subset(self, numbers):
        """Return a ClipFolder of these clips alone, which shares what is decoded."""
        part = copy.copy(self)
        part.clips = tuple(self.clips[number] for number in numbers)
        part._drawn = _drawn_by_bucket(part.clips)
        part._kept = {k: self._kept[number] for k, number in enumerate(numbers) if number in self._kept}
        part._decoding = [self._decoding[number] for number in numbers]
        return part

    def bucket(self, seed, step):
        """Return the Bucket of all samples of optimizer step `step`; a function of these numbers alone."""
        return self._turn(seed, step)[0]

    def sample(self, seed, step, index, samples_per_step):
        """Return the Sample number `index` of optimizer step `step`; a function of these numbers alone."""
        bucket, turn = self._turn(seed, step)
        drawn = self._drawn[bucket]
        number = drawn[clip_at(seed, turn * samples_per_step + index, len(drawn))]
        return self.cut(number, draw_generator(seed, "cut", step, index), self.flip)

    def cut(self, number, generator, flip=0.0):
        """Return a Sample of clip `number`: its start, the place of a random crop, a flip, drawn from `generator`."""
        clip = self.clips[number]
        span = (clip.bucket.frames - 1) * self.stride + 1
        start = _draw_below(clip.frames - span + 1, generator)
        spare = [have - want for have, want in zip(clip.size, clip.bucket.size, strict=True)]
        if self.crop == "random":
            top, left = (_draw_place(pixels, generator) for pixels in spare)
        else:
            top, left = (pixels // 2 for pixels in spare)
        mirrored = flip > 0 and float(torch.rand((), generator=generator)) < flip
        return Sample(number, start, top, left, mirrored)

    def frame_indices(self, sample):
        """Return the numbers of the frames in the clip's file that `sample` takes, in order."""
        clip = self.clips[sample.clip]
        span = (clip.bucket.frames - 1) * self.stride + 1
        return clip.indices[sample.start : sample.start + span : self.stride]

    def pixels(self, sample):
        """Return the frames of `sample`: float32 [F,3,H,W] in [-1, 1]."""
        frames = self._resized(sample.clip, self.frame_indices(sample))
        height, width = self.clips[sample.clip].bucket.size
        cut = frames[:, sample.top : sample.top + height, sample.left : sample.left + width]
        if sample.mirrored:
            cut = cut[:, :, ::-1]
        return torch.from_numpy(np.ascontiguousarray(cut)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)

    def _turn(self, seed, step):
        """The bucket of a step, and how many steps before it were of this bucket.

        Of as many steps as there are clips each bucket has as many as it has clips, so that each clip is drawn equally
        often whatever its bucket.
        """
        if len(self._drawn) == 1:
            return next(iter(self._drawn)), step
        epoch = [bucket for bucket, clips in self._drawn.items() for _ in clips]
        cycle, place = divmod(step, len(epoch))
        order = torch.randperm(len(epoch), generator=draw_generator(seed, "order of buckets", cycle)).tolist()
        bucket = epoch[order[place]]
        before = sum(epoch[number] == bucket for number in order[:place])
        return bucket, cycle * len(self._drawn[bucket]) + before

    def _resized(self, number, indices):
        """Frames `indices` of a clip in its size, uint8 [F,H,W,3]: kept ones, or decoded and kept if there is room."""
        with self._decoding[number]:  # by one thread, while others may decode other clips
            kept = self._kept.get(number)
            if kept is None and self._takes_room(number):
                kept = self._kept[number] = self._decoded(number, self.clips[number].indices)
            frames = self._decoded(number, indices) if kept is None else kept
        return np.stack([frames[index] for index in indices])

    def _decoded(self, number, indices):
        clip, wanted = self.clips[number], sorted(set(indices))
        decoded = (resize(frame, clip.size) for frame in iter_frames(clip.path, wanted))
        return dict(zip(wanted, decoded, strict=True))

    def _takes_room(self, number):
        clip = self.clips[number]
        needed = len(set(clip.indices)) * clip.size[0] * clip.size[1] * 3
        with self._room:
            if needed > self._left:
                return False
            self._left -= needed
        return True


def _drawn_by_bucket(clips):
    """The numbers of the clips of each bucket, as often as they are drawn an epoch."""
    drawn = {}
    for number, clip in enumerate(clips):
        drawn.setdefault(clip.bucket, []).extend([number] * clip.repeats)
    return drawn


def _draw_below(count, generator):
    return int(torch.randint(count, (), generator=generator))


def _draw_place(pixels, generator):
    """One of CROP_PLACES places, evenly spread from 0 to `pixels`."""
    return round(_draw_below(CROP_PLACES, generator) * pixels / (CROP_PLACES - 1))
